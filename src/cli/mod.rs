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

const HELP: &str = "\
habittod: real-time notifications for Habitto, stored and synced, in one binary

  habittod serve [--config FILE]               run the server in the foreground
  habittod demo [--listen ADDR] [--quiet]      the same on a throw-away database with people in it who do things
  habittod check [--digest] [--config FILE]    say whether configuration and database are right
  habittod import FILE [--config FILE]         take users, properties and matches from JSON Lines
  habittod backup FILE [--config FILE]         copy the database into one file, beside a running server or without one
  habittod explain NOTIFICATION_ID [--config FILE]   tell what became of a notification, and why
  habittod token USER_ID [--ttl 1h] [--service] [--config FILE]   print an access token
  habittod probe URL --token T                 say whether something on the way to a server answers pings itself
  habittod echo [--listen ADDR]                a WebSocket echo server, for conformance suites
  habittod --version | --help

Without --config: config.toml of the current folder if there is one, else the defaults. Each key can be set by an
environment variable: HABITTOD_<SECTION>_<KEY>. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a
database that is damaged, missing or in use.
";

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
    if given.help {
        return say(HELP);
    }
    let allowed: (&[&str], usize) = match command.as_str() {
        "serve" => (&["--config"], 0),
        "check" => (&["--config", "--digest"], 0),
        "demo" => (&["--listen", "--quiet"], 0),
        "echo" => (&["--listen"], 0),
        "import" | "backup" | "explain" => (&["--config"], 1),
        "probe" => (&["--token"], 1),
        "token" => (&["--config", "--ttl", "--service"], 1),
        _ => (&[], 0),
    };
    if let Some(odd) = given.options.iter().find(|option| !allowed.0.contains(option)) {
        return usage(&format!("{command} takes no {odd}"));
    }
    if given.words.len() > allowed.1 {
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
        "--help" | "-h" | "help" => say(HELP),
        "--version" | "-V" => say(concat!("habittod ", env!("CARGO_PKG_VERSION"), "\n")),
        "" => usage("no command given"),
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
            let mut value = |name: &str| words.next().ok_or_else(|| format!("{name} needs a value"));
            match word.as_str() {
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
                _ => given.words.push(word),
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
