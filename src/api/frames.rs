//! Owns the JSON of every message a server sends on a socket: fields and order are those of the user's document.
//! Never decides who gets one. Enter at [`notification`].

use crate::clock::rfc3339;
use crate::matching::property_title;
use crate::notification::{Channel, Contact, Content, Home, Notification, NotificationId, Person};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// Encodes a value that cannot fail to encode: our own structs with string keys.
pub(crate) fn encode<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[derive(Serialize)]
struct Like<'a> {
    r#type: &'static str,
    property_id: i64,
    property_title: String,
    interested_user: &'a Person,
    timestamp: String,
    notification_id: Uuid,
}

#[derive(Serialize)]
struct Accepted<'a> {
    r#type: &'static str,
    property_id: i64,
    property_title: String,
    property_address: &'a str,
    owner_contact: &'a Contact,
    match_status: &'static str,
    next_steps: [&'static str; 3],
    timestamp: String,
    notification_id: Uuid,
}

#[derive(Serialize)]
struct AcceptedByOwner<'a> {
    r#type: &'static str,
    property_id: i64,
    property_title: String,
    property_address: &'a str,
    owner_name: &'a str,
    owner_contact: &'a Contact,
    match_score: f64,
    next_steps: [&'static str; 3],
    timestamp: String,
    notification_id: Uuid,
}

#[derive(Serialize)]
struct RejectedByOwner<'a> {
    r#type: &'static str,
    property_id: i64,
    property_title: String,
    property_address: &'a str,
    match_status: &'static str,
    timestamp: String,
    notification_id: Uuid,
}

#[derive(Serialize)]
struct InOwnWords<'a> {
    r#type: &'a str,
    message: &'a str,
    data: &'a RawValue,
    timestamp: String,
    notification_id: Uuid,
}

const STEPS_FOR_KEEPERS: [&str; 3] =
    ["Contactar al inquilino para coordinar visita", "Verificar documentación", "Coordinar firma de contrato"];
const STEPS_FOR_TENANTS: [&str; 3] = [
    "Contactar al propietario para coordinar visita",
    "Preparar documentación necesaria",
    "Coordinar fecha de mudanza",
];

/// The frame of a notification: the same bytes live, in a replay and as `data` in REST.
#[must_use]
pub fn notification(n: &Notification) -> String {
    let timestamp = rfc3339(n.created_ms);
    let notification_id = n.uuid;
    let r#type = n.content.kind();
    let title = |home: &Home| property_title(&home.kind, &home.address);
    match &n.content {
        Content::PropertyLike { home, tenant, .. } => encode(&Like {
            r#type: crate::notification::PROPERTY_LIKE,
            property_id: home.id.0,
            property_title: title(home),
            interested_user: tenant,
            timestamp,
            notification_id,
        }),
        Content::MatchAccepted { home, owner, .. } => encode(&Accepted {
            r#type: crate::notification::MATCH_ACCEPTED,
            property_id: home.id.0,
            property_title: title(home),
            property_address: &home.address,
            owner_contact: owner,
            match_status: "accepted",
            next_steps: STEPS_FOR_KEEPERS,
            timestamp,
            notification_id,
        }),
        Content::MatchAcceptedByOwner { home, owner_name, owner, score } => encode(&AcceptedByOwner {
            r#type: crate::notification::MATCH_ACCEPTED_BY_OWNER,
            property_id: home.id.0,
            property_title: title(home),
            property_address: &home.address,
            owner_name,
            owner_contact: owner,
            match_score: *score,
            next_steps: STEPS_FOR_TENANTS,
            timestamp,
            notification_id,
        }),
        Content::MatchRejectedByOwner { home } => encode(&RejectedByOwner {
            r#type: crate::notification::MATCH_REJECTED_BY_OWNER,
            property_id: home.id.0,
            property_title: title(home),
            property_address: &home.address,
            match_status: "rejected",
            timestamp,
            notification_id,
        }),
        Content::General(general) => {
            let data = serde_json::from_str(&general.data).unwrap_or(RawValue::NULL);
            encode(&InOwnWords { r#type, message: &general.message, data, timestamp, notification_id })
        }
    }
}

/// The first message on every socket. `skipped`: how many older ones the replay leaves out, if any.
#[must_use]
pub fn connection_established(channel: Channel, now_ms: i64, unread_count: u64, ack: &str, skipped: u64) -> String {
    #[derive(Serialize)]
    struct Established<'a> {
        r#type: &'static str,
        message: &'static str,
        timestamp: String,
        unread_count: u64,
        ack: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        skipped: Option<u64>,
    }
    encode(&Established {
        r#type: "connection_established",
        message: match channel {
            Channel::Property => "Conectado a notificaciones de propiedades",
            Channel::Tenant => "Conectado a notificaciones de inquilino",
        },
        timestamp: rfc3339(now_ms),
        unread_count,
        ack,
        skipped: (skipped > 0).then_some(skipped),
    })
}

/// What was read, as `notification_read` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhatWasRead {
    One(Uuid),
    Many(Vec<Uuid>),
    All,
}

