//! Owns the road from a command to its commit: straight to this process's committer, or through one log that several
//! nodes follow. The hub sees no difference. Never changes the order. Enter at [`ChannelLayer::submit`].

mod address;
mod appender;
mod django;
mod entry;
mod follower;
mod load;
mod road;
mod stream;

pub use load::SharedLogLoad;

use crate::clock::{Clock, Now};
use crate::config;
use crate::hub::Seen;
use crate::inbox::Postbox;
use crate::storage::Storage;
use crate::storage::job::Errand;
use address::Address;
use appender::{Appender, Asked};
use django::{Django, Surroundings};
use follower::{Follower, Keeping, Recent, Stand};
use road::Road;
use rustix::process::{Resource, getrlimit};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use stream::{Log, Trouble};
use uuid::Uuid;

/// Descriptors that listening to Django's core layer takes: what is configured, but no more than a quarter of all.
#[must_use]
pub fn django_descriptors(settings: &config::ChannelLayer) -> usize {
    if settings.django != config::Django::Core {
        return 0;
    }
    let allowed = getrlimit(Resource::Nofile).maximum.and_then(|limit| usize::try_from(limit).ok());
    (settings.django_waiters as usize).min(allowed.unwrap_or(usize::MAX) / 4).max(1)
}

pub struct ChannelLayer {
    storage: Storage,
    shared: Option<Shared>,
}

/// `CHANNEL_LAYER=redis`: the threads beside storage.
struct Shared {
    queue: Sender<Asked>,
    road: Arc<Road>,
    django: Option<Django>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a shared log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("channel_layer: {0}")]
    Address(redis::RedisError),
    /// The database and the log do not go together.
    #[error("{path}: {what}")]
    Log { path: String, what: String },
    #[error("thread {0}: {1}")]
    Thread(&'static str, std::io::Error),
}

impl JoinError {
    #[must_use]
    pub fn needs_its_log(database: &Path) -> Self {
        let path = database.display().to_string();
        let what = format!(
            "it follows the log of several nodes: set channel_layer.backend = \"redis\" (CHANNEL_LAYER=redis); to leave \
             that log for good: sqlite3 {path} \"DELETE FROM meta WHERE key = 'log'\""
        );
        Self::Log { path, what }
    }
}

impl ChannelLayer {
    /// `CHANNEL_LAYER=inmemory`, where `database` is the file behind `storage`. Not one that follows a log: with the
    /// first change that the log does not know of it could never follow it again.
    pub fn in_memory(storage: Storage, database: &Path) -> Result<Self, JoinError> {
        if storage.progress().mark().is_none() {
            return Ok(Self { storage, shared: None });
        }
        storage.close();
        Err(JoinError::needs_its_log(database))
    }

    /// `CHANNEL_LAYER=redis`. Where Redis is not there (yet), what there is can be read meanwhile. `database`: the file
    /// behind `storage`; `message_max`: bytes of a message of Django's.
    pub fn shared(
        storage: Storage,
        database: &Path,
        message_max: usize,
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
            was_away: false,
            recent: Recent::default(),
        };
        if let Err(Trouble::Log(what) | Trouble::LostTail { what, .. }) = follower.first_look() {
            drop((follower, road));
            storage.close();
            return Err(JoinError::Log { path: database.display().to_string(), what });
        }
        let (queue, asked) = channel();
        let around = Surroundings {
            address: address.clone(),
            road: Arc::clone(&road),
            queue: queue.clone(),
            post: post.clone(),
            clock,
            database,
            message_max,
        };
        let appender = Appender::new(log, address, Arc::clone(&road), progress, stand, run, clock);
        let threads =
            vec![spawn("log reader", move || follower.run())?, spawn("log writer", move || appender.run(&asked))?];
        let django = Django::start(settings, around)?;
        Ok(Self { storage, shared: Some(Shared { queue, road, django, threads }) })
    }

    /// Who has come or gone.
    pub fn saw(&self, news: impl Iterator<Item = Seen>) {
        if let Some(django) = self.shared.as_ref().and_then(|shared| shared.django.as_ref()) {
            news.for_each(|seen| django.saw(seen));
        }
    }

    /// Hands over what one turn has gathered, in order.
    pub fn submit(&self, errands: impl Iterator<Item = Errand>) {
        match &self.shared {
            None => errands.for_each(|errand| self.storage.leave(errand)),
            Some(shared) => errands.for_each(|errand| {
                shared.road.load.add(usize::from(matches!(errand, Errand::Write(_))));
                // The thread lives as long as this.
                let _ = shared.queue.send(Asked::Errand(errand));
            }),
        }
    }

    /// What the shared log has to do; nothing where there is none.
    #[must_use]
    pub fn load(&self, now: Now) -> SharedLogLoad {
        let committed = || self.storage.progress().mark().map(|mark| mark.position);
        self.shared
            .as_ref()
            .map_or_else(Default::default, |shared| shared.road.load.shown(committed(), now.monotonic_us))
    }

    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Commits what is queued and ends the threads.
    pub fn close(self) {
        if let Some(Shared { queue, road, django, threads }) = self.shared {
            road.close();
            if let Some(django) = django {
                django.close();
            }
            drop(queue);
            drop(road);
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
