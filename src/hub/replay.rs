//! Owns what a socket is sent before anything live, page by page, as it drains. Never keeps a row: they are stored.
//! Enter at `begin_replay` and `page`.
//!
//! Order proves that nothing is lost or doubled: the socket is in the index before its first page is read, so whatever
//! is committed later is either on a page (its snapshot is younger) or comes live. `sent` is the line between the two.

use super::Hub;
use super::connection::{Phase, Replay};
use super::event::{CloseCause, Event};
use crate::api::command::{Backlog, Command, From, Query};
use crate::api::frames::{self, Complaint, WhatWasRead};
use crate::clock::Now;
use crate::notification::{NotificationId, parse_uuid};
use crate::storage::job::{Ask, BacklogPage, Errand, Ticket};
use crate::websocket::close;

/// Reads kept for one socket until its replay has brought what they are about; more are told at once.
const HELD_BACK_MAX: usize = 64;

impl<S> Hub<S> {
    /// Asks for what this user has missed. Where the counts say that nothing waits, nothing is read.
    pub(super) fn begin_replay(&mut self, now: Now, ticket: Ticket, since: Option<&str>) {
        let mark = self.committed;
        let Some(feed) = self.feed(ticket) else { return };
        let (user, channel) = (feed.user, feed.channel);
        let since = since.map(parse_uuid);
        if since.is_none() && self.users.waiting(user, channel) == 0 {
            self.establish(now, ticket, 0);
            if let Some(feed) = self.feed(ticket) {
                feed.pass(mark);
            }
            return self.go_live(now, ticket);
        }
        // `since` that is no UUID at all is as unknown as any other: the nil UUID names no row.
        let from = since.map_or(From::Waiting, |uuid| From::Since(uuid.unwrap_or_default()));
        if let Some(connection) = self.connection(ticket) {
            let newest = NotificationId(0);
            connection.cold().replay =
                Some(Replay { mark, all: false, newest, asked: true, more: true, read: Vec::new() });
        }
        let oldest = self.users.oldest_waiting(user, channel);
        let (replay_max, page_rows) = (self.rules.replay_max, self.rules.page_rows);
        let backlog = Backlog { user, channel, from, mark, oldest, replay_max, page_rows };
        self.outstanding += 1;
        // Behind the receipts that are queued: a client that answered and comes back is not sent it again.
        self.effects.errands.push(Errand::ReadAfter(Ask { query: Query::Backlog(backlog), ticket }));
        self.schedule(now, ticket);
    }

    /// For `habittod probe`: a Ping, and nothing that somebody else is waiting for.
    pub(super) fn begin_probe(&mut self, now: Now, ticket: Ticket) {
        self.ping(now, ticket);
        self.establish(now, ticket, 0);
        if let Some(feed) = self.feed(ticket) {
            feed.phase = Phase::Probing;
        }
        self.feed_due(now, ticket);
    }

    /// Whether `notification_read` is kept for this socket: until the row that was read has come, if a page may bring it.
    pub(super) fn holds_back(&mut self, ticket: Ticket, what: &WhatWasRead) -> bool {
        let Some(connection) = self.connection(ticket) else { return false };
        let Some(sent) = connection.feed().map(|feed| feed.sent()) else { return false };
        let Some(replay) = connection.cold.as_mut().and_then(|cold| cold.replay.as_mut()) else { return false };
        let holds = what.names_one_behind(sent) && replay.read.len() < HELD_BACK_MAX;
        if holds {
            replay.read.push(what.clone());
        }
        holds
    }

    /// A page came.
    pub(super) fn page(&mut self, now: Now, ticket: Ticket, page: BacklogPage) {
        let Some(feed) = self.feed(ticket) else { return };
        let (user, channel, phase) = (feed.user, feed.channel, feed.phase);
        if phase == Phase::Loading {
            self.establish(now, ticket, page.skipped);
            if page.since_unknown {
                self.complain(ticket, Complaint::SinceUnknown, &[]);
            }
            if let Some((after, before)) = page.skip {
                self.submit(now, None, Command::Skip { user, channel, after, before }, None);
            }
            if let Some(feed) = self.feed(ticket) {
                (feed.phase, feed.whole) = (Phase::Replaying, page.all);
            }
            self.feed_due(now, ticket);
        }
        let Some(connection) = self.connection(ticket) else { return };
        let cold = connection.cold();
        let Some(replay) = &mut cold.replay else { return };
        replay.asked = false;
        replay.all |= page.all;
        replay.more = page.more || replay.newest > page.upto;
        let (more, held_back) = (replay.more, std::mem::take(&mut replay.read));
        if !page.frames.is_empty() {
            cold.outbound.push_free(page.frames);
        }
        self.note_sent(now, ticket, &page.ids);
        if !page.more {
            // It was the last of its snapshot: what lies before that and was not on it is not for this socket.
            if let Some(feed) = self.feed(ticket) {
                feed.pass(page.upto);
            }
        }
        if !more {
            self.go_live(now, ticket);
        }
        for what in held_back {
            if !self.holds_back(ticket, &what) {
                let text = frames::notification_read(&what, self.users.unread(user), now.wall_ms);
                self.say(ticket, &text);
            }
        }
        self.flush_later(ticket);
        // The next page is asked for once this one is out; where nothing was on it, that is now.
        if more && page.ids.is_empty() {
            self.next_page(ticket);
        }
        self.ask_for_receipt(now, ticket);
        if !page.ids.is_empty() {
            self.effects.events.push(Event::Replayed { user, channel, ids: page.ids });
        }
        if phase == Phase::Loading {
            self.resume(now, ticket);
        }
    }

    /// The socket has drained: what follows, if it is still replaying.
    pub(super) fn next_page(&mut self, ticket: Ticket) {
        let (replay_max, page_rows) = (self.rules.replay_max, self.rules.page_rows);
        let oldest = NotificationId(0); // the page before this one says where it begins
        let Some(connection) = self.connection(ticket) else { return };
        let Some(feed) = connection.feed() else { return };
        let (user, channel, after) = (feed.user, feed.channel, feed.sent());
        let Some(replay) = connection.cold.as_mut().and_then(|cold| cold.replay.as_mut()) else { return };
        if replay.asked || !replay.more {
            return;
        }
        replay.asked = true;
        let from = From::After { id: after, all: replay.all };
        let backlog = Backlog { user, channel, from, mark: replay.mark, oldest, replay_max, page_rows };
        self.ask(ticket, Query::Backlog(backlog));
    }

    fn establish(&mut self, now: Now, ticket: Ticket, skipped: u64) {
        let Some(feed) = self.feed(ticket) else { return };
        let (user, channel) = (feed.user, feed.channel);
        let unread = self.users.unread(user);
        let ack = self.rules.ack.as_str();
        let text = frames::connection_established(channel, now.wall_ms, unread, ack, skipped);
        self.say(ticket, &text);
    }

    /// Every row up to the last that was passed is sent or was not to be: from here on, live.
    fn go_live(&mut self, now: Now, ticket: Ticket) {
        if let Some(connection) = self.connection(ticket) {
            if let Some(cold) = &mut connection.cold {
                cold.replay = None;
            }
            if let Some(feed) = connection.feed() {
                feed.phase = Phase::Live;
            }
        }
        self.feed_due(now, ticket);
    }

    /// The replay cannot be read now.
    pub(super) fn replay_failed(&mut self, now: Now, ticket: Ticket) {
        self.close_socket(now, ticket, close::TRY_AGAIN, "storage unavailable", CloseCause::Storage);
    }
}
