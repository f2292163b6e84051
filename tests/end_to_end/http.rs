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
fn a_refusal_on_the_head_is_kept_under_its_key() {
    let server = Server::start();
    server.put_world();
    let post = |path: &str, token: &str, key: &str, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n"
        );
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        server.raw(format!("{head}Content-Type: application/json\r\n{length}\r\n{body}").as_bytes()).unwrap()
    };
    let (tenant, like) = (user(2), "/api/properties/10/like/");
    let (first, again) =
        (post("/api/notifications/", &tenant, "a", "{}"), post("/api/notifications/", &tenant, "a", "{}"));
    assert_eq!((first.status, again.status, first.body), (403, 403, again.body));
    assert_eq!(post(like, &tenant, "a", "").status, 422);
    let large = json!({"reason": "x".repeat(70_000)}).to_string();
    assert_eq!(post(like, &tenant, "b", &large).status, 413);
    assert_eq!(post(like, &tenant, "b", "{}").status, 422);
    assert_eq!(post(like, &tenant, "b", &large).status, 413);
    // Somebody else's key is another key.
    assert_eq!(post(like, &user(3), "b", "{}").status, 200);
    // What comes behind a kept refusal on the same connection is read.
    let two = format!(
        "POST /api/notifications/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {tenant}\r\nIdempotency-Key: c\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{{}}GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    );
    let answers = server.raw(two.as_bytes()).unwrap();
    assert_eq!(answers.status, 403);
}

#[test]
fn filters_and_paging_as_the_contract_has_them() {
    let server = Server::start();
    server.put_world();
    server.put_property(11);
    server.like(2, 10);
    server.like(2, 11);
    let cases = [
        (200, "is_read=true"),
        (400, "is_read=True"),
        (400, "is_read=1"),
        (400, "is_read="),
        (200, "channel=&type="),
        (400, "channel=both"),
        (404, "page=0"),
        (404, "page=x"),
        (404, "page=3&page_size=1"),
        (200, "page_size=0"),
        (200, "page_size=1000"),
        (200, "page_size=x"),
    ];
    for (status, query) in cases {
        let reply = server.call("GET", &format!("/api/notifications/?{query}"), &user(1), Value::Null);
        assert_eq!(reply.status, status, "{query}: {}", reply.body);
    }
    let page =
        server.call("GET", "/api/notifications?type=property_like&page_size=1&is_read=false", &user(1), Value::Null);
    let next = page.body["data"]["next"].as_str().unwrap();
    assert!(next.starts_with("http://h/api/notifications?"), "{next}");
    for kept in ["type=property_like", "page_size=1", "is_read=false", "page=2"] {
        assert!(next.contains(kept), "{next} lost {kept}");
    }
    let texts = [(1_000, 200), (1_001, 400)];
    for (length, status) in texts {
        let reason = json!({"reason": "ñ".repeat(length)});
        assert_eq!(server.call("POST", "/api/properties/10/reject/", &user(3), reason).status, status, "{length}");
    }
}

#[test]
fn one_connection_too_many_is_told_when_to_come_back() {
    let server = Server::start_with(&[("HABITTOD_LIMITS_CONNECTIONS", "2")]);
    let _open = (server.connect("property", 1), server.connect("tenant", 1));
    let refused = server.raw(b"").unwrap();
    assert_eq!((refused.status, &refused.body["success"]), (503, &json!(false)));
    assert!(refused.head.contains("Retry-After: "), "{}", refused.head);
}
