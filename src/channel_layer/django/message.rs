//! Owns the meaning of what Django sends over its layer: MessagePack of strangers → a command, or why not. Never talks to
//! Redis. Enter at [`read`] and [`recipient`].

use crate::api::{frames, json};
use crate::hub::event::Unusable;
use crate::matching::{PropertyId, UserId, behind_title, parse_id};
use crate::notification::{Channel, Contact, Content, GENERAL, General, Home, Person, RESERVED_TYPES, foreign_uuid};
use serde_json::{Map, Value};
use std::io::Cursor;
use std::sync::Arc;
use uuid::Uuid;

const ID_MAX: usize = 256;
const TYPE_MAX: usize = 64;

/// What one event says, before it is known to whom.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub id: String,
    pub content: Content,
    /// The full names of the channels that it was sent to; `core` only.
    pub names: Vec<String>,
}

impl Event {
    /// Its id here: its own where that is a UUID.
    pub(super) fn uuid(&self, channel: Channel, user: UserId) -> Uuid {
        Uuid::try_parse(&self.id).unwrap_or_else(|_| foreign_uuid(channel, user, &self.id))
    }

    /// Whether Django's own consumers take it from that user's group.
    pub(super) fn fits(&self, channel: Channel) -> bool {
        match self.content {
            Content::General(_) => true,
            Content::MatchAcceptedByOwner { .. } => channel == Channel::Tenant,
            _ => channel == Channel::Property,
        }
    }
}

/// Whom a group is for.
pub(super) fn recipient(group: &str) -> Option<(Channel, UserId)> {
    let (channel, id) = group.split_once("_notifications_")?;
    Some((Channel::parse(channel)?, UserId::parse(id)?))
}

/// The group of a user's channel.
pub(super) fn group(channel: Channel, user: UserId) -> String {
    format!("{}_notifications_{user}", channel.as_str())
}

/// Reads one message.
pub(super) fn read(bytes: &[u8], most: usize) -> Result<Event, Unusable> {
    if bytes.len() > most {
        return Err(Unusable::TooLarge);
    }
    let mut format = rmp_serde::Deserializer::new(Cursor::new(bytes));
    let value = json::read(&mut format).map_err(|_| Unusable::NotMessagePack)?;
    if format.get_ref().position() < bytes.len() as u64 {
        return Err(Unusable::NotMessagePack);
    }
    let Value::Object(event) = value else { return Err(Unusable::NotAMap) };
    let kind = event.get("type").and_then(Value::as_str).ok_or(Unusable::NoType)?.replace('.', "_");
    let content = match kind.as_str() {
        "property_like_notification" => like(&event),
        "match_accepted_notification" => accepted(&event),
        "match_accepted_for_tenant" => accepted_for_tenant(&event),
        "general_notification" => general(&event),
        _ => return Err(Unusable::UnknownType),
    };
    let content = content.ok_or(Unusable::Fields)?;
    Ok(Event { id: id(&event).ok_or(Unusable::Fields)?, content, names: names(&event) })
}

fn id(event: &Map<String, Value>) -> Option<String> {
    match event.get("notification_id")? {
        Value::String(id) if (1..=ID_MAX).contains(&id.len()) => Some(id.clone()),
        Value::Number(id) if id.is_i64() || id.is_u64() => Some(id.to_string()),
        _ => None,
    }
}

fn names(event: &Map<String, Value>) -> Vec<String> {
    match event.get("__asgi_channel__") {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

fn like(event: &Map<String, Value>) -> Option<Content> {
    let tenant = event.get("interested_user")?.as_object()?;
    let tenant = Person {
        id: UserId(number(tenant, "id")?),
        username: text(tenant, "username")?,
        email: text(tenant, "email")?,
        first_name: text(tenant, "first_name")?,
        last_name: text(tenant, "last_name")?,
        phone: text(tenant, "phone")?,
        user_type: text(tenant, "user_type")?,
    };
    Some(Content::PropertyLike { home: home(event)?, tenant, score: 0.0 })
}

fn accepted(event: &Map<String, Value>) -> Option<Content> {
    Some(Content::MatchAccepted { home: home(event)?, owner: owner(event)?, tenant_username: String::new() })
}

fn accepted_for_tenant(event: &Map<String, Value>) -> Option<Content> {
    let score = match event.get("match_score") {
        None | Some(Value::Null) => 0.0,
        Some(score) => score.as_f64()?,
    };
    let owner_name = text(event, "owner_name")?;
    Some(Content::MatchAcceptedByOwner { home: home(event)?, owner_name, owner: owner(event)?, score })
}

fn general(event: &Map<String, Value>) -> Option<Content> {
    let kind = match event.get("notification_type") {
        None | Some(Value::Null) => GENERAL.to_owned(),
        Some(kind) => kind.as_str()?.to_owned(),
    };
    let fine = (1..=TYPE_MAX).contains(&kind.len()) && !kind.contains(char::is_control);
    if !fine || RESERVED_TYPES.contains(&kind.as_str()) {
        return None;
    }
    let message = event.get("message")?.as_str()?.to_owned();
    let data = match event.get("data") {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::Object(data)) => frames::encode(data),
        Some(_) => return None,
    };
    Some(Content::General(Arc::new(General { kind, title: String::new(), message, data })))
}

fn home(event: &Map<String, Value>) -> Option<Home> {
    let title = event.get("property_title")?.as_str()?;
    let address = match event.get("property_address") {
        None | Some(Value::Null) => None,
        Some(address) => Some(address.as_str()?),
    };
    let (kind, address) = behind_title(title, address);
    Some(Home { id: PropertyId(number(event, "property_id")?), kind, address })
}

fn owner(event: &Map<String, Value>) -> Option<Contact> {
    match event.get("owner_contact") {
        None | Some(Value::Null) => Some(Contact { email: String::new(), phone: String::new() }),
        Some(contact) => {
            let contact = contact.as_object()?;
            Some(Contact { email: text(contact, "email")?, phone: text(contact, "phone")? })
        }
    }
}

/// A missing text is an empty one; a wrong one is wrong.
fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(String::new()),
        Some(text) => text.as_str().map(str::to_owned),
    }
}