impl WhatWasRead {
    /// Whether a row behind this one may be among it.
    #[must_use]
    pub fn names_one_behind(&self, row: NotificationId) -> bool {
        let lies_behind = |uuid: &Uuid| NotificationId::of_uuid(uuid).is_none_or(|id| id > row);
        match self {
            Self::One(uuid) => lies_behind(uuid),
            Self::Many(uuids) => uuids.iter().any(lies_behind),
            Self::All => true,
        }
    }
}

#[must_use]
pub fn notification_read(what: &WhatWasRead, unread_count: u64, now_ms: i64) -> String {
    #[derive(Serialize)]
    struct Read<'a> {
        r#type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        notification_id: Option<Uuid>,
        #[serde(skip_serializing_if = "Option::is_none")]
        notification_ids: Option<&'a [Uuid]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        all: Option<bool>,
        unread_count: u64,
        timestamp: String,
    }
    let mut frame = Read {
        r#type: "notification_read",
        notification_id: None,
        notification_ids: None,
        all: None,
        unread_count,
        timestamp: rfc3339(now_ms),
    };
    match what {
        WhatWasRead::One(id) => frame.notification_id = Some(*id),
        WhatWasRead::Many(ids) => frame.notification_ids = Some(ids),
        WhatWasRead::All => frame.all = Some(true),
    }
    encode(&frame)
}

#[must_use]
pub fn pong(now_ms: i64) -> String {
    format!(r#"{{"type":"pong","timestamp":"{}"}}"#, rfc3339(now_ms))
}

/// `answered`: whether a Pong has come for the last Ping.
#[must_use]
pub fn probed(now_ms: i64, answered: bool) -> String {
    format!(r#"{{"type":"pong","timestamp":"{}","ping_answered":{answered}}}"#, rfc3339(now_ms))
}

#[must_use]
pub fn auth_ok(expires_ms: i64) -> String {
    format!(r#"{{"type":"auth_ok","expires_at":"{}"}}"#, rfc3339(expires_ms))
}

#[must_use]
pub fn token_expiring(expires_ms: i64) -> String {
    format!(r#"{{"type":"token_expiring","expires_at":"{}"}}"#, rfc3339(expires_ms))
}

/// What went wrong with a client's message; the socket stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    InvalidJson,
    InvalidMessage(&'static str),
    UnknownType,
    NotFound,
    RateLimited,
    InvalidToken,
    SinceUnknown,
    Unavailable,
}

impl Complaint {
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidMessage(_) => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::InvalidToken => "invalid_token",
            Self::SinceUnknown => "since_unknown",
            Self::Unavailable => "unavailable",
        }
    }

    /// For people, in their language.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::InvalidJson => "JSON inválido",
            Self::InvalidMessage(what) => what,
            Self::UnknownType => "Tipo de mensaje desconocido",
            Self::NotFound => "Notificación no encontrada",
            Self::RateLimited => "Demasiados mensajes, espera un momento",
            Self::InvalidToken => "Token inválido o expirado",
            Self::SinceUnknown => "No se reconoce la notificación indicada en since",
            Self::Unavailable => "Servicio no disponible, inténtalo de nuevo",
        }
    }
}

/// An `error` message; `which` names the notifications it is about, in lower case.
#[must_use]
pub fn error(complaint: Complaint, which: &[Uuid]) -> String {
    #[derive(Serialize)]
    struct Error<'a> {
        r#type: &'static str,
        message: &'static str,
        code: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        notification_id: Option<Uuid>,
        #[serde(skip_serializing_if = "Option::is_none")]
        notification_ids: Option<&'a [Uuid]>,
    }
    let (notification_id, notification_ids) = match which {
        [] => (None, None),
        [one] => (Some(*one), None),
        many => (None, Some(many)),
    };
    encode(&Error {
        r#type: "error",
        message: complaint.message(),
        code: complaint.code(),
        notification_id,
        notification_ids,
    })
}
