//! Owns what one connection is between two events: its state, its deadline, and the boxed part that most have not.
//! Never looks at another connection. Enter at [`Connection`].

use super::deadlines::Filed;
use super::outbound::Outbound;
use super::rates::Arrival;
use crate::api::frames::WhatWasRead;
use crate::api::reply::Reply;
use crate::api::routes::{Door, Route};
use crate::auth::Caller;
use crate::clock::Now;
use crate::http::upgrade::Accept;
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

/// One connection. An idle socket is this and nothing else: each byte here is one for every socket.
pub(super) struct Connection {
    pub generation: u32,
    /// Where the peer's address is kept: see `Addresses`.
    pub address: u32,
    /// Monotonic seconds.
    pub opened_s: u32,
    /// Under what it stands among the deadlines; it may be due later.
    pub filed: Filed,
    pub state: State,
    pub cold: Option<Box<Cold>>,
}

const _: () = assert!(size_of::<Connection>() <= 88);

pub(super) enum State {
    Http(Box<Http>),
    Feed(Feed),
    /// `habittod echo`
    Echo,
    /// Everything is said: what is queued goes out, then nothing more is listened to.
    Closing {
        shut: bool,
        /// So is what the peer says.
        ended: bool,
        until_ms: u64,
    },
}

/// An HTTP connection between its requests and in the middle of one.
pub(super) struct Http {
    pub reader: Reader,
    pub stage: Stage,
    /// When this stage, or an answer that is not taken, has lasted too long.
    pub until_ms: u64,
    pub door: Door,
    /// When the connection was accepted: monotonic.
    pub opened_us: u64,
    /// One too many from its address, unless it is a proxy's and speaks for somebody else.
    pub crowded: bool,
    /// Whose body is on its way: the client's address, as a trusted proxy has it.
    pub client: Option<IpAddr>,
    /// What the head was found good for; the body is on its way.
    pub admitted: Option<Admitted>,
    /// Or not found good for, and only the body's fingerprint is waited for: the refusal is kept under a key.
    pub refusal: Option<Reply>,
    /// A request waits for storage; its answer needs this. No bytes are taken meanwhile.
    pub waiting: Option<Waiting>,
}

impl Http {
    /// Answered, and the rest of its body is only read past.
    pub(super) fn is_answered(&self) -> bool {
        self.stage == Stage::Body && self.admitted.is_none() && self.waiting.is_none()
    }
}

#[derive(Clone, Copy)]
pub(super) struct Admitted {
    pub route: Route,
    pub caller: Caller,
    /// When the token ends: wall ms.
    pub expires_ms: i64,
    /// Of a handshake: what the 101 is made from.
    pub accept: Option<Accept>,
}

pub(super) struct Waiting {
    pub terms: Terms,
    /// As asked: a route's is GET for HEAD, too.
    pub method: &'static str,
    pub route: Route,
    pub asked_us: u64,
    /// The `Origin` that asked, for CORS.
    pub origin: Option<String>,
    /// Of a sign-in, until it is known what to compare it with.
    pub password: Option<String>,
}

/// A connection after the upgrade.
pub(super) struct Feed {
    pub user: UserId,
    /// The newest row sent here; nothing up to it is sent again.
    sent: NotificationId,
    /// How far behind `sent` the first row sent here lies, and the one that the Ping under way names.
    first_behind: Behind,
    pinged_behind: Behind,
    /// Monotonic ms: when the peer has been silent for too long: then it gets a Ping, or has not answered one.
    pub silent_ms: u64,
    pub awaits_pong: bool,
    /// Wall ms.
    pub expires_ms: i64,
    pub warned: bool,
    /// Messages turned away in a row.
    pub refusals: u8,
    pub messages: Arrival,
    pub controls: Arrival,
    pub channel: Channel,
    pub phase: Phase,
    /// It was sent all after `since`, whatever had become of it.
    pub whole: bool,
    /// Notifications sent here; the greatest: that many or more. Two bytes, which cost a socket nothing.
    pub told: u16,
    /// Neighbours in the user's list: places in the table.
    pub previous: u32,
    pub next: u32,
}

/// A distance from a row back to an older one, in half the bytes: `NONE` where there is no such row.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Behind(u32);

impl Behind {
    const NONE: Self = Self(u32::MAX);
    /// Too far to tell.
    const FAR: u32 = u32::MAX - 1;

    fn of(self, newest: NotificationId) -> Option<NotificationId> {
        (self != Self::NONE).then(|| match self.0 {
            Self::FAR => NotificationId(0),
            rows => NotificationId(newest.0 - i64::from(rows)),
        })
    }

