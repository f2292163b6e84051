//! Owns the thread that adds this node's commands to the log: what is queued rides in one entry. Never applies one, and
//! never sends a command a second time unless that changes nothing. Enter at [`Appender::run`].

use super::address::{Address, is_broken};
use super::entry::Commands;
use super::follower::Stand;
use super::road::{Asker, Road, Room, Sent};
use super::stream::{Log, Trouble};
use crate::api::command::Command;
use crate::clock::Clock;
use crate::storage::gather::{Takes, top_up};
use crate::storage::job::{Ask, Errand, Job};
use crate::storage::mark::{Progress, Tag};
use redis::{Connection, cmd};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use uuid::Uuid;

/// Entries under way, from here to their commit: one is committed while the next gathers commands.
const ENTRIES_UNDER_WAY: usize = 3;
/// How often what waits is looked at, and a Redis that has gone is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After so long a connection is tried before it is used.
const IDLE_US: u64 = 1_000_000;

/// What is handed to this thread.
pub(super) enum Asked {
    Errand(Errand),
    /// What came over Django's layer: nobody waits for it, and it may be sent again. `room` goes once it is in the log.
    Relayed {
        commands: Vec<Command>,
        room: Box<dyn Send>,
    },
}

pub(super) struct Appender {
    log: Log,
    address: Address,
    road: Arc<Road>,
    progress: Arc<Progress>,
    stand: Arc<Stand>,
    run: Uuid,
    clock: Clock,
    link: Option<Connection>,
    /// Which return of Redis the connection is from, and when it was last used.
    link_of: u64,
    used_us: u64,
    number: u64,
    parked: Parked,
}

/// What one entry is made of, and the questions behind it.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    commands: Commands,
    asks: Vec<Ask>,
    /// Somebody waits for something in it.
    urgent: bool,
}

impl Batch {
    fn add(&mut self, errand: Errand) {
        match errand {
            Errand::Write(job) => {
                self.urgent |= !job.command.can_wait();
                self.commands.push(&job.command, job.idempotency.as_ref());
                self.jobs.push(job);
            }
            Errand::ReadAfter(ask) => {
                self.urgent = true;
                self.asks.push(ask);
            }
            // Only the log itself says what is in it; and a sign of life is the committer's.
            Errand::Follow(_) | Errand::Pulse(_) => {}
        }
    }

    fn takes(&self) -> Takes {
        match (self.commands.is_full(), self.urgent || self.jobs.is_empty()) {
            (true, _) => Takes::Nothing,
            (false, true) => Takes::WhatIsThere,
            (false, false) => Takes::WhatComes,
        }
    }
}

/// Commands kept for when Redis is back, of those that may be sent again.
#[derive(Default)]
struct Parked {
    commands: VecDeque<Command>,
    /// What Django told keeps its room here.
    rooms: Vec<Box<dyn Send>>,
}

/// From so many on, the oldest receipt goes for each that comes: without it a device is only sent something again. All
/// else is a fraction of that, since it waits for room.
const PARKED_MAX: usize = 10_000;

impl Parked {
    fn add(&mut self, command: Command) {
        if !command.can_be_repeated() {
            return;
        }
        let is_receipt = |parked: &Command| matches!(parked, Command::MarkDelivered { .. });
        if self.commands.len() >= PARKED_MAX
            && let Some(oldest) = self.commands.iter().position(is_receipt)
        {
            self.commands.remove(oldest);
        }
        self.commands.push_back(command);
    }
}

impl Appender {
    pub(super) fn new(
        log: Log,
        address: Address,
        road: Arc<Road>,
        progress: Arc<Progress>,
        stand: Arc<Stand>,
        run: Uuid,
        clock: Clock,
    ) -> Self {
        let (link, link_of, used_us, number, parked) = (None, 0, 0, 0, Parked::default());
        Self { log, address, road, progress, stand, run, clock, link, link_of, used_us, number, parked }
    }

