//! Who may do what: every operation and every message of a socket, tried by everybody. What is not in a table here
//! fails the test, and so does a refused act that left a trace.

use crate::described::{ASYNCAPI, OPENAPI};
use crate::device::Device;
use crate::server::{SECRET, Server, service, user};
use habittod::auth::Signer;
use habittod::clock::Clock;
use habittod::matching::UserId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

const OWNER: i64 = 1;
const TENANT: i64 = 2;
const STRANGER: i64 = 3;
const AGENT: i64 = 4;
const DEACTIVATED: i64 = 5;
const DELETED: i64 = 6;

/// Operation, and the statuses of owner, agent, tenant, stranger and service. Whoever has no good token gets 401; where
/// nobody needs one, all get the same.
const TABLE: [(&str, [u16; 5]); 33] = [
    ("get /api/properties/", [200, 200, 200, 200, 403]),
    ("get /api/properties/{id}/", [200, 200, 200, 200, 200]),
    ("put /api/properties/{id}/", [403, 403, 403, 403, 200]),
    ("delete /api/properties/{id}/", [403, 403, 403, 403, 204]),
    ("post /api/properties/{id}/like/", [400, 400, 200, 200, 403]),
    ("post /api/properties/{id}/reject/", [400, 400, 200, 200, 403]),
    ("put /api/matches/", [403, 403, 403, 403, 200]),
    ("get /api/matches/my/", [200, 200, 200, 200, 403]),
    ("get /api/matches/pending_requests/", [200, 200, 200, 200, 403]),
    ("get /api/matches/{id}/", [200, 200, 200, 404, 403]),
    ("post /api/matches/{id}/owner_accept/", [200, 200, 403, 403, 403]),
    ("post /api/matches/{id}/owner_reject/", [200, 200, 403, 403, 403]),
    ("post /api/matches/{id}/like/", [403, 403, 200, 403, 403]),
    ("post /api/matches/{id}/accept/", [403, 403, 200, 403, 403]),
    ("post /api/matches/{id}/reject/", [200, 200, 200, 403, 403]),
    ("get /api/notifications/", [200, 200, 200, 200, 403]),
    ("post /api/notifications/", [403, 403, 403, 403, 201]),
    ("get /api/notifications/my/", [200, 200, 200, 200, 403]),
    ("post /api/notifications/mark_all_as_read/", [200, 200, 200, 200, 403]),
    ("get /api/notifications/{id}/", [200, 404, 404, 404, 403]),
    ("post /api/notifications/{id}/mark_as_read/", [200, 404, 404, 404, 403]),
    ("get /api/users/me/", [200, 200, 200, 200, 403]),
    ("get /api/users/{id}/", [403, 403, 403, 403, 200]),
    ("put /api/users/{id}/", [403, 403, 403, 403, 200]),
    ("delete /api/users/{id}/", [403, 403, 403, 403, 204]),
    ("get /health/live", [200; 5]),
    ("get /health/ready", [200; 5]),
    ("get /api/openapi.json", [200; 5]),
    ("get /api/asyncapi.json", [200; 5]),
    ("get /", [200; 5]),
    ("get /client/habitto.js", [200; 5]),
    ("get /client/useHabittoWebSocket.js", [200; 5]),
    // Without a body: whoever asks hears which fields are missing.
    ("post /api/login/ and /api/refresh/", [400; 5]),
];

struct Role {
    token: Option<String>,
    /// Its column of the table; `None` for who has no good token.
    column: Option<usize>,
}

fn roles() -> Vec<(&'static str, Role)> {
    let (signer, now_ms) = (Signer::from_secret(SECRET.as_bytes()).unwrap(), Clock::start().now().wall_ms);
    let hour = Duration::from_secs(3_600);
    let expired = signer.access(UserId(OWNER), now_ms - 7_200_000, hour);
    let refresh = signer.refresh(UserId(OWNER), Uuid::new_v4(), Uuid::new_v4(), now_ms, hour);
    let good = |column, token| Role { token: Some(token), column: Some(column) };
    let bad = |token| Role { token, column: None };
    vec![
        ("owner", good(0, user(OWNER))),
        ("agent", good(1, user(AGENT))),
        ("tenant", good(2, user(TENANT))),
        ("stranger", good(3, user(STRANGER))),
        ("service", good(4, service())),
        ("deactivated user", bad(Some(user(DEACTIVATED)))),
        ("deleted user", bad(Some(user(DELETED)))),
        ("expired token", bad(Some(expired))),
        ("no token", bad(None)),
        ("refresh token", bad(Some(refresh))),
    ]
}

