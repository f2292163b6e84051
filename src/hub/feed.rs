//! Owns a socket's conversation after the upgrade: messages, pings, receipts, the end of its token, its place in the
//! index. Never encodes a message itself (`api::frames` does). Enter at `drive_frames` and `feed_due`.

use super::connection::{Feed, NEVER, NOBODY, Phase, State};
use super::event::{CloseCause, Event, Limit};
use super::outbound::SLOW_LINK;
use super::rates::Rate;
use super::sends::{Step, What};
use super::{Entry, Hub, PIPELINE_BYTES, ms, seconds};
use crate::api::command::{Command, Query};
use crate::api::frames::{self, Complaint};
use crate::api::message::{self, Message};
use crate::auth::Caller;
use crate::clock::Now;
use crate::config::Ack;
use crate::matching::UserId;
use crate::notification::NotificationId;
use crate::storage::job::Ticket;
use crate::websocket::{self, Event as Said, Session, close, frame};
use slab::Slab;
use std::collections::VecDeque;
use uuid::Uuid;

/// Messages turned away in a row before the socket is closed.
const REFUSALS_MAX: u8 = 100;
/// Rows remembered as sent and not acknowledged; older ones are simply sent again at the next connect.
const UNACKNOWLEDGED_MAX: usize = 10_000;
/// The most of that: the peer may have gone.
const WAY_MAX_MS: u64 = 120_000;
/// Messages of the echo server.
const ECHO_MESSAGE_MAX: usize = 16 * 1024 * 1024;

impl<S> Hub<S> {
    /// Takes frames out of `input`; gives back how many bytes are used up.
    pub(super) fn drive_frames(&mut self, now: Now, ticket: Ticket, input: &mut [u8]) -> usize {
        let Some(connection) = self.connection(ticket) else { return input.len() };
        let echo = matches!(connection.state, State::Echo);
        let cold = connection.cold.as_mut();
        let (mut session, mut message) =
            cold.map(|cold| (std::mem::take(&mut cold.session), std::mem::take(&mut cold.message))).unwrap_or_default();
        let limits = websocket::Limits { message: if echo { ECHO_MESSAGE_MAX } else { self.rules.limits.ws_message } };
        self.heard(now, ticket);
        let mut used = 0;
        loop {
            let Some(connection) = self.connection(ticket) else { return input.len() };
            match &connection.state {
                State::Echo if connection.queued() > PIPELINE_BYTES => break,
                State::Feed(_) | State::Echo => {}
                State::Http(_) | State::Closing { .. } => return input.len(),
            }
            match session.read(input.get_mut(used..).unwrap_or_default(), &mut message, &limits) {
                Ok((0, None)) => break,
                Ok((count, said)) => {
                    used += count;
                    match said {
                        None => {}
                        Some(said) if echo => self.echo(now, ticket, said),
                        Some(said) => self.hear(now, ticket, said),
                    }
                }
                Err(fault) => {
                    if fault.close_code() == close::TOO_BIG {
                        self.limited(Limit::WsMessage);
                    }
                    self.close_socket(now, ticket, fault.close_code(), fault.reason(), CloseCause::Protocol);
                    return input.len();
                }
            }
        }
        if session != Session::default()
            && let Some(connection) = self.connection(ticket)
        {
            let cold = connection.cold();
            (cold.session, cold.message) = (session, message);
        }
        used
    }

    /// Any byte is a sign of life, but only a Pong answers a Ping.
    fn heard(&mut self, now: Now, ticket: Ticket) {
        let silent_ms = self.silent_at_ms(now);
        if let Some(feed) = self.feed(ticket).filter(|feed| !feed.awaits_pong) {
            feed.silent_ms = silent_ms;
        }
    }

    /// When a socket that was heard of now will have been silent for too long.
    pub(super) fn silent_at_ms(&self, now: Now) -> u64 {
        match ms(self.rules.limits.ping_interval) {
            0 => NEVER,
            interval_ms => now.monotonic_ms().saturating_add(interval_ms),
        }
    }

