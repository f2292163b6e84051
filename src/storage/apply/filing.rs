//! Owns the indexes that trail behind: whose notification, whose match, which pair. A commit that everybody waits for
//! only appends; what would touch a page at random for each row is done later, for thousands of rows in their order, a
//! slice with each commit. Never changes a row that anybody sees. Enter at [`Writer::file_slice`] and [`Writer::file`].

use super::Writer;
use crate::matching::{Match, MatchId, PropertyId, UserId};
use crate::notification::{Notification, NotificationId};
use rusqlite::{OptionalExtension, params};
use std::collections::HashMap;

/// Rows of a kind that wait before a sweep begins: what a question has to look through beside the indexes.
const UNFILED_MAX: usize = 2_000;
/// Entries that one commit takes along at least: a fraction of a millisecond.
const SLICE_MIN: usize = 64;
/// Entries filed for each that comes, once a sweep has begun: more than one, so that it ends.
const PACE: usize = 3;
/// Entries that one transaction files in a pause: whoever comes meanwhile waits for no more.
const PORTION: usize = 4_096;

/// Up to where rows are filed, and what lies behind that.
#[derive(Default)]
pub(super) struct Filed {
    marks: Marks,
    notifications: Vec<(UserId, NotificationId)>,
    pairs: HashMap<(PropertyId, UserId), MatchId>,
    sweep: Option<Sweep>,
    /// Entries that have come to be filed since the last slice.
    came: usize,
}

#[derive(Clone, Copy, Default)]
struct Marks {
    notification: i64,
    one_match: i64,
}

/// What is being filed: in the order of the index, the next one last. The marks move once all is done; until then
/// questions look at these rows, not at what the indexes say of them.
struct Sweep {
    upto: Marks,
    inbox: Vec<NotificationId>,
    pair: Vec<MatchId>,
    suit: Vec<MatchId>,
}

impl Filed {
    pub(super) fn note_match(&mut self, m: &Match) {
        self.pairs.insert((m.property, m.tenant), m.id);
        self.came += 2;
    }

    pub(super) fn note(&mut self, n: &Notification) {
        self.notifications.push((n.user, n.id));
        self.came += 1;
    }

    /// Whether enough waits for a sweep, or one is under way.
    fn is_due(&self) -> bool {
        self.sweep.is_some() || self.notifications.len().max(self.pairs.len()) >= UNFILED_MAX
    }

    fn is_empty(&self) -> bool {
        self.sweep.is_none() && self.notifications.is_empty() && self.pairs.is_empty()
    }

    fn sweep(&mut self, upto: Marks) -> Sweep {
        let mut inbox = std::mem::take(&mut self.notifications);
        inbox.sort_unstable_by(|a, b| b.cmp(a));
        let unfiled = self.pairs.iter().filter(|(_, id)| id.0 > self.marks.one_match);
        let mut pair: Vec<_> = unfiled.map(|((property, tenant), id)| (*property, *tenant, *id)).collect();
        let mut suit: Vec<_> = pair.iter().map(|(_, tenant, id)| (*tenant, *id)).collect();
        pair.sort_unstable_by(|a, b| b.cmp(a));
        suit.sort_unstable_by(|a, b| b.cmp(a));
        Sweep {
            upto,
            inbox: inbox.into_iter().map(|(_, id)| id).collect(),
            pair: pair.into_iter().map(|(.., id)| id).collect(),
            suit: suit.into_iter().map(|(_, id)| id).collect(),
        }
    }
}

