//! Owns those who use REST in a simulation: the backend and the users, on connections that are kept and pipelined.
//! Enter at [`World::post`].

use super::World;
use super::ledger::Post;
use crate::hub::tests::random::Random;
use crate::hub::tests::stage::End;
use crate::hub::tests::wire::{Reading, Said};
use crate::hub::tests::{AGENT, OWNER, TENANTS};
use crate::matching::UserId;
use crate::storage::job::Ticket;
use std::collections::VecDeque;
use std::time::Duration;

pub(super) struct Poster {
    ticket: Ticket,
    pub end: End,
    reading: Reading,
    /// Requests without an answer; of posts, their numbers.
    waiting: VecDeque<Option<usize>>,
}

impl Poster {
    pub(super) fn is_answered(&self) -> bool {
        self.waiting.is_empty()
    }
}

struct Asked {
    head: String,
    body: String,
    post: Option<usize>,
}

impl World {
    pub(super) fn post(&mut self) {
        let asked = self.something();
        let times = if asked.post.is_some() && self.random.one_in(6) { 2 } else { 1 };
        let key = if times == 2 { format!("Idempotency-Key: k{:?}\r\n", asked.post) } else { String::new() };
        let length = format!("Content-Length: {}\r\n", asked.body.len());
        let bytes = format!("{}{key}Content-Type: application/json\r\n{length}\r\n{}", asked.head, asked.body);
        for _ in 0..times {
            let Some(place) = self.some_poster() else { return };
            let poster = &mut self.posters[place];
            poster.waiting.push_back(asked.post);
            self.stage.send(poster.ticket, &poster.end, bytes.as_bytes());
            if let Some(number) = asked.post {
                self.ledger.posts[number].sent += 1;
            }
        }
    }

    fn some_poster(&mut self) -> Option<usize> {
        self.posters.retain(|poster| !poster.end.borrow().over);
        if self.posters.len() < 3 {
            let (ticket, end) = self.stage.accept(16 * 1024)?;
            self.posters.push(Poster { ticket, end, reading: Reading::default(), waiting: VecDeque::new() });
        }
        Some(self.random.below(self.posters.len() as u64) as usize)
    }

    fn something(&mut self) -> Asked {
        let user = |random: &mut Random| 1 + random.below(TENANTS[1] as u64) as i64;
        let now_ms = self.stage.now.wall_ms;
        let service = self.signer.service(now_ms, Duration::from_secs(60));
        let kind = self.random.below(24);
        let to = user(&mut self.random);
        let (method, path, token, body) = match kind {
            0..11 => return self.notification(&service),
            11..14 => {
                let tenant = TENANTS[self.random.below(2) as usize];
                let what = if self.random.one_in(3) { "reject" } else { "like" };
                let path = format!("/api/properties/{}/{what}/", 1 + self.random.below(2));
                ("POST", path, self.token(tenant, 60), String::new())
            }
            14..17 => {
                let keeper = [OWNER, AGENT][self.random.below(2) as usize];
                let what = if self.random.one_in(2) { "owner_accept" } else { "owner_reject" };
                (
                    "POST",
                    format!("/api/matches/{}/{what}/", 1 + self.random.below(4)),
                    self.token(keeper, 60),
                    String::new(),
                )
            }
            17 => ("POST", "/api/notifications/mark_all_as_read/".to_owned(), self.token(to, 60), String::new()),
            18 | 19 => {
                let id = 1 + self.random.below(self.ledger.rows.len() as u64 + 1);
                ("POST", format!("/api/notifications/{id}/mark_as_read/"), self.token(to, 60), String::new())
            }
            20 | 21 => ("GET", "/api/notifications/?page_size=5".to_owned(), self.token(to, 60), String::new()),
            22 => {
                let active = !self.random.one_in(3);
                let body = format!(r#"{{"username":"u{to}","is_active":{active}}}"#);
                ("PUT", format!("/api/users/{to}/"), service, body)
            }
            _ if self.random.one_in(4) => {
                self.ledger.removed.insert(UserId(to));
                ("DELETE", format!("/api/users/{to}/"), service, String::new())
            }
            _ => ("GET", "/health/ready".to_owned(), String::new(), String::new()),
        };
        Asked { head: head(method, &path, &token), body, post: None }
    }

    /// A general notification, which its text names.
    fn notification(&mut self, service: &str) -> Asked {
        let (UserId(to), channel) = self.somebody();
        let number = self.ledger.posts.len();
        self.ledger.posts.push(Post { user: UserId(to), sent: 0, statuses: Vec::new() });
        let channel = channel.as_str();
        let length = if self.random.one_in(3) { self.random.below(self.length + 1) } else { 0 };
        let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(length as usize));
        let foreign = if self.random.one_in(5) {
            let uuid = uuid::Uuid::from_u64_pair(self.random.next(), self.random.next());
            format!(r#","notification_id":"{uuid}""#)
        } else {
            String::new()
        };
        let body = format!(r#"{{"user":{to},"channel":"{channel}","message":"{number}","data":{data}{foreign}}}"#);
        Asked { head: head("POST", "/api/notifications/", service), body, post: Some(number) }
    }

    /// True if there was something to read.
    pub(super) fn posters_read(&mut self) -> bool {
        let mut read = false;
        for poster in &mut self.posters {
            let bytes = self.stage.read(poster.ticket, &poster.end, usize::MAX);
            read |= !bytes.is_empty();
            poster.reading.feed(&bytes);
            while let Some(said) = poster.reading.next() {
                let Said::Response(status, head, _) = said else { panic!("{said:?}") };
                // An idle connection is closed without a word; a late one is told.
                let Some(asked) = poster.waiting.pop_front() else {
                    assert_eq!(status, 408, "nobody asked: {head}");
                    continue;
                };
                if let Some(number) = asked {
                    assert!([200, 201, 401, 404, 408, 503].contains(&status), "{status} for post {number}");
                    self.ledger.posts[number].statuses.push(status);
                }
            }
        }
        read
    }
}

fn head(method: &str, path: &str, token: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n")
}
