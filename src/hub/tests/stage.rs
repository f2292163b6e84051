//! Owns a hub on a stage, for tests: its turn as the reactor makes it, over lines in memory, the real committer run step
//! by step, and clocks that are set. Never opens a socket. Enter at [`Stage::turn`].

use crate::api::routes::Door;
use crate::clock::Now;
use crate::hub::event::{CloseCause, Event};
use crate::hub::{Hub, Rules};
use crate::inbox::Letter;
use crate::storage::job::Ticket;
use crate::storage::stepwise::Store;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

/// One connection as the kernel has it: the bytes on their way, and who has ended what.
#[derive(Default)]
pub(super) struct Line {
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    /// Everything that the server ever wrote, for whoever checks it.
    pub written: Vec<u8>,
    /// Bytes that `to_client` holds before a write would block.
    pub window: usize,
    /// The client sends no more.
    pub ended: bool,
    /// Reset: nothing arrives any more, either way.
    pub broken: bool,
    /// The server has ended its half, or let go.
    pub over: bool,
    /// Bytes that the hub has taken.
    pub taken: usize,
    in_ready: bool,
    end_is_told: bool,
}

pub(super) type End = Rc<RefCell<Line>>;

pub(super) struct Stage {
    pub now: Now,
    pub hub: Hub<End>,
    pub store: Store,
    /// The most that one read takes.
    pub chunk: usize,
    pub events: Vec<Event>,
    ready: Vec<Ticket>,
}

/// Where all stages begin: 2024-01-15T10:30:00Z.
pub(super) const START: Now = Now { monotonic_us: 1_000_000, wall_ms: 1_705_314_600_000 };

impl Stage {
    pub(super) fn new(rules: Rules, store: Store, now: Now, seed: u64) -> Self {
        let hub = Hub::new(now, rules, &store.census(), seed);
        Self { now, hub, store, chunk: 64 * 1024, events: Vec::new(), ready: Vec::new() }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.monotonic_us += ms * 1_000;
        self.now.wall_ms += ms as i64;
    }

    pub(super) fn accept(&mut self, window: usize) -> Option<(Ticket, End)> {
        let end = End::default();
        end.borrow_mut().window = window;
        let address = IpAddr::from([192, 0, 2, 1]);
        let ticket = self.hub.accept(self.now, Rc::clone(&end), address, Door::Public).ok()?;
        Some((ticket, end))
    }

    pub(super) fn send(&mut self, ticket: Ticket, end: &End, bytes: &[u8]) {
        end.borrow_mut().to_server.extend_from_slice(bytes);
        self.make_ready(ticket);
    }

    pub(super) fn end(&mut self, ticket: Ticket, end: &End) {
        end.borrow_mut().ended = true;
        self.make_ready(ticket);
    }

    pub(super) fn reset(&mut self, ticket: Ticket, end: &End) {
        let mut line = end.borrow_mut();
        line.broken = true;
        line.to_server.clear();
        line.to_client.clear();
        drop(line);
        self.make_ready(ticket);
    }

    /// The client reads; where that makes room, the server is told.
    pub(super) fn read(&mut self, ticket: Ticket, end: &End, most: usize) -> Vec<u8> {
        let mut line = end.borrow_mut();
        let was_full = line.to_client.len() >= line.window;
        let count = most.min(line.to_client.len());
        let bytes = line.to_client.drain(..count).collect();
        if was_full && count > 0 && self.hub.entry(ticket).is_some() {
            self.hub.effects.flush.push(ticket);
        }
        bytes
    }

    /// The kernel takes so many bytes from now on.
    pub(super) fn open_window(&mut self, ticket: Ticket, end: &End, bytes: usize) {
        end.borrow_mut().window = bytes;
        if self.hub.entry(ticket).is_some() {
            self.hub.effects.flush.push(ticket);
        }
    }

    fn make_ready(&mut self, ticket: Ticket) {
        let Some(end) = self.hub.socket(ticket) else { return };
        let mut line = end.borrow_mut();
        let readable = line.broken || !line.to_server.is_empty() || (line.ended && !line.end_is_told);
        if readable && !line.in_ready {
            line.in_ready = true;
            drop(line);
            self.ready.push(ticket);
        }
    }

