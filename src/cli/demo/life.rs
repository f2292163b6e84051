//! Owns what goes on in the demo by itself: people like María's homes, the neighbour answers Juan. Never uses another
//! way in than any client: HTTP to the server's own address. Enter at [`begin`].

use super::super::client::Client;
use super::{HOUR, NEIGHBOUR, OWNER, OWNERS_HOMES};
use crate::auth::Signer;
use crate::clock::Clock;
use crate::matching::UserId;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Who looks around at María's.
pub(super) const VISITORS: [(i64, &str, &str); 8] = [
    (11, "Lucía", "Mamani"),
    (12, "Diego", "Flores"),
    (13, "Valentina", "Quispe"),
    (14, "Mateo", "Vargas"),
    (15, "Camila", "Suárez"),
    (16, "Andrés", "Choque"),
    (17, "Sofía", "Rocha"),
    (18, "Bruno", "Salvatierra"),
];
/// Newcomers, once all others have their answer.
const NEWCOMERS_MAX: usize = 200;
const BEAT: Duration = Duration::from_secs(4);
/// With so many unread nobody is looking: only each eighth beat still does something.
const UNREAD_MANY: i64 = 100;
const SLOW: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// Lets it go on until the sender is dropped, or the server is gone.
pub(super) fn begin(address: SocketAddr, signer: Signer) -> Option<Sender<()>> {
    let (sender, receiver) = channel();
    let visitors = VISITORS.map(|(id, ..)| UserId(id)).to_vec();
    let mut life = Life {
        client: Client { address, within: PATIENCE },
        signer,
        clock: Clock::start(),
        beats: 0,
        answers: 0,
        visitors,
        asked: HashMap::new(),
        waiting: HashSet::new(),
    };
    std::thread::Builder::new().name("demo".to_owned()).spawn(move || life.go_on(&receiver)).ok()?;
    Some(sender)
}

/// The user name of a first name: plain letters.
pub(super) fn username(first: &str) -> String {
    first.to_lowercase().replace('í', "i").replace('é', "e").replace('á', "a")
}

struct Life {
    client: Client,
    signer: Signer,
    clock: Clock,
    beats: usize,
    /// Of the neighbour.
    answers: usize,
    visitors: Vec<UserId>,
    /// Which match a visitor's like of a home made.
    asked: HashMap<(UserId, i64), i64>,
    /// What the neighbour saw waiting at the last beat, and answers at this one.
    waiting: HashSet<i64>,
}

impl Life {
    fn go_on(&mut self, stop: &Receiver<()>) {
        while stop.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            self.beats += 1;
            if self.beat().is_err() {
                return;
            }
        }
    }

    fn beat(&mut self) -> io::Result<()> {
        self.neighbour_answers()?;
        let summary = self.call("GET", "/api/notifications/my/", Some(OWNER), &Value::Null)?;
        let unread = summary.get("unread_count").and_then(Value::as_i64).unwrap_or_default();
        if unread < UNREAD_MANY || self.beats.is_multiple_of(SLOW) {
            self.somebody_likes()?;
        }
        Ok(())
    }

    /// A home that nobody of them asked for yet; else somebody takes a request back and makes it again; else, when all
    /// have María's answer, somebody new comes.
    fn somebody_likes(&mut self) -> io::Result<()> {
        let pairs: Vec<(UserId, i64)> =
            OWNERS_HOMES.flat_map(|home| self.visitors.iter().map(move |visitor| (*visitor, home))).collect();
        // Seven steps on each time: neither the same visitor nor the same home twice running.
        let from = self.beats * 7 % pairs.len().max(1);
        let turned: Vec<_> = pairs.iter().cycle().skip(from).take(pairs.len()).copied().collect();
        if let Some(&pair) = turned.iter().find(|pair| !self.asked.contains_key(pair)) {
            return self.like(pair);
        }
        for pair in turned {
            let Some(id) = self.asked.get(&pair) else { continue };
            let found = self.call("GET", &format!("/api/matches/{id}/"), Some(pair.0), &Value::Null)?;
            if found.get("status").and_then(Value::as_str) == Some("pending") {
                self.call("POST", &format!("/api/properties/{}/reject/", pair.1), Some(pair.0), &Value::Null)?;
                return self.like(pair);
            }
        }
        self.newcomer()
    }

    fn like(&mut self, pair: (UserId, i64)) -> io::Result<()> {
        let liked = self.call("POST", &format!("/api/properties/{}/like/", pair.1), Some(pair.0), &Value::Null)?;
        self.asked.insert(pair, liked.get("match_id").and_then(Value::as_i64).unwrap_or_default());
        Ok(())
    }

    fn newcomer(&mut self) -> io::Result<()> {
        let count = self.visitors.len();
        if count >= NEWCOMERS_MAX {
            return Ok(());
        }
        let (Some((_, first, _)), Some((_, _, last))) = (VISITORS.get(count % 8), VISITORS.get((count * 3 + 1) % 8))
        else {
            return Ok(());
        };
        let id = 11 + i64::try_from(count).unwrap_or_default();
        let user = json!({ "username": format!("{}{id}", username(first)), "first_name": first, "last_name": last,
            "email": format!("{}{id}@example.com", username(first)), "user_type": "inquilino" });
        self.call("PUT", &format!("/api/users/{id}/"), None, &user)?;
        self.visitors.push(UserId(id));
        Ok(())
    }

    /// Two of three get a yes.
    fn neighbour_answers(&mut self) -> io::Result<()> {
        let page = self.call("GET", "/api/matches/pending_requests/", Some(NEIGHBOUR), &Value::Null)?;
        let results = page.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
        let ids: HashSet<i64> = results.iter().filter_map(|entry| entry.pointer("/match/id")?.as_i64()).collect();
        let due: Vec<i64> = ids.intersection(&self.waiting).copied().collect();
        for id in due {
            self.answers += 1;
            let act = if self.answers.is_multiple_of(3) { "owner_reject" } else { "owner_accept" };
            self.call("POST", &format!("/api/matches/{id}/{act}/"), Some(NEIGHBOUR), &Value::Null)?;
        }
        self.waiting = ids;
        Ok(())
    }

    /// One request as somebody, or as the backend; gives back the `data` of its answer. What is refused is no fault
    /// here: whoever watches may have acted first.
    fn call(&self, method: &str, path: &str, by: Option<UserId>, body: &Value) -> io::Result<Value> {
        let now_ms = self.clock.now().wall_ms;
        let token = match by {
            Some(user) => self.signer.access(user, now_ms, HOUR),
            None => self.signer.service(now_ms, HOUR),
        };
        self.client.call(method, path, Some(&token), body)
    }
}
