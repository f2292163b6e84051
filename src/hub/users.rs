//! Owns what is known of users in memory: how much waits for each, who may not be served.
//! Never a row: these are counts. Enter at [`Users`].
#![expect(clippy::indexing_slicing, reason = "two channels, two places: by an enum, never by what a peer sent")]

use crate::matching::UserId;
use crate::notification::{Channel, NotificationId};
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
    /// No row that waits lies before this one; counted in steps of `STEP`, so that it takes half the bytes of an id.
    oldest: u32,
}

const STEP: i64 = 256;

impl Inbox {
    fn begin_at(&mut self, id: NotificationId) {
        // Beyond four billion steps, all of them are looked through.
        self.oldest = u32::try_from(id.0 / STEP).unwrap_or(0);
    }
}

impl Users {
    pub(super) fn new(census: &Census) -> Self {
        let mut users = Self::default();
        for count in &census.inboxes {
            let inbox = &mut users.inboxes.entry(count.user).or_default()[count.channel as usize];
            (inbox.unread, inbox.waiting) = (count.unread, count.waiting);
            inbox.begin_at(count.oldest);
            users.total.unread += u64::from(count.unread);
            users.total.waiting += u64::from(count.waiting);
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

    /// A row before which none that waits lies.
    pub(super) fn oldest_waiting(&self, user: UserId, channel: Channel) -> NotificationId {
        let steps = self.inboxes.get(&user).map_or(0, |inbox| inbox[channel as usize].oldest);
        NotificationId(i64::from(steps) * STEP)
    }

    /// Unread and waiting.
    #[cfg(test)]
    pub(super) fn counts(&self, user: UserId, channel: Channel) -> (u32, u32) {
        self.inboxes
            .get(&user)
            .map_or((0, 0), |inbox| (inbox[channel as usize].unread, inbox[channel as usize].waiting))
    }

    pub(super) fn created(&mut self, user: UserId, channel: Channel, id: NotificationId) {
        let inbox = &mut self.inboxes.entry(user).or_default()[channel as usize];
        if inbox.waiting == 0 {
            inbox.begin_at(id);
        }
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
        if inboxes.iter().all(|inbox| inbox.unread == 0) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_waits_lies_no_earlier_than_is_said() {
        let (user, channel, mut users) = (UserId(1), Channel::Tenant, Users::default());
        let oldest = |users: &Users| users.oldest_waiting(user, channel).0;
        let came = |users: &mut Users, id| users.created(user, channel, NotificationId(id));
        let one = Fewer { unread: 0, waiting: 1 };
        assert_eq!(oldest(&users), 0);
        came(&mut users, 5 * STEP + 7);
        came(&mut users, 9 * STEP);
        assert_eq!(oldest(&users), 5 * STEP);
        users.settled(user, channel, one);
        assert_eq!(oldest(&users), 5 * STEP, "which of the two it was is not known");
        users.settled(user, channel, one);
        came(&mut users, 12 * STEP - 1);
        assert_eq!(oldest(&users), 11 * STEP);
        assert_eq!(users.oldest_waiting(user, Channel::Property).0, 0);
        came(&mut users, i64::MAX);
        users.settled(user, channel, one);
        users.settled(user, channel, one);
        came(&mut users, i64::MAX);
        assert_eq!(oldest(&users), 0);
    }
}