    fn echo(&mut self, now: Now, ticket: Ticket, said: Said<'_>) {
        let Some(connection) = self.connection(ticket) else { return };
        let outbound = &mut connection.cold().outbound;
        match said {
            Said::Text(text) => outbound.push(|out| frame::push_text(out, text.as_bytes())),
            Said::Binary(bytes) => outbound.push(|out| frame::push_binary(out, bytes)),
            Said::Ping(payload) => outbound.push(|out| frame::push_pong(out, payload)),
            Said::Pong(_) => {}
            Said::Close { code, .. } => {
                outbound.push(|out| frame::push_close_answer(out, code));
                self.begin_closing(now, ticket);
            }
        }
        self.flush_later(ticket);
    }

    fn hear(&mut self, now: Now, ticket: Ticket, said: Said<'_>) {
        match said {
            Said::Text(text) => self.hear_text(now, ticket, text),
            Said::Binary(_) => self.close_socket(now, ticket, close::UNSUPPORTED, "text only", CloseCause::Binary),
            Said::Ping(payload) => {
                if self.control_is_allowed(now, ticket)
                    && let Some(connection) = self.connection(ticket)
                {
                    connection.cold().outbound.push(|out| frame::push_pong(out, payload));
                    self.flush_later(ticket);
                }
            }
            Said::Pong(payload) => self.hear_pong(now, ticket, payload),
            Said::Close { code, .. } => {
                if let Some(connection) = self.connection(ticket) {
                    connection.cold().outbound.push(|out| frame::push_close_answer(out, code));
                }
                self.leave_index(now, ticket, CloseCause::ClosedByClient, code);
                self.begin_closing(now, ticket);
            }
        }
    }

    /// Any Pong is life; only the exact echo of the Ping under way is a receipt.
    fn hear_pong(&mut self, now: Now, ticket: Ticket, payload: &[u8]) {
        let (nonce, silent_ms) = (self.nonce(ticket), self.silent_at_ms(now));
        let Some(connection) = self.connection(ticket) else { return };
        if let Some(cold) = &mut connection.cold {
            cold.outbound.heard();
        }
        let Some(feed) = connection.feed() else { return };
        (feed.awaits_pong, feed.silent_ms) = (false, silent_ms);
        let echoed = feed.pinged().filter(|upto| ping_payload(nonce, *upto) == payload);
        let Some(upto) = echoed else {
            self.control_is_allowed(now, ticket);
            return;
        };
        feed.set_pinged(false);
        self.acknowledged(now, ticket, upto);
        self.ask_for_receipt(now, ticket);
    }

    /// The device has everything up to this row that this socket was sent.
    fn acknowledged(&mut self, now: Now, ticket: Ticket, upto: NotificationId) {
        let Some(connection) = self.connection(ticket) else { return };
        let Some(user) = connection.feed().map(|feed| feed.user) else { return };
        let Some(cold) = &mut connection.cold else { return };
        let count = cold.unacknowledged.partition_point(|id| *id <= upto);
        let ids: Vec<NotificationId> = cold.unacknowledged.drain(..count).collect();
        if !ids.is_empty() {
            self.note_steps(now, ticket, &ids, What::Acknowledged);
            self.submit(now, None, Command::MarkDelivered { user, ids }, None);
        }
    }

    fn note_steps(&mut self, now: Now, socket: Ticket, ids: &[NotificationId], what: What) {
        for id in ids {
            self.sends.note(Step { id: *id, at_ms: now.wall_ms, socket, what });
        }
    }

    fn control_is_allowed(&mut self, now: Now, ticket: Ticket) -> bool {
        let rate = Rate::new(self.rules.limits.ws_control_per_second, self.rules.limits.ws_control_per_second);
        let Some(feed) = self.feed(ticket) else { return false };
        let allowed = feed.controls.take(rate, now.monotonic_us).is_ok();
        if !allowed {
            self.limited(Limit::WsControlPerSecond);
            self.close_socket(now, ticket, close::POLICY, "too many control frames", CloseCause::ControlRate);
        }
        allowed
    }

