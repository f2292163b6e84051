//! Several nodes on one Redis: the same rows everywhere, each frame once, and what happens when one of them is away.

use crate::device::types;
use crate::redis::{PASSWORD, Redis, start_with_tls};
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
    a.until(503, "shared log: ");
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
    a.until(503, "shared log: ");
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
    let seeded = |by: &Server| {
        assert_eq!(by.command(&["backup", backup.to_str().unwrap()]).code, 0);
        let seeded = tempfile::tempdir().unwrap();
        std::fs::rename(&backup, seeded.path().join("habittod.db")).unwrap();
        let node = Server::start_in(seeded, &redis.env());
        node.until(200, "ready");
        node
    };
    // Of a node that is down, too: the log goes on being kept for that one.
    drop(seeded(&b));
    assert_eq!(redis.call(&["HLEN", "habittod:log:nodes"]).trim(), ":3");
    a.like(2, 10);
    a.like(3, 10);
    let ends = |folder: &std::path::Path, words: &str| {
        let env = redis.env();
        let output = program(folder, &env).arg("serve").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains(words)), (Some(3), true), "{said}");
    };
    redis.call(&["XTRIM", "habittod:log", "MAXLEN", "1"]);
    ends(b.folder(), "trimmed past");
    let empty = tempfile::tempdir().unwrap();
    ends(empty.path(), "trimmed past");
    // A backup of another node is a new node.
    let c = seeded(&a);
    a.like(2, 10);
    agree(&[&a, &c]);
    // A log that goes while it is followed.
    redis.call(&["DEL", "habittod:log"]);
    a.until(503, "is gone: habittod:log is missing");
    redis.call(&["FLUSHALL"]);
    a.until(503, "is gone: habittod:log:founding is missing");
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
    // A node that starts and looks before they do waits for them.
    drop(empty);
    a.kill();
    b.signal("-STOP");
    redis.set_back(&before);
    std::thread::scope(|scope| {
        let starts = scope.spawn(|| a.restart());
        patiently(|| calls(&redis, "xinfo|stream") > 0, || "it never looked".to_owned());
        b.signal("-CONT");
        starts.join().unwrap();
    });
    a.until(200, "ready");
    agree(&[&a, &b]);
    // Where nobody has it in memory any more, the database that holds more than the log says so.
    a.kill();
    b.kill();
    redis.set_back(&before);
    let env = redis.env();
    for node in [&a, &b] {
        let output = program(node.folder(), &env).arg("serve").output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(String::from_utf8(output.stderr).unwrap().contains("has lost entries up to"));
    }
}

