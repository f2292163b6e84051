//! Owns the road from a command to its commit. Today one road: straight to this process's committer. A shared log of
//! several nodes would stand here, and the hub would see no difference. Never changes the order.
//! Enter at [`ChannelLayer::submit`].

use crate::storage::Storage;
use crate::storage::job::Errand;

/// `CHANNEL_LAYER=inmemory`.
pub struct ChannelLayer {
    storage: Storage,
}

impl ChannelLayer {
    #[must_use]
    pub fn in_memory(storage: Storage) -> Self {
        Self { storage }
    }

    /// Hands over what one turn has gathered, in order.
    pub fn submit(&self, errands: impl Iterator<Item = Errand>) {
        for errand in errands {
            match errand {
                Errand::Write(job) => self.storage.write(job),
                Errand::ReadAfter(ask) => self.storage.read_after_writes(ask),
                Errand::Pulse(pulse) => self.storage.pulse(pulse),
            }
        }
    }

    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Commits what is queued and ends the threads.
    pub fn close(self) {
        self.storage.close();
    }
}
