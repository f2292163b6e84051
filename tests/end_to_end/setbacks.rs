//! Nodes on one Redis when a disk, a process or Redis itself fails them: nobody loses its place in the log, what is asked
//! meanwhile gets 503, and all are alike again without anybody's doing.

use crate::device::{Device, types};
use crate::disk::{Disk, Errno};
use crate::exposition::Scrape;
use crate::nodes::agree;
use crate::redis::Redis;
use crate::server::{Reply, Server, patiently, service, try_call, user};
use serde_json::{Value, json};
use std::net::SocketAddr;

const QUEUED: &str = "habittod_shared_log_queue_depth{queue=\"append\"}";
const KEPT: &str = "habittod_shared_log_queue_depth{queue=\"kept\"}";
const UNDELIVERED: &str = "habittod_notifications_undelivered";
const LAG: &str = "habittod_shared_log_lag_seconds";

fn node_on(disk: &Disk, redis: &Redis, more: &[(&'static str, &str)]) -> Server {
    let env = redis.env();
    let env = env.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied());
    Server::start_on(disk, false, &env.collect::<Vec<_>>()).unwrap()
}

fn post(node: SocketAddr, message: &str) -> Option<Reply> {
    let note = json!({"user": 1, "channel": "property", "message": message});
    try_call(node, "POST", "/api/notifications/", Some(&service()), Some(&note))
}

fn assert_refused(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.head.contains("\r\nRetry-After: "), "{}", reply.head);
}

/// Lets this device's receipts out, and waits until the nodes have them: until somebody asks for something, they write
/// nothing.
fn receipts_are_in(device: &mut Device, nodes: &[&Server]) {
    assert!(device.all().is_empty());
    for node in nodes {
        until_shown(node, UNDELIVERED, |count| count == 0.0);
    }
}

/// How many notifications the owner has on that node.
fn total(node: &Server) -> u64 {
    node.call("GET", "/api/notifications/my/", &user(1), Value::Null).body["data"]["total"].as_u64().unwrap()
}

fn until_shown(node: &Server, series: &str, is_so: impl Fn(f64) -> bool) {
    let shown = || Scrape::of(node).of_series(series);
    patiently(|| is_so(shown()), || format!("{series} {}", shown()));
}

