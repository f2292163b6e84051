//! Owns the bytes on their way to one socket, in order; those for many sockets exist once. Never limits them: the hub
//! does. Enter at [`Outbound::push`].

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

/// Slices in one write.
const SLICES_MAX: usize = 64;
/// A link as slow as GPRS, in bytes a second: a Ping is given the time that what goes before it takes.
pub(super) const SLOW_LINK: usize = 4 * 1024;
/// From so many bytes on, a part takes no more: one is freed when it is gone whole, and a queue need never run empty.
const PART_BYTES: usize = 16 * 1024;

#[derive(Default)]
pub struct Outbound {
    parts: VecDeque<Part>,
    /// Bytes of the first part that are gone already.
    gone: usize,
    len: usize,
    /// Bytes that do not count against `limits.outbound`: a page of a replay.
    free: usize,
    /// Bytes after the last that the peer is known to have, here or with the kernel; and those of them before the Ping
    /// that is under way.
    unheard: usize,
    before_ping: usize,
}

enum Part {
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
    Static(&'static [u8]),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

impl Outbound {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What counts against the limit.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.len.saturating_sub(self.free)
    }

    /// Lets `write` append its bytes.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.parts.back(), Some(Part::Own(tail)) if tail.len() < PART_BYTES) {
            self.parts.push_back(Part::Own(Vec::new()));
        }
        if let Some(Part::Own(tail)) = self.parts.back_mut() {
            let before = tail.len();
            write(tail);
            let count = tail.len() - before;
            self.taken(count);
        }
    }

    fn taken(&mut self, count: usize) {
        self.len += count;
        self.unheard += count;
    }

    pub fn push_shared(&mut self, bytes: &Rc<[u8]>) {
        self.taken(bytes.len());
        self.parts.push_back(Part::Shared(Rc::clone(bytes)));
    }

    /// Bytes of the program itself.
    pub fn push_static(&mut self, bytes: &'static [u8]) {
        if !bytes.is_empty() {
            self.taken(bytes.len());
            self.parts.push_back(Part::Static(bytes));
        }
    }

    /// A page of a replay: paced, so that it does not count.
    pub fn push_free(&mut self, bytes: Vec<u8>) {
        self.taken(bytes.len());
        self.free += bytes.len();
        self.parts.push_back(Part::Own(bytes));
    }

    /// A Ping goes now: how many bytes the peer may still have to take before it.
    pub fn ask(&mut self) -> usize {
        self.before_ping = self.unheard;
        self.before_ping
    }

    /// Whether so much may lie with the kernel still that a Ping would wait behind it.
    #[must_use]
    pub fn is_on_its_way(&self) -> bool {
        self.unheard >= SLOW_LINK
    }

    /// The Ping is answered: the peer has what went before it.
    pub fn heard(&mut self) {
        self.unheard -= std::mem::take(&mut self.before_ping);
    }

    /// All there is, where it is in one piece: most of the time.
    #[must_use]
    pub fn only_slice(&self) -> Option<&[u8]> {
        match self.parts.front() {
            Some(part) if self.parts.len() == 1 => part.bytes().get(self.gone..),
            _ => None,
        }
    }

    /// What one write takes.
    #[must_use]
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut skip = self.gone;
        self.parts
            .iter()
            .take(SLICES_MAX)
            .map(|part| IoSlice::new(part.bytes().get(std::mem::take(&mut skip)..).unwrap_or_default()))
            .collect()
    }

    /// `count` bytes are gone.
    pub fn wrote(&mut self, count: usize) {
        self.len = self.len.saturating_sub(count);
        self.gone += count;
        while let Some(first) = self.parts.front().map(|part| part.bytes().len())
            && self.gone >= first
        {
            self.gone -= first;
            self.parts.pop_front();
        }
        if self.is_empty() {
            self.free = 0;
        }
    }
}

#[cfg(test)]
impl Outbound {
    /// Bytes of memory that are held for this queue alone.
    pub(super) fn held(&self) -> usize {
        let own = |part: &Part| if let Part::Own(bytes) = part { bytes.capacity() } else { 0 };
        self.parts.iter().map(own).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Outbound, PART_BYTES};

    /// A client that always leaves a byte in the queue.
    #[test]
    fn a_queue_that_never_runs_empty_does_not_grow() {
        let mut outbound = Outbound::default();
        outbound.push(|out| out.push(0));
        for _ in 0..10_000 {
            outbound.push(|out| out.extend_from_slice(&[0; 300]));
            outbound.wrote(300);
        }
        assert_eq!(outbound.len(), 1);
        assert!(outbound.held() <= 4 * PART_BYTES, "{} bytes held for one", outbound.held());
    }
}
