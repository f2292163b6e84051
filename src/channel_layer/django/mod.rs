//! Owns what is heard of an unmodified Django: who listens for whom, and the way from its layer into the log. Never sends
//! to Django. Enter at [`Django::start`].

mod core;
mod fernet;
mod members;
mod message;
mod pubsub;
mod waiters;

use super::address::Address;
use super::appender::Asked;
use super::road::Road;
use super::{JoinError, spawn};
use crate::api::command::Command;
use crate::clock::Clock;
use crate::config;
use crate::hub::Seen;
use crate::hub::event::Unusable;
use crate::inbox::{Letter, Postbox};
use crate::matching::UserId;
use crate::metrics::Counts;
use crate::notification::Channel;
use fernet::Keys;
use message::Event;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that go to the log together, and how many such bundles may be on their way before no more are taken.
const BUNDLE: usize = 100;
const BUNDLES_UNDER_WAY: usize = 32;
/// How long a listener waits before it looks whether it is to end; and between two tries, where Redis is gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(250);

/// What the threads share.
#[derive(Clone)]
struct Common {
    address: Address,
    road: Arc<Road>,
    known: Arc<RwLock<HashSet<UserId>>>,
    prefix: String,
    keys: Arc<Keys>,
    /// Bytes of a message.
    most: usize,
    queue: Sender<Asked>,
    post: Postbox,
    clock: Clock,
    /// Connections that wait in `core`.
    waiters: usize,
    bundles: (SyncSender<()>, Arc<Mutex<Receiver<()>>>),
    /// The groups are left: what has come by now is the last.
    over: Arc<AtomicBool>,
}

/// Room for one bundle; given back when it goes.
struct BundleRoom(Arc<Mutex<Receiver<()>>>);

impl Drop for BundleRoom {
    fn drop(&mut self) {
        // There is one, put there when this was made.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
    }
}

impl Common {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn knows(&self, user: UserId) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&user)
    }

    /// Hands commands to the log, in bundles; waits while too many are on their way.
    fn relay(&self, commands: Vec<Command>) {
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() && self.bundles.0.send(()).is_ok() {
            let room = Box::new(BundleRoom(Arc::clone(&self.bundles.1)));
            let commands: Vec<Command> = commands.by_ref().take(BUNDLE).collect();
            self.road.load.add(commands.len());
            // The thread that appends outlives this one.
            let _ = self.queue.send(Asked::Relayed { commands, room });
        }
    }
}

/// Messages of one look: what they ask for, and how many were dropped for what.
#[derive(Default)]
struct Heard {
    commands: Vec<Command>,
    dropped: Counts<Unusable>,
}

impl Heard {
    fn drop(&mut self, cause: Unusable) {
        self.dropped.add(cause, 1);
    }

    /// One message, opened and read.
    fn read(&mut self, common: &Common, bytes: &[u8]) -> Option<Event> {
        let opened = if common.keys.is_empty() { None } else { Some(common.keys.open(bytes)) };
        let read = match &opened {
            Some(None) => Err(Unusable::NotDecrypted),
            Some(Some(plain)) => message::read(plain, common.most),
            None => message::read(bytes, common.most),
        };
        read.map_err(|cause| self.drop(cause)).ok()
    }

    fn tell(&mut self, common: &Common, event: &Event, channel: Channel, user: UserId) {
        if !event.fits(channel) {
            self.drop(Unusable::WrongGroup);
        } else if !common.knows(user) {
            self.drop(Unusable::UnknownUser);
        } else {
            let (uuid, content) = (event.uuid(channel, user), event.content.clone());
            self.commands.push(Command::Relay { user, channel, uuid, content });
        }
    }

    fn pass_on(self, common: &Common) {
        for (cause, count) in self.dropped.iter().filter(|(_, count)| *count > 0) {
            common.post.post(Letter::DjangoRefused { cause, count });
        }
        common.relay(self.commands);
    }
}

/// The threads that listen.
pub(super) struct Django {
    seen: Sender<Seen>,
    over: Arc<AtomicBool>,
    members: JoinHandle<()>,
    listener: JoinHandle<()>,
}

/// Of whom and what, beside what the layer has anyway.
pub(super) struct Surroundings<'a> {
    pub address: Address,
    pub road: Arc<Road>,
    pub queue: Sender<Asked>,
    pub post: Postbox,
    pub clock: Clock,
    pub database: &'a Path,
    pub message_max: usize,
}

impl Django {
    /// `None`: Django is not listened to.
    pub(super) fn start(settings: &config::ChannelLayer, around: Surroundings<'_>) -> Result<Option<Self>, JoinError> {
        let (bundle, bundles) = sync_channel(BUNDLES_UNDER_WAY);
        let common = Common {
            address: around.address,
            road: around.road,
            known: Arc::default(),
            prefix: settings.django_prefix.clone(),
            keys: Arc::new(Keys::new(&settings.django_keys.0)),
            most: around.message_max,
            queue: around.queue,
            post: around.post,
            clock: around.clock,
            waiters: super::django_descriptors(settings),
            bundles: (bundle, Arc::new(Mutex::new(bundles))),
            over: Arc::default(),
        };
        let over = Arc::clone(&common.over);
        let (seen, news) = channel();
        let database: PathBuf = around.database.to_owned();
        let listens = common.clone();
        let (listener, members) = match settings.django {
            config::Django::Off => return Ok(None),
            config::Django::Core => {
                let keys = core::Keyring::new(&settings.django_prefix, &settings.log_key, &database);
                let members = members::Members::new(common, database, Some(keys.clone()));
                (spawn("django core", move || core::run(&listens, &keys))?, members)
            }
            config::Django::PubSub => {
                let members = members::Members::new(common, database, None);
                (spawn("django pubsub", move || pubsub::run(&listens))?, members)
            }
        };
        let members = spawn("django members", move || members.run(&news))?;
        Ok(Some(Self { seen, over, members, listener }))
    }

    pub(super) fn saw(&self, seen: Seen) {
        // The thread lives as long as this.
        let _ = self.seen.send(seen);
    }

    /// Leaves the groups, takes what is still there, and ends. The road has to be told to close before.
    pub(super) fn close(self) {
        drop(self.seen);
        // A thread that panicked has said so; there is nothing to add at the end.
        let _ = self.members.join();
        self.over.store(true, Ordering::Relaxed);
        let _ = self.listener.join();
    }
}