    fn hear_text(&mut self, now: Now, ticket: Ticket, text: &str) {
        let limits = &self.rules.limits;
        let rate = Rate::new(limits.ws_messages_per_second, limits.ws_messages_burst);
        let Some(feed) = self.feed(ticket) else { return };
        if feed.messages.take(rate, now.monotonic_us).is_err() {
            feed.refusals = feed.refusals.saturating_add(1);
            let refusals = feed.refusals;
            self.limited(Limit::WsMessagesPerSecond);
            if refusals >= REFUSALS_MAX {
                return self.close_socket(now, ticket, close::POLICY, "too many messages", CloseCause::MessageRate);
            }
            return self.complain(ticket, Complaint::RateLimited, &[]);
        }
        feed.refusals = 0;
        let user = feed.user;
        match message::parse(text) {
            Err(complaint) => self.complain(ticket, complaint, &[]),
            Ok(Message::Ping) => self.say(ticket, &frames::pong(now.wall_ms)),
            Ok(Message::Probe) => {
                let answered = self.feed(ticket).is_some_and(|feed| !feed.awaits_pong);
                self.say(ticket, &frames::probed(now.wall_ms, answered));
            }
            Ok(Message::Auth(token)) => self.renew(now, ticket, user, &token),
            Ok(_) if self.is_overloaded() => self.complain(ticket, Complaint::Unavailable, &[]),
            Ok(Message::MarkRead { ids, many }) => {
                self.submit(now, Some(ticket), Command::MarkRead { by: user, ids, many }, None);
            }
            Ok(Message::MarkAllRead) => self.submit(now, Some(ticket), Command::MarkAllRead { by: user }, None),
            Ok(Message::Ack(uuid)) => self.hear_ack(now, ticket, uuid),
        }
    }

    /// An explicit receipt. A row not under way any more is looked up: it may have been acknowledged already.
    fn hear_ack(&mut self, now: Now, ticket: Ticket, uuid: Uuid) {
        let Some(connection) = self.connection(ticket) else { return };
        let open_ms = now.monotonic_ms().saturating_sub(u64::from(connection.opened_s) * 1_000);
        let Some(feed) = connection.feed() else { return };
        let (user, channel, last) = (feed.user, feed.channel, feed.sent());
        let since_ms = (!feed.whole).then(|| now.wall_ms.saturating_sub_unsigned(open_ms));
        let Some(first) = feed.first_sent() else {
            return self.complain(ticket, Complaint::NotFound, &[uuid]);
        };
        self.ask(ticket, Query::WasSent { user, channel, uuid, first, last, since_ms });
    }

    /// `row`: of this user and channel, and no older than the first that was sent here, nor newer than the last.
    pub(super) fn was_sent(
        &mut self,
        now: Now,
        ticket: Ticket,
        row: Option<NotificationId>,
        was_settled: bool,
        uuid: Uuid,
    ) {
        let Some(connection) = self.connection(ticket) else { return };
        let none = VecDeque::new();
        let owed = connection.cold.as_ref().map_or(&none, |cold| &cold.unacknowledged);
        // A receipt is for all up to its row: where one before it is owed and it is not, it was never sent here.
        let is_over = |row: &NotificationId| !was_settled && owed.front().is_none_or(|first| first > row);
        match row.filter(|row| owed.binary_search(row).is_ok() || is_over(row)) {
            Some(row) => self.acknowledged(now, ticket, row),
            None => self.complain(ticket, Complaint::NotFound, &[uuid]),
        }
    }

    /// A fresh token of the same user lets the socket live on.
    fn renew(&mut self, now: Now, ticket: Ticket, user: UserId, token: &str) {
        match self.verify_once(now, token) {
            Ok(claims) if claims.caller == Caller::User(user) => {
                if let Some(feed) = self.feed(ticket) {
                    feed.expires_ms = claims.expires_at_ms;
                    feed.warned = false;
                }
                self.say(ticket, &frames::auth_ok(claims.expires_at_ms));
                self.feed_due(now, ticket);
            }
            _ => self.complain(ticket, Complaint::InvalidToken, &[]),
        }
    }

    pub(super) fn complain(&mut self, ticket: Ticket, complaint: Complaint, which: &[Uuid]) {
        self.say(ticket, &frames::error(complaint, which));
    }

    /// Queues a text message for one socket.
    pub(super) fn say(&mut self, ticket: Ticket, text: &str) {
        if let Some(connection) = self.connection(ticket) {
            connection.cold().outbound.push(|out| frame::push_text(out, text.as_bytes()));
            self.flush_later(ticket);
        }
    }

