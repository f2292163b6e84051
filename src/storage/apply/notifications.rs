//! Owns what commands do to notifications: made, delivered, read, left behind, removed. Never encodes one.
//! Enter at [`Writer::notify_one`], [`Writer::mark_read`], [`Writer::mark_delivered`] and [`Writer::retain`].

use super::{Applied, IDEMPOTENCY_MS, Writer};
use crate::api::command::Which;
use crate::api::frames::WhatWasRead;
use crate::api::reply::{CREATED, Reply};
use crate::api::views::NotificationView;
use crate::matching::UserId;
use crate::notification::{Channel, Content, General, Home, Notification, NotificationId, Person, foreign_uuid};
use crate::storage::job::{Answer, Change, Fewer};
use crate::storage::queries;
use crate::storage::schema::{self, sql_part};
use rusqlite::{OptionalExtension, Row, params};
use std::sync::Arc;
use uuid::Uuid;

/// Rows that one turn of housekeeping looks at, so that it never holds up other commits for long.
pub(super) const RETAIN_STRIDE: i64 = 2_000;

/// What a mark needs to know of a row.
struct Marked {
    id: NotificationId,
    uuid: Uuid,
    channel: Channel,
    created_ms: i64,
    unread: bool,
    waiting: bool,
}

impl Writer {
    /// Appends a row. A deleted user gets none.
    pub(super) fn insert_notification(
        &mut self,
        user: UserId,
        channel: Channel,
        content: Content,
    ) -> rusqlite::Result<()> {
        self.insert_row(user, channel, content, None, None)
    }

