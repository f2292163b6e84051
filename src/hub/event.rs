//! Owns the list of what is worth telling an operator: logs and metrics are made of these. Never holds what a client
//! wrote. Enter at [`Event`].

use crate::api::frames::WhatWasRead;
use crate::matching::UserId;
use crate::metrics::labels;
use crate::notification::{Channel, NotificationId};
use std::net::IpAddr;
use uuid::Uuid;

#[derive(Debug)]
pub enum Event {
    Opened {
        user: UserId,
        channel: Channel,
        open: usize,
        /// From the connection to its upgrade.
        took_us: u64,
    },
    Closed {
        user: UserId,
        channel: Channel,
        cause: CloseCause,
        code: Option<u16>,
        seconds: u64,
        /// Notifications sent on it, and how many of those it has not acknowledged.
        sent: u16,
        owed: usize,
    },
    /// A handshake, a request or a connection that was turned away before anybody looked at what it wants.
    Refused {
        /// The client's, or of a proxy whose word for it was not understood, or not looked at.
        address: IpAddr,
        cause: Cause,
        status: u16,
        /// The rule that was broken, in words of ours.
        rule: Option<&'static str>,
    },
    /// A limit of the configuration was reached.
    Limited(Limit),
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
        uuid: Uuid,
        user: UserId,
        channel: Channel,
        /// Live sockets that it went out to at once.
        sockets: u32,
        /// From the request to its commit; not known of what another node was asked.
        took_us: Option<u64>,
    },
    /// The kernel took the last byte of it.
    Sent {
        what: Sent,
        took_us: Option<u64>,
    },
    /// Acknowledged and marked so, with the time of creation of each (wall ms).
    Delivered {
        user: UserId,
        channel: Channel,
        rows: Vec<(NotificationId, i64)>,
        /// When (wall ms).
        at_ms: i64,
    },
    Read {
        user: UserId,
        what: WhatWasRead,
        count: u32,
        /// Of those, had not been delivered before.
        undelivered: u32,
    },
    /// A page of a replay.
    Replayed {
        user: UserId,
        channel: Channel,
        ids: Vec<NotificationId>,
    },
    /// Left the push path for good: more were waiting than are replayed.
    Skipped {
        user: UserId,
        channel: Channel,
        count: u32,
    },
    Committed {
        jobs: usize,
        failed: usize,
        /// Of the first that failed.
        why: Option<String>,
        took_us: u64,
    },
    /// Something was asked and answered 503; at most one a second is told of.
    AnswerFailed {
        why: String,
    },
    /// The kernel gives no more connections.
    AcceptFailing {
        why: String,
    },
    AcceptWorks,
    StorageFailing {
        why: String,
    },
    StorageWorks,
    SharedLogFailing {
        why: String,
    },
    SharedLogWorks,
    DjangoRefused {
        cause: Unusable,
        count: u64,
    },
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
    Stopped {
        seconds: u64,
    },
}

/// A live notification that was queued for one socket.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub id: NotificationId,
    pub user: UserId,
    pub channel: Channel,
    /// When it was asked for (monotonic); 0: not here.
    pub asked_us: u64,
}

labels! {
    /// Why a message of Django's layer was dropped.
    pub Unusable {
        TooLarge = "too_large",
        NotMessagePack = "not_messagepack",
        NotAMap = "not_a_map",
        NoType = "no_type",
        UnknownType = "unknown_type",
        Fields = "fields",
        NotDecrypted = "not_decrypted",
        WrongGroup = "wrong_group",
        UnknownUser = "unknown_user",
    }
}

labels! {
    /// Why a socket ended.
    pub CloseCause {
        ClosedByClient = "closed_by_client",
        // Without a goodbye: the peer ended its half, or broke off.
        PeerClosed = "peer_closed",
        Reset = "reset",
        PongTimeout = "pong_timeout",
        // What the client did.
        Protocol = "protocol",
        Binary = "binary",
        ControlRate = "control_rate",
        MessageRate = "message_rate",
        SlowReader = "slow_reader",
        // What became of its user.
        TokenExpired = "token_expired",
        Deactivated = "deactivated",
        // What became of us: its replay could not be read, or the server stops.
        Storage = "storage",
        Drained = "drained",
    }
}

labels! {
    /// Why somebody was turned away.
    pub Cause {
        // Handshakes, in the order in which they are judged.
        NoUpgrade = "no_upgrade",
        Key = "key",
        Body = "handshake_body",
        Origin = "origin",
        NoToken = "token_missing",
        BadToken = "token_invalid",
        ExpiredToken = "token_expired",
        UserInactive = "user_inactive",
        UserDeleted = "user_deleted",
        Foreign = "channel",
        ConnectionsPerUser = "connections_per_user",
        HandshakesPerSecond = "handshakes_per_second",
        Draining = "draining",
        Overloaded = "storage_queue",
        // Connections.
        Connections = "connections",
        ConnectionsPerIp = "connections_per_ip",
        // Nothing had been asked on it when the stop began.
        Late = "late",
        // Bytes that are no request.
        Malformed = "malformed",
        TargetTooLong = "target",
        HeadTooLarge = "head",
        BodyTooLarge = "body",
        Version = "http_version",
        Timeout = "timeout",
    }
}

impl Cause {
    /// Whether it was a handshake that was turned away.
    #[must_use]
    pub fn of_handshake(self) -> bool {
        (self as usize) < Self::Connections as usize
    }
}

labels! {
    /// The keys of `limits` that can be reached.
    pub Limit {
        Connections = "connections",
        ConnectionsPerUser = "connections_per_user",
        ConnectionsPerIp = "connections_per_ip",
        HandshakesPerSecond = "handshakes_per_second",
        WsMessage = "ws_message",
        WsMessagesPerSecond = "ws_messages_per_second",
        WsControlPerSecond = "ws_control_per_second",
        RequestsPerSecond = "requests_per_second",
        LoginsPerMinute = "logins_per_minute",
        LoginsPerMinutePerUser = "logins_per_minute_per_user",
        Head = "head",
        Target = "target",
        Body = "body",
        HeadTimeout = "head_timeout",
        BodyTimeout = "body_timeout",
        IdleTimeout = "idle_timeout",
        PongTimeout = "pong_timeout",
        Outbound = "outbound",
        StorageQueue = "storage_queue",
    }
}

impl Limit {
    /// Whether it is about how often.
    #[must_use]
    pub fn is_rate(self) -> bool {
        matches!(
            self,
            Self::HandshakesPerSecond
                | Self::WsMessagesPerSecond
                | Self::WsControlPerSecond
                | Self::RequestsPerSecond
                | Self::LoginsPerMinute
                | Self::LoginsPerMinutePerUser
        )
    }
}