impl Writer {
    /// Takes what is in memory from the rows again, as after a start.
    pub(super) fn reload_filed(&mut self) -> rusqlite::Result<()> {
        let mark =
            |key: &str| self.db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, i64>(0));
        let marks = Marks { notification: mark("filed_notification")?, one_match: mark("filed_match")? };
        let mut behind = self.db.prepare_cached("SELECT user, id FROM notification WHERE id > ?1")?;
        let rows =
            behind.query_map([marks.notification], |row| Ok((UserId(row.get(0)?), NotificationId(row.get(1)?))))?;
        let notifications = rows.collect::<Result<_, _>>()?;
        let mut behind_matches = self.db.prepare_cached("SELECT property, tenant, id FROM matches WHERE id > ?1")?;
        let rows = behind_matches.query_map([marks.one_match], |row| {
            Ok(((PropertyId(row.get(0)?), UserId(row.get(1)?)), MatchId(row.get(2)?)))
        })?;
        let pairs = rows.collect::<Result<_, _>>()?;
        drop((behind, behind_matches));
        self.filed = Filed { marks, notifications, pairs, sweep: None, came: self.filed.came };
        Ok(())
    }

    /// Whether anything waits to be filed.
    pub(in crate::storage) fn has_unfiled(&self) -> bool {
        !self.filed.is_empty()
    }

    /// Takes a slice along with the commit under way, if enough waits. After a rollback: [`Writer::reload`].
    pub(in crate::storage) fn file_slice(&mut self) -> rusqlite::Result<()> {
        let mut left = SLICE_MIN.max(PACE * std::mem::take(&mut self.filed.came));
        // One sweep may end and leave what came meanwhile, which may be much.
        while left > 0 && self.filed.is_due() {
            left -= self.file_entries(left)?;
        }
        Ok(())
    }

    /// Files a portion in a transaction of its own. After an error: [`Writer::reload`], and it may be tried again.
    pub(in crate::storage) fn file(&mut self) -> rusqlite::Result<()> {
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let mut left = PORTION;
        while left > 0 && self.has_unfiled() {
            left -= self.file_entries(left)?;
        }
        self.db.execute_batch("COMMIT")
    }

    /// Goes on with the sweep, or begins one; how many entries that filed.
    pub(super) fn file_entries(&mut self, most: usize) -> rusqlite::Result<usize> {
        let upto = Marks { notification: self.last.notification, one_match: self.last.one_match };
        let mut sweep = match self.filed.sweep.take() {
            Some(sweep) => sweep,
            None => self.filed.sweep(upto),
        };
        let mut left = most;
        // A row that has gone meanwhile is not filed.
        let columns = [("pair", "property, tenant, id", "matches"), ("suit", "tenant, id", "matches")];
        for (ids, (index, columns, table)) in [&mut sweep.pair, &mut sweep.suit].into_iter().zip(columns) {
            let count = insert_last(&self.db, &insert(index, columns, table), ids.iter().map(|id| id.0), left)?;
            ids.truncate(ids.len() - count);
            left -= count;
        }
        let insert = insert("inbox", "user, id", "notification");
        let count = insert_last(&self.db, &insert, sweep.inbox.iter().map(|id| id.0), left)?;
        sweep.inbox.truncate(sweep.inbox.len() - count);
        if !(sweep.pair.is_empty() && sweep.suit.is_empty() && sweep.inbox.is_empty()) {
            self.filed.sweep = Some(sweep);
            return Ok(most);
        }
        self.write_marks(sweep.upto)?;
        self.filed.marks = sweep.upto;
        self.filed.pairs.retain(|_, id| id.0 > sweep.upto.one_match);
        Ok(most - (left - count))
    }

    fn write_marks(&self, upto: Marks) -> rusqlite::Result<()> {
        let mut mark = self.db.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
        mark.execute(params!["filed_notification", upto.notification])?;
        mark.execute(params!["filed_match", upto.one_match])?;
        Ok(())
    }

    /// A match that came with an id of its own: it may lie before the mark.
    pub(in crate::storage) fn file_match(&self, m: &Match) -> rusqlite::Result<()> {
        self.db.prepare_cached("INSERT OR REPLACE INTO pair VALUES (?1, ?2, ?3)")?.execute([
            m.property.0,
            m.tenant.0,
            m.id.0,
        ])?;
        self.db.prepare_cached("INSERT OR REPLACE INTO suit VALUES (?1, ?2)")?.execute([m.tenant.0, m.id.0])?;
        Ok(())
    }

    pub(in crate::storage) fn match_of_pair(
        &self,
        property: PropertyId,
        tenant: UserId,
    ) -> rusqlite::Result<Option<Match>> {
        let unfiled = self.filed.pairs.get(&(property, tenant)).copied();
        // Two steps, as SQLite would prepare a join of the two anew at each call.
        let id = match unfiled {
            Some(id) => Some(id),
            None => self
                .db
                .prepare_cached("SELECT match FROM pair WHERE property = ?1 AND tenant = ?2")?
                .query_row([property.0, tenant.0], |row| row.get(0).map(MatchId))
                .optional()?,
        };
        id.map_or(Ok(None), |id| self.match_by_id(id))
    }
}

/// Entries that one statement files: by itself a statement costs more than an entry.
const BATCH: usize = 32;

/// Files those of the named rows that are still there. What is in the place of a pair is of a match that has gone.
fn insert(index: &str, columns: &str, table: &str) -> String {
    let named = (1..=BATCH).map(|n| format!("?{n}")).collect::<Vec<_>>().join(",");
    format!("INSERT OR REPLACE INTO {index} SELECT {columns} FROM {table} WHERE id IN ({named})")
}

/// Runs `insert` for the last `most` of these ids, the last ones first; how many that were.
fn insert_last(
    db: &rusqlite::Connection,
    insert: &str,
    ids: impl DoubleEndedIterator<Item = i64>,
    most: usize,
) -> rusqlite::Result<usize> {
    let (mut insert, mut count) = (db.prepare_cached(insert)?, 0);
    let mut ids = ids.rev().take(most).peekable();
    while ids.peek().is_some() {
        // NULL is in no row.
        let batch: [Option<i64>; BATCH] = std::array::from_fn(|_| ids.next());
        count += batch.iter().flatten().count();
        insert.execute(batch)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
