//! Three nodes under load while they are killed and Redis is stopped, continued and restarted: whatever was confirmed is
//! there once, everywhere the same, and no socket sees anything twice. `CHAOS_SECONDS` makes it longer than a minute,
//! `CHAOS_SEED` the same again.

use crate::device::Device;
use crate::nodes::agree;
use crate::redis::Redis;
use crate::server::{Server, service, try_call, user};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::{Shutdown, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

const NODES: usize = 3;
const OWNERS: [i64; 3] = [1, 2, 3];
const TENANTS: [i64; 4] = [101, 102, 103, 104];
const HOMES: usize = 120;

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the clients share.
struct World {
    nodes: Vec<Mutex<SocketAddr>>,
    over: AtomicBool,
    likes: AtomicUsize,
    /// Liked and confirmed: match, property, tenant.
    matches: Mutex<Vec<(i64, i64, i64)>>,
    told: Mutex<Told>,
}

/// What was confirmed; each must be there once.
#[derive(Default)]
struct Told {
    notes: Vec<(i64, String)>,
    likes: Vec<(i64, i64)>,
    accepts: HashSet<(i64, i64)>,
    read: Vec<(i64, String)>,
}

fn owner_of(property: i64) -> i64 {
    OWNERS[property as usize % OWNERS.len()]
}

impl World {
    fn node(&self, dice: &mut Dice) -> SocketAddr {
        *self.nodes[dice.below(NODES)].lock().unwrap()
    }

    /// One call after the other, each to whichever node.
    fn act(&self, client: usize, seed: u64) {
        let mut dice = Dice(seed);
        for n in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let node = self.node(&mut dice);
            match dice.below(10) {
                0..4 => self.note(node, &mut dice, format!("{client}-{n}")),
                4..7 => self.like(node),
                7..9 => self.accept(node, &mut dice),
                _ => self.read_one(node, &mut dice),
            }
        }
    }

    fn note(&self, node: SocketAddr, dice: &mut Dice, text: String) {
        let to = OWNERS[dice.below(OWNERS.len())];
        let body = json!({"user": to, "channel": "property", "message": text});
        if done(node, "/api/notifications/", &service(), Some(&body)).is_some() {
            self.told.lock().unwrap().notes.push((to, text));
        }
    }

    fn like(&self, node: SocketAddr) {
        let n = self.likes.fetch_add(1, Ordering::Relaxed);
        let (tenant, property) = (TENANTS[n % TENANTS.len()], (n / TENANTS.len() % HOMES) as i64 + 1_000);
        if let Some(reply) = done(node, &format!("/api/properties/{property}/like/"), &user(tenant), None) {
            self.told.lock().unwrap().likes.push((property, tenant));
            self.matches.lock().unwrap().push((reply["match_id"].as_i64().unwrap(), property, tenant));
        }
    }

    fn accept(&self, node: SocketAddr, dice: &mut Dice) {
        let some = {
            let matches = self.matches.lock().unwrap();
            if matches.is_empty() { None } else { Some(matches[dice.below(matches.len())]) }
        };
        let Some((id, property, tenant)) = some else { return };
        let path = format!("/api/matches/{id}/owner_accept/");
        if done(node, &path, &user(owner_of(property)), None).is_some() {
            self.told.lock().unwrap().accepts.insert((property, tenant));
        }
    }

    fn read_one(&self, node: SocketAddr, dice: &mut Dice) {
        let owner = OWNERS[dice.below(OWNERS.len())];
        let list = try_call(node, "GET", "/api/notifications/?is_read=false&page_size=1", Some(&user(owner)), None);
        let Some(list) = list.filter(|reply| reply.status == 200) else { return };
        let Some(id) = list.body["data"]["results"][0]["notification_id"].as_str().map(str::to_owned) else { return };
        if done(node, &format!("/api/notifications/{id}/mark_as_read/"), &user(owner), None).is_some() {
            self.told.lock().unwrap().read.push((owner, id));
        }
    }

    /// A device that comes back wherever it can, for ever; what all its sockets saw.
    fn device(&self, who: i64, channel: &str, seed: u64) -> HashSet<String> {
        let (mut dice, mut ever) = (Dice(seed), HashSet::new());
        while !self.over.load(Ordering::Relaxed) {
            let Some(mut device) = Device::try_connect(self.node(&mut dice), channel, who) else { continue };
            // Some leave by themselves after a while, with their last receipts still on the way.
            let leaves = if dice.below(2) == 0 { 1 + dice.below(60) } else { usize::MAX };
            let mut here = HashSet::new();
            while here.len() < leaves
                && let Ok(message) = device.next()
            {
                if message["type"] == "connection_established" || message["type"] == "notification_read" {
                    if self.over.load(Ordering::Relaxed) {
                        break;
                    }
                    continue;
                }
                let id = message["notification_id"].as_str().unwrap().to_owned();
                assert!(here.insert(id.clone()), "twice on one socket: {message}");
                ever.insert(id);
                if self.over.load(Ordering::Relaxed) {
                    break;
                }
            }
            let _ = device.stream().shutdown(Shutdown::Both);
        }
        ever
    }
}

