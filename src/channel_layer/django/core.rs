//! Owns the listening in `channels_redis.core`: our keys, emptied faster than Django fills them. Never joins a group
//! (`members` does). Enter at [`run`].
//!
//! Django drops what does not fit beside 100 others in a key. So the next looks are always with Redis already, behind the
//! one that waits: Redis empties the keys by itself, even while this process has no processor.

use super::{AGAIN, Common, Heard, LOOK_EVERY, message};
use crate::matching::UserId;
use redis::{Connection, FromRedisValue, RedisError, RedisResult, Value, cmd, pipe};
use std::path::Path;
use uuid::Uuid;

/// Keys of a node; its users are spread over them, and so are bursts.
const KEYS: usize = 8;
/// Looks that lie with Redis: each waits for a message, then empties all keys.
const LOOKS: usize = 8;
/// Messages taken from a key at once: Django lets no more lie there.
const AT_ONCE: usize = 1_000;
/// Random bytes before each message.
const RANDOM: usize = 12;

/// The names under which this node is a member. The same after a restart: what came meanwhile is still there.
#[derive(Clone)]
pub(super) struct Keyring {
    /// `specific.<32 hex>!`
    names: Vec<String>,
    /// The same as keys in Redis.
    keys: Vec<String>,
}

impl Keyring {
    pub(super) fn new(prefix: &str, log: &str, database: &Path) -> Self {
        let host = rustix::system::uname();
        let place = std::path::absolute(database).unwrap_or_else(|_| database.to_owned());
        let node = format!("habittod:{log}:{}:{}", host.nodename().to_string_lossy(), place.display());
        let name = |n: usize| {
            let hex = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{node}:{n}").as_bytes()).simple();
            format!("specific.{hex}!")
        };
        let names: Vec<String> = (0..KEYS).map(name).collect();
        let keys = names.iter().map(|name| format!("{prefix}{name}")).collect();
        Self { names, keys }
    }

    /// Our name in a group of this user's: it says which group it was.
    pub(super) fn member(&self, user: UserId, group: &str) -> String {
        let name = self.names.get(user.0.unsigned_abs() as usize % KEYS).map_or("", String::as_str);
        format!("{name}{group}")
    }

    /// The group in one of our names.
    fn group<'a>(&self, member: &'a str) -> Option<&'a str> {
        self.names.iter().find_map(|name| member.strip_prefix(name.as_str()))
    }
}

/// Until the road ends.
pub(super) fn run(common: &Common, keyring: &Keyring) {
    while !common.road.is_closing() {
        if listen(common, keyring).is_err() {
            common.road.pause(AGAIN);
        }
    }
}

fn listen(common: &Common, keyring: &Keyring) -> RedisResult<()> {
    let mut link = common.address.connect(LOOK_EVERY)?;
    let client: i64 = cmd("CLIENT").arg("ID").query(&mut link)?;
    let look = look(keyring);
    for _ in 0..LOOKS {
        link.send_packed_command(&look)?;
    }
    while !common.road.is_closing() {
        take(common, keyring, &mut link)?;
        link.send_packed_command(&look)?;
    }
    // Of those that still lie there, none has to wait any more.
    let mut other = common.address.connect(LOOK_EVERY)?;
    for _ in 0..LOOKS {
        cmd("CLIENT").arg("UNBLOCK").arg(client).exec(&mut other)?;
        take(common, keyring, &mut link)?;
    }
    Ok(())
}

/// Waits for a message in any key, then empties all of them.
fn look(keyring: &Keyring) -> Vec<u8> {
    let mut look = pipe();
    look.add_command(cmd("BZPOPMIN").arg(&keyring.keys).arg(LOOK_EVERY.as_secs()).to_owned());
    for key in &keyring.keys {
        look.add_command(cmd("ZPOPMIN").arg(key).arg(AT_ONCE).to_owned());
    }
    look.get_packed_pipeline()
}

/// What one look found.
fn take(common: &Common, keyring: &Keyring, link: &mut Connection) -> RedisResult<()> {
    let mut heard = Heard::default();
    for answer in 0..=KEYS {
        let found = match link.recv_response()? {
            Value::ServerError(e) => return Err(RedisError::from(e)),
            Value::Array(found) => found,
            _ => continue,
        };
        // The one that waited says in which key it was.
        let skip = usize::from(answer == 0);
        for pair in found.get(skip..).unwrap_or_default().chunks(2) {
            let Some(message) = pair.first() else { continue };
            let message: Vec<u8> = FromRedisValue::from_redis_value(message.clone())?;
            hear(common, keyring, message.get(RANDOM..).unwrap_or_default(), &mut heard);
        }
    }
    heard.pass_on(common);
    Ok(())
}

fn hear(common: &Common, keyring: &Keyring, bytes: &[u8], heard: &mut Heard) {
    let Some(event) = heard.read(common, bytes) else { return };
    let groups = event.names.iter().filter_map(|name| keyring.group(name));
    let mut recipients = groups.filter_map(message::recipient).peekable();
    if recipients.peek().is_none() {
        return heard.drop("wrong_group");
    }
    for (channel, user) in recipients {
        heard.tell(common, &event, channel, user);
    }
}
