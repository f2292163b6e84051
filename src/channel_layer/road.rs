//! Owns what the threads of a shared log know together: whether the road is open, and whose answers are under way.
//! Never talks to Redis. Enter at [`Road`].

use super::load::Load;
use crate::inbox::{Letter, Postbox};
use crate::storage::Desk;
use crate::storage::job::{Answer, Ask, Errand, Job, Outcome, Ticket};
use crate::storage::mark::Entry;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) struct Road {
    state: Mutex<State>,
    changed: Condvar,
    post: Postbox,
    desk: Desk,
    pub load: Load,
}

struct State {
    reading: Reading,
    /// Why nothing can be added; `None`: it can.
    writing: Option<String>,
    /// How often the writing side has connected anew, and which of these the reading side has looked at Redis after.
    links: u64,
    looked_after: u64,
    /// What the reactor was told last.
    told: Option<String>,
    /// Entries of this run that were sent and have not come back, by their number.
    sent: BTreeMap<u64, Sent>,
    /// Entries of this run that are sent and not committed.
    rooms: usize,
    /// How often the reading side has come back.
    returns: u64,
    /// It was away, and is not back yet.
    away: bool,
    /// Nothing more is taken in; then, nothing more is read.
    closing: bool,
    stopping: bool,
}

impl State {
    fn is_open(&self) -> bool {
        self.reading == Reading::There && self.links == self.looked_after
    }
}

/// Who waits for an entry.
pub(super) struct Sent {
    pub askers: Vec<Asker>,
    pub asks: Vec<Ask>,
    /// When waiting ends (monotonic µs).
    pub until_us: u64,
    pub room: Room,
}

#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub ticket: Option<Ticket>,
    pub asked_us: u64,
}

impl From<&Job> for Asker {
    fn from(job: &Job) -> Self {
        Self { ticket: job.ticket, asked_us: job.asked_us }
    }
}

/// Room for one entry; given back when this goes.
pub(super) struct Room(Arc<Road>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.state().rooms -= 1;
        self.0.changed.notify_all();
    }
}

/// How far the reading side is.
#[derive(PartialEq, Eq)]
pub(super) enum Reading {
    /// At the end of the log, and all of it is committed here.
    There,
    /// On its way to it: what it is waited for.
    CatchingUp,
    /// Why it gets nowhere.
    Failing(String),
}

