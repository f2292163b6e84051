//! Owns the end of it all: last receipts waited for, sockets closed one after the other, so that clients do not come
//! back all at once. Never stops listening: the reactor does. Enter at [`Hub::drain`].

use super::Hub;
use super::connection::{Http, NEVER, State};
use super::event::{CloseCause, Event};
use crate::api::routes::Door;
use crate::clock::Now;
use crate::http::Stage;
use crate::storage::job::Ticket;
use crate::websocket::close;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Between two sockets at most: a handful does not make a stop last for all of `server.drain`.
const STEP_MAX_US: u64 = 100_000;
/// How long a socket may owe its last receipt before it is closed without.
const RECEIPTS_US: u64 = 2_000_000;
/// Where all that are left owe one: when they are looked at again.
const LOOK_AGAIN_US: u64 = 20_000;
/// Sockets that owe one looked at for the next that owes nothing.
const LOOKED_AT_MAX: usize = 64;
/// How long a connection on which nothing was asked may still ask, and be refused in words.
const LATE_MS: u64 = 1_000;
/// The same where nobody else is waited for: what has been sent already is heard.
const LATE_ALONE_MS: u64 = 50;

/// The end of it all, spread out.
pub(super) struct Drain {
    /// Sockets to be closed; one that owes a receipt goes to the back.
    order: VecDeque<Ticket>,
    next_us: u64,
    end_us: u64,
    receipts_until_us: u64,
    /// Connections on which nothing was being asked when it began: what they ask now comes too late.
    late: HashSet<Ticket>,
    /// When these are closed, and when where they are all that is left.
    late_until_ms: u64,
    late_alone_ms: u64,
}

impl Drain {
    pub(super) fn next_ms(&self) -> u64 {
        let next_ms = if self.order.is_empty() { NEVER } else { self.next_us.div_ceil(1_000) };
        if self.late.is_empty() { next_ms } else { next_ms.min(self.late_until_ms) }
    }
}

impl<S> Hub<S> {
    /// SIGTERM: not ready, no new work, sockets closed one after the other.
    pub fn drain(&mut self, now: Now) {
        if self.drain.is_some() {
            return;
        }
        self.effects.events.push(Event::Draining { open: self.table.len() });
        let (mut first, mut owing, mut late) = (VecDeque::new(), Vec::new(), HashSet::new());
        for (key, entry) in &self.table {
            let ticket = Ticket { key: key as u32, generation: entry.connection.generation };
            match &entry.connection.state {
                State::Feed(_) | State::Echo if self.owes(ticket) => owing.push(ticket),
                State::Feed(_) | State::Echo => first.push_back(ticket),
                State::Http(http) if http.door == Door::Public && asks_nothing(http) => {
                    late.insert(ticket);
                }
                State::Http(_) | State::Closing { .. } => {}
            }
        }
        owing.iter().for_each(|ticket| self.ask_for_receipt(now, *ticket));
        first.extend(owing);
        // Housekeeping is for the next server.
        self.retain_at_ms = NEVER;
        let now_us = now.monotonic_us;
        self.drain = Some(Drain {
            order: first,
            next_us: now_us,
            end_us: now_us.saturating_add(u64::try_from(self.rules.drain.as_micros()).unwrap_or(u64::MAX)),
            receipts_until_us: now_us + RECEIPTS_US,
            late,
            late_until_ms: now.monotonic_ms() + LATE_MS,
            late_alone_ms: now.monotonic_ms() + LATE_ALONE_MS,
        });
        self.drain_step(now);
    }

    pub(super) fn drain_step(&mut self, now: Now) {
        let now_us = now.monotonic_us;
        while let Some(drain) = self.drain.as_ref().filter(|drain| drain.next_us <= now_us && !drain.order.is_empty()) {
            let waits = now_us < drain.receipts_until_us;
            let found = self.next_to_close(waits);
            if let Some(ticket) = found {
                self.close_socket(now, ticket, close::GOING_AWAY, "shutting down", CloseCause::Drained);
            }
            let Some(drain) = &mut self.drain else { return };
            let step_us = drain.end_us.saturating_sub(now_us) / (drain.order.len() as u64).max(1);
            drain.next_us =
                if found.is_some() { drain.next_us + step_us.min(STEP_MAX_US) } else { now_us + LOOK_AGAIN_US };
        }
        self.dismiss_late(now);
    }

