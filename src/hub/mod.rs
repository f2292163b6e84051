//! Owns who is connected and what follows from what: it takes bytes, outcomes and `now`, and leaves a list of effects.
//! Never does I/O: it cannot touch the `S` that lies beside each connection. Enter at [`Hub`].
#![cfg_attr(not(test), warn(clippy::indexing_slicing))] // hostile bytes pass here

mod addresses;
mod admission;
mod connection;
mod deadlines;
mod delivery;
mod drain;
pub mod event;
mod feed;
mod idempotency;
mod lifecycle;
mod oldest;
mod outbound;
mod rates;
mod replay;
mod requests;
mod sends;
mod sign_in;
#[cfg(test)]
mod tests;
mod user_index;
mod users;

pub use outbound::Outbound;
pub use sign_in::{Issuer, PasswordTask};

use crate::api::command::{Command, Query};
use crate::api::reply::Reply;
use crate::api::routes::Resource;
use crate::auth::{TokenMemory, Verifier};
use crate::clock::Now;
use crate::config::{Ack, Config, Limits, Network};
use crate::http::{Response, http_date};
use crate::matching::UserId;
use crate::notification::NotificationId;
use crate::storage::job::{Ask, Census, Errand, Job, Ticket};
use addresses::Addresses;
use connection::{Connection, Feed, NEVER, Phase, State};
use deadlines::{Deadlines, Filed};
use drain::Drain;
use event::{Cause, Event, Limit, Sent};
use lifecycle::BEYOND_MAX;
use oldest::OldestWaiting;
use rates::{Rate, Rates};
use sends::Sends;
use sign_in::Logins;
use slab::Slab;
use std::net::IpAddr;
use std::time::Duration;
use user_index::UserIndex;
use users::Users;

/// What the hub obeys: settings, resolved. A reload replaces them whole.
#[derive(Debug)]
pub struct Rules {
    pub limits: Limits,
    /// Connections, with what the descriptor limit allows put in.
    pub connections: usize,
    /// `None`: an echo server, which knows nobody.
    pub verifier: Option<Verifier>,
    /// `None`: nobody signs in here.
    pub issuer: Option<Issuer>,
    pub origins: Vec<String>,
    pub proxies: Vec<Network>,
    pub ack: Ack,
    pub replay_max: u32,
    /// Rows on a page of a replay.
    pub page_rows: usize,
    pub retention: Duration,
    pub drain: Duration,
}

impl Rules {
    #[must_use]
    pub fn new(config: &Config, verifier: Option<Verifier>, connections: usize) -> Self {
        Self {
            limits: config.limits,
            connections,
            verifier,
            issuer: Issuer::new(&config.auth),
            origins: config.server.allowed_origins.clone(),
            proxies: config.server.trusted_proxies.clone(),
            ack: config.delivery.ack,
            replay_max: config.delivery.replay_max,
            page_rows: 100,
            retention: config.storage.retention,
            drain: config.server.drain,
        }
    }
}

/// What the turn has to carry out.
#[derive(Default)]
pub struct Effects {
    pub errands: Vec<Errand>,
    pub reads: Vec<Ask>,
    /// Passwords to be hashed: each takes a third of a second.
    pub hash: Vec<PasswordTask>,
    pub flush: Vec<Ticket>,
    /// Everything is sent: end the sending half.
    pub shut: Vec<Ticket>,
    pub close: Vec<Ticket>,
    /// These take bytes again.
    pub resume: Vec<Ticket>,
    /// What the reactor answers: it knows its own numbers.
    pub own_pages: Vec<(Ticket, Resource)>,
    /// Live notifications queued in this turn, one a socket.
    pub sent: Vec<(Ticket, Sent)>,
    pub events: Vec<Event>,
    /// Who has come or gone: for whoever listens to others on behalf of all users.
    pub seen: Vec<Seen>,
}

/// What is news about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// He has a row: in the directory, or as a visitor.
    Stored(UserId),
    /// His socket was opened; whether he has a row is not known here.
    Connected(UserId),
    Deleted(UserId),
}

