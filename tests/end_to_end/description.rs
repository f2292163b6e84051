//! The two descriptions against the code: neither says more than the other does.

use crate::described::{ASYNCAPI, Document, OPENAPI, each_object, header, step};
use crate::server::Server;
use habittod::api::frames::{self, Complaint, WhatWasRead};
use habittod::api::message::{self, Message};
use habittod::api::routes::{Access, Door, route};
use habittod::http::Method;
use habittod::matching::{PropertyId, UserId};
use habittod::notification::{Channel, Contact, Content, General, Home, Notification, NotificationId, Person};
use habittod::notification::{GENERAL, RESERVED_TYPES};
use habittod::web::File;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

const METHODS: [(&str, Method); 5] = [
    ("get", Method::Get),
    ("put", Method::Put),
    ("post", Method::Post),
    ("delete", Method::Delete),
    ("patch", Method::Patch),
];

/// The text literals of a source file that begin like this.
fn literals<'a>(source: &'a str, start: &str) -> BTreeSet<&'a str> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    code.split('"').skip(1).step_by(2).filter(|literal| literal.starts_with(start)).collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let mut templates = literals(include_str!("../../src/api/routes.rs"), "/");
    // The page loads more files; they are its own business.
    templates.extend([File::Page, File::Client, File::Hook, File::OpenApi, File::AsyncApi].map(File::path));
    let (sockets, http): (BTreeSet<&str>, BTreeSet<&str>) = templates.iter().partition(|path| path.starts_with("/ws/"));
    // The operator's listener has routes of its own.
    let is_public = |path: &&str| {
        let path = path.replace("{id}", "7");
        METHODS.iter().any(|(_, method)| route(Door::Public, true, *method, &path).is_ok())
    };
    let http: BTreeSet<&str> = http.into_iter().filter(is_public).collect();
    let described = OPENAPI.json["paths"].as_object().unwrap();
    assert_eq!(described.keys().map(String::as_str).collect::<BTreeSet<_>>(), http);
    let channels = ASYNCAPI.json["channels"].as_object().unwrap();
    assert_eq!(channels.values().map(|c| c["address"].as_str().unwrap()).collect::<BTreeSet<_>>(), sockets);

    for path in http {
        for (verb, method) in METHODS {
            let operation = &described[path][verb];
            let Ok(route) = route(Door::Public, true, method, &path.replace("{id}", "7")) else {
                assert_eq!(operation, &Value::Null, "{verb} {path}");
                continue;
            };
            assert_eq!(route.resource.template(), path);
            let security = match route.access {
                Access::Anyone => json!([]),
                Access::User => json!([{"userToken": []}]),
                Access::Service => json!([{"serviceToken": []}]),
                Access::UserOrService => json!([{"userToken": []}, {"serviceToken": []}]),
            };
            assert_eq!(operation["security"], security, "{verb} {path}");
            holds_its_parameters(path, verb);
        }
    }
}

/// Ids in the path; a key on each POST but a sign-in's.
fn holds_its_parameters(path: &str, verb: &str) {
    let operation = format!("/paths{}/{verb}", step(path));
    let count = OPENAPI.at(&operation).unwrap()["parameters"].as_array().map_or(0, Vec::len);
    let parameters: Vec<&Value> =
        (0..count).map(|place| OPENAPI.at(&format!("{operation}/parameters/{place}")).unwrap()).collect();
    let has = |name: &str, place: &str| parameters.iter().any(|p| p["name"] == name && p["in"] == place);
    assert_eq!(has("id", "path"), path.contains("{id}"), "{path}");
    let takes_key = verb == "post" && !["/api/login/", "/api/refresh/"].contains(&path);
    assert_eq!(has("Idempotency-Key", "header"), takes_key, "{path}");
    assert_eq!(OPENAPI.at(&format!("{operation}/responses/422")).is_some(), takes_key, "{path}");
    assert_eq!(has("page", "query"), has("page_size", "query"), "{path}");
}

fn references(document: &Document) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    each_object(&mut document.json.clone(), &mut |object| {
        found.extend(object.get("$ref").and_then(Value::as_str).map(|reference| reference[1..].to_owned()));
    });
    found
}

