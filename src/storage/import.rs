//! Owns `habittod import`: JSON Lines into the rows, all of it or nothing, the same when repeated. Never runs beside a
//! server: it has claimed the file. Enter at [`import`].

use super::apply::Writer;
use super::file::{DatabaseFile, OpenError, explain};
use super::job::Job;
use super::mark::Mark;
use super::schema::status_number;
use crate::api::command::Command;
use crate::api::directory::{self, FieldError};
use crate::api::json;
use crate::auth::password;
use crate::clock::from_rfc3339;
use crate::matching::{Match, MatchId, PropertyId, Rejecter, Status, UserId, parse_id};
use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value};
use std::io::{BufRead, Read};

/// Bytes of a line: far more than a user or a property has.
const LINE_MAX: usize = 1024 * 1024;
/// What some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Ids beyond what JSON's readers can hold are mistakes; and ids of later matches come after the largest.
const MATCH_ID_MAX: i64 = 1 << 53;
const MATCH_FIELDS: [&str; 8] = ["id", "property", "tenant", "score", "status", "metadata", "created_at", "updated_at"];

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
}

/// What stops a line: what it says, or the database.
enum Fault {
    Wrong(String),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        Self::Database(e)
    }
}

impl From<FieldError> for Fault {
    fn from(FieldError { field, problem }: FieldError) -> Self {
        Self::Wrong(format!("{field}: {}", problem.trim_end_matches('.')))
    }
}

type Imported<T> = Result<T, Fault>;

fn wrong<T>(what: impl Into<String>) -> Imported<T> {
    Err(Fault::Wrong(what.into()))
}

/// Reads all lines in one transaction; gives back how many there were. Empty ones do not count.
pub fn import(file: &DatabaseFile, mut lines: impl BufRead, now_ms: i64) -> Result<usize, ImportError> {
    let sqlite = |e: rusqlite::Error| ImportError::Open(explain(file.path(), &e));
    // Without its COMMIT, the connection takes everything back when it goes.
    let mut rows = Writer::new(file.connect()?).map_err(sqlite)?;
    if Mark::of(&rows.db).map_err(sqlite)?.is_some() {
        // The other nodes would never hear of it.
        let what =
            "follows the log of several nodes; import before the first start with redis, or use the service calls";
        let path = file.path().display().to_string();
        return Err(ImportError::Open(OpenError::Environment { path, what: what.to_owned() }));
    }
    rows.db.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
    let (mut line, mut count) = (0, 0);
    let mut text = Vec::new();
    loop {
        text.clear();
        line += 1;
        let fault = |what: String| ImportError::Line { line, what };
        let mut reader = lines.by_ref().take(LINE_MAX as u64 + 1);
        if reader.read_until(b'\n', &mut text).map_err(|e| fault(e.to_string()))? == 0 {
            break;
        }
        if text.len() > LINE_MAX {
            return Err(fault("longer than 1 MiB".to_owned()));
        }
        let said = if line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text) } else { &text }.trim_ascii();
        if said.is_empty() {
            continue;
        }
        one(&mut rows, said, now_ms).map_err(|e| match e {
            Fault::Wrong(what) => fault(what),
            Fault::Database(e) => sqlite(e),
        })?;
        count += 1;
    }
    rows.db.execute_batch("COMMIT").map_err(sqlite)?;
    Ok(count)
}

