//! Django's own `group_send` beside us, unchanged: what it sends is stored, delivered and replayed, once.

use crate::device::types;
use crate::exposition::Scrape;
use crate::nodes::agree;
use crate::process::Process;
use crate::redis::{Redis, start_with_tls};
use crate::server::{Server, patiently, service, user};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// A Python process with Django, channels and channels_redis.
struct Django {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Django {
    fn start(redis: &Redis, layer: &str, more: &Value) -> Self {
        let python = std::env::var("DJANGO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/django/send.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Process(process.unwrap());
        let (mut input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let backend = match layer {
            "core" => "channels_redis.core.RedisChannelLayer",
            _ => "channels_redis.pubsub.RedisPubSubChannelLayer",
        };
        let url = redis.url();
        // Python's own handshakes take their time.
        let more_of_it = match url.starts_with("rediss") {
            true => format!("?ssl_ca_certs={}&socket_connect_timeout=60&socket_timeout=60", redis.authority()),
            false => String::new(),
        };
        let mut config = json!({"hosts": [{"address": url + &more_of_it, "max_connections": 2_000}]});
        config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        writeln!(input, "{}", json!({"BACKEND": backend, "CONFIG": config})).unwrap();
        Self { _process: process, input, output }
    }

    /// All at once.
    fn send(&mut self, events: &[Value]) {
        writeln!(self.input, "{}", json!(events)).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "sent\n");
    }
}

fn node(redis: &Redis, layer: &str, more: &[(&'static str, &str)]) -> Server {
    let mut env = redis.env();
    env.push(("HABITTOD_CHANNEL_LAYER_DJANGO", layer.to_owned()));
    env.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let node = Server::start_with(&env);
    node.until(200, "ready");
    node
}

/// Until this node listens for that user.
fn listens(redis: &Redis, nodes: usize, layer: &str, user: i64) {
    let listens = || match layer {
        "core" => redis.call(&["ZCARD", &format!("asgi:group:tenant_notifications_{user}")]) == format!(":{nodes}"),
        // Each node has one pattern for each channel.
        _ => redis.call(&["PUBSUB", "NUMPAT"]) == format!(":{}", 2 * nodes.min(1)),
    };
    patiently(listens, || redis.call(&["CLIENT", "LIST"]));
}

fn general(to: i64, id: &str, message: &str) -> Value {
    json!([
        format!("property_notifications_{to}"),
        {"type": "general_notification", "message": message, "data": {"n": 1}, "timestamp": "t", "notification_id": id}
    ])
}

const IDS: [&str; 3] = [
    "183da0cd-0273-4a8c-946e-f780df4923dd",
    "f44d666f-1151-4c3a-833f-dec8fc8f4347",
    "16178fdd-ed88-48bf-993d-b520a668d90a",
];

/// The three events that Django sends of its own, as recorded from it.
fn recorded() -> [Value; 3] {
    let contact = json!({"email": "ana@example.com", "phone": ""});
    [
        json!(["property_notifications_1", {
            "type": "property_like_notification", "property_id": 1,
            "property_title": "departamento en Av. Siempre Viva 123",
            "interested_user": {"id": 2, "username": "inquilino1", "email": "luis@example.com", "first_name": "Luis",
                                "last_name": "Vargas"},
            "timestamp": "2026-11-24T01:56:55.114997", "notification_id": IDS[0]}]),
        json!(["property_notifications_1", {
            "type": "match_accepted_notification", "property_id": 1,
            "property_title": "departamento en Av. Siempre Viva 123", "property_address": "Av. Siempre Viva 123",
            "owner_contact": contact, "match_status": "accepted", "next_steps": ["x"],
            "timestamp": "2026-11-24T01:57:30.176920", "notification_id": IDS[1]}]),
        json!(["tenant_notifications_2", {
            "type": "match_accepted_for_tenant", "property_id": 1,
            "property_title": "departamento en Av. Siempre Viva 123", "property_address": "Av. Siempre Viva 123",
            "owner_name": "Ana Rojas", "owner_contact": contact, "match_score": 98.4, "next_steps": ["x"],
            "timestamp": "2026-11-24T01:57:30.176956", "notification_id": IDS[2]}]),
    ]
}

/// To users online on either node and to one who is away: everything, in order, once.
fn everything_arrives(layer: &str) {
    let redis = Redis::start();
    let (a, b) = (node(&redis, layer, &[]), node(&redis, layer, &[]));
    a.put_world();
    agree(&[&a, &b]);
    let (mut owner, mut elsewhere, mut tenant) =
        (a.connect("property", 1), b.connect("property", 1), b.connect("tenant", 2));
    // Whom no directory knows is known from his first connect on.
    drop(b.connect("property", 77));
    for id in [1, 2, 3, 77] {
        listens(&redis, 2, layer, id);
    }
    let mut django = Django::start(&redis, layer, &json!({}));
    let [like, accepted, for_tenant] = recorded();
    for event in [like, accepted, for_tenant] {
        django.send(&[event]);
    }
    for n in 0..50 {
        let events = [1, 3, 77].map(|to| general(to, &format!("{to}-{n}"), &n.to_string()));
        django.send(&events);
    }
    for device in [&mut owner, &mut elsewhere] {
        assert_eq!(device.next().unwrap()["type"], "connection_established");
        let like = device.next().unwrap();
        assert_eq!((&like["notification_id"], &like["type"]), (&json!(IDS[0]), &json!("property_like")));
        assert_eq!(like["property_title"], "departamento en Av. Siempre Viva 123");
        assert_eq!(
            (&like["interested_user"]["last_name"], &like["interested_user"]["phone"]),
            (&json!("Vargas"), &json!(""))
        );
        let accepted = device.next().unwrap();
        assert_eq!((&accepted["notification_id"], &accepted["type"]), (&json!(IDS[1]), &json!("match_accepted")));
        assert_eq!(
            (&accepted["property_address"], &accepted["owner_contact"]["email"]),
            (&json!("Av. Siempre Viva 123"), &json!("ana@example.com"))
        );
        for n in 0..50 {
            let general = device.next().unwrap();
            assert_eq!((&general["type"], &general["message"]), (&json!("general"), &json!(n.to_string())));
        }
    }
    assert_eq!(tenant.next().unwrap()["type"], "connection_established");
    let accepted = tenant.next().unwrap();
    assert_eq!((&accepted["notification_id"], &accepted["match_score"]), (&json!(IDS[2]), &json!(98.4)));
    agree(&[&a, &b]);
    // Who was away has it at the next connect, whichever node that is to.
    for (node, away) in [(&a, 3), (&b, 77)] {
        let got = node.connect("property", away).all();
        assert_eq!(
            got[1..].iter().map(|m| m["message"].as_str().unwrap()).collect::<Vec<_>>(),
            (0..50).map(|n| n.to_string()).collect::<Vec<_>>()
        );
        assert_eq!(types(&node.connect("property", away).all()), ["connection_established"]);
    }
    assert_eq!(owner.so_far(), Vec::<Value>::new());
}

fn all_at_once(redis: &Redis, layer: &str, count: u64) {
    // Many of them more than need be would shake hands for long where that is dear.
    let waiters = [("HABITTOD_CHANNEL_LAYER_DJANGO_WAITERS", if count == 1_000 { "900" } else { "200" })];
    let (a, b) = (node(redis, layer, &waiters), node(redis, layer, &waiters));
    a.put_world();
    listens(redis, 2, layer, 1);
    let mut django = Django::start(redis, layer, &json!({}));
    let mut owner = b.connect("property", 1);
    django.send(&(0..count).map(|n| general(1, &format!("n{n}"), &n.to_string())).collect::<Vec<_>>());
    let stored = || a.call("GET", "/api/notifications/my/", &user(1), Value::Null).body["data"]["total"].clone();
    patiently(|| stored() == count, || stored().to_string());
    owner.next().unwrap();
    let mut seen: Vec<u64> =
        (0..count).map(|_| owner.next().unwrap()["message"].as_str().unwrap().parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
    assert_eq!(owner.so_far(), Vec::<Value>::new());
    agree(&[&a, &b]);
}

#[test]
#[ignore = "needs redis-server and Django: tests/all has them"]
fn what_djangos_core_layer_sends_arrives() {
    everything_arrives("core");
}

#[test]
#[ignore = "needs redis-server and Django: tests/all has them"]
fn what_djangos_pubsub_layer_sends_arrives() {
    everything_arrives("pubsub");
}

#[test]
#[ignore = "needs redis-server and Django: tests/all has them"]
fn a_thousand_at_once_arrive_over_the_core_layer() {
    all_at_once(&Redis::start(), "core", 1_000);
}

#[test]
#[ignore = "needs redis-server and Django: tests/all has them"]
fn a_thousand_at_once_arrive_over_the_pubsub_layer() {
    all_at_once(&Redis::start(), "pubsub", 1_000);
}

#[test]
#[ignore = "needs redis-server, openssl and Django: tests/all has them"]
fn more_at_once_than_a_key_holds_arrive_over_tls() {
    all_at_once(&start_with_tls(), "core", 150);
}

#[test]
#[ignore = "needs redis-server and Django: tests/all has them"]
fn another_prefix_and_encrypted() {
    for layer in ["core", "pubsub"] {
        let redis = Redis::start();
        let more = [
            ("HABITTOD_CHANNEL_LAYER_DJANGO_PREFIX", "other"),
            ("HABITTOD_CHANNEL_LAYER_DJANGO_KEYS", "old one, new one"),
        ];
        let a = node(&redis, layer, &more);
        a.put_world();
        let joined = || redis.call(&["EXISTS", "other:group:property_notifications_1"]) == ":1" || layer == "pubsub";
        patiently(joined, String::new);
        let settings = json!({"prefix": "other", "symmetric_encryption_keys": ["new one"]});
        Django::start(&redis, layer, &settings).send(&[general(1, "a", "secret")]);
        let mut owner = a.connect("property", 1);
        owner.next().unwrap();
        assert_eq!(owner.next().unwrap()["message"], "secret");
    }
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn hostile_messages_are_dropped_and_membership_ends_with_the_server() {
    let redis = Redis::start();
    let mut a = node(&redis, "core", &[]);
    a.put_world();
    listens(&redis, 1, "core", 1);
    let member = redis.call(&["ZRANGE", "asgi:group:property_notifications_1", "0", "-1"]);
    let member = member.lines().last().unwrap();
    let key = format!("asgi{}!", member.split('!').next().unwrap());
    for hostile in ["", "short", "000000000000", "000000000000\u{1}", "000000000000plain text"] {
        redis.call(&["ZADD", &key, "1", hostile]);
    }
    redis.call(&["SET", "unrelated", "1"]);
    let reply =
        a.call("POST", "/api/notifications/", &service(), json!({"user": 1, "channel": "property", "message": "m"}));
    assert_eq!(reply.status, 201);
    patiently(|| redis.call(&["ZCARD", &key]) == ":0", || redis.call(&["ZRANGE", &key, "0", "-1"]));
    assert_eq!(a.call("GET", "/api/notifications/my/", &user(1), Value::Null).body["data"]["total"], 1);
    let dropped =
        |cause: &str| Scrape::of(&a).of_series(&format!("habittod_django_refused_total{{cause=\"{cause}\"}}"));
    let counted = || (dropped("not_messagepack"), dropped("not_a_map"));
    patiently(|| counted() == (4.0, 1.0), || format!("{:?}", counted()));
    a.signal("-TERM");
    assert_eq!(a.wait().code(), Some(0));
    assert_eq!(redis.call(&["EXISTS", "asgi:group:property_notifications_1"]), ":0");
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn membership_follows_who_comes_and_goes_and_a_redis_that_forgot_it() {
    let mut redis = Redis::start();
    let (a, b) = (node(&redis, "core", &[]), node(&redis, "core", &[]));
    a.put_world();
    for id in [1, 2, 3] {
        listens(&redis, 2, "core", id);
    }
    // Who is deleted on one node is left by all.
    assert_eq!(a.call("DELETE", "/api/users/2/", &service(), Value::Null).status, 204);
    listens(&redis, 0, "core", 2);
    redis.stop();
    let before = redis.disk();
    redis.restart();
    for node in [&a, &b] {
        node.until(200, "ready");
    }
    a.call("PUT", "/api/users/4/", &service(), json!({"username": "four"}));
    listens(&redis, 2, "core", 4);
    redis.set_back(&before);
    listens(&redis, 2, "core", 4);
    // What was joined is joined anew, long before Django forgets it.
    let joined = |redis: &Redis| redis.call(&["ZRANGE", "asgi:group:tenant_notifications_1", "0", "-1", "WITHSCORES"]);
    let first = joined(&redis);
    redis.stop();
    redis.restart();
    let is_new = |now: String| now.lines().count() == first.lines().count() && now != first;
    patiently(|| is_new(joined(&redis)), || joined(&redis));
}
