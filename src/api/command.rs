//! Owns what clients may ask for, as values: HTTP routes and socket messages end in the same ones. They print, compare,
//! serialise and replay. Never carries one out. Enter at [`Command`] (writes) and [`Query`] (reads).

use super::page::PageRequest;
use crate::auth::password;
use crate::matching::{MatchId, Property, PropertyId, User, UserId};
use crate::notification::{Channel, Content, General, NotificationId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A change. What it does is decided from the rows when its turn comes, in `storage::apply`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Command {
    /// POST `/api/properties/{id}/like/` and `/reject/`.
    ActOnProperty {
        by: UserId,
        property: PropertyId,
        likes: bool,
        reason: Option<String>,
    },
    /// POST `/api/matches/{id}/…/`.
    ActOnMatch {
        by: UserId,
        id: MatchId,
        act: Act,
        reason: Option<String>,
    },
    /// POST `/api/notifications/{id}/mark_as_read/`.
    MarkOneRead {
        by: UserId,
        which: Which,
    },
    /// `mark_read` of a socket.
    MarkRead {
        by: UserId,
        ids: Vec<Uuid>,
        many: bool,
    },
    /// Both kinds of "all".
    MarkAllRead {
        by: UserId,
    },
    /// Receipts of one socket: rows that it was sent.
    MarkDelivered {
        user: UserId,
        ids: Vec<NotificationId>,
    },
    /// What waits between these two rows leaves the push path for good (`delivery.replay_max`).
    Skip {
        user: UserId,
        channel: Channel,
        after: NotificationId,
        before: NotificationId,
    },
    /// *Service*: a notification in the backend's words.
    Notify {
        to: Recipients,
        channel: Channel,
        general: General,
    },
    /// What Django told a user over its own channel layer: once, whoever of the nodes heard it.
    Relay {
        user: UserId,
        channel: Channel,
        uuid: Uuid,
        content: Content,
    },
    /// Somebody whom the directory does not know has connected: what Django tells him concerns us.
    Meet {
        user: UserId,
    },
    PutUser {
        id: UserId,
        user: User,
        is_active: Option<bool>,
        password: Option<String>,
    },
    DeleteUser {
        id: UserId,
    },
    PutProperty {
        id: PropertyId,
        property: Property,
    },
    DeleteProperty {
        id: PropertyId,
    },
    /// *Service*: the matching engine's score.
    PutMatch {
        property: PropertyId,
        tenant: UserId,
        score: f64,
        metadata: Option<String>,
    },
    /// A sign-in whose password was found right: the first token of a family.
    SignIn {
        user: UserId,
        /// The stored password that was checked: it must still be his when this is carried out.
        checked: String,
        family: Uuid,
        token: Uuid,
        expires_ms: i64,
    },
    Refresh(Refresh),
    /// Removes what is older than `storage.retention`: one stretch of rows after `after`. How long they are kept, by the
    /// time at which this is carried out: the clock of one node removes no rows of others.
    Retain {
        after: NotificationId,
        read_for_ms: i64,
        unread_for_ms: i64,
    },
    /// Nothing but an answer to remember under an `Idempotency-Key`: a request that was refused before it got here.
    Remember {
        status: u16,
        body: String,
    },
}

/// A refresh token for the next one of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    pub user: UserId,
    /// The token's own id, where Django made it: it begins its own family.
    pub family: Uuid,
    pub token: Uuid,
    pub made_ms: i64,
    pub expires_ms: i64,
    pub next: Uuid,
    pub next_expires_ms: i64,
}

/// An act on a match, as the paths name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    OwnerAccept,
    OwnerReject,
    Like,
    Accept,
    Reject,
}

/// How a path names a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    Row(NotificationId),
    Uuid(Uuid),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recipients {
    /// With the backend's own id, if it gave one.
    One(UserId, Option<Uuid>),
    Many(Vec<UserId>),
}

impl Command {
    /// The user who asks for it, where it is one's own doing.
    #[must_use]
    pub fn by(&self) -> Option<UserId> {
        match self {
            Self::ActOnProperty { by, .. }
            | Self::ActOnMatch { by, .. }
            | Self::MarkOneRead { by, .. }
            | Self::MarkRead { by, .. }
            | Self::MarkAllRead { by } => Some(*by),
            _ => None,
        }
    }

    #[must_use]
    pub fn holds_plain_password(&self) -> bool {
        matches!(self, Self::PutUser { password: Some(text), .. } if !password::is_encoded(text))
    }

    /// Replaces a plain password by its hash, in Django's encoding. Takes a third of a second.
    pub fn hash_password(&mut self) {
        if self.holds_plain_password()
            && let Self::PutUser { password: Some(text), .. } = self
        {
            *text = password::encode(text, &password::salt(), password::DJANGO_ITERATIONS);
        }
    }

    /// Whether doing it twice is the same as doing it once: it may be sent again where nobody knows whether it was done.
    #[must_use]
    pub fn can_be_repeated(&self) -> bool {
        matches!(self, Self::MarkDelivered { .. } | Self::Relay { .. } | Self::Meet { .. })
    }

    /// About how many rows it makes: what a transaction is measured by.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Notify { to: Recipients::Many(users), .. } => users.len().max(1),
            _ => 1,
        }
    }

    /// Receipts wait for the next commit (or make one after a little while); all else makes one now.
    #[must_use]
    pub fn can_wait(&self) -> bool {
        matches!(self, Self::MarkDelivered { .. })
    }
}

/// A question. Answered from a snapshot by a thread of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    Notifications {
        of: UserId,
        filter: NotificationFilter,
        page: PageRequest,
    },
    Notification {
        of: UserId,
        which: Which,
    },
    NotificationSummary {
        of: UserId,
    },
    MyMatches {
        of: UserId,
        status: Option<&'static str>,
        page: PageRequest,
    },
    Match {
        of: UserId,
        id: MatchId,
    },
    PendingRequests {
        of: UserId,
        page: PageRequest,
    },
    Properties {
        page: PageRequest,
    },
    /// `only_active`: what users may see; a service sees all.
    Property {
        id: PropertyId,
        only_active: bool,
    },
    User {
        id: UserId,
    },
    /// Whose password a sign-in under this name may be.
    Credentials {
        username: String,
    },
    /// What a connecting socket is sent before anything live.
    Backlog(Backlog),
    /// The oldest row from here on that waits to be pushed.
    OldestWaiting {
        from: NotificationId,
    },
    /// Which row a receipt names, of those from `first` to `last`; `since_ms`: when the socket opened, where it was sent
    /// only what was not settled then.
    WasSent {
        user: UserId,
        channel: Channel,
        uuid: Uuid,
        first: NotificationId,
        last: NotificationId,
        since_ms: Option<i64>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationFilter {
    pub is_read: Option<bool>,
    pub kind: Option<String>,
    pub channel: Option<Channel>,
}

/// One page of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub user: UserId,
    pub channel: Channel,
    pub from: From,
    /// Newest row that was committed when the socket entered the index. Up to it, what is waiting is sent; behind it,
    /// everything: another device may have acknowledged a row that this one would have got live.
    pub mark: NotificationId,
    /// No row that waits lies before this one.
    pub oldest: NotificationId,
    pub replay_max: u32,
    /// Rows on a page, if they are not too long.
    pub page_rows: usize,
}

/// Where a page of a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The first page: what is waiting.
    Waiting,
    /// The first page after `?since=`.
    Since(Uuid),
    /// A further page: after this row. `all`: delivered or not, as after `since`.
    After { id: NotificationId, all: bool },
}
