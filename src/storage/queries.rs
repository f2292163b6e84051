//! Owns what can be asked of the rows: pages, single rows, the replay of a socket. Never changes one.
//! Enter at [`answer`].

use super::job::{Answer, BacklogPage, Census, InboxCount, Oldest, Standing};
use super::schema::{self, sql, sql_part};
use crate::api::command::{Backlog, From, NotificationFilter, Query, Which};
use crate::api::frames;
use crate::api::page::PageRequest;
use crate::api::reply::{DONE, Reply};
use crate::api::views::{self, MatchView, NotificationView};
use crate::auth::password::DJANGO_ITERATIONS;
use crate::matching::{MatchId, PropertyId, UserId};
use crate::notification::{Notification, NotificationId};
use crate::websocket::frame;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A page of a replay ends after so many bytes, however few rows they are: what one socket may hold in memory.
const REPLAY_PAGE_BYTES: usize = 64 * 1024;
/// Rows that one question for the oldest waiting one looks at.
const OLDEST_STRIDE: i64 = 20_000;

pub(super) fn answer(db: &Connection, query: &Query) -> rusqlite::Result<Answer> {
    // One snapshot for all statements of an answer.
    let snapshot = db.unchecked_transaction()?;
    let answer = match query {
        Query::Notifications { of, filter, page } => Answer::Reply(notifications(db, *of, filter, page)?),
        Query::Notification { of, which } => Answer::Reply(match by_path(db, *of, *which)? {
            Some(row) => Reply::ok(DONE, NotificationView::new(&row)),
            None => Reply::not_found("No Notification matches the given query."),
        }),
        Query::NotificationSummary { of } => Answer::Reply(summary(db, *of)?),
        Query::MyMatches { of, status, page } => Answer::Reply(my_matches(db, *of, *status, page)?),
        Query::Match { of, id } => Answer::Reply(one_match(db, *of, *id)?),
        Query::PendingRequests { of, page } => Answer::Reply(pending_requests(db, *of, page)?),
        Query::Properties { page } => Answer::Reply(properties(db, page)?),
        Query::Property { id, only_active } => Answer::Reply(property(db, *id, *only_active)?),
        Query::User { id } => Answer::Reply(user(db, *id)?),
        Query::Credentials { username } => credentials(db, username)?,
        Query::Backlog(backlog) => Answer::Backlog(replay(db, backlog)?),
        Query::OldestWaiting { from } => {
            let (found, upto) = oldest_waiting(db, *from)?;
            Answer::OldestWaiting { found, upto }
        }
        Query::WasSent { user, channel, uuid, first, last, since_ms } => {
            let row = by_uuid(db, uuid)?
                .filter(|n| n.user == *user && n.channel == *channel && (*first..=*last).contains(&n.id));
            let before = |at_ms: Option<i64>| at_ms.zip(*since_ms).is_some_and(|(at_ms, since_ms)| at_ms < since_ms);
            let was_settled = row.as_ref().is_some_and(|n| before(n.delivered_ms) || before(n.read_ms));
            Answer::WasSent { uuid: *uuid, row: row.map(|n| n.id), was_settled }
        }
    };
    snapshot.finish()?;
    Ok(answer)
}

/// What the hub counts in memory, as the rows have it.
pub(super) fn census(db: &Connection) -> rusqlite::Result<Census> {
    let mut census = Census { last: newest(db)?, ..Census::default() };
    let mut unread = db.prepare(sql!(
        "SELECT user, channel, count(*), count(*) FILTER (WHERE " WAITING "), min(id) FILTER (WHERE " WAITING ")
         FROM notification WHERE read_ms IS NULL GROUP BY user, channel"
    ))?;
    let mut rows = unread.query([])?;
    let mut oldest: Option<i64> = None;
    while let Some(row) = rows.next()? {
        let oldest_here: Option<i64> = row.get(4)?;
        census.inboxes.push(InboxCount {
            user: UserId(row.get(0)?),
            channel: schema::channel_of(row.get(1)?),
            unread: row.get(2)?,
            waiting: row.get(3)?,
            oldest: NotificationId(oldest_here.unwrap_or_default()),
        });
        oldest = oldest.into_iter().chain(oldest_here).min();
    }
    if let Some(id) = oldest {
        census.oldest_waiting = oldest_waiting(db, NotificationId(id))?.0;
    }
    let mut barred = db.prepare("SELECT id, standing FROM user WHERE standing <> 0")?;
    let rows = barred.query_map([], |row| {
        let standing = if row.get::<_, i64>(1)? == 2 { Standing::Deleted } else { Standing::Inactive };
        Ok((UserId(row.get(0)?), standing))
    })?;
    census.barred = rows.collect::<Result<_, _>>()?;
    Ok(census)
}