fn entries(redis: &Redis) -> u64 {
    redis.call(&["XLEN", "habittod:log"]).trim_start_matches(':').parse().unwrap()
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_node_whose_disk_fails_keeps_its_place_and_heals() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let (a, mut b) = (Server::start_with(&redis.env()), node_on(&disk, &redis, &[]));
    a.put_world();
    agree(&[&a, &b]);
    let mut device = b.connect("property", 1);
    device.next().unwrap();
    let faults: [&dyn Fn(); 4] =
        [&|| disk.fail(Errno::NoSpace), &|| disk.fail(Errno::Io), &|| disk.fail(Errno::ReadOnly), &|| {
            disk.fail_syncs(Errno::Io)
        }];
    for (n, fail) in faults.into_iter().enumerate() {
        let before = total(&b);
        receipts_are_in(&mut device, &[&a, &b]);
        fail();
        // It finds out at this one's cost, which was appended before and is done later, on all nodes.
        assert_refused(&post(b.address, &format!("own {n}")).unwrap());
        for k in 0..20 {
            assert_eq!(post(a.address, &format!("{n} {k}")).unwrap().status, 201);
        }
        assert_eq!(total(&a), before + 21);
        b.until(503, "storage: ");
        assert_refused(&post(b.address, "refused").unwrap());
        assert_eq!((device.so_far(), total(&b)), (vec![], before), "nothing is told, nothing is changed");
        until_shown(&b, LAG, |lag| lag > 0.0);
        disk.heal();
        b.until(200, "ready");
        assert_eq!(device.next().unwrap()["message"], format!("own {n}"));
        for k in 0..20 {
            assert_eq!(device.next().unwrap()["message"], format!("{n} {k}"));
        }
        until_shown(&b, LAG, |lag| lag == 0.0);
        agree(&[&a, &b]);
        assert_eq!((total(&a), total(&b)), (before + 21, before + 21));
    }
    // Nor does it lose its place when it is killed while it cannot write.
    let before = total(&b);
    receipts_are_in(&mut device, &[&a, &b]);
    disk.fail(Errno::NoSpace);
    assert_refused(&post(b.address, "last").unwrap());
    b.kill();
    disk.heal();
    b.restart();
    b.until(200, "ready");
    agree(&[&a, &b]);
    assert_eq!((total(&a), total(&b)), (before + 1, before + 1));
    // Nor is it kept from ending.
    disk.fail(Errno::NoSpace);
    assert_refused(&post(b.address, "held").unwrap());
    b.signal("-TERM");
    assert!(b.wait().success());
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn what_was_appended_and_not_yet_applied_when_its_node_was_killed_is_done_once() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let (a, mut b) = (Server::start_with(&redis.env()), node_on(&disk, &redis, &[]));
    a.put_world();
    agree(&[&a, &b]);
    disk.hold_syncs();
    std::thread::scope(|scope| {
        let there = b.address;
        let asked = scope.spawn(move || post(there, "once"));
        patiently(|| disk.held() > 0 && total(&a) == 1, || total(&a).to_string());
        b.kill();
        assert!(asked.join().unwrap().is_none());
    });
    disk.heal();
    b.restart();
    b.until(200, "ready");
    agree(&[&a, &b]);
    assert_eq!(total(&b), 1);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn commands_that_come_while_entries_are_under_way_ride_in_one() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let a = node_on(&disk, &redis, &[("HABITTOD_CHANNEL_LAYER_REDIS_TIMEOUT", "20s")]);
    // Its first housekeeping is an entry of its own, and committed before what comes behind it is answered.
    patiently(|| redis.call(&["XRANGE", "habittod:log", "-", "+"]).contains("Retain"), || "no housekeeping".to_owned());
    a.put_world();
    let before = entries(&redis);
    disk.hold_syncs();
    std::thread::scope(|scope| {
        let (there, redis) = (a.address, &redis);
        let ask = |n: u64| scope.spawn(move || post(there, &n.to_string()).unwrap().status);
        let mut asked = Vec::new();
        // So many are under way at most.
        for n in 1..=3 {
            asked.push(ask(n));
            patiently(|| entries(redis) == before + n, || entries(redis).to_string());
        }
        asked.extend((4..=64).map(ask));
        // The first of the others is in the hand of the thread that waits for room.
        until_shown(&a, QUEUED, |queued| queued >= 60.0);
        disk.heal();
        assert!(asked.into_iter().all(|one| one.join().unwrap() == 201));
    });
    assert_eq!((total(&a), entries(&redis)), (64, before + 4));
    until_shown(&a, QUEUED, |queued| queued == 0.0);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn receipts_made_while_redis_is_away_are_sent_later() {
    let mut redis = Redis::start();
    let (a, b) = (Server::start_with(&redis.env()), Server::start_with(&redis.env()));
    a.put_world();
    a.like(2, 10);
    redis.stop();
    a.until(503, "shared log: ");
    // What waits is sent all the same, and what came of it is kept.
    assert_eq!(types(&a.connect("property", 1).all()), ["connection_established", "property_like"]);
    until_shown(&a, KEPT, |kept| kept == 1.0);
    redis.restart();
    a.until(200, "ready");
    b.until(200, "ready");
    until_shown(&a, KEPT, |kept| kept == 0.0);
    for node in [&a, &b] {
        let row = || node.call("GET", "/api/notifications/", &user(1), Value::Null).body["data"]["results"][0].clone();
        patiently(|| row()["delivered_at"].is_string(), || row().to_string());
        assert_eq!(types(&node.connect("property", 1).all()), ["connection_established"]);
    }
    agree(&[&a, &b]);
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn a_redis_without_memory_is_one_that_says_no_until_it_has_some() {
    let redis = Redis::start();
    let env = [redis.env(), vec![("HABITTOD_CHANNEL_LAYER_LOG_KEEP", "1ms".to_owned())]].concat();
    let (a, b) = (Server::start_with(&env), Server::start_with(&env));
    a.put_world();
    (100..400).for_each(|home| a.put_property(home));
    // Both have said that they have all of it.
    let said = || {
        let newest = redis.call(&["XREVRANGE", "habittod:log", "+", "-", "COUNT", "1"]);
        let newest = newest.lines().find(|line| line.contains('-')).unwrap();
        redis.call(&["HVALS", "habittod:log:nodes"]).matches(newest).count()
    };
    patiently(|| said() == 2, || redis.call(&["HVALS", "habittod:log:nodes"]));
    redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_refused(&post(a.address, "refused").unwrap());
    a.until(503, "shared log: ");
    assert_eq!(total(&a), 0);
    // What need not be kept makes room, which Redis drops by the hundred.
    patiently(|| entries(&redis) <= 100, || entries(&redis).to_string());
    redis.call(&["CONFIG", "SET", "maxmemory", "0"]);
    a.until(200, "ready");
    assert_eq!(post(a.address, "kept").unwrap().status, 201);
    b.until(200, "ready");
    agree(&[&a, &b]);
    assert_eq!(total(&b), 1);
}