/// The `data` of a call that was confirmed.
fn done(node: SocketAddr, path: &str, token: &str, body: Option<&Value>) -> Option<Value> {
    let reply = try_call(node, "POST", path, Some(token), body)?;
    assert!([200, 201, 503].contains(&reply.status), "{path}: {} {}", reply.status, reply.body);
    (reply.status < 300).then(|| reply.body["data"].clone())
}

/// Everything one user has.
fn rows(node: &Server, who: i64) -> Vec<Value> {
    let (mut all, mut next) = (Vec::new(), Some("/api/notifications/?page_size=100".to_owned()));
    while let Some(path) = next {
        let page = node.call("GET", &path, &user(who), Value::Null).body;
        all.extend(page["data"]["results"].as_array().unwrap().iter().cloned());
        next = page["data"]["next"].as_str().map(|link| link.replace("http://h", ""));
    }
    all
}

/// Kills, stops and restarts until the time is over.
fn trouble(world: &World, nodes: &mut [Server], redis: &mut Redis, dice: &mut Dice, seconds: u64) {
    let clock = habittod::clock::Clock::start();
    let (_never, nothing) = channel::<()>();
    let wait = |ms: usize| {
        let _ = nothing.recv_timeout(Duration::from_millis(ms as u64));
    };
    while clock.now().monotonic_us < seconds * 1_000_000 {
        wait(100 + dice.below(700));
        match dice.below(6) {
            0..4 => {
                let n = dice.below(NODES);
                nodes[n].kill();
                wait(dice.below(600));
                nodes[n].restart();
                *world.nodes[n].lock().unwrap() = nodes[n].address;
            }
            4 => {
                redis.signal("-STOP");
                wait(100 + dice.below(3_000));
                redis.signal("-CONT");
            }
            _ => {
                redis.stop();
                wait(dice.below(800));
                redis.restart();
            }
        }
    }
}

