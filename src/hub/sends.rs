//! Owns what the server remembers of its latest sends, for whoever asks what became of one. Never grows beyond its few
//! rows: what is older is told by the database alone. Enter at [`Sends::note`].

use crate::notification::NotificationId;
use crate::storage::job::Ticket;
use serde::Serialize;
use std::collections::VecDeque;

/// 64 KiB, once so many were sent.
const SENDS_MAX: usize = 2_048;

/// One step of one notification.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub id: NotificationId,
    pub at_ms: i64,
    pub socket: Ticket,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Sent,
    Replayed,
    Acknowledged,
}

pub(super) struct Sends {
    steps: VecDeque<Step>,
    since_ms: i64,
}

impl Sends {
    /// `now_ms`: by the wall clock; what was before is not known.
    pub(super) fn new(now_ms: i64) -> Self {
        Self { steps: VecDeque::new(), since_ms: now_ms }
    }

    pub(super) fn note(&mut self, step: Step) {
        if self.steps.len() == SENDS_MAX {
            self.since_ms = self.steps.pop_front().map_or(self.since_ms, |oldest| oldest.at_ms);
        }
        self.steps.push_back(step);
    }

    /// The steps of one notification that are still known, in order.
    pub(super) fn of(&self, id: NotificationId) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.id == id)
    }

    /// Behind this moment everything is known.
    pub(super) fn complete_since_ms(&self) -> i64 {
        self.since_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_latest_and_no_more() {
        let mut sends = Sends::new(-1);
        let socket = Ticket { key: 1, generation: 2 };
        for n in 0..SENDS_MAX as i64 + 10 {
            assert_eq!(sends.complete_since_ms(), (n - 1 - SENDS_MAX as i64).max(-1));
            sends.note(Step { id: NotificationId(n), at_ms: n, socket, what: What::Sent });
        }
        assert_eq!(sends.steps.len(), SENDS_MAX);
        assert_eq!((sends.of(NotificationId(9)).count(), sends.of(NotificationId(10)).count()), (0, 1));
    }
}
