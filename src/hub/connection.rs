//! Owns what one connection is between two events: its state, its deadline, and the boxed part that most have not.
//! Never looks at another connection. Enter at [`Connection`].

use super::outbound::Outbound;
use crate::api::routes::{Door, Route};
use crate::auth::Caller;
use crate::http::{Reader, Stage, Terms};
use crate::matching::UserId;
use crate::notification::{Channel, NotificationId};
use crate::websocket::Session;
use std::collections::VecDeque;
use std::net::IpAddr;

/// No deadline.
pub(super) const NEVER: u64 = u64::MAX;
/// No neighbour in the user's list.
pub(super) const NOBODY: u32 = u32::MAX;

/// One connection. An idle socket is this and nothing else.
pub(super) struct Connection {
    pub generation: u32,
    pub state: State,
    /// Monotonic milliseconds at which something is due, and the one under which it is filed: it may be later.
    pub deadline_ms: u64,
    pub filed_ms: u64,
    pub opened_ms: u64,
    /// The client, or the proxy in front of it until a request says whom it speaks for.
    pub address: IpAddr,
    /// Whether it stands in this turn's list of those to flush.
    pub in_flush: bool,
    pub cold: Option<Box<Cold>>,
}

pub(super) enum State {
    Http(Box<Http>),
    Feed(Feed),
    /// `habittod echo`
    Echo(Session),
    /// Everything is said: what is queued goes out, then nothing more is listened to.
    Closing {
        shut: bool,
    },
}

/// An HTTP connection between its requests and in the middle of one.
pub(super) struct Http {
    pub reader: Reader,
    pub stage: Stage,
    pub door: Door,
    /// What the head was found good for; the body is on its way.
    pub admitted: Option<Admitted>,
    /// A request waits for storage; its answer needs this. No bytes are taken meanwhile.
    pub waiting: Option<Waiting>,
}

#[derive(Clone, Copy)]
pub(super) struct Admitted {
    pub route: Route,
    pub caller: Caller,
    /// When the token ends: wall ms.
    pub expires_ms: i64,
}

pub(super) struct Waiting {
    pub terms: Terms,
    pub route: Route,
    pub asked_us: u64,
    /// The `Origin` that asked, for CORS.
    pub origin: Option<String>,
}

/// A connection after the upgrade.
pub(super) struct Feed {
    pub user: UserId,
    pub channel: Channel,
    pub session: Session,
    pub phase: Phase,
    /// The newest row sent here; nothing up to it is sent again.
    pub sent: NotificationId,
    /// The first row sent here, 0 while there is none.
    pub first_sent: NotificationId,
    /// What the Ping under way names; `None`: no Ping is under way.
    pub pinged: Option<NotificationId>,
    /// Monotonic ms of the last life sign, and when a Pong is due at the latest.
    pub heard_ms: u64,
    pub pong_due_ms: u64,
    /// Wall ms.
    pub expires_ms: i64,
    pub warned: bool,
    /// Messages turned away in a row.
    pub refusals: u8,
    /// Theoretical arrival times (GCRA), monotonic µs.
    pub messages_tat_us: u64,
    pub control_tat_us: u64,
    /// Neighbours in the user's list: places in the table.
    pub previous: u32,
    pub next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the first page of its replay; takes no bytes.
    Loading,
    Replaying,
    Live,
}

/// What is half done: gone when it is empty.
#[derive(Default)]
pub(super) struct Cold {
    /// Bytes that came and are not used up.
    pub input: Vec<u8>,
    /// Fragments of a message.
    pub message: Vec<u8>,
    pub outbound: Outbound,
    /// Rows sent here that nobody has acknowledged.
    pub unacknowledged: VecDeque<NotificationId>,
    pub replay: Option<Replay>,
}

/// Where a replay stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    /// Newest row committed when the socket entered the index.
    pub mark: NotificationId,
    /// After `since`: delivered or not.
    pub all: bool,
    /// Newest row that came while it was replaying.
    pub newest: NotificationId,
    /// A page is asked for, or the last one was.
    pub asked: bool,
    pub more: bool,
}

impl Cold {
    fn is_empty(&self) -> bool {
        self.input.is_empty()
            && self.message.is_empty()
            && self.outbound.is_empty()
            && self.unacknowledged.is_empty()
            && self.replay.is_none()
    }
}

impl Connection {
    pub(super) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Gives the boxed part back if nothing is in it.
    pub(super) fn thaw(&mut self) {
        if self.cold.as_ref().is_some_and(|cold| cold.is_empty()) {
            self.cold = None;
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.outbound.len())
    }

    pub(super) fn feed(&mut self) -> Option<&mut Feed> {
        match &mut self.state {
            State::Feed(feed) => Some(feed),
            _ => None,
        }
    }
}
