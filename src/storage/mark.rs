//! Owns what storage knows of a log that several nodes follow: where in it this database stands, and what comes next.
//! Never reads or writes that log (`channel_layer` does). Enter at [`Entry`] and [`Progress`].

use super::job::{Ask, Job};
use rusqlite::{Connection, OptionalExtension};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// An entry's place in its log: Redis' own id, whose first half is a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub ms: u64,
    pub seq: u64,
}

impl Position {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Who made an entry: a run of a node, and that run's count of entries. No two entries have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub run: Uuid,
    pub number: u64,
}

/// Where a database stands: which log, the last entry it holds, who made that one, and which run of a node wrote this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub log: Uuid,
    pub position: Position,
    pub tag: Tag,
    pub node: Uuid,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.log, self.position, self.tag.run, self.tag.number, self.node)
    }
}

/// The key in `meta`. A node's own: no part of what nodes compare.
pub(super) const MARK: &str = "log";

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let log = words.next()?.parse().ok()?;
        let position = Position::parse(words.next()?)?;
        let tag = Tag { run: words.next()?.parse().ok()?, number: words.next()?.parse().ok()? };
        Some(Self { log, position, tag, node: words.next()?.parse().ok()? })
    }

    /// The mark of a database; `None`: it follows no log.
    pub fn of(db: &Connection) -> rusqlite::Result<Option<Self>> {
        let text: Option<String> =
            db.query_row("SELECT value FROM meta WHERE key = ?1", [MARK], |row| row.get(0)).optional()?;
        Ok(text.and_then(|text| Self::parse(&text)))
    }

    pub(super) fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut write = db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
        write.execute((MARK, self.to_string())).map(drop)
    }
}

/// One entry of the log, to be applied whole, with its position, in its turn.
pub struct Entry {
    pub mark: Mark,
    /// What it says; `at_ms` is the entry's time, on every node the same.
    pub jobs: Vec<Job>,
    /// Whether it was asked for here, and is still waited for.
    pub ours: bool,
    /// Questions to be answered behind it.
    pub asks: Vec<Ask>,
    /// Goes when the entry is done with: whoever made room for it learns by that.
    pub room: Option<Box<dyn Send>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("mark", &self.mark).field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

/// How far the committer is, for the threads that feed it.
#[derive(Default)]
pub struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    mark: Option<Mark>,
    failing: bool,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock had only copied values in his hands.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last entry that is committed here.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.state().mark
    }

    /// Whether nothing can be committed at the moment.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.state().failing
    }

    pub(super) fn set_mark(&self, mark: Option<Mark>) {
        self.state().mark = mark;
        self.moved.notify_all();
    }

    pub(super) fn set_failing(&self, failing: bool) {
        self.state().failing = failing;
        self.moved.notify_all();
    }

    /// Waits until this entry is committed, at most for a while; whether it is.
    #[must_use]
    pub fn wait_for(&self, position: Position, at_most: Duration) -> bool {
        let before = |state: &mut State| state.mark.is_none_or(|mark| mark.position < position);
        let waited = self.moved.wait_timeout_while(self.state(), at_most, before);
        !before(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_as_it_was_written() {
        let mark = Mark {
            log: Uuid::from_u128(7),
            position: Position { ms: 1_795_485_566_775, seq: 3 },
            tag: Tag { run: Uuid::from_u128(9), number: 41 },
            node: Uuid::from_u128(10),
        };
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        for odd in ["", "x 1-2 y 3", "00000000-0000-0000-0000-000000000007 1 2 3"] {
            assert_eq!(Mark::parse(odd), None, "{odd:?}");
        }
    }
}
