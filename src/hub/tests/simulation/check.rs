//! Owns what must hold after every step, whatever happened. Enter at [`World::check`].

use super::World;
use super::device::Socket;
use crate::config::Ack;
use crate::hub::connection::{NOBODY, Phase, State};
use crate::hub::tests::stage::End;
use crate::hub::{Hub, PIPELINE_BYTES};
use crate::matching::UserId;
use crate::notification::Channel;
use crate::storage::job::Ticket;
use std::collections::{BTreeMap, BTreeSet};

impl World {
    pub(super) fn check(&mut self) {
        for socket in &mut self.sockets {
            socket.check_written(&mut self.ledger);
            let serves = self.stage.hub.feed(socket.ticket).is_some();
            socket.check_receipts(serves, &mut self.ledger);
        }
        self.ledger.check_delivered(self.ack == Ack::Written);
        for socket in &self.sockets {
            self.check_complete(socket);
        }
        check_index(&mut self.stage.hub);
        self.check_buffers();
        if self.stage.store.letters.is_empty() && self.stage.store.has_told() {
            self.check_counts();
        }
    }

    /// What is committed and told is on every live socket that has room, or was never to be there.
    fn check_complete(&self, socket: &Socket) {
        let hub = &self.stage.hub;
        let Some(entry) = hub.table.get(socket.ticket.key as usize) else { return };
        let connection = &entry.connection;
        let State::Feed(feed) = &connection.state else { return };
        if connection.generation != socket.ticket.generation || feed.phase != Phase::Live || connection.queued() > 0 {
            return;
        }
        let mark = socket.mark.unwrap().0;
        let since = socket.since.filter(|_| !socket.since_unknown);
        // Beyond the newest `replay_max`, older ones may be left out, whatever became of them.
        let limited = socket.skipped > 0 || socket.sent.len() >= self.config.delivery.replay_max as usize;
        let first = if limited { socket.sent.first().copied().unwrap_or(0) } else { 0 };
        let sent: BTreeSet<i64> = socket.sent.iter().copied().collect();
        for (id, row) in self.ledger.of(socket.user, socket.channel) {
            let told = id <= hub.committed.0 && !row.gone && id >= first;
            let due = since.map_or_else(|| id > mark || row.waits(), |since| id > since);
            let (skipped, got) = (socket.skipped, &socket.sent);
            assert!(
                !told || !due || sent.contains(&id),
                "row {id} never came: {row:?}; mark {mark}, since {since:?}, skipped {skipped}, sent {got:?}"
            );
        }
    }

    /// At rest nothing that a client said lies about unheard.
    pub(super) fn check_rest(&self) {
        for socket in self.sockets.iter().filter(|socket| !socket.over) {
            let line = socket.end.borrow();
            let unread = if line.broken || line.over { 0 } else { line.to_server.len() };
            assert_eq!(unread, 0, "bytes of {:?} were never read", socket.ticket);
        }
        for (key, entry) in &self.stage.hub.table {
            let kept = entry.connection.cold.as_ref().map_or(0, |cold| cold.input.len());
            assert_eq!(kept, 0, "bytes of {key} were read and never heard");
        }
    }

    fn check_buffers(&self) {
        let limits = &self.stage.hub.rules.limits;
        for (key, entry) in &self.stage.hub.table {
            let connection = &entry.connection;
            let Some(cold) = &connection.cold else { continue };
            let queued = cold.outbound.counted();
            let allowed = match &connection.state {
                State::Feed(_) => limits.outbound,
                // A last answer or a goodbye may go beyond.
                _ => limits.outbound.max(PIPELINE_BYTES) + 64 * 1024,
            };
            assert!(queued <= allowed, "{key} has {queued} bytes queued");
            let held = cold.outbound.held();
            assert!(held <= 4 * (allowed + 64 * 1024), "{key} holds {held} bytes for {queued}");
            assert!(cold.input.len() <= limits.head + limits.body + self.stage.chunk, "{key}: {}", cold.input.len());
            assert!(cold.message.len() <= limits.ws_message + 16, "{key}: {}", cold.message.len());
        }
    }

    /// What the hub counts is what the rows say.
    fn check_counts(&self) {
        let census = self.stage.store.census();
        let rows: BTreeMap<(UserId, usize), (u32, u32)> = census
            .inboxes
            .iter()
            .map(|count| ((count.user, count.channel as usize), (count.unread, count.waiting)))
            .collect();
        let counted: BTreeMap<(UserId, usize), (u32, u32)> = (1..=self.users)
            .map(UserId)
            .flat_map(|user| Channel::ALL.map(|channel| (user, channel)))
            .map(|(user, channel)| ((user, channel as usize), self.stage.hub.users.counts(user, channel)))
            .filter(|(_, counts)| *counts != (0, 0))
            .collect();
        assert_eq!(counted, rows, "the hub counts (left), the rows say (right)");
        for (user, standing) in census.barred {
            assert_eq!(self.stage.hub.users.standing(user), standing);
        }
    }
}

/// Every feed is in its user's list, once, linked both ways; nothing else is.
fn check_index(hub: &mut Hub<End>) {
    let mut open: BTreeMap<UserId, BTreeSet<u32>> = BTreeMap::new();
    for (key, entry) in &hub.table {
        if let State::Feed(feed) = &entry.connection.state {
            open.entry(feed.user).or_default().insert(key as u32);
        }
    }
    assert_eq!(hub.feeds, open.values().map(BTreeSet::len).sum::<usize>());
    for (user, keys) in open {
        let listed: Vec<Ticket> = hub.tickets_of(user).take(keys.len() + 1).collect();
        assert_eq!(listed.iter().map(|ticket| ticket.key).collect::<BTreeSet<_>>(), keys, "{user:?}");
        let mut previous = NOBODY;
        for ticket in listed {
            assert_eq!(hub.feed(ticket).map(|feed| feed.previous), Some(previous), "{user:?}");
            previous = ticket.key;
        }
    }
    assert_eq!(hub.addresses.connections() as usize, hub.table.len() - hub.turned_away);
}
