//! Owns `habittod check`: says whether a server could start, and if not, everything that stands in its way. Never makes,
//! locks or changes anything. Enter at [`run`].

use super::serve::{self, exit_of};
use super::{Exit, Given, Ran, complain, config_file, say, warn};
use crate::channel_layer::JoinError;
use crate::config::{Backend, Config, Key};
use crate::storage::file::{Counts, Inspection, digest, follows_log, inspect};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(super) fn run(given: &Given) -> Ran {
    let config = given.config()?;
    let file = config_file(given.file.as_deref());
    if let Some(file) = secret_file(&config, file).filter(|file| everybody_reads(file)) {
        let file = file.display();
        warn(format!("{file}: holds the secret, and everybody here can read it; chmod o-r {file}"));
    }
    let key = serve::usable(&config).or_else(|what| complain(what, Exit::Usage));
    let found = inspect(&config.storage.path).or_else(|e| complain(&e, exit_of(&e)));
    // Both are looked at before either ends it. What is wrong in the configuration comes first: exit code 2.
    key?;
    let found = found?;
    let path = &config.storage.path;
    if config.channel_layer.backend == Backend::InMemory && follows_log(path).or_else(|e| complain(&e, exit_of(&e)))? {
        return complain(JoinError::needs_its_log(path), Exit::Database);
    }
    let mut report = describe(&config, &found);
    if given.has("--digest") {
        let digest = digest(path).or_else(|e| complain(&e, exit_of(&e)))?;
        report.push_str(&format!("digest: {}\n", digest.as_deref().unwrap_or("no rows")));
    }
    say(&report)
}

fn describe(config: &Config, found: &Inspection) -> String {
    let list = |addresses: &[SocketAddr]| match addresses {
        [] => "off".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let found = match found {
        Inspection::InUse { pid } => format!("in use by PID {pid}"),
        Inspection::Absent => "will be made".to_owned(),
        Inspection::Whole(Counts { users, properties, matches, notifications }) => {
            format!("whole; users {users}, properties {properties}, matches {matches}, notifications {notifications}")
        }
    };
    let (listen, admin) = (list(&config.server.listen), list(&config.server.admin_listen));
    format!("listen: {listen}\nadmin: {admin}\n{}: {found}\n", config.storage.path.display())
}

/// The file that the secret lies in, if in one.
fn secret_file<'a>(config: &'a Config, file: Option<&'a Path>) -> Option<&'a Path> {
    match (&config.auth.key, &config.auth.secret_file) {
        (_, Some(secret_file)) => Some(secret_file),
        (Some(Key::Secret(_)), None) if std::env::var_os("HABITTOD_AUTH_SECRET").is_none() => file,
        _ => None,
    }
}

fn everybody_reads(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_on_a_line_of_its_own() {
        let mut config = Config::default();
        config.server.listen.push(SocketAddr::from(([0, 0, 0, 0], 80)));
        config.server.admin_listen.clear();
        let counts = Counts { users: 1, properties: 2, matches: 3, notifications: 4 };
        for (found, said) in [
            (Inspection::Absent, "will be made"),
            (Inspection::InUse { pid: "7".to_owned() }, "in use by PID 7"),
            (Inspection::Whole(counts), "whole; users 1, properties 2, matches 3, notifications 4"),
        ] {
            let report = format!("listen: 127.0.0.1:8000, 0.0.0.0:80\nadmin: off\nhabittod.db: {said}\n");
            assert_eq!(describe(&config, &found), report);
        }
    }

    #[test]
    fn the_file_that_holds_the_secret_is_known() {
        let named = Path::new("config.toml");
        let mut config = Config::default();
        assert_eq!(secret_file(&config, Some(named)), None);
        config.auth.key = Some(Key::Secret(vec![7; 32]));
        assert_eq!(secret_file(&config, Some(named)), Some(named));
        config.auth.secret_file = Some("secret".into());
        assert_eq!(secret_file(&config, Some(named)), Some(Path::new("secret")));
    }
}
