//! Owns `habittod import`: JSON Lines into the rows, all of it or nothing, the same when repeated.
//! Never runs beside a server. Enter at [`import`].

use super::apply::Writer;
use super::file::{DatabaseFile, OpenError, explain};
use super::job::Job;
use super::schema::status_number;
use crate::api::command::Command;
use crate::api::directory::{self, FieldError};
use crate::api::json;
use crate::clock::from_rfc3339;
use crate::matching::{MatchId, PropertyId, Rejecter, Status, UserId, parse_id};
use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value};
use std::io::BufRead;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
}

/// Reads all lines in one transaction; gives back how many there were.
pub fn import(file: &DatabaseFile, lines: impl BufRead, now_ms: i64) -> Result<usize, ImportError> {
    let mut rows = Writer::new(file.connect()?).map_err(|e| explain(file.path(), &e))?;
    let sqlite = |e: rusqlite::Error| ImportError::Open(explain(file.path(), &e));
    rows.db.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
    let mut count = 0;
    for (number, text) in lines.lines().enumerate() {
        let wrong = |what: String| ImportError::Line { line: number + 1, what };
        let text = text.map_err(|e| wrong(e.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        one(&mut rows, &text, now_ms).map_err(wrong)?;
        count += 1;
    }
    rows.db.execute_batch("COMMIT").map_err(sqlite)?;
    Ok(count)
}

/// One line. What is wrong with it is told in words; the caller adds its number.
fn one(rows: &mut Writer, text: &str, at_ms: i64) -> Result<(), String> {
    let value = json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let mut entries = match value {
        Value::Object(entries) if entries.len() == 1 => entries.into_iter(),
        _ => return Err("expected one of {\"user\":…}, {\"property\":…}, {\"match\":…}".to_owned()),
    };
    let Some((kind, Value::Object(mut fields))) = entries.next() else {
        return Err("expected an object of fields".to_owned());
    };
    let command = match kind.as_str() {
        "user" => {
            let id = UserId(required(&fields, "id")?);
            let read = directory::user(&mut fields).map_err(|e| told(&e))?;
            Command::PutUser { id, user: read.user, is_active: read.is_active, password: read.password }
        }
        "property" => {
            let id = PropertyId(required(&fields, "id")?);
            Command::PutProperty { id, property: directory::property(&mut fields).map_err(|e| told(&e))? }
        }
        "match" => return one_match(rows, &fields, at_ms),
        other => return Err(format!("{other:?} is not user, property or match")),
    };
    let mut job = Job { command, ticket: None, idempotency: None, at_ms, asked_us: 0 };
    job.command.hash_password();
    rows.apply(&job).map(drop).map_err(|e| e.to_string())
}

fn told(e: &FieldError) -> String {
    format!("{}: {}", e.field, e.problem)
}

fn required(fields: &Map<String, Value>, name: &str) -> Result<i64, String> {
    optional(fields, name)?.ok_or_else(|| format!("{name}: This field is required."))
}

fn optional(fields: &Map<String, Value>, name: &str) -> Result<Option<i64>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .filter(|n| *n > 0)
            .or_else(|| value.as_str().and_then(parse_id))
            .map(Some)
            .ok_or_else(|| format!("{name}: A valid integer is required.")),
    }
}

fn time(fields: &Map<String, Value>, name: &str, absent_ms: i64) -> Result<i64, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(absent_ms),
        Some(value) => value
            .as_str()
            .and_then(from_rfc3339)
            .ok_or_else(|| format!("{name}: expected a time like 2026-11-24T01:56:55.106Z")),
    }
}

const MATCH_FIELDS: [&str; 8] = ["id", "property", "tenant", "score", "status", "metadata", "created_at", "updated_at"];

