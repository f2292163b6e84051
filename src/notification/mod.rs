//! Owns what a notification is: its kinds, its fields, its id, its life from stored to delivered to read.
//! Never encodes or stores one. Enter at [`Notification`].

mod id;

pub use id::{NotificationId, created_ms, foreign_uuid, parse_uuid};

use crate::matching::{PropertyId, UserId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Which of a user's two streams a notification belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    Property,
    Tenant,
}

impl Channel {
    pub const ALL: [Self; 2] = [Self::Property, Self::Tenant];

    /// As the wire spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Property => "property",
            Self::Tenant => "tenant",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.as_str() == text)
    }
}

/// A row: what one user is told, once, on one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Position in commit order.
    pub id: NotificationId,
    /// The id on the wire: made from `id`, or given by the backend.
    pub uuid: Uuid,
    pub user: UserId,
    pub channel: Channel,
    pub content: Content,
    /// Milliseconds since 1970; so are the two below, each set once.
    pub created_ms: i64,
    pub delivered_ms: Option<i64>,
    pub read_ms: Option<i64>,
}

/// What a notification says: what its frame is made of, as it was when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    PropertyLike { home: Home, tenant: Person, score: f64 },
    MatchAccepted { home: Home, owner: Contact, tenant_username: String },
    MatchAcceptedByOwner { home: Home, owner_name: String, owner: Contact, score: f64 },
    MatchRejectedByOwner { home: Home },
    General(Arc<General>),
}

/// The property, as notifications show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Home {
    pub id: PropertyId,
    pub kind: String,
    pub address: String,
}

/// A user, as notifications show them; field names and order are the wire's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    pub id: UserId,
    pub username: String,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub phone: String,
    pub user_type: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contact {
    pub email: String,
    pub phone: String,
}

/// What the backend says in its own words; shared by all whom one call names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct General {
    /// The frame's `type`.
    pub kind: String,
    /// Empty: the product's name is shown.
    pub title: String,
    pub message: String,
    /// A JSON object, as text.
    pub data: String,
}

impl Content {
    /// The frame's `type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::PropertyLike { .. } => PROPERTY_LIKE,
            Self::MatchAccepted { .. } => MATCH_ACCEPTED,
            Self::MatchAcceptedByOwner { .. } => MATCH_ACCEPTED_BY_OWNER,
            Self::MatchRejectedByOwner { .. } => MATCH_REJECTED_BY_OWNER,
            Self::General(general) => &general.kind,
        }
    }
}

pub const PROPERTY_LIKE: &str = "property_like";
pub const MATCH_ACCEPTED: &str = "match_accepted";
pub const MATCH_ACCEPTED_BY_OWNER: &str = "match_accepted_by_owner";
pub const MATCH_REJECTED_BY_OWNER: &str = "match_rejected_by_owner";
/// The type of a general notification that names none.
pub const GENERAL: &str = "general";

/// Types that only habittod and its clients may send: a backend that used one could forge a like or break a client.
pub const RESERVED_TYPES: [&str; 14] = [
    PROPERTY_LIKE,
    MATCH_ACCEPTED,
    MATCH_ACCEPTED_BY_OWNER,
    MATCH_REJECTED_BY_OWNER,
    "connection_established",
    "notification_read",
    "pong",
    "error",
    "auth_ok",
    "token_expiring",
    "ping",
    "mark_read",
    "ack",
    "auth",
];
