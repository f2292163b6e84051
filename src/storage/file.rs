//! Owns the database file: who uses it, whether it is ours, whether it is whole. Never changes one that is not.
//! Enter at [`DatabaseFile::claim`], or at [`inspect`] to look without touching.

use super::schema::{self, APPLICATION_ID, MIGRATIONS};
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages of write-ahead log between checkpoints: fewer checkpoints, each of which writes more pages once.
const CHECKPOINT_PAGES: u32 = 4_000;
const WRITER_CACHE_KIB: u32 = 8 * 1024;
const READER_CACHE_KIB: u32 = 2 * 1024;
const STATEMENTS: usize = 64;
const BUSY: Duration = Duration::from_secs(5);

/// Why a database cannot be used. Restarting does not help.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: in use by PID {pid}; stop that process first, or give this one another storage.path")]
    InUse { path: String, pid: String },
    #[error(
        "{path}: the database is gone or empty, but {path}.id says that there was one; restore a backup, or remove {path}.id to begin empty"
    )]
    Missing { path: String },
    #[error("{path}: {what}; restore a backup (it is left as it is)")]
    Damaged { path: String, what: String },
    #[error("{path}: {what}; give storage.path a file of habittod, or a name that is free (it is left as it is)")]
    Foreign { path: String, what: String },
    #[error("{path}: written by a newer habittod (schema {found}, this one knows {known}); run that one")]
    Newer { path: String, found: usize, known: usize },
    #[error("{path}: {what}")]
    Environment { path: String, what: String },
}

/// The file, and the lock that says it is ours while this lives.
#[derive(Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    _lock: File,
}

/// `<path>.id`: stands where a database was made, so that a vanished one is noticed.
fn marker(path: &Path) -> PathBuf {
    beside(path, ".id")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn environment(path: &Path, e: impl std::fmt::Display) -> OpenError {
    OpenError::Environment { path: path.display().to_string(), what: e.to_string() }
}

/// An error of SQLite, by what has to be done about it.
#[must_use]
pub fn explain(path: &Path, e: &rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let (path, what) = (path.display().to_string(), e.to_string());
    match e.sqlite_error_code() {
        Some(DatabaseCorrupt) => OpenError::Damaged { path, what },
        Some(NotADatabase) => OpenError::Foreign { path, what },
        _ => OpenError::Environment { path, what },
    }
}

impl DatabaseFile {
    /// Makes this process the only one that uses the file.
    pub fn claim(path: &Path) -> Result<Self, OpenError> {
        let lock_path = beside(path, ".lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| environment(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { path: path.display().to_string(), pid: holder(&mut lock) });
            }
            Err(TryLockError::Error(e)) => return Err(environment(&lock_path, e)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(|e| environment(&lock_path, e))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the database to write, or makes it: looked at before it is touched, synced on every commit, of this version.
    pub fn connect(&self) -> Result<Connection, OpenError> {
        let path = &self.path;
        let sqlite = |e: rusqlite::Error| explain(path, &e);
        let marked = marker(path).exists();
        match path.metadata() {
            Ok(meta) if meta.len() > 0 => look(path)?,
            _ if marked => return Err(OpenError::Missing { path: path.display().to_string() }),
            Ok(_) => {}
            // Made by us, so that only its owner can read it; SQLite gives -wal and -shm the same mode.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                made.map_err(|e| environment(path, e))?;
            }
            Err(e) => return Err(environment(path, e)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        prepare(&db, WRITER_CACHE_KIB).map_err(sqlite)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(sqlite)?;
        let synced: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(sqlite)?;
        let journal: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(sqlite)?;
        if synced != 2 || journal != "wal" {
            return Err(environment(
                path,
                format!("synchronous is {synced} and journal_mode {journal}, not 2 and wal"),
            ));
        }
        check(&db, path)?;
        schema::migrate(&mut db).map_err(sqlite)?;
        if !marked {
            self.mark().map_err(|e| environment(&marker(path), e))?;
        }
        Ok(db)
    }

    fn mark(&self) -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(marker(&self.path))?;
        writeln!(
            file,
            "habittod made a database here; without it, it will not start. Remove this file to begin empty."
        )?;
        file.sync_all()?;
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }
}

/// Whose PID a held lock file names.
fn holder(lock: &mut File) -> String {
    let mut pid = String::new();
    let _ = lock.rewind().and_then(|()| lock.take(20).read_to_string(&mut pid));
    if pid.is_empty() { "unknown".to_owned() } else { pid }
}

fn prepare(db: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.pragma_update(None, "cache_size", -i64::from(cache_kib))
}

/// A connection of the reader: beside the writer, and unable to write.
pub fn connect_to_read(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = |e: rusqlite::Error| explain(path, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    prepare(&db, READER_CACHE_KIB).map_err(sqlite)?;
    db.pragma_update(None, "query_only", true).map_err(sqlite)?;
    Ok(db)
}

/// Looks at a file that is not in use, and leaves it byte for byte as it is.
fn look(path: &Path) -> Result<(), OpenError> {
    let sqlite = |e: rusqlite::Error| explain(path, &e);
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read(&mut header)).map_err(|e| environment(path, e))?;
    let is_sqlite = header.starts_with(b"SQLite format 3\0");
    if read < header.len() || !is_sqlite {
        let what = "not an SQLite database".to_owned();
        return Err(OpenError::Foreign { path: path.display().to_string(), what });
    }
    let id = i32::from_be_bytes([header[68], header[69], header[70], header[71]]);
    let wal = beside(path, "-wal").metadata().is_ok_and(|meta| meta.len() > 0);
    if id != APPLICATION_ID && !wal {
        let what = "an SQLite database of another program".to_owned();
        return Err(OpenError::Foreign { path: path.display().to_string(), what });
    }
    // With a write-ahead log beside it, the file alone is not the database: it is checked once opened.
    if wal {
        return Ok(());
    }
    // `immutable`: no lock, no log, no shared memory; SQLite only reads.
    let uri = format!(
        "file:{}?immutable=1",
        path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
    );
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(uri, flags).map_err(sqlite)?;
    check(&db, path)
}

/// Ours, of a version that we know, and whole.
fn check(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |e: rusqlite::Error| explain(path, &e);
    let shown = path.display().to_string();
    let number =
        |pragma: &str| db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).map_err(sqlite)?;
    if tables > 0 && number("application_id")? != i64::from(APPLICATION_ID) {
        let what = "an SQLite database of another program".to_owned();
        return Err(OpenError::Foreign { path: shown, what });
    }
    let (found, known) = (number("user_version")? as usize, MIGRATIONS.len());
    if found > known {
        return Err(OpenError::Newer { path: shown, found, known });
    }
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: shown, what: verdict }) }
}

