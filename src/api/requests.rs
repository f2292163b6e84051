//! Owns the step from an admitted request to what it asks for. Never decides whether the caller may.
//! Enter at [`understand`].

use super::command::{Act, Command, NotificationFilter, Query, Recipients};
use super::directory::{self, FieldError};
use super::json;
use super::page::PageRequest;
use super::reply::Reply;
use super::routes::{Resource, Route};
use super::sign_in::{self, Credentials};
use crate::auth::Caller;
use crate::http::{Method, Request, form_pairs};
use crate::matching::{PropertyId, UserId, parse_id};
use crate::notification::{Channel, GENERAL, General, RESERVED_TYPES};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use uuid::Uuid;

/// What a request comes down to.
#[derive(Debug)]
pub enum Asked {
    Write(Command),
    Read(Query),
    SignIn(Credentials),
    /// New tokens for this refresh token.
    Renew(String),
    /// What the server itself knows or has: its health, its numbers, its files.
    Server(Resource),
}

/// Users that one notification may name.
pub const RECIPIENTS_MAX: usize = 10_000;
/// Bytes of the body that names them.
pub const RECIPIENTS_BODY_MAX: usize = 256 * 1024;
const REASON_MAX: usize = 1_000;
const TYPE_MAX: usize = 64;
const TITLE_MAX: usize = 200;

/// Bytes of body that a route takes, given the usual limit.
#[must_use]
pub fn body_max(route: Route, usual: usize) -> usize {
    match (route.resource, route.method) {
        (Resource::Notifications, Method::Post) => usual.max(RECIPIENTS_BODY_MAX),
        _ => usual,
    }
}

/// Reads query and body. `origin`: scheme and host, for links; empty where no host was named. `usual`: the body's limit.
/// Judged here, in this order: 415, 413 for what only the naming of many users is allowed, 400.
pub fn understand(
    route: Route,
    caller: Caller,
    request: &Request<'_>,
    origin: &str,
    usual: usize,
) -> Result<Asked, Reply> {
    let by = match caller {
        Caller::User(user) => user,
        Caller::Service => UserId(0),
    };
    match (route.method, route.resource) {
        (_, Resource::Login) => sign_in::credentials(&body(route, request)?).map(Asked::SignIn),
        (_, Resource::Refresh) => sign_in::refresh_token(&body(route, request)?).map(Asked::Renew),
        (Method::Post | Method::Put, _) => {
            let fields = body(route, request)?;
            if request.body.len() > usual && !fields.contains_key("users") {
                return Err(Reply::too_large(usual));
            }
            write(route.resource, by, fields).map(Asked::Write)
        }
        (Method::Delete, Resource::User(id)) => Ok(Asked::Write(Command::DeleteUser { id })),
        (Method::Delete, Resource::Property(id)) => Ok(Asked::Write(Command::DeleteProperty { id })),
        (
            _,
            Resource::Live
            | Resource::Ready
            | Resource::File(_)
            | Resource::Explain(_)
            | Resource::Metrics
            | Resource::Stats,
        ) => Ok(Asked::Server(route.resource)),
        _ => read(route.resource, by, caller, request, origin).map(Asked::Read),
    }
}

/// The JSON object of a body; no body is an empty one.
fn body(route: Route, request: &Request<'_>) -> Result<Map<String, Value>, Reply> {
    if request.body.is_empty() {
        return Ok(Map::new());
    }
    media_type(route, request)?;
    if is_form(request) {
        return form(request.body);
    }
    match json::parse(request.body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Reply::invalid(json!({ "detail": "Invalid data. Expected a dictionary." }))),
        Err(e) => Err(Reply::invalid(json!({ "detail": format!("JSON parse error - {e}") }))),
    }
}

/// 415 for a body that does not say it is JSON; a login may be a form too. Judged on the head, before 413.
pub fn media_type(route: Route, request: &Request<'_>) -> Result<(), Reply> {
    match request.content_type() {
        Some(media_type) if media_type.eq_ignore_ascii_case("application/json") => Ok(()),
        _ if route.resource.is_sign_in() && is_form(request) => Ok(()),
        other => Err(Reply::unsupported_media_type(other.unwrap_or_default())),
    }
}

