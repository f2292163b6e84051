//! Owns what the rows tell of one notification, or of where it is not. Never changes one. Enter at [`story`].

use super::file::{OpenError, connect_to_look, explain};
use super::job::Standing;
use super::queries::{by_id, by_uuid};
use crate::api::command::Which;
use crate::notification::{Notification, NotificationId};
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;

/// What is known of one notification.
#[derive(Debug)]
pub struct Story {
    pub row: Option<Told>,
    /// The newest that there ever was.
    pub last: NotificationId,
}

#[derive(Debug)]
pub struct Told {
    pub notification: Notification,
    /// It left the push path undelivered.
    pub skipped: bool,
    /// `None`: the directory does not know this user.
    pub standing: Option<Standing>,
}

/// `None` where there is no database yet. A server may be running on it.
pub fn story(path: &Path, which: Which) -> Result<Option<Story>, OpenError> {
    let db = connect_to_look(path)?;
    db.map(|db| tell(&db, which)).transpose().map_err(|e| explain(path, &e))
}

fn tell(db: &Connection, which: Which) -> rusqlite::Result<Story> {
    let snapshot = db.unchecked_transaction()?;
    let found = match which {
        Which::Row(id) => by_id(db, id)?,
        Which::Uuid(uuid) => by_uuid(db, &uuid)?,
    };
    let row = found.map(|notification| told(db, notification)).transpose()?;
    let last = db.query_row(
        "SELECT max(coalesce((SELECT max(id) FROM notification), 0),
                    coalesce((SELECT value FROM meta WHERE key = 'last_notification'), 0))",
        [],
        |row| row.get(0).map(NotificationId),
    )?;
    snapshot.finish()?;
    Ok(Story { row, last })
}

fn told(db: &Connection, notification: Notification) -> rusqlite::Result<Told> {
    let skipped =
        db.query_row("SELECT skipped IS NOT NULL FROM notification WHERE id = ?1", [notification.id.0], |row| {
            row.get(0)
        })?;
    let standing = db
        .query_row("SELECT standing FROM user WHERE id = ?1", [notification.user.0], |row| row.get(0))
        .optional()?
        .map(|number: i64| match number {
            0 => Standing::Active,
            1 => Standing::Inactive,
            _ => Standing::Deleted,
        });
    Ok(Told { notification, skipped, standing })
}
