//! Owns what commands do to the directory: users and properties as the backend describes them. Never checks a field:
//! `api::directory` did. Enter at [`Writer::put_user`] and [`Writer::put_property`].

use super::{Applied, Writer};
use crate::api::reply::{Reply, UPDATED};
use crate::api::views;
use crate::matching::{Property, PropertyId, User, UserId};
use crate::storage::job::{Answer, Change, Standing};
use crate::storage::schema::{self, sql, sql_part};
use rusqlite::{OptionalExtension, params};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// What a deleted user takes with him, all of it filed.
const FORGET: [&str; 8] = [
    // One look at his inbox, not one for each row of it.
    "UPDATE general SET shared_by = shared_by - his.count FROM
       (SELECT n.general, count(*) AS count FROM inbox JOIN notification n ON n.id = notification
          WHERE inbox.user = ?1 AND n.general IS NOT NULL GROUP BY n.general) AS his
     WHERE his.general = general.id",
    "DELETE FROM general WHERE shared_by <= 0 AND id IN
       (SELECT n.general FROM inbox JOIN notification n ON n.id = notification WHERE inbox.user = ?1)",
    "DELETE FROM notification WHERE id IN (SELECT notification FROM inbox WHERE user = ?1)",
    "DELETE FROM inbox WHERE user = ?1",
    "DELETE FROM pair WHERE (property, tenant) IN
       (SELECT m.property, m.tenant FROM suit JOIN matches m ON m.id = suit.match WHERE suit.tenant = ?1)",
    "DELETE FROM matches WHERE id IN (SELECT match FROM suit WHERE tenant = ?1)",
    "DELETE FROM suit WHERE tenant = ?1",
    // Answers that are kept for him: whoever has his id next gets none of them.
    "DELETE FROM idempotency WHERE caller = ?1",
];

impl Writer {
    pub(super) fn put_user(
        &mut self,
        id: UserId,
        user: &User,
        is_active: Option<bool>,
        password: Option<&str>,
    ) -> Applied {
        self.known.users.remove(&id);
        let known: Option<(i64, Option<String>)> = self
            .db
            .prepare_cached("SELECT standing, password FROM user WHERE id = ?1")?
            .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (before, old_password) = known.map_or((None, None), |(standing, password)| (Some(standing), password));
        if old_password.is_some_and(|old| password.is_some_and(|new| new != old)) {
            self.revoke_all(id)?;
        }
        let is_new = matches!(before, None | Some(2));
        let is_active = is_active.unwrap_or_else(|| is_new || before == Some(0));
        self.db
            .prepare_cached(
                "INSERT INTO user VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (id) DO UPDATE SET username = ?2, email = ?3, first_name = ?4, last_name = ?5, phone = ?6,
                   user_type = ?7, standing = ?8, password = coalesce(?9, password), further = ?10",
            )?
            .execute(params![
                id.0,
                user.username,
                user.email,
                user.first_name,
                user.last_name,
                user.phone,
                user.user_type,
                i64::from(!is_active),
                password,
                json(&user.further)
            ])?;
        self.deleted.remove(&id);
        if is_new {
            self.changes.push(Change::Known { user: id });
        }
        let standing = if is_active { Standing::Active } else { Standing::Inactive };
        if before.unwrap_or(0) != i64::from(!is_active) {
            self.changes.push(Change::Standing { user: id, standing });
        }
        let row = views::user(id, user, is_active);
        Ok(Answer::Reply(if is_new { Reply::created(row) } else { Reply::ok(UPDATED, row) }))
    }

    /// Remembers somebody whom only his token told.
    pub(super) fn meet(&mut self, id: UserId) -> Applied {
        let met = self
            .db
            .prepare_cached(
                "INSERT INTO visitor SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM user WHERE id = ?1)
                 AND NOT EXISTS (SELECT 1 FROM visitor WHERE id = ?1)",
            )?
            .execute([id.0])?;
        if met > 0 {
            self.changes.push(Change::Known { user: id });
        }
        Ok(Answer::Nothing)
    }

