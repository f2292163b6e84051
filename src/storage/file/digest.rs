//! Owns the digest by which nodes tell whether they hold the same rows. Never reads what a node keeps for itself.
//! Enter at [`digest`].

use super::look::connect_to_look;
use super::{OpenError, explain};
use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::path::Path;

/// SHA-256 of all rows, in hexadecimal; `None` where there is no database yet. A server may be running on it.
pub fn digest(path: &Path) -> Result<Option<String>, OpenError> {
    let db = connect_to_look(path)?;
    db.map(|db| digest_of(&db)).transpose().map_err(|e| explain(path, &e))
}

/// The tables in the order of their names, each one's rows in the order of its primary key. Every part says how long it
/// is, so that two contents never make the same bytes.
pub fn digest_of(db: &Connection) -> rusqlite::Result<String> {
    // One snapshot for all tables.
    let snapshot = db.unchecked_transaction()?;
    let mut sum = Context::new(&SHA256);
    // How far the trailing indexes are is a node's own affair.
    let mut names = db.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('inbox', 'pair', 'suit') ORDER BY name",
    )?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names.iter().filter(|name| !name.starts_with("sqlite_")) {
        table(db, name, &mut sum)?;
    }
    snapshot.finish()?;
    Ok(sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn table(db: &Connection, name: &str, sum: &mut Context) -> rusqlite::Result<()> {
    let mut key = db.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let key: Vec<String> = key.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
    // So is what a failing disk is tried with, and how far a node is in the log.
    let own = "'probe', 'log', 'filed_notification', 'filed_match'";
    let shared = if name == "meta" { format!("WHERE key NOT IN ({own})") } else { String::new() };
    let mut rows = db.prepare(&format!("SELECT * FROM {name} {shared} ORDER BY {}", key.join(", ")))?;
    let columns = rows.column_count();
    piece(sum, b'T', name.as_bytes());
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        piece(sum, b'R', &[]);
        for column in 0..columns {
            match row.get_ref(column)? {
                ValueRef::Null => piece(sum, b'0', &[]),
                ValueRef::Integer(number) => piece(sum, b'i', &number.to_be_bytes()),
                ValueRef::Real(number) => piece(sum, b'f', &number.to_bits().to_be_bytes()),
                ValueRef::Text(text) => piece(sum, b't', text),
                ValueRef::Blob(bytes) => piece(sum, b'b', bytes),
            }
        }
    }
    Ok(())
}

fn piece(sum: &mut Context, kind: u8, bytes: &[u8]) {
    sum.update(&[kind]);
    sum.update(&(bytes.len() as u64).to_be_bytes());
    sum.update(bytes);
}
