//! Owns how the file and the environment become a [`Config`], and how everything that is wrong with them is told at
//! once. Never shows a secret. Enter at [`load`].

use super::{
    Auth, Backend, Config, Django, Key,
    file::{self, Found},
    keys::{Draft, Entry, Given, KEYS, long_enough},
    mistake::{Mistake, Mistakes, Wrong, unknown_variable, wrong},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Read as _,
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// What a command that needs a key says when [`Auth::key`] is `None`.
pub const NO_KEY: &str = "auth.secret: no key to check tokens with; set HABITTOD_AUTH_SECRET (32 bytes or more, e.g. \
                          Django's SECRET_KEY), auth.secret_file or auth.public_key_file";

/// Variables that the user's document names. They are applied last, so they win.
pub(super) const ALIASES: [(&str, &str); 3] = [
    ("CHANNEL_LAYER", "channel_layer.backend"),
    ("REDIS_HOST", "channel_layer.redis_host"),
    ("REDIS_PORT", "channel_layer.redis_port"),
];

/// Keys of which only one may be set, wherever they are set.
pub(super) const EXCLUSIVE: [(&str, &str); 5] = [
    ("auth.secret", "auth.secret_file"),
    ("auth.secret", "auth.public_key_file"),
    ("auth.secret_file", "auth.public_key_file"),
    ("channel_layer.redis_url", "channel_layer.redis_host"),
    ("channel_layer.redis_url", "channel_layer.redis_port"),
];

/// Far more than a configuration or a key needs; stops at it where somebody names `/dev/zero`.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

pub(super) fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Mistakes> {
    let mut reading = Reading::default();
    if let Some(file) = file {
        reading.file(file);
    }
    reading.environment(&env.into_iter().collect());
    reading.finish()
}

#[derive(Default)]
struct Reading {
    draft: Draft,
    /// Who set each key last.
    sources: BTreeMap<&'static str, Source>,
    mistakes: Vec<Mistake>,
    /// The file could not be read to its end, so what it does not say proves nothing.
    file_is_broken: bool,
}

struct Source {
    place: String,
    fine: bool,
}

impl Reading {
    fn mistake(&mut self, place: impl Into<String>, wrong: Wrong) {
        self.mistakes.push(Mistake { place: place.into(), wrong });
    }

    fn set(&mut self, entry: &Entry, place: String, given: Given<'_>) {
        let outcome = (entry.set)(&mut self.draft, given);
        self.sources.insert(entry.name, Source { place: place.clone(), fine: outcome.is_ok() });
        if let Err(wrong) = outcome {
            self.mistake(place, wrong);
        }
    }

    fn file(&mut self, path: &Path) {
        let shown = path.display();
        self.file_is_broken = true;
        let text = match read_file(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                let line = file::line_of(error.as_bytes(), error.utf8_error().valid_up_to());
                return self.mistake(format!("{shown}:{line}"), Wrong::new("not UTF-8", "save it as UTF-8"));
            }
            Err(what) => return self.mistake(shown.to_string(), Wrong::new(what, "name a file that can be read")),
        };
        self.file_is_broken = !file::visit(&text, |Found { line, name, is }| {
            let name = if name.is_empty() { name } else { format!(": {}", name.escape_debug()) };
            let place = format!("{shown}:{line}{name}");
            match is {
                Ok((entry, value)) => self.set(entry, place, Given::File(value)),
                Err(wrong) => self.mistake(place, wrong),
            }
        });
    }

    fn environment(&mut self, env: &BTreeMap<OsString, OsString>) {
        for (name, value) in env.iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HABITTOD_")) {
            match KEYS.iter().find(|entry| OsStr::new(&entry.variable()) == name) {
                Some(entry) => self.variable(entry, entry.variable(), value),
                None => {
                    let name = name.to_string_lossy();
                    self.mistake(name.escape_debug().to_string(), unknown_variable(&name));
                }
            }
        }
        for (alias, name) in ALIASES {
            let entry = KEYS.iter().find(|entry| entry.name == name);
            if let (Some(entry), Some(value)) = (entry, env.get(OsStr::new(alias))) {
                self.variable(entry, alias.to_owned(), value);
            }
        }
    }

    fn variable(&mut self, entry: &Entry, name: String, value: &OsStr) {
        match value.to_str() {
            Some(text) => self.set(entry, name, Given::Env(text)),
            None => {
                self.sources.insert(entry.name, Source { place: name.clone(), fine: false });
                self.mistake(name, Wrong::new("not UTF-8", "set it to UTF-8 text"));
            }
        }
    }

    /// What can only be said once all keys are known.
    fn finish(mut self) -> Result<Config, Mistakes> {
        self.exclusions();
        let key = self.key();
        if !self.file_is_broken {
            self.contradictions();
        }
        if !self.mistakes.is_empty() {
            return Err(Mistakes(self.mistakes));
        }
        let Draft { server, auth, storage, delivery, channel_layer, limits, log } = self.draft;
        let login = auth.login.unwrap_or(matches!(key, Some(Key::Secret(_))));
        let (secret_file, access_ttl, refresh_ttl) = (auth.secret_file, auth.access_ttl, auth.refresh_ttl);
        let auth = Auth { key, secret_file, login, access_ttl, refresh_ttl };
        Ok(Config { server, auth, storage, delivery, channel_layer: channel_layer.finish(), limits, log })
    }

    fn exclusions(&mut self) {
        for (one, other) in EXCLUSIVE {
            if let (Some(one), Some(other)) = (self.sources.get(one), self.sources.get(other)) {
                let wrong = Wrong::new(format!("set together with {}", other.place), "keep one of the two");
                let place = one.place.clone();
                self.mistake(place, wrong);
            }
        }
    }

    /// The key itself. Where several are set none is read: which one was meant is not guessed at.
    fn key(&mut self) -> Option<Key> {
        let auth = &mut self.draft.auth;
        let (name, key) = match (auth.secret.take(), &auth.secret_file, &auth.public_key_file) {
            (Some(secret), None, None) => return Some(Key::Secret(secret)),
            (None, Some(path), None) => ("auth.secret_file", secret_file(path).map(Key::Secret)),
            (None, None, Some(path)) => ("auth.public_key_file", public_key_file(path).map(Key::PublicPem)),
            _ => return None,
        };
        key.map_err(|wrong| self.blame(&[name], wrong)).ok()
    }

    /// Values that are right alone and wrong together.
    fn contradictions(&mut self) {
        let Draft { server, auth, channel_layer, limits, .. } = &self.draft;
        let (limits, django, backend) = (*limits, channel_layer.django, channel_layer.backend);
        let login_cannot_sign = auth.login == Some(true) && auth.public_key_file.is_some();
        let listen: Vec<_> = server.listen.iter().chain(&server.admin_listen).copied().collect();

        for (wide, other) in overlaps(&listen) {
            let wrong = if wide == other {
                Wrong::new(format!("{wide} twice"), "listen and admin_listen name an address once")
            } else {
                Wrong::new(format!("{wide} takes {other} too"), "leave one of the two out, or choose another port")
            };
            self.blame(&["server.admin_listen", "server.listen"], wrong);
        }
        if login_cannot_sign {
            let what = "on with a public key, which cannot sign the tokens that a login gives";
            let wrong = Wrong::new(what, "leave it out or set it to false, or use a secret");
            self.blame(&["auth.login", "auth.public_key_file"], wrong);
        }
        if django != Django::Off && backend != Backend::Redis {
            let what = format!("{} without Redis, over which Django speaks", django.as_str());
            let wrong = Wrong::new(what, "set channel_layer.backend to redis, or this to off");
            self.blame(&["channel_layer.django", "channel_layer.backend"], wrong);
        }
        for (what, per_second, burst) in [
            ("handshakes", limits.handshakes_per_second, limits.handshakes_burst),
            ("ws_messages", limits.ws_messages_per_second, limits.ws_messages_burst),
            ("requests", limits.requests_per_second, limits.requests_burst),
        ] {
            if per_second > 0 && burst == 0 {
                let (burst, rate) = (format!("limits.{what}_burst"), format!("limits.{what}_per_second"));
                let right = format!("write at least 1, or turn the limit off with {rate} = 0");
                self.blame(&[&burst, &rate], Wrong::new("0 with the rate on lets nothing through", right));
            }
        }
    }

    /// A mistake between keys, put down to the first of them that was set. If one of them is wrong already, what
    /// follows from it is not worth a line.
    fn blame(&mut self, keys: &[&str], wrong: Wrong) {
        let sources: Vec<_> = keys.iter().filter_map(|key| self.sources.get(key)).collect();
        if let Some(first) = sources.first()
            && sources.iter().all(|source| source.fine)
        {
            let place = first.place.clone();
            self.mistake(place, wrong);
        }
    }
}