    /// Appends a row; `shown` is the `general` row it shows, `foreign` the id that the backend gave it.
    fn insert_row(
        &mut self,
        user: UserId,
        channel: Channel,
        content: Content,
        shown: Option<i64>,
        foreign: Option<Uuid>,
    ) -> rusqlite::Result<()> {
        if self.deleted.contains(&user) {
            return Ok(());
        }
        let (id, created_ms) = (NotificationId(self.last.notification + 1), self.at_ms);
        let c = Columns::of(&content);
        self.db
            .prepare_cached(
                "INSERT INTO notification (id, user, channel, kind, created_ms, uuid, general, property, home_kind,
                   address, person, username, email, first_name, last_name, phone, user_type, score)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )?
            .execute(params![
                id.0,
                user.0,
                channel as i64,
                c.kind,
                created_ms,
                foreign.map(Uuid::into_bytes),
                shown,
                c.home.map(|home| home.id.0),
                c.home.map(|home| &home.kind),
                c.home.map(|home| &home.address),
                c.person.map(|person| person.id.0),
                c.username,
                c.email,
                c.first_name,
                c.person.map(|person| &person.last_name),
                c.phone,
                c.person.map(|person| &person.user_type),
                c.score
            ])?;
        self.last.notification = id.0;
        let uuid = foreign.unwrap_or_else(|| id.uuid(created_ms, user, channel));
        let (delivered_ms, read_ms) = (None, None);
        let made = Notification { id, uuid, user, channel, content, created_ms, delivered_ms, read_ms };
        self.fresh.note(&made);
        self.filed.note(&made);
        self.changes.push(Change::Created(made));
        Ok(())
    }

    pub(super) fn notify_one(
        &mut self,
        user: UserId,
        uuid: Option<Uuid>,
        channel: Channel,
        general: &General,
    ) -> Applied {
        if let Some((_, known)) = uuid.map(|uuid| self.by_uuid(&uuid)).transpose()?.flatten() {
            let row = queries::by_id(&self.db, known.id)?;
            return Ok(Answer::Reply(Reply::ok(CREATED, row.as_ref().map(NotificationView::new))));
        }
        if self.deleted.contains(&user) {
            return Ok(Answer::Reply(Reply::not_found("No User matches the given query.")));
        }
        let (row, general) = self.share(general, 1)?;
        self.insert_row(user, channel, Content::General(general), Some(row), uuid)?;
        let Some(Change::Created(made)) = self.changes.last() else { return Ok(Answer::Nothing) };
        Ok(Answer::Reply(Reply::created(NotificationView::new(made))))
    }

    /// Somebody else's notification: there once, under its own id. One id for two recipients makes two of it.
    pub(super) fn relay(&mut self, user: UserId, channel: Channel, uuid: Uuid, content: &Content) -> Applied {
        let mut uuid = uuid;
        if let Some((other, known)) = self.by_uuid(&uuid)? {
            if (other, known.channel) == (user, channel) {
                return Ok(Answer::Nothing);
            }
            uuid = foreign_uuid(channel, user, &uuid.to_string());
            if self.by_uuid(&uuid)?.is_some() {
                return Ok(Answer::Nothing);
            }
        }
        if self.deleted.contains(&user) {
            return Ok(Answer::Nothing);
        }
        match content {
            Content::General(general) => {
                let (row, general) = self.share(general, 1)?;
                self.insert_row(user, channel, Content::General(general), Some(row), Some(uuid))?;
            }
            other => self.insert_row(user, channel, other.clone(), None, Some(uuid))?,
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn notify_many(&mut self, users: &[UserId], channel: Channel, general: &General) -> Applied {
        let reached: Vec<UserId> = users.iter().copied().filter(|user| !self.deleted.contains(user)).collect();
        if !reached.is_empty() {
            let (row, general) = self.share(general, reached.len())?;
            for user in &reached {
                self.insert_row(*user, channel, Content::General(Arc::clone(&general)), Some(row), None)?;
            }
        }
        Ok(Answer::Reply(Reply::created(serde_json::json!({ "created": reached.len() }))))
    }

    /// Stores once what all these notifications will show.
    fn share(&mut self, general: &General, by: usize) -> rusqlite::Result<(i64, Arc<General>)> {
        self.last.general += 1;
        self.db.prepare_cached("INSERT INTO general VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
            self.last.general,
            general.kind,
            general.title,
            general.message,
            general.data,
            by as i64
        ])?;
        Ok((self.last.general, Arc::new(general.clone())))
    }

    pub(super) fn mark_one_read(&mut self, by: UserId, which: Which) -> Applied {
        let found = match which {
            Which::Row(id) => self.marked("id = ?1", &id.0)?,
            Which::Uuid(uuid) => self.by_uuid(&uuid)?,
        };
        let Some(mark) = found.filter(|(user, _)| *user == by).map(|(_, mark)| mark) else {
            return Ok(Answer::Reply(no_notification()));
        };
        let mut fewer = [Fewer::default(); 2];
        self.set_read(&mark, &mut fewer)?;
        self.changes.push(Change::Read { user: by, what: WhatWasRead::One(mark.uuid), fewer });
        let row = queries::by_id(&self.db, mark.id)?;
        let message = "Notificación marcada como leída exitosamente";
        Ok(Answer::Reply(Reply::ok(message, row.as_ref().map(NotificationView::new))))
    }

    pub(super) fn mark_read(&mut self, by: UserId, ids: &[Uuid], many: bool) -> Applied {
        let (mut known, mut missing, mut fewer) = (Vec::new(), Vec::new(), [Fewer::default(); 2]);
        for uuid in ids {
            match self.by_uuid(uuid)?.filter(|(user, _)| *user == by) {
                Some((_, mark)) => {
                    self.set_read(&mark, &mut fewer)?;
                    known.push(mark.uuid);
                }
                None => missing.push(*uuid),
            }
        }
        let what = match (many, known.as_slice()) {
            (_, []) => return Ok(Answer::Marked { missing }),
            (false, [one, ..]) => WhatWasRead::One(*one),
            (true, _) => WhatWasRead::Many(known),
        };
        self.changes.push(Change::Read { user: by, what, fewer });
        Ok(Answer::Marked { missing })
    }

    fn set_read(&mut self, mark: &Marked, fewer: &mut [Fewer; 2]) -> rusqlite::Result<()> {
        if mark.unread {
            self.fresh.take(mark.id);
            self.db
                .prepare_cached(
                    "UPDATE notification SET read_ms = ?2, delivered_ms = coalesce(delivered_ms, ?2) WHERE id = ?1",
                )?
                .execute([mark.id.0, self.at_ms])?;
            let fewer = &mut fewer[mark.channel as usize];
            fewer.unread += 1;
            fewer.waiting += u32::from(mark.waiting);
        }
        Ok(())
    }

    pub(super) fn mark_all_read(&mut self, by: UserId) -> Applied {
        self.fresh.clear();
        let mut fewer = [Fewer::default(); 2];
        let mut count = self.db.prepare_cached(&format!(
            "SELECT channel, count(*), count(*) FILTER (WHERE {})
             FROM notification WHERE id IN ({}) AND read_ms IS NULL GROUP BY channel",
            sql_part!(WAITING),
            schema::of_user("n.id", "", "")
        ))?;
        let mut rows = count.query([by.0])?;
        while let Some(row) = rows.next()? {
            let channel = schema::channel_of(row.get(0)?);
            fewer[channel as usize] = Fewer { unread: row.get(1)?, waiting: row.get(2)? };
        }
        let updated = self
            .db
            .prepare_cached(&format!(
                "UPDATE notification SET read_ms = ?2, delivered_ms = coalesce(delivered_ms, ?2)
                 WHERE id IN ({}) AND read_ms IS NULL",
                schema::of_user("n.id", "", "")
            ))?
            .execute([by.0, self.at_ms])?;
        self.changes.push(Change::Read { user: by, what: WhatWasRead::All, fewer });
        let message = "Notificaciones marcadas como leídas exitosamente";
        Ok(Answer::Reply(Reply::ok(message, serde_json::json!({ "updated": updated }))))
    }

    pub(super) fn mark_delivered(&mut self, user: UserId, ids: &[NotificationId]) -> Applied {
        let mut delivered = [(Vec::new(), 0), (Vec::new(), 0)];
        for id in ids {
            let (channel, created_ms, is_waiting) = match self.fresh.take(*id).filter(|made| made.user == user) {
                Some(made) => (made.channel, made.created_ms, true),
                None => match self.marked("id = ?1 AND delivered_ms IS NULL", &id.0)?.filter(|(u, _)| *u == user) {
                    Some((_, mark)) => (mark.channel, mark.created_ms, mark.waiting),
                    None => continue,
                },
            };
            self.db
                .prepare_cached("UPDATE notification SET delivered_ms = ?2 WHERE id = ?1")?
                .execute([id.0, self.at_ms])?;
            let (rows, waiting) = &mut delivered[channel as usize];
            rows.push((*id, created_ms));
            *waiting += u32::from(is_waiting);
        }
        for (channel, (rows, waiting)) in Channel::ALL.into_iter().zip(delivered) {
            if !rows.is_empty() {
                self.changes.push(Change::Delivered { user, channel, rows, waiting, at_ms: self.at_ms });
            }
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn skip(
        &mut self,
        user: UserId,
        channel: Channel,
        after: NotificationId,
        before: NotificationId,
    ) -> Applied {
        self.fresh.clear();
        let count = self
            .db
            .prepare_cached(&format!(
                "UPDATE notification SET skipped = 1 WHERE id IN ({}) AND channel = ?2 AND {}",
                schema::of_user("n.id", "", "AND n.id > ?3 AND n.id < ?4"),
                sql_part!(WAITING)
            ))?
            .execute(params![user.0, channel as i64, after.0, before.0])?;
        self.changes.push(Change::Skipped { user, channel, count: count as u32 });
        Ok(Answer::Nothing)
    }

    /// The row of a UUID: ours by the id inside it, others by their index.
    fn by_uuid(&self, uuid: &Uuid) -> rusqlite::Result<Option<(UserId, Marked)>> {
        if let Some(id) = NotificationId::of_uuid(uuid)
            && let Some(found) = self.marked("id = ?1", &id.0)?.filter(|(_, mark)| mark.uuid == *uuid)
        {
            return Ok(Some(found));
        }
        self.marked("uuid = ?1", &uuid.as_bytes())
    }

    fn marked(&self, which: &str, key: &dyn rusqlite::ToSql) -> rusqlite::Result<Option<(UserId, Marked)>> {
        let sql = format!(
            "SELECT id, user, channel, created_ms, delivered_ms, read_ms, skipped, uuid FROM notification WHERE {which}"
        );
        self.db.prepare_cached(&sql)?.query_row([key], mark).optional()
    }

    /// One stride of housekeeping. Rows lie in the order in which they were made, so it ends at the first young one.
    pub(super) fn retain(&mut self, after: NotificationId, read_before_ms: i64, unread_before_ms: i64) -> Applied {
        let mut select = self.db.prepare_cached(
            "SELECT id, user, channel, created_ms, delivered_ms, read_ms, skipped, uuid, general FROM notification
             WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let mut rows = select.query([after.0, RETAIN_STRIDE])?;
        let (mut old, mut seen, mut next) = (Vec::new(), 0, None);
        while let Some(row) = rows.next()? {
            let (user, mark) = mark(row)?;
            let created_ms = mark.created_ms;
            if created_ms >= read_before_ms {
                seen = 0;
                break;
            }
            seen += 1;
            next = Some(mark.id);
            if !mark.unread || created_ms < unread_before_ms {
                old.push((user, mark, row.get::<_, Option<i64>>(8)?));
            }
        }
        drop(rows);
        drop(select);
        if !old.is_empty() {
            self.keep_last()?;
        }
        for (user, mark, general) in old {
            self.remove(user, mark.id, general)?;
            let fewer = Fewer { unread: u32::from(mark.unread), waiting: u32::from(mark.waiting) };
            if fewer != Fewer::default() {
                self.changes.push(Change::Settled { user, channel: mark.channel, fewer });
            }
        }
        self.db
            .prepare_cached("DELETE FROM idempotency WHERE created_ms <= ?1")?
            .execute([self.at_ms - IDEMPOTENCY_MS])?;
        self.forget_expired_families()?;
        Ok(match next {
            Some(id) if seen == RETAIN_STRIDE => Answer::RetainAfter(id),
            _ => Answer::Nothing,
        })
    }

    /// Removes a row, and what it shows if it was the last to show it.
    fn remove(&mut self, user: UserId, id: NotificationId, general: Option<i64>) -> rusqlite::Result<()> {
        self.fresh.take(id);
        self.db.prepare_cached("DELETE FROM inbox WHERE user = ?1 AND notification = ?2")?.execute([user.0, id.0])?;
        self.db.prepare_cached("DELETE FROM notification WHERE id = ?1")?.execute([id.0])?;
        if let Some(row) = general {
            self.db.prepare_cached("UPDATE general SET shared_by = shared_by - 1 WHERE id = ?1")?.execute([row])?;
            self.db.prepare_cached("DELETE FROM general WHERE id = ?1 AND shared_by <= 0")?.execute([row])?;
        }
        Ok(())
    }
}

/// What the columns of a row take from its content; `schema::notification` reads them back.
#[derive(Default)]
struct Columns<'a> {
    kind: i64,
    home: Option<&'a Home>,
    person: Option<&'a Person>,
    username: Option<&'a str>,
    email: Option<&'a str>,
    first_name: Option<&'a str>,
    phone: Option<&'a str>,
    score: Option<f64>,
}

impl<'a> Columns<'a> {
    fn of(content: &'a Content) -> Self {
        match content {
            Content::PropertyLike { home, tenant, score } => Self {
                kind: 0,
                home: Some(home),
                person: Some(tenant),
                username: Some(&tenant.username),
                email: Some(&tenant.email),
                first_name: Some(&tenant.first_name),
                phone: Some(&tenant.phone),
                score: Some(*score),
            },
            Content::MatchAccepted { home, owner, tenant_username } => Self {
                kind: 1,
                home: Some(home),
                username: Some(tenant_username),
                email: Some(&owner.email),
                phone: Some(&owner.phone),
                ..Self::default()
            },
            Content::MatchAcceptedByOwner { home, owner_name, owner, score } => Self {
                kind: 2,
                home: Some(home),
                email: Some(&owner.email),
                first_name: Some(owner_name),
                phone: Some(&owner.phone),
                score: Some(*score),
                ..Self::default()
            },
            Content::MatchRejectedByOwner { home } => Self { kind: 3, home: Some(home), ..Self::default() },
            Content::General(_) => Self { kind: 4, ..Self::default() },
        }
    }
}

fn mark(row: &Row<'_>) -> rusqlite::Result<(UserId, Marked)> {
    let (id, user) = (NotificationId(row.get(0)?), UserId(row.get(1)?));
    let channel = schema::channel_of(row.get(2)?);
    let created_ms: i64 = row.get(3)?;
    let undelivered = row.get::<_, Option<i64>>(4)?.is_none();
    let unread = row.get::<_, Option<i64>>(5)?.is_none();
    let skipped = row.get::<_, Option<i64>>(6)?.is_some();
    let foreign: Option<[u8; 16]> = row.get(7)?;
    let uuid = foreign.map_or_else(|| id.uuid(created_ms, user, channel), Uuid::from_bytes);
    Ok((user, Marked { id, uuid, channel, created_ms, unread, waiting: undelivered && unread && !skipped }))
}

fn no_notification() -> Reply {
    Reply::not_found("No Notification matches the given query.")
}
