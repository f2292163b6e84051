//! Owns the command line: which commands there are, what they take, what they exit with. Never does a command's work.
//! Enter at [`run`].

mod backup;
mod check;
mod client;
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
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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

/// How a command went; what went wrong is said already.
type Ran = Result<(), Exit>;

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
    run: fn(&Given) -> Ran,
}

const COMMANDS: &[Spec] = &[
    Spec {
        name: "serve",
        takes: "[--config FILE]",
        options: &["--config"],
        word: false,
        does: "run the server in the foreground",
        more: "\
SIGTERM and SIGINT drain it (server.drain), a second one ends it at once. SIGHUP reloads everything but server.listen,
server.admin_listen, storage.path, delivery.ack, channel_layer, log.format, and limits.body for Django's messages. Log
lines go to standard output. It refuses to start without a key: HABITTOD_AUTH_SECRET, auth.secret_file or
auth.public_key_file.
",
        run: serve::run,
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
        run: demo::run,
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
        run: check::run,
    },
    Spec {
        name: "import",
        takes: "FILE [--config FILE]",
        options: &["--config"],
        word: true,
        does: "take users, properties and matches from JSON Lines",
        more: "\
One {\"user\":{…}}, {\"property\":{…}} or {\"match\":{…}} a line, with the fields of the service calls (/api/openapi.json) and
an id; fields that those do not name are kept with the row. All lines or none; may be repeated. Not beside a running
server.
",
        run: import::run,
    },
    Spec {
        name: "backup",
        takes: "FILE [--config FILE]",
        options: &["--config"],
        word: true,
        does: "copy the database into one file, beside a running server or without one",
        more: "\
FILE must not exist. To restore: stop the server, remove the -wal and -shm files beside storage.path, put the copy in
its place, start.
",
        run: backup::run,
    },
    Spec {
        name: "explain",
        takes: "NOTIFICATION_ID [--config FILE]",
        options: &["--config"],
        word: true,
        does: "tell what became of a notification, and why",
        more: "\
From the rows; which sockets it went to, from the memory of the server on server.admin_listen, if one runs. A socket's
number tells it from others of the same server, and stands nowhere else.
",
        run: explain::run,
    },
    Spec {
        name: "token",
        takes: "USER_ID|--service [--ttl 1h] [--config FILE]",
        options: &["--config", "--ttl", "--service"],
        word: true,
        does: "print an access token made with the configured secret",
        more: "\
Good for --ttl, else for auth.access_ttl.
  --service       for the backend: the service calls, and nothing that is a user's own; needs no USER_ID
",
        run: token::run,
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
        run: probe::run,
    },
    Spec {
        name: "echo",
        takes: "[--listen ADDR]",
        options: &["--listen"],
        word: false,
        does: "run a WebSocket echo server, for conformance suites",
        more: "\
Any path, no token, messages up to 16 MiB, on the same reactor and protocol code.
  --listen ADDR   instead of 127.0.0.1:9001; port 0: any free one
",
        run: serve::echo,
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
    dispatch(args).map_or_else(|exit| exit, |()| Exit::Done)
}

fn dispatch(args: impl Iterator<Item = OsString>) -> Ran {
    let words: Result<Vec<String>, OsString> = args.map(OsString::into_string).collect();
    let mut words = words.or_else(|_| usage("", "an argument is not UTF-8"))?.into_iter();
    let command = words.next().unwrap_or_default();
    let spec = COMMANDS.iter().find(|spec| spec.name == command);
    let name = spec.map_or("", |spec| spec.name);
    let given = Given::read(name, words).or_else(|what| usage(name, &what))?;
    let Some(spec) = spec else {
        return match command.as_str() {
            "--help" | "-h" | "help" => say(&help(None)),
            "--version" | "-V" => say(concat!("habittod ", env!("CARGO_PKG_VERSION"), "\n")),
            "" => usage("", "no command given"),
            _ => usage("", &format!("there is no command {command:?}")),
        };
    };
    if given.help {
        return say(&help(Some(spec)));
    }
    if let Some(odd) = given.options.iter().find(|option| !spec.options.contains(option)) {
        return given.usage(&format!("{name} takes no {odd}"));
    }
    if let Some(odd) = given.words.get(usize::from(spec.word)) {
        return given.usage(&format!("{odd:?} is a word too many"));
    }
    (spec.run)(&given)
}

/// Options that are there or not.
const FLAGS: [&str; 3] = ["--service", "--digest", "--quiet"];

/// Options and words of one command.
#[derive(Default)]
struct Given {
    command: &'static str,
    options: Vec<&'static str>,
    words: Vec<String>,
    file: Option<PathBuf>,
    listen: Option<SocketAddr>,
    ttl: Option<Duration>,
    token: Option<String>,
    help: bool,
}

impl Given {
    fn read(command: &'static str, mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut given = Self { command, ..Self::default() };
        while let Some(word) = words.next() {
            // `--name value` and `--name=value` are the same.
            let (option, mut inline) = match word.split_once('=').filter(|(name, _)| name.starts_with("--")) {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = |name: &'static str| {
                given.options.push(name);
                inline.take().or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"))
            };
            match option {
                "--config" => match value("--config")? {
                    name if name.is_empty() => return Err("--config names no file".to_owned()),
                    name => given.file = Some(name.into()),
                },
                "--listen" => {
                    let address = config::address(&value("--listen")?);
                    given.listen = Some(address.map_err(|e| format!("--listen: {e}"))?);
                }
                "--ttl" => {
                    let duration = config::duration(&value("--ttl")?);
                    given.ttl = Some(duration.map_err(|e| format!("--ttl: {e}"))?);
                }
                "--token" => given.token = Some(value("--token")?),
                "--help" | "-h" => given.help = true,
                option if option.starts_with('-') => match FLAGS.iter().find(|flag| **flag == option) {
                    Some(flag) => given.options.push(flag),
                    None => return Err(format!("there is no option {option:?}")),
                },
                _ => given.words.push(word.clone()),
            }
            if inline.is_some() {
                return Err(format!("{option} takes no value"));
            }
        }
        Ok(given)
    }

    fn has(&self, option: &str) -> bool {
        self.options.contains(&option)
    }

    /// The word that follows the options; an empty one names nothing.
    fn word(&self) -> Option<&str> {
        self.words.first().map(String::as_str).filter(|word| !word.is_empty())
    }

    fn config(&self) -> Result<Config, Exit> {
        load(self.file.as_deref()).map_err(|mistakes| {
            let _ = writeln!(std::io::stderr(), "{mistakes}");
            Exit::Usage
        })
    }

    fn usage<T>(&self, what: &str) -> Result<T, Exit> {
        usage(self.command, what)
    }
}

/// The configuration: of the file that is named, or the current folder's.
fn load(named: Option<&Path>) -> Result<Config, Mistakes> {
    Config::load(config_file(named), std::env::vars_os())
}

fn config_file(named: Option<&Path>) -> Option<&Path> {
    let here = Path::new("config.toml");
    // One that cannot be read is there: whoever put it there does not mean the defaults.
    let is_there = || !here.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    named.or_else(|| is_there().then_some(here))
}

fn say(text: &str) -> Ran {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has gone does not want to know.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => complain(format!("standard output: {e}"), Exit::Failed),
        _ => Ok(()),
    }
}

fn warn(what: impl Display) {
    let _ = writeln!(std::io::stderr(), "habittod: warning: {what}");
}

fn complain<T>(what: impl Display, exit: Exit) -> Result<T, Exit> {
    let _ = writeln!(std::io::stderr(), "habittod: {what}");
    Err(exit)
}

/// `command`: whose help there is to see; none: that of all.
fn usage<T>(command: &str, what: &str) -> Result<T, Exit> {
    let space = if command.is_empty() { "" } else { " " };
    complain(format!("{what}; see habittod {command}{space}--help"), Exit::Usage)
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
        let read = |words: &[&str]| Given::read("token", words.iter().map(ToString::to_string));
        for words in [&["7", "--ttl", "5m"][..], &["--ttl=5m", "7"]] {
            let given = read(words).unwrap();
            assert_eq!((given.ttl, given.words), (Some(Duration::from_secs(300)), vec!["7".to_owned()]));
        }
        assert_eq!(read(&["--token=a=b"]).unwrap().token.as_deref(), Some("a=b"));
        for wrong in [&["--ttl"][..], &["--ttl="], &["--quiet=yes"], &["--config"], &["--config="], &["--steal=1"]] {
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
