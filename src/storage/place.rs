//! Owns whether a database in use still lies where it was opened: what is written to a file that somebody removed or
//! replaced is lost with its last descriptor, without an error. Never opens one. Enter at [`Place::check`].

use rusqlite::{Connection, ErrorCode, ffi};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The database and its log, each with what tells a file from another of the same name. Nothing of one in memory.
pub(super) struct Place(Vec<(PathBuf, Identity)>);

/// Device and number.
type Identity = (u64, u64);

impl Place {
    pub(super) fn of(db: &Connection) -> Self {
        let path = db.path().filter(|path| !path.is_empty());
        let files = path.into_iter().flat_map(|path| [PathBuf::from(path), PathBuf::from(format!("{path}-wal"))]);
        Self(files.filter_map(|file| identity(&file).map(|identity| (file, identity))).collect())
    }

    /// Fails as SQLite does where it cannot open a file: so writing fails, and works again once the file is back.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        match self.0.iter().find(|(file, opened)| identity(file) != Some(*opened)) {
            None => Ok(()),
            Some((file, _)) => {
                // Its name alone: whoever asks for the server's health sees this.
                let name = file.file_name().unwrap_or_default().display();
                let what = format!(
                    "{name}: removed or replaced while in use; put it back, or stop the server and restore a backup"
                );
                let code = ffi::Error { code: ErrorCode::CannotOpen, extended_code: ffi::SQLITE_CANTOPEN };
                Err(rusqlite::Error::SqliteFailure(code, Some(what)))
            }
        }
    }
}

fn identity(file: &Path) -> Option<Identity> {
    let meta = file.metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}
