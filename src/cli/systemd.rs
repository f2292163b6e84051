//! Owns what systemd and the server tell each other: passed sockets, states, signs of life (sd_listen_fds(3),
//! sd_notify(3)). Never needed: without systemd nothing here does anything. Enter at [`passed`] and [`Manager::from_env`].

use crate::api::routes::Door;
use crate::config;
use crate::inbox::{Letter, Postbox};
use crate::storage::job::Pulse;
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// More sockets than anybody passes; a larger number is a mistake.
const PASSED_MAX: usize = 64;
/// Between two signs of life at most: the status that people read is no older.
const PULSE_EVERY: Duration = Duration::from_secs(5);
const RIGHT: &str = "pass listening TCP sockets, as systemd/habittod.socket does";

/// The sockets that systemd has opened for this process, each with the door it is; none if it has not.
pub(super) fn passed(server: &config::Server) -> Result<Vec<(TcpListener, Door)>, String> {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    let count = text("LISTEN_FDS");
    if text("LISTEN_PID") != std::process::id().to_string() || count.is_empty() {
        return Ok(Vec::new());
    }
    let count = count.parse().ok().filter(|count: &usize| *count <= PASSED_MAX);
    let count = count.ok_or_else(|| format!("LISTEN_FDS is not a number up to {PASSED_MAX}; {RIGHT}"))?;
    let names = text("LISTEN_FDNAMES");
    let names: Vec<&str> = names.split(':').collect();
    // Takes the two variables away, so that nobody else believes they are meant.
    let mut descriptors = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(count);
    for index in 0..count {
        let name = names.get(index).copied().unwrap_or_default();
        let socket =
            descriptors.take_tcp_listener(index).map_err(|e| format!("socket {name:?} of systemd: {e}; {RIGHT}"))?;
        let Some(socket) = socket else { continue };
        if !socket_acceptconn(&socket).unwrap_or(false) {
            return Err(format!("socket {name:?} of systemd: does not listen; {RIGHT}"));
        }
        let address = socket.local_addr().map_err(|e| format!("socket {name:?} of systemd: {e}; {RIGHT}"))?;
        sockets.push((socket, door(name, address, server)));
    }
    Ok(sockets)
}

/// By its `FileDescriptorName=`; under any other name by its address.
fn door(name: &str, address: SocketAddr, server: &config::Server) -> Door {
    match name {
        "http" => Door::Public,
        "admin" => Door::Admin,
        _ if server.admin_listen.contains(&address) => Door::Admin,
        _ => Door::Public,
    }
}

/// Whoever started this process and wants to know how it is.
#[derive(Clone)]
pub(super) struct Manager {
    socket: Arc<UnixDatagram>,
    address: UnixAddr,
    /// It ends a process that is silent for as long.
    watchdog: Option<Duration>,
}

impl Manager {
    pub(super) fn from_env() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let address = unix_address(&name).ok()?;
        let socket = Arc::new(UnixDatagram::unbound().ok()?);
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0).map(Duration::from_micros);
        Some(Self { socket, address, watchdog })
    }

    fn tell(&self, what: &str) {
        // A manager that does not listen cannot be told so.
        let _ = self.socket.send_to_addr(what.as_bytes(), &self.address);
    }

    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000));
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Gives signs of life, each of which has gone through the loop and the committer: where one of the two is stuck,
    /// there are no more.
    pub(super) fn watch(self, post: Postbox) -> io::Result<()> {
        let period = self.watchdog.map_or(PULSE_EVERY, |within| (within / 3).min(PULSE_EVERY));
        let (back, pulses) = channel();
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            loop {
                post.post(Letter::Pulse(Pulse::new(back.clone())));
                let Ok(state) = pulses.recv() else { return };
                let alive = if self.watchdog.is_some() { "WATCHDOG=1\n" } else { "" };
                self.tell(&format!("{alive}STATUS={}", status(state)));
                // Nothing is under way, so this is but a pause.
                let _ = pulses.recv_timeout(period);
            }
        })?;
        Ok(())
    }
}

fn unix_address(name: &OsString) -> io::Result<UnixAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => UnixAddr::from_abstract_name(rest),
        _ => UnixAddr::from_pathname(name),
    }
}

fn status((sockets, draining): (usize, bool)) -> String {
    let digits = sockets.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    let count = groups.join(",");
    if draining { format!("draining: {count} sockets left") } else { format!("{count} sockets, serving") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_well() {
        for (state, said) in [
            ((0, false), "0 sockets, serving"),
            ((999, false), "999 sockets, serving"),
            ((1_204, false), "1,204 sockets, serving"),
            ((1_000_000, true), "draining: 1,000,000 sockets left"),
        ] {
            assert_eq!(status(state), said);
        }
    }

    #[test]
    fn a_socket_without_a_name_is_known_by_its_address() {
        let server = config::Server::default();
        for (name, address, expected) in [
            ("http", "127.0.0.1:8001", Door::Public),
            ("admin", "127.0.0.1:9", Door::Admin),
            ("", "127.0.0.1:8001", Door::Admin),
            ("habittod.socket", "127.0.0.1:8001", Door::Admin),
            ("unknown", "[::]:8000", Door::Public),
        ] {
            assert_eq!(door(name, address.parse().unwrap(), &server), expected, "{name} {address}");
        }
    }
}