    fn advance(&mut self, rows: i64) {
        if *self != Self::NONE {
            self.0 = self.0.saturating_add(u32::try_from(rows).unwrap_or(u32::MAX)).min(Self::FAR);
        }
    }
}

/// Before a token ends, its socket is told.
const WARN_BEFORE_MS: i64 = 30_000;

impl Feed {
    pub(super) fn new(now: Now, user: UserId, channel: Channel, expires_ms: i64, silent_ms: u64) -> Self {
        Self {
            user,
            sent: NotificationId(0),
            first_behind: Behind::NONE,
            pinged_behind: Behind::NONE,
            silent_ms,
            awaits_pong: false,
            expires_ms,
            warned: false,
            refusals: 0,
            told: 0,
            messages: Arrival::new(now.monotonic_us),
            controls: Arrival::new(now.monotonic_us),
            channel,
            phase: Phase::Loading,
            whole: false,
            previous: NOBODY,
            next: NOBODY,
        }
    }

    pub(super) fn sent(&self) -> NotificationId {
        self.sent
    }

    /// The first row that was sent here.
    pub(super) fn first_sent(&self) -> Option<NotificationId> {
        self.first_behind.of(self.sent)
    }

    /// The row that the Ping under way names.
    pub(super) fn pinged(&self) -> Option<NotificationId> {
        self.pinged_behind.of(self.sent)
    }

    pub(super) fn set_pinged(&mut self, under_way: bool) {
        self.pinged_behind = if under_way { Behind(0) } else { Behind::NONE };
    }

    /// Nothing up to this row will be sent any more.
    pub(super) fn pass(&mut self, row: NotificationId) {
        let rows = (row.0 - self.sent.0).max(0);
        self.first_behind.advance(rows);
        self.pinged_behind.advance(rows);
        self.sent.0 += rows;
    }

    /// These rows were sent, in order.
    pub(super) fn note_sent(&mut self, first: NotificationId, last: NotificationId) {
        self.pass(first);
        if self.first_behind == Behind::NONE {
            self.first_behind = Behind(0);
        }
        self.pass(last);
    }

    /// Wall ms at which the client has to be told of its token, for the first time or the last.
    pub(super) fn token_due_ms(&self) -> i64 {
        let before_ms = if self.warned || self.phase == Phase::Loading { 0 } else { WARN_BEFORE_MS };
        self.expires_ms.saturating_sub(before_ms)
    }

    fn due_ms(&self, now: Now) -> u64 {
        let left_ms = self.token_due_ms().saturating_sub(now.wall_ms).max(0).cast_unsigned();
        self.silent_ms.min(now.monotonic_ms().saturating_add(left_ms))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the first page of its replay; takes no bytes.
    Loading,
    Replaying,
    Live,
    /// For `habittod probe`: is sent nothing that somebody else waits for.
    Probing,
}

/// What is half done: gone when it is empty.
#[derive(Default)]
pub(super) struct Cold {
    /// Bytes that came and are not used up.
    pub input: Vec<u8>,
    /// Where the stream of frames stands in the middle of a message, and its fragments.
    pub session: Session,
    pub message: Vec<u8>,
    pub outbound: Outbound,
    /// It stands in this turn's list of those to flush.
    pub in_flush: bool,
    /// Rows sent here that nobody has acknowledged.
    pub unacknowledged: VecDeque<NotificationId>,
    pub replay: Option<Replay>,
}

/// Where a replay stands.
#[derive(Debug)]
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
    /// What was read meanwhile, and a page may still bring.
    pub read: Vec<WhatWasRead>,
}

impl Cold {
    fn is_empty(&self) -> bool {
        self.input.is_empty()
            && self.session == Session::default()
            && self.message.is_empty()
            && self.outbound.is_empty()
            && !self.in_flush
            && self.unacknowledged.is_empty()
            && self.replay.is_none()
    }
}

impl Connection {
    pub(super) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Gives the boxed part back if nothing is in it; of a socket, nothing that its next Ping has to be given time for.
    pub(super) fn thaw(&mut self) {
        let is_pinged = matches!(&self.state, State::Feed(feed) if feed.silent_ms != NEVER);
        if self.cold.as_ref().is_some_and(|cold| cold.is_empty() && !(is_pinged && cold.outbound.is_on_its_way())) {
            self.cold = None;
        }
    }

    /// When something is due: each state has one absolute deadline.
    pub(super) fn due_ms(&self, now: Now) -> u64 {
        match &self.state {
            State::Http(http) if http.waiting.is_some() => NEVER,
            State::Http(http) => http.until_ms,
            State::Feed(feed) => feed.due_ms(now),
            State::Echo => NEVER,
            State::Closing { until_ms, .. } => *until_ms,
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
