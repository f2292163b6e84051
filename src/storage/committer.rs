//! Owns the only thread that writes: it gathers what is queued into one transaction, syncs it, and only then tells.
//! Never waits for more to come, but for receipts, which may ride along. Enter at [`Committer::run`].

use super::Depth;
use super::apply::Writer;
use super::job::{Answer, Ask, Errand, Job, Outcome, Pulse};
use crate::clock::Clock;
use crate::inbox::{Letter, Postbox};
use rusqlite::{Connection, ErrorCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

/// Commands in one transaction: enough to share a sync, few enough that the first does not wait for the last.
const BATCH_MAX: usize = 512;
/// How long receipts wait for a commit to ride on.
const RECEIPTS_WAIT: Duration = Duration::from_millis(20);
/// A pause after which the trailing indexes are brought up.
const FILE_AFTER: Duration = Duration::from_millis(500);
/// While writing fails: how often it is tried whether it works again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Committer {
    rows: Writer,
    clock: Clock,
    post: Postbox,
    reader: Sender<Ask>,
    depth: Arc<Depth>,
    /// Whether the last commit failed.
    failing: bool,
}

/// What one transaction is made of.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    asks: Vec<Ask>,
    pulses: Vec<Pulse>,
}

impl Batch {
    fn add(&mut self, errand: Errand) {
        match errand {
            Errand::Write(job) => self.jobs.push(job),
            Errand::ReadAfter(ask) => self.asks.push(ask),
            Errand::Pulse(pulse) => self.pulses.push(pulse),
        }
    }

    /// Nothing in it that anybody waits for.
    fn can_wait(&self) -> bool {
        self.asks.is_empty() && self.pulses.is_empty() && self.jobs.iter().all(|job| job.command.can_wait())
    }
}

impl Committer {
    pub(super) fn new(
        db: Connection,
        clock: Clock,
        post: Postbox,
        reader: Sender<Ask>,
        depth: Arc<Depth>,
    ) -> rusqlite::Result<Self> {
        Ok(Self { rows: Writer::new(db)?, clock, post, reader, depth, failing: false })
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self, errands: &Receiver<Errand>) {
        while let Some(batch) = self.gather(errands) {
            let count = batch.jobs.len() + batch.asks.len() + batch.pulses.len();
            if !batch.jobs.is_empty() {
                self.commit(batch.jobs);
            }
            self.depth.writes.fetch_sub(count, Ordering::Relaxed);
            if self.rows.must_file() {
                self.file();
            }
            batch.pulses.into_iter().for_each(Pulse::send_back);
            for ask in batch.asks {
                self.depth.reads.fetch_add(1, Ordering::Relaxed);
                if self.reader.send(ask).is_err() {
                    self.depth.reads.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        self.file();
        // Leaves a tidy file: nothing to recover, nothing but the database to copy.
        if let Err(e) = self.rows.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            self.post.post(Letter::Health(Some(e.to_string())));
        }
    }

    /// What is queued now, at least one errand; `None` once the queue is closed. While writing fails, probes.
    fn gather(&mut self, errands: &Receiver<Errand>) -> Option<Batch> {
        let mut batch = Batch::default();
        loop {
            let first = if self.failing {
                errands.recv_timeout(PROBE_EVERY)
            } else if self.rows.has_unfiled() {
                errands.recv_timeout(FILE_AFTER)
            } else {
                errands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match first {
                Ok(errand) => break batch.add(errand),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.failing => self.probe(),
                Err(RecvTimeoutError::Timeout) => self.file(),
            }
        }
        let until_us = self.clock.now().monotonic_us + RECEIPTS_WAIT.as_micros() as u64;
        while batch.jobs.len() < BATCH_MAX {
            match errands.try_recv() {
                Ok(errand) => batch.add(errand),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) if !batch.can_wait() => break,
                Err(TryRecvError::Empty) => {
                    let left = until_us.saturating_sub(self.clock.now().monotonic_us);
                    match errands.recv_timeout(Duration::from_micros(left)) {
                        Ok(errand) => batch.add(errand),
                        Err(_) => break,
                    }
                }
            }
        }
        Some(batch)
    }

    /// Brings the trailing indexes up. Where it fails nothing is lost and nothing is told: writing fails, too, and says so.
    fn file(&mut self) {
        if self.rows.file().is_err() {
            self.roll_back();
        }
    }

    /// One transaction for all. Where a command of the batch cannot be carried out (our fault, not the disk's), each is
    /// tried alone, so that only that one fails.
    fn commit(&mut self, jobs: Vec<Job>) {
        let began_us = self.clock.now().monotonic_us;
        let (outcomes, failure) = match self.transaction(&jobs) {
            Ok(outcomes) => (outcomes, None),
            Err(e) if is_environment(&e) || jobs.len() == 1 => {
                let why = e.to_string();
                (failed(jobs, &why), is_environment(&e).then_some(why))
            }
            Err(_) => return jobs.into_iter().for_each(|job| self.commit(vec![job])),
        };
        let took_us = self.clock.now().monotonic_us - began_us;
        self.tell_health(failure);
        self.post.post(Letter::Committed { outcomes, took_us });
    }

    fn transaction(&mut self, jobs: &[Job]) -> rusqlite::Result<Vec<Outcome>> {
        let applied = self.attempt(jobs);
        if applied.is_err() {
            self.roll_back();
        }
        applied
    }

    fn roll_back(&mut self) {
        // SQLite rolls back by itself on some errors (a full disk); then there is nothing left to roll back.
        if !self.rows.db.is_autocommit() {
            let _ = self.rows.db.execute_batch("ROLLBACK");
        }
        // Where even this cannot be read, the probe reads it once writing works again; ids only leave a gap.
        let _ = self.rows.reload();
    }

    fn attempt(&mut self, jobs: &[Job]) -> rusqlite::Result<Vec<Outcome>> {
        self.rows.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            let (answer, changes) = self.rows.apply(job)?;
            outcomes.push(Outcome { ticket: job.ticket, answer, changes, asked_us: job.asked_us });
        }
        self.rows.db.prepare_cached("COMMIT")?.execute([])?;
        Ok(outcomes)
    }

    /// Tries a write that changes nothing that anybody sees.
    fn probe(&mut self) {
        let tried = self
            .rows
            .db
            .execute_batch("BEGIN IMMEDIATE; INSERT OR REPLACE INTO meta VALUES ('probe', random()); COMMIT");
        if tried.is_err() && !self.rows.db.is_autocommit() {
            let _ = self.rows.db.execute_batch("ROLLBACK");
        }
        if tried.is_ok() && self.rows.reload().is_ok() {
            self.tell_health(None);
        }
    }

    fn tell_health(&mut self, failure: Option<String>) {
        if failure.is_some() || self.failing {
            self.failing = failure.is_some();
            self.post.post(Letter::Health(failure));
        }
    }
}

fn failed(jobs: Vec<Job>, why: &str) -> Vec<Outcome> {
    jobs.into_iter()
        .map(|job| Outcome {
            ticket: job.ticket,
            answer: Answer::Failed(why.to_owned()),
            changes: Vec::new(),
            asked_us: job.asked_us,
        })
        .collect()
}

/// The disk or the file, not the statement: trying each command alone would not help.
fn is_environment(e: &rusqlite::Error) -> bool {
    !matches!(
        e.sqlite_error_code(),
        None | Some(
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::ParameterOutOfRange
                | ErrorCode::TooBig
                | ErrorCode::ApiMisuse
        )
    )
}
