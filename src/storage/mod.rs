//! Owns where everything is kept: one SQLite file, one thread that writes it, one that reads it.
//! Never decides who may do what and never touches a socket. Enter at [`Storage::open`].

mod apply;
mod committer;
pub mod explain;
pub mod file;
pub(crate) mod gather;
pub mod import;
pub mod job;
pub mod mark;
mod place;
mod queries;
mod reader;
mod schema;

#[cfg(test)]
pub(crate) use committer::stepwise;

use crate::clock::Clock;
use crate::inbox::Postbox;
use file::{DatabaseFile, OpenError};
use job::{Ask, Census, Errand, Pulse};
use mark::{Entry, Mark, Progress};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The two threads and the queues to them.
pub struct Storage {
    desk: Desk,
    reads: Sender<Ask>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
}

/// Where errands are left; each thread that leaves some has its own.
#[derive(Clone)]
pub struct Desk {
    writes: Sender<Errand>,
    depth: Arc<Depth>,
}

impl Desk {
    /// Queues it for the committer. Once that has ended, it is dropped and nobody is told.
    pub fn leave(&self, errand: Errand) {
        self.depth.writes.fetch_add(1, Ordering::Relaxed);
        if self.writes.send(errand).is_err() {
            self.depth.writes.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The next entry of a log.
    pub fn follow(&self, entry: Entry) {
        self.leave(Errand::Follow(entry));
    }
}

/// How much is waiting in each queue. Counted by whoever fills them, the loop and the threads of a shared log; counted
/// down by storage's threads.
#[derive(Default)]
pub struct Depth {
    pub writes: AtomicUsize,
    pub reads: AtomicUsize,
}

impl Storage {
    /// Opens (or makes) the database, checks it, brings it to this version, and starts the threads. Answers go to `post`.
    pub fn open(file: DatabaseFile, clock: Clock, post: &Postbox) -> Result<(Self, Census), OpenError> {
        let path = file.path().to_owned();
        let db = file.connect()?;
        let census = queries::census(&db).map_err(|e| file::explain(&path, &e))?;
        let snapshot = file::connect_to_read(&path)?;
        let (writes, errands) = channel();
        let (reads, asks) = channel();
        let depth = Arc::new(Depth::default());
        let progress = Arc::new(Progress::default());
        progress.set_mark(Mark::of(&db).map_err(|e| file::explain(&path, &e))?);
        let committer = committer::Committer::new(
            db,
            clock,
            post.clone(),
            reads.clone(),
            Arc::clone(&depth),
            Arc::clone(&progress),
        )
        .map_err(|e| file::explain(&path, &e))?;
        let threads = vec![
            spawn("committer", {
                // The lock on the file lives as long as the thread that writes it.
                move || {
                    committer.run(&errands);
                    drop(file);
                }
            })?,
            spawn("reader", {
                let (post, depth) = (post.clone(), Arc::clone(&depth));
                move || reader::run(snapshot, &asks, &post, &depth)
            })?,
        ];
        Ok((Self { desk: Desk { writes, depth }, reads, progress, threads }, census))
    }

    /// As [`Desk::leave`].
    pub fn leave(&self, errand: Errand) {
        self.desk.leave(errand);
    }

    /// Sent back once everything asked for before it is done.
    pub fn pulse(&self, pulse: Pulse) {
        self.desk.leave(Errand::Pulse(pulse));
    }

    /// A question for the reader, past what waits for its commit. Once the reader has ended, it is dropped and nobody is
    /// told.
    pub fn read(&self, ask: Ask) {
        self.desk.depth.reads.fetch_add(1, Ordering::Relaxed);
        if self.reads.send(ask).is_err() {
            self.desk.depth.reads.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A desk for another thread. Storage closes once every desk has gone.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// How far a log is applied.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Jobs that wait for their commit, and questions that wait for their answer.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        (self.desk.depth.writes.load(Ordering::Relaxed), self.desk.depth.reads.load(Ordering::Relaxed))
    }

    /// Commits what is queued and ends the threads.
    pub fn close(self) {
        drop((self.desk, self.reads));
        for thread in self.threads {
            // A thread that panicked has said so; there is nothing to add at the end.
            let _ = thread.join();
        }
    }
}

/// Everybody whom a database knows, read beside its writer.
pub fn known_users(path: &std::path::Path) -> Result<Vec<crate::matching::UserId>, OpenError> {
    let db = file::connect_to_read(path)?;
    queries::known_users(&db).map_err(|e| file::explain(path, &e))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|e| OpenError::Failed { path: format!("thread {name}"), what: e.to_string() })
}
