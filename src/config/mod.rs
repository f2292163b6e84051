//! Owns every setting: its default, its unit and its reason. Never opens what a setting names, but for key files, and
//! never decides what follows from one. Enter at [`Config::load`]; a new key is a field here and a line in `keys.rs`.

mod file;
mod keys;
mod mistake;
mod read;
#[cfg(test)]
mod tests;
mod units;

use std::{ffi::OsString, fmt, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

pub use mistake::{Mistake, Mistakes, Wrong};
pub use read::NO_KEY;
pub use units::{Network, address, duration};

/// All settings of one process. Two compare equal when nothing differs, which is what a reload asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub server: Server,
    pub auth: Auth,
    pub storage: Storage,
    pub delivery: Delivery,
    pub channel_layer: ChannelLayer,
    pub limits: Limits,
    pub log: Log,
}

impl Config {
    /// The defaults, overlaid by `file` (if any), overlaid by the variables of `env`. Either all of it is right, or
    /// everything that is wrong is told at once. That there is no key is left to `serve`: see [`NO_KEY`].
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Mistakes> {
        read::load(file, env)
    }
}

/// Where clients come in, and whom to believe about where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// HTTP and WebSocket, at least one. Port 0 lets the kernel choose. Sockets passed by systemd win.
    pub listen: Vec<SocketAddr>,
    /// Metrics and the operator's page; empty: off. A port of its own, so that a proxy cannot publish it by accident.
    pub admin_listen: Vec<SocketAddr>,
    /// Browser origins for CORS and handshakes, in lower case as browsers send them, or exactly `["*"]`: any. Tokens are
    /// never ambient (no cookies), hence the open default. Empty: no browser from another origin.
    pub allowed_origins: Vec<String>,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Over how long a stop spreads the closing of sockets, so that clients do not come back all at once. 0: at once.
    pub drain: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8000))],
            admin_listen: vec![SocketAddr::from(([127, 0, 0, 1], 8001))],
            allowed_origins: vec!["*".to_owned()],
            trusted_proxies: vec![Network::LOOPBACK_V4, Network::LOOPBACK_V6],
            drain: Duration::from_secs(10),
        }
    }
}

/// Whose tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// What tokens are checked with; the algorithm follows from it, never from the token. `serve` refuses `None`.
    pub key: Option<Key>,
    /// The file that a secret was read from, for `check`, which looks at who else can read it.
    pub secret_file: Option<PathBuf>,
    /// `/api/login/` and `/api/refresh/`. On where there is a secret: a public key cannot sign.
    pub login: bool,
    /// How long an access token made here is good. Short: it cannot be revoked.
    pub access_ttl: Duration,
    /// How long a refresh token made here is good: after so long without the app, the password again.
    pub refresh_ttl: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        Self { key: None, secret_file: None, login: false, access_ttl: minutes(60), refresh_ttl: days(7) }
    }
}

/// What a token's signature is checked with.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// HS256; at least 32 bytes. Also signs.
    Secret(Vec<u8>),
    /// The text of a PEM file: RS256, ES256 or EdDSA, told from the key. Only checks.
    PublicPem(Vec<u8>),
}

// A configuration may be logged; its secret may not.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(..)",
            Self::PublicPem(_) => "PublicPem(..)",
        })
    }
}

/// Where notifications are kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The SQLite file, relative to the current folder.
    pub path: PathBuf,
    /// Read notifications older than this go; unread ones stay for 4 times as long.
    pub retention: Duration,
}

impl Default for Storage {
    fn default() -> Self {
        Self { path: PathBuf::from("habittod.db"), retention: days(90) }
    }
}

/// What counts as delivered, and how much is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What proves that a device has a notification.
    pub ack: Ack,
    /// Notifications of one replay, the newest; older ones are left to REST, so that a phone found again after a year
    /// does not ring for an hour. From 1.
    pub replay_max: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { ack: Ack::Pong, replay_max: 1_000 }
    }
}

/// How nodes share what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelLayer {
    pub backend: Backend,
    /// Where Redis is; only used by [`Backend::Redis`].
    pub redis: RedisAddress,
    /// How long an answer of Redis may take before it counts as gone.
    pub redis_timeout: Duration,
    /// What the names of the log's keys begin with: another one for each set of nodes on one Redis database.
    pub log_key: String,
    /// How long entries of the log are kept that all nodes have: as old may a backup be that seeds a new node.
    pub log_keep: Duration,
    /// After so long away a node is not waited for any more: what it misses may go, and it needs a backup.
    pub log_forget: Duration,
    /// Which `group_send` of an unmodified Django process is listened to. Needs [`Backend::Redis`].
    pub django: Django,
    /// The layer's `prefix`.
    pub django_prefix: String,
    /// The layer's `symmetric_encryption_keys`.
    pub django_keys: EncryptionKeys,
    /// Connections that wait for Django's messages in [`Django::Core`]: so many sent in one go arrive, and 100 more.
    pub django_waiters: u32,
}

impl Default for ChannelLayer {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            redis: RedisAddress::default(),
            redis_timeout: Duration::from_secs(2),
            log_key: "habittod".to_owned(),
            log_keep: minutes(60),
            log_forget: days(1),
            django: Django::default(),
            django_prefix: "asgi".to_owned(),
            django_keys: EncryptionKeys::default(),
            django_waiters: 900,
        }
    }
}

