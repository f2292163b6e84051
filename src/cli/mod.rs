//! Owns the command line: which commands there are, what they take, what they exit with. Never does a command's work.
//! Enter at [`run`].

mod backup;
mod check;
mod demo;
mod explain;
mod import;
mod probe;
mod serve;
mod systemd;
mod token;

use crate::config::{self, Config, Mistakes};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// Failed at run time: a port in use.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// A database that is damaged, missing or in use: a restart will not help.
    Database = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command as `--help` and the reading of its words know it.
struct Spec {
    name: &'static str,
    /// What follows the name.
    takes: &'static str,
    options: &'static [&'static str],
    /// Whether a word follows the options.
    word: bool,
    does: &'static str,
    /// What its own `--help` adds.
    more: &'static str,
}

const COMMANDS: &[Spec] = &[
    Spec {
        name: "serve",
        takes: "[--config FILE]",
        options: &["--config"],
        word: false,
        does: "run the server in the foreground",
        more: "\
SIGTERM and SIGINT drain it (server.drain), a second one ends it at once. SIGHUP reloads limits, log level, keys and
origins. Log lines go to standard output. It refuses to start without a key: HABITTOD_AUTH_SECRET, auth.secret_file or
auth.public_key_file.
",
    },
    Spec {
        name: "demo",
        takes: "[--listen ADDR] [--quiet]",
        options: &["--listen", "--quiet"],
        word: false,
        does: "run a server on a throw-away database with people in it who do things",
        more: "\
Prints links that open in a browser already signed in, and ready curl lines. Ignores config.toml.
  --listen ADDR   instead of 127.0.0.1:8000; port 0: any free one
  --quiet         nobody likes anything unless you do
",
    },
    Spec {
        name: "check",
        takes: "[--digest] [--config FILE]",
        options: &["--config", "--digest"],
        word: false,
        does: "say whether configuration and database are right",
        more: "\
Says what would be listened on, or all that is wrong. Makes and changes nothing; may run beside a server.
  --digest        a digest of all rows, equal on nodes that agree
",
    },
    Spec {
        name: "import",
        takes: "FILE [--config FILE]",
        options: &["--config"],
        word: true,
        does: "take users, properties and matches from JSON Lines",
        more: "\
One {\"user\":{…}}, {\"property\":{…}} or {\"match\":{…}} a line, with the fields of the service calls and an id. All lines
or none; may be repeated. Not beside a running server.
",
    },
    Spec {
        name: "backup",
        takes: "FILE [--config FILE]",
        options: &["--config"],
        word: true,
        does: "copy the database into one file, beside a running server or without one",
        more: "\
To restore: stop the server, remove the -wal and -shm files beside storage.path, put the copy in its place, start.
",
    },
    Spec {
        name: "explain",
        takes: "NOTIFICATION_ID [--config FILE]",
        options: &["--config"],
        word: true,
        does: "tell what became of a notification, and why",
        more: "\
From the rows; which sockets it went to, from the memory of the server on server.admin_listen, if one runs.
",
    },
    Spec {
        name: "token",
        takes: "USER_ID [--ttl 1h] [--service] [--config FILE]",
        options: &["--config", "--ttl", "--service"],
        word: true,
        does: "print an access token made with the configured secret",
        more: "\
Good for --ttl, else for auth.access_ttl.
  --service       for the backend: the service calls, and nothing that is a user's own; needs no USER_ID
",
    },
    Spec {
        name: "probe",
        takes: "URL --token T",
        options: &["--token"],
        word: true,
        does: "say whether something on the way to a server answers pings itself",
        more: "\
Connects as a client that withholds its Pongs. URL: ws://, wss://, http:// or https://, with or without a path. Where a
proxy answers in the client's place, set delivery.ack to \"client\" or \"written\".
",
    },
    Spec {
        name: "echo",
        takes: "[--listen ADDR]",
        options: &["--listen"],
        word: false,
        does: "run a WebSocket echo server, for conformance suites",
        more: "\
Any path, no token, messages up to 16 MiB, on the same reactor and protocol code.
",
    },
];

const NOTES: &str = "\
Without --config: config.toml of the current folder if there is one, else the defaults. Each key can be set by an
environment variable: HABITTOD_<SECTION>_<KEY>. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a
database that is damaged, missing or in use.
";

/// Of all commands, or of one.
fn help(of: Option<&Spec>) -> String {
    let Some(spec) = of else {
        let mut text = "habittod: real-time notifications for Habitto, stored and synced, in one binary\n\n".to_owned();
        for Spec { name, takes, does, .. } in COMMANDS {
            text.push_str(&format!("  habittod {name} {takes}\n      {does}\n"));
        }
        text.push_str("  habittod --version | --help | COMMAND --help\n\n");
        return text + NOTES;
    };
    let Spec { name, takes, does, more, options, .. } = spec;
    let notes = if options.contains(&"--config") { format!("\n{NOTES}") } else { String::new() };
    let (first, rest) = does.split_at(1);
    format!("habittod {name} {takes}\n\n{}{rest}.\n\n{more}{notes}", first.to_uppercase())
}

