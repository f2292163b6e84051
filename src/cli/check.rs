//! Owns `habittod check`: says whether a server could start, and makes nothing. Enter at [`run`].

use super::serve::{self, exit_of};
use super::{Exit, complain, mistaken, say};
use crate::config::{Config, Mistakes};
use crate::storage::file::{Inspection, inspect};

pub(super) fn run(config: Result<Config, Mistakes>) -> Exit {
    let config = match config {
        Ok(config) => config,
        Err(mistakes) => return mistaken(&mistakes),
    };
    let usable = serve::verifier(&config).map_err(|what| complain(what, Exit::Usage));
    let path = config.storage.path.display();
    let found = match inspect(&config.storage.path) {
        Ok(Inspection::InUse { pid }) => format!("{path}: in use by PID {pid}"),
        Ok(Inspection::Absent) => format!("{path}: will be made"),
        Ok(Inspection::Whole) => format!("{path}: whole"),
        Err(e) => return complain(&e, usable.err().unwrap_or_else(|| exit_of(&e))),
    };
    if let Err(exit) = usable {
        return exit;
    }
    let listeners = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let admin =
        if config.server.admin_listen.is_empty() { "off".to_owned() } else { listeners(&config.server.admin_listen) };
    say(&format!("listen: {}\nadmin: {admin}\n{found}\n", listeners(&config.server.listen)))
}