fn is_form(request: &Request<'_>) -> bool {
    request
        .content_type()
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

/// As strict as JSON is read: UTF-8, no NUL, no name twice.
fn form(body: &[u8]) -> Result<Map<String, Value>, Reply> {
    let odd = |what: &str| Reply::invalid(json!({ "detail": format!("Form parse error - {what}") }));
    let text = std::str::from_utf8(body).map_err(|_| odd("not UTF-8"))?;
    let mut fields = Map::new();
    for (name, value) in form_pairs(text) {
        if name.contains('\0') || value.contains('\0') {
            return Err(odd("NUL in a string"));
        }
        if fields.insert(name.into_owned(), Value::String(value.into_owned())).is_some() {
            return Err(odd("a name stands twice"));
        }
    }
    Ok(fields)
}

fn write(resource: Resource, by: UserId, mut fields: Map<String, Value>) -> Result<Command, Reply> {
    match resource {
        Resource::Likes(property) => Ok(Command::ActOnProperty { by, property, likes: true, reason: reason(&fields)? }),
        Resource::Rejections(property) => {
            Ok(Command::ActOnProperty { by, property, likes: false, reason: reason(&fields)? })
        }
        Resource::ActOnMatch(id, act) => {
            let reason = if act == Act::OwnerAccept { None } else { reason(&fields)? };
            Ok(Command::ActOnMatch { by, id, act, reason })
        }
        Resource::MarkRead(which) => Ok(Command::MarkOneRead { by, which }),
        Resource::MarkAllRead => Ok(Command::MarkAllRead { by }),
        Resource::Notifications => notify(&fields),
        Resource::User(id) => {
            let directory::UserFields { user, is_active, password } =
                directory::user(&mut fields).map_err(field_error)?;
            Ok(Command::PutUser { id, user, is_active, password })
        }
        Resource::Property(id) => {
            Ok(Command::PutProperty { id, property: directory::property(&mut fields).map_err(field_error)? })
        }
        Resource::Matches => put_match(&fields),
        // `routes` lets no other resource be written.
        _ => Err(Reply::not_found("Not found.")),
    }
}

fn field_error(e: FieldError) -> Reply {
    Reply::invalid_field(&e.field, &e.problem)
}

fn reason(fields: &Map<String, Value>) -> Result<Option<String>, Reply> {
    match fields.get("reason") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= REASON_MAX => Ok(Some(text.clone())),
        Some(Value::String(_)) => {
            Err(Reply::invalid_field("reason", "Ensure this field has no more than 1000 characters."))
        }
        Some(_) => Err(Reply::invalid_field("reason", "Not a valid string.")),
    }
}

fn id(fields: &Map<String, Value>, name: &str) -> Result<i64, Reply> {
    let Some(value) = fields.get(name) else {
        return Err(Reply::invalid_field(name, "This field is required."));
    };
    positive(value).ok_or_else(|| Reply::invalid_field(name, "A valid integer is required."))
}

fn positive(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().filter(|n| *n > 0),
        Value::String(digits) => parse_id(digits),
        _ => None,
    }
}

/// A text of 1 to `max` characters without control characters other than line breaks and tabs; absent or null: `None`.
fn text(fields: &Map<String, Value>, name: &str, max: usize) -> Result<Option<String>, Reply> {
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(Reply::invalid_field(name, "This field may not be blank.")),
        Some(Value::String(text)) if text.chars().count() > max => {
            Err(Reply::invalid_field(name, &format!("Ensure this field has no more than {max} characters.")))
        }
        Some(Value::String(text)) if text.contains(odd) => Err(Reply::invalid_field(name, "Not a valid string.")),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Reply::invalid_field(name, "Not a valid string.")),
    }
}

fn notify(fields: &Map<String, Value>) -> Result<Command, Reply> {
    let to = recipients(fields)?;
    let channel = match fields.get("channel") {
        Some(Value::String(name)) => {
            Channel::parse(name).ok_or_else(|| Reply::invalid_field("channel", "Choose \"property\" or \"tenant\"."))?
        }
        Some(_) => return Err(Reply::invalid_field("channel", "Choose \"property\" or \"tenant\".")),
        None => return Err(Reply::invalid_field("channel", "This field is required.")),
    };
    let kind = text(fields, "notification_type", TYPE_MAX)?.unwrap_or_else(|| GENERAL.to_owned());
    if RESERVED_TYPES.contains(&kind.as_str()) {
        return Err(Reply::invalid_field("notification_type", "This type is reserved."));
    }
    let message = text(fields, "message", RECIPIENTS_BODY_MAX)?
        .ok_or_else(|| Reply::invalid_field("message", "This field is required."))?;
    let title = text(fields, "title", TITLE_MAX)?.unwrap_or_default();
    let data = match fields.get("data") {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::Object(data)) => super::frames::encode(data),
        Some(_) => return Err(Reply::invalid_field("data", "Expected a dictionary.")),
    };
    Ok(Command::Notify { to, channel, general: General { kind, title, message, data } })
}

