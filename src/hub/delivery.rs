//! Owns what follows from outcomes: who is answered, which sockets hear what, how counts move. Never tells what was not
//! committed first. Enter at [`Hub::committed`] and [`Hub::answered`].

use super::connection::Phase;
use super::event::{CloseCause, Event, Sent};
use super::{Hub, Seen, seconds};
use crate::api::frames::{self, Complaint, WhatWasRead};
use crate::api::reply::Reply;
use crate::clock::Now;
use crate::matching::UserId;
use crate::notification::{Channel, Notification};
use crate::storage::job::{Answer, Change, Fewer, Outcome, Standing, Ticket};
use crate::websocket::{close, frame};
use std::rc::Rc;

impl<S> Hub<S> {
    /// One commit, in order.
    pub fn committed(&mut self, now: Now, outcomes: Vec<Outcome>, took_us: u64) {
        let mut failures = failures(&outcomes);
        let why = failures.next().map(str::to_owned);
        let failed = usize::from(why.is_some()) + failures.count();
        self.effects.events.push(Event::Committed { jobs: outcomes.len(), failed, why, took_us });
        self.follow(now, outcomes);
    }

    /// Answers without a commit.
    pub fn answered(&mut self, now: Now, outcomes: Vec<Outcome>) {
        let second = seconds(now);
        if let Some(why) = failures(&outcomes).next().filter(|_| self.failed_at_s != second) {
            self.failed_at_s = second;
            self.effects.events.push(Event::AnswerFailed { why: why.to_owned() });
        }
        self.follow(now, outcomes);
    }

    /// What everybody hears follows from the outcome, whether or not the asker is still there.
    fn follow(&mut self, now: Now, outcomes: Vec<Outcome>) {
        let sent_before = self.effects.sent.len();
        for outcome in outcomes {
            self.outstanding = self.outstanding.saturating_sub(usize::from(outcome.ours));
            for change in outcome.changes {
                self.changed(now, change, outcome.asked_us);
            }
            match (outcome.ticket, outcome.answer) {
                (None, Answer::RetainAfter(id)) if outcome.ours && self.drain.is_none() => self.retain(now, id),
                (Some(Ticket::NOBODY), Answer::Failed(_)) => self.oldest_unknown(),
                (_, Answer::OldestWaiting { found, upto }) => self.oldest_is(found, upto),
                (Some(ticket), answer) => self.answer(now, ticket, answer),
                (None, _) => {}
            }
        }
        // Behind all of it: the Ping names the last row of a burst.
        for at in sent_before..self.effects.sent.len() {
            if let Some((ticket, _)) = self.effects.sent.get(at) {
                self.ask_for_receipt(now, *ticket);
            }
        }
    }

    /// What somebody outside the hub answers to a request that waits.
    pub fn tell(&mut self, now: Now, ticket: Ticket, reply: Reply) {
        self.answer(now, ticket, Answer::Reply(reply));
    }

    fn answer(&mut self, now: Now, ticket: Ticket, answer: Answer) {
        let Some(connection) = self.connection(ticket) else { return };
        let is_socket = connection.feed().is_some();
        match (answer, is_socket) {
            (Answer::Reply(reply), false) => self.answer_waiting(now, ticket, reply),
            (Answer::Credentials { candidates, refusal_rounds }, false) => {
                self.check_password(now, ticket, candidates, refusal_rounds);
            }
            (Answer::Tokens { user, family, token, made_ms, expires_ms }, false) => {
                self.issue(now, ticket, user, (family, token), made_ms, expires_ms);
            }
            (Answer::Failed(_), false) => {
                let seconds = 1 + self.jitter(ticket, 3);
                self.answer_waiting(now, ticket, Reply::unavailable("Storage is unavailable.", seconds));
            }
            (Answer::Backlog(page), true) => self.page(now, ticket, page),
            (Answer::Marked { missing }, true) if !missing.is_empty() => {
                self.complain(ticket, Complaint::NotFound, &missing);
            }
            (Answer::WasSent { uuid, row, was_settled }, true) => self.was_sent(now, ticket, row, was_settled, uuid),
            (Answer::NoBacklog(_), true) => self.replay_failed(now, ticket),
            (Answer::Failed(_), true) => self.complain(ticket, Complaint::Unavailable, &[]),
            _ => {}
        }
        self.settle(ticket);
    }

