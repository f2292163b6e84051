//! Owns the database file: who uses it, how it is made and opened. Never changes one that is not ours or not whole.
//! Enter at [`DatabaseFile::claim`] to write, [`connect_to_read`] beside a writer, [`inspect`] to look without a trace.

mod backup;
mod digest;
mod look;
#[cfg(test)]
mod tests;

pub use backup::{BackupError, backup};
pub use digest::{digest, digest_of};
pub use look::{Counts, Inspection, follows_log, inspect};

use super::schema;
pub(super) use look::connect_to_look;
use look::{folder, length, look};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::statvfs;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages of write-ahead log between checkpoints: each page that changed often in between is written once.
const CHECKPOINT_PAGES: u32 = 4_000;
/// What the log is cut back to after a burst that a long reader kept from being checkpointed.
const LOG_BYTES: u32 = 32 * 1024 * 1024;
const WRITER_CACHE_KIB: i64 = 8 * 1024;
const READER_CACHE_KIB: i64 = 2 * 1024;
const STATEMENTS: usize = 64;
/// For programs of others that look into the file: habittod has one writer.
const BUSY: Duration = Duration::from_secs(5);
/// How often a lock that is only held to look is tried again.
const LOOKERS_MAX: usize = 10_000;
/// A disk with less room than this is full.
const SPACE_MIN: u64 = 64 * 1024;
/// Only the user that the server runs as reads it. SQLite gives `-wal` and `-shm` the mode of the file.
const MODE: u32 = 0o600;

/// Why a database cannot be used: what, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: in use by PID {pid}; stop that process, or choose another storage.path")]
    InUse { path: String, pid: String },
    #[error(
        "{path}: missing or empty, but {trace} says that there was a database; restore a backup, or remove {trace} to \
         begin with nothing"
    )]
    Missing { path: String, trace: String },
    #[error("{path}: damaged, and left as it is: {what}; restore a backup, with no -wal or -shm file beside it")]
    Damaged { path: String, what: String },
    #[error("{path}: {what}, and left as it is; let storage.path name a database of habittod, or nothing yet")]
    Foreign { path: String, what: String },
    #[error("{path}: made by a newer habittod (its schema is {found}, this one knows {known}); run that one")]
    Newer { path: String, found: i64, known: usize },
    /// Permissions, folders, a file of the wrong kind: it will not work until somebody changes something.
    #[error("{path}: {what}")]
    Environment { path: String, what: String },
    /// A full or failing disk, a lock of another program, no thread to be had: it may work later.
    #[error("{path}: {what}")]
    Failed { path: String, what: String },
}

impl OpenError {
    /// Whether it stays so until somebody does something about the database: a restart does not help.
    #[must_use]
    pub fn is_database(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }
}

/// The file, and the lock that says it is ours while this lives.
#[derive(Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    _lock: File,
}

impl DatabaseFile {
    /// Makes this process the only one that uses the file.
    pub fn claim(path: &Path) -> Result<Self, OpenError> {
        let path = real(path)?;
        length(&path)?;
        let lock_path = beside(&path, ".lock");
        let trouble = |e: io::Error| trouble(&lock_path, &e);
        let mut lock = OpenOptions::new();
        let lock = lock.read(true).write(true).create(true).truncate(false).mode(MODE);
        let mut lock = lock.open(&lock_path).map_err(trouble)?;
        if !take(&lock).map_err(trouble)? {
            return Err(OpenError::InUse { path: path.display().to_string(), pid: pid(&lock) });
        }
        lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(trouble)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the database to write, or makes it: looked at before it is touched, synced on every commit, brought to
    /// this version, and from then on missed if it goes.
    pub fn connect(&self) -> Result<Connection, OpenError> {
        let path = &self.path;
        if look(path)?.is_none() {
            self.make()?;
        }
        folder(path)?;
        writable(path)?;
        let mut db = connect_to_write(path)?;
        let sqlite = |e: rusqlite::Error| explain(path, &e);
        let journal: String =
            db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(sqlite)?;
        if journal != "wal" {
            return Err(environment(path, format!("journal_mode stays {journal}; put it on a local file system")));
        }
        schema::migrate(&mut db).map_err(sqlite)?;
        mark(path).map_err(|e| trouble(&marker(path), &e))?;
        Ok(db)
    }

    /// Makes the database whole under another name, then moves it: at its own name there is never half of one.
    fn make(&self) -> Result<(), OpenError> {
        let new = beside(&self.path, ".new");
        let trouble = |e: io::Error| trouble(&new, &e);
        let sqlite = |e: rusqlite::Error| explain(&new, &e);
        for left_by_a_crash in [&new, &beside(&new, "-journal")] {
            match fs::remove_file(left_by_a_crash) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(trouble(e)),
                _ => {}
            }
        }
        OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new).map_err(trouble)?;
        let mut db = connect_to_write(&new)?;
        schema::migrate(&mut db).map_err(sqlite)?;
        db.close().map_err(|(_, e)| sqlite(e))?;
        settle(&new, &self.path).map_err(trouble)
    }
}

/// A connection of the reader: beside the writer, and unable to write.
pub fn connect_to_read(path: &Path) -> Result<Connection, OpenError> {
    let path = real(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(&path, flags)?;
        prepare(&db, READER_CACHE_KIB)?;
        db.pragma_update(None, "query_only", true)?;
        Ok(db)
    };
    open().map_err(|e: rusqlite::Error| explain(&path, &e))
}

