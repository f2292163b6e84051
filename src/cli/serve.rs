//! Owns how a server starts: configuration, database, threads, listeners, signals, and the turn. Never serves itself.
//! Enter at [`run`].

use super::{Exit, complain, load, mistaken};
use crate::api::routes::Door;
use crate::auth::Verifier;
use crate::channel_layer::{self, ChannelLayer, JoinError};
use crate::clock::Clock;
use crate::config::{Backend, Config, Key, Level, Mistakes, NO_KEY};
use crate::hub::Rules;
use crate::inbox::{Letter, Postbox};
use crate::log::Log;
use crate::reactor::{Entrance, Reactor};
use crate::storage::Storage;
use crate::storage::file::{DatabaseFile, OpenError};
use crate::storage::job::Census;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Descriptors that are not connections: files, listeners, pipes.
const RESERVED_DESCRIPTORS: usize = 64;

pub(super) fn run(config: Result<Config, Mistakes>, file: Option<PathBuf>) -> Exit {
    match config {
        Ok(config) => serve(&config, Reload::File(file), |_| {}),
        Err(mistakes) => mistaken(&mistakes),
    }
}

/// What SIGHUP does.
pub(super) enum Reload {
    /// Reads the configuration again: this file, or the one that is found without a name.
    File(Option<PathBuf>),
    /// There is nothing to read.
    Nothing,
}

/// Serves until a signal ends it. `ready`: told the address once everything listens.
pub(super) fn serve(config: &Config, reload: Reload, ready: impl FnOnce(SocketAddr)) -> Exit {
    let verifier = match usable(config) {
        Ok(verifier) => verifier,
        Err(what) => return complain(what, Exit::Usage),
    };
    let rules = Rules::new(config, Some(verifier), connections(config));
    let claimed = match DatabaseFile::claim(&config.storage.path) {
        Ok(claimed) => claimed,
        Err(e) => return complain(&e, exit_of(&e)),
    };
    let path = config.storage.path.display().to_string();
    let open = |post: &Postbox, clock| Storage::open(claimed, clock, post);
    start(config, rules, Some(Box::new(open)), reload, ready, &json!({ "database": path }))
}

/// `habittod echo`: the same reactor and protocol code, and nobody to know.
pub(super) fn echo(listen: Option<SocketAddr>) -> Exit {
    let mut config = Config::default();
    config.server.listen = vec![listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9001)))];
    config.server.admin_listen.clear();
    let rules = Rules::new(&config, None, connections(&config));
    start(&config, rules, None, Reload::Nothing, |_| {}, &json!({ "echo": true }))
}

type Open<'a> = Box<dyn FnOnce(&Postbox, Clock) -> Result<(Storage, Census), OpenError> + 'a>;