#[test]
#[ignore = "needs redis-server and openssl: tests/all has them"]
fn over_tls_and_only_to_whom_it_trusts() {
    let redis = start_with_tls();
    let mut env = redis.env();
    let a = Server::start_with(&env);
    a.until(200, "ready");
    a.put_world();
    a.like(2, 10);
    env.retain(|(name, _)| *name != "SSL_CERT_FILE");
    let stranger = Server::start_with(&env);
    stranger.until(503, "certificate");
    assert!(!stranger.ready().body.to_string().contains(PASSWORD));
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn over_tcp_by_host_and_port_or_as_a_user_of_redis() {
    let (redis, port) = Redis::start_on_tcp();
    redis.call(&["ACL", "SETUSER", "habittod", "on", ">hunter2", "~*", "&*", "+@all"]);
    let by_host = [("CHANNEL_LAYER", "redis"), ("REDIS_HOST", "localhost"), ("REDIS_PORT", &port)];
    let url = |password: &str| format!("redis://habittod:{password}@127.0.0.1:{port}/0");
    let by_url = |password: &str| {
        [
            ("CHANNEL_LAYER", "redis".to_owned()),
            ("HABITTOD_CHANNEL_LAYER_DJANGO", "core".to_owned()),
            ("HABITTOD_CHANNEL_LAYER_REDIS_URL", url(password)),
        ]
    };
    let (a, b) = (Server::start_with(&by_host), Server::start_with(&by_url("hunter2")));
    a.put_world();
    b.until(200, "ready");
    b.like(2, 10);
    agree(&[&a, &b]);
    let stranger = Server::start_with(&by_url("guessed"));
    stranger.until(503, "shared log: ");
    assert!(!stranger.ready().body.to_string().contains("guessed"));
}

/// How often Redis was asked for that since it started.
fn calls(redis: &Redis, command: &str) -> u64 {
    let (stats, name) = (redis.call(&["INFO", "commandstats"]), format!("cmdstat_{command}:calls="));
    let line = stats.lines().find_map(|line| line.trim().strip_prefix(&name));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn entries_are_dropped_once_all_known_nodes_have_them() {
    let redis = Redis::start();
    let env = [redis.env(), vec![("HABITTOD_CHANNEL_LAYER_LOG_KEEP", "1ms".to_owned())]].concat();
    let (mut a, mut b) = (Server::start_with(&env), Server::start_with(&env));
    a.put_world();
    agree(&[&a, &b]);
    let entries = || redis.call(&["XLEN", "habittod:log"]).trim_start_matches(':').parse::<u64>().unwrap();
    // Redis drops them by the hundred.
    let fill = |node: &Server, homes: std::ops::Range<i64>| homes.for_each(|home| node.put_property(home));
    b.kill();
    fill(&a, 100..400);
    let before = (entries(), calls(&redis, "xtrim"));
    // A node trims when it starts.
    a.kill_and_restart();
    patiently(|| calls(&redis, "xtrim") > before.1, || calls(&redis, "xtrim").to_string());
    assert!(entries() >= before.0, "another node still needs them");
    b.restart();
    b.until(200, "ready");
    agree(&[&a, &b]);
    patiently(|| entries() <= 100, || entries().to_string());
    // A node that has been away for too long is not waited for.
    b.kill();
    fill(&a, 400..700);
    let forgets = [env.clone(), vec![("HABITTOD_CHANNEL_LAYER_LOG_FORGET", "1ms".to_owned())]].concat();
    a.kill();
    let seeded = tempfile::tempdir().unwrap();
    std::fs::copy(a.folder().join("habittod.db"), seeded.path().join("habittod.db")).unwrap();
    std::fs::copy(a.folder().join("habittod.db-wal"), seeded.path().join("habittod.db-wal")).unwrap();
    let c = Server::start_in(seeded, &forgets);
    c.until(200, "ready");
    patiently(|| entries() <= 100, || entries().to_string());
    let output = program(b.folder(), &env).arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("trimmed past"));
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_refresh_token_works_once_on_all_nodes_together() {
    let redis = Redis::start();
    let (a, b) = (Server::start_with(&redis.env()), Server::start_with(&redis.env()));
    let password = habittod::auth::password::encode("secreto", &habittod::auth::password::salt(), 2);
    let maria = json!({"username": "maria", "password": password});
    assert_eq!(a.call("PUT", "/api/users/1/", &service(), maria).status, 201);
    agree(&[&a, &b]);
    let post = |node: &Server, path: &str, body: Value| node.try_call("POST", path, None, Some(&body)).unwrap();
    let login = post(&a, "/api/login/", json!({"username": "maria", "password": "secreto"}));
    let token = login.body["data"]["refresh"].clone();
    let refresh = |node: &Server, token: &Value| post(node, "/api/refresh/", json!({"refresh": token}));
    let next = refresh(&b, &token);
    assert_eq!((login.status, next.status), (200, 200), "{} {}", login.body, next.body);
    // The second use ends all that descend from the sign-in, on every node.
    assert_eq!(refresh(&a, &token).status, 401);
    assert_eq!(refresh(&b, &next.body["data"]["refresh"]).status, 401);
    agree(&[&a, &b]);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn an_import_into_a_database_that_follows_a_log_is_refused() {
    let redis = Redis::start();
    let mut a = Server::start_with(&redis.env());
    a.put_world();
    a.kill();
    let digest = a.digest();
    std::fs::write(a.folder().join("world.jsonl"), "{\"user\":{\"id\":9,\"username\":\"nine\"}}\n").unwrap();
    let said = a.command(&["import", "world.jsonl"]);
    assert!(said.code != 0 && said.err.contains("follows the log of several nodes"), "{} {}", said.code, said.err);
    assert_eq!(a.digest(), digest);
    // Nor does it start without the log, which it could not follow again.
    for command in ["serve", "check"] {
        let alone = program(a.folder(), &[]).arg(command).output().unwrap();
        let words = String::from_utf8_lossy(&alone.stderr);
        assert!(alone.status.code() == Some(3) && words.contains("to leave that log for good: sqlite3 "), "{words}");
    }
    a.restart();
    a.until(200, "ready");
    assert_eq!(a.digest(), digest);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_node_that_finds_redis_full_drops_nothing_that_it_needs_itself() {
    let redis = Redis::start();
    let env = [redis.env(), vec![("HABITTOD_CHANNEL_LAYER_LOG_KEEP", "1ms".to_owned())]].concat();
    let (mut a, mut b) = (Server::start_with(&env), Server::start_with(&env));
    a.put_world();
    agree(&[&a, &b]);
    a.kill();
    (100..400).for_each(|home| b.put_property(home));
    b.kill();
    let before = calls(&redis, "xtrim");
    redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
    // Nobody is known any more, and it cannot say that it is there.
    let forgets = [env, vec![("HABITTOD_CHANNEL_LAYER_LOG_FORGET", "1ms".to_owned())]].concat();
    let moved = tempfile::tempdir().unwrap();
    for file in ["habittod.db", "habittod.db-wal"] {
        std::fs::copy(a.folder().join(file), moved.path().join(file)).unwrap();
    }
    let a = Server::start_in(moved, &forgets);
    patiently(|| calls(&redis, "xtrim") > before, || "it never trimmed".to_owned());
    a.until(503, "OOM");
    redis.call(&["CONFIG", "SET", "maxmemory", "0"]);
    a.until(200, "ready");
    assert_eq!(a.digest(), b.digest());
}