    /// The kernel takes no more, and more is left than one slow client may keep waiting here.
    pub(super) fn reads_too_slowly(&mut self, now: Now, ticket: Ticket) {
        self.limited(Limit::Outbound);
        self.close_socket(now, ticket, close::TRY_AGAIN, "reads too slowly", CloseCause::SlowReader);
    }

    /// Remembers a row as sent on this socket.
    pub(super) fn note_sent(&mut self, now: Now, ticket: Ticket, ids: &[NotificationId]) {
        let live = self.feed(ticket).is_some_and(|feed| feed.phase == Phase::Live);
        self.note_steps(now, ticket, ids, if live { What::Sent } else { What::Replayed });
        let Some(connection) = self.connection(ticket) else { return };
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return };
        if let Some(feed) = connection.feed() {
            feed.note_sent(*first, *last);
            feed.told = feed.told.saturating_add(u16::try_from(ids.len()).unwrap_or(u16::MAX));
        }
        let list = &mut connection.cold().unacknowledged;
        list.extend(ids);
        let surplus = list.len().saturating_sub(UNACKNOWLEDGED_MAX);
        list.drain(..surplus);
    }

    /// After notifications: a Ping that names the last one, unless one is under way.
    pub(super) fn ask_for_receipt(&mut self, now: Now, ticket: Ticket) {
        if self.rules.ack != Ack::Pong {
            return;
        }
        let owes = self
            .connection(ticket)
            .and_then(|connection| connection.cold.as_ref())
            .is_some_and(|cold| !cold.unacknowledged.is_empty());
        if owes && self.feed(ticket).is_some_and(|feed| feed.pinged().is_none()) {
            self.ping(now, ticket);
        }
    }

    pub(super) fn ping(&mut self, now: Now, ticket: Ticket) {
        let (nonce, mode) = (self.nonce(ticket), self.rules.ack);
        let pong_timeout_ms = ms(self.rules.limits.pong_timeout);
        let Some(connection) = self.connection(ticket) else { return };
        let Some(feed) = connection.feed() else { return };
        let (upto, awaits_pong) = (feed.sent(), feed.awaits_pong);
        feed.set_pinged(mode == Ack::Pong);
        if !awaits_pong {
            // What went before it comes first, over a slow link, too; the kernel may hold most of it.
            let way_ms = (connection.cold().outbound.ask() / SLOW_LINK) as u64 * 1_000;
            let due_ms = now.monotonic_ms().saturating_add(pong_timeout_ms).saturating_add(way_ms.min(WAY_MAX_MS));
            if let Some(feed) = connection.feed() {
                (feed.awaits_pong, feed.silent_ms) = (true, due_ms);
            }
        }
        connection.cold().outbound.push(|out| match mode {
            Ack::Pong => frame::push_ping(out, &ping_payload(nonce, upto)),
            Ack::Client | Ack::Written => frame::push_ping(out, &[]),
        });
        self.flush_later(ticket);
        self.schedule(now, ticket);
    }

    /// Everything queued is with the kernel.
    pub(super) fn feed_drained(&mut self, now: Now, ticket: Ticket) {
        if self.rules.ack == Ack::Written
            && let Some(upto) = self.feed(ticket).map(|feed| feed.sent())
        {
            self.acknowledged(now, ticket, upto);
        }
        self.next_page(ticket);
    }

    /// What has come due on a socket.
    pub(super) fn feed_due(&mut self, now: Now, ticket: Ticket) {
        let silent_ms = self.silent_at_ms(now);
        let Some(feed) = self.feed(ticket) else { return };
        if now.wall_ms >= feed.expires_ms {
            return self.close_socket(now, ticket, close::TOKEN_EXPIRED, "token expired", CloseCause::TokenExpired);
        }
        let is_silent = feed.silent_ms <= now.monotonic_ms();
        if is_silent && feed.phase == Phase::Loading {
            // It takes no bytes: a Pong would not be heard.
            feed.silent_ms = silent_ms;
            return self.schedule(now, ticket);
        }
        if is_silent && feed.awaits_pong {
            self.limited(Limit::PongTimeout);
            return self.gone(now, ticket, CloseCause::PongTimeout);
        }
        if now.wall_ms >= feed.token_due_ms() {
            feed.warned = true;
            let expires_ms = feed.expires_ms;
            self.say(ticket, &frames::token_expiring(expires_ms));
        }
        if is_silent {
            self.ping(now, ticket);
        }
        self.schedule(now, ticket);
    }

    /// Says goodbye with a code, once what is queued is out.
    pub(super) fn close_socket(&mut self, now: Now, ticket: Ticket, code: u16, reason: &str, cause: CloseCause) {
        self.leave_index(now, ticket, cause, Some(code));
        if let Some(connection) = self.connection(ticket)
            && matches!(connection.state, State::Feed(_) | State::Echo)
        {
            connection.cold().outbound.push(|out| frame::push_close(out, Some(code), reason));
            self.begin_closing(now, ticket);
        }
    }

    pub(super) fn enter_index(&mut self, ticket: Ticket) {
        let Some(user) = self.feed(ticket).map(|feed| feed.user) else { return };
        let head = self.index.head(user, user_at(&self.table));
        self.index.set_head(user, ticket.key, user_at(&self.table));
        if let Some(feed) = self.feed(ticket) {
            feed.next = head;
        }
        self.neighbour(head, |feed| feed.previous = ticket.key);
        self.feeds += 1;
    }

    /// Takes a socket out of the index, once, and says so.
    pub(super) fn leave_index(&mut self, now: Now, ticket: Ticket, cause: CloseCause, code: Option<u16>) {
        let Some(connection) = self.connection(ticket) else { return };
        let open_s = seconds(now).saturating_sub(connection.opened_s);
        let owed = connection.cold.as_ref().map_or(0, |cold| cold.unacknowledged.len());
        let Some(feed) = connection.feed() else { return };
        if feed.previous == LEFT {
            return;
        }
        let (user, channel, previous, next) = (feed.user, feed.channel, feed.previous, feed.next);
        let sent = feed.told;
        feed.previous = LEFT;
        if previous == NOBODY {
            self.index.set_head(user, next, user_at(&self.table));
        } else {
            self.neighbour(previous, |feed| feed.next = next);
        }
        self.neighbour(next, |feed| feed.previous = previous);
        self.feeds -= 1;
        let seconds = open_s.into();
        self.effects.events.push(Event::Closed { user, channel, cause, code, seconds, sent, owed });
    }

    fn neighbour(&mut self, key: u32, change: impl FnOnce(&mut Feed)) {
        if key != NOBODY
            && let Some(feed) = self.table.get_mut(key as usize).and_then(|entry| entry.connection.feed())
        {
            change(feed);
        }
    }

    /// How many sockets a user has open, counted up to `most`.
    pub(super) fn sockets_of(&self, user: UserId, most: u32) -> u32 {
        self.tickets_of(user).take(most as usize).count() as u32
    }

    /// A user's sockets, the newest first.
    pub(super) fn tickets_of(&self, user: UserId) -> impl Iterator<Item = Ticket> {
        let place = |key: u32| {
            let connection = &self.table.get(key as usize)?.connection;
            match &connection.state {
                State::Feed(feed) => Some((Ticket { key, generation: connection.generation }, feed.next)),
                _ => None,
            }
        };
        let head = self.index.head(user, user_at(&self.table));
        std::iter::successors(place(head), move |(_, next)| place(*next)).map(|(ticket, _)| ticket)
    }
}

/// Whose socket stands at a place.
fn user_at<S>(table: &Slab<Entry<S>>) -> impl Fn(u32) -> UserId {
    |key| match table.get(key as usize).map(|entry| &entry.connection.state) {
        Some(State::Feed(feed)) => feed.user,
        _ => UserId(0), // nobody's
    }
}

/// In `previous`: out of the index already.
const LEFT: u32 = u32::MAX - 1;

/// What a Ping carries: whose it is, and the last row before it. 16 bytes.
fn ping_payload(nonce: u64, upto: NotificationId) -> [u8; 16] {
    let mut payload = [0; 16];
    let (whose, row) = payload.split_at_mut(8);
    whose.copy_from_slice(&nonce.to_be_bytes());
    row.copy_from_slice(&upto.0.to_be_bytes());
    payload
}