fn number(fields: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = fields.get(name)?;
    value.as_i64().filter(|id| *id > 0).or_else(|| value.as_str().and_then(parse_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn packed(event: &Value) -> Vec<u8> {
        rmp_serde::to_vec(event).unwrap()
    }

    /// Recorded from Django's own `group_send`, without the 12 random bytes.
    const GOLDEN: &str = "85a474797065b467656e6572616c5f6e6f74696669636174696f6ea76d657373616765a16da974696d657374616d70a174af6e6f74696669636174696f6e5f6964a16eb05f5f617367695f6368616e6e656c5f5f91d94273706563696669632e30303131323233333434353536363737383839396161626263636464656566662170726f70657274795f6e6f74696669636174696f6e735f37";

    #[test]
    fn what_django_was_recorded_to_send_is_understood() {
        let bytes: Vec<u8> =
            (0..GOLDEN.len()).step_by(2).map(|at| u8::from_str_radix(&GOLDEN[at..at + 2], 16).unwrap()).collect();
        let event = read(&bytes, 1_000).unwrap();
        let general = General {
            kind: "general".to_owned(),
            title: String::new(),
            message: "m".to_owned(),
            data: "{}".to_owned(),
        };
        assert_eq!((event.id.as_str(), &event.content), ("n", &Content::General(Arc::new(general))));
        assert_eq!(event.names, ["specific.00112233445566778899aabbccddeeff!property_notifications_7"]);
        assert_eq!(recipient("property_notifications_7"), Some((Channel::Property, UserId(7))));
        assert_eq!(event.uuid(Channel::Property, UserId(7)).get_version_num(), 5);
        assert_eq!(read(&bytes, bytes.len() - 1), Err(Unusable::TooLarge));
    }

    #[test]
    fn titles_come_out_as_they_went_in() {
        for (title, address) in [
            ("departamento en Av. Siempre Viva 123", None),
            ("departamento en Av. Siempre Viva 123", Some("Av. Siempre Viva 123")),
            ("casa en alquiler en Sur", Some("Sur")),
            ("Bonito piso", None),
            ("Bonito piso", Some("Sur")),
            (" en ", None),
        ] {
            let (kind, shown) = behind_title(title, address);
            assert_eq!(crate::matching::property_title(&kind, &shown), title);
            assert_eq!(shown, address.unwrap_or(shown.as_str()));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fine = json!({"type": "property.like.notification", "notification_id": 7, "property_id": 1,
            "property_title": "a en b", "interested_user": {"id": 2, "username": null}});
        assert_eq!(read(&packed(&fine), 1_000).unwrap().id, "7");
        let with = |key: &str, value: Value| {
            let mut event = fine.clone();
            event[key] = value;
            read(&packed(&event), 10_000).unwrap_err()
        };
        assert_eq!(with("type", json!("websocket.close")), Unusable::UnknownType);
        assert_eq!(with("type", json!(5)), Unusable::NoType);
        for (key, value) in [
            ("property_id", json!(0)),
            ("property_id", json!("x")),
            ("property_title", json!(1)),
            ("interested_user", json!([])),
            ("interested_user", json!({"id": 2, "phone": 5})),
            ("notification_id", json!(null)),
            ("notification_id", json!("")),
            ("notification_id", json!("x".repeat(257))),
        ] {
            assert_eq!(with(key, value), Unusable::Fields, "{key}");
        }
        for kind in ["", "pong", "property_like", "a\nb"] {
            let event = json!({"type": "general_notification", "notification_type": kind, "message": "m",
                "notification_id": "n"});
            assert_eq!(read(&packed(&event), 1_000), Err(Unusable::Fields), "{kind:?}");
        }
        let deep = (0..40).fold(json!({}), |inner, _| json!({ "d": inner }));
        assert_eq!(read(&packed(&deep), 10_000), Err(Unusable::NotMessagePack));
        assert_eq!(read(&packed(&json!([1])), 1_000), Err(Unusable::NotAMap));
        let mut more = packed(&fine);
        more.push(0);
        assert_eq!(read(&more, 1_000), Err(Unusable::NotMessagePack));
        for group in ["chat_1", "inbox_1", "property_notifications_01", "property_notifications_x", "notifications_1"] {
            assert_eq!(recipient(group), None, "{group}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, 1_000);
        }
    }
}