#[test]
fn the_documents_are_whole_and_agree() {
    for document in [&*OPENAPI, &*ASYNCAPI] {
        let used = references(document);
        for reference in &used {
            assert!(document.at(reference).is_some(), "{reference} leads nowhere");
        }
        for (section, entries) in document.json["components"].as_object().unwrap() {
            for name in entries.as_object().unwrap().keys().filter(|_| section != "securitySchemes") {
                let pointer = format!("/components/{section}/{name}");
                assert!(used.contains(&pointer), "{pointer} is not used");
            }
        }
    }
    let both = |name: &str| {
        (OPENAPI.at(&format!("/components/schemas/{name}")), ASYNCAPI.at(&format!("/components/schemas/{name}")))
    };
    let mut shared = 0;
    for name in ASYNCAPI.json["components"]["schemas"].as_object().unwrap().keys() {
        if let (Some(one), Some(other)) = both(name) {
            assert_eq!(one, other, "{name}");
            shared += 1;
        }
    }
    assert!(shared >= 9, "{shared}");
}

#[test]
fn every_example_is_one() {
    let mut examples = 0;
    for (path, item) in OPENAPI.json["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            let here = format!("/paths{}/{verb}", step(path));
            let mut bodies = vec![format!("{here}/requestBody")];
            bodies.extend(operation["responses"].as_object().unwrap().keys().map(|s| format!("{here}/responses/{s}")));
            for body in bodies {
                examples += usize::from(holds_example(&body));
            }
        }
    }
    for name in OPENAPI.json["components"]["responses"].as_object().unwrap().keys() {
        examples += usize::from(holds_example(&format!("/components/responses/{name}")));
    }
    assert!(examples > 50, "{examples}");
}

fn holds_example(pointer: &str) -> bool {
    let media = format!("{pointer}/content/application~1json");
    let Some(example) = OPENAPI.json.pointer(&media).and_then(|media| media.get("example")) else { return false };
    OPENAPI.hold(&format!("{media}/schema"), example, pointer);
    true
}

fn examples(name: &str) -> Vec<String> {
    let message = &ASYNCAPI.json["components"]["messages"][name];
    message["examples"].as_array().unwrap().iter().map(|example| example["payload"].to_string()).collect()
}

const AT_MS: i64 = 1_705_314_600_000;

fn uuid(first: char) -> Uuid {
    format!("{first}{first}0e8400-e29b-41d4-a716-446655440000").parse().unwrap()
}

fn frame(first: char, content: Content) -> String {
    frames::notification(&Notification {
        id: NotificationId(1),
        uuid: uuid(first),
        user: UserId(1),
        channel: Channel::Property,
        content,
        created_ms: AT_MS,
        delivered_ms: None,
        read_ms: None,
    })
}

/// What the code sends, byte for byte what the description shows.
fn sent() -> Vec<(&'static str, Vec<String>)> {
    let home = || Home { id: PropertyId(123), kind: "departamento".into(), address: "Av. Siempre Viva 123".into() };
    let owner = || Contact { email: "owner@example.com".into(), phone: "+1234567890".into() };
    let tenant = Person {
        id: UserId(456),
        username: "juan_perez".into(),
        email: "juan@example.com".into(),
        first_name: "Juan".into(),
        last_name: "Perez".into(),
        phone: "+1234567890".into(),
        user_type: "inquilino".into(),
    };
    let general = General {
        kind: GENERAL.to_owned(),
        title: String::new(),
        message: "Tu contrato está listo para firmar.".to_owned(),
        data: r#"{"contract":7}"#.to_owned(),
    };
    let (one, other) = (uuid('5'), uuid('6'));
    let accepted = Content::MatchAccepted { home: home(), owner: owner(), tenant_username: String::new() };
    let to_tenant =
        Content::MatchAcceptedByOwner {
            home: home(), owner_name: "María García".into(), owner: owner(), score: 85.5
        };
    let read = |what, unread| frames::notification_read(&what, unread, AT_MS);
    vec![
        ("PropertyLike", vec![frame('5', Content::PropertyLike { home: home(), tenant, score: 0.0 })]),
        ("MatchAccepted", vec![frame('6', accepted)]),
        ("MatchAcceptedByOwner", vec![frame('7', to_tenant)]),
        ("MatchRejectedByOwner", vec![frame('8', Content::MatchRejectedByOwner { home: home() })]),
        ("General", vec![frame('9', Content::General(Arc::new(general)))]),
        (
            "ConnectionEstablished",
            vec![
                frames::connection_established(Channel::Property, AT_MS, 3, "pong", 0),
                frames::connection_established(Channel::Tenant, AT_MS, 1_500, "pong", 500),
            ],
        ),
        (
            "NotificationRead",
            vec![
                read(WhatWasRead::One(one), 2),
                read(WhatWasRead::Many(vec![one, other]), 1),
                read(WhatWasRead::All, 0),
            ],
        ),
        ("Pong", vec![frames::pong(AT_MS)]),
        (
            "Error",
            vec![
                frames::error(Complaint::InvalidJson, &[]),
                frames::error(Complaint::NotFound, &[one]),
                frames::error(Complaint::NotFound, &[one, other]),
            ],
        ),
        ("AuthOk", vec![frames::auth_ok(AT_MS)]),
        ("TokenExpiring", vec![frames::token_expiring(AT_MS)]),
    ]
}

