//! Owns how a server starts: configuration, database, threads, listeners, signals, and the turn. Never serves itself.
//! Enter at [`run`].

use super::systemd::{self, Manager};
use super::{Exit, Given, Ran, complain, config_file, load, warn};
use crate::api::routes::Door;
use crate::auth::Verifier;
use crate::channel_layer::{self, ChannelLayer, JoinError};
use crate::clock::Clock;
use crate::config::{self, Backend, Config, Django, Key, Level, NO_KEY};
use crate::hub::Rules;
use crate::inbox::{Letter, Postbox};
use crate::log::Log;
use crate::reactor::{Entrance, Reactor};
use crate::storage::Storage;
use crate::storage::file::{DatabaseFile, OpenError};
use crate::storage::job::Census;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Descriptors that are not open connections: files, listeners, pipes, and connections that are only turned away
/// (`hub::lifecycle::BEYOND_MAX`).
const RESERVED_DESCRIPTORS: usize = 64;
/// How long the loop may take to obey.
const RELOADED_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn run(given: &Given) -> Ran {
    let orders = Orders::take(Hangup::Reload(config_file(given.file.as_deref()).map(Path::to_owned)))?;
    serve(&given.config()?, orders, |_| {})
}

/// What SIGHUP does.
#[derive(PartialEq, Eq)]
pub(super) enum Hangup {
    /// Reads the configuration again: this file, or the one that is found without a name.
    Reload(Option<PathBuf>),
    /// There is nothing to read: it says that the terminal has gone.
    Stop,
}

/// The signals, taken over before anything else, so that none ends a start by chance.
pub(super) struct Orders {
    signals: Signals,
    hangup: Hangup,
    /// While it is so, a stop ends the process where it stands: so may a power loss.
    starting: Arc<AtomicBool>,
}

impl Orders {
    pub(super) fn take(hangup: Hangup) -> Result<Self, Exit> {
        let starting = Arc::new(AtomicBool::new(hangup != Hangup::Stop));
        let take = || {
            let signals = Signals::new([SIGTERM, SIGINT])?;
            if hangup != Hangup::Stop || !ignores_hangups() {
                signals.add_signal(SIGHUP)?;
            }
            for signal in [SIGTERM, SIGINT] {
                register_conditional_shutdown(signal, Exit::Done as i32, Arc::clone(&starting))?;
            }
            Ok(signals)
        };
        let signals = take().or_else(failed("cannot take signals"))?;
        Ok(Self { signals, hangup, starting })
    }
}

/// Whether whoever started this process lets it outlive the terminal, as `nohup` does.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Serves until a signal ends it. `ready`: told the address once everything listens.
pub(super) fn serve(config: &Config, orders: Orders, ready: impl FnOnce(SocketAddr)) -> Ran {
    let verifier = usable(config).or_else(|what| complain(what, Exit::Usage))?;
    let rules = Rules::new(config, Some(verifier), connections(config));
    let claimed = DatabaseFile::claim(&config.storage.path).or_else(|e| complain(&e, exit_of(&e)))?;
    let path = config.storage.path.display().to_string();
    let open = |post: &Postbox, clock| Storage::open(claimed, clock, post);
    start(config, rules, Some(Box::new(open)), orders, ready, &json!({ "database": path }))
}

/// `habittod echo`: the same reactor and protocol code, and nobody to know.
pub(super) fn echo(given: &Given) -> Ran {
    let orders = Orders::take(Hangup::Stop)?;
    let mut config = Config::default();
    config.server.listen = vec![given.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9001)))];
    config.server.admin_listen.clear();
    let rules = Rules::new(&config, None, connections(&config));
    start(&config, rules, None, orders, |_| {}, &json!({ "echo": true }))
}

type Addresses = Vec<SocketAddr>;
type Open<'a> = Box<dyn FnOnce(&Postbox, Clock) -> Result<(Storage, Census), OpenError> + 'a>;

