//! Owns the road from a command to its commit: straight to this process's committer, or through one log that several
//! nodes follow. The hub sees no difference. Never changes the order. Enter at [`ChannelLayer::submit`].

mod address;
mod appender;
mod entry;
mod follower;
mod log;
mod road;

use crate::clock::Clock;
use crate::config;
use crate::inbox::Postbox;
use crate::storage::Storage;
use crate::storage::job::Errand;
use address::Address;
use appender::Appender;
use follower::{Follower, Keeping, Stand};
use log::{Log, Trouble};
use road::Road;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use uuid::Uuid;

pub struct ChannelLayer {
    storage: Storage,
    shared: Option<Shared>,
}

/// `CHANNEL_LAYER=redis`: the threads beside storage.
struct Shared {
    queue: Sender<Errand>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a shared log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("channel_layer: {0}")]
    Address(redis::RedisError),
    /// The database and the log do not go together.
    #[error("{0}")]
    Log(String),
    #[error("thread {0}: {1}")]
    Thread(&'static str, std::io::Error),
}

impl ChannelLayer {
    /// `CHANNEL_LAYER=inmemory`.
    #[must_use]
    pub fn in_memory(storage: Storage) -> Self {
        Self { storage, shared: None }
    }

    /// `CHANNEL_LAYER=redis`. Where Redis is not there (yet), what there is can be read meanwhile. `database`: the file
    /// behind `storage`.
    pub fn shared(
        storage: Storage,
        database: &Path,
        settings: &config::ChannelLayer,
        post: &Postbox,
        clock: Clock,
    ) -> Result<Self, JoinError> {
        let address = Address::new(&settings.redis, settings.redis_timeout).map_err(JoinError::Address)?;
        let log = Log::new(&settings.log_key);
        let road = Road::new(post.clone(), storage.desk());
        let (progress, stand, run) = (storage.progress(), Arc::new(Stand::default()), Uuid::new_v4());
        let mark = progress.mark();
        let mut follower = Follower {
            log: log.clone(),
            address: address.clone(),
            road: Arc::clone(&road),
            progress: Arc::clone(&progress),
            stand: Arc::clone(&stand),
            keeping: Keeping { keep: settings.log_keep, forget: settings.log_forget },
            path: database.to_owned(),
            run,
            clock,
            at: mark,
            joined: false,
        };
        if let Err(Trouble::Log(what)) = follower.first_look() {
            drop((follower, road));
            storage.close();
            return Err(JoinError::Log(what));
        }
        let appender = Appender {
            log,
            address,
            road,
            progress,
            stand,
            run,
            clock,
            link: None,
            link_of: 0,
            used_us: 0,
            number: 0,
            parked: VecDeque::new(),
        };
        let (queue, asked) = channel();
        let threads =
            vec![spawn("log reader", move || follower.run())?, spawn("log writer", move || appender.run(&asked))?];
        Ok(Self { storage, shared: Some(Shared { queue, threads }) })
    }

    /// Hands over what one turn has gathered, in order.
    pub fn submit(&self, errands: impl Iterator<Item = Errand>) {
        match &self.shared {
            None => errands.for_each(|errand| self.storage.leave(errand)),
            Some(shared) => errands.for_each(|errand| {
                // The thread lives as long as this.
                let _ = shared.queue.send(errand);
            }),
        }
    }

    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Commits what is queued and ends the threads.
    pub fn close(self) {
        if let Some(Shared { queue, threads }) = self.shared {
            drop(queue);
            for thread in threads {
                // A thread that panicked has said so; there is nothing to add at the end.
                let _ = thread.join();
            }
        }
        self.storage.close();
    }
}

fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, JoinError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|e| JoinError::Thread(name, e))
}
