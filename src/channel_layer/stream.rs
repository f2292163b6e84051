//! Owns the log as it lies in Redis: one stream, who founded it, and how far each node is. Never decodes an entry's
//! commands and never writes SQLite. Enter at [`Log::check`], [`Log::append`] and [`Log::read`].

use super::address::is_broken;
use super::entry::VERSION;
use crate::storage::mark::{Mark, Position, Tag};
use redis::{Connection, FromRedisValue, RedisError, RedisResult, Value, cmd};
use std::collections::HashMap;
use uuid::Uuid;

/// The keys in Redis.
#[derive(Clone)]
pub(super) struct Log {
    stream: String,
    /// `<log> <digest of the founder's rows> <position of the first entry>`.
    founding: String,
    /// Hash: run of a node → `<position> <Redis' time of the report, ms>`.
    nodes: String,
}

/// An entry as it lies in the stream.
pub(super) struct Raw {
    pub position: Position,
    pub tag: Tag,
    pub version: String,
    pub commands: Vec<u8>,
}

/// Why the log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Redis is gone or says no: it may work later.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// This database and this log do not go together: somebody has to do something.
    #[error("{0}")]
    Log(String),
    /// The stream ends before what this database holds.
    #[error("{what}")]
    LostTail { newest: Position, what: String },
}

/// Founds a log unless there is one: its first entry, and beside it what every node checks.
const FOUND: &str = "if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return false end
local id = redis.call('XADD', KEYS[1], '*', 'v', ARGV[1], 'r', ARGV[2], 'n', '0', 'c', '[]')
redis.call('SET', KEYS[2], ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. id)
return id";

struct Founding {
    log: Uuid,
    digest: String,
    position: Position,
}

