//! Owns which waiting notification is the oldest, as far as is known. Never scans: rows are made in the order of their
//! ids and never wait again once they have stopped, so each look begins where the last one ended.
//! Enter at [`Hub::look_for_oldest`].

use super::Hub;
use crate::api::command::Query;
use crate::notification::{Notification, NotificationId};
use crate::storage::job::{Oldest, Ticket};

#[derive(Default)]
pub(super) struct OldestWaiting {
    found: Option<Oldest>,
    /// No row before this one waits.
    from: NotificationId,
    asked: bool,
}

impl OldestWaiting {
    pub(super) fn new(found: Option<Oldest>) -> Self {
        Self { found, from: found.map_or(NotificationId(0), |oldest| oldest.id), asked: false }
    }

    /// A row that waits, while no other does.
    pub(super) fn alone(&mut self, n: &Notification) {
        self.found = Some(Oldest { id: n.id, created_ms: n.created_ms });
        self.from = n.id;
    }
}

impl<S> Hub<S> {
    /// Asks which waiting notification is the oldest, where that may have changed.
    pub fn look_for_oldest(&mut self) {
        if self.oldest.asked || self.users.totals().1 == 0 {
            return;
        }
        self.oldest.asked = true;
        self.ask(Ticket::NOBODY, Query::OldestWaiting { from: self.oldest.from });
    }

    pub(super) fn oldest_is(&mut self, found: Option<Oldest>, upto: NotificationId) {
        self.oldest.asked = false;
        // A row that came alone meanwhile may be younger than where this look began.
        self.oldest.from = self.oldest.from.max(found.map_or(upto, |oldest| oldest.id));
        match found {
            Some(oldest) if oldest.id >= self.oldest.from => self.oldest.found = found,
            Some(_) => {}
            None if upto < self.committed => self.look_for_oldest(),
            None => {}
        }
    }

    /// The look failed; the next begins where this one did.
    pub(super) fn oldest_unknown(&mut self) {
        self.oldest.asked = false;
    }

    /// The oldest waiting notification, as of the last look.
    #[must_use]
    pub fn oldest_waiting(&self) -> Option<Oldest> {
        self.oldest.found.filter(|_| self.users.totals().1 > 0)
    }
}
