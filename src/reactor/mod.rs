//! Owns every socket and the one thread that turns: wait, accept, read, open the inbox, expire, submit, flush, reap.
//! Never decides anything: the hub does. Enter at [`Reactor::run`].

mod hasher;
mod journal;
mod meters;
mod operator;
mod socket;

use crate::api::routes::Door;
use crate::channel_layer::ChannelLayer;
use crate::clock::{Clock, Now};
use crate::hub::event::{CloseCause, Event, Sent};
use crate::hub::{Hub, Rules};
use crate::inbox::{Letter, Postbox, post_office};
use crate::log::Log;
use crate::metrics::Vitals;
use crate::storage::job::{Census, Ticket};
use hasher::Hasher;
use journal::Journal;
use meters::{Gauges, Meters};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use operator::Operator;
use socket::{Got, Socket, Wrote};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Bytes read from one connection in one turn: fairness.
const READ_MAX: usize = 64 * 1024;
/// Connections accepted from one listener in one turn.
const ACCEPTS_MAX: usize = 256;
/// So many times over before a listener is closed.
const LAST_ACCEPTS: usize = 32;
const EVENTS: usize = 1_024;
/// After the kernel has refused a connection for lack of descriptors: when it is asked again.
const ACCEPT_AGAIN_MS: u64 = 100;
/// After the drain: how long the last connections may take. Of the 5 seconds that a stop may take then, one is for the
/// disk.
const AFTER_DRAIN: Duration = Duration::from_secs(4);
/// Notifications that slow sockets have not taken whole, watched for how long they take.
const WRITING_MAX: usize = 1_024;
const WAKER: Token = Token(usize::MAX);

struct Listener {
    /// `None` once no more are let in.
    inner: Option<TcpListener>,
    door: Door,
    /// Somebody else listens on it, too, and goes on when we stop.
    passed: bool,
    /// Clients may be waiting, from this moment on (0: now).
    accept_at_ms: Option<u64>,
}

/// The poll, the sockets that listen and the way in for other threads, before the turn begins.
pub struct Entrance {
    poll: Poll,
    listeners: Vec<Listener>,
    post: Postbox,
    inbox: Receiver<Letter>,
    hasher: Hasher,
    operator: Operator,
}

impl Entrance {
    /// The poll, its waker and the two threads that answer the loop, and nothing that listens yet.
    ///
    /// # Errors
    ///
    /// Where the kernel gives no poll, no waker or no thread.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (post, inbox) = post_office(move || {
            // A reactor that cannot be woken still looks at its inbox at its next deadline.
            let _ = waker.wake();
        });
        let hasher = Hasher::start(post.clone())?;
        let operator = Operator::start(post.clone())?;
        Ok(Self { poll, listeners: Vec::new(), post, inbox, hasher, operator })
    }

    /// For the threads that answer.
    #[must_use]
    pub fn post(&self) -> &Postbox {
        &self.post
    }

    /// Binds an address; gives back what the kernel made of it.
    ///
    /// # Errors
    ///
    /// Where the address is in use, not this machine's, or not allowed to this user.
    pub fn listen(&mut self, address: SocketAddr, door: Door) -> io::Result<SocketAddr> {
        self.add(TcpListener::bind(address)?, door, false)
    }

    /// Takes a socket that listens already; gives back its address.
    ///
    /// # Errors
    ///
    /// Where it is no socket that can be waited for.
    pub fn adopt(&mut self, socket: std::net::TcpListener, door: Door) -> io::Result<SocketAddr> {
        socket.set_nonblocking(true)?;
        self.add(TcpListener::from_std(socket), door, true)
    }

    fn add(&mut self, mut inner: TcpListener, door: Door, passed: bool) -> io::Result<SocketAddr> {
        // Small frames must not wait for others. What a listener is told, the sockets that come from it inherit.
        rustix::net::sockopt::set_tcp_nodelay(&inner, true)?;
        let bound = inner.local_addr()?;
        let token = Token(WAKER.0 - 1 - self.listeners.len());
        self.poll.registry().register(&mut inner, token, Interest::READABLE)?;
        self.listeners.push(Listener { inner: Some(inner), door, passed, accept_at_ms: Some(0) });
        Ok(bound)
    }
}