/// A match: found by its pair, whatever its id; a new one keeps the id it is given.
fn one_match(rows: &mut Writer, fields: &Map<String, Value>, at_ms: i64) -> Result<(), String> {
    if let Some(odd) = fields.keys().find(|key| !MATCH_FIELDS.contains(&key.as_str())) {
        return Err(format!("{odd}: a match has only {}", MATCH_FIELDS.join(", ")));
    }
    let (property, tenant) = (PropertyId(required(fields, "property")?), UserId(required(fields, "tenant")?));
    let score = match fields.get("score") {
        None | Some(Value::Null) => 0.0,
        Some(value) => value.as_f64().ok_or("score: A valid number is required.")?,
    };
    let status = match fields.get("status").map(|status| status.as_str().unwrap_or_default()) {
        Some("suggested") => Status::Suggested,
        None | Some("pending") => Status::Pending,
        Some("accepted") => Status::Accepted,
        Some("rejected") => Status::Rejected(Rejecter::Owner),
        Some(_) => return Err("status: expected suggested, pending, accepted or rejected".to_owned()),
    };
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::Object(metadata)) => serde_json::to_string(metadata).map_err(|e| e.to_string())?,
        Some(_) => return Err("metadata: Expected a dictionary.".to_owned()),
    };
    let created_ms = time(fields, "created_at", at_ms)?;
    let updated_ms = time(fields, "updated_at", created_ms)?;
    let sqlite = |e: rusqlite::Error| e.to_string();
    let known: Option<i64> = rows
        .db
        .query_row("SELECT id FROM matches WHERE property = ?1 AND tenant = ?2", [property.0, tenant.0], |row| {
            row.get(0)
        })
        .optional()
        .map_err(sqlite)?;
    let id = match (known, optional(fields, "id")?) {
        (Some(known), Some(given)) if known != given => {
            return Err(format!("id: the match of this property and tenant has id {known} already"));
        }
        (Some(known), _) => MatchId(known),
        (None, given) => rows.next_match_id(given.map(MatchId)).map_err(sqlite)?,
    };
    rows.db
        .execute(
            "INSERT INTO matches VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6, ?7, ?8) ON CONFLICT (property, tenant) DO UPDATE SET
               score = ?4, status = ?5, metadata = ?6, created_ms = ?7, updated_ms = ?8",
            params![id.0, property.0, tenant.0, score, status_number(status), metadata, created_ms, updated_ms],
        )
        .map(drop)
        .map_err(sqlite)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = r#"{"user":{"id":1,"username":"ana","email":"a@x"}}
{"property":{"id":7,"owner":1,"type":"casa","address":"x"}}

{"match":{"property":7,"tenant":2,"score":98.4,"status":"accepted","created_at":"2026-01-02T03:04:05Z"}}
"#;

    fn imported(text: &str) -> Result<usize, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let file = DatabaseFile::claim(&folder.path().join("h.db")).unwrap();
        import(&file, WORLD.as_bytes(), 1_000).unwrap();
        let answer = import(&file, text.as_bytes(), 2_000);
        let db = file.connect().unwrap();
        let rows = |table: &str| {
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((rows("user"), rows("property"), rows("matches")), (1, 1, 1));
        answer
    }

    #[test]
    fn the_same_file_twice_is_the_same_rows() {
        assert_eq!(imported(WORLD).unwrap(), 3);
    }

    #[test]
    fn a_wrong_line_is_named_and_nothing_is_imported() {
        for bad in [
            "nonsense",
            "[]",
            r#"{"user":{"id":9}}"#,
            r#"{"user":{"username":"x"}}"#,
            r#"{"house":{"id":1}}"#,
            r#"{"user":{"id":3,"username":"x"},"property":{}}"#,
            r#"{"match":{"property":7}}"#,
            r#"{"match":{"property":7,"tenant":3,"status":"maybe"}}"#,
            r#"{"match":{"property":7,"tenant":3,"colour":"red"}}"#,
            r#"{"match":{"property":7,"tenant":2,"id":99}}"#,
        ] {
            let text = format!("{{\"user\":{{\"id\":5,\"username\":\"new\"}}}}\n{bad}\n");
            let e = imported(&text).unwrap_err();
            assert!(e.to_string().starts_with("line 2: "), "{bad}: {e}");
        }
    }
}