#[test]
fn what_the_server_sends_is_described_byte_for_byte() {
    for (name, frames) in sent() {
        assert_eq!(examples(name), frames, "{name}");
        for frame in frames {
            ASYNCAPI.hold(&format!("/components/schemas/{name}"), &serde_json::from_str(&frame).unwrap(), name);
        }
    }
    let messages = ASYNCAPI.json["components"]["messages"].as_object().unwrap();
    let described: BTreeSet<&str> = messages.values().map(|message| message["name"].as_str().unwrap()).collect();
    let known: BTreeSet<&str> = RESERVED_TYPES.into_iter().chain([GENERAL]).collect();
    assert_eq!(described, known);
    let source = include_str!("../../src/api/frames.rs");
    let codes: BTreeSet<&str> =
        source.split("Self::").filter_map(|arm| arm.split_once(" => \"")?.1.split('"').next()).collect();
    let described = &ASYNCAPI.json["components"]["schemas"]["Error"]["properties"]["code"]["enum"];
    for code in described.as_array().unwrap() {
        assert!(codes.contains(code.as_str().unwrap()), "{code}");
    }
    let of_code = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert_eq!(codes.iter().filter(|code| of_code(code)).count(), described.as_array().unwrap().len());
}

#[test]
fn what_the_server_takes_is_described() {
    let taken: Vec<&str> = ["Ping", "MarkRead", "Ack", "Auth"].to_vec();
    for name in &taken {
        for example in examples(name) {
            ASYNCAPI.hold(&format!("/components/schemas/{name}"), &serde_json::from_str(&example).unwrap(), name);
            let understood = message::parse(&example).unwrap();
            let fits = match *name {
                "Ping" => understood == Message::Ping,
                "MarkRead" => matches!(understood, Message::MarkRead { .. } | Message::MarkAllRead),
                "Ack" => matches!(understood, Message::Ack(_)),
                _ => matches!(understood, Message::Auth(_)),
            };
            assert!(fits, "{example}");
        }
    }
    let source = include_str!("../../src/api/message.rs").split("#[cfg(test)]").next().unwrap();
    let types: BTreeSet<&str> = source.split("Some(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let names = taken.iter().map(|name| ASYNCAPI.json["components"]["messages"][*name]["name"].as_str().unwrap());
    assert_eq!(types, names.collect());
    let most = &ASYNCAPI.json["components"]["schemas"]["MarkRead"]["properties"]["notification_ids"]["maxItems"];
    assert_eq!(most, message::MARK_READ_MAX);
    let users = &OPENAPI.json["components"]["schemas"]["NotificationIn"]["properties"]["users"]["maxItems"];
    assert_eq!(users, habittod::api::requests::RECIPIENTS_MAX);
}

#[test]
fn whoever_has_a_description_is_not_sent_it_again() {
    let server = Server::start();
    for description in [File::OpenApi, File::AsyncApi] {
        let ask = |method: &str, more: &str| {
            let head = format!(
                "{method} {} HTTP/1.1\r\nHost: h\r\nOrigin: http://a\r\nConnection: close\r\n{more}\r\n",
                description.path()
            );
            server.raw(head.as_bytes()).unwrap()
        };
        let fresh = ask("GET", "");
        assert_eq!((fresh.status, &fresh.body), (200, &serde_json::from_slice(description.body()).unwrap()));
        assert_eq!(header(&fresh.head, "access-control-allow-origin"), Some("*"));
        let tag = header(&fresh.head, "etag").unwrap();
        assert_eq!(ask("GET", &format!("If-None-Match: {tag}\r\n")).status, 304);
        assert_eq!(ask("GET", "If-None-Match: \"other\"\r\n").status, 200);
        assert_eq!(ask("HEAD", "").status, 200);
        let preflight = ask("OPTIONS", "");
        assert_eq!((preflight.status, header(&preflight.head, "allow")), (204, Some("GET, HEAD, OPTIONS")));
    }
}
