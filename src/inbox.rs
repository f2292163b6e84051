//! Owns the road from other threads to the reactor: letters in a queue, and the waker that makes it look.
//! Never shares state. Enter at [`post_office`].

use crate::api::command::Command;
use crate::api::routes::Resource;
use crate::config::Level;
use crate::hub::Rules;
use crate::hub::event::Unusable;
use crate::matching::UserId;
use crate::metrics::Vitals;
use crate::storage::job::{Outcome, Pulse, Ticket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What another thread tells the reactor.
#[derive(Debug)]
pub enum Letter {
    /// One commit, in order, and how long it took.
    Committed { outcomes: Vec<Outcome>, took_us: u64 },
    /// Answers of the reader.
    Answered(Vec<Outcome>),
    /// A password was hashed: the command that holds it may go on.
    Hashed { ticket: Ticket, command: Command },
    /// A password was compared: whose it is, and his stored one. `cost`: rounds, as the hub reckoned them.
    Checked { ticket: Ticket, found: Option<(UserId, String)>, cost: u64 },
    /// Writing fails (why), or works again.
    Health(Option<String>),
    /// The log that several nodes follow cannot be written or read (why), or can be again.
    LogHealth(Option<String>),
    /// Messages of Django's layer that were dropped.
    DjangoRefused { cause: Unusable, count: u64 },
    /// SIGHUP, and the configuration was right: what to obey from now on. `done` goes once it is obeyed.
    Reload { rules: Box<Rules>, level: Level, restart: Vec<&'static str>, done: Sender<()> },
    /// SIGHUP, and the configuration was wrong: all that is, and nothing changes.
    NotReloaded { mistakes: Vec<String> },
    /// On its way through the loop and the committer.
    Pulse(Pulse),
    /// What the kernel says of this process, for one of the operator's pages.
    Vitals { ticket: Ticket, page: Resource, vitals: Vitals },
    /// SIGTERM or SIGINT.
    Stop,
}

/// The sending end; each thread has its own.
#[derive(Clone)]
pub struct Postbox {
    letters: Sender<Letter>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Postbox {
    /// Leaves a letter and wakes the reactor. After the reactor has ended, nothing happens.
    pub fn post(&self, letter: Letter) {
        if self.letters.send(letter).is_ok() {
            (self.wake)();
        }
    }
}

/// The two ends of the road. `wake` must be callable from any thread (`mio::Waker::wake`).
#[must_use]
pub fn post_office(wake: impl Fn() + Send + Sync + 'static) -> (Postbox, Receiver<Letter>) {
    let (letters, inbox) = channel();
    (Postbox { letters, wake: Arc::new(wake) }, inbox)
}
