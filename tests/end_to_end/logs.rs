//! What the log says, what it never says, and what becomes of it when nobody reads.

use crate::exposition::Scrape;
use crate::server::{SECRET, Server, exchange, get, patiently, service, user};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Everything that one conversation makes the server say: logs of all levels, complaints, numbers.
struct Said {
    log: String,
    complaints: String,
    metrics: String,
}

/// Runs a conversation against a server with the log at `debug`, and ends it.
fn overhear(env: &[(&'static str, &str)], conversation: impl FnOnce(&Server)) -> Said {
    let env: Vec<_> = env.iter().copied().chain([("HABITTOD_LOG_LEVEL", "debug")]).collect();
    let (mut server, mut log) = Server::start_unread(&env);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    conversation(&server);
    let metrics = get(server.admin, "/metrics").1 + &get(server.admin, "/stats.json").1;
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
    Said { log: reader.join().unwrap(), complaints: server.complaints(), metrics }
}

/// The lines of one event.
fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

const FOREIGN: &str = "01890000-0000-7abc-8def-0123456789ab";

#[test]
fn a_notifications_whole_story_is_in_the_log() {
    let said = overhear(&[("HABITTOD_DELIVERY_REPLAY_MAX", "1")], |server| {
        server.put_world();
        let mut owner = server.connect("property", 1);
        owner.next().unwrap();
        server.like(2, 10);
        let id = owner.next().unwrap()["notification_id"].clone();
        owner.all();
        owner.send(&json!({"type": "mark_read", "notification_id": id}));
        assert_eq!(owner.next().unwrap()["type"], "notification_read");
        for _ in 0..2 {
            let note = json!({"user": 3, "channel": "tenant", "message": "m"});
            server.call("POST", "/api/notifications/", &service(), note);
        }
        server.connect("tenant", 3).all();
        // A sender's own id names no row of ours.
        let note = json!({"user": 3, "channel": "tenant", "message": "m", "notification_id": FOREIGN});
        assert_eq!(server.call("POST", "/api/notifications/", &service(), note).status, 201);
        let path = format!("/api/notifications/{FOREIGN}/mark_as_read/");
        assert_eq!(server.call("POST", &path, &user(3), json!({})).status, 200);
        std::fs::write(server.folder().join("config.toml"), "[limits]\nbody = 0\n").unwrap();
        server.signal("-HUP");
        owner.close(1000);
    });
    let lines: Vec<Value> = said.log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        let keys: Vec<&String> = line.as_object().unwrap().keys().take(3).collect();
        assert_eq!(keys, ["time", "level", "event"], "{line}");
    }
    for event in ["notification_created", "notification_sent", "notification_delivered", "notification_read"] {
        let mut line = of(&lines, event)[0].clone();
        let ms = line["ms"].take();
        assert!(ms.as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{event}: {ms}");
        assert_eq!((&line["id"], &line["user"]), (&json!(1), &json!(1)), "{event}");
    }
    let closed = of(&lines, "connection_closed").into_iter().find(|line| line["user"] == 1).unwrap();
    let expected =
        json!({"channel": "property", "cause": "closed_by_client", "code": 1000, "sent": 1, "unacknowledged": 0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&closed[name], value, "{closed}");
    }
    let read = of(&lines, "notification_read")[1];
    assert_eq!((&read["notification_id"], read.get("id"), read.get("ms")), (&json!(FOREIGN), None, None));
    assert_eq!(of(&lines, "notification_replayed")[0]["ids"], json!([3]));
    assert_eq!(of(&lines, "notification_skipped")[0]["count"], 1);
    for event in ["connection_opened", "request", "committed", "not_reloaded", "draining", "stopped"] {
        assert!(!of(&lines, event).is_empty(), "{event}");
    }
}

#[test]
fn a_refusal_says_whom_it_turned_away() {
    let said = overhear(&[], |server| {
        let handshake = "GET /ws/tenant-notifications/1/ HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
            Connection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for bytes in [
            &format!("{handshake}X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\n\r\n"),
            &format!("{handshake}X-Forwarded-For: unknown\r\n\r\n"),
            "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\nno field\r\n\r\n",
            "POST /api/login/ HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nX-Forwarded-For: 203.0.113.9\r\n\
             Transfer-Encoding: chunked\r\n\r\nno length\r\n",
        ] {
            exchange(server.address, bytes.as_bytes()).unwrap();
        }
    });
    let lines: Vec<Value> = said.log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused: Vec<_> =
        of(&lines, "refused").into_iter().map(|line| (line["address"].clone(), line["cause"].clone())).collect();
    let expected = [
        ("203.0.113.9", "token_missing"),
        ("127.0.0.1", "token_missing"),
        ("127.0.0.1", "malformed"),
        ("203.0.113.9", "malformed"),
    ];
    assert_eq!(refused, expected.map(|(address, cause)| (json!(address), json!(cause))));
}

#[test]
fn nothing_secret_is_ever_said() {
    let secrets = [
        SECRET,
        "top-secret-password",
        "secret-mail@example.com",
        "+59171234567",
        "SecretFirst",
        "SecretAddress",
        "SecretReason",
        "SecretMessage",
        "SecretQuery",
        "SecretHeader",
        "SecretClose",
        "SecretKey",
        "\u{1b}",
        "\u{7f}",
        "\\u001b",
    ];
    let tokens = [user(1), user(2), service()];
    let said = overhear(&[], |server| {
        let person = |name: &str| {
            json!({
                "username": name, "email": "secret-mail@example.com", "phone": "+59171234567",
                "first_name": "SecretFirst", "password": "top-secret-password", "note": "\u{1b}[31mSecretMessage",
            })
        };
        for id in [1, 2] {
            let path = format!("/api/users/{id}/");
            assert_eq!(server.call("PUT", &path, &tokens[2], person(&format!("u{id}"))).status, 201);
        }
        let home = json!({"owner": 1, "type": "departamento", "address": "SecretAddress"});
        assert_eq!(server.call("PUT", "/api/properties/10/", &tokens[2], home).status, 201);
        let mut owner = server.connect("property", 1);
        let like = json!({"reason": "SecretReason \u{1b}\u{7f}"});
        assert_eq!(server.call("POST", "/api/properties/10/like/", &tokens[1], like).status, 200);
        let note = json!({"user": 1, "channel": "property", "message": "SecretMessage", "title": "SecretMessage", "notification_type": "SecretKey"});
        assert_eq!(server.call("POST", "/api/notifications/", &tokens[2], note).status, 201);
        owner.all();
        for odd in [
            json!({"type": "SecretKey"}),
            json!({"type": "mark_read", "notification_id": "SecretMessage"}),
            json!({"type": "auth", "token": tokens[1]}),
            json!({"type": "ack", "notification_id": tokens[0]}),
        ] {
            owner.send(&odd);
        }
        owner.all();
        owner.close_saying(4_000, "SecretClose \u{1b}");
        server.call("POST", "/api/login/", "", json!({"username": "u1", "password": "top-secret-password"}));
        let raw = [
            format!(
                "GET /SecretQuery%1b?token={}&SecretQuery HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                tokens[0]
            ),
            format!(
                "GET /ws/tenant-notifications/1/?token={}x HTTP/1.1\r\nHost: SecretHeader\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: SecretHeader\r\n\r\n",
                tokens[0]
            ),
            format!(
                "SECRET /SecretQuery HTTP/1.1\r\nHost: h\r\nX-Secret: SecretHeader {}\r\nAuthorization: Basic dG9wLXNlY3JldC1wYXNzd29yZA==\r\nConnection: close\r\n\r\n",
                tokens[1]
            ),
            "GET /SecretQuery\u{1b}[31m HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "\u{1b}\u{7f}SecretQuery\r\n\r\n".to_owned(),
            format!(
                "POST /api/notifications/mark_all_as_read/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Type: text/SecretHeader\r\nIdempotency-Key: SecretKey\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
                tokens[0]
            ),
            format!(
                "POST /api/notifications/mark_all_as_read/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nIdempotency-Key: SecretKey\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{{\"SecretMessage",
                tokens[0]
            ),
        ];
        for bytes in raw {
            exchange(server.address, bytes.as_bytes());
        }
    });
    assert!(said.log.lines().count() > 30);
    for (what, text) in [("log", &said.log), ("stderr", &said.complaints), ("metrics", &said.metrics)] {
        for secret in secrets.iter().copied().chain(tokens.iter().map(String::as_str)) {
            assert!(!text.contains(secret), "{what} says {secret:?}");
        }
        for token in &tokens {
            let signature = token.rsplit('.').next().unwrap();
            assert!(!text.contains(signature), "{what} says a signature");
        }
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{what}");
    }
}

/// Makes the server write more than a pipe and its own queue take.
fn talk(server: &Server, requests: usize) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let all = "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n".repeat(requests - 1)
        + "GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let written = std::thread::spawn(move || writer.write_all(all.as_bytes()));
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    written.join().unwrap().unwrap();
    assert_eq!(String::from_utf8(answers).unwrap().matches("HTTP/1.1 200 ").count(), requests);
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_nothing_else() {
    let (mut server, log) = Server::start_unread(&[]); // open, and not read
    talk(&server, 60_000);
    let dropped = Scrape::of(&server).of_series("habittod_log_lines_dropped_total");
    assert!(dropped > 0.0 && dropped < 60_000.0, "{dropped}");
    // Read again, it goes on, and says how many are missing.
    let lines = std::thread::spawn(move || {
        let told = |line: &String| line.contains("\"event\":\"log_lines_dropped\"");
        BufReader::new(log).lines().map_while(Result::ok).find(told)
    });
    while !lines.is_finished() {
        server.try_call("GET", "/health/live", None, None).unwrap();
    }
    assert!(lines.join().unwrap().is_some());
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_log_whose_reader_has_gone_costs_nothing_else() {
    let (mut server, log) = Server::start_unread(&[]);
    drop(log);
    talk(&server, 1_000);
    let dropped = || Scrape::of(&server).of_series("habittod_log_lines_dropped_total") > 0.0;
    patiently(dropped, || "no line was dropped".to_owned());
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let (mut server, log) = Server::start_unread(&[]);
    talk(&server, 2_000); // more than a pipe takes, less than the queue
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
    drop(log);
}