/// The newest row of all; 0 where there is none.
fn newest(db: &Connection) -> rusqlite::Result<NotificationId> {
    db.prepare_cached("SELECT coalesce(max(id), 0) FROM notification")?
        .query_row([], |row| row.get(0).map(NotificationId))
}

/// The oldest waiting row of the next so many, and where the look ended.
fn oldest_waiting(db: &Connection, from: NotificationId) -> rusqlite::Result<(Option<Oldest>, NotificationId)> {
    let upto = newest(db)?.min(NotificationId(from.0.saturating_add(OLDEST_STRIDE)));
    let found = db
        .prepare_cached(sql!(
            "SELECT id, created_ms FROM notification WHERE id BETWEEN ?1 AND ?2 AND " WAITING " ORDER BY id LIMIT 1"
        ))?
        .query_row([from.0, upto.0], |row| Ok(Oldest { id: NotificationId(row.get(0)?), created_ms: row.get(1)? }))
        .optional()?;
    Ok((found, upto))
}

/// Everybody whom the directory knows, or who has ever connected.
pub(super) fn known_users(db: &Connection) -> rusqlite::Result<Vec<UserId>> {
    let mut known = db.prepare("SELECT id FROM user WHERE standing <> 2 UNION SELECT id FROM visitor")?;
    let rows = known.query_map([], |row| Ok(UserId(row.get(0)?)))?;
    rows.collect()
}

/// A page of rows: counted, cut, wrapped.
fn paged<T: Serialize>(count: u64, page: &PageRequest, message: &str, results: Vec<T>, count_on_top: bool) -> Reply {
    match page.wrap(count, results) {
        Ok(page) if count_on_top => Reply::counted(message, count, page),
        Ok(page) => Reply::ok(message, page),
        Err(refusal) => refusal,
    }
}

fn notifications(
    db: &Connection,
    of: UserId,
    filter: &NotificationFilter,
    page: &PageRequest,
) -> rusqlite::Result<Reply> {
    let mut more = String::new();
    let mut values = vec![Value::from(of.0)];
    match filter.is_read {
        Some(true) => more.push_str(" AND n.read_ms IS NOT NULL"),
        Some(false) => more.push_str(" AND n.read_ms IS NULL"),
        None => {}
    }
    if let Some(channel) = filter.channel {
        values.push(Value::from(channel as i64));
        more.push_str(&format!(" AND n.channel = ?{}", values.len()));
    }
    if let Some(kind) = &filter.kind {
        match schema::kind_number(kind) {
            Some(number) => more.push_str(&format!(" AND n.kind = {number}")),
            None => {
                values.push(Value::from(kind.clone()));
                more.push_str(&format!(" AND g.kind = ?{}", values.len()));
            }
        }
    }
    let counted = match more.as_str() {
        "" => schema::COUNT_OF_USER.to_owned(),
        more => format!("SELECT sum(one) FROM ({})", schema::of_user("count(*) AS one", SHOWN, more)),
    };
    let count = db.prepare_cached(&counted)?.query_row(params_from_iter(&values), |row| row.get(0))?;
    let limit = values.len() + 1;
    values.extend([limit_value(page.size), limit_value(page.offset())]);
    let rows: Vec<Notification> = db
        .prepare_cached(&format!(
            "{} ORDER BY 1 DESC LIMIT ?{limit} OFFSET ?{}",
            schema::of_user(sql_part!(NOTIFICATION), SHOWN, &more),
            limit + 1
        ))?
        .query_map(params_from_iter(&values), schema::notification)?
        .collect::<Result<_, _>>()?;
    let views = rows.iter().map(NotificationView::new).collect();
    Ok(paged(count, page, "Notificaciones obtenidas exitosamente", views, true))
}