struct Entry<S> {
    connection: Connection,
    socket: S,
}

/// Connections that room is asked for at the start: addresses only, the kernel gives memory as it is used.
const ROOM_MAX: usize = 1 << 20;
/// Bytes queued beyond which an HTTP connection takes no further request.
const PIPELINE_BYTES: usize = 64 * 1024;
/// Housekeeping of old rows.
const RETAIN_EVERY_MS: u64 = 60 * 60 * 1_000;

pub struct Hub<S> {
    table: Slab<Entry<S>>,
    /// How many of them were refused as they came, and are on their way out.
    turned_away: usize,
    generation: u32,
    users: Users,
    index: UserIndex,
    deadlines: Deadlines,
    pub effects: Effects,
    rules: Rules,
    tokens: TokenMemory,
    addresses: Addresses,
    requests: Rates<Asker>,
    logins: Logins,
    handshakes: (Rate, u64),
    feeds: usize,
    /// Errands and questions that are under way.
    outstanding: usize,
    /// PBKDF2 rounds that are under way or wait.
    hashing: u64,
    /// The newest row whose outcome came.
    committed: NotificationId,
    failing: Option<String>,
    /// Monotonic seconds when a failed answer was last told of.
    failed_at_s: u32,
    sends: Sends,
    oldest: OldestWaiting,
    /// Why the log of several nodes cannot be written or read.
    log_failing: Option<String>,
    retain_at_ms: u64,
    drain: Option<Drain>,
    date: (i64, String),
    /// What nonces are made from.
    seed: u64,
}

/// Whom a request counts for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    User(UserId),
    Address(IpAddr),
}

impl<S> Hub<S> {
    #[must_use]
    pub fn new(now: Now, rules: Rules, census: &Census, seed: u64) -> Self {
        let (requests, handshakes) = rates_of(&rules.limits);
        let keeps = rules.verifier.is_some();
        let room = rules.connections.min(ROOM_MAX) + BEYOND_MAX;
        let logins = Logins::new(&rules.limits);
        Self {
            table: Slab::with_capacity(room),
            turned_away: 0,
            generation: 0,
            users: Users::new(census),
            index: UserIndex::default(),
            deadlines: Deadlines::for_connections(room),
            effects: Effects::default(),
            rules,
            tokens: TokenMemory::new(),
            addresses: Addresses::default(),
            requests,
            logins,
            handshakes: (handshakes, 0),
            feeds: 0,
            outstanding: 0,
            hashing: 0,
            committed: census.last,
            failing: None,
            failed_at_s: u32::MAX,
            oldest: OldestWaiting::new(census.oldest_waiting),
            log_failing: None,
            sends: Sends::new(now.wall_ms),
            // An echo server keeps nothing.
            retain_at_ms: if keeps { now.monotonic_ms() + 1_000 } else { NEVER },
            drain: None,
            date: (i64::MIN, String::new()),
            seed,
        }
    }

    /// New limits, keys and origins; open connections stay, and obey them from now on.
    pub fn obey(&mut self, now: Now, rules: Rules) {
        let (requests, handshakes) = rates_of(&rules.limits);
        self.requests = requests;
        self.logins = Logins::new(&rules.limits);
        self.handshakes = (handshakes, 0);
        let old_ms = ms(std::mem::replace(&mut self.rules, rules).limits.ping_interval);
        let new_ms = ms(self.rules.limits.ping_interval);
        // A deadline may lie nearer now than the one that is filed.
        let open = |(key, entry): (usize, &Entry<S>)| match &entry.connection.state {
            State::Feed(feed) if feed.phase != Phase::Loading => {
                Some(Ticket { key: key as u32, generation: entry.connection.generation })
            }
            _ => None,
        };
        let open: Vec<Ticket> = self.table.iter().filter_map(open).collect();
        for ticket in open {
            let jitter_ms = self.jitter(ticket, new_ms.max(1));
            if let Some(feed) = self.feed(ticket).filter(|feed| !feed.awaits_pong && new_ms != old_ms) {
                // Spread, or all would be pinged in one turn from now on.
                feed.silent_ms = if new_ms == 0 { NEVER } else { now.monotonic_ms() + jitter_ms };
            }
            self.feed_due(now, ticket);
        }
    }