/// What Django encrypts its messages with, and what it did before: none, plain messages.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncryptionKeys(pub Vec<String>);

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKeys({})", self.0.len())
    }
}

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// Plain TCP; a name or an address without brackets.
    Host { host: String, port: u16 },
    /// `redis://`, `rediss://`, `unix://` or `redis+unix://`. May hold a password.
    Url(String),
}

impl RedisAddress {
    const DEFAULT_HOST: &str = "127.0.0.1";
    const DEFAULT_PORT: u16 = 6379;
}

impl Default for RedisAddress {
    fn default() -> Self {
        Self::Host { host: Self::DEFAULT_HOST.to_owned(), port: Self::DEFAULT_PORT }
    }
}

// The URL's password is as secret as a key.
impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } => f.debug_struct("Host").field("host", host).field("port", port).finish(),
            Self::Url(_) => f.write_str("Url(..)"),
        }
    }
}

/// An enum whose variants are words of the configuration.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$what])* $variant),+ }

        impl $name {
            /// Every choice.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it in the configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

choice! {
    /// What proves that a device has a notification.
    Ack {
        /// The Pong that answers our Ping: automatic in every client stack.
        #[default]
        Pong = "pong",
        /// The client's own `ack` message: for proxies that answer pings themselves.
        Client = "client",
        /// Nothing: the kernel took the bytes.
        Written = "written",
    }
}

choice! {
    /// The road from a command to its commit.
    Backend {
        /// Straight to this process's own committer: one node.
        #[default]
        InMemory = "inmemory",
        /// Through one Redis Stream: several nodes.
        Redis = "redis",
    }
}

choice! {
    /// Which of `channels_redis`' two layers Django speaks.
    Django {
        #[default]
        Off = "off",
        /// `channels_redis.core.RedisChannelLayer`.
        Core = "core",
        /// `channels_redis.pubsub.RedisPubSubChannelLayer`.
        PubSub = "pubsub",
    }
}

choice! {
    /// The most talkative kind of line that is still written; ordered, `Error` the least.
    Level {
        Error = "error",
        Warn = "warn",
        #[default]
        Info = "info",
        Debug = "debug",
    }
}

choice! {
    /// How a log line looks.
    Format {
        /// One object a line, for programs.
        #[default]
        Json = "json",
        /// For eyes.
        Text = "text",
    }
}

/// Where a client's demands end. Rates are token buckets: so many a second, and up to the burst at once. 0 turns a
/// rate, a count of connections, the ping or the idle timer off; the rest are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; more get 503. `None`: what the descriptor limit allows, less 64 for files and listeners.
    pub connections: Option<u32>,
    /// Open sockets of one user: more devices than a person has are a reconnect loop.
    pub connections_per_user: u32,
    /// Open connections of one address. Off: a mobile network puts thousands behind one.
    pub connections_per_ip: u32,
    /// Handshakes per second, all clients together, against the herd after a restart. Off: it is taken by the thousand.
    pub handshakes_per_second: u32,
    /// Handshakes at once, where that rate is on.
    pub handshakes_burst: u32,
    /// Bytes of one message from a client: those of the protocol are far smaller.
    pub ws_message: usize,
    /// Messages per second and socket: nobody reads faster.
    pub ws_messages_per_second: u32,
    /// Messages at once, per socket: a list marked as read one by one.
    pub ws_messages_burst: u32,
    /// Control frames per second and socket, echoes of our own pings not counted.
    pub ws_control_per_second: u32,
    /// Requests per second and user (per address without a token).
    pub requests_per_second: u32,
    /// Requests at once, per user: what a page fires when it opens.
    pub requests_burst: u32,
    /// Sign-ins per minute and address: each costs a whole password hash.
    pub logins_per_minute: u32,
    /// Sign-ins per minute and user name, from all addresses: against guessing from many.
    pub logins_per_minute_per_user: u32,
    /// Bytes of a request line and its headers: a token and a proxy's additions fit.
    pub head: usize,
    /// Bytes of a request's target: a token in the query fits.
    pub target: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// From a request's first byte to its blank line, absolute: a slow drip does not extend it.
    pub head_timeout: Duration,
    /// From the blank line to the body's last byte, absolute: a phone on a bad line sends 64 KiB within it.
    pub body_timeout: Duration,
    /// A kept-alive connection between two requests. Longer than the 60 s of common proxies, so that they close first.
    pub idle_timeout: Duration,
    /// Between two pings on a quiet socket. Under the 30 s and 60 s after which networks and proxies forget it.
    pub ping_interval: Duration,
    /// How long an answer to a ping may take before the socket counts as dead.
    pub pong_timeout: Duration,
    /// Bytes waiting for one slow socket: this times the sockets bounds the memory.
    pub outbound: usize,
    /// Jobs waiting for storage: beyond it an answer would come too late to be of use.
    pub storage_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_user: 16,
            connections_per_ip: 0,
            handshakes_per_second: 0,
            handshakes_burst: 1_000,
            ws_message: 16 * KIB,
            ws_messages_per_second: 20,
            ws_messages_burst: 40,
            ws_control_per_second: 200,
            requests_per_second: 50,
            requests_burst: 200,
            logins_per_minute: 10,
            logins_per_minute_per_user: 5,
            head: 16 * KIB,
            target: 8 * KIB,
            body: 64 * KIB,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(75),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(20),
            outbound: 256 * KIB,
            storage_queue: 10_000,
        }
    }
}

/// What is written to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub level: Level,
    /// `None`: text on a terminal, else JSON.
    pub format: Option<Format>,
}

const KIB: usize = 1024;

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

const fn days(n: u64) -> Duration {
    minutes(n * 24 * 60)
}