/// Runs one command.
pub fn run(args: impl Iterator<Item = OsString>) -> Exit {
    let mut words = Vec::new();
    for arg in args {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(_) => return usage("an argument is not UTF-8"),
        }
    }
    let mut words = words.into_iter();
    let command = words.next().unwrap_or_default();
    let given = match Given::read(words) {
        Ok(given) => given,
        Err(what) => return usage(&what),
    };
    match command.as_str() {
        "--help" | "-h" | "help" => return say(&help(None)),
        "--version" | "-V" => return say(concat!("habittod ", env!("CARGO_PKG_VERSION"), "\n")),
        "" => return usage("no command given"),
        _ => {}
    }
    let Some(spec) = COMMANDS.iter().find(|spec| spec.name == command) else {
        return usage(&format!("there is no command {command:?}"));
    };
    if given.help {
        return say(&help(Some(spec)));
    }
    if let Some(odd) = given.options.iter().find(|option| !spec.options.contains(option)) {
        return usage(&format!("{command} takes no {odd}"));
    }
    if given.words.len() > usize::from(spec.word) {
        return usage(&format!("{command} takes no further words"));
    }
    match command.as_str() {
        "serve" => serve::run(load(given.config.as_ref()), given.config),
        "check" => check::run(load(given.config.as_ref()), config_file(given.config.as_ref()).as_deref(), given.digest),
        "demo" => demo::run(given.listen, given.options.contains(&"--quiet")),
        "echo" => serve::echo(given.listen),
        "import" => import::run(load(given.config.as_ref()), given.words.first()),
        "backup" => backup::run(load(given.config.as_ref()), given.words.first()),
        "probe" => probe::run(given.words.first(), given.token.as_ref()),
        "explain" => explain::run(load(given.config.as_ref()), given.words.first()),
        "token" => token::run(load(given.config.as_ref()), given.words.first(), given.ttl, given.service),
        // Each of COMMANDS has its line above.
        other => usage(&format!("there is no command {other:?}")),
    }
}

/// Options and words of one command.
#[derive(Default)]
struct Given {
    options: Vec<&'static str>,
    words: Vec<String>,
    config: Option<PathBuf>,
    listen: Option<std::net::SocketAddr>,
    ttl: Option<Duration>,
    token: Option<String>,
    service: bool,
    digest: bool,
    help: bool,
}

impl Given {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut given = Self::default();
        while let Some(word) = words.next() {
            // `--name value` and `--name=value` are the same.
            let (option, mut inline) = match word.split_once('=').filter(|(name, _)| name.starts_with("--")) {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value =
                |name: &str| inline.take().or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"));
            match option {
                "--config" => {
                    given.options.push("--config");
                    given.config = Some(value("--config")?.into());
                }
                "--listen" => {
                    given.options.push("--listen");
                    let text = value("--listen")?;
                    given.listen = Some(config::address(&text).map_err(|e| format!("--listen: {e}"))?);
                }
                "--ttl" => {
                    given.options.push("--ttl");
                    let text = value("--ttl")?;
                    given.ttl = Some(config::duration(&text).map_err(|e| format!("--ttl: {e}"))?);
                }
                "--token" => {
                    given.options.push("--token");
                    given.token = Some(value("--token")?);
                }
                "--service" => {
                    given.options.push("--service");
                    given.service = true;
                }
                "--digest" => {
                    given.options.push("--digest");
                    given.digest = true;
                }
                "--quiet" => given.options.push("--quiet"),
                "--help" | "-h" => given.help = true,
                option if option.starts_with('-') => return Err(format!("there is no option {option:?}")),
                _ => given.words.push(word.clone()),
            }
            if inline.is_some() {
                return Err(format!("{option} takes no value"));
            }
        }
        Ok(given)
    }
}

/// The configuration of a command.
fn load(file: Option<&PathBuf>) -> Result<Config, Mistakes> {
    Config::load(config_file(file).as_deref(), std::env::vars_os())
}

/// The one that is named, or the current folder's.
fn config_file(named: Option<&PathBuf>) -> Option<PathBuf> {
    let here = PathBuf::from("config.toml");
    named.cloned().or_else(|| here.exists().then_some(here))
}

fn say(text: &str) -> Exit {
    // A reader that has gone does not want to know.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Exit::Done
}

fn complain(what: impl Display, exit: Exit) -> Exit {
    let _ = writeln!(std::io::stderr(), "habittod: {what}");
    exit
}

fn usage(what: &str) -> Exit {
    complain(format!("{what}; see habittod --help"), Exit::Usage)
}

fn mistaken(mistakes: &Mistakes) -> Exit {
    let _ = writeln!(std::io::stderr(), "{mistakes}");
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_own_help() {
        let all = help(None);
        for spec in COMMANDS {
            let (usage, own) = (format!("habittod {} {}", spec.name, spec.takes), help(Some(spec)));
            assert!(all.contains(&usage), "{usage}");
            assert!(own.starts_with(&usage) && own.contains(&spec.does[1..]), "{own}");
            for option in spec.options {
                assert!(own.contains(option), "{}: {option}", spec.name);
            }
            assert!(own.lines().chain(all.lines()).all(|line| line.chars().count() <= 120), "{own}");
        }
    }

    #[test]
    fn values_follow_a_space_or_an_equals_sign() {
        let read = |words: &[&str]| Given::read(words.iter().map(ToString::to_string));
        for words in [&["7", "--ttl", "5m"][..], &["--ttl=5m", "7"]] {
            let given = read(words).unwrap();
            assert_eq!((given.ttl, given.words), (Some(Duration::from_secs(300)), vec!["7".to_owned()]));
        }
        assert_eq!(read(&["--token=a=b"]).unwrap().token.as_deref(), Some("a=b"));
        for wrong in [&["--ttl"][..], &["--ttl="], &["--quiet=yes"], &["--config"], &["--steal=1"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn wrong_usage_is_said_before_anything_is_read() {
        let exit = |words: &[&str]| run(words.iter().map(OsString::from));
        for wrong in [
            &[][..],
            &["steal"],
            &["steal", "--help"],
            &["serve", "--ttl", "1h"],
            &["check", "word"],
            &["token"],
            &["token", "01"],
            &["backup"],
            &["probe", "ws://h"],
        ] {
            assert_eq!(exit(wrong), Exit::Usage, "{wrong:?}");
        }
    }
}
