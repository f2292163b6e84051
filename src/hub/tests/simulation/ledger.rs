//! Owns what a simulation knows to be true: the rows, who had them when, and what was promised to whom. Never looks into
//! the hub. Enter at [`Ledger::refresh`] after each commit.

use crate::api::command::Command;
use crate::matching::UserId;
use crate::notification::{Channel, NotificationId};
use crate::storage::job::Errand;
use crate::storage::stepwise::Store;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub user: UserId,
    pub channel: Channel,
    pub uuid: Uuid,
    pub delivered: bool,
    pub read: bool,
    pub skipped: bool,
    /// Removed: by housekeeping, or with its user.
    pub gone: bool,
}

impl Row {
    pub(super) fn waits(&self) -> bool {
        !self.delivered && !self.read && !self.skipped && !self.gone
    }
}

#[derive(Default)]
pub(super) struct Ledger {
    pub rows: BTreeMap<i64, Row>,
    by_uuid: HashMap<Uuid, i64>,
    /// Rows that some device has in hand, and rows that some socket's kernel took.
    pub received: HashSet<i64>,
    pub written: HashSet<i64>,
    /// Rows whose receipt the hub has heard, and no crash or failure has forgotten since.
    pub acknowledged: HashSet<i64>,
    /// Users whose removal was asked for: rows may go in the very commit that they come with.
    pub removed: HashSet<UserId>,
    /// What was posted, by its number.
    pub posts: Vec<Post>,
}

/// One general notification for one user, posted once, or twice under one `Idempotency-Key`.
pub(super) struct Post {
    pub user: UserId,
    pub sent: usize,
    pub statuses: Vec<u16>,
}

impl Ledger {
    pub(super) fn id_of(&self, uuid: &Uuid) -> Option<i64> {
        self.by_uuid.get(uuid).copied()
    }

    /// Takes the rows as they are committed now.
    pub(super) fn refresh(&mut self, store: &Store) {
        let mut select = store
            .db()
            .prepare_cached(
                "SELECT id, user, channel, created_ms, delivered_ms, read_ms, skipped, uuid FROM notification",
            )
            .unwrap();
        let mut rows = select.query([]).unwrap();
        let mut there = HashSet::new();
        while let Some(row) = rows.next().unwrap() {
            let (id, user): (i64, UserId) = (row.get(0).unwrap(), UserId(row.get(1).unwrap()));
            let channel = Channel::ALL[row.get::<_, i64>(2).unwrap() as usize];
            let is_some = |column| row.get::<_, Option<i64>>(column).unwrap().is_some();
            let foreign: Option<[u8; 16]> = row.get(7).unwrap();
            let uuid =
                foreign.map_or_else(|| NotificationId(id).uuid(row.get(3).unwrap(), user, channel), Uuid::from_bytes);
            let (delivered, read, skipped, gone) = (is_some(4), is_some(5), is_some(6), false);
            there.insert(id);
            self.by_uuid.insert(uuid, id);
            let new = Row { user, channel, uuid, delivered, read, skipped, gone };
            if let Some(old) = self.rows.insert(id, new) {
                assert!(!old.gone, "row {id} came back");
                assert!(old.delivered <= delivered && old.read <= read, "row {id} was undone");
                assert_eq!(old.uuid, uuid, "row {id} has another name");
            }
        }
        // Made and removed in one commit: told, and never there.
        for made in store.just_made() {
            let (user, channel, uuid) = (made.user, made.channel, made.uuid);
            let gone = Row { user, channel, uuid, delivered: false, read: false, skipped: false, gone: true };
            self.by_uuid.insert(uuid, made.id.0);
            self.rows.entry(made.id.0).or_insert(gone);
        }
        for (id, row) in &mut self.rows {
            row.gone = !there.contains(id);
        }
    }

    /// Delivered means that a device has it, or that the kernel took it where that is all that is asked.
    pub(super) fn check_delivered(&self, written_is_enough: bool) {
        for (id, row) in self.rows.iter().filter(|(_, row)| row.delivered && !row.read) {
            let proven = self.received.contains(id) || (written_is_enough && self.written.contains(id));
            assert!(proven, "row {id} of {:?} counts as delivered, but no device has it", row.user);
        }
    }

    /// Receipts that were heard but are neither committed nor on their way are forgotten: their rows come again.
    pub(super) fn forget_lost_receipts(&mut self, store: &Store) {
        let under_way: HashSet<i64> = store
            .errands
            .iter()
            .filter_map(|errand| match errand {
                Errand::Write(job) => match &job.command {
                    Command::MarkDelivered { ids, .. } => Some(ids.iter().map(|id| id.0)),
                    _ => None,
                },
                Errand::ReadAfter(_) | Errand::Follow(_) | Errand::Pulse(_) => None,
            })
            .flatten()
            .collect();
        let rows = &self.rows;
        self.acknowledged.retain(|id| under_way.contains(id) || rows.get(id).is_none_or(|row| !row.waits()));
    }

    pub(super) fn of(&self, user: UserId, channel: Channel) -> impl Iterator<Item = (i64, &Row)> {
        self.rows.iter().map(|(id, row)| (*id, row)).filter(move |(_, row)| row.user == user && row.channel == channel)
    }

    /// A 2xx is a row, once; nothing but 5xx is none; no answer is either.
    pub(super) fn check_posts(&self, store: &Store) {
        let mut stored: HashMap<usize, u32> = HashMap::new();
        let mut select =
            store.db().prepare("SELECT message FROM general JOIN notification n ON n.general = general.id").unwrap();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            *stored.entry(row.get::<_, String>(0).unwrap().parse().unwrap()).or_default() += 1;
        }
        for (number, Post { user, sent, statuses }) in self.posts.iter().enumerate() {
            let count = stored.get(&number).copied().unwrap_or(0);
            let removed = self.removed.contains(user) || self.rows.values().any(|row| row.gone && row.user == *user);
            let done = statuses.iter().any(|status| *status < 300);
            let refused = statuses.len() == *sent && statuses.iter().all(|status| *status >= 400);
            assert!(count <= 1, "post {number} is there {count} times");
            assert!(!done || count == 1 || removed, "post {number} was answered {statuses:?} and is not there");
            assert!(!refused || count == 0, "post {number} was refused with {statuses:?} and is there");
        }
    }
}
