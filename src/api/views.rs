//! Owns the JSON shapes of rows in REST answers, and the texts that go with them. Never queries one.
//! Enter at [`NotificationView`], [`MatchView`], [`user`], [`property`].

use super::frames;
use crate::clock::rfc3339;
use crate::matching::{Match, Property, PropertyId, User, UserId};
use crate::notification::{Content, Notification, Person};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A row of `/api/notifications/`.
#[derive(Serialize)]
pub struct NotificationView<'a> {
    id: i64,
    notification_id: Uuid,
    r#type: &'a str,
    channel: &'static str,
    title: &'a str,
    message: String,
    /// The frame.
    data: Box<RawValue>,
    is_read: bool,
    read_at: Option<String>,
    delivered_at: Option<String>,
    created_at: String,
    user: i64,
}

impl<'a> NotificationView<'a> {
    #[must_use]
    pub fn new(n: &'a Notification) -> Self {
        Self {
            id: n.id.0,
            notification_id: n.uuid,
            r#type: n.content.kind(),
            channel: n.channel.as_str(),
            title: title(&n.content),
            message: message(&n.content),
            data: raw(&frames::notification(n)),
            is_read: n.read_ms.is_some(),
            read_at: n.read_ms.map(rfc3339),
            delivered_at: n.delivered_ms.map(rfc3339),
            created_at: rfc3339(n.created_ms),
            user: n.user.0,
        }
    }
}

/// JSON that we made or checked, embedded as it is.
fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_default()
}

/// The title that the user's document gives its pop-up.
#[must_use]
pub fn title(content: &Content) -> &str {
    match content {
        Content::PropertyLike { .. } => "¡Nuevo interesado en tu propiedad!",
        Content::MatchAccepted { .. } => "¡Match Aceptado!",
        Content::MatchAcceptedByOwner { .. } => "¡Tu solicitud fue aceptada!",
        Content::MatchRejectedByOwner { .. } => "Tu solicitud fue rechazada",
        Content::General(general) if general.title.is_empty() => "Habitto",
        Content::General(general) => &general.title,
    }
}

/// The text of a row, as the incumbent writes it.
#[must_use]
pub fn message(content: &Content) -> String {
    match content {
        Content::PropertyLike { tenant, score, .. } => {
            let who = if tenant.username.is_empty() { "Alguien" } else { &tenant.username };
            format!("{who} indicó interés en tu propiedad (score {score:?}%).")
        }
        Content::MatchAccepted { tenant_username, .. } if tenant_username.is_empty() => "Match aceptado.".to_owned(),
        Content::MatchAccepted { tenant_username, .. } => format!("Match aceptado con {tenant_username}."),
        Content::MatchAcceptedByOwner { home, .. } => {
            format!("Tu solicitud de match fue aceptada para la propiedad {}.", home.address)
        }
        Content::MatchRejectedByOwner { home } => {
            format!("Tu solicitud de match fue rechazada para la propiedad {}.", home.address)
        }
        Content::General(general) => general.message.clone(),
    }
}

/// A match, as `incumbent.md` section 3 shows it.
#[derive(Serialize)]
pub struct MatchView {
    id: i64,
    match_type: &'static str,
    subject_id: i64,
    score: f64,
    metadata: Box<RawValue>,
    status: &'static str,
    created_at: String,
    updated_at: String,
    target_user: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    property_title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    property_address: Option<String>,
}

impl MatchView {
    #[must_use]
    pub fn new(m: &Match) -> Self {
        Self {
            id: m.id.0,
            match_type: "property",
            subject_id: m.property.0,
            score: m.score,
            metadata: raw(&m.metadata),
            status: m.status.as_str(),
            created_at: rfc3339(m.created_ms),
            updated_at: rfc3339(m.updated_ms),
            target_user: m.tenant.0,
            property_title: None,
            property_address: None,
        }
    }

