//! Owns the table of keys: each one's name, how it is read and where it goes. Never opens a file nor asks the
//! environment. Enter at [`KEYS`].

use super::{
    Ack, Backend, ChannelLayer, Config, Delivery, Django, EncryptionKeys, Format, Level, Limits, Log, Network,
    RedisAddress, Server, Storage,
    mistake::{Wrong, either, quote, wrong},
    units,
};
use std::{borrow::Cow, net::SocketAddr, path::PathBuf, time::Duration};
use toml::de::DeValue;

/// One key of the configuration.
pub(super) struct Entry {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    /// `section.key`.
    pub(super) name: &'static str,
    pub(super) set: fn(&mut Draft, Given<'_>) -> Read<()>,
}

impl Entry {
    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("HABITTOD_{}_{}", self.section, self.key).to_ascii_uppercase()
    }
}

macro_rules! keys {
    ($($section:ident . $key:ident = $read:expr;)+) => {
        /// Every key there is. `a.b = reader;` reads what is given for `a.b` into `Draft::a.b`.
        pub(super) const KEYS: &[Entry] = &[$(Entry {
            section: stringify!($section),
            key: stringify!($key),
            name: concat!(stringify!($section), ".", stringify!($key)),
            set: |draft, given| {
                draft.$section.$key = $read(given)?;
                Ok(())
            },
        }),+];
    };
}

keys! {
    server.listen = listen;
    server.admin_listen = addresses;
    server.allowed_origins = origins;
    server.trusted_proxies = list(str::parse::<Network>);
    server.drain = duration_or_0;
    auth.secret = some(secret);
    auth.secret_file = some(path);
    auth.public_key_file = some(path);
    auth.login = some(boolean);
    auth.access_ttl = duration;
    auth.refresh_ttl = duration;
    storage.path = path;
    storage.retention = duration;
    delivery.ack = word(Ack::ALL, Ack::as_str);
    delivery.replay_max = number(1, 1_000_000);
    channel_layer.backend = word(Backend::ALL, Backend::as_str);
    channel_layer.redis_host = text(units::host);
    channel_layer.redis_port = number(1, 65_535);
    channel_layer.redis_url = some(text(units::redis_url));
    channel_layer.redis_timeout = duration;
    channel_layer.log_key = text(units::redis_key);
    channel_layer.log_keep = duration;
    channel_layer.log_forget = duration;
    channel_layer.django = word(Django::ALL, Django::as_str);
    channel_layer.django_prefix = text(units::redis_key);
    channel_layer.django_keys = encryption_keys;
    channel_layer.django_waiters = number(1, 10_000);
    limits.connections = count_or_none;
    limits.connections_per_user = count;
    limits.connections_per_ip = count;
    limits.handshakes_per_second = count;
    limits.handshakes_burst = count;
    limits.ws_message = size;
    limits.ws_messages_per_second = count;
    limits.ws_messages_burst = count;
    limits.ws_control_per_second = count;
    limits.requests_per_second = count;
    limits.requests_burst = count;
    limits.logins_per_minute = count;
    limits.logins_per_minute_per_user = count;
    limits.head = size;
    limits.target = size;
    limits.body = size;
    limits.head_timeout = duration;
    limits.body_timeout = duration;
    limits.idle_timeout = duration_or_0;
    limits.ping_interval = duration_or_0;
    limits.pong_timeout = duration;
    limits.outbound = size;
    limits.storage_queue = number(1, 1_000_000);
    log.level = word(Level::ALL, Level::as_str);
    log.format = some(word(Format::ALL, Format::as_str));
}

/// [`Config`] while it is read: a field for every key, under the key's own name.
pub(super) struct Draft {
    pub(super) server: Server,
    pub(super) auth: AuthDraft,
    pub(super) storage: Storage,
    pub(super) delivery: Delivery,
    pub(super) channel_layer: ChannelLayerDraft,
    pub(super) limits: Limits,
    pub(super) log: Log,
}

pub(super) struct AuthDraft {
    pub(super) secret: Option<Vec<u8>>,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) public_key_file: Option<PathBuf>,
    pub(super) login: Option<bool>,
    pub(super) access_ttl: Duration,
    pub(super) refresh_ttl: Duration,
}

pub(super) struct ChannelLayerDraft {
    pub(super) backend: Backend,
    pub(super) redis_host: String,
    pub(super) redis_port: u16,
    pub(super) redis_url: Option<String>,
    pub(super) redis_timeout: Duration,
    pub(super) log_key: String,
    pub(super) log_keep: Duration,
    pub(super) log_forget: Duration,
    pub(super) django: Django,
    pub(super) django_prefix: String,
    pub(super) django_keys: EncryptionKeys,
    pub(super) django_waiters: u32,
}