/// A connection that writes: never one that makes the file, and only one that syncs.
fn connect_to_write(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        prepare(&db, WRITER_CACHE_KIB)?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", false)?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        db.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        let synchronous: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        Ok((db, synchronous))
    };
    match open().map_err(|e: rusqlite::Error| explain(path, &e))? {
        (db, 2) => Ok(db),
        (_, other) => Err(environment(path, format!("synchronous stays {other}, not 2 (FULL): commits would be lost"))),
    }
}

fn prepare(db: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Or SQLite plans a statement anew for each `LIMIT` it is given: of a reconnect's questions that was nearly all.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Negative: KiB instead of pages.
    db.pragma_update(None, "cache_size", -cache_kib)
}

/// Whether the files that are there may be written. SQLite would open them to read instead, and only fail later.
fn writable(path: &Path) -> Result<(), OpenError> {
    for file in ["", "-wal", "-shm", ".lock"].map(|suffix| beside(path, suffix)) {
        match OpenOptions::new().write(true).open(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(trouble(&file, &e)),
            _ => {}
        }
    }
    Ok(())
}

/// An error of SQLite, by what has to be done about it. What the file is was judged before: one that is "not a
/// database" now is a damaged one.
#[must_use]
pub fn explain(path: &Path, e: &rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode::{
        DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, FileLockingProtocolFailed, NotADatabase, OutOfMemory,
        SystemIoFailure,
    };
    let what = match e.sqlite_error_code() {
        Some(SystemIoFailure) if is_full(path) => format!("{e}: its disk is full; make room there"),
        _ => e.to_string(),
    };
    let path = path.display().to_string();
    match e.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => OpenError::Damaged { path, what },
        Some(DiskFull | SystemIoFailure | DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed | OutOfMemory) => {
            OpenError::Failed { path, what }
        }
        _ => OpenError::Environment { path, what },
    }
}

/// Whether there is no room any more for the log's index (`-shm`): of that SQLite only says that it failed.
fn is_full(path: &Path) -> bool {
    let disk = path.parent().and_then(|folder| statvfs(folder).ok());
    disk.is_some_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < SPACE_MIN)
}

/// An error of the operating system, by what has to be done about it.
fn trouble(path: &Path, e: &io::Error) -> OpenError {
    let shown = path.display().to_string();
    match e.kind() {
        ErrorKind::NotFound => environment(path, "no such file or folder; make the folder, or change storage.path"),
        ErrorKind::PermissionDenied => {
            environment(path, "permission denied; let this user write the file and its folder, or change storage.path")
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory | ErrorKind::IsADirectory => environment(path, e),
        _ => OpenError::Failed { path: shown, what: e.to_string() },
    }
}

fn environment(path: &Path, what: impl ToString) -> OpenError {
    OpenError::Environment { path: path.display().to_string(), what: what.to_string() }
}

fn a_folder(path: &Path) -> OpenError {
    environment(path, "a folder; storage.path names a file in one")
}

/// Where the file itself is: two names of one database have one lock. Absolute, since SQLite takes some names, such as
/// `:memory:`, for something else. A link that leads nowhere was made for a database, which may come back.
fn real(path: &Path) -> Result<PathBuf, OpenError> {
    let Ok(target) = path.read_link() else { return std::path::absolute(path).map_err(|e| trouble(path, &e)) };
    path.canonicalize().map_err(|e| {
        let right = "mount what it lies on, put a backup there, or remove the link to begin with nothing";
        environment(path, format!("a link to {}, which cannot be reached: {e}; {right}", target.display()))
    })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `<path>.id`: stands where a database was made, so that one that goes is missed.
fn marker(path: &Path) -> PathBuf {
    beside(path, ".id")
}

fn mark(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(MODE).open(marker(path)) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(()),
        file => file?,
    };
    writeln!(
        file,
        "Beside this file lies a database of habittod, which is not replaced should it go. To begin with nothing, \
                    remove this file too."
    )?;
    file.sync_all()?;
    sync_folder(path)
}

/// Gives a finished file its name, on disk too.
fn settle(new: &Path, path: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::rename(new, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Takes the lock, unless a server has it.
fn take(lock: &File) -> io::Result<bool> {
    for _ in 0..LOOKERS_MAX {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(e)) => return Err(e),
            Err(TryLockError::WouldBlock) if !is_free(lock)? => return Ok(false),
            // Somebody asked at this very moment, as `holder` does.
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    Ok(false)
}

/// Whether nobody holds the lock for himself alone.
fn is_free(lock: &File) -> io::Result<bool> {
    match lock.try_lock_shared() {
        Ok(()) => lock.unlock().map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// The PID of the server that uses the database.
fn holder(path: &Path) -> Option<String> {
    let lock = File::open(beside(path, ".lock")).ok()?;
    matches!(is_free(&lock), Ok(false)).then(|| pid(&lock))
}

/// What a held lock file says about who holds it.
fn pid(mut lock: &File) -> String {
    let mut text = String::new();
    let read = lock.rewind().and_then(|()| lock.take(20).read_to_string(&mut text));
    let is_pid = read.is_ok() && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if is_pid { text } else { "unknown".to_owned() }
}
