//! Owns a connection's way from accept to reap: its bytes, its stages, its deadlines. Never understands a request or a
//! frame. Enter at [`Hub::accept`].

use super::addresses::NOWHERE;
use super::connection::{Connection, Http, NEVER, Phase, State};
use super::deadlines::{Filed, PLACES_MAX};
use super::event::{Cause, CloseCause, Limit};
use super::{Entry, Hub, PIPELINE_BYTES, idle_ms, response, seconds};
use crate::api::reply::Reply;
use crate::api::routes::Door;
use crate::clock::Now;
use crate::http::{Reader, Stage, Terms};
use crate::storage::job::Ticket;
use crate::websocket::Session;
use std::net::IpAddr;

/// How often a connection with a deadline is looked at, however far it is: the end of a token is a moment of the wall
/// clock, which may jump; and a socket whose idle time-out became a ping need not be filed twice.
const LOOK_EVERY_MS: u64 = 25_000;
/// How long a connection that has ended for us may take to notice.
const LINGER_MS: u64 = 2_000;
/// How long what is queued may take to go out at the end.
const LAST_WORDS_MS: u64 = 5_000;
/// Connections beyond a limit that are told so at a time; beyond these, a connection is dropped.
const TURNED_AWAY_MAX: usize = 32;
/// Beyond the limit, too, kept for the operator: when all is full is when he looks.
const OPERATORS_MAX: usize = 8;
/// Connections beyond the limit: each takes a descriptor.
pub(super) const BEYOND_MAX: usize = TURNED_AWAY_MAX + OPERATORS_MAX;

