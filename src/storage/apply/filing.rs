//! Owns the indexes that trail behind: whose notification, whose match, which pair. A commit that everybody waits for
//! only appends; what would touch a page at random for each row is done later, for thousands of rows in their order.
//! Never changes a row that anybody sees. Enter at [`Writer::file`].

use super::Writer;
use crate::matching::{Match, MatchId, PropertyId, UserId};
use rusqlite::{OptionalExtension, params};
use std::collections::HashMap;

/// Rows that wait to be filed at most, but for one batch: what a question has to look through beside the indexes.
const UNFILED_MAX: i64 = 2_000;

/// Up to where rows are filed, and the matches behind it, which no index finds yet.
#[derive(Default)]
pub(super) struct Filed {
    notification: i64,
    one_match: i64,
    pairs: HashMap<(PropertyId, UserId), MatchId>,
}

impl Filed {
    pub(super) fn note(&mut self, m: &Match) {
        self.pairs.insert((m.property, m.tenant), m.id);
    }
}

impl Writer {
    pub(super) fn reload_filed(&mut self) -> rusqlite::Result<()> {
        let mark =
            |key: &str| self.db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, i64>(0));
        let mut filed =
            Filed { notification: mark("filed_notification")?, one_match: mark("filed_match")?, ..Filed::default() };
        let mut unfiled = self.db.prepare_cached("SELECT property, tenant, id FROM matches WHERE id > ?1")?;
        let rows = unfiled.query_map([filed.one_match], |row| {
            Ok(((PropertyId(row.get(0)?), UserId(row.get(1)?)), MatchId(row.get(2)?)))
        })?;
        filed.pairs = rows.collect::<Result<_, _>>()?;
        drop(unfiled);
        self.filed = filed;
        Ok(())
    }

    /// Whether anything waits to be filed.
    pub(in crate::storage) fn has_unfiled(&self) -> bool {
        self.unfiled() > 0
    }

    /// Whether so much waits that questions would feel it.
    pub(in crate::storage) fn must_file(&self) -> bool {
        self.unfiled() > UNFILED_MAX
    }

    fn unfiled(&self) -> i64 {
        (self.last.notification - self.filed.notification).max(self.last.one_match - self.filed.one_match)
    }

    /// Files what is there, in a transaction of its own. After an error nothing is filed, and it may be tried again.
    pub(in crate::storage) fn file(&mut self) -> rusqlite::Result<()> {
        let step = self.db.unchecked_transaction()?;
        self.file_rows()?;
        step.commit()?;
        self.reload_filed()
    }

    /// The same inside a transaction; what is in memory still counts from the old marks, which is only slower.
    pub(super) fn file_rows(&self) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO inbox SELECT user, id FROM notification WHERE id > ?1 ORDER BY user, id",
            )?
            .execute([self.filed.notification])?;
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO pair SELECT property, tenant, id FROM matches WHERE id > ?1
                 ORDER BY property, tenant",
            )?
            .execute([self.filed.one_match])?;
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO suit SELECT tenant, id FROM matches WHERE id > ?1 ORDER BY tenant, id",
            )?
            .execute([self.filed.one_match])?;
        let mut mark = self.db.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
        mark.execute(params!["filed_notification", self.last.notification])?;
        mark.execute(params!["filed_match", self.last.one_match])?;
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