/// What `habittod check` finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Inspection {
    /// A server is running on it.
    InUse {
        pid: String,
    },
    /// Will be made.
    Absent,
    Whole,
}

/// Looks without making, locking or changing anything.
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    let lock_path = beside(path, ".lock");
    if let Ok(mut lock) = File::open(&lock_path)
        && let Err(TryLockError::WouldBlock) = lock.try_lock_shared()
    {
        return Ok(Inspection::InUse { pid: holder(&mut lock) });
    }
    match path.metadata() {
        Ok(meta) if meta.len() > 0 => {
            look(path)?;
            OpenOptions::new().write(true).open(path).map_err(|e| environment(path, e))?;
            Ok(Inspection::Whole)
        }
        _ if marker(path).exists() => Err(OpenError::Missing { path: path.display().to_string() }),
        _ => match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) if !folder.is_dir() => {
                Err(environment(path, format!("there is no folder {}", folder.display())))
            }
            _ => Ok(Inspection::Absent),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.db");
        (folder, path)
    }

    fn made(path: &Path) {
        let file = DatabaseFile::claim(path).unwrap();
        drop(file.connect().unwrap());
    }

    #[test]
    fn a_second_process_is_told_whose_it_is() {
        let (_folder, path) = folder();
        let first = DatabaseFile::claim(&path).unwrap();
        let second = DatabaseFile::claim(&path).unwrap_err();
        assert!(matches!(&second, OpenError::InUse { pid, .. } if *pid == std::process::id().to_string()));
        assert_eq!(inspect(&path).unwrap(), Inspection::InUse { pid: std::process::id().to_string() });
        drop(first);
        assert!(DatabaseFile::claim(&path).is_ok());
    }

    #[test]
    fn a_vanished_database_is_not_replaced() {
        let (_folder, path) = folder();
        assert_eq!(inspect(&path).unwrap(), Inspection::Absent);
        made(&path);
        assert_eq!(inspect(&path).unwrap(), Inspection::Whole);
        for empty in [true, false] {
            if empty {
                std::fs::write(&path, b"").unwrap()
            } else {
                std::fs::remove_file(&path).unwrap()
            }
            let file = DatabaseFile::claim(&path).unwrap();
            assert!(matches!(file.connect(), Err(OpenError::Missing { .. })));
            drop(file);
            assert!(matches!(inspect(&path), Err(OpenError::Missing { .. })));
        }
        std::fs::remove_file(marker(&path)).unwrap();
        made(&path);
    }

    #[test]
    fn what_is_not_ours_or_not_whole_stays_as_it_is() {
        let (_folder, path) = folder();
        made(&path);
        let whole = std::fs::read(&path).unwrap();
        let (_other, foreign) = folder_with_foreign();
        let mut damaged = whole.clone();
        let page = damaged.len() / 2 / 4096 * 4096;
        damaged[page..page + 200].fill(0xff);
        let mut newer = whole.clone();
        newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
        let cases: [(&str, Vec<u8>); 5] = [
            ("text", b"not a database at all, but long enough to have a header of one hundred bytes, or a bit more than that, really".to_vec()),
            ("foreign", foreign),
            ("truncated", whole[..whole.len() - 4096].to_vec()),
            ("damaged", damaged),
            ("newer", newer),
        ];
        for (name, bytes) in cases {
            std::fs::write(&path, &bytes).unwrap();
            assert!(inspect(&path).is_err(), "{name}");
            let file = DatabaseFile::claim(&path).unwrap();
            assert!(file.connect().is_err(), "{name}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
            assert!(!beside(&path, "-wal").exists() && !beside(&path, "-shm").exists(), "{name}");
        }
    }

    fn folder_with_foreign() -> (tempfile::TempDir, Vec<u8>) {
        let (folder, path) = folder();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let bytes = std::fs::read(path).unwrap();
        (folder, bytes)
    }
}
