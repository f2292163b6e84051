//! Each refusal where the contract says, in the envelope.

use crate::server::{Server, service, user};
use serde_json::{Value, json};

#[test]
fn statuses_in_the_envelope() {
    let server = Server::start_with(&[("HABITTOD_LIMITS_HEAD_TIMEOUT", "200ms")]);
    server.put_world();
    let (tenant, owner) = (user(2), user(1));
    let long = json!({"reason": "x".repeat(70_000)});
    type Case<'a> = (u16, &'a str, &'a str, Option<&'a str>, Option<&'a Value>);
    let cases: [Case<'_>; 12] = [
        (404, "GET", "/nope", None, None),
        (405, "GET", "/api/properties/10/like/", None, None),
        (401, "GET", "/api/notifications/", None, None),
        (401, "GET", "/api/notifications/", Some("garbage"), None),
        (403, "PUT", "/api/users/5/", Some(&tenant), Some(&json!({"username": "x"}))),
        (413, "POST", "/api/properties/10/like/", Some(&tenant), Some(&long)),
        (400, "POST", "/api/properties/10/like/", Some(&tenant), Some(&json!([1]))),
        (400, "POST", "/api/properties/10/like/", Some(&owner), None),
        (404, "POST", "/api/properties/999/like/", Some(&tenant), None),
        (404, "GET", "/api/notifications/1/", Some(&tenant), None),
        (426, "GET", "/ws/property-notifications/1/", Some(&owner), None),
        (200, "GET", "/health/ready", None, None),
    ];
    for (status, method, path, token, body) in cases {
        let reply = server.try_call(method, path, token, body).unwrap();
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
        assert_eq!(reply.body["success"], status < 400, "{method} {path}: {}", reply.body);
        assert!(reply.head.contains("\r\nCache-Control: no-store"), "{method} {path}: {}", reply.head);
        assert!(reply.body["message"].is_string() && reply.body.get("data").is_some(), "{method} {path}");
    }
    let raw = [
        (414, format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(9_000))),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(17_000))),
        (408, "GET / HT".to_owned()),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (
            415,
            format!(
                "POST /api/properties/10/like/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {tenant}\r\nContent-Type: text/plain\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
            ),
        ),
    ];
    for (status, bytes) in raw {
        let reply = server.raw(bytes.as_bytes()).unwrap();
        assert_eq!(
            (reply.status, &reply.body["success"]),
            (status, &json!(false)),
            "{}",
            &bytes[..40.min(bytes.len())]
        );
    }
}

#[test]
fn browsers_are_served_and_not_sent_what_they_have() {
    let server = Server::start_with(&[("HABITTOD_SERVER_ALLOWED_ORIGINS", "https://app.example")]);
    let get = |path: &str, header: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{header}\r\n");
        server.raw(head.as_bytes()).unwrap()
    };
    let page = get("/", "");
    assert_eq!(page.status, 200);
    for line in ["Content-Type: text/html; charset=utf-8", "Cache-Control: no-cache", "X-Content-Type-Options: nosniff"]
    {
        assert!(page.head.contains(&format!("\r\n{line}")), "{line}: {}", page.head);
    }
    assert!(page.head.contains("\r\nContent-Security-Policy: default-src 'none';"), "{}", page.head);

    let module = get("/client/habitto.js", "Origin: https://app.example\r\n");
    assert!(module.head.contains("\r\nAccess-Control-Allow-Origin: https://app.example"), "{}", module.head);
    let tag = module.head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let again = get("/client/habitto.js", &format!("If-None-Match: {tag}\r\nOrigin: https://evil.example\r\n"));
    assert_eq!((again.status, again.head.contains("Content-Length")), (304, false));
    assert!(!again.head.contains("Access-Control"), "{}", again.head);
    let head = server.try_call("HEAD", "/", None, None).unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(server.try_call("POST", "/", None, None).unwrap().status, 405);
}

#[test]
fn a_burst_of_requests_is_throttled_and_a_stranger_turned_away() {
    let server =
        Server::start_with(&[("HABITTOD_LIMITS_REQUESTS_PER_SECOND", "1"), ("HABITTOD_LIMITS_REQUESTS_BURST", "3")]);
    server.put_world();
    let statuses: Vec<u16> =
        (0..5).map(|_| server.call("GET", "/api/users/me/", &user(2), Value::Null).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = server.call("GET", "/api/users/me/", &user(2), Value::Null);
    assert!(refused.head.contains("Retry-After: "), "{}", refused.head);
}

#[test]
fn the_same_key_gives_the_same_answer() {
    let server = Server::start();
    server.put_world();
    let note = |message: &str| {
        let body = json!({"user": 1, "channel": "tenant", "message": message}).to_string();
        let head = format!(
            "POST /api/notifications/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            service(),
            body.len()
        );
        server.raw((head + &body).as_bytes()).unwrap()
    };
    let (first, again, other) = (note("a"), note("a"), note("b"));
    assert_eq!((first.status, again.status, other.status), (201, 201, 422));
    assert_eq!(first.body, again.body);
    assert_eq!(server.call("GET", "/api/notifications/my/", &user(1), Value::Null).body["data"]["total"], 1);
}

#[test]
fn one_connection_too_many_is_told_when_to_come_back() {
    let server = Server::start_with(&[("HABITTOD_LIMITS_CONNECTIONS", "2")]);
    let _open = (server.connect("property", 1), server.connect("tenant", 1));
    let refused = server.raw(b"").unwrap();
    assert_eq!((refused.status, &refused.body["success"]), (503, &json!(false)));
    assert!(refused.head.contains("Retry-After: "), "{}", refused.head);
}
