//! Several nodes on one Redis: the same rows everywhere, each frame once, and what happens when one of them is away.

use crate::device::types;
use crate::redis::{Redis, start_with_tls};
use crate::server::{Server, patiently, program, service, user};
use serde_json::{Value, json};

/// Waits until all hold the same rows.
pub(crate) fn agree(nodes: &[&Server]) {
    let digests = || nodes.iter().map(|node| node.digest()).collect::<Vec<String>>();
    patiently(|| digests().windows(2).all(|pair| pair[0] == pair[1]), || format!("{:?}", digests()));
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_frame_reaches_a_users_sockets_on_every_node_once() {
    let redis = Redis::start();
    let (a, b) = (Server::start_with(&redis.env()), Server::start_with(&redis.env()));
    a.put_world();
    let (mut here, mut there) = (a.connect("property", 1), b.connect("property", 1));
    let mut tenant = b.connect("tenant", 1);
    for device in [&mut here, &mut there, &mut tenant] {
        device.next().unwrap();
    }
    b.until(200, "ready");
    b.like(2, 10);
    let (one, other) = (here.next().unwrap(), there.next().unwrap());
    assert_eq!(one, other);
    assert_eq!(one["type"], "property_like");
    // Read on one node is read on all.
    here.send(&json!({"type": "mark_read", "notification_id": one["notification_id"]}));
    for device in [&mut here, &mut there, &mut tenant] {
        let read = device.next().unwrap();
        assert_eq!((&read["type"], &read["notification_id"]), (&json!("notification_read"), &one["notification_id"]));
    }
    assert_eq!((here.so_far(), there.so_far()), (vec![], vec![]));
    agree(&[&a, &b]);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn an_acknowledgement_on_one_node_stops_the_replay_on_all() {
    let redis = Redis::start();
    let (a, b) = (Server::start_with(&redis.env()), Server::start_with(&redis.env()));
    a.put_world();
    a.like(2, 10);
    assert_eq!(types(&a.connect("property", 1).all()), ["connection_established", "property_like"]);
    // The receipt is behind it in the log, and a socket of that node is answered behind the receipt.
    assert_eq!(types(&a.connect("property", 1).all()), ["connection_established"]);
    agree(&[&a, &b]);
    assert_eq!(types(&b.connect("property", 1).all()), ["connection_established"]);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn the_same_key_gives_the_same_answer_on_every_node() {
    let redis = Redis::start();
    let (a, b) = (Server::start_with(&redis.env()), Server::start_with(&redis.env()));
    a.put_world();
    let note = |node: &Server| {
        let body = json!({"user": 1, "channel": "tenant", "message": "a"}).to_string();
        let head = format!(
            "POST /api/notifications/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            service(),
            body.len()
        );
        node.raw((head + &body).as_bytes()).unwrap()
    };
    let (first, again) = (note(&a), note(&b));
    assert_eq!((first.status, again.status, &first.body), (201, 201, &again.body));
    agree(&[&a, &b]);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_node_that_was_away_catches_up_before_it_is_ready() {
    let redis = Redis::start();
    let (a, mut b) = (Server::start_with(&redis.env()), Server::start_with(&redis.env()));
    a.put_world();
    b.kill();
    for home in 20..120 {
        a.put_property(home);
    }
    b.restart();
    b.until(200, "ready");
    assert_eq!(a.digest(), b.digest());
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn without_redis_writes_wait_for_it_and_nothing_else_does() {
    let mut redis = Redis::start();
    let a = Server::start_with(&redis.env());
    a.put_world();
    let mut device = a.connect("property", 1);
    device.next().unwrap();
    redis.stop();
    let refused = a.call("POST", "/api/properties/10/like/", &user(2), Value::Null);
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("Retry-After: "), "{}", refused.head);
    a.until(503, "log: ");
    assert_eq!(device.so_far(), Vec::<Value>::new());
    assert_eq!(a.call("GET", "/api/users/me/", &user(2), Value::Null).status, 200);
    assert_eq!(types(&a.connect("tenant", 2).all()), ["connection_established"]);
    device.send(&json!({"type": "mark_read", "all": true}));
    assert_eq!(device.next().unwrap()["code"], "unavailable");
    redis.restart();
    a.until(200, "ready");
    a.like(2, 10);
    assert_eq!(device.next().unwrap()["type"], "property_like");
    // Slow is as good as gone, and an append that is done after all is done once.
    redis.signal("-STOP");
    let body = json!({"user": 1, "channel": "property", "message": "slow"});
    assert_eq!(a.call("POST", "/api/notifications/", &service(), body).status, 503);
    a.until(503, "log: ");
    redis.signal("-CONT");
    a.until(200, "ready");
    assert_eq!(device.next().unwrap()["message"], "slow");
    assert_eq!(device.so_far(), Vec::<Value>::new());
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_database_that_does_not_fit_the_log_says_what_to_do() {
    let redis = Redis::start();
    let mut a = Server::start_with(&redis.env());
    a.put_world();
    let mut b = Server::start_with(&redis.env());
    b.until(200, "ready");
    let backup = b.folder().join("copy.db");
    b.kill();
    a.like(2, 10);
    a.like(3, 10);
    let ends = |folder: &std::path::Path, words: &str| {
        let env: Vec<_> = redis.env().into();
        let output = program(folder, &env).arg("serve").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains(words)), (Some(3), true), "{said}");
    };
    redis.call(&["XTRIM", "habittod:log", "MAXLEN", "1"]);
    ends(b.folder(), "trimmed past");
    let empty = tempfile::tempdir().unwrap();
    ends(empty.path(), "trimmed past");
    // A backup of another node is a new node.
    assert_eq!(a.command(&["backup", backup.to_str().unwrap()]).code, 0);
    let seeded = tempfile::tempdir().unwrap();
    std::fs::rename(backup, seeded.path().join("habittod.db")).unwrap();
    let c = Server::start_in(seeded, &redis.env());
    c.until(200, "ready");
    a.like(2, 10);
    agree(&[&a, &c]);
    // A log that goes while it is followed.
    redis.call(&["FLUSHALL"]);
    a.until(503, "is gone");
    assert_eq!(a.call("POST", "/api/properties/10/reject/", &user(2), Value::Null).status, 503);
    a.kill();
    ends(a.folder(), "is gone");
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_redis_that_lost_its_tail_gets_it_back_or_is_not_followed() {
    let mut redis = Redis::start();
    let (mut a, mut b) = (Server::start_with(&redis.env()), Server::start_with(&redis.env()));
    a.put_world();
    redis.stop();
    let before = redis.disk();
    redis.restart();
    a.until(200, "ready");
    b.until(200, "ready");
    a.like(2, 10);
    a.like(3, 10);
    agree(&[&a, &b]);
    // Nodes that hold it give it back.
    redis.set_back(&before);
    a.until(200, "ready");
    b.until(200, "ready");
    a.call("POST", "/api/properties/10/reject/", &user(2), Value::Null);
    agree(&[&a, &b]);
    let empty = Server::start_with(&redis.env());
    empty.until(200, "ready");
    agree(&[&a, &empty]);
    // Where nobody has it in memory any more, the database that holds more than the log says so.
    drop(empty);
    a.kill();
    b.kill();
    redis.set_back(&before);
    let env: Vec<_> = redis.env().into();
    for node in [&a, &b] {
        let output = program(node.folder(), &env).arg("serve").output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(String::from_utf8(output.stderr).unwrap().contains("has lost entries up to"));
    }
}

#[test]
#[ignore = "needs redis-server and openssl: tests/all has them"]
fn over_tls_and_only_to_whom_it_trusts() {
    let (_redis, url, authority) = start_with_tls();
    let mut env = vec![("CHANNEL_LAYER", "redis".to_owned()), ("HABITTOD_CHANNEL_LAYER_REDIS_URL", url)];
    let stranger = Server::start_with(&env);
    stranger.until(503, "certificate");
    env.push(("SSL_CERT_FILE", authority));
    env.push(("HABITTOD_CHANNEL_LAYER_DJANGO", "core".to_owned()));
    let a = Server::start_with(&env);
    a.until(200, "ready");
    a.put_world();
    a.like(2, 10);
    assert!(!stranger.ready().body.to_string().contains("hunter2"));
}
