//! What contract section 5 promises, tried by killing, racing and coming back.

use crate::device::types;
use crate::server::{Server, service, user};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

#[test]
fn a_like_reaches_its_owner_and_an_accept_its_tenant() {
    let server = Server::start();
    server.put_world();
    let (mut owner, mut tenant) = (server.connect("property", 1), server.connect("tenant", 2));
    let hello = owner.next().unwrap();
    assert_eq!(hello["message"], "Conectado a notificaciones de propiedades");
    assert_eq!(hello["unread_count"], 0);
    assert_eq!(tenant.next().unwrap()["message"], "Conectado a notificaciones de inquilino");
    server.like(2, 10);
    let like = owner.next().unwrap();
    let keys: Vec<&String> = like.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["type", "property_id", "property_title", "interested_user", "timestamp", "notification_id"]);
    assert_eq!(like["property_title"], "departamento en Av. Siempre Viva 10");
    assert_eq!(like["interested_user"]["username"], "juan_perez");
    server.like(2, 10); // unchanged: nobody is told
    let accepted = server.call("POST", "/api/matches/1/owner_accept/", &user(1), Value::Null);
    assert_eq!(accepted.body["data"]["status"], "accepted");
    assert_eq!(tenant.next().unwrap()["type"], "match_accepted_by_owner");
    assert_eq!(types(&owner.all()), ["match_accepted"]);
    let page = server.call("GET", "/api/notifications/", &user(1), Value::Null);
    assert_eq!(page.body["count"], 2);
    assert_eq!(page.body["data"]["results"][1]["data"], like);
}

#[test]
fn what_was_missed_comes_in_order_and_once_across_a_kill() {
    let mut server = Server::start();
    server.put_world();
    for home in [20, 21, 22] {
        server.put_property(home);
        server.like(2, home);
    }
    server.kill_and_restart();
    let mut owner = server.connect("property", 1);
    let got = owner.all();
    assert_eq!(types(&got), ["connection_established", "property_like", "property_like", "property_like"]);
    assert_eq!(got[1..].iter().map(|m| m["property_id"].as_i64().unwrap()).collect::<Vec<_>>(), [20, 21, 22]);
    drop(owner);
    assert_eq!(types(&server.connect("property", 1).all()), ["connection_established"]);
}

#[test]
fn a_client_that_dies_without_a_pong_is_sent_it_again() {
    let server = Server::start();
    server.put_world();
    let mut owner = server.connect("property", 1);
    owner.next().unwrap();
    server.like(2, 10);
    let first = owner.next().unwrap(); // its Ping is not read, so not answered
    drop(owner);
    let mut owner = server.connect("property", 1);
    owner.next().unwrap();
    assert_eq!(owner.next().unwrap(), first);
}

#[test]
fn since_replays_what_came_after_and_says_when_it_cannot() {
    let server = Server::start();
    server.put_world();
    for home in [20, 21, 22] {
        server.put_property(home);
        server.like(2, home);
    }
    let all = server.connect("property", 1).all();
    let since =
        |id: &str| crate::device::Device::connect(&server, "property", 1, &user(1), &format!("&since={id}")).unwrap();
    let second = all[2]["notification_id"].as_str().unwrap();
    assert_eq!(since(second).all()[1..], all[3..]);
    let unknown = since("0197a2b4-0000-7000-8000-000000000001").all();
    assert_eq!(types(&unknown), ["connection_established", "error"]);
    assert_eq!(unknown[1]["code"], "since_unknown");
}

#[test]
fn read_on_one_device_is_read_on_all() {
    let server = Server::start();
    server.put_world();
    let (mut phone, mut laptop, mut other) =
        (server.connect("property", 1), server.connect("property", 1), server.connect("tenant", 1));
    for device in [&mut phone, &mut laptop, &mut other] {
        device.next().unwrap();
    }
    server.like(2, 10);
    let id = phone.next().unwrap()["notification_id"].clone();
    assert_eq!(laptop.next().unwrap()["notification_id"], id);
    phone.send(&json!({"type": "mark_read", "notification_id": id}));
    for device in [&mut phone, &mut laptop, &mut other] {
        let read = device.next().unwrap();
        assert_eq!(
            (&read["type"], &read["notification_id"], &read["unread_count"]),
            (&json!("notification_read"), &id, &json!(0))
        );
    }
    phone.send(&json!({"type": "mark_read", "notification_id": "550e8400-e29b-41d4-a716-446655440000"}));
    assert_eq!(phone.next().unwrap()["code"], "not_found");
}

#[test]
fn beyond_replay_max_only_the_newest_are_pushed() {
    let server = Server::start_with(&[("HABITTOD_DELIVERY_REPLAY_MAX", "2")]);
    server.put_world();
    for home in 20..25 {
        server.put_property(home);
        server.like(2, home);
    }
    let got = server.connect("property", 1).all();
    assert_eq!(got[0]["skipped"], 3);
    assert_eq!(got[1..].iter().map(|m| m["property_id"].as_i64().unwrap()).collect::<Vec<_>>(), [23, 24]);
    assert_eq!(types(&server.connect("property", 1).all()), ["connection_established"]);
    let unread = server.call("GET", "/api/notifications/?is_read=false", &user(1), Value::Null);
    assert_eq!(unread.body["count"], 5);
}