fn start(
    config: &Config,
    rules: Rules,
    open: Option<Open<'_>>,
    orders: Orders,
    ready: impl FnOnce(SocketAddr),
    told: &serde_json::Value,
) -> Ran {
    let clock = Clock::start();
    let mut log = Log::start(config.log.level, config.log.format);
    let mut entrance = Entrance::new().or_else(failed("cannot wait for sockets"))?;
    // Where nothing is read from a file, the address is the command line's.
    let option = (orders.hangup == Hangup::Stop).then_some("--listen");
    let (bound, admin) = listen(&mut entrance, &config.server, option).or_else(|(what, exit)| complain(what, exit))?;
    let (layer, census) = match open.map(|open| open(entrance.post(), clock)).transpose() {
        Ok(Some((storage, census))) => match road(config, storage, entrance.post(), clock) {
            Ok(layer) => (Some(layer), census),
            Err(e @ JoinError::Log { .. }) => return complain(&e, Exit::Database),
            Err(e @ JoinError::Address(_)) => return complain(&e, Exit::Usage),
            Err(e @ JoinError::Thread(..)) => return complain(&e, Exit::Failed),
        },
        Ok(None) => (None, Census::default()),
        Err(e) => return complain(&e, exit_of(&e)),
    };
    let manager = Manager::from_env();
    obey(orders, entrance.post().clone(), config.clone(), manager.clone()).or_else(failed("cannot take signals"))?;
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
    if let Some(manager) = manager {
        manager.ready();
        manager.watch(entrance.post().clone()).or_else(failed("cannot give signs of life"))?;
    }
    Reactor::new(entrance, clock, rules, &census, layer, log).run().or_else(failed("waiting for sockets failed"))
}

fn failed<T>(what: &'static str) -> impl FnOnce(std::io::Error) -> Result<T, Exit> {
    move |e| complain(format!("{what}: {e}"), Exit::Failed)
}

/// The road that the configuration chooses.
fn road(config: &Config, storage: Storage, post: &Postbox, clock: Clock) -> Result<ChannelLayer, JoinError> {
    let path = &config.storage.path;
    match config.channel_layer.backend {
        Backend::InMemory => ChannelLayer::in_memory(storage, path),
        Backend::Redis => {
            let message_max = config.limits.body;
            ChannelLayer::shared(storage, path, message_max, &config.channel_layer, post, clock)
        }
    }
}

/// Opens the doors: those that systemd has opened already, else those of the configuration. Gives back the addresses of
/// the public door, and of the admin's. `option`: what names the address instead of a key.
fn listen(
    entrance: &mut Entrance,
    server: &config::Server,
    option: Option<&str>,
) -> Result<(Addresses, Addresses), (String, Exit)> {
    let passed = systemd::passed(server).map_err(|what| (what, Exit::Usage))?;
    let is_passed = |door| passed.iter().any(|(_, passed)| *passed == door);
    let (ours, systemds): (Vec<_>, Vec<_>) =
        [(&server.listen, Door::Public, "server.listen"), (&server.admin_listen, Door::Admin, "server.admin_listen")]
            .into_iter()
            .partition(|(_, door, _)| !is_passed(*door));
    let sandboxed = !passed.is_empty();
    let mut bound = Vec::new();
    for (socket, door) in passed {
        let address = entrance.adopt(socket, door).map_err(|e| (format!("a socket of systemd: {e}"), Exit::Failed))?;
        bound.push((address, door));
    }
    for (addresses, door, key) in ours {
        for address in addresses {
            match entrance.listen(*address, door) {
                Ok(address) => bound.push((address, door)),
                // The unit has no network of its own, and its admin socket was left out on purpose.
                Err(e) if sandboxed && e.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => {
                    warn(format!("not listening on {address}: systemd passed no socket for {key}"));
                }
                Err(e) => {
                    let remedy = remedy(&e, option.unwrap_or(key));
                    return Err((format!("cannot listen on {address}: {e}; {remedy}"), Exit::Failed));
                }
            }
        }
    }
    let behind =
        |wanted| bound.iter().filter(|(_, door)| *door == wanted).map(|(address, _)| *address).collect::<Vec<_>>();
    for (addresses, door, key) in systemds {
        let passed = behind(door);
        if passed.iter().any(|address| !addresses.contains(address)) {
            let passed = passed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            warn(format!("{key} is not obeyed: systemd passed {passed}; change its .socket unit, or the key to match"));
        }
    }
    Ok((behind(Door::Public), behind(Door::Admin)))
}