/// What a general notification shows.
const SHOWN: &str = "LEFT JOIN general g ON g.id = n.general";

fn limit_value(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}

fn by_path(db: &Connection, of: UserId, which: Which) -> rusqlite::Result<Option<Notification>> {
    let found = match which {
        Which::Row(id) => by_id(db, id)?,
        Which::Uuid(uuid) => by_uuid(db, &uuid)?,
    };
    Ok(found.filter(|n| n.user == of))
}

pub(super) fn by_id(db: &Connection, id: NotificationId) -> rusqlite::Result<Option<Notification>> {
    db.prepare_cached(sql!("SELECT " NOTIFICATION " FROM " NOTIFICATION_SOURCE " WHERE n.id = ?1"))?
        .query_row([id.0], schema::notification)
        .optional()
}

/// The row of a UUID: ours by the id inside it, others by their index.
pub(super) fn by_uuid(db: &Connection, uuid: &Uuid) -> rusqlite::Result<Option<Notification>> {
    if let Some(id) = NotificationId::of_uuid(uuid)
        && let Some(found) = by_id(db, id)?.filter(|n| n.uuid == *uuid)
    {
        return Ok(Some(found));
    }
    db.prepare_cached(sql!("SELECT " NOTIFICATION " FROM " NOTIFICATION_SOURCE " WHERE n.uuid = ?1"))?
        .query_row([uuid.as_bytes()], schema::notification)
        .optional()
}

fn summary(db: &Connection, of: UserId) -> rusqlite::Result<Reply> {
    let total: u64 = db.prepare_cached(schema::COUNT_OF_USER)?.query_row([of.0], |row| row.get(0))?;
    let mut by_type: BTreeMap<String, u64> = BTreeMap::new();
    let mut statement = db.prepare_cached(&format!(
        "SELECT own, general, count(*) FROM ({}) GROUP BY own, general",
        schema::of_user("n.kind AS own, g.kind AS general", SHOWN, "AND n.read_ms IS NULL")
    ))?;
    let mut rows = statement.query([of.0])?;
    while let Some(row) = rows.next()? {
        let name = match schema::kind_name(row.get(0)?) {
            Some(name) => name.to_owned(),
            None => row.get::<_, Option<String>>(1)?.unwrap_or_default(),
        };
        *by_type.entry(name).or_default() += row.get::<_, u64>(2)?;
    }
    let unread_count: u64 = by_type.values().sum();
    Ok(Reply::ok(DONE, json!({ "unread_count": unread_count, "total": total, "by_type": by_type })))
}

