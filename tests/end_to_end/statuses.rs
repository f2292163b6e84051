//! Every status that the description gives an operation, and no other: each is asked for here, but for those that take
//! time, a rate or a broken disk, which have tests of their own.

use crate::described::OPENAPI;
use crate::server::{Server, service, user};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A slow request, too many requests, a storage that fails.
const ELSEWHERE: [u16; 3] = [408, 429, 503];

struct Asked<'a> {
    server: &'a Server,
    seen: BTreeMap<String, BTreeSet<u16>>,
}

impl Asked<'_> {
    /// One request for an operation, "verb /path/with/{id}/"; what it got is noted.
    fn raw(&mut self, operation: &str, request: &str) -> (u16, Value) {
        let reply = self.server.raw(request.as_bytes()).unwrap();
        self.seen.entry(operation.to_owned()).or_default().insert(reply.status);
        (reply.status, reply.body)
    }

    fn call(&mut self, operation: &str, path: &str, token: &str, more: &str, body: &Value) -> (u16, Value) {
        let verb = operation.split(' ').next().unwrap().to_uppercase();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let typed = if body.is_empty() || more.contains("Content-Type") {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        };
        let bearer = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let head = format!("{verb} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{bearer}{typed}{more}\r\n");
        self.raw(operation, &(head + &body))
    }
}

/// What an operation needs: a user's token, the service's, or none.
fn token_of(operation: &Value) -> (String, String) {
    match operation["security"].as_array().unwrap().as_slice() {
        [] => (String::new(), String::new()),
        [one] if one.get("serviceToken").is_some() => (service(), user(2)),
        _ => (user(2), service()),
    }
}

#[test]
fn every_documented_status_is_given_and_no_other() {
    let server = Server::start_with(&[("HABITTOD_LIMITS_LOGINS_PER_MINUTE", "0")]);
    let without_login = Server::start_with(&[("HABITTOD_AUTH_LOGIN", "false")]);
    server.put_world();
    let mut asked = Asked { server: &server, seen: BTreeMap::new() };
    what_each_does(&mut asked);
    for (path, item) in OPENAPI.json["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            let name = format!("{verb} {path}");
            what_any_may_get(&mut asked, &name, &path.replace("{id}", "10"), operation);
            if operation["tags"] == json!(["sign-in"]) {
                let reply = without_login.try_call("POST", path, None, None).unwrap();
                asked.seen.get_mut(&name).unwrap().insert(reply.status);
            }
            let documented = operation["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap());
            let due: BTreeSet<u16> = documented.filter(|status| !ELSEWHERE.contains(status)).collect();
            assert_eq!(asked.seen[&name], due, "{name}");
        }
    }
}

