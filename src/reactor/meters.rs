//! Owns every number that is counted: a second reader of the events that the log is made of, and what the turn itself
//! knows. Never asks anybody: plain integers on the loop's thread; `shown` writes them out. Enter at [`Meters::observe`].

mod shown;

pub(super) use shown::Gauges;

use crate::clock::Now;
use crate::hub::event::{Cause, CloseCause, Event, Limit, Unusable};
use crate::metrics::{Counts, Histogram, MICROSECONDS, ONES, labels};
use crate::notification::{Channel, NotificationId};

/// Bounds in microseconds: what a request, a commit or a turn takes.
const SHORT_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];
/// What one turn of the loop takes.
const TURN_US: &[u64] =
    &[10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// Up to the return of a person who was away: 7 days.
const LONG_US: &[u64] = &[
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
    3_600_000_000,
    86_400_000_000,
    604_800_000_000,
];
const BATCH: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

labels! {
    /// How a socket ended, as its close code.
    Code {
        Normal = "1000",
        GoingAway = "1001",
        Protocol = "1002",
        Unsupported = "1003",
        Unnamed = "1005",
        Abnormal = "1006",
        NotUtf8 = "1007",
        Policy = "1008",
        TooBig = "1009",
        Internal = "1011",
        TryAgain = "1013",
        TokenExpired = "4401",
        Deactivated = "4403",
        Other = "other",
    }
}

impl Code {
    /// `None`: no close frame was seen, or one without a code.
    fn of(code: Option<u16>, by_client: bool) -> Self {
        match code {
            Some(1000) => Self::Normal,
            Some(1001) => Self::GoingAway,
            Some(1002) => Self::Protocol,
            Some(1003) => Self::Unsupported,
            Some(1007) => Self::NotUtf8,
            Some(1008) => Self::Policy,
            Some(1009) => Self::TooBig,
            Some(1011) => Self::Internal,
            Some(1013) => Self::TryAgain,
            Some(4401) => Self::TokenExpired,
            Some(4403) => Self::Deactivated,
            Some(_) => Self::Other,
            None if by_client => Self::Unnamed,
            None => Self::Abnormal,
        }
    }
}

/// The rows of late that went out live when they were made: tells receipts of live ones from those of replayed ones.
struct Live {
    bits: Box<[u64]>,
    newest: i64,
}

/// Rows remembered; of older ones a receipt counts as one of a replay.
const LIVE_ROWS: i64 = 65_536;

impl Live {
    fn new() -> Self {
        Self { bits: vec![0; LIVE_ROWS as usize / 64].into(), newest: 0 }
    }

    fn place(id: NotificationId) -> (usize, u64) {
        let place = id.0.rem_euclid(LIVE_ROWS).cast_unsigned();
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn note(&mut self, id: NotificationId, was_live: bool) {
        let (word, bit) = Self::place(id);
        self.newest = self.newest.max(id.0);
        if let Some(word) = self.bits.get_mut(word) {
            *word = if was_live { *word | bit } else { *word & !bit };
        }
    }

    fn was(&self, id: NotificationId) -> bool {
        let (word, bit) = Self::place(id);
        id.0 > self.newest - LIVE_ROWS && self.bits.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// Requests by status, method and route, all of them from closed sets. What comes often moves to the front, where it is
/// found at once.
#[derive(Default)]
struct Requests {
    counts: Vec<((u16, &'static str, &'static str), u64)>,
}

impl Requests {
    fn add(&mut self, status: u16, method: &'static str, route: &'static str) {
        let key = (status, method, route);
        let place = match self.counts.iter().position(|(known, _)| *known == key) {
            Some(0) => 0,
            Some(place) => {
                self.counts.swap(place, place - 1);
                place - 1
            }
            None => {
                self.counts.push((key, 0));
                self.counts.len() - 1
            }
        };
        if let Some((_, count)) = self.counts.get_mut(place) {
            *count += 1;
        }
    }

    fn sorted(&self) -> Vec<((u16, &'static str, &'static str), u64)> {
        let mut counts = self.counts.clone();
        counts.sort_unstable();
        counts
    }

    /// Of this status and above.
    fn total(&self, status: u16) -> u64 {
        self.counts.iter().filter(|((found, ..), _)| *found >= status).map(|(_, count)| count).sum()
    }
}

pub(super) struct Meters {
    started_ms: i64,
    sockets: Counts<Channel>,
    handshakes: Counts<Channel>,
    handshake_us: Histogram,
    refused: Counts<Cause>,
    closes: Counts<Code>,
    limited: Counts<Limit>,
    created: Counts<Channel>,
    sent: Counts<Channel>,
    replayed: Counts<Channel>,
    skipped: Counts<Channel>,
    delivered: Counts<Channel>,
    django_refused: Counts<Unusable>,
    read: u64,
    /// Read before any receipt came: delivered by that.
    read_first: u64,
    commit_wait_us: Histogram,
    write_wait_us: Histogram,
    receipt_live_us: Histogram,
    receipt_replayed_us: Histogram,
    live: Live,
    batch_jobs: Histogram,
    commit_us: Histogram,
    failed_jobs: u64,
    requests: Requests,
    request_us: Histogram,
    turn_us: Histogram,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Meters {
    pub(super) fn new(now: Now) -> Self {
        Self {
            started_ms: now.wall_ms,
            sockets: Counts::default(),
            handshakes: Counts::default(),
            handshake_us: Histogram::new(MICROSECONDS, SHORT_US),
            refused: Counts::default(),
            closes: Counts::default(),
            limited: Counts::default(),
            created: Counts::default(),
            sent: Counts::default(),
            replayed: Counts::default(),
            skipped: Counts::default(),
            delivered: Counts::default(),
            django_refused: Counts::default(),
            read: 0,
            read_first: 0,
            commit_wait_us: Histogram::new(MICROSECONDS, SHORT_US),
            write_wait_us: Histogram::new(MICROSECONDS, SHORT_US),
            receipt_live_us: Histogram::new(MICROSECONDS, LONG_US),
            receipt_replayed_us: Histogram::new(MICROSECONDS, LONG_US),
            live: Live::new(),
            batch_jobs: Histogram::new(ONES, BATCH),
            commit_us: Histogram::new(MICROSECONDS, SHORT_US),
            failed_jobs: 0,
            requests: Requests::default(),
            request_us: Histogram::new(MICROSECONDS, SHORT_US),
            turn_us: Histogram::new(MICROSECONDS, TURN_US),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    pub(super) fn observe(&mut self, event: &Event) {
        match event {
            Event::Opened { channel, took_us, .. } => {
                self.sockets.add(*channel, 1);
                self.handshakes.add(*channel, 1);
                self.handshake_us.observe(*took_us);
            }
            Event::Closed { channel, cause, code, .. } => {
                self.sockets.take(*channel);
                self.closes.add(Code::of(*code, *cause == CloseCause::ClosedByClient), 1);
            }
            Event::Refused { cause, .. } => self.refused.add(*cause, 1),
            Event::Limited(limit) => self.limited.add(*limit, 1),
            Event::Request { method, route, status, took_us } => {
                self.requests.add(*status, method, route);
                self.request_us.observe(*took_us);
            }
            Event::Created { id, channel, sockets, took_us, .. } => {
                self.created.add(*channel, 1);
                self.live.note(*id, *sockets > 0);
                took_us.iter().for_each(|us| self.commit_wait_us.observe(*us));
            }
            Event::Sent { what, took_us } => {
                self.sent.add(what.channel, 1);
                took_us.iter().for_each(|us| self.write_wait_us.observe(*us));
            }
            Event::Delivered { channel, rows, at_ms, .. } => {
                self.delivered.add(*channel, rows.len() as u64);
                for (id, created_ms) in rows {
                    let waited_us = at_ms.saturating_sub(*created_ms).max(0).cast_unsigned() * 1_000;
                    if self.live.was(*id) {
                        self.receipt_live_us.observe(waited_us);
                    } else {
                        self.receipt_replayed_us.observe(waited_us);
                    }
                }
            }
            Event::Read { count, undelivered, .. } => {
                self.read += u64::from(*count);
                self.read_first += u64::from(*undelivered);
            }
            Event::Replayed { channel, ids, .. } => self.replayed.add(*channel, ids.len() as u64),
            Event::Skipped { channel, count, .. } => self.skipped.add(*channel, u64::from(*count)),
            Event::Committed { jobs, failed, took_us, .. } => {
                self.batch_jobs.observe(*jobs as u64);
                self.commit_us.observe(*took_us);
                self.failed_jobs += *failed as u64;
            }
            Event::DjangoRefused { cause, count } => self.django_refused.add(*cause, *count),
            Event::Revoked { .. }
            | Event::AnswerFailed { .. }
            | Event::AcceptFailing { .. }
            | Event::AcceptWorks
            | Event::StorageFailing { .. }
            | Event::StorageWorks
            | Event::SharedLogFailing { .. }
            | Event::SharedLogWorks
            | Event::Draining { .. }
            | Event::Reloaded { .. }
            | Event::NotReloaded { .. }
            | Event::Stopped { .. } => {}
        }
    }

    pub(super) fn turned(&mut self, took_us: u64) {
        self.turn_us.observe(took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_wherever_they_stand() {
        let mut requests = Requests::default();
        for _ in 0..3 {
            requests.add(200, "GET", "/a/");
            requests.add(503, "GET", "/a/");
            requests.add(200, "PUT", "/a/");
            requests.add(200, "PUT", "/a/");
        }
        let expected = [((200, "GET", "/a/"), 3), ((200, "PUT", "/a/"), 6), ((503, "GET", "/a/"), 3)];
        assert_eq!(requests.sorted(), expected);
        assert_eq!((requests.total(0), requests.total(500)), (12, 3));
    }

    #[test]
    fn a_receipt_of_a_live_row_is_told_from_one_of_a_replay() {
        let mut live = Live::new();
        let id = NotificationId;
        live.note(id(1), true);
        live.note(id(2), false);
        assert!(live.was(id(1)) && !live.was(id(2)) && !live.was(id(3)));
        live.note(id(LIVE_ROWS + 2), true);
        assert!(!live.was(id(1)) && !live.was(id(2)) && live.was(id(LIVE_ROWS + 2)));
    }

    #[test]
    fn close_codes_of_clients_are_a_closed_set() {
        assert_eq!((Code::of(Some(3_123), true), Code::of(Some(1_000), true)), (Code::Other, Code::Normal));
        assert_eq!((Code::of(None, true), Code::of(None, false)), (Code::Unnamed, Code::Abnormal));
    }
}
