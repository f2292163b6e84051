//! Owns a simulated device: what it has in hand, and how it answers, or does not. Never asks the hub anything.
//! Enter at [`Device::hear`].

use super::ledger::Ledger;
use crate::hub::tests::random::Random;
use crate::hub::tests::stage::End;
use crate::hub::tests::wire::{self, Reading, Said};
use crate::matching::UserId;
use crate::notification::{Channel, NotificationId};
use crate::storage::job::Ticket;
use serde_json::Value;
use std::collections::HashSet;
use uuid::Uuid;

/// One socket, seen from both ends.
pub(super) struct Socket {
    pub user: UserId,
    pub channel: Channel,
    pub ticket: Ticket,
    pub end: End,
    /// The row after which it asked to be sent everything.
    pub since: Option<i64>,
    /// The newest row that the hub knew of when it took the socket in.
    pub mark: Option<NotificationId>,
    /// Rows that must not come again: acknowledged before it connected, by a receipt that was not lost since.
    pub settled: HashSet<i64>,

    /// What its kernel was given.
    pub sent: Vec<i64>,
    pub skipped: u64,
    pub since_unknown: bool,
    /// What it was told is read.
    read: HashSet<Uuid>,
    established: bool,
    tap: Reading,
    tapped: usize,

    /// What the device has read.
    reading: Reading,
    pub got: Vec<i64>,
    pub over: bool,
    /// Pings that it has not answered yet.
    pings: Vec<Vec<u8>>,
    /// Receipts on their way: once so many bytes are taken, the hub has heard of so many rows.
    receipts: Vec<(usize, usize)>,
    said: usize,
    pub mood: Mood,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Answers each ping when it reads it, as every client stack does.
    Answers,
    /// Answers the newest ping some other time.
    Slow,
    Mute,
}

impl Socket {
    pub(super) fn new(user: UserId, channel: Channel, ticket: Ticket, end: End, mood: Mood) -> Self {
        Self {
            user,
            channel,
            ticket,
            end,
            since: None,
            mark: None,
            settled: HashSet::new(),
            sent: Vec::new(),
            skipped: 0,
            since_unknown: false,
            read: HashSet::new(),
            established: false,
            tap: Reading::default(),
            tapped: 0,
            reading: Reading::default(),
            got: Vec::new(),
            over: false,
            pings: Vec::new(),
            receipts: Vec::new(),
            said: 0,
            mood,
        }
    }

    /// What the server has written since the last look: committed, in order, once, and nothing that was settled, nor that
    /// it was told is read, unless it asked for that.
    pub(super) fn check_written(&mut self, ledger: &mut Ledger) {
        let line = self.end.borrow();
        self.tap.feed(&line.written[self.tapped..]);
        self.tapped = line.written.len();
        drop(line);
        while let Some(said) = self.tap.next() {
            let Said::Text(text) = said else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            if !std::mem::replace(&mut self.established, true) {
                assert_eq!(message["type"], "connection_established", "{text}");
                self.skipped = message["skipped"].as_u64().unwrap_or(0);
                continue;
            }
            assert_ne!(message["type"], "connection_established");
            self.since_unknown |= message["code"] == "since_unknown";
            self.read.extend(read_of(&message));
            let Some(uuid) = notification_of(&message) else { continue };
            assert!(!self.read.contains(&uuid), "{text} came after it was read");
            let Some(id) = ledger.id_of(&uuid) else { panic!("{text} was sent before its commit") };
            let asked = self.since_unknown || self.since.is_none_or(|since| id > since);
            assert!(asked, "row {id} came, which lies before {:?}", self.since);
            let row = &ledger.rows[&id];
            assert_eq!((row.user, row.channel), (self.user, self.channel), "row {id} went astray");
            let last = self.sent.last().copied().unwrap_or(0);
            assert!(id > last, "row {id} came after row {last} to {:?}", self.ticket);
            assert!(!self.settled.contains(&id), "row {id} was acknowledged, and came again to {:?}", self.ticket);
            self.sent.push(id);
            ledger.written.insert(id);
        }
    }