fn one(rows: &mut Writer, text: &[u8], at_ms: i64) -> Imported<()> {
    let value = json::parse(text).or_else(|e| {
        // It names "line 1", which is any line here.
        let what = e.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        wrong(format!("column {}: {what}", e.column()))
    })?;
    let mut entries = match value {
        Value::Object(entries) if entries.len() == 1 => entries.into_iter(),
        _ => return wrong("expected one of {\"user\":{…}}, {\"property\":{…}}, {\"match\":{…}}"),
    };
    let (kind, mut fields) = match entries.next() {
        Some((kind, Value::Object(fields))) => (kind, fields),
        Some((kind, _)) => return wrong(format!("{kind}: expected an object")),
        None => return Ok(()),
    };
    match kind.as_str() {
        "user" => user(rows, &mut fields, at_ms),
        "property" => {
            let id = PropertyId(required(&fields, "id")?);
            let property = directory::property(&mut fields)?;
            put(rows, Command::PutProperty { id, property }, at_ms)
        }
        "match" => one_match(rows, &fields, at_ms),
        other => wrong(format!("{other:?} is none of user, property, match")),
    }
}

fn user(rows: &mut Writer, fields: &mut Map<String, Value>, at_ms: i64) -> Imported<()> {
    let id = UserId(required(fields, "id")?);
    let directory::UserFields { user, is_active, password } = directory::user(fields)?;
    // A plain password that is his already keeps its hash: another one would make other rows of the same file.
    let password = match password {
        Some(plain) if !password::is_encoded(&plain) && is_his(rows, id, &plain)? => None,
        other => other,
    };
    let mut command = Command::PutUser { id, user, is_active, password };
    command.hash_password();
    put(rows, command, at_ms)
}

fn is_his(rows: &Writer, id: UserId, plain: &str) -> rusqlite::Result<bool> {
    let stored: Option<Option<String>> = rows
        .db
        .prepare_cached("SELECT password FROM user WHERE id = ?1")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    Ok(stored.flatten().is_some_and(|stored| password::verify(plain, &stored)))
}

fn is_deleted(rows: &Writer, id: UserId) -> rusqlite::Result<bool> {
    let deleted = "SELECT EXISTS (SELECT 1 FROM user WHERE id = ?1 AND standing = 2)";
    rows.db.prepare_cached(deleted)?.query_row([id.0], |row| row.get(0))
}

fn put(rows: &mut Writer, command: Command, at_ms: i64) -> Imported<()> {
    rows.apply(&Job { command, ticket: None, idempotency: None, at_ms, asked_us: 0 })?;
    Ok(())
}

/// A match is found by its pair. A new one keeps the id it is given; what a line does not say stays as it is.
fn one_match(rows: &mut Writer, fields: &Map<String, Value>, at_ms: i64) -> Imported<()> {
    if let Some(odd) = fields.keys().find(|key| !MATCH_FIELDS.contains(&key.as_str())) {
        return wrong(format!("{odd}: no field of a match, which has {}", MATCH_FIELDS.join(", ")));
    }
    let (property, tenant) = (PropertyId(required(fields, "property")?), UserId(required(fields, "tenant")?));
    let given = optional(fields, "id")?;
    if is_deleted(rows, tenant)? {
        return wrong(format!(
            "tenant: user {tenant} was deleted; give his own line before this one, or leave this out"
        ));
    }
    let known = rows.match_of_pair(property, tenant)?;
    let id = match (&known, given) {
        (Some(known), Some(id)) if known.id.0 != id => {
            return wrong(format!("id: the match of this property and tenant is {} already", known.id));
        }
        (Some(known), _) => known.id,
        (None, Some(id)) if id > MATCH_ID_MAX => {
            return wrong(format!("id: Ensure this value is at most {MATCH_ID_MAX}"));
        }
        (None, Some(id)) if rows.match_by_id(MatchId(id))?.is_some() => {
            return wrong(format!("id: {id} is the match of another pair"));
        }
        (None, given) => rows.next_match_id(given.map(MatchId)),
    };
    let now = read_match(fields, id, property, tenant, known.as_ref(), at_ms)?;
    write_match(rows, &now)?;
    Ok(())
}