#[test]
fn a_long_backlog_is_paged_and_live_ones_follow_it() {
    let server = Server::start();
    server.put_world();
    let note = |n: usize| json!({"user": 1, "channel": "tenant", "message": "m", "data": {"n": n}});
    for n in 0..350 {
        assert_eq!(server.call("POST", "/api/notifications/", &service(), note(n)).status, 201);
    }
    let mut device = server.connect("tenant", 1);
    for n in 350..400 {
        server.call("POST", "/api/notifications/", &service(), note(n));
    }
    let mut seen = Vec::new();
    while seen.len() < 400 {
        let message = device.next().unwrap();
        seen.extend(message["data"]["n"].as_u64());
    }
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
    assert_eq!(device.so_far(), Vec::<Value>::new());
}

#[test]
fn likes_that_race_connects_come_exactly_once() {
    let server = Server::start();
    server.put_world();
    for round in 0..1_000 {
        let home = 1_000 + round;
        server.put_property(home);
        let got = std::thread::scope(|scope| {
            let like = scope.spawn(|| server.like(2, home));
            let mut owner = server.connect("property", 1);
            let mut got = owner.so_far();
            like.join().unwrap();
            got.extend(owner.all());
            got
        });
        let homes: Vec<_> = got.iter().filter_map(|message| message["property_id"].as_i64()).collect();
        assert_eq!(homes, [home], "round {round}");
    }
}

/// Rounds of `kill -9` under load; what a client was told is done must be there, once, and nobody else's.
/// `KILL_ROUNDS=200 cargo test nothing_acknowledged` for more of them.
#[test]
fn nothing_acknowledged_is_lost_in_a_kill() {
    let rounds = std::env::var("KILL_ROUNDS").map_or(50, |text| text.parse().unwrap());
    println!("{} were confirmed in {rounds} rounds", end_under_load(rounds, &["-KILL"]));
}

#[test]
fn nothing_acknowledged_is_lost_in_a_stop_nor_in_one_cut_short() {
    end_under_load(5, &["-TERM"]);
    end_under_load(10, &["-TERM", "-TERM"]);
}

/// How much was confirmed, and is there.
fn end_under_load(rounds: usize, signals: &[&str]) -> usize {
    let mut server = Server::start();
    server.put_world();
    let mut told: HashMap<i64, HashSet<String>> = HashMap::from([(1, HashSet::new()), (3, HashSet::new())]);
    for round in 0..rounds {
        let done = std::thread::scope(|scope| {
            let posters: Vec<_> = [1_i64, 3]
                .into_iter()
                .flat_map(|to| (0..2).map(move |poster| (to, poster)))
                .map(|(to, poster)| {
                    let server = &server;
                    scope.spawn(move || {
                        let mut done = Vec::new();
                        for n in 0..1_000 {
                            let text = format!("{round}-{to}-{poster}-{n}");
                            let note = json!({"user": to, "channel": "property", "message": text});
                            match server.try_call("POST", "/api/notifications/", Some(&service()), Some(&note)) {
                                Some(reply) if reply.status == 201 => done.push((to, text)),
                                _ => break,
                            }
                        }
                        done
                    })
                })
                .collect();
            // The kill falls wherever the posters are after a number of answers that differs from round to round.
            for _ in 0..=round * 7 % 50 {
                server.try_call("GET", "/health/live", None, None);
            }
            signals.iter().for_each(|name| server.signal(name));
            posters.into_iter().flat_map(|poster| poster.join().unwrap()).collect::<Vec<_>>()
        });
        let ended = server.wait();
        assert!(signals == ["-KILL"] || ended.success(), "round {round}: {ended}");
        server.restart();
        for (to, text) in done {
            told.get_mut(&to).unwrap().insert(text);
        }
    }
    let confirmed: usize = told.values().map(HashSet::len).sum();
    assert!(confirmed > rounds, "only {confirmed} were confirmed in {rounds} rounds");
    for (to, told) in &told {
        let mut stored = HashMap::new();
        let mut next = Some("/api/notifications/?page_size=100".to_owned());
        while let Some(path) = next {
            let page = server.call("GET", &path, &user(*to), Value::Null).body;
            for row in page["data"]["results"].as_array().unwrap() {
                *stored.entry(row["message"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            }
            next = page["data"]["next"].as_str().map(|link| link.replace("http://h", ""));
        }
        assert!(told.iter().all(|text| stored.contains_key(text)), "lost");
        assert!(
            stored.iter().all(|(text, count)| *count == 1 && text.contains(&format!("-{to}-"))),
            "forked or foreign"
        );
    }
    confirmed
}