impl ChannelLayerDraft {
    pub(super) fn finish(self) -> ChannelLayer {
        let host = RedisAddress::Host { host: self.redis_host, port: self.redis_port };
        ChannelLayer {
            backend: self.backend,
            redis: self.redis_url.map_or(host, RedisAddress::Url),
            redis_timeout: self.redis_timeout,
            log_key: self.log_key,
            log_keep: self.log_keep,
            log_forget: self.log_forget,
            django: self.django,
            django_prefix: self.django_prefix,
            django_keys: self.django_keys,
            django_waiters: self.django_waiters,
        }
    }
}

impl Default for Draft {
    fn default() -> Self {
        let Config { server, auth, storage, delivery, channel_layer, limits, log } = Config::default();
        Self {
            server,
            auth: AuthDraft {
                secret: None,
                secret_file: None,
                public_key_file: None,
                login: None,
                access_ttl: auth.access_ttl,
                refresh_ttl: auth.refresh_ttl,
            },
            storage,
            delivery,
            channel_layer: ChannelLayerDraft {
                backend: channel_layer.backend,
                redis_host: RedisAddress::DEFAULT_HOST.to_owned(),
                redis_port: RedisAddress::DEFAULT_PORT,
                redis_url: None,
                redis_timeout: channel_layer.redis_timeout,
                log_key: channel_layer.log_key,
                log_keep: channel_layer.log_keep,
                log_forget: channel_layer.log_forget,
                django: channel_layer.django,
                django_prefix: channel_layer.django_prefix,
                django_keys: channel_layer.django_keys,
                django_waiters: channel_layer.django_waiters,
            },
            limits,
            log,
        }
    }
}

/// What a source says about a key.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    File(&'a DeValue<'a>),
    Env(&'a str),
}

pub(super) type Read<T> = Result<T, Wrong>;

impl<'a> Given<'a> {
    /// Words: in the file, in quotes.
    fn words(self) -> Option<&'a str> {
        match self {
            Self::Env(text) => Some(text),
            Self::File(value) => value.as_str(),
        }
    }

    /// A number: in the file, without quotes. Its decimal text, as far as it is one.
    fn number(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Env(text) => Some(Cow::Borrowed(text)),
            Self::File(value) => value.as_integer().map(|integer| {
                let decimal = i128::from_str_radix(integer.as_str(), integer.radix());
                Cow::Owned(decimal.map_or_else(|_| integer.to_string(), |n| n.to_string()))
            }),
        }
    }

    /// A number with a unit in quotes, or without either.
    fn amount(self) -> Option<Cow<'a, str>> {
        self.words().map(Cow::Borrowed).or_else(|| self.number())
    }

    /// That the value is of the wrong kind; it is not shown, since it may be a secret.
    fn mistyped<T>(self, right: impl Into<String>) -> Read<T> {
        let kind = if let Self::File(value) = self { value.type_str() } else { "text" };
        wrong(format!("the value is of type {kind}"), right)
    }
}