/// What helps where an address cannot be listened on; `key`: what names it.
fn remedy(e: &std::io::Error, key: &str) -> String {
    match Errno::from_io_error(e) {
        Some(Errno::ADDRINUSE) => format!("stop what listens there (ss -ltnp), or choose another {key}"),
        Some(Errno::ACCESS) => format!("ports under 1024 need root or a socket of systemd; or choose another {key}"),
        _ => format!("choose another {key}"),
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

/// Obeys signals on a thread of its own, which also reads the configuration anew: the loop's thread reads no file.
fn obey(orders: Orders, post: Postbox, started_with: Config, manager: Option<Manager>) -> std::io::Result<()> {
    let Orders { mut signals, mut hangup, starting } = orders;
    starting.store(false, Ordering::SeqCst);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stops = 0;
        for signal in signals.forever() {
            match (signal, &mut hangup) {
                (SIGHUP, Hangup::Reload(file)) => {
                    // One that has been read once is missed when it goes: the defaults would allow more.
                    *file = config_file(file.as_deref()).map(Path::to_owned);
                    manager.iter().for_each(Manager::reloading);
                    reload_now(&post, file.as_deref(), &started_with);
                    manager.iter().for_each(Manager::ready);
                }
                _ => {
                    stops += 1;
                    manager.iter().for_each(Manager::stopping);
                    post.post(Letter::Stop);
                    if stops > 2 {
                        // Whoever asks a third time does not want to wait for a stuck disk.
                        let _ = emulate_default_handler(signal);
                    }
                }
            }
        }
    })?;
    Ok(())
}

/// Returns once the new configuration is obeyed, or found to be wrong.
fn reload_now(post: &Postbox, file: Option<&Path>, started_with: &Config) {
    let loaded = load(file).map_err(|mistakes| mistakes.0.iter().map(ToString::to_string).collect());
    let usable =
        loaded.and_then(|config| usable(&config).map(|verifier| (config, verifier)).map_err(|what| vec![what]));
    match usable {
        Ok((config, verifier)) => {
            let (done, obeyed) = channel();
            let rules = Rules::new(&config, Some(verifier), connections(&config));
            // Open sockets were told how receipts are given.
            let rules = Box::new(Rules { ack: started_with.delivery.ack, ..rules });
            let restart = needs_restart(&config, started_with);
            post.post(Letter::Reload { rules, level: config.log.level, restart, done });
            // No answer where the loop has ended; where it is stuck, other signals are waiting.
            let _ = obeyed.recv_timeout(RELOADED_WITHIN);
        }
        // A bad file changes nothing.
        Err(mistakes) => post.post(Letter::NotReloaded { mistakes }),
    }
}

/// The keys that have another value now and that only a start obeys.
fn needs_restart(now: &Config, started_with: &Config) -> Vec<&'static str> {
    let (server, storage) = (&now.server, &now.storage);
    [
        ("server.listen", server.listen != started_with.server.listen),
        ("server.admin_listen", server.admin_listen != started_with.server.admin_listen),
        ("storage.path", storage.path != started_with.storage.path),
        ("delivery.ack", now.delivery.ack != started_with.delivery.ack),
        ("channel_layer", now.channel_layer != started_with.channel_layer),
        // How large a message of Django's may be, its layer's thread learns once.
        (
            "limits.body",
            started_with.channel_layer.django != Django::Off && now.limits.body != started_with.limits.body,
        ),
        ("log.format", now.log.format != started_with.log.format),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ack;

    #[test]
    fn what_only_a_start_obeys_is_named() {
        let (started_with, mut now) = (Config::default(), Config::default());
        now.limits.body = 1_024;
        now.limits.connections_per_user = 1;
        now.log.level = Level::Debug;
        assert!(needs_restart(&now, &started_with).is_empty());
        now.server.admin_listen.clear();
        now.storage.path = "elsewhere".into();
        now.delivery.ack = Ack::Client;
        now.channel_layer.log_key = "other".into();
        let named = ["server.admin_listen", "storage.path", "delivery.ack", "channel_layer"];
        assert_eq!(needs_restart(&now, &started_with), named);
        let mut beside_django = Config::default();
        beside_django.channel_layer.django = Django::Core;
        let mut now = beside_django.clone();
        now.limits.body = 1_024;
        assert_eq!(needs_restart(&now, &beside_django), ["limits.body"]);
    }

    #[test]
    fn who_cannot_listen_hears_what_helps() {
        for (errno, expected) in [
            (Errno::ADDRINUSE, "stop what listens there (ss -ltnp), or choose another server.listen"),
            (Errno::ACCESS, "ports under 1024 need root or a socket of systemd; or choose another server.listen"),
            (Errno::ADDRNOTAVAIL, "choose another server.listen"),
        ] {
            assert_eq!(remedy(&errno.into(), "server.listen"), expected);
        }
    }
}