    /// Until the queue is closed and empty, and what was sent has come back.
    pub(super) fn run(mut self, queue: &Receiver<Asked>) {
        loop {
            let idle =
                self.parked.commands.is_empty() && self.link.is_some() && self.road.writes() && !self.road.is_waiting();
            let first = if idle {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(LOOK_EVERY)
            };
            match first {
                Ok(first) => self.carry(first, queue),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.road.expire(self.clock.now().monotonic_us);
            self.look_after();
            self.road.load.set_kept(self.parked.commands.len());
        }
        self.send_parked();
        self.road.settle(self.address.timeout);
        self.road.expire(u64::MAX);
        self.road.stop();
        if let Some(mut link) = self.link.take() {
            self.wake_reader(&mut link);
        }
    }

    /// One entry, with all that is queued by the time there is room for it.
    fn carry(&mut self, first: Asked, queue: &Receiver<Asked>) {
        let first = match first {
            // A question needs no room: what was queued before it is under way, or was refused.
            Asked::Errand(Errand::ReadAfter(ask)) => return self.road.ask(ask),
            other => other,
        };
        let room = self.make_room();
        let mut batch = Batch::default();
        self.add(&mut batch, first);
        top_up(&mut batch, queue, self.clock, Batch::takes, |batch, next| self.add(batch, next));
        if batch.jobs.is_empty() {
            return batch.asks.into_iter().for_each(|ask| self.road.ask(ask));
        }
        match (self.refusal(), room) {
            (None, Some(room)) => self.send(batch, room),
            (Some(why), Some(room)) => self.refuse(batch.jobs, batch.asks, room, &why),
            (why, None) => {
                let full = if self.road.is_open() { "too much is under way" } else { "catching up" };
                self.refuse_now(batch, &why.unwrap_or_else(|| full.to_owned()));
            }
        }
    }

    /// Room for an entry, and a connection that is not from before Redis was away: it may be to one that was left.
    fn make_room(&mut self) -> Option<Room> {
        loop {
            self.keep_link();
            if self.refusal().is_some() {
                return None;
            }
            let room = self.road.make_room(ENTRIES_UNDER_WAY, self.address.timeout)?;
            if self.link_of == self.road.returns() {
                return Some(room);
            }
        }
    }

    fn add(&mut self, batch: &mut Batch, asked: Asked) {
        match asked {
            Asked::Errand(errand) => {
                self.road.load.take(usize::from(matches!(errand, Errand::Write(_))));
                batch.add(errand);
            }
            Asked::Relayed { commands, room } => {
                self.road.load.take(commands.len());
                commands.into_iter().for_each(|command| self.parked.add(command));
                self.parked.rooms.push(room);
            }
        }
    }

    /// Sees to a connection to the Redis that the reader follows. One that may have ended while nobody looked is tried, so
    /// that it is not found out about at somebody's cost.
    fn keep_link(&mut self) {
        if self.road.failure().is_some() {
            return;
        }
        let (returns, now_us) = (self.road.returns(), self.clock.now().monotonic_us);
        let is_fresh = now_us.saturating_sub(self.used_us) < IDLE_US;
        let works = |link: &mut Connection| is_fresh || cmd("PING").exec(link).is_ok();
        if self.link_of == returns && self.link.as_mut().is_some_and(works) {
            self.used_us = if is_fresh { self.used_us } else { now_us };
            return;
        }
        let link = self.connect();
        self.road.set_writing(link.as_ref().err().map(|e| format!("Redis at {}: {e}", self.address.shown())));
        (self.link, self.link_of, self.used_us) = (link.ok(), returns, now_us);
    }

    /// Why nothing can be appended, if so.
    fn refusal(&self) -> Option<String> {
        if self.progress.is_failing() {
            return Some("this node's disk does not write".to_owned());
        }
        if self.link.is_none() {
            return Some("Redis is not reachable".to_owned());
        }
        self.road.failure()
    }

    fn tag(&mut self) -> Tag {
        self.number += 1;
        Tag { run: self.run, number: self.number }
    }

    fn send(&mut self, batch: Batch, room: Room) {
        let tag = self.tag();
        let Batch { jobs, commands, asks, .. } = batch;
        let until_us = self.clock.now().monotonic_us + 2 * self.address.timeout.as_micros() as u64;
        let askers = jobs.iter().map(Asker::from).collect();
        self.road.sending(tag.number, Sent { askers, asks, until_us, room });
        let failure = self.append(tag, commands);
        // What went wrong may have been done all the same, and be here already.
        if let Some(why) = &failure
            && let Some(sent) = self.road.take(tag.number)
        {
            self.refuse(jobs, sent.asks, sent.room, why);
        }
        self.road.set_writing(failure);
    }

    /// Adds an entry; gives back why it may not be there. A connection that broke is not used again.
    fn append(&mut self, tag: Tag, commands: Commands) -> Option<String> {
        let Some(link) = &mut self.link else { return Some("Redis is not reachable".to_owned()) };
        match self.log.append(link, tag, &commands.finish()) {
            Ok(Some(_)) => {
                self.used_us = self.clock.now().monotonic_us;
                None
            }
            Ok(None) => Some("the log is gone from Redis".to_owned()),
            Err(e) => {
                if is_broken(&e) {
                    self.link = None;
                }
                Some(format!("Redis at {}: {e}", self.address.shown()))
            }
        }
    }

    /// Whoever waits hears so; receipts are kept for later.
    fn refuse(&mut self, jobs: Vec<Job>, asks: Vec<Ask>, room: Room, why: &str) {
        let askers = jobs.iter().map(Asker::from).collect();
        jobs.into_iter().filter(|job| job.ticket.is_none()).for_each(|job| self.parked.add(job.command));
        self.road.give_up(Sent { askers, asks, until_us: 0, room }, why);
    }

    fn refuse_now(&mut self, batch: Batch, why: &str) {
        let askers: Vec<Asker> = batch.jobs.iter().map(Asker::from).collect();
        batch.jobs.into_iter().filter(|job| job.ticket.is_none()).for_each(|job| self.parked.add(job.command));
        self.road.refuse(askers, batch.asks, why);
    }

    /// Sends what may be sent again, for nobody in particular.
    fn send_parked(&mut self) {
        while !self.parked.commands.is_empty() && self.may_add() && self.road.writes() {
            let (mut commands, mut count) = (Commands::default(), 0);
            for command in &self.parked.commands {
                commands.push(command, None);
                count += 1;
                if commands.is_full() {
                    break;
                }
            }
            let tag = self.tag();
            let failure = self.append(tag, commands);
            if failure.is_none() {
                self.parked.commands.drain(..count);
            }
            self.road.set_writing(failure);
        }
        if self.parked.commands.is_empty() {
            self.parked.rooms.clear();
        }
    }

    /// A Redis that has gone is tried again, what is parked is sent.
    fn look_after(&mut self) {
        if self.road.is_closing() {
            // Whoever waits for room has to end, too.
            self.parked.rooms.clear();
        }
        self.keep_link();
        if !self.road.writes() && self.may_add() {
            self.try_writing();
        }
        self.send_parked();
    }

    /// Whether something may be added that nobody waits for.
    fn may_add(&self) -> bool {
        self.road.is_open() && self.refusal().is_none()
    }

    /// A connection to a Redis that still has what this node has applied; the reader is asked to look at it, too.
    fn connect(&self) -> Result<Connection, Trouble> {
        let mut link = self.address.connect(Duration::ZERO)?;
        if let Some(mark) = self.stand.mark() {
            self.log.check(&mut link, Some(mark), self.run, || Err(String::new()))?;
        }
        self.road.connected();
        self.wake_reader(&mut link);
        Ok(link)
    }

    /// It waits for entries; without this it would find out a moment later.
    fn wake_reader(&self, link: &mut Connection) {
        if let Some(reader) = self.stand.client() {
            let _ = cmd("CLIENT").arg("UNBLOCK").arg(reader).exec(link);
        }
    }

    /// Redis said no last time (no memory left, read-only): an entry that says nothing tells whether it still does.
    fn try_writing(&mut self) {
        let tag = self.tag();
        let failure = self.append(tag, Commands::default());
        self.road.set_writing(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::super::road::Reading;
    use super::*;
    use crate::config::RedisAddress;
    use crate::inbox::post_office;
    use crate::matching::UserId;
    use crate::notification::NotificationId;
    use crate::storage::Storage;
    use crate::storage::file::DatabaseFile;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn receipts_make_room_and_nothing_else_does() {
        let mut parked = Parked::default();
        let receipt = |n| Command::MarkDelivered { user: UserId(1), ids: vec![NotificationId(n)] };
        let met = |n| Command::Meet { user: UserId(n) };
        (0..PARKED_MAX as i64).for_each(|n| parked.add(met(n)));
        parked.add(receipt(1));
        parked.add(receipt(2));
        parked.add(Command::MarkAllRead { by: UserId(1) });
        let kept: Vec<_> = parked.commands.iter().cloned().collect();
        let all: Vec<_> = (0..PARKED_MAX as i64).map(met).chain([receipt(2)]).collect();
        assert!(kept == all, "{:?}", kept.last());
    }

    /// Something like Redis, which says yes to everything; where it listens, and how many entries were added.
    fn agreeable() -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, added) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counts = Arc::clone(&added);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, counts) = (stream.unwrap(), Arc::clone(&counts));
                std::thread::spawn(move || agree(&stream, &counts));
            }
        });
        (port, added)
    }

    fn agree(mut stream: &TcpStream, added: &AtomicUsize) {
        fn number(asked: &mut impl BufRead) -> Option<usize> {
            let mut line = String::new();
            asked.read_line(&mut line).ok()?;
            line.get(1..)?.trim_end().parse().ok()
        }
        let mut asked = BufReader::new(stream);
        while let Some(words) = number(&mut asked) {
            for n in 0..words {
                let mut word = vec![0; number(&mut asked).unwrap() + 2];
                asked.read_exact(&mut word).unwrap();
                added.fetch_add(usize::from(n == 0 && word == *b"XADD\r\n"), Ordering::SeqCst);
            }
            stream.write_all(b"+OK\r\n").unwrap();
        }
    }

    /// Whoever holds more than Redis does gives that back first, which ends where somebody has added something else.
    #[test]
    fn nothing_is_added_before_the_reader_is_there_and_has_looked() {
        let (port, added) = agreeable();
        let (folder, clock, (post, _letters)) = (tempfile::tempdir().unwrap(), Clock::start(), post_office(|| {}));
        let file = DatabaseFile::claim(&folder.path().join("habittod.db")).unwrap();
        let (storage, _) = Storage::open(file, clock, &post).unwrap();
        let road = Road::new(post, storage.desk());
        let address = RedisAddress::Host { host: "127.0.0.1".to_owned(), port };
        let address = Address::new(&address, Duration::from_secs(60)).unwrap();
        let (stand, run) = (Arc::default(), Uuid::new_v4());
        let mut appender =
            Appender::new(Log::new("x"), address, Arc::clone(&road), storage.progress(), stand, run, clock);
        appender.parked.add(Command::MarkDelivered { user: UserId(1), ids: vec![NotificationId(1)] });
        let mut adds = |reading| {
            road.set_reading(reading);
            appender.look_after();
            added.load(Ordering::SeqCst)
        };
        assert_eq!(adds(Reading::Failing("away".to_owned())), 0);
        assert_eq!(adds(Reading::CatchingUp), 0);
        assert_eq!(
            adds(Reading::There),
            0,
            "Redis was away, and the reader has not looked since this connection is new"
        );
        road.looked(road.unlooked().unwrap());
        assert_eq!(adds(Reading::There), 1);
        assert_eq!(road.unlooked(), None);
        // Where the reader was away, so was this connection's Redis.
        adds(Reading::Failing("away".to_owned()));
        adds(Reading::There);
        assert!(road.unlooked().is_some());
    }
}
