//! Owns what each command does to the rows, inside a transaction that somebody else opens and commits. Never decides a
//! transition (`matching` does) and never commits. Enter at [`Writer::apply`].

use super::job::{Answer, Change, Fewer, Idempotency, Job, Standing};
use super::schema::{self, sql, sql_part};
use crate::api::command::{Act, Command, Recipients, Which};
use crate::api::frames::WhatWasRead;
use crate::api::reply::{CREATED, Reply, UPDATED};
use crate::api::views::{self, Acted, MatchView, NotificationView};
use crate::matching::{
    Match, MatchId, Move, Property, PropertyId, Refusal, Status, Telling, User, UserId, Verdict, decide,
};
use crate::notification::{Channel, Contact, Content, General, Home, Notification, NotificationId, Person};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Rows that one turn of housekeeping looks at, so that it never holds up other commits for long.
const RETAIN_STRIDE: i64 = 2_000;
/// How long an answer is kept under its `Idempotency-Key`.
pub(super) const IDEMPOTENCY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The rows as they are while commands are applied: the connection and what is counted in memory beside it.
pub(super) struct Writer {
    pub db: Connection,
    last: Last,
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

/// What a mark needs to know of a row.
struct Marked {
    id: NotificationId,
    uuid: Uuid,
    channel: Channel,
    unread: bool,
    waiting: bool,
}

impl Writer {
    pub(super) fn new(db: Connection) -> rusqlite::Result<Self> {
        let mut writer = Self {
            db,
            last: Last { notification: 0, one_match: 0, general: 0 },
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
                    coalesce((SELECT max(id) FROM general), 0)",
            [],
            |row| Ok(Last { notification: row.get(0)?, one_match: row.get(1)?, general: row.get(2)? }),
        )?;
        let mut deleted = self.db.prepare("SELECT id FROM user WHERE standing = 2")?;
        self.deleted = deleted.query_map([], |row| Ok(UserId(row.get(0)?)))?.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Carries out one job. An error means that the transaction has to be rolled back.
    pub(super) fn apply(&mut self, job: &Job) -> rusqlite::Result<(Answer, Vec<Change>)> {
        self.at_ms = job.at_ms;
        self.changes.clear();
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
            Command::Skip { user, channel, before } => self.skip(*user, *channel, *before),
            Command::Notify { to: Recipients::One(user, uuid), channel, general } => {
                self.notify_one(*user, *uuid, *channel, general)
            }
            Command::Notify { to: Recipients::Many(users), channel, general } => {
                self.notify_many(users, *channel, general)
            }
            Command::PutUser { id, user, is_active, password } => {
                self.put_user(*id, user, *is_active, password.as_deref())
            }
            Command::DeleteUser { id } => self.delete_user(*id),
            Command::PutProperty { id, property } => self.put_property(*id, property),
            Command::DeleteProperty { id } => self.delete_property(*id),
            Command::PutMatch { property, tenant, score, metadata } => {
                self.put_match(*property, *tenant, *score, metadata.as_deref())
            }
            Command::Retain { after, read_before_ms, unread_before_ms } => {
                self.retain(*after, *read_before_ms, *unread_before_ms)
            }
            Command::Remember { status, body } => {
                Ok(Answer::Reply(Reply { status: *status, headers: Vec::new(), body: body.clone() }))
            }
        }
    }
}

/// Matches: what `matching::decide` says, written.
impl Writer {
    fn act_on_property(&mut self, by: UserId, id: PropertyId, likes: bool, reason: Option<&str>) -> Applied {
        let Some(home) = self.property(id)?.filter(|home| home.is_active) else {
            return Ok(Answer::Reply(no_property()));
        };
        if home.is_kept_by(by) {
            return Ok(Answer::Reply(Reply::refused(400, "No puedes solicitar tu propia propiedad")));
        }
        let before = self.match_of_pair(id, by)?;
        let action = if likes { Move::TenantLikes } else { Move::TenantRejects };
        let found = match self.act(before, id, by, Some(&home), action, reason)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Answer::Reply(refusal)),
        };
        let data = if likes { views::liked(&found) } else { views::rejected(&found) };
        Ok(Answer::Reply(Reply::ok(CREATED, data)))
    }

    fn act_on_match(&mut self, by: UserId, id: MatchId, act: Act, reason: Option<&str>) -> Applied {
        let Some(found) = self.match_by_id(id)? else {
            return Ok(Answer::Reply(no_match()));
        };
        let home = self.property(found.property)?;
        let keeps = home.as_ref().is_some_and(|home| home.is_kept_by(by));
        let is_tenant = found.tenant == by;
        let (action, allowed, message) = match act {
            Act::OwnerAccept => (Move::OwnerAccepts, keeps, "Match aceptado por propietario/agente"),
            Act::OwnerReject => (Move::OwnerRejects, keeps, "Match rechazado por propietario/agente"),
            Act::Reject if keeps && !is_tenant => (Move::OwnerRejects, true, "Match rechazado por propietario/agente"),
            Act::Reject => (Move::TenantRejects, is_tenant, "Match rechazado exitosamente"),
            Act::Accept => (Move::TenantLikes, is_tenant, "Match aceptado exitosamente"),
            Act::Like => (Move::TenantLikes, is_tenant, "Interés registrado exitosamente"),
        };
        if home.is_none() && (is_tenant || matches!(act, Act::OwnerAccept | Act::OwnerReject)) {
            return Ok(Answer::Reply(Reply::refused(404, "Propiedad no encontrada")));
        }
        if !allowed {
            return Ok(Answer::Reply(Reply::refused(403, "No autorizado")));
        }
        let (property, tenant) = (found.property, found.tenant);
        Ok(Answer::Reply(match self.act(Some(found), property, tenant, home.as_ref(), action, reason)? {
            Ok(m) => Reply::ok(message, Acted { status: m.status.as_str(), r#match: MatchView::new(&m) }),
            Err(refusal) => refusal,
        }))
    }

    /// Decides, writes the match and tells those who have to hear of it.
    fn act(
        &mut self,
        before: Option<Match>,
        property: PropertyId,
        tenant: UserId,
        home: Option<&Property>,
        action: Move,
        reason: Option<&str>,
    ) -> rusqlite::Result<Result<Match, Reply>> {
        let (status, telling) = match (decide(before.as_ref().map(|m| m.status), action), before.as_ref()) {
            (Verdict::Becomes(status, telling), _) => (status, telling),
            (Verdict::Unchanged(_), Some(same)) => return Ok(Ok(same.clone())),
            (Verdict::Refused(Refusal::NotRequested), _) => {
                return Ok(Err(Reply::refused(400, "El inquilino no ha solicitado esta propiedad")));
            }
            (Verdict::Unchanged(_) | Verdict::Refused(Refusal::NoMatch), _) => return Ok(Err(no_match())),
        };
        let now = match before {
            Some(before) => {
                self.db
                    .prepare_cached(
                        "UPDATE matches SET status = ?2, reason = coalesce(?3, reason), updated_ms = ?4 WHERE id = ?1",
                    )?
                    .execute(params![before.id.0, schema::status_number(status), reason, self.at_ms])?;
                Match { status, updated_ms: self.at_ms, ..before }
            }
            None => self.insert_match(property, tenant, 0.0, status, reason, "{}")?,
        };
        if let Some(home) = home {
            self.tell(telling, &now, home)?;
        }
        Ok(Ok(now))
    }

    fn tell(&mut self, telling: Telling, m: &Match, home: &Property) -> rusqlite::Result<()> {
        let shown = Home { id: m.property, kind: home.kind.clone(), address: home.address.clone() };
        match telling {
            Telling::Nobody => {}
            Telling::Keepers => {
                let tenant = views::person(m.tenant, self.user(m.tenant)?.as_ref());
                for keeper in home.keepers() {
                    let content = Content::PropertyLike { home: shown.clone(), tenant: tenant.clone(), score: m.score };
                    self.insert_notification(keeper, Channel::Property, content)?;
                }
            }
            Telling::Both => {
                let owner = self.user(home.owner)?.unwrap_or_default();
                let owner_name = owner.display_name();
                let contact = Contact { email: owner.email, phone: owner.phone };
                let tenant_username = self.user(m.tenant)?.unwrap_or_default().username;
                for keeper in home.keepers() {
                    let content = Content::MatchAccepted {
                        home: shown.clone(),
                        owner: contact.clone(),
                        tenant_username: tenant_username.clone(),
                    };
                    self.insert_notification(keeper, Channel::Property, content)?;
                }
                let content = Content::MatchAcceptedByOwner { home: shown, owner_name, owner: contact, score: m.score };
                self.insert_notification(m.tenant, Channel::Tenant, content)?;
            }
            Telling::Tenant => {
                let content = Content::MatchRejectedByOwner { home: shown };
                self.insert_notification(m.tenant, Channel::Tenant, content)?;
            }
        }
        Ok(())
    }

    pub(super) fn insert_match(
        &mut self,
        property: PropertyId,
        tenant: UserId,
        score: f64,
        status: Status,
        reason: Option<&str>,
        metadata: &str,
    ) -> rusqlite::Result<Match> {
        self.last.one_match += 1;
        let id = MatchId(self.last.one_match);
        self.db.prepare_cached("INSERT INTO matches VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)")?.execute(params![
            id.0,
            property.0,
            tenant.0,
            score,
            schema::status_number(status),
            reason,
            metadata,
            self.at_ms
        ])?;
        let metadata = metadata.to_owned();
        Ok(Match { id, property, tenant, score, status, metadata, created_ms: self.at_ms, updated_ms: self.at_ms })
    }

    /// An id for a match that somebody else made: the one it has there, or the next.
    pub(super) fn next_match_id(&mut self, given: Option<MatchId>) -> rusqlite::Result<MatchId> {
        let id = given.unwrap_or(MatchId(self.last.one_match + 1));
        self.last.one_match = self.last.one_match.max(id.0);
        self.keep_last()?;
        Ok(id)
    }

    fn put_match(&mut self, property: PropertyId, tenant: UserId, score: f64, metadata: Option<&str>) -> Applied {
        if self.property(property)?.is_none() {
            return Ok(Answer::Reply(no_property()));
        }
        let Some(before) = self.match_of_pair(property, tenant)? else {
            let made = self.insert_match(property, tenant, score, Status::Suggested, None, metadata.unwrap_or("{}"))?;
            return Ok(Answer::Reply(Reply::created(MatchView::new(&made))));
        };
        let metadata = metadata.unwrap_or(&before.metadata).to_owned();
        self.db
            .prepare_cached("UPDATE matches SET score = ?2, metadata = ?3, updated_ms = ?4 WHERE id = ?1")?
            .execute(params![before.id.0, score, metadata, self.at_ms])?;
        let now = Match { score, metadata, updated_ms: self.at_ms, ..before };
        Ok(Answer::Reply(Reply::ok(UPDATED, MatchView::new(&now))))
    }

    fn property(&self, id: PropertyId) -> rusqlite::Result<Option<Property>> {
        self.db
            .prepare_cached(sql!("SELECT " PROPERTY " FROM property p WHERE id = ?1"))?
            .query_row([id.0], |row| schema::property(row, 0))
            .optional()
    }

    fn user(&self, id: UserId) -> rusqlite::Result<Option<User>> {
        self.db
            .prepare_cached(sql!("SELECT " USER " FROM user u WHERE id = ?1 AND standing <> 2"))?
            .query_row([id.0], |row| schema::user(row, 0))
            .optional()
    }

    fn match_of_pair(&self, property: PropertyId, tenant: UserId) -> rusqlite::Result<Option<Match>> {
        self.db
            .prepare_cached(sql!("SELECT " MATCH " FROM matches m WHERE property = ?1 AND tenant = ?2"))?
            .query_row([property.0, tenant.0], schema::one_match)
            .optional()
    }

    fn match_by_id(&self, id: MatchId) -> rusqlite::Result<Option<Match>> {
        self.db
            .prepare_cached(sql!("SELECT " MATCH " FROM matches m WHERE id = ?1"))?
            .query_row([id.0], schema::one_match)
            .optional()
    }
}

/// Notifications: made, delivered, read, left behind.
impl Writer {
    /// Appends a row. A deleted user gets none.
    fn insert_notification(&mut self, user: UserId, channel: Channel, content: Content) -> rusqlite::Result<()> {
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
        self.changes.push(Change::Created(made));
        Ok(())
    }

    fn notify_one(&mut self, user: UserId, uuid: Option<Uuid>, channel: Channel, general: &General) -> Applied {
        if let Some((_, known)) = uuid.map(|uuid| self.by_uuid(&uuid)).transpose()?.flatten() {
            let row = self.whole(known.id)?;
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

    fn notify_many(&mut self, users: &[UserId], channel: Channel, general: &General) -> Applied {
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

    fn mark_one_read(&mut self, by: UserId, which: Which) -> Applied {
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
        let row = self.whole(mark.id)?;
        let message = "Notificación marcada como leída exitosamente";
        Ok(Answer::Reply(Reply::ok(message, row.as_ref().map(NotificationView::new))))
    }

    fn mark_read(&mut self, by: UserId, ids: &[Uuid], many: bool) -> Applied {
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

    fn set_read(&self, mark: &Marked, fewer: &mut [Fewer; 2]) -> rusqlite::Result<()> {
        if mark.unread {
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

    fn mark_all_read(&mut self, by: UserId) -> Applied {
        let mut fewer = [Fewer::default(); 2];
        let mut count = self.db.prepare_cached(
            "SELECT channel, count(*), count(*) FILTER (WHERE delivered_ms IS NULL AND skipped IS NULL)
             FROM notification WHERE user = ?1 AND read_ms IS NULL GROUP BY channel",
        )?;
        let mut rows = count.query([by.0])?;
        while let Some(row) = rows.next()? {
            let channel = schema::channel_of(row.get(0)?);
            fewer[channel as usize] = Fewer { unread: row.get(1)?, waiting: row.get(2)? };
        }
        let updated = self
            .db
            .prepare_cached(
                "UPDATE notification SET read_ms = ?2, delivered_ms = coalesce(delivered_ms, ?2)
                 WHERE user = ?1 AND read_ms IS NULL",
            )?
            .execute([by.0, self.at_ms])?;
        self.changes.push(Change::Read { user: by, what: WhatWasRead::All, fewer });
        let message = "Notificaciones marcadas como leídas exitosamente";
        Ok(Answer::Reply(Reply::ok(message, serde_json::json!({ "updated": updated }))))
    }

    fn mark_delivered(&mut self, user: UserId, ids: &[NotificationId]) -> Applied {
        let mut fewer = [Fewer::default(); 2];
        for id in ids {
            let Some((_, mark)) = self.marked("id = ?1 AND delivered_ms IS NULL", &id.0)?.filter(|(u, _)| *u == user)
            else {
                continue;
            };
            self.db
                .prepare_cached("UPDATE notification SET delivered_ms = ?2 WHERE id = ?1")?
                .execute([id.0, self.at_ms])?;
            fewer[mark.channel as usize].waiting += u32::from(mark.waiting);
        }
        for (channel, fewer) in Channel::ALL.into_iter().zip(fewer).filter(|(_, fewer)| *fewer != Fewer::default()) {
            self.changes.push(Change::Settled { user, channel, fewer });
        }
        Ok(Answer::Nothing)
    }

    fn skip(&mut self, user: UserId, channel: Channel, before: NotificationId) -> Applied {
        let waiting = self
            .db
            .prepare_cached(
                "UPDATE notification SET skipped = 1 WHERE user = ?1 AND channel = ?2 AND id < ?3
                 AND delivered_ms IS NULL AND read_ms IS NULL AND skipped IS NULL",
            )?
            .execute(params![user.0, channel as i64, before.0])?;
        self.changes.push(Change::Settled { user, channel, fewer: Fewer { unread: 0, waiting: waiting as u32 } });
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

    fn whole(&self, id: NotificationId) -> rusqlite::Result<Option<Notification>> {
        self.db
            .prepare_cached(sql!(
                "SELECT " NOTIFICATION " FROM " NOTIFICATION_SOURCE " WHERE n.id = ?1"
            ))?
            .query_row([id.0], schema::notification)
            .optional()
    }

    /// One stride of housekeeping. Rows lie in the order in which they were made, so it ends at the first young one.
    fn retain(&mut self, after: NotificationId, read_before_ms: i64, unread_before_ms: i64) -> Applied {
        let mut select = self.db.prepare_cached(
            "SELECT id, user, channel, created_ms, delivered_ms, read_ms, skipped, uuid, general FROM notification
             WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let mut rows = select.query([after.0, RETAIN_STRIDE])?;
        let (mut old, mut seen, mut next) = (Vec::new(), 0, None);
        while let Some(row) = rows.next()? {
            let (user, mark) = mark(row)?;
            let created_ms: i64 = row.get(3)?;
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
        for (user, mark, general) in old {
            self.remove(mark.id, general)?;
            let fewer = Fewer { unread: u32::from(mark.unread), waiting: u32::from(mark.waiting) };
            if fewer != Fewer::default() {
                self.changes.push(Change::Settled { user, channel: mark.channel, fewer });
            }
        }
        self.db
            .prepare_cached("DELETE FROM idempotency WHERE created_ms <= ?1")?
            .execute([self.at_ms - IDEMPOTENCY_MS])?;
        self.keep_last()?;
        Ok(match next {
            Some(id) if seen == RETAIN_STRIDE => Answer::RetainAfter(id),
            _ => Answer::Nothing,
        })
    }

    /// Removes a row, and what it shows if it was the last to show it.
    fn remove(&self, id: NotificationId, general: Option<i64>) -> rusqlite::Result<()> {
        self.db.prepare_cached("DELETE FROM notification WHERE id = ?1")?.execute([id.0])?;
        if let Some(row) = general {
            self.db.prepare_cached("UPDATE general SET shared_by = shared_by - 1 WHERE id = ?1")?.execute([row])?;
            self.db.prepare_cached("DELETE FROM general WHERE id = ?1 AND shared_by <= 0")?.execute([row])?;
        }
        Ok(())
    }

    /// Remembers the newest ids where rows are removed: the newest row may be among them.
    fn keep_last(&self) -> rusqlite::Result<()> {
        let mut keep = self.db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
        keep.execute(params!["last_notification", self.last.notification])?;
        keep.execute(params!["last_match", self.last.one_match])?;
        Ok(())
    }
}

/// The directory: users and properties as the backend describes them.
impl Writer {
    fn put_user(&mut self, id: UserId, user: &User, is_active: Option<bool>, password: Option<&str>) -> Applied {
        let before: Option<i64> = self
            .db
            .prepare_cached("SELECT standing FROM user WHERE id = ?1")?
            .query_row([id.0], |row| row.get(0))
            .optional()?;
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
        let standing = if is_active { Standing::Active } else { Standing::Inactive };
        if before.unwrap_or(0) != i64::from(!is_active) {
            self.changes.push(Change::Standing { user: id, standing });
        }
        let row = views::user(id, user, is_active);
        Ok(Answer::Reply(if is_new { Reply::created(row) } else { Reply::ok(UPDATED, row) }))
    }

    /// The row stays as a gravestone: his tokens are still good, he is not.
    fn delete_user(&mut self, id: UserId) -> Applied {
        let gone = self
            .db
            .prepare_cached(
                "UPDATE user SET username = '', email = '', first_name = '', last_name = '', phone = '', user_type = '',
                   standing = 2, password = NULL, further = '{}' WHERE id = ?1 AND standing <> 2",
            )?
            .execute([id.0])?;
        if gone == 0 {
            return Ok(Answer::Reply(Reply::not_found("No User matches the given query.")));
        }
        self.keep_last()?;
        self.db.prepare_cached(
            "UPDATE general SET shared_by = shared_by - (SELECT count(*) FROM notification WHERE user = ?1 AND general = general.id)
             WHERE id IN (SELECT general FROM notification WHERE user = ?1 AND general IS NOT NULL)",
        )?.execute([id.0])?;
        self.db
            .prepare_cached(
                "DELETE FROM general WHERE shared_by <= 0 AND id IN (SELECT general FROM notification WHERE user = ?1)",
            )?
            .execute([id.0])?;
        self.db.prepare_cached("DELETE FROM notification WHERE user = ?1")?.execute([id.0])?;
        self.db.prepare_cached("DELETE FROM matches WHERE tenant = ?1")?.execute([id.0])?;
        self.deleted.insert(id);
        self.changes.push(Change::Forgotten { user: id });
        self.changes.push(Change::Standing { user: id, standing: Standing::Deleted });
        Ok(Answer::Reply(Reply::no_content()))
    }

    fn put_property(&mut self, id: PropertyId, p: &Property) -> Applied {
        let known = self.property(id)?.is_some();
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

    fn delete_property(&mut self, id: PropertyId) -> Applied {
        let gone = self.db.prepare_cached("DELETE FROM property WHERE id = ?1")?.execute([id.0])?;
        Ok(Answer::Reply(if gone == 0 { no_property() } else { Reply::no_content() }))
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
    Ok((user, Marked { id, uuid, channel, unread, waiting: undelivered && unread && !skipped }))
}

fn json(further: &serde_json::Map<String, serde_json::Value>) -> String {
    serde_json::to_string(further).unwrap_or_else(|_| "{}".to_owned())
}

fn no_property() -> Reply {
    Reply::not_found("No Property matches the given query.")
}

fn no_match() -> Reply {
    Reply::not_found("No Match matches the given query.")
}

fn no_notification() -> Reply {
    Reply::not_found("No Notification matches the given query.")
}
