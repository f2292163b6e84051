//! Owns `habittod import FILE`: opens both files and tells how it went. Never reads a line itself. Enter at [`run`].

use super::serve::exit_of;
use super::{Exit, complain, mistaken, say, usage};
use crate::clock::Clock;
use crate::config::{Config, Mistakes};
use crate::storage::file::DatabaseFile;
use crate::storage::import::{ImportError, import};
use std::fs::File;
use std::io::BufReader;

pub(super) fn run(config: Result<Config, Mistakes>, path: Option<&String>) -> Exit {
    let Some(path) = path else { return usage("import needs a FILE of JSON Lines") };
    let config = match config {
        Ok(config) => config,
        Err(mistakes) => return mistaken(&mistakes),
    };
    let lines = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(e) => return complain(format!("{path}: {e}"), Exit::Failed),
    };
    let imported = DatabaseFile::claim(&config.storage.path)
        .map_err(ImportError::Open)
        .and_then(|file| import(&file, lines, Clock::start().now().wall_ms));
    match imported {
        Ok(count) => say(&format!("{count} lines imported\n")),
        Err(ImportError::Open(e)) => complain(&e, exit_of(&e)),
        Err(e @ ImportError::Line { .. }) => complain(format!("{path}: {e}; nothing was imported"), Exit::Failed),
    }
}