#[test]
#[ignore = "needs redis-server: tests/all has it"]
fn what_was_confirmed_is_there_once_whatever_breaks() {
    let seed = number("CHAOS_SEED", u64::from(std::process::id()));
    let mut redis = Redis::start();
    let mut nodes: Vec<Server> = (0..NODES).map(|_| Server::start_with(&redis.env())).collect();
    nodes[0].until(200, "ready");
    for id in OWNERS.into_iter().chain(TENANTS) {
        let reply =
            nodes[0].call("PUT", &format!("/api/users/{id}/"), &service(), json!({"username": format!("u{id}")}));
        assert_eq!(reply.status, 201);
    }
    for property in 1_000..1_000 + HOMES as i64 {
        let home = json!({"owner": owner_of(property), "type": "casa", "address": property.to_string()});
        assert_eq!(nodes[0].call("PUT", &format!("/api/properties/{property}/"), &service(), home).status, 201);
    }
    let world = World {
        nodes: nodes.iter().map(|node| Mutex::new(node.address)).collect(),
        over: AtomicBool::new(false),
        likes: AtomicUsize::new(0),
        matches: Mutex::default(),
        told: Mutex::default(),
    };
    let mut seen: HashMap<i64, HashSet<String>> = HashMap::new();
    std::thread::scope(|scope| {
        let world = &world;
        for client in 0..6 {
            scope.spawn(move || world.act(client, seed + client as u64));
        }
        let devices: Vec<_> = OWNERS
            .into_iter()
            .map(|owner| (owner, scope.spawn(move || world.device(owner, "property", seed ^ owner as u64))))
            .collect();
        trouble(world, &mut nodes, &mut redis, &mut Dice(seed), number("CHAOS_SECONDS", 60));
        world.over.store(true, Ordering::Relaxed);
        // A last word to each, so that no device waits for one.
        nodes.iter().for_each(|node| node.until(200, "ready"));
        for owner in OWNERS {
            let body = json!({"user": owner, "channel": "property", "message": "over"});
            assert_eq!(nodes[0].call("POST", "/api/notifications/", &service(), body).status, 201);
        }
        for (owner, device) in devices {
            seen.insert(owner, device.join().unwrap());
        }
    });
    agree(&nodes.iter().collect::<Vec<_>>());
    check(&nodes, &world, &mut seen);
}

fn check(nodes: &[Server], world: &World, seen: &mut HashMap<i64, HashSet<String>>) {
    let told = world.told.lock().unwrap();
    let mut count: HashMap<String, usize> = HashMap::new();
    for who in OWNERS.into_iter().chain(TENANTS) {
        let rows = rows(&nodes[1], who);
        if let Some(seen) = seen.get_mut(&who) {
            // What no socket saw is sent at the next connect.
            seen.extend(
                nodes[2]
                    .connect("property", who)
                    .all()
                    .iter()
                    .filter_map(|m| m["notification_id"].as_str().map(str::to_owned)),
            );
            for row in rows.iter().filter(|row| row["is_read"] == false) {
                assert!(seen.contains(row["notification_id"].as_str().unwrap()), "never sent: {row}");
            }
        }
        for row in &rows {
            let frame = &row["data"];
            let what = match row["type"].as_str().unwrap() {
                "property_like" => format!("like {} {}", frame["property_id"], frame["interested_user"]["id"]),
                "match_accepted_by_owner" => format!("accept {} {who}", frame["property_id"]),
                "general" => format!("note {who} {}", row["message"].as_str().unwrap()),
                _ => continue,
            };
            *count.entry(what).or_default() += 1;
        }
        let read: HashSet<&str> = rows
            .iter()
            .filter(|row| row["is_read"] == true)
            .map(|row| row["notification_id"].as_str().unwrap())
            .collect();
        assert!(
            told.read.iter().filter(|(of, _)| *of == who).all(|(_, id)| read.contains(id.as_str())),
            "unread again"
        );
    }
    let confirmed = told.notes.iter().map(|(to, text)| format!("note {to} {text}"));
    let confirmed = confirmed.chain(told.likes.iter().map(|(home, tenant)| format!("like {home} {tenant}")));
    let confirmed = confirmed.chain(told.accepts.iter().map(|(home, tenant)| format!("accept {home} {tenant}")));
    let mut confirmed_count = 0;
    for what in confirmed {
        confirmed_count += 1;
        assert_eq!(count.get(&what), Some(&1), "{what}");
    }
    let doubled: Vec<_> = count.iter().filter(|(what, n)| **n > 1 && !what.ends_with("over")).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert!(confirmed_count > 100, "only {confirmed_count} were confirmed");
}