    /// The row stays as a gravestone: his tokens are still good, he is not. Somebody the directory never knew may have
    /// rows all the same, or no more than a token and a socket: he is not found, and shut out like anybody.
    pub(super) fn delete_user(&mut self, id: UserId) -> Applied {
        if self.deleted.contains(&id) {
            return Ok(Answer::Reply(no_user()));
        }
        self.known.users.remove(&id);
        self.fresh.clear();
        while self.has_unfiled() {
            self.file_entries(usize::MAX)?;
        }
        let known: bool = self
            .db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM user WHERE id = ?1)
                   OR EXISTS (SELECT 1 FROM visitor WHERE id = ?1) OR EXISTS (SELECT 1 FROM inbox WHERE user = ?1)
                   OR EXISTS (SELECT 1 FROM suit WHERE tenant = ?1)",
            )?
            .query_row([id.0], |row| row.get(0))?;
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO user (id, username, email, first_name, last_name, phone, user_type, standing, further)
                 VALUES (?1, '', '', '', '', '', '', 2, '{}')",
            )?
            .execute([id.0])?;
        self.keep_last()?;
        for forget in FORGET {
            self.db.prepare_cached(forget)?.execute([id.0])?;
        }
        self.revoke_all(id)?;
        self.db.prepare_cached("DELETE FROM visitor WHERE id = ?1")?.execute([id.0])?;
        self.deleted.insert(id);
        self.changes.push(Change::Forgotten { user: id });
        self.changes.push(Change::Standing { user: id, standing: Standing::Deleted });
        Ok(Answer::Reply(if known { Reply::no_content() } else { no_user() }))
    }

    pub(super) fn put_property(&mut self, id: PropertyId, p: &Property) -> Applied {
        let known = self.property(id)?.is_some();
        self.known.properties.remove(&id);
        self.db
            .prepare_cached("INSERT OR REPLACE INTO property VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
            .execute(params![
                id.0,
                p.owner.0,
                p.agent.map(|agent| agent.0),
                p.kind,
                p.address,
                p.price,
                p.bedrooms,
                p.is_active,
                json(&p.further)
            ])?;
        let row = views::property(id, p);
        Ok(Answer::Reply(if known { Reply::ok(UPDATED, row) } else { Reply::created(row) }))
    }

    pub(super) fn delete_property(&mut self, id: PropertyId) -> Applied {
        self.known.properties.remove(&id);
        let gone = self.db.prepare_cached("DELETE FROM property WHERE id = ?1")?.execute([id.0])?;
        Ok(Answer::Reply(if gone == 0 { no_property() } else { Reply::no_content() }))
    }

    pub(super) fn property(&mut self, id: PropertyId) -> rusqlite::Result<Option<Arc<Property>>> {
        if let Some(known) = self.known.properties.get(&id) {
            return Ok(known.clone());
        }
        let found = self
            .db
            .prepare_cached(sql!("SELECT " PROPERTY " FROM property p WHERE id = ?1"))?
            .query_row([id.0], |row| schema::property(row, 0).map(Arc::new))
            .optional()?;
        remember(&mut self.known.properties, id, &found);
        Ok(found)
    }

    pub(super) fn user(&mut self, id: UserId) -> rusqlite::Result<Option<Arc<User>>> {
        if let Some(known) = self.known.users.get(&id) {
            return Ok(known.clone());
        }
        let found = self
            .db
            .prepare_cached(sql!("SELECT " USER " FROM user u WHERE id = ?1 AND standing <> 2"))?
            .query_row([id.0], |row| schema::user(row, 0).map(Arc::new))
            .optional()?;
        remember(&mut self.known.users, id, &found);
        Ok(found)
    }
}

/// Rows of the directory as they are inside the transaction under way, so that the next like of the same people reads
/// none. Whatever writes one forgets it here; a rollback forgets all.
#[derive(Default)]
pub(super) struct Known {
    users: HashMap<UserId, Option<Arc<User>>>,
    properties: HashMap<PropertyId, Option<Arc<Property>>>,
}

/// Of each kind; at the next, all are forgotten.
const KNOWN_MAX: usize = 1_024;

fn remember<K: Hash + Eq, V>(known: &mut HashMap<K, Option<Arc<V>>>, id: K, found: &Option<Arc<V>>) {
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert(id, found.clone());
}

fn json(further: &serde_json::Map<String, serde_json::Value>) -> String {
    serde_json::to_string(further).unwrap_or_else(|_| "{}".to_owned())
}

pub(super) fn no_user() -> Reply {
    Reply::not_found("No User matches the given query.")
}

pub(super) fn no_property() -> Reply {
    Reply::not_found("No Property matches the given query.")
}

#[cfg(test)]
mod tests;
