//! Owns what is known of users in memory: how much waits for each, who may not be served.
//! Never a row: these are counts. Enter at [`Users`].
#![expect(clippy::indexing_slicing, reason = "two channels, two places: by an enum, never by what a peer sent")]

use crate::matching::UserId;
use crate::notification::Channel;
use crate::storage::job::{Census, Fewer, Standing};
use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Users {
    /// Of users with something unread.
    inboxes: HashMap<UserId, [Inbox; 2]>,
    barred: HashMap<UserId, Standing>,
    /// Over all.
    total: Total,
}

#[derive(Default)]
struct Total {
    unread: u64,
    waiting: u64,
}

/// Of one user and channel.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Inbox {
    pub unread: u32,
    /// Neither delivered nor read nor skipped.
    pub waiting: u32,
}

impl Users {
    pub(super) fn new(census: &Census) -> Self {
        let mut users = Self::default();
        for (user, channel, unread, waiting) in &census.inboxes {
            users.inboxes.entry(*user).or_default()[*channel as usize] = Inbox { unread: *unread, waiting: *waiting };
            users.total.unread += u64::from(*unread);
            users.total.waiting += u64::from(*waiting);
        }
        users.barred = census.barred.iter().copied().collect();
        users
    }

    pub(super) fn standing(&self, user: UserId) -> Standing {
        self.barred.get(&user).copied().unwrap_or(Standing::Active)
    }

    pub(super) fn set_standing(&mut self, user: UserId, standing: Standing) {
        if standing == Standing::Active {
            self.barred.remove(&user);
        } else {
            self.barred.insert(user, standing);
        }
    }

    pub(super) fn unread(&self, user: UserId) -> u64 {
        self.inboxes.get(&user).map_or(0, |inbox| inbox.iter().map(|i| u64::from(i.unread)).sum())
    }

    pub(super) fn waiting(&self, user: UserId, channel: Channel) -> u32 {
        self.inboxes.get(&user).map_or(0, |inbox| inbox[channel as usize].waiting)
    }

    pub(super) fn created(&mut self, user: UserId, channel: Channel) {
        let inbox = &mut self.inboxes.entry(user).or_default()[channel as usize];
        inbox.unread += 1;
        inbox.waiting += 1;
        self.total.unread += 1;
        self.total.waiting += 1;
    }

    pub(super) fn settled(&mut self, user: UserId, channel: Channel, fewer: Fewer) {
        let Some(inboxes) = self.inboxes.get_mut(&user) else { return };
        let inbox = &mut inboxes[channel as usize];
        debug_assert!(inbox.unread >= fewer.unread && inbox.waiting >= fewer.waiting, "counts follow the commits");
        inbox.unread = inbox.unread.saturating_sub(fewer.unread);
        inbox.waiting = inbox.waiting.saturating_sub(fewer.waiting);
        self.total.less(fewer);
        if *inboxes == [Inbox::default(); 2] {
            self.inboxes.remove(&user);
        }
    }

    pub(super) fn forget(&mut self, user: UserId) {
        for inbox in self.inboxes.remove(&user).into_iter().flatten() {
            self.total.less(Fewer { unread: inbox.unread, waiting: inbox.waiting });
        }
    }

    /// Of all users: unread and waiting.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.total.unread, self.total.waiting)
    }
}

impl Total {
    fn less(&mut self, fewer: Fewer) {
        self.unread = self.unread.saturating_sub(u64::from(fewer.unread));
        self.waiting = self.waiting.saturating_sub(u64::from(fewer.waiting));
    }
}