/// A property of its own for each cell, asked for by the tenant: what a cell does is nobody else's.
struct World {
    server: Server,
    property: i64,
}

impl World {
    fn new() -> Self {
        let server = Server::start();
        for id in 1..=6 {
            let body = json!({"username": format!("user{id}"), "is_active": id != DEACTIVATED});
            assert_eq!(server.call("PUT", &format!("/api/users/{id}/"), &service(), body).status, 201);
        }
        assert_eq!(server.call("DELETE", "/api/users/6/", &service(), Value::Null).status, 204);
        Self { server, property: 100 }
    }

    fn data(&self, path: &str, who: i64) -> Value {
        let reply = self.server.call("GET", path, &user(who), Value::Null);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.body["data"].clone()
    }

    /// A property; the match that the tenant's like made, and what the owner was told.
    fn asked_for(&mut self) -> (i64, i64, Value) {
        self.property += 1;
        let property = self.property;
        let body = json!({"owner": OWNER, "agent": AGENT, "type": "casa", "address": "x"});
        assert_eq!(self.server.call("PUT", &format!("/api/properties/{property}/"), &service(), body).status, 201);
        let liked = self.server.call("POST", &format!("/api/properties/{property}/like/"), &user(TENANT), Value::Null);
        let told = self.data("/api/notifications/?page_size=1", OWNER)["results"][0].clone();
        assert_eq!(told["data"]["property_id"], property);
        (property, liked.body["data"]["match_id"].as_i64().unwrap(), told)
    }

    fn person(&self, id: i64) -> i64 {
        let body = json!({"username": "somebody"});
        assert_eq!(self.server.call("PUT", &format!("/api/users/{id}/"), &service(), body).status, 201);
        id
    }
}

/// What everybody can see of a cell's things: a refused act leaves it as it was.
fn state(world: &World, property: i64, one_match: i64, told: &Value) -> Value {
    let row = format!("/api/notifications/{}/", told["notification_id"].as_str().unwrap());
    json!([
        world.data(&format!("/api/matches/{one_match}/"), TENANT),
        world.data(&format!("/api/properties/{property}/"), STRANGER),
        world.data(&row, OWNER),
        world.data("/api/notifications/my/", OWNER),
        world.data("/api/notifications/my/", TENANT),
    ])
}

#[test]
fn every_operation_by_everybody() {
    let mut described = BTreeSet::new();
    for (path, item) in OPENAPI.json["paths"].as_object().unwrap() {
        described.extend(item.as_object().unwrap().keys().map(|verb| format!("{verb} {path}")));
    }
    let named = TABLE.iter().flat_map(|(row, _)| match row.split_once(" and ") {
        Some((one, other)) => vec![(*one).to_owned(), format!("post {other}")],
        None => vec![(*row).to_owned()],
    });
    assert_eq!(described, named.collect());

    let mut world = World::new();
    for (row, statuses) in TABLE {
        for operation in row.split(" and ") {
            let (verb, path) = operation.split_once(' ').unwrap_or(("post", operation));
            for (name, role) in roles() {
                let open = OPENAPI.json["paths"][path][verb]["security"] == json!([]);
                let expected = role.column.map_or(if open { statuses[0] } else { 401 }, |column| statuses[column]);
                cell(&mut world, verb, path, name, &role, expected);
            }
        }
    }
}