fn some<T>(read: impl Fn(Given<'_>) -> Read<T>) -> impl Fn(Given<'_>) -> Read<Option<T>> {
    move |given| read(given).map(Some)
}

fn text<T>(read: impl Fn(&str) -> Read<T>) -> impl Fn(Given<'_>) -> Read<T> {
    move |given| given.words().map_or_else(|| given.mistyped("write it in quotes"), &read)
}

fn word<T: Copy>(all: &[T], as_str: impl Fn(T) -> &'static str) -> impl Fn(Given<'_>) -> Read<T> {
    text(move |text| {
        all.iter().copied().find(|choice| as_str(*choice) == text).ok_or_else(|| {
            let right = format!("write {}", either(all.iter().map(|choice| as_str(*choice))));
            Wrong::new(format!("{} is none of the choices", quote(text)), right)
        })
    })
}

fn number<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(Given<'_>) -> Read<T> {
    move |given| {
        let right = format!("write a whole number from {min} to {max}");
        let Some(text) = given.number() else { return given.mistyped(format!("{right}, without quotes")) };
        T::try_from(units::number(&text, min, max)?).or_else(|_| wrong(format!("{text} is too large"), right))
    }
}

/// A rate, a burst or a count of connections. A thousand million a second is the same as off, and fits everywhere.
fn count(given: Given<'_>) -> Read<u32> {
    number(0, 1_000_000_000)(given)
}

fn count_or_none(given: Given<'_>) -> Read<Option<u32>> {
    count(given).map(|n| Some(n).filter(|n| *n > 0))
}

fn size(given: Given<'_>) -> Read<usize> {
    let Some(text) = given.amount() else { return given.mistyped("write e.g. \"16 KiB\"") };
    units::size(&text)
}

fn duration_or_0(given: Given<'_>) -> Read<Duration> {
    let Some(text) = given.amount() else { return given.mistyped("write e.g. \"30s\"") };
    units::duration(&text)
}

fn duration(given: Given<'_>) -> Read<Duration> {
    match duration_or_0(given)? {
        Duration::ZERO => wrong("0 leaves no time at all", "write at least 1ms"),
        duration => Ok(duration),
    }
}

fn boolean(given: Given<'_>) -> Read<bool> {
    match given {
        Given::File(DeValue::Boolean(flag)) => Ok(*flag),
        Given::Env("true") => Ok(true),
        Given::Env("false") => Ok(false),
        Given::Env(text) => wrong(format!("{} is neither true nor false", quote(text)), "write true or false"),
        Given::File(_) => given.mistyped("write true or false, without quotes"),
    }
}

fn path(given: Given<'_>) -> Read<PathBuf> {
    text(|text| match text {
        "" => wrong("an empty path", "name a file"),
        _ if text.contains('\0') => wrong("a path with a NUL character", "name a file"),
        _ => Ok(PathBuf::from(text)),
    })(given)
}

fn encryption_keys(given: Given<'_>) -> Read<EncryptionKeys> {
    let key = |key: &str| match key {
        "" => wrong("an empty key", "write the keys that Django has"),
        _ if key.contains(char::is_control) => {
            wrong("a key with a control character", "write the keys that Django has")
        }
        _ => Ok(key.to_owned()),
    };
    list(key)(given).map(EncryptionKeys)
}

fn secret(given: Given<'_>) -> Read<Vec<u8>> {
    text(|text| long_enough(text.as_bytes().to_vec()))(given)
}

/// A secret that cannot be guessed offline from one token. It is never shown.
pub(super) fn long_enough(secret: Vec<u8>) -> Read<Vec<u8>> {
    // As many as HS256's hash puts out (RFC 7518, 3.2).
    if secret.len() < 32 {
        return wrong(
            format!("a secret of {} bytes is too short", secret.len()),
            "use 32 or more, e.g. Django's SECRET_KEY or what `openssl rand -base64 48` prints",
        );
    }
    Ok(secret)
}

/// Comma-separated, or in the file an array; all wrong items are told together.
fn list<T>(item: impl Fn(&str) -> Read<T>) -> impl Fn(Given<'_>) -> Read<Vec<T>> {
    move |given| {
        let right = "write \"a, b\" or [\"a\", \"b\"]";
        let items: Vec<&str> = match given {
            Given::File(DeValue::Array(array)) => {
                let words: Option<_> = array.iter().map(|value| value.get_ref().as_str()).collect();
                let Some(words) = words else { return wrong("an item of the list is not in quotes", right) };
                words
            }
            _ => match given.words() {
                Some(text) if text.trim().is_empty() => Vec::new(),
                Some(text) => text.split(',').collect(),
                None => return given.mistyped(right),
            },
        };
        let (fine, bad): (Vec<_>, Vec<_>) = items.into_iter().map(|text| item(text.trim())).partition(Result::is_ok);
        let mut bad = bad.into_iter().filter_map(Result::err);
        match bad.next() {
            None => Ok(fine.into_iter().flatten().collect()),
            Some(first) => {
                Err(bad.fold(first, |all, next| Wrong { what: format!("{}, {}", all.what, next.what), ..all }))
            }
        }
    }
}

fn addresses(given: Given<'_>) -> Read<Vec<SocketAddr>> {
    list(units::address)(given)
}

fn listen(given: Given<'_>) -> Read<Vec<SocketAddr>> {
    let listen = addresses(given)?;
    if listen.is_empty() { wrong("no address", "write at least one, e.g. 127.0.0.1:8000") } else { Ok(listen) }
}

fn origins(given: Given<'_>) -> Read<Vec<String>> {
    let origins = list(units::origin)(given)?;
    if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
        return wrong("* beside other origins allows them all", "keep * alone, or leave it out");
    }
    Ok(origins)
}
