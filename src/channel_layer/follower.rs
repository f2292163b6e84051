//! Owns the thread that reads the log and feeds the committer from it, entry by entry, in the log's order. Never skips
//! one: what it cannot read or understand ends the reading, and is told. Enter at [`Follower::run`].

use super::address::Address;
use super::entry::decode;
use super::road::{Reading, Road};
use super::stream::{Log, Raw, Trouble};
use crate::clock::Clock;
use crate::storage::file;
use crate::storage::mark::{Entry, Mark, Position, Progress};
use redis::{Connection, cmd};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Entries read at once; what one read gave is committed while the next is read. So many keep a disk busy that syncs
/// slowly, and two reads of the longest entries (a MiB and one command, `entry::ENTRY_BYTES`) are 70 MiB.
const ENTRIES_READ: usize = 32;
/// How long a read waits for the first entry, and how often this node says how far it is.
const WAIT: Duration = Duration::from_secs(1);
const TRIM_EVERY_US: u64 = 10_000_000;
/// Between two tries, where Redis is gone; and where somebody has to do something.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_LATER: Duration = Duration::from_secs(2);
/// After Redis was away, before anything is added: whoever holds more than it does gives that back first.
const GIVE_BACK: Duration = Duration::from_millis(500);
/// How long a start waits for that, once the others may have noticed that Redis was away.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(2);
/// Entries kept to give back, and their bytes.
const RECENT_ENTRIES: usize = 4_096;
const RECENT_BYTES: usize = 16 * 1024 * 1024;

/// How far this node has read, for the thread that appends.
#[derive(Default)]
pub(super) struct Stand(Mutex<(Option<Mark>, Option<i64>)>);

