//! Owns what is shown of the shared log: how many commands wait for it, and how far this node is behind its end. Numbers
//! that the threads leave for whoever looks. Never decides anything by them. Enter at [`Load::shown`].

use crate::storage::mark::Position;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub(super) struct Load {
    queued: AtomicUsize,
    kept: AtomicUsize,
    behind: Mutex<Option<Behind>>,
}

/// The oldest entry that was not committed here when this node last looked.
#[derive(Clone, Copy)]
struct Behind {
    position: Position,
    age_ms: u64,
    seen_us: u64,
}

/// As the operator sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedLogLoad {
    /// Commands that wait to be appended.
    pub queued: usize,
    /// Commands kept until Redis is back.
    pub kept: usize,
    /// Age of the oldest entry that is not committed here; 0: there is none.
    pub behind_ms: u64,
}

impl Load {
    pub(super) fn add(&self, commands: usize) {
        self.queued.fetch_add(commands, Ordering::Relaxed);
    }

    pub(super) fn take(&self, commands: usize) {
        self.queued.fetch_sub(commands, Ordering::Relaxed);
    }

    pub(super) fn set_kept(&self, commands: usize) {
        self.kept.store(commands, Ordering::Relaxed);
    }

    /// What came of a look at the log: the oldest entry that is not committed here, and Redis' time then.
    pub(super) fn looked(&self, oldest: Option<Position>, redis_ms: u64, now_us: u64) {
        let behind =
            |position: Position| Behind { position, age_ms: redis_ms.saturating_sub(position.ms), seen_us: now_us };
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = oldest.map(behind);
    }

    /// What was behind at the last look and is committed by now is not behind any more; what is not grows older.
    pub(super) fn shown(&self, committed: Option<Position>, now_us: u64) -> SharedLogLoad {
        let behind = *self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let still = behind.filter(|behind| committed.is_none_or(|committed| committed < behind.position));
        let age_ms = |behind: Behind| behind.age_ms + now_us.saturating_sub(behind.seen_us) / 1_000;
        SharedLogLoad {
            queued: self.queued.load(Ordering::Relaxed),
            kept: self.kept.load(Ordering::Relaxed),
            behind_ms: still.map_or(0, age_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_grows_older_until_it_is_committed() {
        let load = Load::default();
        let at = |seq| Position { ms: 1_000, seq };
        assert_eq!(load.shown(None, 5).behind_ms, 0);
        load.looked(Some(at(2)), 1_300, 1_000_000);
        assert_eq!(load.shown(Some(at(1)), 1_000_000).behind_ms, 300);
        assert_eq!(load.shown(Some(at(1)), 3_000_000).behind_ms, 2_300);
        assert_eq!(load.shown(Some(at(2)), 3_000_000).behind_ms, 0);
        // Redis' clock may be set back.
        load.looked(Some(at(3)), 900, 0);
        assert_eq!(load.shown(None, 0).behind_ms, 0);
        load.looked(None, 2_000, 0);
        assert_eq!(load.shown(None, 9_000_000).behind_ms, 0);
    }
}
