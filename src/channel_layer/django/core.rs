//! Owns the listening in `channels_redis.core`: our keys, emptied faster than Django fills them. Never joins a group
//! (`members` does). Enter at [`run`].
//!
//! Django drops what does not fit beside 100 others in a key, and Redis may carry out hundreds of its sends in one go. So
//! hundreds of connections wait for a message: Redis hands each of them one at the very moment it comes, before it looks
//! at the next send, and looks again for each by itself, even while this process has no processor. What they got is put
//! into Django's own order, its time of sending.

use super::waiters::Waiters;
use super::{AGAIN, Common, Heard, LOOK_EVERY, message};
use crate::hub::event::Unusable;
use crate::matching::UserId;
use redis::{Connection, FromRedisValue, RedisResult, cmd, pipe};
use std::path::Path;
use uuid::Uuid;

/// Keys of a node; its users are spread over them, and so are bursts.
const KEYS: usize = 4;
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

/// A message, and when Django sent it.
pub(super) type Message = (f64, Vec<u8>);

/// Until the server ends.
pub(super) fn run(common: &Common, keyring: &Keyring) {
    while !common.is_over() {
        if listen(common, keyring).is_err() {
            common.road.pause(AGAIN);
        }
    }
}

fn listen(common: &Common, keyring: &Keyring) -> RedisResult<()> {
    let mut link = common.address.connect(LOOK_EVERY)?;
    let mut waiters = Waiters::connect(&common.address, common.waiters, &wait_for(keyring), common.clock)?;
    while !common.is_over() {
        let mut messages = Vec::new();
        let waited = waiters.wait(LOOK_EVERY, &mut messages);
        if waited.is_ok() && messages.is_empty() {
            cmd("PING").exec(&mut link)?;
            continue;
        }
        // Where they cannot be had anew, the others may have been handed more.
        take(common, keyring, &mut link, &mut waiters, messages)?;
        waited?;
    }
    take(common, keyring, &mut link, &mut waiters, Vec::new())
}

fn wait_for(keyring: &Keyring) -> redis::Cmd {
    let mut wait = cmd("BZPOPMIN");
    wait.arg(&keyring.keys).arg(0);
    wait
}

/// All that has come: what waits in the keys, and, once Redis has said so, what it had handed out by then. What has come is
/// passed on where more cannot be had: Redis does not have it any more.
fn take(
    common: &Common,
    keyring: &Keyring,
    link: &mut Connection,
    waiters: &mut Waiters,
    mut messages: Vec<Message>,
) -> RedisResult<()> {
    let emptied = empty(keyring, link, &mut messages);
    let collected = waiters.collect(&mut messages);
    messages.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut heard = Heard::default();
    for (_, message) in &messages {
        hear(common, keyring, message.get(RANDOM..).unwrap_or_default(), &mut heard);
    }
    heard.pass_on(common);
    emptied?;
    Ok(collected?)
}

/// Takes what waits in the keys.
fn empty(keyring: &Keyring, link: &mut Connection, messages: &mut Vec<Message>) -> RedisResult<()> {
    let mut rest = pipe();
    for key in &keyring.keys {
        rest.add_command(cmd("ZPOPMIN").arg(key).arg(AT_ONCE).to_owned());
    }
    let rest: Vec<redis::Value> = rest.query(link)?;
    for found in rest {
        let found: Vec<(Vec<u8>, f64)> = FromRedisValue::from_redis_value(found)?;
        messages.extend(found.into_iter().map(|(message, score)| (score, message)));
    }
    Ok(())
}

fn hear(common: &Common, keyring: &Keyring, bytes: &[u8], heard: &mut Heard) {
    let Some(event) = heard.read(common, bytes) else { return };
    let groups = event.names.iter().filter_map(|name| keyring.group(name));
    let mut recipients = groups.filter_map(message::recipient).peekable();
    if recipients.peek().is_none() {
        return heard.drop(Unusable::WrongGroup);
    }
    for (channel, user) in recipients {
        heard.tell(common, &event, channel, user);
    }
}