impl Log {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            stream: format!("{prefix}:log"),
            founding: format!("{prefix}:log:founding"),
            nodes: format!("{prefix}:log:nodes"),
        }
    }

    /// Where a database with this mark goes on. One without a mark founds the log, or joins it at its beginning if its
    /// rows are the founder's (`digest` tells); anything that does not fit is named.
    pub(super) fn check(
        &self,
        redis: &mut Connection,
        mark: Option<Mark>,
        run: Uuid,
        digest: impl Fn() -> Result<String, String>,
    ) -> Result<Mark, Trouble> {
        match (self.founding(redis)?, mark) {
            (Some(founding), Some(mark)) if founding.log == mark.log => {
                self.goes_on(redis, mark).map(|()| Mark { node: run, ..mark })
            }
            (Some(founding), Some(mark)) => Err(Trouble::Log(format!(
                "this database follows log {}, but {} in Redis is log {}; start from a backup of a node that follows it, \
                 or choose another channel_layer.log_key or Redis database",
                mark.log, self.stream, founding.log
            ))),
            (None, Some(_)) => Err(self.gone(&self.founding)),
            (Some(founding), None) => self.joins(redis, &founding, run, &digest),
            (None, None) => {
                let own = digest().map_err(Trouble::Log)?;
                if self.found(redis, run, &own)? || self.founding(redis)?.is_some() {
                    return match self.founding(redis)? {
                        Some(founding) => self.joins(redis, &founding, run, &digest),
                        None => Err(Trouble::Log(format!(
                            "{} vanished from Redis while it was read; start again",
                            self.founding
                        ))),
                    };
                }
                Err(Trouble::Log(format!(
                    "{} is there, but {} is not: not a log of habittod; choose another channel_layer.log_key",
                    self.stream, self.founding
                )))
            }
        }
    }

    fn founding(&self, redis: &mut Connection) -> Result<Option<Founding>, Trouble> {
        let text: Option<String> = cmd("GET").arg(&self.founding).query(redis)?;
        let Some(text) = text else { return Ok(None) };
        let read = || {
            let mut words = text.split(' ');
            let log = words.next()?.parse().ok()?;
            let digest = words.next()?.to_owned();
            Some(Founding { log, digest, position: Position::parse(words.next()?)? })
        };
        match read() {
            Some(founding) => Ok(Some(founding)),
            None => Err(Trouble::Log(format!(
                "{} in Redis is none of habittod's; choose another channel_layer.log_key",
                self.founding
            ))),
        }
    }

    /// Whether this made the log.
    fn found(&self, redis: &mut Connection, run: Uuid, digest: &str) -> Result<bool, Trouble> {
        let mut found = cmd("EVAL");
        found.arg(FOUND).arg(2).arg(&self.stream).arg(&self.founding);
        found.arg(VERSION).arg(run.to_string()).arg(Uuid::new_v4().to_string()).arg(digest);
        Ok(found.query::<Option<String>>(redis)?.is_some())
    }

    /// A database without a mark: its rows have to be those with which the log began, and all of the log still there.
    fn joins(
        &self,
        redis: &mut Connection,
        founding: &Founding,
        run: Uuid,
        digest: &impl Fn() -> Result<String, String>,
    ) -> Result<Mark, Trouble> {
        if digest().map_err(Trouble::Log)? != founding.digest {
            return Err(Trouble::Log(format!(
                "this database has other rows than the one with which {} began, and would never be like the other nodes'; \
                 start from a backup of one of them (habittod backup)",
                self.stream
            )));
        }
        match self.range(redis, "-", "+")? {
            Some(first) if first.position == founding.position => {
                Ok(Mark { log: founding.log, position: first.position, tag: first.tag, node: run })
            }
            _ => Err(self.trimmed(Position::default())),
        }
    }

    /// A database that has followed: the entry it stands on is still there and still that one, or it is the last.
    fn goes_on(&self, redis: &mut Connection, mark: Mark) -> Result<(), Trouble> {
        let at = mark.position.to_string();
        match self.range(redis, &at, &at)? {
            Some(entry) if entry.tag == mark.tag => return Ok(()),
            Some(_) => return Err(Trouble::Log(self.lost_tail(mark.position))),
            None => {}
        }
        let newest = self.newest(redis)?;
        if newest == mark.position {
            return Ok(());
        }
        match self.range(redis, "-", "+")? {
            _ if newest < mark.position => Err(Trouble::LostTail { newest, what: self.lost_tail(mark.position) }),
            Some(first) if first.position < mark.position => Err(Trouble::Log(self.lost_tail(mark.position))),
            _ => Err(self.trimmed(mark.position)),
        }
    }

    fn gone(&self, key: &str) -> Trouble {
        Trouble::Log(format!(
            "the log that this database follows is gone: {key} is missing in Redis; restore Redis' data, or found a new log \
             as README, 'Several nodes', says"
        ))
    }

    fn trimmed(&self, position: Position) -> Trouble {
        Trouble::Log(format!(
            "{} was trimmed past {position}, where this database stands: what it missed is no longer there; start from a \
             backup of another node (habittod backup FILE there, then storage.path here)",
            self.stream
        ))
    }

    fn lost_tail(&self, position: Position) -> String {
        format!(
            "{} has lost entries up to {position} that this database holds (a failover, or a Redis that did not sync); the \
             nodes may differ: stop them all, and found a new log from the one that stands furthest, as README, 'Several \
             nodes', says",
            self.stream
        )
    }

    /// The first entry between two places.
    fn range(&self, redis: &mut Connection, from: &str, to: &str) -> Result<Option<Raw>, Trouble> {
        let found: Value = cmd("XRANGE").arg(&self.stream).arg(from).arg(to).arg("COUNT").arg(1).query(redis)?;
        Ok(self.entries(found)?.pop())
    }

    /// The newest position that the stream has given out, whether or not that entry is still there.
    pub(super) fn newest(&self, redis: &mut Connection) -> Result<Position, Trouble> {
        let about: HashMap<String, Value> = match cmd("XINFO").arg("STREAM").arg(&self.stream).query(redis) {
            Err(e) if e.detail().is_some_and(|what| what.contains("no such key")) => {
                return Err(self.gone(&self.stream));
            }
            about => about?,
        };
        let newest = about.get("last-generated-id").and_then(|value| String::from_redis_value(value.clone()).ok());
        newest.as_deref().and_then(Position::parse).ok_or_else(|| self.odd("XINFO STREAM"))
    }

    fn odd(&self, what: &str) -> Trouble {
        Trouble::Log(format!(
            "{what} of {}: not what habittod writes; choose another channel_layer.log_key",
            self.stream
        ))
    }

    /// Adds an entry; `None`: the stream is not there any more.
    pub(super) fn append(&self, redis: &mut Connection, tag: Tag, commands: &[u8]) -> RedisResult<Option<String>> {
        let mut append = cmd("XADD");
        append.arg(&self.stream).arg("NOMKSTREAM").arg("*").arg("v").arg(VERSION);
        append.arg("r").arg(tag.run.to_string()).arg("n").arg(tag.number).arg("c").arg(commands);
        append.query(redis)
    }

    /// Puts an entry back where it was; whether it is there now, whoever put it.
    pub(super) fn restore(&self, redis: &mut Connection, raw: &Raw) -> Result<bool, Trouble> {
        let at = raw.position.to_string();
        let mut append = cmd("XADD");
        append.arg(&self.stream).arg("NOMKSTREAM").arg(&at).arg("v").arg(&raw.version);
        append.arg("r").arg(raw.tag.run.to_string()).arg("n").arg(raw.tag.number).arg("c").arg(&raw.commands);
        match append.exec(redis) {
            Err(e) if is_broken(&e) => return Err(e.into()),
            _ => {}
        }
        Ok(self.range(redis, &at, &at)?.is_some_and(|there| there.tag == raw.tag))
    }

    /// What comes after a position, at most `count` entries; waits for the first one so many ms, or (0) not at all.
    pub(super) fn read(
        &self,
        redis: &mut Connection,
        after: Position,
        count: usize,
        wait_ms: u64,
    ) -> Result<Vec<Raw>, Trouble> {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(count);
        if wait_ms > 0 {
            read.arg("BLOCK").arg(wait_ms);
        }
        read.arg("STREAMS").arg(&self.stream).arg(after.to_string());
        match read.query(redis)? {
            Value::Nil => Ok(Vec::new()),
            Value::Array(streams) => match streams.into_iter().next() {
                Some(Value::Array(mut stream)) => self.entries(stream.pop().unwrap_or(Value::Nil)),
                _ => Err(self.odd("XREAD")),
            },
            _ => Err(self.odd("XREAD")),
        }
    }

    fn entries(&self, value: Value) -> Result<Vec<Raw>, Trouble> {
        let Value::Array(entries) = value else { return Err(self.odd("entries")) };
        entries.into_iter().map(|entry| raw(entry).ok_or_else(|| self.odd("an entry"))).collect()
    }

    /// Where the first entry behind a position lies, if there is one.
    pub(super) fn next(&self, redis: &mut Connection, after: Position) -> Result<Option<Position>, Trouble> {
        Ok(self.range(redis, &format!("({after}"), "+")?.map(|entry| entry.position))
    }

    /// Says how far this node is; what time it is there.
    pub(super) fn report(&self, redis: &mut Connection, run: Uuid, position: Position) -> Result<u64, Trouble> {
        let now_ms = time_ms(redis)?;
        cmd("HSET").arg(&self.nodes).arg(run.to_string()).arg(format!("{position} {now_ms}")).exec(redis)?;
        Ok(now_ms)
    }

    /// Takes a run of this node that has ended off the list: this one speaks for the same database.
    pub(super) fn retire(&self, redis: &mut Connection, run: Uuid) -> Result<(), Trouble> {
        cmd("HDEL").arg(&self.nodes).arg(run.to_string()).exec(redis)?;
        Ok(())
    }

    /// Drops what every known node, and the one that asks, has applied and is older than `keep_ms`; a node that has not
    /// reported for `forget_ms` is not known any more.
    pub(super) fn trim(
        &self,
        redis: &mut Connection,
        own: Position,
        keep_ms: u64,
        forget_ms: u64,
    ) -> Result<(), Trouble> {
        let now_ms = time_ms(redis)?;
        let nodes: HashMap<String, String> = cmd("HGETALL").arg(&self.nodes).query(redis)?;
        let mut upto = own.min(Position { ms: now_ms.saturating_sub(keep_ms), seq: 0 });
        for (run, report) in nodes {
            let read = report.split_once(' ').and_then(|(at, when)| Some((Position::parse(at)?, when.parse().ok()?)));
            match read {
                Some((position, when)) if now_ms.saturating_sub(forget_ms) <= when => upto = upto.min(position),
                _ => cmd("HDEL").arg(&self.nodes).arg(run).exec(redis)?,
            }
        }
        // Redis drops some at a time, so as not to be busy with it for long.
        let mut trim = cmd("XTRIM");
        trim.arg(&self.stream).arg("MINID").arg("~").arg(upto.to_string());
        while trim.query::<u64>(redis)? > 0 {}
        Ok(())
    }
}

/// Redis' own clock: the one that makes the positions.
fn time_ms(redis: &mut Connection) -> Result<u64, Trouble> {
    let (seconds, micros): (u64, u64) = cmd("TIME").query(redis)?;
    Ok(seconds * 1_000 + micros / 1_000)
}

fn raw(entry: Value) -> Option<Raw> {
    let Value::Array(mut entry) = entry else { return None };
    let (fields, id) = (entry.pop()?, entry.pop()?);
    let position = Position::parse(&String::from_redis_value(id).ok()?)?;
    let mut fields: HashMap<String, Vec<u8>> = FromRedisValue::from_redis_value(fields).ok()?;
    let text = |fields: &HashMap<String, Vec<u8>>, name: &str| String::from_utf8(fields.get(name)?.clone()).ok();
    let tag = Tag { run: text(&fields, "r")?.parse().ok()?, number: text(&fields, "n")?.parse().ok()? };
    let version = text(&fields, "v")?;
    Some(Raw { position, tag, version, commands: fields.remove("c")? })
}
