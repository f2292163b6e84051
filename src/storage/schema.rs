//! Owns the tables, their versions, and the one place where columns become values and back. Never opens a file.
//! Enter at [`MIGRATIONS`]; to add a column, append a migration and touch the row functions below.

use crate::matching::{Match, MatchId, Property, PropertyId, Rejecter, Status, User, UserId};
use crate::notification::{Channel, Contact, Content, General, Home, Notification, NotificationId, Person};
use rusqlite::{Connection, Row};
use std::sync::Arc;
use uuid::Uuid;

/// "HBTD": tells our files from other programs' (PRAGMA application_id).
pub(super) const APPLICATION_ID: i32 = 0x4842_5444;

/// One script a version, in order; `user_version` says how many have run. Never edit one that was released.
///
/// The hot commit only appends: each index hit at random costs a dirty page a row, which is what a commit costs. No
/// index on UUIDs of ours (the row id is inside), none on "undelivered" (the hub counts, and knows about where the oldest
/// lies); the rest trail behind (`apply::filing`).
pub(super) const MIGRATIONS: [&str; 6] = ["
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;

CREATE TABLE user (
  id INTEGER PRIMARY KEY,
  username TEXT NOT NULL, email TEXT NOT NULL, first_name TEXT NOT NULL, last_name TEXT NOT NULL,
  phone TEXT NOT NULL, user_type TEXT NOT NULL,
  standing INTEGER NOT NULL,              -- 0 active, 1 inactive, 2 deleted
  password TEXT,                          -- Django's encoding
  further TEXT NOT NULL                   -- JSON object
) STRICT;
CREATE INDEX user_by_username ON user (username);

CREATE TABLE property (
  id INTEGER PRIMARY KEY,
  owner INTEGER NOT NULL, agent INTEGER,
  kind TEXT NOT NULL, address TEXT NOT NULL, price REAL, bedrooms INTEGER,
  is_active INTEGER NOT NULL,
  further TEXT NOT NULL                   -- JSON object
) STRICT;
CREATE INDEX property_by_owner ON property (owner);
CREATE INDEX property_by_agent ON property (agent) WHERE agent IS NOT NULL;

CREATE TABLE matches (
  id INTEGER PRIMARY KEY,
  property INTEGER NOT NULL, tenant INTEGER NOT NULL,
  score REAL NOT NULL,
  status INTEGER NOT NULL,                -- 0 suggested, 1 pending, 2 accepted, 3 rejected by tenant, 4 by owner
  reason TEXT, metadata TEXT NOT NULL,
  created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX match_by_pair ON matches (property, tenant);
CREATE INDEX match_by_tenant ON matches (tenant);

CREATE TABLE general (                    -- what the backend said, once for all whom one call named
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL, title TEXT NOT NULL, message TEXT NOT NULL, data TEXT NOT NULL,
  shared_by INTEGER NOT NULL              -- notifications that show it; it goes with the last of them
) STRICT;

CREATE TABLE notification (
  id INTEGER PRIMARY KEY,                 -- commit order
  user INTEGER NOT NULL,
  channel INTEGER NOT NULL,               -- 0 property, 1 tenant
  kind INTEGER NOT NULL,                  -- 0 like, 1 accepted, 2 accepted by owner, 3 rejected by owner, 4 general
  created_ms INTEGER NOT NULL, delivered_ms INTEGER, read_ms INTEGER,
  skipped INTEGER,                        -- 1: left the push path undelivered
  uuid BLOB,                              -- only one that is not made from the id
  property INTEGER, home_kind TEXT, address TEXT,
  person INTEGER, username TEXT, email TEXT, first_name TEXT, last_name TEXT, phone TEXT, user_type TEXT,
  score REAL,
  general INTEGER
) STRICT;
CREATE INDEX notification_by_user ON notification (user);
CREATE UNIQUE INDEX notification_by_foreign_uuid ON notification (uuid) WHERE uuid IS NOT NULL;

CREATE TABLE idempotency (
  caller INTEGER NOT NULL, key TEXT NOT NULL,
  fingerprint INTEGER NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, created_ms INTEGER NOT NULL,
  PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_ms);
", "
CREATE TABLE refresh_family (             -- all refresh tokens that descend from one sign-in
  id BLOB PRIMARY KEY,                    -- UUID
  user INTEGER NOT NULL,
  current BLOB,                           -- UUID of the one token that works; NULL: revoked
  foreign_ms INTEGER,                     -- where Django made the first token: when
  used_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL             -- none of its tokens is good any longer
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_family_by_user ON refresh_family (user, used_ms);
CREATE INDEX refresh_family_by_age ON refresh_family (expires_ms);

CREATE TABLE refresh_floor (              -- Django's tokens that were made up to here begin no family
  user INTEGER PRIMARY KEY,
  made_ms INTEGER NOT NULL
) STRICT;

-- What the costliest stored password costs: the rounds stand behind the name of the algorithm.
CREATE INDEX user_by_rounds ON user (CAST(substr(password, 15) AS INTEGER)) WHERE substr(password, 1, 14) = 'pbkdf2_sha256$';
", "
-- What would touch a page at random for each row trails behind: filled some thousand rows at a time, in their order.
-- `meta` says up to where. Rows behind that are few, and looked through.
DROP INDEX notification_by_user;
DROP INDEX match_by_pair;
DROP INDEX match_by_tenant;
CREATE TABLE inbox (user INTEGER NOT NULL, notification INTEGER NOT NULL, PRIMARY KEY (user, notification))
  STRICT, WITHOUT ROWID;
CREATE TABLE pair (
  property INTEGER NOT NULL, tenant INTEGER NOT NULL, match INTEGER NOT NULL, PRIMARY KEY (property, tenant)
) STRICT, WITHOUT ROWID;
CREATE TABLE suit (tenant INTEGER NOT NULL, match INTEGER NOT NULL, PRIMARY KEY (tenant, match)) STRICT, WITHOUT ROWID;
INSERT INTO inbox SELECT user, id FROM notification ORDER BY user, id;
INSERT INTO pair SELECT property, tenant, id FROM matches ORDER BY property, tenant;
INSERT INTO suit SELECT tenant, id FROM matches ORDER BY tenant, id;
INSERT INTO meta VALUES ('filed_notification', coalesce((SELECT max(id) FROM notification), 0));
INSERT INTO meta VALUES ('filed_match', coalesce((SELECT max(id) FROM matches), 0));
", "
CREATE TABLE visitor (id INTEGER PRIMARY KEY) STRICT; -- users not in the directory who have connected
", "
CREATE INDEX property_active ON property (id) WHERE is_active; -- the list of them is counted for each page
", "
CREATE INDEX user_barred ON user (standing) WHERE standing <> 0; -- read at each start and after each rollback
"];

/// Brings a database to the newest version, a transaction a step. The newest version that this program knows is
/// `MIGRATIONS.len()`; the caller has refused anything beyond.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let version: usize = db.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))? as usize;
    for (done, script) in MIGRATIONS.iter().enumerate().skip(version) {
        let step = db.transaction()?;
        step.execute_batch(script)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", done as u32 + 1)?;
        step.commit()?;
    }
    Ok(())
}

/// A statement made of the column lists below, put together by the compiler.
macro_rules! sql {
    ($($part:tt)*) => { concat!($(sql_part!($part)),*) };
}
/// What stands in several statements. A column list holds what its row function of this file reads, in its order.
macro_rules! sql_part {
    (NOTIFICATION) => {
        "n.id, n.user, n.channel, n.kind, n.created_ms, n.delivered_ms, n.read_ms, n.uuid, \
    n.property, n.home_kind, n.address, n.person, n.username, n.email, n.first_name, n.last_name, n.phone, n.user_type, \
    n.score, g.kind, g.title, g.message, g.data"
    };
    (NOTIFICATION_SOURCE) => { "notification n LEFT JOIN general g ON g.id = n.general" };
    (MATCH) => { "m.id, m.property, m.tenant, m.score, m.status, m.metadata, m.created_ms, m.updated_ms" };
    (PROPERTY) => { "p.owner, p.agent, p.kind, p.address, p.price, p.bedrooms, p.is_active, p.further" };
    (USER) => { "u.username, u.email, u.first_name, u.last_name, u.phone, u.user_type, u.further" };
    // Of a notification: it waits to be pushed.
    (WAITING) => { "delivered_ms IS NULL AND read_ms IS NULL AND skipped IS NULL" };
    ($text:literal) => { $text };
}
pub(crate) use {sql, sql_part};

/// Up to where rows are filed. What an index says beyond that is half a sweep, and not asked.
const FILED_NOTIFICATION: &str = "(SELECT value FROM meta WHERE key = 'filed_notification')";
const FILED_MATCH: &str = "(SELECT value FROM meta WHERE key = 'filed_match')";

/// A question about one user's (?1) notifications: `columns` of `n`, and of what is joined to it, where `more` holds. Two
/// halves, the filed rows and those behind the mark; all ids of the first are below all of the second. In the first an
/// id is the index's: then SQLite takes rows in its order, and no more of them than it needs.
pub(super) fn of_user(columns: &str, joined: &str, more: &str) -> String {
    let filed = |part: &str| part.replace("n.id", "inbox.notification");
    format!(
        "SELECT {} FROM inbox JOIN notification n ON n.id = inbox.notification {joined}
         WHERE inbox.user = ?1 AND inbox.notification <= {FILED_NOTIFICATION} {}
         UNION ALL SELECT {columns} FROM notification n {joined}
         WHERE n.id > {FILED_NOTIFICATION} AND n.user = ?1 {more}",
        filed(columns),
        filed(more)
    )
}

/// How many notifications a user (?1) has: without a look at what is filed.
pub(super) const COUNT_OF_USER: &str = "SELECT (SELECT count(*) FROM inbox WHERE user = ?1 AND notification <=
      (SELECT value FROM meta WHERE key = 'filed_notification'))
    + (SELECT count(*) FROM notification
       WHERE id > (SELECT value FROM meta WHERE key = 'filed_notification') AND user = ?1)";

/// A question about matches: those that `filed` finds in an index (`pair` or `suit`) and those behind the mark that are
/// `unfiled`.
pub(super) fn of_matches(
    columns: &str,
    joined: &str,
    (index, filed, unfiled): (&str, &str, &str),
    more: &str,
) -> String {
    format!(
        "SELECT {columns} FROM {index} JOIN matches m ON m.id = {index}.match {joined} WHERE {filed} AND {index}.match <= {FILED_MATCH} {more}
         UNION ALL SELECT {columns} FROM matches m {joined}
         WHERE m.id > {FILED_MATCH} AND {unfiled} {more}"
    )
}

/// A row of `NOTIFICATION`.
pub(super) fn notification(row: &Row<'_>) -> rusqlite::Result<Notification> {
    let id = NotificationId(row.get(0)?);
    let user = UserId(row.get(1)?);
    let channel = channel_of(row.get(2)?);
    let created_ms = row.get(4)?;
    let text = |column: usize| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let home =
        || -> rusqlite::Result<Home> { Ok(Home { id: PropertyId(row.get(8)?), kind: text(9)?, address: text(10)? }) };
    let contact = || -> rusqlite::Result<Contact> { Ok(Contact { email: text(13)?, phone: text(16)? }) };
    let score = row.get::<_, Option<f64>>(18)?.unwrap_or_default();
    let content = match row.get::<_, i64>(3)? {
        0 => Content::PropertyLike {
            home: home()?,
            tenant: Person {
                id: UserId(row.get(11)?),
                username: text(12)?,
                email: text(13)?,
                first_name: text(14)?,
                last_name: text(15)?,
                phone: text(16)?,
                user_type: text(17)?,
            },
            score,
        },
        1 => Content::MatchAccepted { home: home()?, owner: contact()?, tenant_username: text(12)? },
        2 => Content::MatchAcceptedByOwner { home: home()?, owner_name: text(14)?, owner: contact()?, score },
        3 => Content::MatchRejectedByOwner { home: home()? },
        _ => Content::General(Arc::new(General {
            kind: text(19)?,
            title: text(20)?,
            message: text(21)?,
            data: text(22)?,
        })),
    };
    let foreign: Option<[u8; 16]> = row.get(7)?;
    Ok(Notification {
        id,
        uuid: foreign.map_or_else(|| id.uuid(created_ms, user, channel), Uuid::from_bytes),
        user,
        channel,
        content,
        created_ms,
        delivered_ms: row.get(5)?,
        read_ms: row.get(6)?,
    })
}

#[must_use]
pub(super) fn channel_of(number: i64) -> Channel {
    if number == 0 { Channel::Property } else { Channel::Tenant }
}

/// A row of `MATCH`.
pub(super) fn one_match(row: &Row<'_>) -> rusqlite::Result<Match> {
    Ok(Match {
        id: MatchId(row.get(0)?),
        property: PropertyId(row.get(1)?),
        tenant: UserId(row.get(2)?),
        score: row.get(3)?,
        status: status_of(row.get(4)?),
        metadata: row.get(5)?,
        created_ms: row.get(6)?,
        updated_ms: row.get(7)?,
    })
}

const STATUSES: [Status; 5] = [
    Status::Suggested,
    Status::Pending,
    Status::Accepted,
    Status::Rejected(Rejecter::Tenant),
    Status::Rejected(Rejecter::Owner),
];

fn status_of(number: u64) -> Status {
    STATUSES.get(number as usize).copied().unwrap_or(Status::Suggested)
}

#[must_use]
pub(super) fn status_number(status: Status) -> i64 {
    STATUSES.iter().position(|known| *known == status).unwrap_or_default() as i64
}

/// `PROPERTY`, from column `first` on: owner, agent, kind, address, price, bedrooms, is_active, further.
pub(super) fn property(row: &Row<'_>, first: usize) -> rusqlite::Result<Property> {
    Ok(Property {
        owner: UserId(row.get(first)?),
        agent: row.get::<_, Option<i64>>(first + 1)?.map(UserId),
        kind: row.get(first + 2)?,
        address: row.get(first + 3)?,
        price: row.get(first + 4)?,
        bedrooms: row.get(first + 5)?,
        is_active: row.get(first + 6)?,
        further: further(row, first + 7)?,
    })
}

/// `USER`, from column `first` on: username, email, first_name, last_name, phone, user_type, further.
pub(super) fn user(row: &Row<'_>, first: usize) -> rusqlite::Result<User> {
    Ok(User {
        username: row.get(first)?,
        email: row.get(first + 1)?,
        first_name: row.get(first + 2)?,
        last_name: row.get(first + 3)?,
        phone: row.get(first + 4)?,
        user_type: row.get(first + 5)?,
        further: further(row, first + 6)?,
    })
}

fn further(row: &Row<'_>, column: usize) -> rusqlite::Result<serde_json::Map<String, serde_json::Value>> {
    let text: String = row.get(column)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// The numbers of `notification.kind`; what is not among the names is a general one.
const KINDS: [&str; 4] = [
    crate::notification::PROPERTY_LIKE,
    crate::notification::MATCH_ACCEPTED,
    crate::notification::MATCH_ACCEPTED_BY_OWNER,
    crate::notification::MATCH_REJECTED_BY_OWNER,
];

#[must_use]
pub(super) fn kind_number(name: &str) -> Option<usize> {
    KINDS.iter().position(|kind| *kind == name)
}

#[must_use]
pub(super) fn kind_name(number: u64) -> Option<&'static str> {
    KINDS.get(number as usize).copied()
}

/// The numbers of `matches.status` that the wire shows under this name, as a list for SQL.
#[must_use]
pub(super) fn status_numbers(name: &str) -> String {
    let numbers: Vec<String> = STATUSES
        .iter()
        .enumerate()
        .filter(|(_, status)| status.as_str() == name)
        .map(|(number, _)| number.to_string())
        .collect();
    numbers.join(",")
}
