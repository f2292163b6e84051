//! Owns `habittod import FILE`: opens both files and tells how it went. Never reads a line itself. Enter at [`run`].

use super::serve::exit_of;
use super::{Exit, Given, Ran, complain, say};
use crate::clock::Clock;
use crate::storage::file::DatabaseFile;
use crate::storage::import::{ImportError, import};
use std::fs::File;
use std::io::BufReader;

pub(super) fn run(given: &Given) -> Ran {
    let Some(path) = given.word() else { return given.usage("import needs a FILE of JSON Lines") };
    let config = given.config()?;
    let file = File::open(path).or_else(|e| complain(format!("{path}: {e}"), Exit::Failed))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return complain(format!("{path}: a folder; name a file of JSON Lines"), Exit::Failed);
    }
    let lines = BufReader::new(file);
    let imported = DatabaseFile::claim(&config.storage.path)
        .map_err(ImportError::Open)
        .and_then(|file| import(&file, lines, Clock::start().now().wall_ms));
    match imported {
        Ok(count) => say(&format!("{count} lines imported\n")),
        Err(ImportError::Open(e)) => complain(&e, exit_of(&e)),
        Err(e @ ImportError::Line { .. }) => complain(format!("{path}: {e}; nothing was imported"), Exit::Failed),
    }
}
