//! Owns storage without threads, for tests: the real committer and the real queries over a database in memory, each step
//! taken when a test says so. Never decides anything itself. Enter at [`Store::commit`].

use super::{Batch, Committer};
use crate::clock::Clock;
use crate::inbox::{Letter, post_office};
use crate::notification::Notification;
use crate::storage::job::{Ask, Census, Change, Errand, Outcome};
use crate::storage::{queries, reader, schema};
use rusqlite::Connection;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

pub(crate) struct Store {
    pub(super) committer: Committer,
    posted: Receiver<Letter>,
    forwarded: Receiver<Ask>,
    /// Queued for the committer.
    pub(crate) errands: VecDeque<Errand>,
    /// Queued for the reader.
    pub(crate) asks: VecDeque<Ask>,
    /// Committed, and not told yet.
    withheld: Vec<Letter>,
    behind: Vec<Ask>,
    /// Read from a snapshot, and not told yet.
    read: Option<Letter>,
    /// What the reactor finds in its inbox.
    pub(crate) letters: VecDeque<Letter>,
}

/// How writing fails, as SQLite itself says it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// At `BEGIN`.
    ReadOnly,
    /// In the middle of a transaction, wherever it needs one page more.
    Full,
}

impl Store {
    pub(crate) fn new() -> Self {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        Self::over(db)
    }

    fn over(db: Connection) -> Self {
        let (post, posted) = post_office(|| {});
        let (reader, forwarded) = channel();
        let (depth, progress) = (Arc::default(), Arc::default());
        let committer = Committer::new(db, Clock::start(), post, reader, depth, progress).unwrap();
        let (errands, asks, letters) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self {
            committer,
            posted,
            forwarded,
            errands,
            asks,
            withheld: Vec::new(),
            behind: Vec::new(),
            read: None,
            letters,
        }
    }

    /// The process ends now: what is not committed is lost, and so is what was not told.
    pub(crate) fn crash(self) -> Self {
        Self::over(self.committer.rows.db)
    }

    pub(crate) fn db(&self) -> &Connection {
        &self.committer.rows.db
    }

    pub(crate) fn census(&self) -> Census {
        queries::census(self.db()).unwrap()
    }

    /// The first `count` errands are one batch. The reader sees it at once, the reactor after [`Self::tell`].
    pub(crate) fn commit(&mut self, count: usize) {
        self.tell();
        let mut batch = Batch::default();
        for errand in self.errands.drain(..count.min(self.errands.len())) {
            self.committer.depth.writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            batch.add(errand);
        }
        self.committer.carry_out(batch);
        self.withheld.extend(self.posted.try_iter());
        self.behind.extend(self.forwarded.try_iter());
    }

    /// What the last commit has to say goes to the reactor, and the questions that came with it to the reader.
    pub(crate) fn tell(&mut self) {
        self.letters.extend(self.withheld.drain(..));
        self.asks.extend(self.behind.drain(..));
    }

    /// The notifications of the last commit, as long as it is not told.
    pub(crate) fn just_made(&self) -> impl Iterator<Item = &Notification> {
        let outcomes = self.withheld.iter().flat_map(|letter| match letter {
            Letter::Committed { outcomes, .. } => outcomes.as_slice(),
            _ => &[],
        });
        outcomes.flat_map(|outcome| &outcome.changes).filter_map(|change| match change {
            Change::Created(made) => Some(made),
            _ => None,
        })
    }

    pub(crate) fn has_told(&self) -> bool {
        self.withheld.is_empty() && self.behind.is_empty()
    }

    /// The reader takes a snapshot for its first question, or cannot.
    pub(crate) fn look(&mut self, works: bool) {
        if self.read.is_some() {
            return;
        }
        let Some(ask) = self.asks.pop_front() else { return };
        let answer = if works {
            queries::answer(self.db(), &ask.query).unwrap()
        } else {
            reader::failed(&ask.query, "cannot be read".to_owned())
        };
        let outcome = Outcome { ticket: Some(ask.ticket), answer, changes: Vec::new(), asked_us: 0, ours: true };
        self.read = Some(Letter::Answered(vec![outcome]));
    }

    /// The reader tells what it has read; meanwhile more may have been committed.
    pub(crate) fn answer(&mut self) {
        self.letters.extend(self.read.take());
    }

    /// The reader answers everything.
    pub(crate) fn answer_all(&mut self) {
        self.answer();
        while !self.asks.is_empty() {
            self.look(true);
            self.answer();
        }
    }

    pub(crate) fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::ReadOnly => self.db().pragma_update(None, "query_only", true).unwrap(),
            // No more than there are.
            Fault::Full => self.pages_max(1),
        }
    }

    /// Writing works again, which the committer finds out by itself.
    pub(crate) fn heal(&mut self) {
        self.db().pragma_update(None, "query_only", false).unwrap();
        self.pages_max(1 << 30);
    }

    fn pages_max(&self, pages: i64) {
        self.db().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    }

    /// What the committer does when nothing has come for a while.
    pub(crate) fn idle(&mut self) {
        while self.committer.file() {}
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.committer.failing
    }

    /// What the committer does once a second while writing fails.
    pub(crate) fn probe(&mut self) {
        self.committer.probe();
        self.withheld.extend(self.posted.try_iter());
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.errands.is_empty()
            && self.asks.is_empty()
            && self.read.is_none()
            && self.letters.is_empty()
            && self.has_told()
    }
}
