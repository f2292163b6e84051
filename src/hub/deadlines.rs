//! Owns the order in which deadlines come up. Never knows what is due: a connection says, when its turn comes.
//! Enter at [`Deadlines::file`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bits of an entry that name a place in the table, and the places that they can name.
const KEY_BITS: u32 = 24;
/// Connections that can be told apart here: 16 million, of which each costs the kernel more than a machine has.
pub(super) const PLACES_MAX: usize = 1 << KEY_BITS;

/// Filed deadlines, one entry a connection but for those that were moved forward. A later deadline is not filed anew:
/// the connection is looked at when the old one comes up. An entry is 8 bytes: milliseconds above, the place below; an
/// entry whose connection has gone, or was filed anew, finds another time in its place.
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<u64>>,
}

impl Deadlines {
    /// Room is asked for once, and costs nothing until it is used: growing would move everything.
    pub(super) fn for_connections(most: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(most) }
    }

    pub(super) fn file(&mut self, at_ms: u64, key: u32) {
        self.heap.push(Reverse(at_ms << KEY_BITS | u64::from(key)));
    }

    /// The next that has come up: when, and whose.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<(u64, u32)> {
        let (at_ms, key) = self.next().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        self.heap.pop();
        Some((at_ms, key))
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next().map(|(at_ms, _)| at_ms)
    }

    fn next(&self) -> Option<(u64, u32)> {
        let Reverse(entry) = *self.heap.peek()?;
        Some((entry >> KEY_BITS, (entry & (PLACES_MAX as u64 - 1)) as u32))
    }
}
