//! Owns the list of what is worth telling an operator: logs and metrics are made of these. Never holds what a client
//! wrote. Enter at [`Event`].

use crate::matching::UserId;
use crate::notification::{Channel, NotificationId};

#[derive(Debug)]
pub enum Event {
    Opened {
        user: UserId,
        channel: Channel,
        open: usize,
    },
    Closed {
        user: UserId,
        channel: Channel,
        cause: &'static str,
        code: Option<u16>,
        seconds: u64,
    },
    /// A handshake or a connection that was turned away.
    Refused {
        cause: &'static str,
        status: u16,
    },
    Request {
        method: &'static str,
        route: &'static str,
        status: u16,
        took_us: u64,
    },
    /// A refresh token was used twice, so somebody else may have it.
    Revoked {
        user: UserId,
    },
    Created {
        id: NotificationId,
        user: UserId,
        channel: Channel,
        sockets: u32,
    },
    Delivered {
        user: UserId,
        channel: Channel,
        count: u32,
    },
    Read {
        user: UserId,
        count: u32,
    },
    Replayed {
        user: UserId,
        channel: Channel,
        count: usize,
        skipped: u64,
    },
    Committed {
        jobs: usize,
        took_us: u64,
    },
    StorageFailing {
        why: String,
    },
    StorageWorks,
    Draining {
        open: usize,
    },
    /// Another configuration is obeyed, but for these keys, which need a restart.
    Reloaded {
        restart: Vec<&'static str>,
    },
    /// A configuration was wrong; nothing changes.
    NotReloaded {
        mistakes: Vec<String>,
    },
}
