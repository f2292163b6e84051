//! Owns what is remembered of the newest notifications: those that nothing has happened to since they were made. Most
//! receipts name one of these, and need no look at its row. Never outlives a rollback. Enter at [`Fresh::note`].

use crate::matching::UserId;
use crate::notification::{Channel, Notification, NotificationId};
use std::collections::VecDeque;

const FRESH_MAX: usize = 2_048;

#[derive(Default)]
pub(super) struct Fresh {
    /// The id of the first in `rows`; each of the others is one more than the one before it.
    first: i64,
    rows: VecDeque<Option<Made>>,
}

/// Unread, undelivered, not skipped.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub user: UserId,
    pub channel: Channel,
    pub created_ms: i64,
}

impl Fresh {
    pub(super) fn note(&mut self, n: &Notification) {
        if n.id.0 != self.first + self.rows.len() as i64 {
            self.clear();
            self.first = n.id.0;
        }
        if self.rows.len() >= FRESH_MAX {
            self.rows.pop_front();
            self.first += 1;
        }
        self.rows.push_back(Some(Made { user: n.user, channel: n.channel, created_ms: n.created_ms }));
    }

    /// Something happens to this row: what was known of it, for the last time.
    pub(super) fn take(&mut self, id: NotificationId) -> Option<Made> {
        let place = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        self.rows.get_mut(place)?.take()
    }

    /// Something happens to rows that are not named.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }
}