    /// The next socket whose turn it is, while receipts are waited for one that owes none.
    fn next_to_close(&mut self, waits: bool) -> Option<Ticket> {
        let mut owing = 0;
        while owing < LOOKED_AT_MAX {
            let ticket = self.drain.as_mut()?.order.pop_front()?;
            if self.connection(ticket).is_none() {
                continue;
            }
            if !(waits && self.owes(ticket)) {
                return Some(ticket);
            }
            self.drain.as_mut()?.order.push_back(ticket);
            owing += 1;
        }
        None
    }

    /// Closes the connections that ask nothing any more: after a while, or a moment later where they are all that is left.
    fn dismiss_late(&mut self, now: Now) {
        let alone = self.feeds == 0 && self.outstanding == 0;
        let Some(drain) = &mut self.drain else { return };
        if alone {
            drain.late_until_ms = drain.late_until_ms.min(drain.late_alone_ms);
        }
        if drain.late.is_empty() || drain.late_until_ms > now.monotonic_ms() {
            return;
        }
        (drain.late_until_ms, drain.late_alone_ms) = (NEVER, NEVER);
        let late: Vec<Ticket> = drain.late.iter().copied().collect();
        for ticket in late {
            let Some(connection) = self.connection(ticket) else { continue };
            if matches!(&connection.state, State::Http(http) if asks_nothing(http)) {
                self.begin_closing(now, ticket);
            }
        }
    }

    /// Whether a socket was sent something that it has not acknowledged.
    fn owes(&self, ticket: Ticket) -> bool {
        self.table
            .get(ticket.key as usize)
            .filter(|entry| entry.connection.generation == ticket.generation)
            .and_then(|entry| entry.connection.cold.as_ref())
            .is_some_and(|cold| !cold.unacknowledged.is_empty())
    }

    /// Whether what this connection asks comes too late to be begun.
    pub(super) fn is_too_late(&self, ticket: Ticket) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.late.contains(&ticket))
    }

    /// Over how long a drain spreads.
    #[must_use]
    pub fn drain_time(&self) -> Duration {
        self.rules.drain
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether a drain has nothing left to wait for; whoever watches it over the admin listener is not waited for.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let watches = |state: &State| matches!(state, State::Http(http) if http.door == Door::Admin);
        self.drain.is_some()
            && self.feeds == 0
            && self.outstanding == 0
            && self.table.iter().all(|(_, entry)| watches(&entry.connection.state))
    }
}

