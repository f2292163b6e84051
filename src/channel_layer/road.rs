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
    /// Why each of the two threads cannot do its work; `None`: it can.
    reading: Option<String>,
    writing: Option<String>,
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

/// The reading side is on its way to the end of the log: what it is waited for, not what it fails at.
pub(super) const CATCHING_UP: &str = "catching up";

/// Which of the two threads speaks.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Reading,
    Writing,
}

impl Road {
    /// Closed until the reading side says otherwise.
    pub(super) fn new(post: Postbox, desk: Desk) -> Arc<Self> {
        let reading = Some(CATCHING_UP.to_owned());
        let state = State {
            reading,
            writing: None,
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

    /// Works, or why not.
    pub(super) fn set(&self, side: Side, why: Option<String>) {
        let mut state = self.state();
        match side {
            Side::Reading => {
                state.away |= why.as_ref().is_some_and(|why| why != CATCHING_UP);
                if why.is_none() && std::mem::take(&mut state.away) {
                    state.returns += 1;
                }
                state.reading = why;
            }
            Side::Writing => state.writing = why,
        }
        self.tell(&mut state);
        self.changed.notify_all();
    }

    fn tell(&self, state: &mut State) {
        let now = state.reading.clone().or_else(|| state.writing.clone());
        if now != state.told {
            state.told.clone_from(&now);
            self.post.post(Letter::LogHealth(now));
        }
    }

    /// Why nothing may be appended now: what this node does not follow, it must not add to.
    pub(super) fn is_closed(&self) -> Option<String> {
        self.state().reading.clone().filter(|why| why != CATCHING_UP)
    }

    /// Changes whenever Redis was away and is back: another connection is needed.
    pub(super) fn returns(&self) -> u64 {
        self.state().returns
    }

    pub(super) fn writes(&self) -> bool {
        self.state().writing.is_none()
    }

    /// Room for one more entry under way, waited for; so is the reading side on its way to the end of the log.
    pub(super) fn make_room(self: &Arc<Self>, most: usize, at_most: Duration) -> Option<Room> {
        let full = |state: &mut State| {
            !state.stopping && (state.rooms >= most || state.reading.as_deref() == Some(CATCHING_UP))
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
        let running = |state: &mut State| !state.stopping && !state.closing;
        drop(self.changed.wait_timeout_while(self.state(), at_most, running));
    }

    /// Until nothing that was sent is waited for, at most for a while.
    pub(super) fn settle(&self, at_most: Duration) {
        let busy = |state: &mut State| !state.sent.is_empty();
        drop(self.changed.wait_timeout_while(self.state(), at_most, busy));
    }
}
