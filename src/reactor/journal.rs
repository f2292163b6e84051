//! Owns what is told of events: one log line each, at its level. Never writes what a client sent.
//! Enter at [`Journal::write`].

use crate::clock::Now;
use crate::config::Level;
use crate::hub::event::Event;
use crate::log::Log;
use serde_json::{Value, json};

pub(super) struct Journal {
    log: Log,
}

impl Journal {
    pub(super) fn new(log: Log) -> Self {
        Self { log }
    }

    pub(super) fn write(&mut self, now: Now, events: impl Iterator<Item = Event>) {
        for event in events {
            let (level, name) = describe(&event);
            if self.log.takes(level) {
                self.log.write(now.wall_ms, level, name, fields(&event));
            }
        }
    }

    pub(super) fn obey(&mut self, level: Level) {
        self.log.obey(level);
    }

    pub(super) fn end(self) {
        self.log.end();
    }
}

fn describe(event: &Event) -> (Level, &'static str) {
    match event {
        Event::Opened { .. } => (Level::Info, "connection_opened"),
        Event::Closed { .. } => (Level::Info, "connection_closed"),
        Event::Refused { .. } => (Level::Info, "refused"),
        Event::Request { status: 500.., .. } => (Level::Warn, "request"),
        Event::Request { .. } => (Level::Info, "request"),
        Event::Revoked { .. } => (Level::Warn, "refresh_token_reused"),
        Event::Created { .. } => (Level::Info, "notification_created"),
        Event::Delivered { .. } => (Level::Info, "notification_delivered"),
        Event::Read { .. } => (Level::Info, "notification_read"),
        Event::Replayed { .. } => (Level::Info, "notification_replayed"),
        Event::Committed { .. } => (Level::Debug, "committed"),
        Event::StorageFailing { .. } => (Level::Error, "storage_failing"),
        Event::StorageWorks => (Level::Warn, "storage_works"),
        Event::Draining { .. } => (Level::Info, "draining"),
        Event::Reloaded { restart } if restart.is_empty() => (Level::Info, "reloaded"),
        Event::Reloaded { .. } => (Level::Warn, "reloaded"),
        Event::NotReloaded { .. } => (Level::Error, "not_reloaded"),
    }
}

fn fields(event: &Event) -> Value {
    match event {
        Event::Opened { user, channel, open } => json!({ "user": user, "channel": channel, "open": open }),
        Event::Closed { user, channel, cause, code, seconds } => {
            json!({ "user": user, "channel": channel, "cause": cause, "code": code, "seconds": seconds })
        }
        Event::Refused { cause, status } => json!({ "cause": cause, "status": status }),
        Event::Request { method, route, status, took_us } => {
            json!({ "method": method, "route": route, "status": status, "ms": *took_us as f64 / 1_000.0 })
        }
        Event::Revoked { user } => json!({ "user": user }),
        Event::Created { id, user, channel, sockets } => {
            json!({ "id": id, "user": user, "channel": channel, "sockets": sockets })
        }
        Event::Delivered { user, channel, count } => json!({ "user": user, "channel": channel, "count": count }),
        Event::Read { user, count } => json!({ "user": user, "count": count }),
        Event::Replayed { user, channel, count, skipped } => {
            json!({ "user": user, "channel": channel, "count": count, "skipped": skipped })
        }
        Event::Committed { jobs, took_us } => json!({ "jobs": jobs, "ms": *took_us as f64 / 1_000.0 }),
        Event::StorageFailing { why } => json!({ "why": why }),
        Event::StorageWorks => json!({}),
        Event::Draining { open } => json!({ "open": open }),
        Event::Reloaded { restart } => json!({ "needs_restart": restart }),
        Event::NotReloaded { mistakes } => json!({ "mistakes": mistakes }),
    }
}