fn start(
    config: &Config,
    rules: Rules,
    open: Option<Open<'_>>,
    reload: Reload,
    ready: impl FnOnce(SocketAddr),
    told: &serde_json::Value,
) -> Exit {
    let clock = Clock::start();
    let mut log = Log::start(config.log.level, config.log.format);
    let mut entrance = match Entrance::new() {
        Ok(entrance) => entrance,
        Err(e) => return complain(format!("cannot wait for sockets: {e}"), Exit::Failed),
    };
    let (mut bound, mut admin) = (Vec::new(), Vec::new());
    let doors = [(&config.server.listen, Door::Public), (&config.server.admin_listen, Door::Admin)];
    for (address, door) in doors.into_iter().flat_map(|(list, door)| list.iter().map(move |address| (*address, door))) {
        match entrance.listen(address, door) {
            Ok(address) if door == Door::Admin => admin.push(address),
            Ok(address) => bound.push(address),
            Err(e) => {
                let key = if door == Door::Admin { "server.admin_listen" } else { "server.listen" };
                return complain(format!("cannot listen on {address}: {e}; choose another {key}"), Exit::Failed);
            }
        }
    }
    let (layer, census) = match open.map(|open| open(entrance.post(), clock)).transpose() {
        Ok(Some((storage, census))) => match road(config, storage, entrance.post(), clock) {
            Ok(layer) => (Some(layer), census),
            Err(e @ JoinError::Log(_)) => return complain(&e, Exit::Database),
            Err(e @ JoinError::Address(_)) => return complain(&e, Exit::Usage),
            Err(e @ JoinError::Thread(..)) => return complain(&e, Exit::Failed),
        },
        Ok(None) => (None, Census::default()),
        Err(e) => return complain(&e, exit_of(&e)),
    };
    if let Err(e) = signals(entrance.post().clone(), reload) {
        return complain(format!("cannot take signals: {e}"), Exit::Failed);
    }
    log.write(clock.now().wall_ms, Level::Info, "listening", |line| {
        line.field("listen", &bound);
        line.field("admin", &admin);
        line.field("version", env!("CARGO_PKG_VERSION"));
        line.field("pid", std::process::id());
        line.field("on", told);
    });
    log.flush();
    if let Some(first) = bound.first() {
        ready(*first);
    }
    match Reactor::new(entrance, clock, rules, &census, layer, log).run() {
        Ok(()) => Exit::Done,
        Err(e) => complain(format!("waiting for sockets failed: {e}"), Exit::Failed),
    }
}

/// The road that the configuration chooses.
fn road(config: &Config, storage: Storage, post: &Postbox, clock: Clock) -> Result<ChannelLayer, JoinError> {
    match config.channel_layer.backend {
        Backend::InMemory => Ok(ChannelLayer::in_memory(storage)),
        Backend::Redis => {
            let (path, message_max) = (&config.storage.path, config.limits.body);
            ChannelLayer::shared(storage, path, message_max, &config.channel_layer, post, clock)
        }
    }
}

/// Whether a server could run with this; gives back what checks the tokens.
pub(super) fn usable(config: &Config) -> Result<Verifier, String> {
    match &config.auth.key {
        Some(Key::Secret(secret)) => Verifier::from_secret(secret).map_err(|e| format!("auth.secret: {e}")),
        Some(Key::PublicPem(pem)) => Verifier::from_public_pem(pem).map_err(|e| format!("auth.public_key_file: {e}")),
        None => Err(NO_KEY.to_owned()),
    }
}

pub(super) fn exit_of(e: &OpenError) -> Exit {
    if e.is_database() { Exit::Database } else { Exit::Failed }
}

/// Raises the soft descriptor limit to the hard one; how many connections that leaves room for.
fn connections(config: &Config) -> usize {
    let reserved = RESERVED_DESCRIPTORS + channel_layer::django_descriptors(&config.channel_layer);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let room = allowed.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)).saturating_sub(reserved);
    config.limits.connections.map_or(room, |most| room.min(most as usize))
}

/// Takes signals on a thread of its own, which also reads the configuration anew: the loop's thread reads no file.
fn signals(post: Postbox, reload: Reload) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            match (signal, &reload) {
                (SIGHUP, Reload::Nothing) => {}
                (SIGHUP, Reload::File(file)) => match reloaded(file.as_ref()) {
                    Ok((rules, level)) => post.post(Letter::Reload { rules: Box::new(rules), level }),
                    // A bad file changes nothing.
                    Err(what) => {
                        complain(format!("not reloaded: {what}"), Exit::Usage);
                        post.post(Letter::NotReloaded(what));
                    }
                },
                _ => post.post(Letter::Stop),
            }
        }
    })?;
    Ok(())
}

fn reloaded(file: Option<&PathBuf>) -> Result<(Rules, Level), String> {
    let config = load(file).map_err(|mistakes| mistakes.to_string())?;
    let verifier = usable(&config)?;
    Ok((Rules::new(&config, Some(verifier), connections(&config)), config.log.level))
}