impl Road {
    /// Closed until the reading side says otherwise.
    pub(super) fn new(post: Postbox, desk: Desk) -> Arc<Self> {
        let state = State {
            reading: Reading::CatchingUp,
            writing: None,
            links: 0,
            looked_after: 0,
            told: None,
            sent: BTreeMap::new(),
            rooms: 0,
            returns: 0,
            away: false,
            closing: false,
            stopping: false,
        };
        let road = Self { state: Mutex::new(state), changed: Condvar::new(), post, desk, load: Load::default() };
        road.tell(&mut road.state());
        Arc::new(road)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_reading(&self, reading: Reading) {
        let mut state = self.state();
        state.away |= matches!(reading, Reading::Failing(_));
        if reading == Reading::There && std::mem::take(&mut state.away) {
            state.returns += 1;
        }
        state.reading = reading;
        self.tell(&mut state);
        self.changed.notify_all();
    }

    /// Works, or why not.
    pub(super) fn set_writing(&self, why: Option<String>) {
        let mut state = self.state();
        state.writing = why;
        self.tell(&mut state);
    }

    fn tell(&self, state: &mut State) {
        let now = match &state.reading {
            Reading::There => state.writing.clone(),
            Reading::CatchingUp => Some("catching up".to_owned()),
            Reading::Failing(why) => Some(why.clone()),
        };
        if now != state.told {
            state.told.clone_from(&now);
            self.post.post(Letter::LogHealth(now));
        }
    }

    /// The writing side has connected: to a Redis that may have lost what the reading side, on a connection of its own,
    /// knows nothing of yet. Nothing is added before that has looked again.
    pub(super) fn connected(&self) {
        self.state().links += 1;
    }

    /// Which of the writing side's connections the reading side is to look after, if it has not.
    pub(super) fn unlooked(&self) -> Option<u64> {
        let state = self.state();
        (state.links != state.looked_after).then_some(state.links)
    }

    /// The reading side has looked at Redis, and this connection was there before it did.
    pub(super) fn looked(&self, link: u64) {
        self.state().looked_after = link;
        self.changed.notify_all();
    }

    /// Whether something may be added now: what this node does not follow to its end, it must not add to.
    pub(super) fn is_open(&self) -> bool {
        self.state().is_open()
    }

    /// Why it is no use to wait for the road to open.
    pub(super) fn failure(&self) -> Option<String> {
        match &self.state().reading {
            Reading::Failing(why) => Some(why.clone()),
            Reading::There | Reading::CatchingUp => None,
        }
    }

    /// Changes whenever Redis was away and is back: another connection is needed.
    pub(super) fn returns(&self) -> u64 {
        self.state().returns
    }

    pub(super) fn writes(&self) -> bool {
        self.state().writing.is_none()
    }

    /// Room for one more entry under way, waited for; so is a reading side that is on its way.
    pub(super) fn make_room(self: &Arc<Self>, most: usize, at_most: Duration) -> Option<Room> {
        let full = |state: &mut State| {
            let comes = !state.is_open() && !matches!(state.reading, Reading::Failing(_));
            !state.stopping && (state.rooms >= most || comes)
        };
        let waited = self.changed.wait_timeout_while(self.state(), at_most, full);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then(|| {
            state.rooms += 1;
            Room(Arc::clone(self))
        })
    }

    /// An entry goes out. Said before it is sent: it may come back before Redis has answered.
    pub(super) fn sending(&self, number: u64, sent: Sent) {
        self.state().sent.insert(number, sent);
    }

    /// An entry that is not waited for any more, if it has not come back already.
    pub(super) fn take(&self, number: u64) -> Option<Sent> {
        self.state().sent.remove(&number)
    }

    /// Whether anything is under way.
    pub(super) fn is_waiting(&self) -> bool {
        !self.state().sent.is_empty()
    }

    /// A question that comes behind what was sent before it.
    pub(super) fn ask(&self, ask: Ask) {
        let mut state = self.state();
        match state.sent.values_mut().next_back() {
            Some(newest) => newest.asks.push(ask),
            None => self.desk.leave(Errand::ReadAfter(ask)),
        }
    }

    /// An entry came; where this run sent it, those who wait are put beside its jobs. Handed over under the lock, so that
    /// no question passes it.
    pub(super) fn arrived(&self, own: Option<u64>, mut entry: Entry) {
        let mut state = self.state();
        if let Some(sent) = own.and_then(|number| state.sent.remove(&number)) {
            for (job, asker) in entry.jobs.iter_mut().zip(sent.askers) {
                (job.ticket, job.asked_us) = (asker.ticket, asker.asked_us);
            }
            entry.ours = true;
            entry.asks = sent.asks;
            entry.room = Some(Box::new(sent.room));
        }
        self.desk.follow(entry);
        drop(state);
        self.changed.notify_all();
    }

    /// Those who have waited long enough hear that it is not known; it may still be done.
    pub(super) fn expire(&self, now_us: u64) {
        let mut state = self.state();
        let late: Vec<u64> =
            state.sent.iter().filter(|(_, sent)| sent.until_us <= now_us).map(|(number, _)| *number).collect();
        let late: Vec<Sent> = late.into_iter().filter_map(|number| state.sent.remove(&number)).collect();
        drop(state);
        late.into_iter().for_each(|sent| self.give_up(sent, "no answer from Redis"));
    }

    /// Nobody waits any more.
    pub(super) fn give_up(&self, sent: Sent, why: &str) {
        self.refuse(sent.askers, sent.asks, why);
    }

    /// Those who wait hear that it was not done, or that it is not known; questions go on without.
    pub(super) fn refuse(&self, askers: Vec<Asker>, asks: Vec<Ask>, why: &str) {
        let outcome = |Asker { ticket, asked_us }| Outcome {
            ticket,
            answer: if ticket.is_some() { Answer::Failed(why.to_owned()) } else { Answer::Nothing },
            changes: Vec::new(),
            asked_us,
            ours: true,
        };
        if !askers.is_empty() {
            self.post.post(Letter::Answered(askers.into_iter().map(outcome).collect()));
        }
        asks.into_iter().for_each(|ask| self.desk.leave(Errand::ReadAfter(ask)));
    }

    pub(super) fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// A pause that a stop ends early.
    pub(super) fn pause(&self, at_most: Duration) {
        let running = |state: &mut State| !state.stopping;
        drop(self.changed.wait_timeout_while(self.state(), at_most, running));
    }

    /// Until nothing that was sent is waited for, at most for a while.
    pub(super) fn settle(&self, at_most: Duration) {
        let busy = |state: &mut State| !state.sent.is_empty();
        drop(self.changed.wait_timeout_while(self.state(), at_most, busy));
    }
}
