//! Owns the only thread that writes: it gathers what is queued into one transaction, syncs it, and only then tells.
//! Never waits for more to come, but for receipts, which may ride along. Enter at [`Committer::run`].

#[cfg(test)]
pub(crate) mod stepwise;

use super::Depth;
use super::apply::Writer;
use super::gather::{Takes, top_up};
use super::job::{Answer, Ask, Change, Errand, Job, Outcome, Pulse};
use super::mark::{Entry, Progress};
use super::place::Place;
use crate::clock::Clock;
use crate::inbox::{Letter, Postbox};
use rusqlite::{Connection, ErrorCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Rows in one transaction: enough to share a sync, few enough that the first does not wait for the last.
const BATCH_MAX: usize = 512;
/// A pause after which the trailing indexes are brought up.
const FILE_AFTER: Duration = Duration::from_millis(500);
/// While writing fails: how long after a try it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Committer {
    rows: Writer,
    place: Place,
    clock: Clock,
    post: Postbox,
    reader: Sender<Ask>,
    depth: Arc<Depth>,
    progress: Arc<Progress>,
    /// Whether the last commit failed.
    failing: bool,
    /// While it fails: when it is tried again (monotonic µs), whatever comes meanwhile.
    try_again_us: u64,
    /// What is counted in memory could not be read again after a rollback.
    stale: bool,
    /// Entries of the log that could not be committed yet: nothing behind them can be.
    held: Vec<Entry>,
}

/// What one transaction is made of: jobs of this node alone, or entries of a log that several nodes follow.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    entries: Vec<Entry>,
    asks: Vec<Ask>,
    /// Errands, and about how many rows they make.
    errands: usize,
    rows: usize,
    pulses: Vec<Pulse>,
    /// Somebody waits for something in it. What an entry says has waited already.
    urgent: bool,
}

impl Batch {
    fn add(&mut self, errand: Errand) {
        self.errands += 1;
        self.urgent |= !matches!(&errand, Errand::Write(job) if job.command.can_wait());
        match errand {
            Errand::Write(job) => {
                self.rows += job.command.rows();
                self.jobs.push(job);
            }
            Errand::ReadAfter(ask) => self.asks.push(ask),
            Errand::Follow(mut entry) => {
                self.rows += entry.jobs.iter().map(|job| job.command.rows()).sum::<usize>().max(1);
                self.asks.append(&mut entry.asks);
                self.entries.push(entry);
            }
            Errand::Pulse(pulse) => self.pulses.push(pulse),
        }
    }

    fn takes(&self) -> Takes {
        match (self.rows < BATCH_MAX, self.urgent) {
            (false, _) => Takes::Nothing,
            (true, true) => Takes::WhatIsThere,
            (true, false) => Takes::WhatComes,
        }
    }
}