fn read_match(
    fields: &Map<String, Value>,
    id: MatchId,
    property: PropertyId,
    tenant: UserId,
    known: Option<&Match>,
    at_ms: i64,
) -> Imported<Match> {
    let said = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let score = match (said("score"), known) {
        (Some(value), _) => value.as_f64().map_or_else(|| wrong("score: A valid number is required"), Ok)?,
        (None, known) => known.map_or(0.0, |known| known.score),
    };
    let status = match (said("status"), known) {
        (Some(value), known) => status(value, known)?,
        (None, known) => known.map_or(Status::Suggested, |known| known.status),
    };
    let metadata = match (said("metadata"), known) {
        (Some(Value::Object(metadata)), _) => crate::api::frames::encode(metadata),
        (Some(_), _) => return wrong("metadata: Expected a dictionary"),
        (None, known) => known.map_or_else(|| "{}".to_owned(), |known| known.metadata.clone()),
    };
    let created_ms = time(said("created_at"), "created_at")?;
    let created_ms = created_ms.unwrap_or_else(|| known.map_or(at_ms, |known| known.created_ms));
    // Where the file does not say when, a change happens now, and no change never did.
    let same = known.filter(|m| (m.score, m.status, &m.metadata) == (score, status, &metadata));
    let updated_ms = match (time(said("updated_at"), "updated_at")?, known, same) {
        (Some(said), ..) => said,
        (None, _, Some(same)) => same.updated_ms,
        (None, Some(_), None) => at_ms,
        (None, None, _) => created_ms,
    };
    Ok(Match { id, property, tenant, score, status, metadata, created_ms, updated_ms })
}

/// As the wire spells it. Who said no is not told, but may be known here. Else the tenant can ask again only if it was
/// himself, so it was the owner.
fn status(value: &Value, before: Option<&Match>) -> Imported<Status> {
    let before = before.map(|before| before.status);
    let known = [Status::Suggested, Status::Pending, Status::Accepted, Status::Rejected(Rejecter::Owner)];
    match value.as_str().and_then(|name| before.into_iter().chain(known).find(|status| status.as_str() == name)) {
        Some(status) => Ok(status),
        None => wrong("status: expected suggested, pending, accepted or rejected"),
    }
}

fn write_match(rows: &Writer, m: &Match) -> rusqlite::Result<()> {
    rows.db
        .prepare_cached(
            "INSERT INTO matches VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6, ?7, ?8) ON CONFLICT (id) DO UPDATE SET
               score = ?4, status = ?5, metadata = ?6, created_ms = ?7, updated_ms = ?8",
        )?
        .execute(params![
            m.id.0,
            m.property.0,
            m.tenant.0,
            m.score,
            status_number(m.status),
            m.metadata,
            m.created_ms,
            m.updated_ms
        ])?;
    rows.file_match(m)
}

fn required(fields: &Map<String, Value>, name: &str) -> Imported<i64> {
    match optional(fields, name)? {
        Some(id) => Ok(id),
        None => wrong(format!("{name}: This field is required")),
    }
}

/// An id, as a number or as digits in a string.
fn optional(fields: &Map<String, Value>, name: &str) -> Imported<Option<i64>> {
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_i64().filter(|n| *n > 0).or_else(|| value.as_str().and_then(parse_id)) {
        Some(id) => Ok(Some(id)),
        None => wrong(format!("{name}: A valid integer is required")),
    }
}

