//! Owns the end of it all: sockets closed one after the other, so that clients do not come back all at once.
//! Never stops listening: the reactor does. Enter at [`Hub::drain`].

use super::Hub;
use super::connection::{NEVER, State};
use super::event::Event;
use crate::clock::Now;
use crate::http::Stage;
use crate::storage::job::Ticket;
use crate::websocket::close;
use std::time::Duration;

/// Sockets closed per second at least, however few there are.
const DRAIN_PER_SECOND: u64 = 100;

/// The end of it all, spread out.
pub(super) struct Drain {
    began_ms: u64,
    step_us: u64,
    order: Vec<Ticket>,
    done: usize,
}

impl Drain {
    pub(super) fn next_ms(&self) -> u64 {
        if self.done >= self.order.len() {
            return NEVER;
        }
        self.began_ms + self.done as u64 * self.step_us / 1_000 + 1
    }
}

impl<S> Hub<S> {
    /// SIGTERM: not ready, no new work, sockets closed one after the other.
    pub fn drain(&mut self, now: Now) {
        if self.drain.is_some() {
            return;
        }
        self.effects.events.push(Event::Draining { open: self.table.len() });
        let (mut first, mut last, mut http) = (Vec::new(), Vec::new(), Vec::new());
        for (key, entry) in &self.table {
            let ticket = Ticket { key: key as u32, generation: entry.connection.generation };
            let owes = entry.connection.cold.as_ref().is_some_and(|cold| !cold.unacknowledged.is_empty());
            match &entry.connection.state {
                State::Http(h) if h.waiting.is_none() && h.stage == Stage::Idle => http.push(ticket),
                State::Feed(_) | State::Echo if owes => last.push(ticket),
                State::Feed(_) | State::Echo => first.push(ticket),
                State::Http(_) | State::Closing { .. } => {}
            }
        }
        http.into_iter().for_each(|ticket| self.begin_closing(now, ticket));
        first.append(&mut last);
        let spread_us = u64::try_from(self.rules.drain.as_micros()).unwrap_or(u64::MAX);
        let step_us = (spread_us / (first.len() as u64).max(1)).min(1_000_000 / DRAIN_PER_SECOND);
        self.drain = Some(Drain { began_ms: now.monotonic_ms(), step_us, order: first, done: 0 });
        self.drain_step(now);
    }

    pub(super) fn drain_step(&mut self, now: Now) {
        let Some(drain) = &mut self.drain else { return };
        let until = (now.monotonic_ms() - drain.began_ms) * 1_000 / drain.step_us.max(1) + 1;
        let until = usize::try_from(until).unwrap_or(usize::MAX).min(drain.order.len());
        let due: Vec<Ticket> = drain.order.get(drain.done..until).unwrap_or_default().to_vec();
        drain.done = drain.done.max(until);
        for ticket in due {
            self.close_socket(now, ticket, close::GOING_AWAY, "shutting down", "drained");
        }
    }

    /// Over how long a drain spreads.
    #[must_use]
    pub fn drain_time(&self) -> Duration {
        self.rules.drain
    }

    /// Whether a drain has nothing left to wait for.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drain.is_some() && self.table.is_empty() && self.outstanding == 0
    }
}