fn cell(world: &mut World, verb: &str, path: &str, name: &str, role: &Role, expected: u16) {
    let (property, one_match, told) = world.asked_for();
    let id = match path.split('/').nth(2) {
        Some("properties") => property,
        Some("matches") => one_match,
        Some("notifications") => told["id"].as_i64().unwrap(),
        _ if path == "/api/users/{id}/" => world.person(1_000 + property),
        _ => 0,
    };
    let body = match (verb, path) {
        ("put", "/api/matches/") => json!({"property": property, "tenant": TENANT, "score": 50}),
        ("put", "/api/users/{id}/") => json!({"username": "other"}),
        ("put", _) => json!({"owner": OWNER, "agent": AGENT, "type": "casa", "address": "y"}),
        ("post", "/api/notifications/") => json!({"user": STRANGER, "channel": "tenant", "message": "m"}),
        _ => Value::Null,
    };
    let before = state(world, property, one_match, &told);
    let path = path.replace("{id}", &id.to_string());
    let body = if body.is_null() { None } else { Some(&body) };
    let reply = world.server.try_call(&verb.to_uppercase(), &path, role.token.as_deref(), body).unwrap();
    assert_eq!(reply.status, expected, "{verb} {path} by {name}: {}", reply.body);
    if expected >= 400 {
        assert_eq!(state(world, property, one_match, &told), before, "{verb} {path} by {name} left a trace");
    }
    if let (Some(column), Some(results)) = (role.column, reply.body["data"]["results"].as_array()) {
        let me = [OWNER, AGENT, TENANT, STRANGER][column];
        for result in results {
            let whose = result.get("user").or_else(|| result.get("target_user"));
            assert!(whose.is_none_or(|user| *user == me), "{path} shows {name} {result}");
            assert!(result.get("interested_user").is_none() || [OWNER, AGENT].contains(&me), "{path} by {name}");
        }
    }
}

#[test]
fn every_channel_by_everybody() {
    let world = World::new();
    for channel in ["property", "tenant"] {
        for (name, role) in roles() {
            let expected = match role.column {
                Some(0) => None,
                Some(_) => Some(403),
                None => Some(401),
            };
            let token = role.token.as_deref().unwrap_or_default();
            let status = Device::connect(&world.server, channel, OWNER, token, "").err();
            assert_eq!(status, expected, "the {channel} channel of the owner by {name}");
        }
    }
}

/// A message about the owner's notification, and what owner, agent, tenant and stranger hear: a type, or the code of an
/// `error`; nothing, where there is no answer.
fn messages(id: &str) -> Vec<(&'static str, Value, [&'static str; 4])> {
    let not_theirs = ["notification_read", "not_found", "not_found", "not_found"];
    vec![
        ("ping", json!({"type": "ping"}), ["pong"; 4]),
        ("ack", json!({"type": "ack", "notification_id": id}), ["", "not_found", "not_found", "not_found"]),
        (
            "auth",
            json!({"type": "auth", "token": user(OWNER)}),
            ["auth_ok", "invalid_token", "invalid_token", "invalid_token"],
        ),
        ("mark_read", json!({"type": "mark_read", "notification_id": id}), not_theirs),
        ("mark_read", json!({"type": "mark_read", "all": true}), ["notification_read"; 4]),
    ]
}

#[test]
fn every_message_by_everybody() {
    let mut world = World::new();
    let (.., told) = world.asked_for();
    let id = told["notification_id"].as_str().unwrap();
    let row = format!("/api/notifications/{id}/");
    for operation in ["hearKeeper", "hearTenant"] {
        let taken = ASYNCAPI.json["operations"][operation]["messages"].as_array().unwrap();
        let described: BTreeSet<&str> = (0..taken.len())
            .map(|place| ASYNCAPI.at(&format!("/operations/{operation}/messages/{place}")).unwrap())
            .map(|message| message["name"].as_str().unwrap())
            .collect();
        assert_eq!(described, messages(id).iter().map(|(name, ..)| *name).collect());
    }

    // The others first: after them the owner's row is as it was.
    for (place, who) in [OWNER, AGENT, TENANT, STRANGER].into_iter().enumerate().rev() {
        let mut device = world.server.connect("property", who);
        device.all();
        for (name, message, heard) in messages(id) {
            device.send(&message);
            if heard[place].is_empty() {
                continue;
            }
            let answer = device.next().unwrap();
            let of = answer.get("code").unwrap_or_else(|| &answer["type"]);
            assert_eq!(of, heard[place], "{name} by {who}");
            let foreign = of == "notification_read" && who != OWNER && answer["all"] != true;
            assert!(!foreign, "{who} hears of what was read by others: {answer}");
        }
        assert_eq!(device.all(), Vec::<Value>::new(), "{who}");
        if who != OWNER {
            let row = world.data(&row, OWNER);
            assert_eq!((&row["is_read"], &row["delivered_at"]), (&json!(false), &Value::Null), "after {who}");
        }
    }
    assert_eq!(world.data(&row, OWNER)["is_read"], true);
}