fn time(said: Option<&Value>, name: &str) -> Imported<Option<i64>> {
    match said.map(|value| value.as_str().and_then(from_rfc3339)) {
        Some(None) => wrong(format!("{name}: expected a time like 2026-11-24T01:56:55.106Z")),
        Some(time) => Ok(time),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::digest_of;
    use crate::storage::schema::{self, sql, sql_part};

    const WORLD: &str = r#"{"user":{"id":1,"username":"ana","email":"a@x","photo":"p.jpg","is_active":false}}
{"property":{"id":"7","owner":1,"type":"casa","address":"x","price":"2500.50","zone_id":2}}

  {"match":{"property":7,"tenant":2,"score":98.4,"status":"accepted","created_at":"2026-01-02T03:04:05Z"}}  
{"match":{"id":40,"property":7,"tenant":3,"status":"rejected","metadata":{"a":[1]}}}
{"match":{"property":7,"tenant":4,"id":null,"score":null}}
"#;

    struct World {
        _folder: tempfile::TempDir,
        file: DatabaseFile,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = DatabaseFile::claim(&folder.path().join("h.db")).unwrap();
            assert_eq!(import(&file, WORLD.as_bytes(), 1_000).unwrap(), 5);
            Self { _folder: folder, file }
        }

        fn import(&self, text: &str) -> Result<usize, ImportError> {
            import(&self.file, text.as_bytes(), 2_000)
        }

        fn digest(&self) -> String {
            digest_of(&self.file.connect().unwrap()).unwrap()
        }

        fn matches(&self) -> Vec<Match> {
            let db = self.file.connect().unwrap();
            let mut all = db.prepare(sql!("SELECT " MATCH " FROM matches m ORDER BY tenant")).unwrap();
            all.query_map([], schema::one_match).unwrap().collect::<Result<_, _>>().unwrap()
        }
    }

    #[test]
    fn the_same_file_twice_is_the_same_rows() {
        let world = World::new();
        let before = world.digest();
        // As an editor may have saved it.
        assert_eq!(world.import(&format!("\u{feff}{WORLD}")).unwrap(), 5);
        assert_eq!(world.digest(), before);
        let [two, three, four]: [Match; 3] = world.matches().try_into().unwrap();
        assert_eq!((two.id.0, two.score, two.status), (1, 98.4, Status::Accepted));
        assert_eq!((two.created_ms, two.updated_ms), (1_767_323_045_000, 1_767_323_045_000));
        assert_eq!((three.id.0, three.status), (40, Status::Rejected(Rejecter::Owner)));
        assert_eq!((three.metadata.as_str(), three.created_ms), (r#"{"a":[1]}"#, 1_000));
        assert_eq!((four.id.0, four.score, four.status), (41, 0.0, Status::Suggested));
    }

    #[test]
    fn what_a_line_does_not_say_stays() {
        let world = World::new();
        world.import(r#"{"match":{"property":"7","tenant":"2","score":50}}"#).unwrap();
        let two = world.matches().swap_remove(0);
        assert_eq!((two.score, two.status, two.updated_ms), (50.0, Status::Accepted, 2_000));
        assert_eq!(two.created_ms, 1_767_323_045_000);
        world.import(r#"{"user":{"id":1,"username":"ana"}}"#).unwrap();
        let db = world.file.connect().unwrap();
        let (standing, email): (i64, String) =
            db.query_row("SELECT standing, email FROM user", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!((standing, email.as_str()), (1, ""), "as PUT: is_active stays, texts are replaced");
    }

    #[test]
    fn a_deleted_tenant_gets_no_match_before_he_is_there_again() {
        let world = World::new();
        let mut rows = Writer::new(world.file.connect().unwrap()).unwrap();
        put(&mut rows, Command::DeleteUser { id: UserId(2) }, 1_500).map_err(drop).unwrap();
        let before = world.digest();
        let line = r#"{"match":{"property":7,"tenant":2}}"#;
        let refused = world.import(line).unwrap_err().to_string();
        assert!(refused.starts_with("line 1: tenant: user 2 was deleted; "), "{refused}");
        assert_eq!(world.digest(), before);
        world.import(&format!("{{\"user\":{{\"id\":2,\"username\":\"eva\"}}}}\n{line}")).unwrap();
        assert_eq!(world.matches()[0].tenant, UserId(2));
    }

    #[test]
    fn who_said_no_stays_known() {
        let world = World::new();
        // Tenant 3 said no, here.
        let tenant = status_number(Status::Rejected(Rejecter::Tenant));
        world.file.connect().unwrap().execute("UPDATE matches SET status = ?1 WHERE id = 40", [tenant]).unwrap();
        world.import(WORLD).unwrap();
        assert_eq!(world.matches()[1].status, Status::Rejected(Rejecter::Tenant));
    }

    #[test]
    fn plain_passwords_are_hashed_once() {
        let world = World::new();
        let line = r#"{"user":{"id":5,"username":"eva","password":"s3creto"}}"#;
        world.import(line).unwrap();
        let before = world.digest();
        world.import(line).unwrap();
        assert_eq!(world.digest(), before);
        let stored = || -> String {
            let db = world.file.connect().unwrap();
            db.query_row("SELECT password FROM user WHERE id = 5", [], |row| row.get(0)).unwrap()
        };
        assert!(password::verify("s3creto", &stored()));
        let encoded = password::encode("otro", "sal", 2);
        world.import(&line.replace("s3creto", &encoded)).unwrap();
        assert_eq!(stored(), encoded);
    }

    #[test]
    fn a_wrong_line_is_named_and_nothing_is_imported() {
        let world = World::new();
        let before = world.digest();
        for (bad, what) in [
            ("nonsense", "column 2: expected"),
            ("[]", "expected one of"),
            ("{}", "expected one of"),
            (r#"{"user":5}"#, "user: expected an object"),
            (r#"{"user":{"id":9}}"#, "username: This field is required"),
            (r#"{"user":{"username":"x"}}"#, "id: This field is required"),
            (r#"{"user":{"id":0,"username":"x"}}"#, "id: A valid integer is required"),
            (r#"{"user":{"id":3,"username":"x","username":"y"}}"#, "a key stands twice"),
            (r#"{"user":{"id":3,"username":"x","password":"argon2$x"}}"#, "password: "),
            (r#"{"house":{"id":1}}"#, "\"house\" is none of"),
            (r#"{"user":{"id":3,"username":"x"},"property":{}}"#, "expected one of"),
            (r#"{"property":{"id":3,"owner":1,"type":"casa"}}"#, "address: This field is required"),
            (r#"{"match":{"property":7}}"#, "tenant: This field is required"),
            (r#"{"match":{"property":7,"tenant":3,"status":"maybe"}}"#, "status: expected suggested"),
            (r#"{"match":{"property":7,"tenant":3,"score":"9"}}"#, "score: A valid number"),
            (r#"{"match":{"property":7,"tenant":3,"metadata":[]}}"#, "metadata: Expected a dictionary"),
            (r#"{"match":{"property":7,"tenant":3,"created_at":"ayer"}}"#, "created_at: expected a time"),
            (r#"{"match":{"property":7,"tenant":3,"colour":"red"}}"#, "colour: no field of a match"),
            (
                r#"{"match":{"property":7,"tenant":2,"id":99}}"#,
                "id: the match of this property and tenant is 1 already",
            ),
            (r#"{"match":{"property":8,"tenant":2,"id":40}}"#, "id: 40 is the match of another pair"),
            (r#"{"match":{"property":8,"tenant":2,"id":9223372036854775807}}"#, "id: Ensure this value"),
            ("{\"user\":{\"id\":3,\"username\":\"\u{85}\"}}", "username: Not a valid string"),
        ] {
            let e = world.import(&format!("{{\"user\":{{\"id\":5,\"username\":\"new\"}}}}\n\n{bad}\n")).unwrap_err();
            let told = e.to_string();
            assert!(told.starts_with("line 3: ") && told.contains(what), "{bad}: {told}");
        }
        let long = format!("{{\"user\":{{\"id\":5,\"username\":\"new\"}}}}\n{}", " ".repeat(LINE_MAX + 1));
        assert_eq!(world.import(&long).unwrap_err().to_string(), "line 2: longer than 1 MiB");
        let not_text = import(&world.file, &b"\n{\"user\":\xff}"[..], 0).unwrap_err();
        assert!(not_text.to_string().starts_with("line 2: "), "{not_text}");
        assert_eq!(world.digest(), before);
    }
}