    fn changed(&mut self, now: Now, change: Change, asked_us: u64) {
        match change {
            Change::Created(notification) => self.created(now, &notification, asked_us),
            Change::Read { user, what, fewer } => self.read(now, user, what, fewer),
            Change::Delivered { user, channel, rows, waiting, at_ms } => {
                self.users.settled(user, channel, Fewer { unread: 0, waiting });
                self.effects.events.push(Event::Delivered { user, channel, rows, at_ms });
            }
            Change::Skipped { user, channel, count } => {
                self.users.settled(user, channel, Fewer { unread: 0, waiting: count });
                self.effects.events.push(Event::Skipped { user, channel, count });
            }
            Change::Settled { user, channel, fewer } => self.users.settled(user, channel, fewer),
            Change::Standing { user, standing } => {
                self.users.set_standing(user, standing);
                if standing == Standing::Deleted {
                    self.effects.seen.push(Seen::Deleted(user));
                }
                if standing != Standing::Active {
                    for ticket in self.tickets_of(user).collect::<Vec<_>>() {
                        self.close_socket(now, ticket, close::DEACTIVATED, "user inactive", CloseCause::Deactivated);
                    }
                }
            }
            Change::Known { user } => self.effects.seen.push(Seen::Stored(user)),
            Change::Forgotten { user } => self.users.forget(user),
            Change::Revoked { user } => self.effects.events.push(Event::Revoked { user }),
        }
    }

    /// Into every live socket of the user's channel, encoded once; one that still replays finds it on a page.
    fn created(&mut self, now: Now, n: &Notification, asked_us: u64) {
        self.committed = self.committed.max(n.id);
        if self.users.totals().1 == 0 {
            self.oldest.alone(n);
        }
        self.users.created(n.user, n.channel, n.id);
        let mut encoded: Option<Rc<[u8]>> = None;
        let mut sockets = 0;
        let tickets: Vec<Ticket> = self.tickets_of(n.user).collect();
        for ticket in tickets.iter().copied() {
            let Some(connection) = self.connection(ticket) else { continue };
            let Some(feed) = connection.feed().filter(|feed| feed.channel == n.channel) else { continue };
            if feed.phase != Phase::Live {
                if let Some(replay) = connection.cold.as_mut().and_then(|cold| cold.replay.as_mut()) {
                    replay.newest = n.id;
                }
                continue;
            }
            if n.id <= feed.sent() {
                continue;
            }
            let outbound = &mut connection.cold().outbound;
            if tickets.len() == 1 {
                outbound.push(|out| frame::push_text(out, frames::notification(n).as_bytes()));
            } else {
                let bytes = encoded.get_or_insert_with(|| frame::text(frames::notification(n).as_bytes()).into());
                outbound.push_shared(bytes);
            }
            sockets += 1;
            self.effects.sent.push((ticket, Sent { id: n.id, user: n.user, channel: n.channel, asked_us }));
            self.note_sent(now, ticket, &[n.id]);
            self.flush_later(ticket);
        }
        let (id, uuid, user, channel) = (n.id, n.uuid, n.user, n.channel);
        let took_us = now.since(asked_us);
        self.effects.events.push(Event::Created { id, uuid, user, channel, sockets, took_us });
    }

    /// To all sockets of the user, both channels; where a page is to come that may bring what was read, behind it.
    fn read(&mut self, now: Now, user: UserId, what: WhatWasRead, fewer: [Fewer; 2]) {
        for (channel, fewer) in Channel::ALL.into_iter().zip(fewer) {
            self.users.settled(user, channel, fewer);
        }
        let tickets: Vec<Ticket> = self.tickets_of(user).collect();
        if !tickets.is_empty() {
            let text = frames::notification_read(&what, self.users.unread(user), now.wall_ms);
            for ticket in tickets {
                if !self.holds_back(ticket, &what) {
                    self.say(ticket, &text);
                }
            }
        }
        let count = fewer.iter().map(|fewer| fewer.unread).sum();
        let undelivered = fewer.iter().map(|fewer| fewer.waiting).sum();
        self.effects.events.push(Event::Read { user, what, count, undelivered });
    }
}

fn failures(outcomes: &[Outcome]) -> impl Iterator<Item = &str> {
    outcomes.iter().filter_map(|outcome| match &outcome.answer {
        Answer::Failed(why) | Answer::NoBacklog(why) => Some(why.as_str()),
        _ => None,
    })
}