/// Exactly one of `user` and `users`; each user once.
fn recipients(fields: &Map<String, Value>) -> Result<Recipients, Reply> {
    let uuid = match fields.get("notification_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.len() == 36 && Uuid::try_parse(text).is_ok() => Uuid::try_parse(text).ok(),
        Some(_) => return Err(Reply::invalid_field("notification_id", "Must be a valid UUID.")),
    };
    match (fields.get("user"), fields.get("users")) {
        (Some(_), Some(_)) => Err(Reply::invalid_field("users", "Give user or users, not both.")),
        (None, None) => Err(Reply::invalid_field("user", "This field is required.")),
        (Some(_), None) => Ok(Recipients::One(UserId(id(fields, "user")?), uuid)),
        (None, Some(_)) if uuid.is_some() => {
            Err(Reply::invalid_field("notification_id", "Only together with user, not with users."))
        }
        (None, Some(Value::Array(list))) if (1..=RECIPIENTS_MAX).contains(&list.len()) => {
            let (mut users, mut seen) = (Vec::with_capacity(list.len()), HashSet::with_capacity(list.len()));
            for entry in list {
                let user = positive(entry).map(UserId);
                let user = user.ok_or_else(|| Reply::invalid_field("users", "A valid integer is required."))?;
                if seen.insert(user) {
                    users.push(user);
                }
            }
            Ok(Recipients::Many(users))
        }
        (None, Some(_)) => Err(Reply::invalid_field("users", "Expected a list of 1 to 10000 user ids.")),
    }
}

fn put_match(fields: &Map<String, Value>) -> Result<Command, Reply> {
    let score = match fields.get("score") {
        Some(Value::Number(number)) => number.as_f64().filter(|score| score.is_finite()),
        Some(_) => None,
        None => return Err(Reply::invalid_field("score", "This field is required.")),
    };
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => None,
        Some(Value::Object(metadata)) => Some(super::frames::encode(metadata)),
        Some(_) => return Err(Reply::invalid_field("metadata", "Expected a dictionary.")),
    };
    Ok(Command::PutMatch {
        property: PropertyId(id(fields, "property")?),
        tenant: UserId(id(fields, "tenant")?),
        score: score.ok_or_else(|| Reply::invalid_field("score", "A valid number is required."))?,
        metadata,
    })
}

fn read(resource: Resource, of: UserId, caller: Caller, request: &Request<'_>, origin: &str) -> Result<Query, Reply> {
    let page = || PageRequest::parse(format!("{origin}{}", request.path), request.query);
    // An empty parameter is an absent one.
    let parameter = |name: &str| request.query(name).filter(|value| !value.is_empty());
    Ok(match resource {
        Resource::Notifications => {
            let is_read = request.query("is_read");
            Query::Notifications { of, filter: notification_filter(is_read.as_deref(), parameter)?, page: page()? }
        }
        Resource::Notification(which) => Query::Notification { of, which },
        Resource::NotificationSummary => Query::NotificationSummary { of },
        Resource::MyMatches => {
            let status = match parameter("status") {
                None => None,
                Some(name) => Some(
                    ["suggested", "pending", "accepted", "rejected"]
                        .into_iter()
                        .find(|known| *known == name)
                        .ok_or_else(|| Reply::invalid_field("status", "Select a valid choice."))?,
                ),
            };
            only_property_matches(parameter)?;
            Query::MyMatches { of, status, page: page()? }
        }
        Resource::PendingRequests => {
            only_property_matches(parameter)?;
            Query::PendingRequests { of, page: page()? }
        }
        Resource::Match(id) => Query::Match { of, id },
        Resource::Properties => Query::Properties { page: page()? },
        Resource::Property(id) => Query::Property { id, only_active: caller != Caller::Service },
        Resource::Me => Query::User { id: of },
        Resource::User(id) => Query::User { id },
        _ => return Err(Reply::not_found("Not found.")),
    })
}

/// Every match here is one of a property; the app says so in `type`.
fn only_property_matches<T: AsRef<str>>(parameter: impl Fn(&str) -> Option<T>) -> Result<(), Reply> {
    match parameter("type") {
        Some(kind) if kind.as_ref() != "property" => Err(Reply::invalid_field("type", "Select a valid choice.")),
        _ => Ok(()),
    }
}

fn notification_filter<T: AsRef<str>>(
    is_read: Option<&str>,
    parameter: impl Fn(&str) -> Option<T>,
) -> Result<NotificationFilter, Reply> {
    let is_read = match is_read {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(Reply::invalid_field("is_read", "Must be true or false.")),
    };
    let channel = match parameter("channel") {
        None => None,
        Some(name) => Some(
            Channel::parse(name.as_ref())
                .ok_or_else(|| Reply::invalid_field("channel", "Choose \"property\" or \"tenant\"."))?,
        ),
    };
    let kind = parameter("type").map(|kind| kind.as_ref().to_owned());
    Ok(NotificationFilter { is_read, kind, channel })
}
