//! Owns what each command does to the rows, inside a transaction that somebody else opens and commits. Never decides a
//! transition (`matching` does) and never commits. Enter at [`Writer::apply`].

mod directory;
mod filing;
mod fresh;
mod matches;
mod notifications;
mod refresh;
#[cfg(test)]
mod tests;

use super::job::{Answer, Change, Idempotency, Job};
use crate::api::command::{Command, Recipients};
use crate::api::reply::{Reply, Unauthorized};
use crate::matching::UserId;
use directory::Known;
use filing::Filed;
use fresh::Fresh;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;

/// How long an answer is kept under its `Idempotency-Key`.
pub(super) const IDEMPOTENCY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The rows as they are while commands are applied: the connection and what is counted in memory beside it.
pub(super) struct Writer {
    pub db: Connection,
    last: Last,
    filed: Filed,
    known: Known,
    fresh: Fresh,
    deleted: HashSet<UserId>,
    /// Of the job under way: the time it gets, and what has changed so far.
    at_ms: i64,
    changes: Vec<Change>,
}

/// The newest ids in use. Ids are never used again, not even those of removed rows.
#[derive(Clone, Copy)]
struct Last {
    notification: i64,
    one_match: i64,
    general: i64,
}

type Applied = rusqlite::Result<Answer>;

impl Writer {
    pub(super) fn new(db: Connection) -> rusqlite::Result<Self> {
        let mut writer = Self {
            db,
            last: Last { notification: 0, one_match: 0, general: 0 },
            filed: Filed::default(),
            known: Known::default(),
            fresh: Fresh::default(),
            deleted: HashSet::new(),
            at_ms: 0,
            changes: Vec::new(),
        };
        writer.reload()?;
        Ok(writer)
    }

    /// Takes what is counted in memory from the rows again: at the start, and after a rollback.
    pub(super) fn reload(&mut self) -> rusqlite::Result<()> {
        self.last = self.db.query_row(
            "SELECT max(coalesce((SELECT max(id) FROM notification), 0),
                        coalesce((SELECT value FROM meta WHERE key = 'last_notification'), 0)),
                    max(coalesce((SELECT max(id) FROM matches), 0),
                        coalesce((SELECT value FROM meta WHERE key = 'last_match'), 0)),
                    max(coalesce((SELECT max(id) FROM general), 0),
                        coalesce((SELECT value FROM meta WHERE key = 'last_general'), 0))",
            [],
            |row| Ok(Last { notification: row.get(0)?, one_match: row.get(1)?, general: row.get(2)? }),
        )?;
        // `<> 0` is what the index is of.
        let mut deleted = self.db.prepare("SELECT id FROM user WHERE standing <> 0 AND standing = 2")?;
        self.deleted = deleted.query_map([], |row| Ok(UserId(row.get(0)?)))?.collect::<Result<_, _>>()?;
        drop(deleted);
        self.known = Known::default();
        self.fresh.clear();
        self.reload_filed()
    }

    /// Carries out one job. An error means that the transaction has to be rolled back.
    pub(super) fn apply(&mut self, job: &Job) -> rusqlite::Result<(Answer, Vec<Change>)> {
        self.at_ms = job.at_ms;
        self.changes.clear();
        // Asked before he was deleted, and ordered behind that: nothing of it may stay.
        let by = job.command.by().or_else(|| job.idempotency.as_ref().map(|key| UserId(key.caller)));
        if by.is_some_and(|by| self.deleted.contains(&by)) {
            return Ok((Answer::Reply(Reply::unauthorized(&Unauthorized::UserGone)), Vec::new()));
        }
        if let Some(known) = job.idempotency.as_ref().map(|key| self.remembered(key)).transpose()?.flatten() {
            return Ok((Answer::Reply(known), Vec::new()));
        }
        let answer = self.command(&job.command)?;
        if let (Some(key), Answer::Reply(reply)) = (&job.idempotency, &answer)
            && (reply.status < 500 && reply.status != 401 && reply.status != 429)
        {
            self.db.prepare_cached("INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
                params![key.caller, key.key, key.fingerprint.cast_signed(), reply.status, reply.body, job.at_ms],
            )?;
        }
        Ok((answer, std::mem::take(&mut self.changes)))
    }

    /// The answer that this caller's key has had already, or the refusal of another request under it.
    fn remembered(&self, key: &Idempotency) -> rusqlite::Result<Option<Reply>> {
        self.db
            .prepare_cached(
                "SELECT fingerprint, status, body FROM idempotency WHERE caller = ?1 AND key = ?2 AND created_ms > ?3",
            )?
            .query_row(params![key.caller, key.key, self.at_ms - IDEMPOTENCY_MS], |row| {
                let same = row.get::<_, i64>(0)? == key.fingerprint.cast_signed();
                let kept = Reply { status: row.get(1)?, headers: Vec::new(), body: row.get(2)? };
                let other = "This Idempotency-Key was used for another request.";
                Ok(if same { kept } else { Reply::faulty(422, other) })
            })
            .optional()
    }

    fn command(&mut self, command: &Command) -> Applied {
        match command {
            Command::ActOnProperty { by, property, likes, reason } => {
                self.act_on_property(*by, *property, *likes, reason.as_deref())
            }
            Command::ActOnMatch { by, id, act, reason } => self.act_on_match(*by, *id, *act, reason.as_deref()),
            Command::MarkOneRead { by, which } => self.mark_one_read(*by, *which),
            Command::MarkRead { by, ids, many } => self.mark_read(*by, ids, *many),
            Command::MarkAllRead { by } => self.mark_all_read(*by),
            Command::MarkDelivered { user, ids } => self.mark_delivered(*user, ids),
            Command::Skip { user, channel, after, before } => self.skip(*user, *channel, *after, *before),
            Command::Notify { to: Recipients::One(user, uuid), channel, general } => {
                self.notify_one(*user, *uuid, *channel, general)
            }
            Command::Notify { to: Recipients::Many(users), channel, general } => {
                self.notify_many(users, *channel, general)
            }
            Command::Relay { user, channel, uuid, content } => self.relay(*user, *channel, *uuid, content),
            Command::Meet { user } => self.meet(*user),
            Command::PutUser { id, user, is_active, password } => {
                self.put_user(*id, user, *is_active, password.as_deref())
            }
            Command::DeleteUser { id } => self.delete_user(*id),
            Command::PutProperty { id, property } => self.put_property(*id, property),
            Command::DeleteProperty { id } => self.delete_property(*id),
            Command::PutMatch { property, tenant, score, metadata } => {
                self.put_match(*property, *tenant, *score, metadata.as_deref())
            }
            Command::SignIn { user, checked, family, token, expires_ms } => {
                self.sign_in(*user, checked, *family, *token, *expires_ms)
            }
            Command::Refresh(refresh) => self.refresh(refresh),
            Command::Retain { after, read_for_ms, unread_for_ms } => {
                let before = |kept_ms: &i64| self.at_ms.saturating_sub(*kept_ms);
                self.retain(*after, before(read_for_ms), before(unread_for_ms))
            }
            Command::Remember { status, body } => {
                Ok(Answer::Reply(Reply { status: *status, headers: Vec::new(), body: body.clone() }))
            }
        }
    }

    /// Remembers the newest ids where rows are removed: the newest row may be among them.
    fn keep_last(&self) -> rusqlite::Result<()> {
        let mut keep = self.db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
        keep.execute(params!["last_notification", self.last.notification])?;
        keep.execute(params!["last_match", self.last.one_match])?;
        keep.execute(params!["last_general", self.last.general])?;
        Ok(())
    }
}
