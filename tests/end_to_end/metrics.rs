//! What `/metrics` says of what has happened, and where it is served.

use crate::device::Device;
use crate::exposition::Scrape;
use crate::server::{Server, get, service, user, user_for};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn the_operators_pages_are_on_their_own_listener_only() {
    let server = Server::start();
    for path in ["/metrics", "/stats.json", "/", "/operator.js", "/operator.css", "/health/live", "/health/ready"] {
        let (head, body) = get(server.admin, path);
        assert!(head.starts_with("HTTP/1.1 200 ") && !body.is_empty(), "{path}: {head}");
        assert!(!head.contains("Access-Control"), "{path}: {head}");
    }
    let (head, page) = get(server.admin, "/");
    assert!(head.contains("\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; "), "{head}");
    for barred in ["<script>", "style=", "http://", "https://", " on"] {
        assert!(!page.contains(&format!("{barred}load")) && (barred == " on" || !page.contains(barred)), "{barred}");
    }
    let stats: Value = serde_json::from_str(&get(server.admin, "/stats.json").1).unwrap();
    assert_eq!((&stats["status"], &stats["undelivered"]), (&json!("ready"), &json!(0)));
    for path in ["/metrics", "/stats.json", "/operator.js", "/operator.css"] {
        assert!(get(server.address, path).0.starts_with("HTTP/1.1 404 "), "{path}");
    }
    for path in ["/api/users/me/", "/ws/property-notifications/1/", "/api/notifications/"] {
        assert!(get(server.admin, path).0.starts_with("HTTP/1.1 404 "), "{path}");
    }
}