impl Committer {
    pub(super) fn new(
        db: Connection,
        clock: Clock,
        post: Postbox,
        reader: Sender<Ask>,
        depth: Arc<Depth>,
        progress: Arc<Progress>,
    ) -> rusqlite::Result<Self> {
        let (place, rows, held) = (Place::of(&db), Writer::new(db)?, Vec::new());
        let (failing, try_again_us, stale) = (false, 0, false);
        Ok(Self { rows, place, clock, post, reader, depth, progress, failing, try_again_us, stale, held })
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self, errands: &Receiver<Errand>) {
        while let Some(batch) = self.gather(errands) {
            self.carry_out(batch);
        }
        while self.file() {}
        // Leaves a tidy file: nothing to recover, nothing but the database to copy.
        if let Err(e) = self.rows.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            self.post.post(Letter::Health(Some(e.to_string())));
        }
    }

    fn carry_out(&mut self, batch: Batch) {
        if !batch.jobs.is_empty() {
            self.commit(&batch.jobs);
        }
        if !batch.entries.is_empty() {
            self.held.extend(batch.entries);
            self.follow();
        }
        self.depth.writes.fetch_sub(batch.errands, Ordering::Relaxed);
        batch.pulses.into_iter().for_each(Pulse::send_back);
        for ask in batch.asks {
            self.depth.reads.fetch_add(1, Ordering::Relaxed);
            if self.reader.send(ask).is_err() {
                self.depth.reads.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// What is queued now, at least one errand; `None` once the queue is closed. While writing fails, tries again.
    fn gather(&mut self, errands: &Receiver<Errand>) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut file_after = FILE_AFTER;
        loop {
            let first = if self.failing {
                match self.try_again_us.saturating_sub(self.clock.now().monotonic_us) {
                    0 => Err(RecvTimeoutError::Timeout),
                    left => errands.recv_timeout(Duration::from_micros(left)),
                }
            } else if self.rows.has_unfiled() {
                errands.recv_timeout(file_after)
            } else {
                errands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match first {
                Ok(errand) => break batch.add(errand),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.failing => self.try_again(),
                Err(RecvTimeoutError::Timeout) => file_after = if self.file() { Duration::ZERO } else { FILE_AFTER },
            }
        }
        top_up(&mut batch, errands, self.clock, Batch::takes, Batch::add);
        Some(batch)
    }

    /// Brings the trailing indexes up by a portion; whether more is left. Where it fails nothing is lost and nothing is
    /// told: writing fails, too, and says so.
    fn file(&mut self) -> bool {
        // What is to be filed is known from memory: with half of it, the rest would never be.
        if self.stale && self.rows.reload().is_err() {
            return false;
        }
        self.stale = false;
        let filed = self.rows.file();
        if filed.is_err() {
            self.roll_back();
        }
        filed.is_ok() && self.rows.has_unfiled()
    }

    fn commit(&mut self, jobs: &[Job]) {
        let began_us = self.clock.now().monotonic_us;
        let committed =
            self.transaction_of(|rows, apply| jobs.iter().map(|job| outcome(rows, apply, job, true)).collect());
        let (outcomes, failure) = match committed {
            Ok(outcomes) => (outcomes, None),
            Err(e) => {
                let why = e.to_string();
                (jobs.iter().map(|job| failed(job, &why)).collect(), is_environment(&e).then_some(why))
            }
        };
        let took_us = self.clock.now().monotonic_us - began_us;
        self.tell_health(failure);
        self.post.post(Letter::Committed { outcomes, took_us });
    }

    /// What the log says, with the position in the same transaction. What the disk refuses is held and tried again: an
    /// entry that was left out would make this node differ from the others.
    fn follow(&mut self) {
        let began_us = self.clock.now().monotonic_us;
        let entries = std::mem::take(&mut self.held);
        let committed = self.transaction_of(|rows, apply| {
            let jobs = entries.iter().flat_map(|entry| entry.jobs.iter().map(|job| (job, entry.ours)));
            let outcomes = jobs.map(|(job, ours)| outcome(rows, apply, job, ours)).collect::<Result<_, _>>()?;
            entries.last().map_or(Ok(()), |last| last.mark.write(&rows.db))?;
            Ok(outcomes)
        });
        match committed {
            Ok(outcomes) => {
                if let Some(last) = entries.last() {
                    self.progress.set_mark(Some(last.mark));
                }
                let took_us = self.clock.now().monotonic_us - began_us;
                self.tell_health(None);
                self.post.post(Letter::Committed { outcomes, took_us });
            }
            Err(e) => {
                self.held = entries;
                self.refuse_held(&e.to_string());
                self.tell_health(Some(e.to_string()));
            }
        }
    }

    /// Nobody has to wait for a disk that does not write; what was asked for is done later all the same.
    fn refuse_held(&mut self, why: &str) {
        let mut outcomes = Vec::new();
        for entry in self.held.iter_mut().filter(|entry| entry.ours) {
            entry.ours = false;
            // It holds this thread's own queue, which would never end.
            entry.room = None;
            for job in &mut entry.jobs {
                outcomes.push(failed(job, why));
                job.ticket = None;
            }
        }
        if !outcomes.is_empty() {
            self.post.post(Letter::Answered(outcomes));
        }
    }

    /// One transaction for all commands of `work`. Where one cannot be carried out (our fault, not the disk's), another
    /// in which each is apart: that one fails alone, and on every node.
    fn transaction_of(
        &mut self,
        work: impl Fn(&mut Writer, Apply) -> rusqlite::Result<Vec<Outcome>>,
    ) -> rusqlite::Result<Vec<Outcome>> {
        match self.transaction(|rows| work(rows, Writer::apply)) {
            Err(e) if !is_environment(&e) => self.transaction(|rows| work(rows, apply_apart)),
            done => done,
        }
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&mut Writer) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        if self.stale {
            self.rows.reload()?;
            self.stale = false;
        }
        let done = self.attempt(work);
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    fn roll_back(&mut self) {
        // SQLite rolls back by itself on some errors (a full disk); then there is nothing left to roll back.
        if !self.rows.db.is_autocommit() {
            let _ = self.rows.db.execute_batch("ROLLBACK");
        }
        self.stale = self.rows.reload().is_err();
    }

    fn attempt<T>(&mut self, work: impl FnOnce(&mut Writer) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.place.check()?;
        self.rows.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = work(&mut self.rows)?;
        self.rows.file_slice()?;
        self.rows.db.prepare_cached("COMMIT")?.execute([])?;
        Ok(done)
    }

    fn try_again(&mut self) {
        self.put_off();
        if self.held.is_empty() {
            self.probe();
        } else {
            self.follow();
        }
    }

    fn put_off(&mut self) {
        self.try_again_us = self.clock.now().monotonic_us + TRY_AGAIN.as_micros() as u64;
    }

    /// Tries a write that changes nothing that anybody sees.
    fn probe(&mut self) {
        let write = "BEGIN IMMEDIATE; INSERT OR REPLACE INTO meta VALUES ('probe', random()); COMMIT";
        let tried = self.place.check().and_then(|()| self.rows.db.execute_batch(write));
        if tried.is_err() && !self.rows.db.is_autocommit() {
            let _ = self.rows.db.execute_batch("ROLLBACK");
        }
        if tried.is_ok() && self.rows.reload().is_ok() {
            self.stale = false;
            self.tell_health(None);
        }
    }

    fn tell_health(&mut self, failure: Option<String>) {
        if failure.is_some() || self.failing {
            self.failing = failure.is_some();
            self.put_off();
            self.progress.set_failing(self.failing);
            self.post.post(Letter::Health(failure));
        }
    }
}

/// How a job is carried out.
type Apply = fn(&mut Writer, &Job) -> rusqlite::Result<(Answer, Vec<Change>)>;

fn outcome(rows: &mut Writer, apply: Apply, job: &Job, ours: bool) -> rusqlite::Result<Outcome> {
    let (answer, changes) = apply(rows, job)?;
    Ok(Outcome { ticket: job.ticket, answer, changes, asked_us: job.asked_us, ours })
}

/// Its failure undoes nothing but its own changes.
fn apply_apart(rows: &mut Writer, job: &Job) -> rusqlite::Result<(Answer, Vec<Change>)> {
    rows.db.execute_batch("SAVEPOINT one")?;
    let applied = match rows.apply(job) {
        Err(e) if is_environment(&e) => return Err(e),
        Err(e) => {
            rows.db.execute_batch("ROLLBACK TO one")?;
            rows.reload()?;
            (Answer::Failed(e.to_string()), Vec::new())
        }
        Ok(applied) => applied,
    };
    rows.db.execute_batch("RELEASE one")?;
    Ok(applied)
}

fn failed(job: &Job, why: &str) -> Outcome {
    let answer = Answer::Failed(why.to_owned());
    Outcome { ticket: job.ticket, answer, changes: Vec::new(), asked_us: job.asked_us, ours: true }
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

#[cfg(test)]
mod tests {
    use super::stepwise::{Fault, Store};
    use super::*;
    use crate::api::command::{Command, Query, Recipients};
    use crate::matching::UserId;
    use crate::notification::{Channel, General};
    use crate::storage::job::Ticket;
    use crate::storage::mark::{Mark, Position, Tag};
    use std::sync::mpsc::channel;
    use uuid::Uuid;

    fn entry(seq: u64, commands: Vec<Command>) -> Entry {
        let (log, node) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mark = Mark { log, position: Position { ms: 1, seq }, tag: Tag { run: node, number: seq }, node };
        let jobs = commands.into_iter().map(job).collect();
        Entry { mark, jobs, ours: false, asks: Vec::new(), room: None }
    }

    fn job(command: Command) -> Job {
        Job { command, ticket: Some(Ticket::NOBODY), idempotency: None, at_ms: 1, asked_us: 0 }
    }

    #[test]
    fn a_disk_that_works_again_is_found_out_about_between_questions() {
        for errand in [Errand::Write(job(Command::Meet { user: UserId(1) })), Errand::Follow(entry(1, Vec::new()))] {
            let mut store = Store::new();
            store.fail(Fault::ReadOnly);
            store.errands.push_back(errand);
            store.commit(1);
            assert!(store.is_failing());
            store.heal();
            let (queue, errands) = channel();
            let mut fails_at = |try_again_us| {
                let ask = Ask { query: Query::User { id: UserId(1) }, ticket: Ticket::NOBODY };
                queue.send(Errand::ReadAfter(ask)).unwrap();
                store.committer.try_again_us = try_again_us;
                assert_eq!(store.committer.gather(&errands).unwrap().asks.len(), 1);
                store.is_failing()
            };
            assert!(fails_at(u64::MAX));
            assert!(!fails_at(0));
            assert!(store.committer.held.is_empty());
        }
    }

    #[test]
    fn nothing_is_filed_from_half_a_memory() {
        let mut store = Store::new();
        store.committer.stale = true;
        store.committer.file();
        assert!(!store.committer.stale);
        store.db().execute_batch("ALTER TABLE meta RENAME TO elsewhere").unwrap();
        store.committer.stale = true;
        assert!(!store.committer.file());
        assert!(store.committer.stale, "what it could not read, it does not know");
    }

    #[test]
    fn a_transaction_is_measured_by_its_rows() {
        let general = General { kind: String::new(), title: String::new(), message: "m".into(), data: "{}".into() };
        let to = Recipients::Many((1..=BATCH_MAX as i64).map(UserId).collect());
        let mut batch = Batch::default();
        batch.add(Errand::Follow(entry(1, vec![Command::Meet { user: UserId(1) }])));
        assert!(!matches!(batch.takes(), Takes::Nothing));
        batch.add(Errand::Follow(entry(2, vec![Command::Notify { to, channel: Channel::Tenant, general }])));
        assert!(matches!(batch.takes(), Takes::Nothing));
    }

    #[test]
    fn a_command_that_cannot_be_carried_out_fails_alone() {
        let commands = || (1..=3).map(|user| Command::Meet { user: UserId(user) });
        let apart = commands().map(|command| Errand::Write(job(command))).collect();
        for errands in [apart, vec![Errand::Follow(entry(1, commands().collect()))]] {
            let mut store = Store::new();
            let fails = "CREATE TRIGGER no BEFORE INSERT ON visitor WHEN NEW.id = 2
                BEGIN SELECT RAISE(ABORT, 'no'); END";
            store.db().execute_batch(fails).unwrap();
            store.errands.extend(errands);
            store.commit(3);
            store.tell();
            let [Letter::Committed { outcomes, .. }] = store.letters.make_contiguous() else {
                panic!("{:?}", store.letters)
            };
            let told: Vec<_> = outcomes.iter().map(|outcome| matches!(outcome.answer, Answer::Failed(_))).collect();
            assert_eq!(told, [false, true, false]);
            assert!(!store.is_failing());
            assert_eq!(crate::storage::queries::known_users(store.db()).unwrap(), [UserId(1), UserId(3)]);
        }
    }
}
