//! Owns what the benchmarks over sockets share: a server in a process of its own, what the kernel says of it, and the
//! clients ([`Crowd`]). Never measures by itself. Enter at [`Server`].
//!
//! Server and clients are two processes, so that each has its own descriptor limit and the server's memory and CPU time
//! are its own. Where there are two cores and `taskset`, the server gets the first and the clients the second.

#![allow(dead_code, unused_imports, reason = "each benchmark takes what it needs")]

#[cfg(feature = "peers")]
mod axum_peer;
mod crowd;
mod ruler;

pub(crate) use crowd::{Crowd, Heard};

use habittod::auth::Signer;
use habittod::clock::{Clock, Now};
use habittod::matching::UserId;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

const SECRET: &str = "benchmark-secret-0123456789abcdef0123456789abcdef";
/// Descriptors of the client process that are not sockets of the crowd.
const RESERVED_DESCRIPTORS: u64 = 400;
/// More would need more than one client address.
const SOCKETS_MAX: usize = 18_000;
/// The first user who likes; below him are owners, each with the property of the same number.
pub(crate) const FIRST_TENANT: i64 = 1_000_001;
/// Names the peer that this very program is to be, in place of a benchmark.
const PEER: &str = "HABITTOD_BENCH_PEER";

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::start);

pub(crate) fn now() -> Now {
    CLOCK.now()
}

pub(crate) fn token(user: i64) -> String {
    static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::from_secret(SECRET.as_bytes()).unwrap());
    SIGNER.access(UserId(user), now().wall_ms, Duration::from_secs(3_600))
}

/// The first thing a benchmark does: `false` where this process was a peer, which has ended.
pub(crate) fn is_benchmark() -> bool {
    match std::env::var(PEER).as_deref() {
        Ok("ruler") => ruler::serve(),
        #[cfg(feature = "peers")]
        Ok(axum) if axum.starts_with("axum") => axum_peer::serve(axum),
        Ok(other) => panic!("no peer {other}"),
        Err(_) => {
            let raised = getrlimit(Resource::Nofile).maximum;
            setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: raised }).unwrap();
            if pins() {
                let me = std::process::id().to_string();
                Command::new("taskset").args(["-a", "-c", "-p", "1", &me]).stdout(Stdio::null()).status().unwrap();
            }
            return true;
        }
    }
    false
}

/// How many sockets the descriptor limit of either end leaves room for.
pub(crate) fn sockets_max() -> usize {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(RESERVED_DESCRIPTORS)).unwrap().min(SOCKETS_MAX)
}

fn pins() -> bool {
    static PINS: LazyLock<bool> = LazyLock::new(|| {
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        let taskset = Command::new("taskset").arg("--version").stdout(Stdio::null()).status();
        // Asked before the first pinning, which leaves this process one core.
        cores >= 2 && taskset.is_ok_and(|status| status.success())
    });
    *PINS
}

/// Who serves, in the order in which they are worth reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As `config.toml` has it but without limits of rates, and the log at `warn`.
    Habittod,
    /// The same with the log at `info`, as it comes.
    HabittodInfo,
    /// The first of two nodes on one Redis that syncs each second; the other one follows.
    TwoNodes,
    /// The system calls and nothing else: checks nothing, stores nothing.
    Ruler,
    /// axum as its documentation shows it, one SQLite commit a like.
    #[cfg(feature = "peers")]
    Axum,
    /// The same with a read buffer of 4 KiB for each socket in place of 128.
    #[cfg(feature = "peers")]
    Axum4k,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Habittod => "habittod",
            Self::HabittodInfo => "habittod, log at info",
            Self::TwoNodes => "habittod, two nodes",
            Self::Ruler => "ruler (stores nothing)",
            #[cfg(feature = "peers")]
            Self::Axum => "axum + SQLite",
            #[cfg(feature = "peers")]
            Self::Axum4k => "axum + SQLite, 4 KiB",
        }
    }

    pub(crate) fn is_habittod(self) -> bool {
        matches!(self, Self::Habittod | Self::HabittodInfo | Self::TwoNodes)
    }

    /// Whether this machine has what it needs.
    pub(crate) fn is_here(self) -> bool {
        let version = || Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        self != Self::TwoNodes || version().is_ok_and(|status| status.success())
    }
}

/// A running server.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    beside: Option<Box<Beside>>,
}

/// What stands beside the first of two nodes.
struct Beside {
    follower: Server,
    redis: Child,
}

impl Server {
    /// With so many owners, each with one property, and so many tenants. `limits`: further lines of that section.
    pub(crate) fn start(kind: Kind, owners: i64, tenants: i64, limits: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (redis, limits) = match kind {
            Kind::TwoNodes => {
                let (redis, further) = start_redis(folder.path());
                (Some(redis), &*format!("{limits}\n{further}"))
            }
            _ => (None, limits),
        };
        let program = if kind.is_habittod() {
            fs::write(folder.path().join("config.toml"), config(limits, "info")).unwrap();
            fs::write(folder.path().join("world.jsonl"), world(owners, tenants)).unwrap();
            let imported = Command::new(env!("CARGO_BIN_EXE_habittod"))
                .args(["import", "world.jsonl"])
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .status();
            assert!(imported.unwrap().success());
            Path::new(env!("CARGO_BIN_EXE_habittod")).to_owned()
        } else {
            std::env::current_exe().unwrap()
        };
        let other = redis.map(|redis| (redis, copy(folder.path())));
        let mut server = Self::run(kind, folder, &program, limits);
        server.beside = other.map(|(redis, folder)| {
            Box::new(Beside { follower: Self::run(Kind::Habittod, folder, &program, limits), redis })
        });
        server
    }