#[test]
fn numbers_follow_what_happens() {
    let server = Server::start_with(&[("HABITTOD_DELIVERY_REPLAY_MAX", "2")]);
    server.put_world();
    let start = Scrape::of(&server);
    assert_eq!(start.of_series("habittod_delivery_ratio"), 1.0);
    assert_eq!(start.of_series("habittod_notifications_undelivered_oldest_age_seconds"), 0.0);
    let note = json!({"user": 1, "channel": "tenant", "message": "m"});
    for _ in 0..5 {
        assert_eq!(server.call("POST", "/api/notifications/", &service(), note.clone()).status, 201);
    }
    let waiting = Scrape::of(&server);
    assert_eq!(waiting.of_series("habittod_notifications_created_total{channel=\"tenant\"}"), 5.0);
    assert_eq!(waiting.of_series("habittod_notifications_undelivered"), 5.0);
    assert_eq!(waiting.of_series("habittod_notifications_unread"), 5.0);
    assert_eq!(waiting.of_series("habittod_delivery_ratio"), 0.0);
    assert!(waiting.of_series("habittod_notifications_undelivered_oldest_age_seconds") > 0.0);
    assert_eq!(waiting.of_series("habittod_notification_commit_seconds_count"), 5.0);

    let (mut tenant, mut owner) = (server.connect("tenant", 1), server.connect("property", 1));
    assert_eq!(tenant.next().unwrap()["skipped"], 3);
    let id = tenant.next().unwrap()["notification_id"].clone();
    owner.next().unwrap();
    server.like(2, 10);
    assert_eq!(owner.next().unwrap()["type"], "property_like");
    tenant.send(&json!({"type": "mark_read", "notification_id": id}));
    tenant.all();
    owner.all();
    // Receipts ride on a commit that nobody waits for; this one comes behind them.
    server.put_property(11);
    let s = Scrape::of(&server);
    let by_channel = [
        ("habittod_sockets", 1.0, 1.0),
        ("habittod_handshakes_total", 1.0, 1.0),
        ("habittod_notifications_created_total", 1.0, 5.0),
        ("habittod_notifications_sent_total", 1.0, 0.0),
        ("habittod_notifications_replayed_total", 0.0, 2.0),
        ("habittod_notifications_skipped_total", 0.0, 3.0),
    ];
    for (name, property, tenant) in by_channel {
        let found = ["property", "tenant"].map(|channel| s.of_series(&format!("{name}{{channel=\"{channel}\"}}")));
        assert_eq!(found, [property, tenant], "{name}");
    }
    let delivered = s.total("habittod_notifications_delivered_total")
        + s.of_series("habittod_notifications_read_undelivered_total");
    assert_eq!(delivered, 3.0);
    let numbers = [
        ("habittod_notifications_read_total", 1.0),
        ("habittod_notifications_unread", 5.0),
        ("habittod_notifications_undelivered", 0.0),
        ("habittod_notifications_undelivered_oldest_age_seconds", 0.0),
        ("habittod_delivery_ratio", 1.0),
        ("habittod_notification_commit_seconds_count", 6.0),
        ("habittod_notification_write_seconds_count", 1.0),
        ("habittod_notification_acknowledge_seconds_count{way=\"live\"}", 1.0),
        ("habittod_handshake_seconds_count", 2.0),
        ("habittod_ready", 1.0),
        ("habittod_draining", 0.0),
        ("habittod_log_lines_dropped_total", 0.0),
        ("habittod_http_requests_total{route=\"/api/notifications/\",method=\"POST\",status=\"201\"}", 5.0),
        ("habittod_http_requests_total{route=\"/api/properties/{id}/like/\",method=\"POST\",status=\"200\"}", 1.0),
        (&format!("habittod_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ];
    for (series, value) in numbers {
        assert_eq!(s.of_series(series), value, "{series}");
    }
    let moved = [
        "habittod_commit_batch_jobs_count",
        "habittod_commit_seconds_sum",
        "habittod_loop_turn_seconds_count",
        "habittod_outbound_bytes_total",
        "habittod_inbound_bytes_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ];
    for series in moved {
        assert!(s.of_series(series) > 0.0, "{series}");
    }
    drop((tenant, owner));
    until(&server, |s| s.total("habittod_sockets") == 0.0);
    assert_eq!(Scrape::of(&server).of_series("habittod_closes_total{code=\"1006\"}"), 2.0);
}

/// The server notices some things at a later moment than the client does.
fn until(server: &Server, is_so: impl Fn(&Scrape) -> bool) {
    assert!((0..10_000).any(|_| is_so(&Scrape::of(server))), "never so");
}

#[test]
fn the_oldest_undelivered_is_found_across_deliveries_and_restarts() {
    let mut server = Server::start();
    server.put_world();
    let note = |to: i64| {
        let body = json!({"user": to, "channel": "tenant", "message": "m"});
        assert_eq!(server.call("POST", "/api/notifications/", &service(), body).status, 201);
    };
    note(1);
    let first = Scrape::of(&server).of_series("habittod_notifications_undelivered_oldest_age_seconds");
    until(&server, |s| s.of_series("habittod_notifications_undelivered_oldest_age_seconds") > first + 0.1);
    note(3);
    let before = Scrape::of(&server).of_series("habittod_notifications_undelivered_oldest_age_seconds");
    server.connect("tenant", 1).all();
    // The older one is delivered: the younger one is the oldest now.
    until(&server, |s| {
        let age = s.of_series("habittod_notifications_undelivered_oldest_age_seconds");
        s.of_series("habittod_notifications_undelivered") == 1.0 && age > 0.0 && age < before
    });
    server.kill_and_restart();
    let again = Scrape::of(&server);
    assert_eq!(again.of_series("habittod_notifications_undelivered"), 1.0);
    assert!(again.of_series("habittod_notifications_undelivered_oldest_age_seconds") > 0.0);
}

#[test]
fn each_refusal_and_limit_is_counted_by_its_cause() {
    let server = Server::start_with(&[
        ("HABITTOD_SERVER_ALLOWED_ORIGINS", "https://app.example"),
        ("HABITTOD_LIMITS_CONNECTIONS_PER_USER", "1"),
        ("HABITTOD_LIMITS_WS_MESSAGES_PER_SECOND", "1"),
        ("HABITTOD_LIMITS_WS_MESSAGES_BURST", "1"),
        ("HABITTOD_LIMITS_WS_CONTROL_PER_SECOND", "2"),
        ("HABITTOD_LIMITS_REQUESTS_PER_SECOND", "1"),
        ("HABITTOD_LIMITS_REQUESTS_BURST", "1"),
        ("HABITTOD_LIMITS_HEAD_TIMEOUT", "100ms"),
        ("HABITTOD_LIMITS_BODY_TIMEOUT", "100ms"),
        ("HABITTOD_LIMITS_IDLE_TIMEOUT", "100ms"),
    ]);
    server.put_world();
    let tenant = user(2);
    let handshake = |path: &str, more: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        );
        server.raw(format!("{head}\r\n").replace("\r\n\r\n\r\n", "\r\n\r\n").as_bytes()).map(|reply| reply.status)
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: close\r\n";
    let path = |user: i64, token: &str| format!("/ws/tenant-notifications/{user}/?token={token}");
    let expired = habittod::auth::Signer::from_secret(crate::server::SECRET.as_bytes()).unwrap().access(
        habittod::matching::UserId(1),
        1_000,
        Duration::from_secs(1),
    );
    let _open = server.connect("property", 3);
    server.call("PUT", "/api/users/4/", &service(), json!({"username": "four", "is_active": false}));
    server.call("PUT", "/api/users/5/", &service(), json!({"username": "five"}));
    server.call("DELETE", "/api/users/5/", &service(), Value::Null);
    assert_eq!(server.try_call("GET", &path(1, &user(1)), None, None).unwrap().status, 426);
    let handshakes = [
        (400, "key", path(1, &user(1)), "Sec-WebSocket-Key: short\r\nConnection: close\r\n".to_owned()),
        (403, "origin", path(1, &user(1)), format!("{key}Origin: https://elsewhere.example\r\n")),
        (401, "token_missing", path(1, ""), key.to_owned()),
        (401, "token_invalid", path(1, "garbage"), key.to_owned()),
        (401, "token_expired", path(1, &expired), key.to_owned()),
        (401, "user_inactive", path(4, &user(4)), key.to_owned()),
        (401, "user_deleted", path(5, &user(5)), key.to_owned()),
        (403, "channel", path(1, &user(2)), key.to_owned()),
        (429, "connections_per_user", path(3, &user(3)), key.to_owned()),
    ];
    for (status, cause, path, more) in &handshakes {
        assert_eq!(handshake(path, more), Some(*status), "{cause}");
    }
    // Requests and bytes that are none.
    let long = format!(
        "POST /api/properties/10/like/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {tenant}\r\nContent-Type: application/json\r\nContent-Length: 70000\r\nConnection: close\r\n\r\n{}",
        " ".repeat(70_000)
    );
    assert_eq!(server.raw(long.as_bytes()).unwrap().status, 413);
    assert_eq!(server.call("GET", "/api/users/me/", &tenant, Value::Null).status, 429);
    let refused = [
        (400, "malformed", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (414, "target", format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(9_000))),
        (431, "head", format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(17_000))),
        (505, "http_version", "GET / HTTP/3.0\r\nHost: h\r\n\r\n".to_owned()),
        (408, "timeout", "GET / HT".to_owned()),
    ];
    for (status, cause, bytes) in &refused {
        assert_eq!(server.raw(bytes.as_bytes()).unwrap().status, *status, "{cause}");
    }
    let half = format!(
        "POST /api/notifications/mark_all_as_read/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{",
        user(1)
    );
    assert_eq!(server.raw(half.as_bytes()).unwrap().status, 408);
    // A connection that asks for nothing.
    let mut idle = TcpStream::connect(server.address).unwrap();
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    // Messages.
    let mut device = Device::connect(&server, "tenant", 1, &user(1), "").unwrap();
    device.next().unwrap();
    for _ in 0..3 {
        device.send(&json!({"type": "ping"}));
    }
    assert_eq!(device.next().unwrap()["type"], "pong");
    assert_eq!(device.next().unwrap()["code"], "rate_limited");
    device.send(&json!({"type": "x", "pad": "x".repeat(17_000)}));
    while device.next() != Err(1009) {}
    let mut noisy = Device::connect(&server, "tenant", 2, &tenant, "").unwrap();
    noisy.next().unwrap();
    noisy.pings(5);
    assert_eq!(noisy.next(), Err(1008));

    let s = Scrape::of(&server);
    for cause in ["no_upgrade"].into_iter().chain(handshakes.iter().map(|case| case.1)) {
        let series = format!("habittod_handshake_refusals_total{{cause=\"{cause}\"}}");
        assert_eq!(s.of_series(&series), 1.0, "{cause}");
    }
    for (_, cause, _) in &refused {
        let series = format!("habittod_connection_refusals_total{{cause=\"{cause}\"}}");
        assert!(s.of_series(&series) >= 1.0, "{cause}");
    }
    let limits = [
        ("connections_per_user", 1.0),
        ("ws_message", 1.0),
        ("ws_messages_per_second", 2.0),
        ("ws_control_per_second", 1.0),
        ("requests_per_second", 1.0),
        ("head", 1.0),
        ("target", 1.0),
        ("body", 1.0),
        ("head_timeout", 1.0),
        ("body_timeout", 1.0),
        ("idle_timeout", 1.0),
    ];
    for (limit, count) in limits {
        assert_eq!(s.of_series(&format!("habittod_limit_hits_total{{limit=\"{limit}\"}}")), count, "{limit}");
    }
    assert_eq!(s.total("habittod_rate_limited_total"), 4.0);
    for code in ["1008", "1009"] {
        assert_eq!(s.of_series(&format!("habittod_closes_total{{code=\"{code}\"}}")), 1.0, "{code}");
    }
}

#[test]
fn limits_of_sockets_that_only_wait_are_counted() {
    let server = Server::start_with(&[
        ("HABITTOD_LIMITS_PING_INTERVAL", "50ms"),
        ("HABITTOD_LIMITS_PONG_TIMEOUT", "50ms"),
        ("HABITTOD_LIMITS_HANDSHAKES_PER_SECOND", "1"),
        ("HABITTOD_LIMITS_HANDSHAKES_BURST", "1"),
        ("HABITTOD_LIMITS_CONNECTIONS_PER_IP", "2"),
    ]);
    let token = user_for(1, Duration::from_secs(60));
    let silent = Device::connect(&server, "tenant", 1, &token, "").unwrap();
    assert_eq!(Device::connect(&server, "tenant", 1, &token, "").err(), Some(503));
    until(&server, |s| s.of_series("habittod_limit_hits_total{limit=\"pong_timeout\"}") == 1.0);
    drop(silent);
    until(&server, |s| s.of_series("habittod_connections") == 1.0); // the scrape's own
    let _held: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    assert_eq!(server.try_call("GET", "/api/users/me/", Some(&token), None).unwrap().status, 429);
    let s = Scrape::of(&server);
    for limit in ["handshakes_per_second", "connections_per_ip"] {
        let hits = s.of_series(&format!("habittod_limit_hits_total{{limit=\"{limit}\"}}"));
        // A scrape that is still closing counts for its address, too.
        assert!((1.0..=3.0).contains(&hits), "{limit}: {hits}");
    }
    assert_eq!(s.of_series("habittod_handshake_refusals_total{cause=\"handshakes_per_second\"}"), 1.0);
    assert!(s.of_series("habittod_connection_refusals_total{cause=\"connections_per_ip\"}") >= 1.0);
}

#[test]
fn what_clients_send_never_makes_a_series() {
    let server = Server::start();
    server.put_world();
    let flood = |rounds: std::ops::Range<u32>| {
        // Pipelined: one connection for all.
        let mut requests = String::new();
        let count = rounds.len();
        for n in rounds {
            let method = ["GET", "POST", "PUT", "DELETE", "PATCH"][n as usize % 5].to_owned();
            let method = if n % 7 == 0 {
                format!("M{}", ["AB", "CD", "EF"][n as usize % 3].repeat(1 + n as usize % 5))
            } else {
                method
            };
            let path = match n % 4 {
                0 => format!("/random/{n}/{{evil}}"),
                1 => format!("/api/properties/{n}/"),
                2 => format!("/api/users/{n}/?token=x{n}&\"}} 1"),
                _ => format!("/ws/tenant-notifications/{}/", n + 1),
            };
            let path = path.replace(['"', ' ', '{', '}'], "%7B");
            requests += &format!(
                "{method} {path} HTTP/1.1\r\nHost: h{n}\r\nOrigin: https://o{n}.example\r\nContent-Length: 0\r\n\r\n"
            );
        }
        requests += "GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let mut stream = TcpStream::connect(server.address).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let written = std::thread::spawn(move || writer.write_all(requests.as_bytes()));
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        written.join().unwrap().unwrap();
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), count + 1);
    };
    let closes = |codes: std::ops::Range<u16>| {
        for code in codes {
            let mut device = server.connect("tenant", 1);
            device.next().unwrap();
            device.close(code);
        }
    };
    flood(0..420);
    closes(3_000..3_001);
    Scrape::of(&server); // its own request is on the next page
    let before = Scrape::of(&server);
    flood(420..10_420);
    closes(3_001..3_050);
    let after = Scrape::of(&server);
    let new: Vec<_> = after.series().difference(&before.series()).map(|s| (*s).to_owned()).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(after.total("habittod_http_requests_total") >= before.total("habittod_http_requests_total") + 10_000.0);
    assert_eq!(after.of_series("habittod_closes_total{code=\"other\"}"), 50.0);
}

#[test]
fn dashboards_and_alerts_name_only_what_there_is() {
    let server = Server::start();
    Scrape::of(&server);
    let scrape = Scrape::of(&server); // with the first one's own request
    let dashboard = include_str!("../../systemd/grafana-dashboard.json");
    let alerts = include_str!("../../systemd/prometheus-alerts.yml");
    let parsed: Value = serde_json::from_str(dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);
    for (file, text) in [("dashboard", dashboard), ("alerts", alerts)] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: Vec<&str> = words.filter(|w| w.starts_with("habittod_") || w.starts_with("process_")).collect();
        assert!(used.len() > 10, "{file}");
        for name in used {
            assert!(scrape.names().contains(name), "{file}: {name}");
        }
    }
    let readme = include_str!("../../README.md");
    let named: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    for alert in &named {
        assert_eq!(readme.matches(&format!("| `{alert}` |")).count(), 1, "{alert}");
    }
    assert_eq!(readme.matches("| `Habittod").count(), named.len());
}
