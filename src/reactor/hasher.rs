//! Owns the thread that hashes passwords: a third of a second each, which no other thread can spare.
//! Never sees who asked. Enter at [`Hasher::hash`].

use crate::api::command::Command;
use crate::inbox::{Letter, Postbox};
use crate::storage::job::Ticket;
use std::io;
use std::sync::mpsc::{Sender, channel};

/// The queue to the thread; the hub bounds it.
pub(super) struct Hasher {
    tasks: Sender<(Ticket, Command)>,
}

impl Hasher {
    pub(super) fn start(post: Postbox) -> io::Result<Self> {
        let (tasks, queue) = channel::<(Ticket, Command)>();
        // Detached: it ends with its queue.
        std::thread::Builder::new().name("hasher".to_owned()).spawn(move || {
            for (ticket, mut command) in queue {
                command.hash_password();
                post.post(Letter::Hashed { ticket, command });
            }
        })?;
        Ok(Self { tasks })
    }

    pub(super) fn hash(&self, ticket: Ticket, command: Command) {
        // The thread lives as long as this.
        let _ = self.tasks.send((ticket, command));
    }
}
