//! Owns the copying of a database into one file, beside a running server or without one. Never overwrites a file, never
//! changes what it copies. Enter at [`backup`].

use super::look::{connect_to_look, look};
use super::{MODE, OpenError, beside, explain, holder, real, settle};
use crate::storage::mark::Mark;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;
use uuid::Uuid;

/// Pages that are copied at a time.
const STEP_PAGES: i32 = 1_024;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Source(#[from] OpenError),
    #[error(
        "{path}: no database there; run this where the server runs, or name it by --config or HABITTOD_STORAGE_PATH"
    )]
    Absent { path: String },
    #[error("{path}: {what}")]
    Target { path: String, what: String },
}

/// Copies the database as it is at one moment, and checks the copy before it gets its name; gives back its bytes.
pub fn backup(path: &Path, to: &Path) -> Result<u64, BackupError> {
    let path = &real(path)?;
    let to = &std::path::absolute(to).unwrap_or_else(|_| to.to_owned());
    let target = |what: String| BackupError::Target { path: to.display().to_string(), what };
    if to.symlink_metadata().is_ok() {
        return Err(target("exists, and is not overwritten; choose another name".to_owned()));
    }
    let part = &beside(to, ".part");
    // Made by us, so that it is only ours; one that is there may be somebody else's copy under way.
    OpenOptions::new().write(true).create_new(true).mode(MODE).open(part).map_err(|e| target(unmade(part, &e)))?;
    let copied = copy(path, part).and_then(|()| {
        let bytes = part.metadata().map(|meta| meta.len());
        settle(part, to).and(bytes).map_err(|e| target(e.to_string()))
    });
    if copied.is_err() {
        // Half a copy is none; that it cannot be removed either is not what went wrong.
        for half in [part, &beside(part, "-wal"), &beside(part, "-shm")] {
            let _ = fs::remove_file(half);
        }
    }
    copied
}

fn unmade(part: &Path, e: &io::Error) -> String {
    let part = part.display();
    match e.kind() {
        ErrorKind::AlreadyExists => format!("{part} is of a copy under way, or of one that broke off; then remove it"),
        ErrorKind::NotFound => "there is no such folder; make it, or choose another".to_owned(),
        _ => format!("{part}: {e}"),
    }
}

fn copy(path: &Path, part: &Path) -> Result<(), BackupError> {
    loop {
        let (in_use, before) = (holder(path).is_some(), stamps(path));
        let copied = attempt(path, part);
        // Without a server nothing is locked: one that started meanwhile may have written what was being read.
        if in_use || stamps(path) == before {
            break copied?;
        }
    }
    match look(part) {
        Ok(_) => Ok(()),
        Err(e) => Err(BackupError::Target { path: part.display().to_string(), what: e.to_string() }),
    }
}

fn attempt(path: &Path, part: &Path) -> Result<(), BackupError> {
    let absent = || BackupError::Absent { path: path.display().to_string() };
    let from = connect_to_look(path)?.ok_or_else(absent)?;
    // Whose fault it was: what is damaged is read, all else comes of writing.
    pages(&from, part).map_err(|e| match explain(path, &e) {
        damaged @ OpenError::Damaged { .. } => BackupError::Source(damaged),
        _ => BackupError::Target { path: part.display().to_string(), what: e.to_string() },
    })
}

fn pages(from: &Connection, part: &Path) -> rusqlite::Result<()> {
    // A snapshot held throughout: commits in between do not make the copy begin again.
    let snapshot = from.unchecked_transaction()?;
    from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let mut into = Connection::open_with_flags(part, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Synced once, at the end; until then there is nothing to roll back to.
    into.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    into.pragma_update(None, "synchronous", "OFF")?;
    let copying = Backup::new(from, &mut into)?;
    let ended = loop {
        match copying.step(STEP_PAGES)? {
            StepResult::More => {}
            other => break other,
        }
    };
    drop(copying);
    if ended != StepResult::Done {
        return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None));
    }
    // Whoever begins with the copy speaks for a node of its own: the one that it was made of may be down, and the log is
    // kept for it until it comes back.
    if let Some(mark) = Mark::of(&into)? {
        Mark { node: Uuid::nil(), ..mark }.write(&into)?;
    }
    into.close().map_err(|(_, e)| e)?;
    snapshot.finish()
}

/// When the files of a database were last written, and how long they are.
fn stamps(path: &Path) -> [Option<(SystemTime, u64)>; 2] {
    let stamp = |file: &Path| file.metadata().ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
    [stamp(path), stamp(&beside(path, "-wal"))]
}