    pub fn socket(&mut self, ticket: Ticket) -> Option<&mut S> {
        self.entry(ticket).map(|entry| &mut entry.socket)
    }

    /// What is queued for a socket, and the socket, for the flush phase.
    pub fn outbound(&mut self, ticket: Ticket) -> Option<(&mut S, &mut Outbound)> {
        let entry = self.entry(ticket)?;
        let cold = entry.connection.cold.as_mut()?;
        cold.in_flush = false;
        Some((&mut entry.socket, &mut cold.outbound))
    }

    /// Bytes that this socket has not taken.
    #[must_use]
    pub fn queued_of(&self, ticket: Ticket) -> Option<usize> {
        let entry = self.table.get(ticket.key as usize)?;
        (entry.connection.generation == ticket.generation).then(|| entry.connection.queued())
    }

    /// Milliseconds (monotonic) of the next deadline.
    #[must_use]
    pub fn next_deadline_ms(&self) -> u64 {
        let drain = self.drain.as_ref().map_or(NEVER, |drain| drain.next_ms());
        self.deadlines.next_ms().unwrap_or(NEVER).min(self.retain_at_ms).min(drain)
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Now) {
        let now_ms = now.monotonic_ms();
        while let Some((at_ms, key)) = self.deadlines.due(now_ms) {
            let Some(entry) = self.table.get_mut(key as usize) else { continue };
            let connection = &mut entry.connection;
            if connection.filed != Filed::at(at_ms) {
                continue;
            }
            connection.filed = Filed::NEVER;
            let ticket = Ticket { key, generation: connection.generation };
            if connection.due_ms(now) <= now_ms {
                self.expired(now, ticket);
            }
            self.schedule(now, ticket);
        }
        if self.retain_at_ms <= now_ms {
            self.retain(now, NotificationId(0));
        }
        self.drain_step(now);
    }

    /// A stride of housekeeping; the next from its beginning comes an hour after the last stride of this one.
    fn retain(&mut self, now: Now, after: NotificationId) {
        self.retain_at_ms = now.monotonic_ms() + RETAIN_EVERY_MS;
        let read_for_ms = i64::try_from(self.rules.retention.as_millis()).unwrap_or(i64::MAX);
        let unread_for_ms = read_for_ms.saturating_mul(4);
        self.submit(now, None, Command::Retain { after, read_for_ms, unread_for_ms }, None);
    }

    /// Writing fails, or works again.
    pub fn health(&mut self, failure: Option<String>) {
        let told = news(&mut self.failing, failure);
        let event = |why: Option<String>| why.map_or(Event::StorageWorks, |why| Event::StorageFailing { why });
        self.effects.events.extend(told.map(event));
    }

    /// The log cannot be written or read, or can be again.
    pub fn log_health(&mut self, failure: Option<String>) {
        let told = news(&mut self.log_failing, failure);
        let event = |why: Option<String>| why.map_or(Event::SharedLogWorks, |why| Event::SharedLogFailing { why });
        self.effects.events.extend(told.map(event));
    }

    /// Messages of Django's layer that mean nothing here, or were not for us.
    pub fn django_refused(&mut self, cause: event::Unusable, count: u64) {
        self.effects.events.push(Event::DjangoRefused { cause, count });
    }

    /// Asks storage, for this connection.
    fn ask(&mut self, ticket: Ticket, query: Query) {
        self.outstanding += 1;
        self.effects.reads.push(Ask { query, ticket });
    }