    fn run(kind: Kind, folder: tempfile::TempDir, program: &Path, limits: &str) -> Self {
        let mut command = Command::new(if pins() { Path::new("taskset") } else { program });
        if pins() {
            command.args(["-c", "0"]).arg(program);
        }
        match kind {
            Kind::Habittod | Kind::HabittodInfo | Kind::TwoNodes => command.arg("serve"),
            Kind::Ruler => command.env(PEER, "ruler"),
            #[cfg(feature = "peers")]
            Kind::Axum => command.env(PEER, "axum"),
            #[cfg(feature = "peers")]
            Kind::Axum4k => command.env(PEER, "axum-4k"),
        };
        let mut process = command.current_dir(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let first: Value = serde_json::from_str(&line).unwrap();
        let address = first["listen"][0].as_str().unwrap().parse().unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let server = Self { process, address, folder, beside: None };
        if matches!(kind, Kind::Habittod | Kind::TwoNodes) {
            // The first line, which names the port, is of level info.
            fs::write(server.folder.path().join("config.toml"), config(limits, "warn")).unwrap();
            kill_process(Pid::from_child(&server.process), Signal::HUP).unwrap();
        }
        server
    }

    /// Seconds that its threads have run, in user and kernel mode.
    pub(crate) fn cpu_s(&self) -> f64 {
        cpu_s(&self.process)
    }

    /// The same of the node that follows, and of Redis.
    pub(crate) fn cpu_s_beside(&self) -> (f64, f64) {
        self.beside.as_ref().map_or((0.0, 0.0), |beside| (beside.follower.cpu_s(), cpu_s(&beside.redis)))
    }

    /// Whether the node that follows has the same rows, once it has had the time to.
    pub(crate) fn agrees(&self) -> bool {
        let Some(beside) = &self.beside else { return true };
        let until_us = now().monotonic_us + 10_000_000;
        while self.digest() != beside.follower.digest() {
            if now().monotonic_us > until_us {
                return false;
            }
        }
        true
    }

    fn digest(&self) -> Vec<u8> {
        let mut check = Command::new(env!("CARGO_BIN_EXE_habittod"));
        let said = check.args(["check", "--digest"]).current_dir(self.folder.path()).output().unwrap().stdout;
        let mut lines = said.split(|byte| *byte == b'\n');
        lines.find(|line| line.starts_with(b"digest: ")).unwrap().to_vec()
    }

    /// Bytes of its memory that are in RAM (`VmRSS`).
    pub(crate) fn rss(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.redis.kill();
        let _ = self.redis.wait();
    }
}

fn cpu_s(process: &Child) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let nanoseconds = tasks.map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// A Redis in that folder, on the cores of the clients; and the configuration of its nodes.
fn start_redis(folder: &Path) -> (Child, String) {
    let mut redis = Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "redis.sock", "--appendonly", "yes", "--save", ""])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(redis.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("eady to accept connections")));
    std::thread::spawn(move || lines.for_each(drop));
    let at = folder.join("redis.sock");
    (redis, format!("[channel_layer]\nbackend = \"redis\"\nredis_url = \"unix://{}\"\n", at.display()))
}

/// Another node's folder, with the rows and the configuration of the first.
fn copy(folder: &Path) -> tempfile::TempDir {
    let other = tempfile::tempdir().unwrap();
    for file in ["habittod.db", "config.toml"] {
        fs::copy(folder.join(file), other.path().join(file)).unwrap();
    }
    other
}

fn config(limits: &str, level: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"\"\n[auth]\nsecret = \"{SECRET}\"\n[log]\nlevel = \"{level}\"\n\
         [limits]\nconnections_per_user = 0\nrequests_per_second = 0\n{limits}\n"
    )
}

/// What is imported before the start: the names and numbers are as long as real ones.
fn world(owners: i64, tenants: i64) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut user = |id: i64, kind: &str| {
        let user = json!({"id": id, "username": format!("user{id}"), "email": format!("user{id}@example.com"),
            "first_name": "Ana", "last_name": format!("Rojas {id}"), "phone": "+59170000000", "user_type": kind});
        writeln!(lines, "{}", json!({ "user": user })).unwrap();
    };
    (1..=owners).for_each(|id| user(id, "propietario"));
    (FIRST_TENANT..FIRST_TENANT + tenants).for_each(|id| user(id, "inquilino"));
    for id in 1..=owners {
        let home = json!({"id": id, "owner": id, "type": "departamento", "address": format!("Av. Siempre Viva {id}")});
        writeln!(lines, "{}", json!({ "property": home })).unwrap();
    }
    lines
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// 12345.6 as `12,346`.
pub(crate) fn thousands(n: f64) -> String {
    let digits = format!("{n:.0}");
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
