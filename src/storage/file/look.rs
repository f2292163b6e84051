//! Owns the look at a database before anybody uses it: ours, of a version that we know, whole. Never changes a byte of
//! it, nor makes a file beside it. Enter at [`look`], or at [`inspect`] for people.

use super::{
    OpenError, a_folder, beside, connect_to_read, environment, explain, holder, marker, real, trouble, writable,
};
use crate::storage::mark::Mark;
use crate::storage::schema::{APPLICATION_ID, MIGRATIONS};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes at the beginning of a database that tell what it is: <https://sqlite.org/fileformat2.html#the_database_header>.
const HEADER_BYTES: usize = 100;
/// Bytes at the beginning of a log; behind them come its frames, if there are any.
const LOG_HEADER_BYTES: u64 = 32;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What `habittod check` finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Inspection {
    /// A server is running on it.
    InUse {
        pid: String,
    },
    /// Will be made.
    Absent,
    Whole(Counts),
}

/// Rows of the tables that people know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub users: u64,
    pub properties: u64,
    pub matches: u64,
    pub notifications: u64,
}

/// Says what would become of a server that was started on this path. Makes, locks and changes nothing.
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    let path = &real(path)?;
    if let Some(pid) = holder(path) {
        return Ok(Inspection::InUse { pid });
    }
    let found = look(path)?;
    folder(path)?;
    writable(path)?;
    let Some(db) = found else { return Ok(Inspection::Absent) };
    counts(&db).map(Inspection::Whole).map_err(|e| explain(path, &e))
}

/// Whether the database follows the log of several nodes.
pub fn follows_log(path: &Path) -> Result<bool, OpenError> {
    let Some(db) = connect_to_look(path)? else { return Ok(false) };
    Mark::of(&db).map(|mark| mark.is_some()).map_err(|e| explain(path, &e))
}

/// Whether there is a folder that takes the files beside the database.
pub(super) fn folder(path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path.parent() else { return Err(a_folder(path)) };
    if folder.is_file() {
        return Err(environment(folder, "not a folder"));
    }
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| trouble(folder, &e.into()))
}

fn counts(db: &Connection) -> rusqlite::Result<Counts> {
    db.query_row(
        "SELECT (SELECT count(*) FROM user WHERE standing <> 2), (SELECT count(*) FROM property),
                (SELECT count(*) FROM matches), (SELECT count(*) FROM notification)",
        [],
        |row| {
            let (users, properties) = (row.get(0)?, row.get(1)?);
            Ok(Counts { users, properties, matches: row.get(2)?, notifications: row.get(3)? })
        },
    )
}

/// Opens what nobody uses to read, once it is known to be good; `None` where there is nothing and nothing is missing.
pub(super) fn look(path: &Path) -> Result<Option<Connection>, OpenError> {
    let len = length(path)?;
    let log_len = beside(path, "-wal").metadata().map_or(0, |meta| meta.len());
    if len == 0 {
        return nothing(path, log_len > 0).map(|()| None);
    }
    // A log without frames, as a crash in the first commit leaves it, says nothing. SQLite would compare it with an index
    // that it may not write, and give up.
    let wal = log_len > LOG_HEADER_BYTES;
    header(path, len, wal)?;
    let db = match wal {
        true => beside_a_log(path),
        false => immutable(path),
    };
    let db = db.map_err(|e| explain(path, &e))?;
    whole(&db, path)?;
    Ok(Some(db))
}

/// How long the file is; where there is none, 0.
pub(super) fn length(path: &Path) -> Result<u64, OpenError> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Err(a_folder(path)),
        // A device or a pipe has no length either, and is not nothing.
        Ok(meta) if !meta.is_file() => Err(environment(path, "not a regular file; let storage.path name one")),
        Ok(meta) => Ok(meta.len()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(trouble(path, &e)),
    }
}

/// Whether a database belongs where none is. A log without its database is what remains of one.
fn nothing(path: &Path, wal: bool) -> Result<(), OpenError> {
    let marker = marker(path);
    let trace = match marker.try_exists() {
        Ok(false) if !wal => return Ok(()),
        Ok(false) => beside(path, "-wal"),
        Ok(true) => marker,
        Err(e) => return Err(trouble(&marker, &e)),
    };
    Err(OpenError::Missing { path: path.display().to_string(), trace: trace.display().to_string() })
}

/// Judges the first bytes. Where there is no log, the file is as long as they say.
fn header(path: &Path, len: u64, wal: bool) -> Result<(), OpenError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let read = File::open(path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut bytes));
    read.map_err(|e| trouble(path, &e))?;
    let shown = path.display().to_string();
    let Ok(header) = <[u8; HEADER_BYTES]>::try_from(bytes).map_err(drop).and_then(is_sqlite) else {
        let what = "not an SQLite database".to_owned();
        let was_ours = marker(path).exists();
        return Err(if was_ours {
            OpenError::Damaged { path: shown, what }
        } else {
            OpenError::Foreign { path: shown, what }
        });
    };
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    // 1 stands for 65,536. The count of pages is good where the change counter agrees with the one beside it.
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = if number(24) == number(92) { u64::from(number(28)) } else { 0 };
    if !wal && len < pages * page_bytes {
        let what = format!("cut short: {len} bytes of {}", pages * page_bytes);
        return Err(OpenError::Damaged { path: shown, what });
    }
    Ok(())
}

fn is_sqlite(header: [u8; HEADER_BYTES]) -> Result<[u8; HEADER_BYTES], ()> {
    if header.starts_with(MAGIC) { Ok(header) } else { Err(()) }
}

/// Ours, of a version that we know, every page in its place.
fn whole(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |e: rusqlite::Error| explain(path, &e);
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let shown = path.display().to_string();
    if number("application_id")? != i64::from(APPLICATION_ID) {
        return Err(OpenError::Foreign { path: shown, what: "an SQLite database of another program".to_owned() });
    }
    let (found, known) = (number("user_version")?, MIGRATIONS.len());
    if usize::try_from(found).map_or(true, |found| found > known) {
        return Err(OpenError::Newer { path: shown, found, known });
    }
    let verdict: String = db.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(sqlite)?;
    match verdict.as_str() {
        "ok" => Ok(()),
        // Several lines, the first of which only names the database.
        more => Err(OpenError::Damaged { path: shown, what: more.lines().last().unwrap_or_default().to_owned() }),
    }
}

/// A file alone is the whole database: SQLite takes no lock and makes no log.
fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    read_only(path, "immutable=1")
}

/// After a crash: the log is part of the database, and reading it must neither copy it into the file nor leave an index
/// (`-shm`) of it.
fn beside_a_log(path: &Path) -> rusqlite::Result<Connection> {
    if beside(path, "-shm").exists() {
        // SQLite does not trust the index that it may not write, and makes one in memory.
        return read_only(path, "readonly_shm=1");
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Who is alone with a database needs no index that others could see.
    db.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn read_only(path: &Path, how: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    let escaped: String = path.as_os_str().as_bytes().iter().fold(String::new(), |mut name, &b| {
        if plain(b) {
            name.push(char::from(b))
        } else {
            name.push_str(&format!("%{b:02x}"))
        }
        name
    });
    Connection::open_with_flags(format!("file:{escaped}?{how}"), flags)
}

/// Opens to read, beside a server or without one; with a server's own locks only where there is a server.
pub(in crate::storage) fn connect_to_look(path: &Path) -> Result<Option<Connection>, OpenError> {
    let path = &real(path)?;
    match holder(path) {
        Some(_) => connect_to_read(path).map(Some),
        None => look(path),
    }
}
