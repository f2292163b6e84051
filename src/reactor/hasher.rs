//! Owns the thread that hashes and compares passwords: a third of a second each, which no other thread can spare.
//! Never sees who asked. Enter at [`Hasher::hash`].

use crate::auth::password;
use crate::hub::PasswordTask;
use crate::inbox::{Letter, Postbox};
use std::io;
use std::sync::mpsc::{Sender, channel};

/// The queue to the thread; the hub bounds it.
pub(super) struct Hasher {
    tasks: Sender<PasswordTask>,
}

impl Hasher {
    pub(super) fn start(post: Postbox) -> io::Result<Self> {
        let (tasks, queue) = channel();
        // Detached: it ends with its queue.
        std::thread::Builder::new().name("hasher".to_owned()).spawn(move || {
            for task in queue {
                post.post(done(task));
            }
        })?;
        Ok(Self { tasks })
    }

    pub(super) fn hash(&self, task: PasswordTask) {
        // The thread lives as long as this.
        let _ = self.tasks.send(task);
    }
}

fn done(task: PasswordTask) -> Letter {
    match task {
        PasswordTask::Encode { ticket, mut command } => {
            command.hash_password();
            Letter::Hashed { ticket, command }
        }
        PasswordTask::Check { ticket, password, mut candidates, refusal_rounds, cost } => {
            let stored = candidates.iter().map(|(_, stored)| stored.as_str());
            let checked = password::check(&password, stored, refusal_rounds);
            let found = checked.which.map(|place| candidates.swap_remove(place));
            Letter::Checked { ticket, found, cost }
        }
    }
}