    /// The device reads; gives back what it says at once.
    pub(super) fn hear(&mut self, bytes: &[u8], ledger: &mut Ledger) -> Vec<u8> {
        self.reading.feed(bytes);
        let mut answers = Vec::new();
        while let Some(said) = self.reading.next() {
            match said {
                Said::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if let Some(id) = notification_of(&message).and_then(|uuid| ledger.id_of(&uuid)) {
                        self.got.push(id);
                        ledger.received.insert(id);
                    }
                }
                Said::Ping(payload) => self.pings.push(payload),
                Said::Close(_) => self.over = true,
                Said::Response(status, ..) => self.over |= status != 101,
                Said::Pong(_) => {}
            }
            if self.mood == Mood::Answers {
                answers.extend(self.answer());
            }
        }
        answers
    }

    /// Answers every ping that is open, with one Pong for all: the newest.
    pub(super) fn answer(&mut self) -> Vec<u8> {
        let Some(newest) = self.pings.pop() else { return Vec::new() };
        self.pings.clear();
        let pong = wire::sent(wire::PONG, &newest);
        self.said += pong.len();
        if newest.len() == 16 {
            let upto = i64::from_be_bytes(newest[8..].try_into().unwrap());
            let count = self.got.partition_point(|id| *id <= upto);
            self.receipts.push((self.said, count));
        }
        pong
    }

    /// Says something else; the bytes count.
    pub(super) fn say(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.said += bytes.len();
        bytes
    }

    /// Receipts that the hub has taken by now, on a socket that it still serves.
    pub(super) fn check_receipts(&mut self, serves: bool, ledger: &mut Ledger) {
        let taken = self.end.borrow().taken;
        let heard = self.receipts.partition_point(|(at, _)| *at <= taken);
        for (_, count) in self.receipts.drain(..heard).filter(|_| serves) {
            ledger.acknowledged.extend(&self.got[..count]);
        }
    }

    /// Some text that a client may send.
    pub(super) fn message(&self, random: &mut Random, ledger: &Ledger, token: &str) -> String {
        let one = |random: &mut Random| match random.below(6) {
            0 => Uuid::from_u64_pair(random.next(), random.next()),
            1 => random.pick(&ledger.rows.values().collect::<Vec<_>>()).map_or(Uuid::nil(), |row| row.uuid),
            _ => random.pick(&self.got).map_or(Uuid::nil(), |id| ledger.rows[id].uuid),
        };
        match random.below(10) {
            0 => r#"{"type":"ping"}"#.to_owned(),
            1 => r#"{"type":"mark_read","all":true}"#.to_owned(),
            2 => format!(r#"{{"type":"mark_read","notification_ids":["{}","{}"]}}"#, one(random), one(random)),
            3 | 4 => format!(r#"{{"type":"mark_read","notification_id":"{}"}}"#, one(random)),
            5 => format!(r#"{{"type":"auth","token":"{token}"}}"#),
            6 => "{what".to_owned(),
            _ => format!(r#"{{"type":"ack","notification_id":"{}"}}"#, self.last(ledger)),
        }
    }

    fn last(&self, ledger: &Ledger) -> Uuid {
        self.got.last().map_or(Uuid::nil(), |id| ledger.rows[id].uuid)
    }
}

/// The ids in a `notification_read`.
fn read_of(message: &Value) -> impl Iterator<Item = Uuid> {
    let is_read = message["type"] == "notification_read";
    let many = message["notification_ids"].as_array().into_iter().flatten();
    let all = std::iter::once(&message["notification_id"]).chain(many).filter(move |_| is_read);
    all.filter_map(|id| id.as_str().and_then(|text| Uuid::try_parse(text).ok()))
}

/// The id in a notification's frame.
fn notification_of(message: &Value) -> Option<Uuid> {
    let kind = message["type"].as_str()?;
    if kind == "notification_read" || kind == "error" {
        return None;
    }
    message["notification_id"].as_str().and_then(|text| Uuid::try_parse(text).ok())
}
