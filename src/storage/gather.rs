//! Owns how a batch is filled up: with what is queued, and, where nobody waits for it, with what comes in a moment.
//! Never waits for the first of it. Enter at [`top_up`].

use crate::clock::Clock;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long receipts wait for something to ride on.
const RECEIPTS_WAIT: Duration = Duration::from_millis(20);

/// What a batch still takes.
pub(crate) enum Takes {
    Nothing,
    /// Somebody waits for it.
    WhatIsThere,
    /// Receipts alone.
    WhatComes,
}

pub(crate) fn top_up<B, T>(
    batch: &mut B,
    queue: &Receiver<T>,
    clock: Clock,
    takes: impl Fn(&B) -> Takes,
    mut add: impl FnMut(&mut B, T),
) {
    let until_us = clock.now().monotonic_us + RECEIPTS_WAIT.as_micros() as u64;
    loop {
        let next = match takes(batch) {
            Takes::Nothing => return,
            Takes::WhatIsThere => queue.try_recv().ok(),
            Takes::WhatComes => {
                let left = until_us.saturating_sub(clock.now().monotonic_us);
                queue.recv_timeout(Duration::from_micros(left)).ok()
            }
        };
        match next {
            Some(next) => add(batch, next),
            None => return,
        }
    }
}