impl<S> Hub<S> {
    /// A new connection; given back where there is no room even to say so.
    pub fn accept(&mut self, now: Now, socket: S, address: IpAddr, door: Door) -> Result<Ticket, S> {
        let crowded = door == Door::Public && self.is_crowded(address);
        let refusal = self.refusal_of(address, door, crowded);
        if let Some((limit, cause, status)) = refusal {
            self.limited(limit);
            self.refused(address, cause, status);
            if door == Door::Admin || self.turned_away >= TURNED_AWAY_MAX {
                return Err(socket);
            }
            self.turned_away += 1;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let until_ms = now.monotonic_ms().saturating_add(idle_ms(&self.rules.limits));
        let reader = Reader::default();
        let opened_us = now.monotonic_us;
        // Who is turned away is no connection of anybody's.
        let place = if refusal.is_some() { NOWHERE } else { self.addresses.enter(address) };
        let stage = Stage::Idle;
        let http = Http {
            reader,
            stage,
            until_ms,
            door,
            opened_us,
            crowded,
            client: None,
            admitted: None,
            refusal: None,
            waiting: None,
        };
        let connection = Connection {
            generation,
            address: place,
            opened_s: seconds(now),
            filed: Filed::NEVER,
            state: State::Http(Box::new(http)),
            cold: None,
        };
        let key = self.table.insert(Entry { connection, socket });
        let ticket = Ticket { key: key as u32, generation };
        self.schedule(now, ticket);
        match refusal {
            Some((Limit::Connections, ..)) => {
                let reply = Reply::unavailable("Too many connections.", 2 + self.jitter(ticket, 4));
                self.last_reply(now, ticket, None, reply);
            }
            Some(_) => self.last_reply(now, ticket, None, Reply::too_many(10)),
            None => {}
        }
        Ok(ticket)
    }

    fn is_crowded(&self, address: IpAddr) -> bool {
        let most = self.rules.limits.connections_per_ip;
        most > 0 && self.addresses.count(address) >= most
    }

    /// Why one more connection from there is turned away. A proxy speaks for many, and is not.
    fn refusal_of(&self, address: IpAddr, door: Door, crowded: bool) -> Option<(Limit, Cause, u16)> {
        let most = self.rules.connections.min(PLACES_MAX - BEYOND_MAX);
        let beyond = if door == Door::Public { 0 } else { OPERATORS_MAX };
        if self.table.len() - self.turned_away >= most + beyond {
            return Some((Limit::Connections, Cause::Connections, 503));
        }
        let is_proxy = self.rules.proxies.iter().any(|proxy| proxy.contains(address));
        (crowded && !is_proxy).then_some((Limit::ConnectionsPerIp, Cause::ConnectionsPerIp, 429))
    }

    /// Whether bytes of this connection are wanted now. If not, it is named in `effects.resume` once they are.
    pub fn wants_bytes(&mut self, ticket: Ticket) -> bool {
        self.connection(ticket).is_some_and(|connection| match &connection.state {
            State::Http(http) => http.waiting.is_none() && connection.queued() <= PIPELINE_BYTES,
            State::Feed(feed) => feed.phase != Phase::Loading,
            State::Echo => connection.queued() <= PIPELINE_BYTES,
            State::Closing { .. } => true,
        })
    }

    /// Bytes came.
    pub fn receive(&mut self, now: Now, ticket: Ticket, bytes: &mut [u8]) {
        let Some(connection) = self.connection(ticket) else { return };
        let mut own = connection.cold.as_mut().map(|cold| std::mem::take(&mut cold.input)).unwrap_or_default();
        if own.is_empty() {
            let (start, end) = self.drive(now, ticket, bytes);
            let rest = bytes.get(start..end).unwrap_or_default();
            if let Some(connection) = self.connection(ticket)
                && !rest.is_empty()
            {
                connection.cold().input = rest.to_vec();
            }
        } else {
            own.extend_from_slice(bytes);
            self.drive_own(now, ticket, own);
        }
        self.settle(ticket);
    }

    /// Goes on with what was left when the connection stopped taking bytes.
    pub(super) fn resume(&mut self, now: Now, ticket: Ticket) {
        let Some(connection) = self.connection(ticket) else { return };
        let own = connection.cold.as_mut().map(|cold| std::mem::take(&mut cold.input)).unwrap_or_default();
        if !own.is_empty() {
            self.drive_own(now, ticket, own);
        }
        self.effects.resume.push(ticket);
    }

    fn drive_own(&mut self, now: Now, ticket: Ticket, mut own: Vec<u8>) {
        let (start, end) = self.drive(now, ticket, &mut own);
        own.truncate(end);
        own.drain(..start.min(own.len()));
        // Or whoever always leaves a byte behind would keep the room of all that came before it.
        own.shrink_to(2 * own.len());
        if let Some(connection) = self.connection(ticket)
            && !own.is_empty()
        {
            connection.cold().input = own;
        }
    }

    /// Uses up what it can of `input`; gives back where the rest lies.
    fn drive(&mut self, now: Now, ticket: Ticket, input: &mut [u8]) -> (usize, usize) {
        let (mut start, mut end) = (0, input.len());
        loop {
            let before = start;
            let Some(connection) = self.connection(ticket) else { return (end, end) };
            match &connection.state {
                State::Http(_) => self.drive_http(now, ticket, input, &mut start, &mut end),
                State::Feed(feed) if feed.phase == Phase::Loading => return (start, end),
                State::Feed(_) | State::Echo => {
                    start += self.drive_frames(now, ticket, input.get_mut(start..end).unwrap_or_default());
                }
                State::Closing { .. } => return (end, end),
            }
            if start == before || start == end {
                break;
            }
        }
        // A state that came last may have to discard the rest.
        match self.connection(ticket).map(|connection| &connection.state) {
            None | Some(State::Closing { .. }) => (end, end),
            Some(_) => (start, end),
        }
    }

    /// The peer will send no more.
    pub fn peer_ended(&mut self, now: Now, ticket: Ticket) {
        let Some(connection) = self.connection(ticket) else { return };
        match &connection.state {
            // A half-closed client still gets what it asked for.
            State::Http(_) | State::Closing { shut: false, .. } if connection.queued() > 0 => {
                self.begin_closing(now, ticket);
                if let Some(State::Closing { ended, .. }) =
                    self.connection(ticket).map(|connection| &mut connection.state)
                {
                    *ended = true;
                }
            }
            _ => self.gone(now, ticket, CloseCause::PeerClosed),
        }
    }

    /// The socket is of no use any more.
    pub fn gone(&mut self, now: Now, ticket: Ticket, cause: CloseCause) {
        self.leave_index(now, ticket, cause, None);
        self.discard(ticket);
    }

    /// The same of a connection that is no socket of a user.
    fn discard(&mut self, ticket: Ticket) {
        if let Some(connection) = self.connection(ticket) {
            // Nothing is due any more, or it would be due for ever.
            connection.state = State::Closing { shut: true, ended: true, until_ms: NEVER };
        }
        self.effects.close.push(ticket);
    }

    /// After a flush: what follows from all, or not all, being on its way.
    pub fn flushed(&mut self, now: Now, ticket: Ticket) {
        let outbound_max = self.rules.limits.outbound;
        let Some(connection) = self.connection(ticket) else { return };
        let queued = connection.queued();
        let counted = connection.cold.as_ref().map_or(0, |cold| cold.outbound.counted());
        match &mut connection.state {
            // There is nothing to wait for.
            State::Closing { shut: false, ended: true, .. } if queued == 0 => self.discard(ticket),
            State::Closing { shut, until_ms, .. } if queued == 0 && !*shut => {
                (*shut, *until_ms) = (true, now.monotonic_ms() + LINGER_MS);
                self.effects.shut.push(ticket);
                self.schedule(now, ticket);
            }
            State::Http(http) if http.waiting.is_none() && queued <= PIPELINE_BYTES => self.resume(now, ticket),
            State::Echo if queued <= PIPELINE_BYTES => self.resume(now, ticket),
            State::Feed(_) if queued == 0 => self.feed_drained(now, ticket),
            State::Feed(_) if counted > outbound_max => self.reads_too_slowly(now, ticket),
            _ => {}
        }
        self.settle(ticket);
    }

    pub(super) fn expired(&mut self, now: Now, ticket: Ticket) {
        let Some(connection) = self.connection(ticket) else { return };
        match connection.state {
            State::Feed(_) => self.feed_due(now, ticket),
            State::Http(_) => self.request_due(now, ticket),
            State::Echo => {}
            State::Closing { .. } => self.discard(ticket),
        }
    }

    /// A stage of a request, or an answer on its way to the peer, has lasted too long.
    fn request_due(&mut self, now: Now, ticket: Ticket) {
        let never_idle = self.rules.limits.idle_timeout.is_zero();
        let Some(connection) = self.connection(ticket) else { return };
        let queued = connection.queued();
        let State::Http(http) = &mut connection.state else { return };
        let (stage, answered) = (http.stage, http.is_answered());
        let limit = match stage {
            Stage::Idle if never_idle && queued == 0 => {
                http.until_ms = NEVER; // its answer was taken
                return;
            }
            Stage::Idle if never_idle => Limit::BodyTimeout,
            Stage::Idle => Limit::IdleTimeout,
            Stage::Head => Limit::HeadTimeout,
            Stage::Body => Limit::BodyTimeout,
        };
        self.limited(limit);
        if queued > 0 {
            self.discard(ticket);
        } else if stage == Stage::Idle || answered {
            self.begin_closing(now, ticket);
        } else {
            let origin = self.origin_of_body(ticket);
            let address = self.client_or_peer(ticket);
            self.refused(address, Cause::Timeout, 408);
            self.last_reply(now, ticket, origin.as_deref(), Reply::faulty(408, "The request took too long."));
        }
    }

    /// An answer after which the connection ends. `origin`: where it is known.
    pub(super) fn last_reply(&mut self, now: Now, ticket: Ticket, origin: Option<&str>, reply: Reply) {
        let response = self.readable_from(origin.unwrap_or("*"), ticket, response(reply).closing());
        let date = self.date(now).to_owned();
        if let Some(connection) = self.connection(ticket) {
            connection.cold().outbound.push(|out| response.encode(out, &date, Terms::CLOSE));
            self.flush_later(ticket);
            self.begin_closing(now, ticket);
        }
    }

    /// Nothing more is taken; what is queued goes out, then the sending half ends, then the peer may notice.
    pub(super) fn begin_closing(&mut self, now: Now, ticket: Ticket) {
        let Some(connection) = self.connection(ticket) else { return };
        if matches!(connection.state, State::Closing { .. }) {
            return;
        }
        connection.state = State::Closing { shut: false, ended: false, until_ms: now.monotonic_ms() + LAST_WORDS_MS };
        let cold = connection.cold();
        cold.input = Vec::new();
        cold.session = Session::default();
        cold.message = Vec::new();
        cold.unacknowledged.clear();
        cold.replay = None;
        self.schedule(now, ticket);
        self.flush_later(ticket);
        self.effects.resume.push(ticket);
    }

    /// Files when a connection is to be looked at, unless it will be before.
    pub(super) fn schedule(&mut self, now: Now, ticket: Ticket) {
        let Some(connection) = self.connection(ticket) else { return };
        let due_ms = match connection.due_ms(now) {
            NEVER => return,
            due_ms => due_ms.min(now.monotonic_ms() + LOOK_EVERY_MS),
        };
        if connection.filed.is_after(due_ms) {
            connection.filed = Filed::at(due_ms);
            self.deadlines.file(due_ms, ticket.key);
        }
    }

    /// Gives memory back that a connection no longer needs.
    pub(super) fn settle(&mut self, ticket: Ticket) {
        if let Some(connection) = self.connection(ticket) {
            connection.thaw();
        }
    }

    /// Takes a connection out of the table: the end of a turn, and the only place where one goes.
    pub fn reap(&mut self, ticket: Ticket) -> Option<S> {
        self.entry(ticket)?;
        let entry = self.table.try_remove(ticket.key as usize)?;
        match entry.connection.address {
            NOWHERE => self.turned_away -= 1,
            place => self.addresses.leave(place),
        }
        Some(entry.socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hub::Rules;
    use crate::storage::job::Census;

    const NOW: Now = Now { monotonic_us: 5_000_000, wall_ms: 1_700_000_000_000 };

    fn hub(connections: usize, per_ip: u32) -> Hub<()> {
        let mut config = Config::default();
        config.limits.connections_per_ip = per_ip;
        config.server.trusted_proxies.clear();
        Hub::new(NOW, Rules::new(&config, None, connections), &Census::default(), 7)
    }

    /// Whether one more is let in; if not, he is in no hurry to leave.
    fn come(hub: &mut Hub<()>) -> Option<Ticket> {
        let ticket = hub.accept(NOW, (), [192, 0, 2, 1].into(), Door::Public).ok()?;
        matches!(hub.connection(ticket)?.state, State::Http(_)).then_some(ticket)
    }

    fn leave(hub: &mut Hub<()>, ticket: Ticket) {
        hub.gone(NOW, ticket, CloseCause::Reset);
        assert!(hub.reap(ticket).is_some());
    }

    #[test]
    fn whoever_is_turned_away_takes_nobodys_place() {
        for (connections, per_ip) in [(20, 0), (100, 20)] {
            let mut hub = hub(connections, per_ip);
            let open: Vec<Ticket> = (0..20).map(|_| come(&mut hub).unwrap()).collect();
            assert!((0..200).all(|_| come(&mut hub).is_none()));
            assert_eq!(hub.table.len(), 20 + TURNED_AWAY_MAX);
            open.into_iter().for_each(|ticket| leave(&mut hub, ticket));
            let again = (0..40).filter(|_| come(&mut hub).is_some()).count();
            assert_eq!(again, 20, "{connections} connections, {per_ip} an address");
            let all: Vec<Ticket> = hub
                .table
                .iter()
                .map(|(key, entry)| Ticket { key: key as u32, generation: entry.connection.generation })
                .collect();
            all.into_iter().for_each(|ticket| leave(&mut hub, ticket));
            assert_eq!((hub.turned_away, hub.addresses.connections()), (0, 0));
        }
    }

    #[test]
    fn the_operator_gets_in_where_all_is_full() {
        let mut hub = hub(2, 0);
        assert_eq!((0..100).filter(|_| come(&mut hub).is_some()).count(), 2);
        let mut look = || hub.accept(NOW, (), [192, 0, 2, 1].into(), Door::Admin).is_ok();
        assert_eq!((0..20).filter(|_| look()).count(), OPERATORS_MAX);
    }
}