pub struct Reactor {
    poll: Poll,
    listeners: Vec<Listener>,
    inbox: Receiver<Letter>,
    hub: Hub<Socket>,
    layer: Option<ChannelLayer>,
    hasher: Hasher,
    operator: Operator,
    clock: Clock,
    journal: Journal,
    meters: Meters,
    /// Notifications that a socket has not taken whole.
    writing: Vec<(Ticket, Sent)>,
    buffer: Box<[u8]>,
    /// Connections that may have bytes for us.
    ready: Vec<Ticket>,
    /// The kernel has refused a connection, and given none since.
    accept_fails: bool,
    /// When a drain must be over.
    stop_at_ms: Option<u64>,
    stopped: bool,
}

impl Reactor {
    /// `layer`: none for an echo server, which keeps nothing.
    #[must_use]
    pub fn new(
        entrance: Entrance,
        clock: Clock,
        rules: Rules,
        census: &Census,
        layer: Option<ChannelLayer>,
        log: Log,
    ) -> Self {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let now = clock.now();
        Self {
            hub: Hub::new(now, rules, census, seed),
            poll: entrance.poll,
            listeners: entrance.listeners,
            inbox: entrance.inbox,
            layer,
            hasher: entrance.hasher,
            operator: entrance.operator,
            clock,
            journal: Journal::new(log),
            meters: Meters::new(now),
            writing: Vec::new(),
            buffer: vec![0; READ_MAX].into_boxed_slice(),
            ready: Vec::new(),
            accept_fails: false,
            stop_at_ms: None,
            stopped: false,
        }
    }

