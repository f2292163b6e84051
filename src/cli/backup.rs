//! Owns `habittod backup FILE`: tells how the copying went. Never copies itself. Enter at [`run`].

use super::serve::exit_of;
use super::{Exit, Given, Ran, complain, say};
use crate::storage::file::{BackupError, backup};
use std::path::Path;

pub(super) fn run(given: &Given) -> Ran {
    let Some(to) = given.word() else { return given.usage("backup needs the name of a FILE to make") };
    let config = given.config()?;
    match backup(&config.storage.path, Path::new(to)) {
        Ok(bytes) => say(&format!("{to}: {bytes} bytes, whole\n")),
        Err(BackupError::Source(e)) => complain(&e, exit_of(&e)),
        Err(e @ BackupError::Absent { .. }) => complain(e, Exit::Database),
        Err(e @ BackupError::Target { .. }) => complain(e, Exit::Failed),
    }
}