    /// With the property's title and address; empty where the property is gone.
    #[must_use]
    pub fn with_property(mut self, property: Option<&Property>) -> Self {
        self.property_title =
            Some(property.map(|p| crate::matching::property_title(&p.kind, &p.address)).unwrap_or_default());
        self.property_address = Some(property.map(|p| p.address.clone()).unwrap_or_default());
        self
    }
}

/// A user as frames and requests show them; a user who is not in the directory has empty texts.
#[must_use]
pub fn person(id: UserId, user: Option<&User>) -> Person {
    let user = user.cloned().unwrap_or_default();
    Person {
        id,
        username: user.username,
        email: user.email,
        first_name: user.first_name,
        last_name: user.last_name,
        phone: user.phone,
        user_type: user.user_type,
    }
}

/// Known fields first, in their order; whatever else the backend sent behind them.
#[derive(Serialize)]
pub struct WithFurther<T> {
    #[serde(flatten)]
    known: T,
    #[serde(flatten)]
    further: Map<String, Value>,
}

#[derive(Serialize)]
struct UserFields {
    #[serde(flatten)]
    person: Person,
    is_active: bool,
}

/// A row of the directory.
#[must_use]
pub fn user(id: UserId, user: &User, is_active: bool) -> impl Serialize + use<> {
    WithFurther { known: UserFields { person: person(id, Some(user)), is_active }, further: user.further.clone() }
}

#[derive(Serialize)]
struct PropertyFields {
    id: i64,
    owner: i64,
    agent: Option<i64>,
    r#type: String,
    address: String,
    price: Option<f64>,
    bedrooms: Option<i64>,
    is_active: bool,
}

#[must_use]
pub fn property(id: PropertyId, p: &Property) -> impl Serialize + use<> {
    WithFurther {
        known: PropertyFields {
            id: id.0,
            owner: p.owner.0,
            agent: p.agent.map(|agent| agent.0),
            r#type: p.kind.clone(),
            address: p.address.clone(),
            price: p.price,
            bedrooms: p.bedrooms,
            is_active: p.is_active,
        },
        further: p.further.clone(),
    }
}

/// One entry of `pending_requests`: who asks for what.
#[must_use]
pub fn pending_request(m: &Match, p: &Property, tenant: Option<&User>) -> impl Serialize + use<> {
    #[derive(Serialize)]
    struct Home<'a> {
        id: i64,
        address: &'a str,
        price: Option<f64>,
        r#type: &'a str,
        bedrooms: Option<i64>,
        zone_id: Value,
        zone_name: Value,
    }
    #[derive(Serialize)]
    struct Request {
        r#match: MatchView,
        property: Box<RawValue>,
        interested_user: Box<RawValue>,
    }
    let mut further = p.further.clone();
    let home = Home {
        id: m.property.0,
        address: &p.address,
        price: p.price,
        r#type: &p.kind,
        bedrooms: p.bedrooms,
        zone_id: further.remove("zone_id").unwrap_or(Value::Null),
        zone_name: further.remove("zone_name").unwrap_or(Value::Null),
    };
    let known = person(m.tenant, tenant);
    let tenants_further = tenant.map(|t| t.further.clone()).unwrap_or_default();
    Request {
        r#match: MatchView::new(m),
        property: to_raw_value(&WithFurther { known: home, further }).unwrap_or_default(),
        interested_user: to_raw_value(&WithFurther { known, further: tenants_further }).unwrap_or_default(),
    }
}

/// What a like or a tenant's "no" on a property answers.
#[must_use]
pub fn liked(m: &Match) -> Value {
    json!({ "status": m.status.as_str(), "match_id": m.id.0, "score": m.score })
}

#[must_use]
pub fn rejected(m: &Match) -> Value {
    json!({ "status": "rejected", "match_id": m.id.0 })
}

/// What an act on a match answers.
#[derive(Serialize)]
pub struct Acted {
    pub status: &'static str,
    pub r#match: MatchView,
}
