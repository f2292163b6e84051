//! Owns the two descriptions as a judge: every answer and every message of a running server that the tests see is held
//! against them, whatever else the test is about. Never lets pass what they do not say. Enter at [`answer`] and
//! [`message`].

use habittod::api::routes::{Door, Resource, route};
use habittod::http::Method;
use habittod::web::File;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

pub(crate) static OPENAPI: LazyLock<Document> = LazyLock::new(|| Document::of(File::OpenApi));
pub(crate) static ASYNCAPI: LazyLock<Document> = LazyLock::new(|| Document::of(File::AsyncApi));

pub(crate) struct Document {
    /// As published.
    pub(crate) json: Value,
    /// Without room for fields that it does not name: what the tests hold the server to.
    closed: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Document {
    fn of(file: File) -> Self {
        let json: Value = serde_json::from_slice(file.body()).unwrap();
        let mut closed = json.clone();
        close(&mut closed);
        Self { json, closed, validators: Mutex::default() }
    }

    /// What a JSON pointer names, references followed.
    pub(crate) fn at(&self, pointer: &str) -> Option<&Value> {
        let found = self.json.pointer(pointer)?;
        match found["$ref"].as_str() {
            Some(reference) => self.at(reference.strip_prefix('#')?),
            None => Some(found),
        }
    }

    /// Whether the schema at `pointer` takes `value`; `what` is for people.
    pub(crate) fn hold(&self, pointer: &str, value: &Value, what: &str) {
        let validator = Arc::clone(self.validators.lock().unwrap().entry(pointer.to_owned()).or_insert_with(|| {
            let mut schema = self.closed.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone();
            schema["components"] = self.closed["components"].clone(); // where its references lead
            Arc::new(jsonschema::options().should_validate_formats(true).build(&schema).unwrap())
        }));
        let problems: Vec<String> =
            validator.iter_errors(value).map(|e| format!("{} at {}", e, e.instance_path())).collect();
        assert!(problems.is_empty(), "{what} is not as {pointer} says: {problems:#?}\n{value:#}");
    }

    /// The name of the message with this `type`, of those that the server sends or takes.
    pub(crate) fn message_of(&self, kind: &str) -> Option<&str> {
        let messages = self.json["components"]["messages"].as_object()?;
        messages.iter().find(|(_, message)| message["name"] == kind).map(|(name, _)| name.as_str())
    }
}

/// An object whose fields are named has no others, unless it says so.
fn close(document: &mut Value) {
    each_object(document, &mut |object| {
        if object.get("type") == Some(&json!("object")) && object.contains_key("properties") {
            object.entry("additionalProperties").or_insert(json!(false));
        }
    });
}

pub(crate) fn each_object(value: &mut Value, change: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|inner| each_object(inner, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| each_object(inner, change)),
        _ => {}
    }
}

/// One step of a JSON pointer.
pub(crate) fn step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// An answer to a request whose first line is `line`: its status, headers and body are those of its operation.
pub(crate) fn answer(line: &str, status: u16, head: &str, body: &str) {
    let mut words = line.split(' ');
    let (verb, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let method = match verb {
        "GET" | "HEAD" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    };
    let path = target.split('?').next().unwrap_or_default();
    let what = format!("the answer {status} to {verb} {path}");
    let documented = match route(Door::Public, true, method, path) {
        _ if verb == "OPTIONS" && status == 204 => {
            return holds_headers("/components/responses/MethodNotAllowed", head);
        }
        Ok(route) if !matches!(route.resource, Resource::Socket(..)) && method != Method::Options => {
            let operation = format!("/paths{}/{}", step(route.resource.template()), verb_of(method));
            format!("{operation}/responses/{status}")
        }
        _ if matches!(status, 101 | 426) => return,
        _ => format!("/components/responses/{}", refusal(status).unwrap_or_else(|| panic!("{what}"))),
    };
    let response = OPENAPI.at(&documented).unwrap_or_else(|| panic!("{what} is not in the description: {body}"));
    holds_headers(&documented, head);
    let Some(content) = response["content"].as_object() else {
        return assert_eq!(body, "", "{what}");
    };
    let sent = header(head, "content-type").unwrap_or_default();
    let media_type = sent.split(';').next().unwrap_or_default();
    assert!(content.contains_key(media_type), "{what}: {sent}");
    if media_type == "application/json" && verb != "HEAD" {
        let pointer = pointer_of(&documented) + "/content/application~1json/schema";
        OPENAPI.hold(&pointer, &serde_json::from_str(body).unwrap_or_else(|e| panic!("{what}: {e}")), &what);
    }
}

fn verb_of(method: Method) -> String {
    method.as_str().to_ascii_lowercase()
}

/// Where a response is described, a reference followed.
fn pointer_of(pointer: &str) -> String {
    match OPENAPI.json.pointer(pointer).and_then(|found| found["$ref"].as_str()) {
        Some(reference) => reference.trim_start_matches('#').to_owned(),
        None => pointer.to_owned(),
    }
}

fn holds_headers(documented: &str, head: &str) {
    let headers = OPENAPI.at(documented).and_then(|response| response["headers"].as_object());
    for (name, described) in headers.into_iter().flatten() {
        let pointer = described["$ref"].as_str().unwrap().trim_start_matches('#');
        let sent = header(head, name).unwrap_or_else(|| panic!("no {name} in {head}"));
        let value = sent.parse::<u64>().map_or_else(|_| json!(sent), |number| json!(number));
        OPENAPI.hold(&format!("{pointer}/schema"), &value, name);
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// How the description calls a refusal that needs no operation.
fn refusal(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        408 => "RequestTimeout",
        413 => "ContentTooLarge",
        414 => "UriTooLong",
        429 => "TooManyRequests",
        431 => "HeadTooLarge",
        503 => "Unavailable",
        505 => "VersionNotSupported",
        _ => return None,
    })
}

/// A message of the server on a channel.
pub(crate) fn message(channel: &str, message: &Value) {
    let kind = message["type"].as_str().unwrap();
    let name = ASYNCAPI.message_of(kind).unwrap_or("General");
    let operation = if channel == "property" { "tellKeeper" } else { "tellTenant" };
    let reference = json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
    let sent = ASYNCAPI.json["operations"][operation]["messages"].as_array().unwrap();
    assert!(sent.contains(&reference), "{kind} on the {channel} channel");
    ASYNCAPI.hold(&format!("/components/schemas/{name}"), message, kind);
}