/// Whether nothing has been asked, or all of it is answered.
fn asks_nothing(http: &Http) -> bool {
    http.is_answered() || (http.stage == Stage::Idle && http.waiting.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Signer, Verifier};
    use crate::config::{Config, Key};
    use crate::hub::Rules;
    use crate::matching::UserId;
    use crate::notification::{Channel, Content, General, Notification, NotificationId};
    use crate::storage::job::{Answer, Census, Change, Outcome};
    use std::sync::Arc;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn at(ms: u64) -> Now {
        Now { monotonic_us: ms * 1_000, wall_ms: 1_700_000_000_000 + ms as i64 }
    }

    fn hub(drain: Duration) -> Hub<()> {
        let mut config = Config::default();
        config.server.drain = drain;
        config.auth.key = Some(Key::Secret(SECRET.to_vec()));
        config.auth.login = true;
        let rules = Rules::new(&config, Some(Verifier::from_secret(SECRET).unwrap()), 1_000_000);
        Hub::new(at(0), rules, &Census::default(), 7)
    }

    fn door(hub: &mut Hub<()>) -> Ticket {
        hub.accept(at(0), (), [127, 0, 0, 1].into(), Door::Public).unwrap()
    }

    fn open(hub: &mut Hub<()>, user: i64) -> Ticket {
        let token =
            Signer::from_secret(SECRET).unwrap().access(UserId(user), at(0).wall_ms, Duration::from_secs(3_600));
        let request = format!(
            "GET /ws/tenant-notifications/{user}/?token={token} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let ticket = door(hub);
        hub.receive(at(0), ticket, &mut request.into_bytes());
        assert!(flush(hub, at(0), ticket).starts_with("HTTP/1.1 101 "));
        ticket
    }

    /// Everything that is queued for a connection.
    fn flush(hub: &mut Hub<()>, now: Now, ticket: Ticket) -> String {
        let mut sent = Vec::new();
        if let Some(((), outbound)) = hub.outbound(ticket) {
            while !outbound.is_empty() {
                let bytes: Vec<u8> = outbound.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                outbound.wrote(bytes.len());
                sent.extend(bytes);
            }
            hub.flushed(now, ticket);
        }
        String::from_utf8_lossy(&sent).into_owned()
    }

    fn notify(hub: &mut Hub<()>, now: Now, user: i64) {
        let (id, user, channel) = (NotificationId(user), UserId(user), Channel::Tenant);
        let general = General { kind: "x".into(), title: String::new(), message: "m".into(), data: "{}".into() };
        let notification = Notification {
            id,
            uuid: id.uuid(now.wall_ms, user, channel),
            user,
            channel,
            content: Content::General(Arc::new(general)),
            created_ms: now.wall_ms,
            delivered_ms: None,
            read_ms: None,
        };
        let changes = vec![Change::Created(notification)];
        hub.committed(
            now,
            vec![Outcome { ticket: None, answer: Answer::Nothing, changes, asked_us: 0, ours: true }],
            0,
        );
    }

    /// A masked Pong with the payload of the last Ping.
    fn pong(hub: &mut Hub<()>, now: Now, ticket: Ticket) {
        let mut bytes = Vec::new();
        if let Some(((), outbound)) = hub.outbound(ticket) {
            bytes = outbound.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        }
        let ping = bytes.windows(2).rposition(|head| head == [0x89, 16]).unwrap();
        let mut frame = vec![0x8a, 0x90, 0, 0, 0, 0];
        frame.extend(&bytes[ping + 2..ping + 18]);
        hub.receive(now, ticket, &mut frame);
    }

    /// How many sockets are closed by then.
    fn closed(hub: &Hub<()>, of: usize) -> usize {
        of - hub.feeds()
    }

    #[test]
    fn closes_are_spread_evenly() {
        let mut hub = hub(Duration::from_secs(10));
        (1..=2_000).for_each(|user| assert!(open(&mut hub, user).generation > 0));
        hub.drain(at(0));
        let mut per_second = Vec::new();
        let mut before = 0;
        for second in 1..=10_u64 {
            while hub.next_deadline_ms() < second * 1_000 {
                hub.expire(at(hub.next_deadline_ms()));
            }
            per_second.push(closed(&hub, 2_000) - before);
            before = closed(&hub, 2_000);
        }
        hub.expire(at(10_000));
        assert_eq!(closed(&hub, 2_000), 2_000);
        assert!(per_second.iter().all(|count| (190..=210).contains(count)), "{per_second:?}");
    }

    #[test]
    fn who_has_gone_holds_up_nobody() {
        let mut hub = hub(Duration::ZERO);
        let gone: Vec<Ticket> = (1..=1_000).map(|user| open(&mut hub, user)).collect();
        let last = open(&mut hub, 1_001);
        gone.into_iter().for_each(|ticket| hub.gone(at(0), ticket, CloseCause::Reset));
        std::mem::take(&mut hub.effects.close).into_iter().for_each(|ticket| assert!(hub.reap(ticket).is_some()));
        hub.drain(at(0));
        assert!(flush(&mut hub, at(0), last).contains("shutting down"));
    }

    #[test]
    fn few_are_closed_soon() {
        let mut hub = hub(Duration::from_secs(10));
        (1..=5).for_each(|user| assert!(open(&mut hub, user).generation > 0));
        hub.drain(at(0));
        while hub.feeds() > 0 {
            hub.expire(at(hub.next_deadline_ms()));
        }
        assert!(hub.next_deadline_ms() >= 100);
    }

    #[test]
    fn a_last_receipt_is_waited_for_but_not_for_long() {
        let mut hub = hub(Duration::ZERO);
        let (answers, silent) = (open(&mut hub, 1), open(&mut hub, 2));
        (1..=2).for_each(|user| notify(&mut hub, at(0), user));
        hub.drain(at(0));
        hub.expire(at(500));
        assert_eq!(hub.feeds(), 2);
        pong(&mut hub, at(500), answers);
        hub.expire(at(500 + LOOK_AGAIN_US / 1_000));
        assert_eq!(hub.feeds(), 1);
        assert!(flush(&mut hub, at(520), answers).contains("shutting down"));
        assert!(!hub.is_drained(), "its receipt is not stored yet");
        hub.expire(at(RECEIPTS_US / 1_000));
        assert!(flush(&mut hub, at(2_000), silent).contains("shutting down"));
        assert_eq!(hub.feeds(), 0);
    }

    #[test]
    fn who_asks_too_late_is_told_so_and_who_asks_nothing_is_sent_away() {
        let mut hub = hub(Duration::from_secs(10));
        (1..=200).for_each(|user| assert!(open(&mut hub, user).generation > 0));
        let [late, signs_in, idle, in_hand, ready] = [(); 5].map(|()| door(&mut hub));
        let token = Signer::from_secret(SECRET).unwrap().access(UserId(1), at(0).wall_ms, Duration::from_secs(60));
        let request = format!("GET /api/users/me/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
        let (head, tail) = request.split_at(20);
        hub.receive(at(0), in_hand, &mut head.to_owned().into_bytes());
        hub.drain(at(0));
        hub.receive(at(1), late, &mut request.clone().into_bytes());
        let login = "POST /api/login/ HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
                     Content-Length: 31\r\n\r\n{\"username\":\"a\",\"password\":\"b\"}";
        hub.receive(at(1), signs_in, &mut login.as_bytes().to_vec());
        for late in [late, signs_in] {
            let refusal = flush(&mut hub, at(1), late);
            assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
            assert!(refusal.contains("Retry-After: ") && refusal.contains("Connection: close"), "{refusal}");
        }
        hub.receive(at(1), ready, &mut b"GET /health/ready HTTP/1.1\r\nHost: h\r\n\r\n".to_vec());
        assert!(flush(&mut hub, at(1), ready).starts_with("HTTP/1.1 503 "));
        hub.receive(at(1), in_hand, &mut tail.to_owned().into_bytes());
        assert_eq!(hub.effects.reads.len(), 1, "begun before: carried out");
        assert!(hub.wants_bytes(idle));
        hub.expire(at(LATE_MS));
        flush(&mut hub, at(LATE_MS), idle);
        assert_eq!(hub.effects.shut, [late, signs_in, ready, idle]);
        assert!(hub.feeds() > 0);
    }

    #[test]
    fn who_does_not_notice_the_end_is_let_go_of() {
        let mut hub = hub(Duration::ZERO);
        let (reads, stuck) = (open(&mut hub, 1), open(&mut hub, 2));
        hub.drain(at(0));
        hub.expire(at(1));
        assert!(flush(&mut hub, at(1), reads).contains("shutting down"));
        assert_eq!((hub.feeds(), hub.is_drained()), (0, false));
        hub.expire(at(60_000));
        let mut gone = std::mem::take(&mut hub.effects.close);
        gone.sort_by_key(|ticket| ticket.generation);
        assert_eq!(gone, [reads, stuck], "each once");
        assert!(gone.into_iter().all(|ticket| hub.reap(ticket).is_some()));
        assert!(hub.is_drained());
    }

    #[test]
    fn a_socket_that_answers_no_ping_is_let_go_of() {
        let mut hub = hub(Duration::ZERO);
        let silent = open(&mut hub, 1);
        hub.expire(at(30_000));
        assert!(flush(&mut hub, at(30_000), silent).len() > 16, "a Ping");
        hub.expire(at(90_000));
        assert_eq!(hub.effects.close, [silent]);
    }
}