/// The refusals that do not depend on what an operation does.
fn what_any_may_get(asked: &mut Asked<'_>, name: &str, path: &str, operation: &Value) {
    let (token, wrong) = token_of(operation);
    let verb = name.split(' ').next().unwrap().to_uppercase();
    let long = format!("X: {}\r\n", "a".repeat(17_000));
    assert_eq!(asked.call(name, path, &token, "Host: again\r\n", &Value::Null).0, 400);
    assert_eq!(asked.raw(name, &format!("PATCH {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).0, 405);
    let large = "Content-Type: application/json\r\nContent-Length: 300000\r\n";
    assert_eq!(asked.call(name, path, &token, large, &Value::Null).0, 413);
    assert_eq!(asked.call(name, &format!("{path}?{}", "a".repeat(9_000)), &token, "", &Value::Null).0, 414);
    assert_eq!(asked.call(name, path, &token, &long, &Value::Null).0, 431);
    assert_eq!(asked.raw(name, &format!("{verb} {path} HTTP/2.0\r\nHost: h\r\n\r\n")).0, 505);
    if operation["responses"].get("415").is_some() {
        let text = "Content-Type: text/plain\r\nContent-Length: 1\r\n";
        assert_eq!(asked.call(name, path, &token, text, &json!(1)).0, 415);
    }
    if operation["responses"].get("304").is_some() {
        assert_eq!(asked.call(name, path, "", "If-None-Match: *\r\n", &Value::Null).0, 304);
    }
    if !token.is_empty() {
        assert_eq!(asked.call(name, path, "", "", &Value::Null).0, 401);
        let refused = asked.call(name, path, &wrong, "", &Value::Null).0;
        assert!(refused == 403 || operation["security"].as_array().unwrap().len() == 2, "{name}: {refused}");
    }
    if operation["responses"].get("422").is_some() {
        let key = format!("Idempotency-Key: {}\r\n", path.replace('/', "-"));
        asked.call(name, path, &token, &key, &json!({"a": 1}));
        assert_eq!(asked.call(name, path, &token, &key, &json!({"a": 2})).0, 422);
    }
}

/// What an operation does when all is well, and where there is nothing to do it to.
fn what_each_does(asked: &mut Asked<'_>) {
    let (backend, owner, tenant) = (service(), user(1), user(2));
    let none = Value::Null;
    let home = json!({"owner": 1, "type": "casa", "address": "x"});
    let ana = json!({"username": "ana", "password": "secreto"});
    let pair = json!({"property": 10, "tenant": 2, "score": 50});
    let note = |to: i64| json!({"user": to, "channel": "tenant", "message": "m", "notification_id": format!("0197a2b4-0000-4000-8000-00000000000{to}")});
    let steps = [
        ("put /api/properties/{id}/", "20", &backend, home.clone(), [201, 200]),
        ("put /api/properties/{id}/", "01", &backend, home, [404, 404]),
        ("get /api/properties/{id}/", "20", &tenant, none.clone(), [200, 200]),
        ("delete /api/properties/{id}/", "20", &backend, none.clone(), [204, 404]),
        ("get /api/properties/{id}/", "20", &tenant, none.clone(), [404, 404]),
        ("put /api/users/{id}/", "5", &backend, ana.clone(), [201, 200]),
        ("put /api/users/{id}/", "01", &backend, ana.clone(), [404, 404]),
        ("get /api/users/{id}/", "5", &backend, none.clone(), [200, 200]),
        ("put /api/users/{id}/", "6", &backend, json!({"username": "x"}), [201, 200]),
        ("delete /api/users/{id}/", "6", &backend, none.clone(), [204, 404]),
        ("get /api/users/{id}/", "6", &backend, none.clone(), [404, 404]),
        ("put /api/matches/", "", &backend, pair, [201, 200]),
        ("put /api/matches/", "", &backend, json!({"property": 99, "tenant": 2, "score": 1}), [404, 404]),
        ("post /api/notifications/", "", &backend, note(3), [201, 200]),
        ("post /api/notifications/", "", &backend, note(6), [404, 404]),
        ("post /api/properties/{id}/like/", "10", &tenant, none.clone(), [200, 200]),
        ("get /api/users/me/", "", &tenant, none.clone(), [200, 200]),
        ("get /api/users/me/", "", &user(99), none.clone(), [404, 404]),
        ("get /api/notifications/my/", "", &owner, none.clone(), [200, 200]),
        ("post /api/notifications/mark_all_as_read/", "", &owner, none.clone(), [200, 200]),
        ("get /health/live", "", &String::new(), none.clone(), [200, 200]),
        ("get /health/ready", "", &String::new(), none.clone(), [200, 200]),
        ("post /api/login/", "", &String::new(), json!({"username": "ana", "password": "x"}), [401, 401]),
        ("post /api/refresh/", "", &String::new(), json!({"refresh": "x"}), [401, 401]),
    ];
    for (operation, id, token, body, statuses) in steps {
        let path = operation.split(' ').nth(1).unwrap().replace("{id}", id);
        for status in statuses {
            let (given, answer) = asked.call(operation, &path, token, "", &body);
            assert_eq!(given, status, "{operation} {id}: {answer}");
        }
    }
    let tokens = asked.call("post /api/login/", "/api/login/", "", "", &ana).1["data"].clone();
    assert_eq!(asked.call("post /api/refresh/", "/api/refresh/", "", "", &tokens).0, 200);
    what_each_does_to_one(asked, &owner, &tenant);
}

/// Of one match, one notification, a page.
fn what_each_does_to_one(asked: &mut Asked<'_>, owner: &str, tenant: &str) {
    let told =
        asked.server.call("GET", "/api/notifications/", owner, Value::Null).body["data"]["results"][0]["id"].clone();
    let steps = [
        ("get /api/matches/{id}/", json!(1), tenant),
        ("post /api/matches/{id}/like/", json!(1), tenant),
        ("post /api/matches/{id}/accept/", json!(1), tenant),
        ("post /api/matches/{id}/owner_accept/", json!(1), owner),
        ("post /api/matches/{id}/owner_reject/", json!(1), owner),
        ("post /api/matches/{id}/reject/", json!(1), owner),
        ("post /api/properties/{id}/like/", json!(10), tenant),
        ("post /api/properties/{id}/reject/", json!(10), tenant),
        ("get /api/notifications/{id}/", told.clone(), owner),
        ("post /api/notifications/{id}/mark_as_read/", told, owner),
    ];
    for (operation, id, token) in steps {
        for (id, status) in [(id, 200), (json!(99_999), 404)] {
            let path = operation.split(' ').nth(1).unwrap().replace("{id}", &id.to_string());
            assert_eq!(asked.call(operation, &path, token, "", &Value::Null).0, status, "{operation} {id}");
        }
    }
    for (operation, item) in
        ["/api/properties/", "/api/matches/my/", "/api/matches/pending_requests/", "/api/notifications/"]
            .map(|path| (format!("get {path}"), path))
    {
        assert_eq!(asked.call(&operation, item, owner, "", &Value::Null).0, 200);
        assert_eq!(asked.call(&operation, &format!("{item}?page=99"), owner, "", &Value::Null).0, 404);
    }
    for path in ["/", "/client/habitto.js", "/client/useHabittoWebSocket.js", "/api/openapi.json", "/api/asyncapi.json"]
    {
        assert_eq!(asked.call(&format!("get {path}"), path, "", "", &Value::Null).0, 200);
    }
}