    /// One turn of `Reactor`, phase by phase.
    pub(super) fn turn(&mut self) {
        self.take_bytes();
        while let Some(letter) = self.store.letters.pop_front() {
            self.open(letter);
        }
        self.hub.expire(self.now);
        self.submit();
        self.flush();
        self.submit();
        for ticket in std::mem::take(&mut self.hub.effects.close) {
            if let Some(end) = self.hub.reap(ticket) {
                end.borrow_mut().over = true;
            }
        }
        self.events.append(&mut self.hub.effects.events);
    }

    /// Whether another turn would change nothing, unless storage moves.
    pub(super) fn is_still(&self) -> bool {
        self.store.letters.is_empty() && self.ready.is_empty() && self.hub.effects.flush.is_empty()
    }

    /// Whether another turn would change nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.store.is_idle() && self.is_still()
    }

    fn take_bytes(&mut self) {
        for ticket in std::mem::take(&mut self.ready) {
            let Some(end) = self.hub.socket(ticket).map(|end| Rc::clone(end)) else { continue };
            end.borrow_mut().in_ready = false;
            if !self.hub.wants_bytes(ticket) {
                continue;
            }
            let mut line = end.borrow_mut();
            if line.broken {
                drop(line);
                self.hub.gone(self.now, ticket, CloseCause::Reset);
                continue;
            }
            let count = self.chunk.min(line.to_server.len());
            let mut bytes: Vec<u8> = line.to_server.drain(..count).collect();
            line.taken += count;
            line.end_is_told |= bytes.is_empty();
            drop(line);
            if bytes.is_empty() {
                self.hub.peer_ended(self.now, ticket);
            } else {
                self.hub.receive(self.now, ticket, &mut bytes);
            }
            self.make_ready(ticket);
        }
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::Committed { outcomes, took_us } => self.hub.committed(self.now, outcomes, took_us),
            Letter::Answered(outcomes) => self.hub.answered(self.now, outcomes),
            Letter::Hashed { ticket, command } => self.hub.hashed(self.now, ticket, command),
            Letter::Checked { ticket, found, cost } => self.hub.checked(self.now, ticket, found, cost),
            Letter::Health(failure) => self.hub.health(failure),
            Letter::Reload { rules, .. } => self.hub.obey(self.now, *rules),
            Letter::LogHealth(failure) => self.hub.log_health(failure),
            Letter::DjangoRefused { cause, count } => self.hub.django_refused(cause, count),
            Letter::Vitals { .. } | Letter::NotReloaded { .. } | Letter::Pulse(_) => {}
            Letter::Stop => self.hub.drain(self.now),
        }
    }

    fn submit(&mut self) {
        assert!(self.hub.effects.hash.is_empty(), "nobody sets a password here");
        self.store.errands.extend(self.hub.effects.errands.drain(..));
        self.store.asks.extend(self.hub.effects.reads.drain(..));
    }

    fn flush(&mut self) {
        while !self.hub.effects.flush.is_empty() {
            for ticket in std::mem::take(&mut self.hub.effects.flush) {
                let Some((end, outbound)) = self.hub.outbound(ticket) else { continue };
                let mut line = end.borrow_mut();
                if line.broken {
                    drop(line);
                    self.hub.gone(self.now, ticket, CloseCause::Reset);
                    continue;
                }
                while !outbound.is_empty() && line.to_client.len() < line.window {
                    let room = line.window - line.to_client.len();
                    let bytes: Vec<u8> =
                        outbound.slices().iter().flat_map(|slice| slice.iter().copied()).take(room).collect();
                    line.to_client.extend_from_slice(&bytes);
                    line.written.extend_from_slice(&bytes);
                    outbound.wrote(bytes.len());
                }
                drop(line);
                self.hub.flushed(self.now, ticket);
            }
        }
        for ticket in std::mem::take(&mut self.hub.effects.shut) {
            if let Some(end) = self.hub.socket(ticket) {
                end.borrow_mut().over = true;
            }
        }
        for ticket in std::mem::take(&mut self.hub.effects.resume) {
            self.make_ready(ticket);
        }
    }
}
