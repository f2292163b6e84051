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

/// A filed deadline as its connection remembers it: the lower half of the milliseconds, for none lies weeks ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Filed(u32);

impl Filed {
    /// Stands nowhere.
    pub(super) const NEVER: Self = Self(u32::MAX);

    pub(super) fn at(ms: u64) -> Self {
        Self((ms as u32).min(u32::MAX - 1))
    }

    pub(super) fn is_after(self, ms: u64) -> bool {
        self == Self::NEVER || Self::at(ms).0.wrapping_sub(self.0).cast_signed() < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filed_deadlines_keep_their_order_where_the_half_of_the_milliseconds_ends() {
        let end = u64::from(u32::MAX);
        for base in [0, 5, end - 1, end, end + 1, 3 * end] {
            for ahead in [2, 25_000, 1 << 30] {
                assert!(Filed::at(base + ahead).is_after(base), "{base} {ahead}");
                assert!(!Filed::at(base).is_after(base + ahead), "{base} {ahead}");
                assert!(Filed::at(base) != Filed::at(base + ahead));
                assert!(Filed::at(base) != Filed::NEVER && Filed::NEVER.is_after(base));
            }
        }
    }
}