    /// Until a signal has ended it and what was to be said is said.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to wait for the sockets.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_over() {
            self.turn(&mut events)?;
        }
        if let Some(layer) = self.layer.take() {
            layer.close();
        }
        let now = self.clock.now();
        let seconds = now.monotonic_us / 1_000_000;
        self.journal.write(now, &Event::Stopped { seconds });
        self.journal.end();
        Ok(())
    }

    fn is_over(&self) -> bool {
        let late = self.stop_at_ms.is_some_and(|at_ms| self.clock.now().monotonic_ms() >= at_ms);
        self.stopped || late || self.hub.is_drained()
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        self.wait(events)?;
        let now = self.clock.now(); // one reading a turn
        self.accept(now);
        self.read(now);
        self.open_inbox(now);
        self.hub.expire(now);
        self.submit();
        self.flush(now);
        self.submit(); // what draining sockets asked for
        self.reap();
        self.tell(now);
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = if self.ready.is_empty() {
            let accept_ms = self.listeners.iter().filter_map(|listener| listener.accept_at_ms).min();
            let next_ms =
                accept_ms.unwrap_or(u64::MAX).min(self.hub.next_deadline_ms()).min(self.stop_at_ms.unwrap_or(u64::MAX));
            let now_ms = self.clock.now().monotonic_ms();
            (next_ms != u64::MAX).then(|| Duration::from_millis(next_ms.saturating_sub(now_ms)))
        } else {
            Some(Duration::ZERO)
        };
        match self.poll.poll(events, timeout) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        for event in events.iter() {
            let token = event.token();
            if token == WAKER {
                continue;
            }
            if let Some(listener) = self.listeners.get_mut(WAKER.0 - 1 - token.0) {
                listener.accept_at_ms = Some(0);
                continue;
            }
            let ticket = ticket_of(token);
            let Some(socket) = self.hub.socket(ticket) else { continue };
            socket.note(event);
            if event.is_writable() {
                self.hub.effects.flush.push(ticket);
            }
            self.make_ready(ticket);
        }
        Ok(())
    }

    fn make_ready(&mut self, ticket: Ticket) {
        if let Some(socket) = self.hub.socket(ticket)
            && socket.is_readable()
            && !socket.in_ready
        {
            socket.in_ready = true;
            self.ready.push(ticket);
        }
    }

    fn accept(&mut self, now: Now) {
        let now_ms = now.monotonic_ms();
        for listener in &mut self.listeners {
            if listener.accept_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
                continue;
            }
            let Some(inner) = &listener.inner else {
                listener.accept_at_ms = None;
                continue;
            };
            for _ in 0..ACCEPTS_MAX {
                match inner.accept() {
                    Ok((stream, peer)) => {
                        if std::mem::take(&mut self.accept_fails) {
                            self.hub.effects.events.push(Event::AcceptWorks);
                        }
                        let Ok(ticket) =
                            self.hub.accept(now, Socket::new(stream), peer.ip().to_canonical(), listener.door)
                        else {
                            continue;
                        };
                        let Some(socket) = self.hub.socket(ticket) else { continue };
                        let token = token_of(ticket);
                        if self.poll.registry().register(&mut socket.stream, token, Interest::READABLE).is_err() {
                            self.hub.gone(now, ticket, CloseCause::Reset);
                        }
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        listener.accept_at_ms = None;
                        break;
                    }
                    // A client that gave up while it waited.
                    Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                    // No descriptor or memory left: who waits makes no new event, and asking at once would spin.
                    Err(e) => {
                        if !std::mem::replace(&mut self.accept_fails, true) {
                            self.hub.effects.events.push(Event::AcceptFailing { why: e.to_string() });
                        }
                        listener.accept_at_ms = Some(now_ms + ACCEPT_AGAIN_MS);
                        break;
                    }
                }
            }
        }
    }

    fn read(&mut self, now: Now) {
        for ticket in std::mem::take(&mut self.ready) {
            let Some(socket) = self.hub.socket(ticket) else { continue };
            socket.in_ready = false;
            if !self.hub.wants_bytes(ticket) {
                continue; // named in `effects.resume` once it does
            }
            let Some(socket) = self.hub.socket(ticket) else { continue };
            match socket.read(&mut self.buffer) {
                Got::Bytes(count) => {
                    self.meters.bytes_in += count as u64;
                    self.hub.receive(now, ticket, &mut self.buffer[..count]);
                }
                Got::Nothing => continue,
                Got::End => self.hub.peer_ended(now, ticket),
                Got::Broken => self.hub.gone(now, ticket, CloseCause::Reset),
            }
            self.make_ready(ticket);
        }
    }

    fn open_inbox(&mut self, now: Now) {
        while let Ok(letter) = self.inbox.try_recv() {
            match letter {
                Letter::Committed { outcomes, took_us } => self.hub.committed(now, outcomes, took_us),
                Letter::Answered(outcomes) => self.hub.answered(now, outcomes),
                Letter::Hashed { ticket, command } => self.hub.hashed(now, ticket, command),
                Letter::Checked { ticket, found, cost } => self.hub.checked(now, ticket, found, cost),
                Letter::Health(failure) => self.hub.health(failure),
                Letter::LogHealth(failure) => self.hub.log_health(failure),
                Letter::DjangoRefused { cause, count } => self.hub.django_refused(cause, count),
                Letter::Reload { rules, level, restart, done } => {
                    self.hub.obey(now, *rules);
                    self.journal.obey(level);
                    self.hub.effects.events.push(Event::Reloaded { restart });
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Letter::NotReloaded { mistakes } => self.hub.effects.events.push(Event::NotReloaded { mistakes }),
                Letter::Pulse(mut pulse) => {
                    pulse.state = (self.hub.feeds(), self.hub.is_draining());
                    match &self.layer {
                        Some(layer) => layer.storage().pulse(pulse),
                        None => pulse.send_back(),
                    }
                }
                Letter::Vitals { ticket, page, vitals } => {
                    let reply = operator::reply(page, &self.meters, &self.gauges(now, vitals));
                    self.hub.tell(now, ticket, reply);
                }
                Letter::Stop if self.stop_at_ms.is_some() => self.stopped = true,
                Letter::Stop => self.stop(now),
            }
        }
    }

    /// Lets nobody in any more, but whoever watches the rest. Who has come already is told so: closing the listener
    /// would cut them off; one that was passed stays open for the next server.
    fn stop(&mut self, now: Now) {
        let public = |listener: &&mut Listener| listener.door == Door::Public;
        for listener in self.listeners.iter_mut().filter(public) {
            listener.accept_at_ms = (!listener.passed).then_some(0);
        }
        // The kernel holds some thousands at most; whoever comes while we ask must not keep us here.
        for _ in 0..LAST_ACCEPTS {
            self.accept(now);
            if !self.listeners.iter().any(|listener| listener.door == Door::Public && listener.accept_at_ms == Some(0))
            {
                break;
            }
        }
        self.listeners.iter_mut().filter(public).for_each(|listener| listener.inner = None);
        self.hub.drain(now);
        let all = self.hub.drain_time() + AFTER_DRAIN;
        self.stop_at_ms = Some(now.monotonic_ms() + all.as_millis() as u64);
    }

    fn submit(&mut self) {
        for (ticket, page) in std::mem::take(&mut self.hub.effects.own_pages) {
            self.hub.look_for_oldest();
            self.operator.ask(ticket, page);
        }
        for task in self.hub.effects.hash.drain(..) {
            self.hasher.hash(task);
        }
        if let Some(layer) = &self.layer {
            layer.submit(self.hub.effects.errands.drain(..));
            for ask in self.hub.effects.reads.drain(..) {
                layer.storage().read(ask);
            }
            layer.saw(self.hub.effects.seen.drain(..));
        }
    }

    /// One write a socket, until nothing more is queued by what follows from it.
    fn flush(&mut self, now: Now) {
        while !self.hub.effects.flush.is_empty() {
            for ticket in std::mem::take(&mut self.hub.effects.flush) {
                let Some((socket, outbound)) = self.hub.outbound(ticket) else { continue };
                let before = outbound.len();
                let wrote = socket.write(outbound);
                self.meters.bytes_out += before.saturating_sub(outbound.len()) as u64;
                let wrote = wrote.and_then(|wrote| match wrote {
                    Wrote::Done => Ok(()),
                    Wrote::UntilFull => {
                        let both = Interest::READABLE | Interest::WRITABLE;
                        self.poll.registry().reregister(&mut socket.stream, token_of(ticket), both)
                    }
                });
                match wrote {
                    Ok(()) => self.hub.flushed(now, ticket),
                    Err(_) => self.hub.gone(now, ticket, CloseCause::Reset),
                }
            }
        }
        for ticket in std::mem::take(&mut self.hub.effects.shut) {
            if let Some(socket) = self.hub.socket(ticket) {
                socket.shut();
            }
        }
        for ticket in std::mem::take(&mut self.hub.effects.resume) {
            self.make_ready(ticket);
        }
    }

    /// What has happened in this turn, to the log and to the meters.
    fn tell(&mut self, began: Now) {
        let now = self.clock.now();
        self.note_written(now);
        for event in self.hub.effects.events.drain(..) {
            self.meters.observe(&event);
            self.journal.write(now, &event);
        }
        self.journal.flush();
        self.meters.turned(now.monotonic_us.saturating_sub(began.monotonic_us));
    }

    /// Which notifications the kernel has by now. Those of a socket that went are no longer of interest.
    fn note_written(&mut self, now: Now) {
        self.writing.append(&mut self.hub.effects.sent);
        let mut events = std::mem::take(&mut self.hub.effects.events);
        let mut watched = 0;
        self.writing.retain(|(ticket, what)| {
            let took_us = match self.hub.queued_of(*ticket) {
                None => return false,
                Some(0) => now.since(what.asked_us),
                Some(_) if watched < WRITING_MAX => {
                    watched += 1;
                    return true;
                }
                // Too many to watch: sent, and nobody knows when.
                Some(_) => None,
            };
            events.push(Event::Sent { what: *what, took_us });
            false
        });
        self.hub.effects.events = events;
    }

    fn gauges(&self, now: Now, vitals: Vitals) -> Gauges {
        let (unread, waiting) = self.hub.inboxes();
        Gauges {
            now,
            connections: self.hub.connections(),
            unread,
            waiting,
            oldest_waiting_ms: self.hub.oldest_waiting().map(|oldest| oldest.created_ms),
            outstanding: self.hub.outstanding(),
            queues: self.layer.as_ref().map_or((0, 0), |layer| layer.storage().depth()),
            shared_log: self.layer.as_ref().map_or_else(Default::default, |layer| layer.load(now)),
            log_lines_dropped: self.journal.dropped(),
            unready: self.hub.unready(),
            draining: self.hub.is_draining(),
            vitals,
        }
    }

    /// The only place where a connection goes; dropping it closes the socket, which takes it out of the poll.
    fn reap(&mut self) {
        for ticket in std::mem::take(&mut self.hub.effects.close) {
            drop(self.hub.reap(ticket));
        }
    }
}

fn token_of(ticket: Ticket) -> Token {
    Token((ticket.generation as usize) << 32 | ticket.key as usize)
}

fn ticket_of(token: Token) -> Ticket {
    Ticket { key: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