    fn submit(
        &mut self,
        now: Now,
        ticket: Option<Ticket>,
        command: Command,
        idempotency: Option<crate::storage::job::Idempotency>,
    ) {
        self.outstanding += 1;
        let (at_ms, asked_us) = (now.wall_ms, now.monotonic_us);
        self.effects.errands.push(Errand::Write(Job { command, ticket, idempotency, at_ms, asked_us }));
    }

    /// Whether no more may be asked of storage now.
    fn is_overloaded(&mut self) -> bool {
        let is = self.outstanding >= self.rules.limits.storage_queue;
        if is {
            self.limited(Limit::StorageQueue);
        }
        is
    }

    fn limited(&mut self, limit: Limit) {
        self.effects.events.push(Event::Limited(limit));
    }

    fn refused(&mut self, address: IpAddr, cause: Cause, status: u16) {
        self.effects.events.push(Event::Refused { address, cause, status, rule: None });
    }

    fn entry(&mut self, ticket: Ticket) -> Option<&mut Entry<S>> {
        self.table.get_mut(ticket.key as usize).filter(|entry| entry.connection.generation == ticket.generation)
    }

    fn connection(&mut self, ticket: Ticket) -> Option<&mut Connection> {
        self.entry(ticket).map(|entry| &mut entry.connection)
    }

    fn feed(&mut self, ticket: Ticket) -> Option<&mut Feed> {
        self.connection(ticket).and_then(Connection::feed)
    }

    fn flush_later(&mut self, ticket: Ticket) {
        if let Some(connection) = self.connection(ticket)
            && !std::mem::replace(&mut connection.cold().in_flush, true)
        {
            self.effects.flush.push(ticket);
        }
    }

    fn date(&mut self, now: Now) -> &str {
        let second = now.wall_ms / 1_000;
        if self.date.0 != second {
            self.date = (second, http_date(now.wall_ms));
        }
        &self.date.1
    }

    /// A number below `below` that differs from one connection to the next.
    fn jitter(&self, ticket: Ticket, below: u64) -> u64 {
        (self.nonce(ticket) >> 32) % below
    }

    /// Another for each connection, and the same for its whole life: nothing to keep. Whoever works out others' from his own
    /// has gained nothing: a receipt counts on the socket that it comes from.
    fn nonce(&self, ticket: Ticket) -> u64 {
        let mut n = self.seed ^ (u64::from(ticket.generation) << 32 | u64::from(ticket.key));
        n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    }

    /// Open sockets, all users and channels.
    #[must_use]
    pub fn feeds(&self) -> usize {
        self.feeds
    }

    /// Open connections of every kind.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Notifications that nobody has read, and those that wait to be pushed.
    #[must_use]
    pub fn inboxes(&self) -> (u64, u64) {
        self.users.totals()
    }

    /// Jobs and questions that are under way.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }
}

/// Another failure than was known, or its end.
fn news(known: &mut Option<String>, failure: Option<String>) -> Option<Option<String>> {
    if *known == failure {
        return None;
    }
    known.clone_from(&failure);
    Some(failure)
}

fn rates_of(limits: &Limits) -> (Rates<Asker>, Rate) {
    (
        Rates::new(Rate::new(limits.requests_per_second, limits.requests_burst)),
        Rate::new(limits.handshakes_per_second, limits.handshakes_burst),
    )
}

/// Monotonic seconds.
fn seconds(now: Now) -> u32 {
    u32::try_from(now.monotonic_ms() / 1_000).unwrap_or(u32::MAX)
}

/// A duration as milliseconds; 0 is off.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

fn idle_ms(limits: &Limits) -> u64 {
    if limits.idle_timeout.is_zero() { NEVER } else { ms(limits.idle_timeout) }
}

/// An answer, but for what its request says about it.
fn response(reply: Reply) -> Response {
    let mut response = Response::new(reply.status).header("Cache-Control", "no-store");
    let typed = reply.headers.iter().any(|(name, _)| *name == "Content-Type");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    match reply.body.into_bytes() {
        none if none.is_empty() => response,
        body if typed => response.typed_body(body),
        body => response.json_body(body),
    }
}
