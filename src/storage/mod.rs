//! Owns where everything is kept: one SQLite file, one thread that writes it, one that reads it.
//! Never decides who may do what and never touches a socket. Enter at [`Storage::open`].

mod apply;
mod committer;
pub mod explain;
pub mod file;
pub mod import;
pub mod job;
mod queries;
mod reader;
mod schema;

use crate::clock::Clock;
use crate::inbox::Postbox;
use file::{DatabaseFile, OpenError};
use job::{Ask, Census, Errand, Job, Pulse};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The two threads and the queues to them.
pub struct Storage {
    writes: Sender<Errand>,
    reads: Sender<Ask>,
    depth: Arc<Depth>,
    threads: Vec<JoinHandle<()>>,
}

/// How much is waiting in each queue. Counted by the loop that fills them, counted down by the threads.
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
        let committer = committer::Committer::new(db, clock, post.clone(), reads.clone(), Arc::clone(&depth))
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
        Ok((Self { writes, reads, depth, threads }, census))
    }

    pub fn write(&self, job: Job) {
        self.errand(Errand::Write(job));
    }

    /// A question that sees what was asked for before it.
    pub fn read_after_writes(&self, ask: Ask) {
        self.errand(Errand::ReadAfter(ask));
    }

    /// Sent back once everything asked for before it is done.
    pub fn pulse(&self, pulse: Pulse) {
        self.errand(Errand::Pulse(pulse));
    }

    pub fn read(&self, ask: Ask) {
        self.depth.reads.fetch_add(1, Ordering::Relaxed);
        if self.reads.send(ask).is_err() {
            self.depth.reads.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn errand(&self, errand: Errand) {
        self.depth.writes.fetch_add(1, Ordering::Relaxed);
        if self.writes.send(errand).is_err() {
            self.depth.writes.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Jobs that wait for their commit, and questions that wait for their answer.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        (self.depth.writes.load(Ordering::Relaxed), self.depth.reads.load(Ordering::Relaxed))
    }

    /// Commits what is queued and ends the threads.
    pub fn close(self) {
        drop((self.writes, self.reads));
        for thread in self.threads {
            // A thread that panicked has said so; there is nothing to add at the end.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|e| OpenError::Failed { path: format!("thread {name}"), what: e.to_string() })
}