/// Addresses of which the first takes the second, too: not both can be listened on.
fn overlaps(listen: &[SocketAddr]) -> BTreeSet<(SocketAddr, SocketAddr)> {
    let pairs = (1..).zip(listen).flat_map(|(next, one)| listen.iter().skip(next).map(move |other| (*one, *other)));
    let ordered = pairs.filter_map(|(one, other)| match (takes(one, other), takes(other, one)) {
        (true, _) => Some((one, other)),
        (false, true) => Some((other, one)),
        (false, false) => None,
    });
    ordered.collect()
}

fn takes(wide: SocketAddr, other: SocketAddr) -> bool {
    let (all, its) = (wide.ip().to_canonical(), other.ip().to_canonical());
    let takes = match all {
        IpAddr::V4(_) => all == its || all.is_unspecified() && its.is_ipv4(),
        IpAddr::V6(_) => wide == other || all.is_unspecified() && (its.is_ipv6() || v6_takes_v4()),
    };
    // Port 0 is another port each time.
    takes && wide.port() == other.port() && wide.port() != 0
}

/// The kernel's own setting, which the listeners leave as it is.
fn v6_takes_v4() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/bindv6only").map_or(true, |only| only.trim() != "1")
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err("larger than 1 MiB".to_owned());
    }
    Ok(bytes)
}

fn key_file(path: &Path) -> Result<Vec<u8>, Wrong> {
    read_file(path).or_else(|what| wrong(format!("{}: {what}", path.display()), "name a file that can be read"))
}

fn secret_file(path: &Path) -> Result<Vec<u8>, Wrong> {
    let mut secret = key_file(path)?;
    // Editors and `echo` add one; more than one is part of the secret.
    if secret.ends_with(b"\n") {
        secret.pop();
        if secret.ends_with(b"\r") {
            secret.pop();
        }
    }
    long_enough(secret)
}

fn public_key_file(path: &Path) -> Result<Vec<u8>, Wrong> {
    let pem = key_file(path)?;
    let holds = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    if holds(b"PRIVATE KEY-----") {
        return wrong(
            format!("{} is a private key", path.display()),
            "name the public half, which is all that is needed",
        );
    }
    if !holds(b"-----BEGIN ") {
        return wrong(
            format!("{} is not PEM", path.display()),
            "name a file that begins with -----BEGIN PUBLIC KEY-----",
        );
    }
    Ok(pem)
}