fn my_matches(
    db: &Connection,
    of: UserId,
    status: Option<&'static str>,
    page: &PageRequest,
) -> rusqlite::Result<Reply> {
    const MINE: (&str, &str, &str) = ("suit", "suit.tenant = ?1", "m.tenant = ?1");
    let more = match status {
        None => String::new(),
        Some(name) => format!(" AND m.status IN ({})", schema::status_numbers(name)),
    };
    let count = db
        .prepare_cached(&format!("SELECT sum(one) FROM ({})", schema::of_matches("count(*) AS one", "", MINE, &more)))?
        .query_row([of.0], |row| row.get(0))?;
    let columns = sql!(MATCH ", p.id, " PROPERTY);
    let views = db
        .prepare_cached(&format!(
            "{} ORDER BY m.updated_ms DESC, m.id DESC LIMIT ?2 OFFSET ?3",
            schema::of_matches(columns, "LEFT JOIN property p ON p.id = m.property", MINE, &more)
        ))?
        .query_map(params![of.0, limit_value(page.size), limit_value(page.offset())], |row| {
            let home = row.get::<_, Option<i64>>(8)?.map(|_| schema::property(row, 9)).transpose()?;
            Ok(MatchView::new(&schema::one_match(row)?).with_property(home.as_ref()))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(paged(count, page, DONE, views, false))
}

fn one_match(db: &Connection, of: UserId, id: MatchId) -> rusqlite::Result<Reply> {
    let found = db
        .prepare_cached(sql!(
            "SELECT " MATCH ", p.id, " PROPERTY " FROM matches m LEFT JOIN property p ON p.id = m.property WHERE m.id = ?1"
        ))?
        .query_row([id.0], |row| {
            let home = row.get::<_, Option<i64>>(8)?.map(|_| schema::property(row, 9)).transpose()?;
            Ok((schema::one_match(row)?, home))
        })
        .optional()?
        .filter(|(m, home)| m.tenant == of || home.as_ref().is_some_and(|home| home.is_kept_by(of)));
    Ok(match found {
        Some((m, home)) => Reply::ok(DONE, MatchView::new(&m).with_property(home.as_ref())),
        None => Reply::not_found("No Match matches the given query."),
    })
}

fn pending_requests(db: &Connection, of: UserId, page: &PageRequest) -> rusqlite::Result<Reply> {
    const KEPT: &str = "(SELECT id FROM property WHERE owner = ?1 UNION SELECT id FROM property WHERE agent = ?1)";
    let (filed, unfiled) = (format!("pair.property IN {KEPT}"), format!("m.property IN {KEPT}"));
    let kept = ("pair", filed.as_str(), unfiled.as_str());
    let more = "AND m.status = 1";
    let count = db
        .prepare_cached(&format!("SELECT sum(one) FROM ({})", schema::of_matches("count(*) AS one", "", kept, more)))?
        .query_row([of.0], |row| row.get(0))?;
    let columns = sql!(MATCH ", " PROPERTY ", u.id, " USER);
    let joined = "JOIN property p ON p.id = m.property LEFT JOIN user u ON u.id = m.tenant AND u.standing <> 2";
    let views = db
        .prepare_cached(&format!(
            "{} ORDER BY m.score DESC, m.id DESC LIMIT ?2 OFFSET ?3",
            schema::of_matches(columns, joined, kept, more)
        ))?
        .query_map(params![of.0, limit_value(page.size), limit_value(page.offset())], |row| {
            let tenant = row.get::<_, Option<i64>>(16)?.map(|_| schema::user(row, 17)).transpose()?;
            Ok(views::pending_request(&schema::one_match(row)?, &schema::property(row, 8)?, tenant.as_ref()))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(paged(count, page, "Solicitudes de match pendientes obtenidas exitosamente", views, false))
}

fn properties(db: &Connection, page: &PageRequest) -> rusqlite::Result<Reply> {
    let count = db.prepare_cached("SELECT count(*) FROM property WHERE is_active")?.query_row([], |row| row.get(0))?;
    let views = db
        .prepare_cached(sql!(
            "SELECT p.id, " PROPERTY " FROM property p WHERE p.is_active ORDER BY p.id DESC LIMIT ?1 OFFSET ?2"
        ))?
        .query_map([limit_value(page.size), limit_value(page.offset())], |row| {
            Ok(views::property(PropertyId(row.get(0)?), &schema::property(row, 1)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(paged(count, page, DONE, views, false))
}

fn property(db: &Connection, id: PropertyId, only_active: bool) -> rusqlite::Result<Reply> {
    let found = db
        .prepare_cached(sql!("SELECT " PROPERTY " FROM property p WHERE p.id = ?1"))?
        .query_row([id.0], |row| schema::property(row, 0))
        .optional()?
        .filter(|home| home.is_active || !only_active);
    Ok(match found {
        Some(home) => Reply::ok(DONE, views::property(id, &home)),
        None => Reply::not_found("No Property matches the given query."),
    })
}

fn user(db: &Connection, id: UserId) -> rusqlite::Result<Reply> {
    let found = db
        .prepare_cached(sql!("SELECT u.standing, " USER " FROM user u WHERE u.id = ?1 AND u.standing <> 2"))?
        .query_row([id.0], |row| Ok((row.get::<_, i64>(0)? == 0, schema::user(row, 1)?)))
        .optional()?;
    Ok(match found {
        Some((is_active, user)) => Reply::ok(DONE, views::user(id, &user, is_active)),
        None => Reply::not_found("No User matches the given query."),
    })
}

/// Nothing keeps the backend from giving two people one name, but each more costs a hash.
const CANDIDATES_MAX: usize = 4;

fn credentials(db: &Connection, username: &str) -> rusqlite::Result<Answer> {
    let candidates = db
        .prepare_cached(
            "SELECT id, password FROM user WHERE username = ?1 AND standing = 0 AND password IS NOT NULL
             ORDER BY id DESC LIMIT ?2",
        )?
        .query_map(params![username, CANDIDATES_MAX], |row| Ok((UserId(row.get(0)?), row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let costliest: Option<u32> = db
        .prepare_cached(
            "SELECT max(CAST(substr(password, 15) AS INTEGER)) FROM user WHERE substr(password, 1, 14) = 'pbkdf2_sha256$'",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(Answer::Credentials { candidates, refusal_rounds: costliest.unwrap_or_default().max(DJANGO_ITERATIONS) })
}

/// What is waiting to be pushed, on a channel.
const WAITING: &str = sql!("AND n.channel = ?2 AND " WAITING);

/// One page of what a socket is sent before anything live.
fn replay(db: &Connection, asked: &Backlog) -> rusqlite::Result<BacklogPage> {
    let mut page = BacklogPage { upto: newest(db)?, ..BacklogPage::default() };
    let since = match asked.from {
        From::Since(uuid) => by_uuid(db, &uuid)?.filter(|n| n.user == asked.user && n.channel == asked.channel),
        From::Waiting | From::After { .. } => None,
    };
    let (after, all) = match (asked.from, since) {
        (From::After { id, all }, _) => (id, all),
        (_, Some(known)) => (newest_only(db, asked, Some(known.id), &mut page)?, true),
        (from, None) => {
            page.since_unknown = matches!(from, From::Since(_));
            (newest_only(db, asked, None, &mut page)?, false)
        }
    };
    page.all = all;
    let more = sql!("AND n.channel = ?2 AND n.id > ?3 AND (n.id > ?4 OR (" WAITING "))");
    let rows = schema::of_user(sql_part!(NOTIFICATION), SHOWN, more);
    let mut statement = db.prepare_cached(&format!("{rows} ORDER BY 1"))?;
    // Behind the mark, or after `since`, a row counts whatever became of it.
    let whatever_after = if all { NotificationId(0) } else { asked.mark };
    let mut rows = statement.query([asked.user.0, asked.channel as i64, after.0, whatever_after.0])?;
    while let Some(row) = rows.next()? {
        if page.ids.len() >= asked.page_rows || page.frames.len() >= REPLAY_PAGE_BYTES {
            page.more = true;
            break;
        }
        let n = schema::notification(row)?;
        frame::push_text(&mut page.frames, frames::notification(&n).as_bytes());
        page.ids.push(n.id);
    }
    Ok(page)
}

/// The row after which only the newest `replay_max` are left, of all after `since` or of what is waiting; notes in the
/// page how many older ones that leaves out.
fn newest_only(
    db: &Connection,
    asked: &Backlog,
    since: Option<NotificationId>,
    page: &mut BacklogPage,
) -> rusqlite::Result<NotificationId> {
    let which = match since {
        Some(_) => "AND n.channel = ?2",
        None => WAITING,
    };
    let after = since.unwrap_or(NotificationId(asked.oldest.0 - 1));
    let rows = schema::of_user("n.id", "", &format!("{which} AND n.id > ?3"));
    let oldest_sent: Option<i64> = db
        .prepare_cached(&format!("{rows} ORDER BY 1 DESC LIMIT 1 OFFSET ?4"))?
        .query_row(params![asked.user.0, asked.channel as i64, after.0, asked.replay_max - 1], |row| row.get(0))
        .optional()?;
    let Some(oldest_sent) = oldest_sent else { return Ok(after) };
    let older = schema::of_user("count(*) AS one", "", &format!("{which} AND n.id > ?3 AND n.id < ?4"));
    page.skipped = db
        .prepare_cached(&format!("SELECT sum(one) FROM ({older})"))?
        .query_row(params![asked.user.0, asked.channel as i64, after.0, oldest_sent], |row| row.get(0))?;
    if page.skipped > 0 {
        page.skip = Some((after, NotificationId(oldest_sent)));
    }
    Ok(NotificationId(oldest_sent - 1))
}
