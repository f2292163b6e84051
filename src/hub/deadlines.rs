//! Owns the order in which deadlines come up. Never knows what is due: a connection says, when its turn comes.
//! Enter at [`Deadlines::file`].

use crate::storage::job::Ticket;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Filed deadlines, one entry a connection but for those that were moved forward. A later deadline is not filed anew:
/// the connection is looked at when the old one comes up.
#[derive(Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Deadlines {
    pub(super) fn file(&mut self, at_ms: u64, ticket: Ticket) {
        self.heap.push(Reverse((at_ms, ticket.key, ticket.generation)));
    }

    /// The next that has come up.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<(u64, Ticket)> {
        let Reverse((at_ms, key, generation)) = *self.heap.peek().filter(|Reverse((at_ms, ..))| *at_ms <= now_ms)?;
        self.heap.pop();
        Some((at_ms, Ticket { key, generation }))
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, ..))| *at_ms)
    }
}
