//! Owns what goes to the storage threads and what comes back. Never runs one. Enter at [`Job`] and [`Outcome`].

use super::mark::Entry;
use crate::api::command::{Command, Query};
use crate::api::frames::WhatWasRead;
use crate::api::reply::Reply;
use crate::matching::UserId;
use crate::notification::{Channel, Notification, NotificationId};
use serde::{Deserialize, Serialize};
use std::sync::mpsc::Sender;
use uuid::Uuid;

/// Whom an answer is for: a place in the connection table and the generation that makes reuse harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub key: u32,
    pub generation: u32,
}

impl Ticket {
    /// For what nobody's connection waits for.
    pub const NOBODY: Self = Self { key: u32::MAX, generation: 0 };
}

/// A change on its way to its commit.
#[derive(Clone, Debug)]
pub struct Job {
    pub command: Command,
    /// Nobody waits for receipts.
    pub ticket: Option<Ticket>,
    pub idempotency: Option<Idempotency>,
    /// Wall time that the change gets, milliseconds since 1970.
    pub at_ms: i64,
    /// Monotonic microseconds at which it was asked for, for the metrics.
    pub asked_us: u64,
}

/// A caller's `Idempotency-Key`, with what tells another request under the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The user, or 0 for the service.
    pub caller: i64,
    pub key: String,
    /// Digest of path and body.
    pub fingerprint: u64,
}

/// What storage is asked to do.
#[derive(Debug)]
pub enum Errand {
    Write(Job),
    /// A question that must see everything asked before it: it passes through the committer first.
    ReadAfter(Ask),
    /// What the log of several nodes says.
    Follow(Entry),
    /// Answered once everything before it is done: the committer works.
    Pulse(Pulse),
}

/// Proves that everybody it passes still works. Whoever has seen it last sends it back.
#[derive(Debug)]
pub struct Pulse {
    /// Open sockets, and whether they are being closed; the loop knows.
    pub state: (usize, bool),
    back: Sender<(usize, bool)>,
}

impl Pulse {
    #[must_use]
    pub fn new(back: Sender<(usize, bool)>) -> Self {
        Self { state: (0, false), back }
    }

    pub fn send_back(self) {
        // Who asked may have gone.
        let _ = self.back.send(self.state);
    }
}

/// A question on its way to the reader.
#[derive(Clone, Debug)]
pub struct Ask {
    pub query: Query,
    pub ticket: Ticket,
}

/// What became of a job. In commit order.
#[derive(Debug)]
pub struct Outcome {
    pub ticket: Option<Ticket>,
    pub answer: Answer,
    /// What everybody else has to hear, whether or not the asker is still there.
    pub changes: Vec<Change>,
    /// Monotonic microseconds at which it was asked for; 0: a question, or another node was asked.
    pub asked_us: u64,
    /// Whether it was asked for here; else another node was asked, or nobody waits any more.
    pub ours: bool,
}

/// What the asker hears.
#[derive(Debug)]
pub enum Answer {
    Nothing,
    Reply(Reply),
    /// To a socket's `mark_read`: those that are not there.
    Marked {
        missing: Vec<Uuid>,
    },
    /// Not done, or (no answer from Redis) not known to be done; the text is for operators and `/health/ready`.
    Failed(String),
    /// Who may sign in under a name, the newest first, with the stored passwords; and what a refusal costs: no stored
    /// password costs more.
    Credentials {
        candidates: Vec<(UserId, String)>,
        refusal_rounds: u32,
    },
    /// What a sign-in or a refresh has come to: the tokens can be made.
    Tokens {
        user: UserId,
        family: Uuid,
        token: Uuid,
        /// When it was made and when it ends: wall time, milliseconds since 1970.
        made_ms: i64,
        expires_ms: i64,
    },
    /// Housekeeping: go on after this row.
    RetainAfter(NotificationId),
    /// A page of a replay.
    Backlog(BacklogPage),
    /// A page of a replay cannot be read; why, for operators.
    NoBacklog(String),
    /// The oldest row that waits, up to a row that was looked at.
    OldestWaiting {
        found: Option<Oldest>,
        upto: NotificationId,
    },
    /// The row of an explicit receipt, if this socket may have been sent it.
    WasSent {
        uuid: Uuid,
        row: Option<NotificationId>,
        /// Somebody had it, or had read it, when the socket opened, as far as clocks agree.
        was_settled: bool,
    },
}

/// A committed change, as the hub needs it.
#[derive(Debug)]
pub enum Change {
    Created(Notification),
    /// `what` was read by `user`; of each channel (property, tenant) so many became read and so many of those had been
    /// waiting to be pushed.
    Read {
        user: UserId,
        what: WhatWasRead,
        fewer: [Fewer; 2],
    },
    /// The first receipt came: these rows, with the time of creation of each, and how many of them had been waiting.
    Delivered {
        user: UserId,
        channel: Channel,
        rows: Vec<(NotificationId, i64)>,
        waiting: u32,
        at_ms: i64,
    },
    /// So many waiting ones left the push path.
    Skipped {
        user: UserId,
        channel: Channel,
        count: u32,
    },
    /// Fewer are waiting or unread: rows were removed.
    Settled {
        user: UserId,
        channel: Channel,
        fewer: Fewer,
    },
    /// The user may (or may no longer) be served.
    Standing {
        user: UserId,
        standing: Standing,
    },
    /// He is in the directory now, or has been seen for the first time.
    Known {
        user: UserId,
    },
    /// His rows are gone.
    Forgotten {
        user: UserId,
    },
    /// One of his refresh tokens was used twice: all of its family are worth nothing now.
    Revoked {
        user: UserId,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fewer {
    pub unread: u32,
    pub waiting: u32,
}

/// A row that waits to be pushed, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    pub id: NotificationId,
    pub created_ms: i64,
}

/// Whether a user may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    Inactive,
    Deleted,
}

/// Rows for a connecting socket, already as frames.
#[derive(Debug, Default)]
pub struct BacklogPage {
    /// WebSocket frames, one behind the other.
    pub frames: Vec<u8>,
    pub ids: Vec<NotificationId>,
    /// The snapshot that the page was read from: no row up to here is missing once `more` is false.
    pub upto: NotificationId,
    pub more: bool,
    /// `since` is known: whatever became of a row, it is sent.
    pub all: bool,
    /// First page: how many older ones are left out, and the rows between which they lie.
    pub skipped: u64,
    pub skip: Option<(NotificationId, NotificationId)>,
    /// First page: `since` named nothing that we know.
    pub since_unknown: bool,
}

/// What is in the database when the server starts: the hub's counts begin here.
#[derive(Debug, Default)]
pub struct Census {
    pub last: NotificationId,
    pub inboxes: Vec<InboxCount>,
    pub barred: Vec<(UserId, Standing)>,
    /// The oldest row that waits.
    pub oldest_waiting: Option<Oldest>,
}

/// What one user has on one channel.
#[derive(Clone, Copy, Debug)]
pub struct InboxCount {
    pub user: UserId,
    pub channel: Channel,
    pub unread: u32,
    pub waiting: u32,
    /// The oldest row that waits.
    pub oldest: NotificationId,
}