impl Stand {
    fn set(&self, mark: Option<Mark>, client: Option<i64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (mark, client);
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Redis' number of the connection that waits for entries.
    pub(super) fn client(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// How long entries are kept.
#[derive(Clone, Copy)]
pub(super) struct Keeping {
    pub keep: Duration,
    pub forget: Duration,
}

pub(super) struct Follower {
    pub log: Log,
    pub address: Address,
    pub road: Arc<Road>,
    pub progress: Arc<Progress>,
    pub stand: Arc<Stand>,
    pub keeping: Keeping,
    pub path: PathBuf,
    pub run: Uuid,
    pub clock: Clock,
    /// The last entry that was handed over.
    pub at: Option<Mark>,
    /// Whether the database knows that this run speaks for it.
    pub joined: bool,
    pub was_away: bool,
    pub recent: Recent,
}

/// The last entries, as they came: what a Redis that lost its tail can be given back.
#[derive(Default)]
pub(super) struct Recent {
    /// Where the first of them follows on.
    after: Position,
    entries: VecDeque<Raw>,
    bytes: usize,
}

impl Recent {
    fn keep(&mut self, before: Position, raw: Raw) {
        if self.entries.is_empty() {
            self.after = before;
        }
        self.bytes += raw.commands.len();
        self.entries.push_back(raw);
        while self.entries.len() > RECENT_ENTRIES || self.bytes > RECENT_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.commands.len();
            self.after = oldest.position;
        }
    }

    /// All that came after a position, if none of it is missing.
    fn after(&self, position: Position) -> Option<impl Iterator<Item = &Raw>> {
        let known = self.after == position || self.entries.iter().any(|raw| raw.position == position);
        known.then(|| self.entries.iter().filter(move |raw| raw.position > position))
    }
}

impl Follower {
    /// The first look, before the server says that it listens: what can be told then ends it. Entries that Redis has just
    /// lost, another node may be about to give back.
    pub(super) fn first_look(&mut self) -> Result<(), Trouble> {
        let mut redis = self.address.connect(WAIT)?;
        let within = self.address.timeout + WAIT + GIVEN_BACK_WITHIN;
        let until_us = self.clock.now().monotonic_us + within.as_micros() as u64;
        loop {
            match self.join(&mut redis) {
                Err(Trouble::LostTail { .. }) if self.clock.now().monotonic_us < until_us => self.road.pause(AGAIN),
                looked => return looked,
            }
        }
    }

    /// Until the road ends.
    pub(super) fn run(mut self) {
        while !self.road.is_stopping() {
            let trouble = match self.session() {
                Ok(()) => return,
                Err(trouble) => trouble,
            };
            self.stand.set(self.at, None);
            self.was_away = true;
            let (why, pause) = match trouble {
                // What this node holds it gives back at the next try: soon, since others add after a while.
                Trouble::LostTail { what, .. } => (what, AGAIN),
                Trouble::Redis(e) => (format!("Redis at {}: {e}", self.address.shown()), AGAIN),
                Trouble::Log(what) => (what, AGAIN_LATER),
            };
            self.road.set_reading(Reading::Failing(why));
            self.road.pause(pause);
        }
    }

    /// One connection, from the check that this log is ours to whatever ends it. That it gets on is said once it does.
    fn session(&mut self) -> Result<(), Trouble> {
        let mut redis = self.address.connect(WAIT)?;
        self.join(&mut redis)?;
        let client: i64 = cmd("CLIENT").arg("ID").query(&mut redis)?;
        let mut goal = self.log.newest(&mut redis)?;
        let (mut caught_up, mut paced) = (false, None);
        let (mut report_us, mut trim_us) = (0, 0);
        while !self.road.is_stopping() {
            self.stand.set(self.at, Some(client));
            let Some(at) = self.at else { return Ok(()) };
            let waits = caught_up && self.road.unlooked().is_none();
            let wait_ms = if waits { WAIT.as_millis() as u64 } else { 0 };
            let raws = self.log.read(&mut redis, at.position, ENTRIES_READ, wait_ms)?;
            // Two reads are under way at most: the one before this must be committed.
            if let Some(position) = paced.replace(at.position) {
                self.committed(&mut redis, position)?;
            }
            for raw in raws {
                self.hand_over(raw)?;
            }
            let now_us = self.clock.now().monotonic_us;
            if now_us >= report_us || self.road.unlooked().is_some() {
                report_us = now_us + WAIT.as_micros() as u64;
                self.speak(&mut redis)?;
            }
            if now_us >= trim_us {
                trim_us = now_us + TRIM_EVERY_US;
                self.trim(&mut redis, self.progress.mark().unwrap_or(at).position)?;
            }
            if !caught_up {
                self.road.set_reading(Reading::CatchingUp);
                if std::mem::take(&mut self.was_away) {
                    self.road.pause(GIVE_BACK);
                    goal = self.log.newest(&mut redis)?;
                }
                caught_up = self.at.is_some_and(|at| at.position >= goal && self.progress.wait_for(at.position, WAIT));
                if caught_up {
                    self.road.set_reading(Reading::There);
                }
            }
        }
        Ok(())
    }

    fn trim(&self, redis: &mut Connection, own: Position) -> Result<(), Trouble> {
        self.log.trim(redis, own, self.keeping.keep.as_millis() as u64, self.keeping.forget.as_millis() as u64)
    }

    /// Waits for the committer, unless the road ends. A node whose disk does not write is waited for all the same: it
    /// goes on saying how far it is.
    fn committed(&self, redis: &mut Connection, position: Position) -> Result<(), Trouble> {
        while !self.progress.wait_for(position, WAIT) && !self.road.is_stopping() {
            self.speak(redis)?;
        }
        Ok(())
    }

    /// Finds the place to go on from. A database that has none yet gets one.
    fn join(&mut self, redis: &mut Connection) -> Result<(), Trouble> {
        let path = &self.path;
        let digest = || match file::digest(path) {
            Ok(digest) => Ok(digest.unwrap_or_default()),
            Err(e) => Err(e.to_string()),
        };
        let mark = match self.log.check(redis, self.at, self.run, digest) {
            Err(Trouble::LostTail { newest, what }) => {
                self.give_back(redis, newest, what)?;
                self.log.check(redis, self.at, self.run, digest)?
            }
            mark => mark?,
        };
        if !self.joined {
            // From here on the log is kept for it, however soon it is killed; another may have trimmed it just before.
            self.report(redis, mark.position)?;
            self.log.check(redis, Some(mark), self.run, digest)?;
            if let Some(before) = self.at {
                self.log.retire(redis, before.node)?;
            }
            (self.at, self.joined) = (Some(mark), true);
            self.road.arrived(None, Entry { mark, jobs: Vec::new(), ours: false, asks: Vec::new(), room: None });
        }
        Ok(())
    }

    /// Puts back what Redis lost, while nobody has added anything else.
    fn give_back(&self, redis: &mut Connection, newest: Position, what: String) -> Result<(), Trouble> {
        let Some(lost) = self.recent.after(newest) else { return Err(Trouble::LostTail { newest, what }) };
        for raw in lost {
            if !self.log.restore(redis, raw)? {
                return Err(Trouble::Log(what));
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, raw: Raw) -> Result<(), Trouble> {
        let Some(at) = self.at else { return Ok(()) };
        let at_ms = i64::try_from(raw.position.ms).unwrap_or(i64::MAX);
        let jobs = decode(&raw.version, &raw.commands, at_ms)
            .map_err(|e| Trouble::Log(format!("entry {} of the log: {e}", raw.position)))?;
        let mark = Mark { position: raw.position, tag: raw.tag, ..at };
        let own = (raw.tag.run == self.run).then_some(raw.tag.number);
        self.road.arrived(own, Entry { mark, jobs, ours: false, asks: Vec::new(), room: None });
        self.at = Some(mark);
        self.recent.keep(at.position, raw);
        Ok(())
    }

    /// Says how far this node is, and looks whether the log is still the one it follows.
    fn speak(&self, redis: &mut Connection) -> Result<(), Trouble> {
        let unlooked = self.road.unlooked();
        if let Some(mark) = self.progress.mark() {
            let redis_ms = self.report(redis, mark.position)?;
            let oldest = self.log.next(redis, mark.position)?;
            self.road.load.looked(oldest, redis_ms, self.clock.now().monotonic_us);
        }
        self.log.check(redis, self.at, self.run, || Err(String::new()))?;
        if let Some(link) = unlooked {
            self.road.looked(link);
        }
        Ok(())
    }

    /// Says how far this node is. A full Redis takes no report: what may go from the log makes room for it.
    fn report(&self, redis: &mut Connection, position: Position) -> Result<u64, Trouble> {
        match self.log.report(redis, self.run, position) {
            Err(Trouble::Redis(e)) if e.code() == Some("OOM") => {
                self.trim(redis, position)?;
                self.log.report(redis, self.run, position)
            }
            said => said,
        }
    }
}
