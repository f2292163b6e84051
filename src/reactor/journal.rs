//! Owns what is told of events: log lines, each at its level. Never writes what a client sent.
//! Enter at [`Journal::write`].

use crate::api::frames::WhatWasRead;
use crate::clock::Now;
use crate::config::Level;
use crate::hub::event::Event;
use crate::log::{Line, Log};
use crate::matching::UserId;
use crate::metrics::Label;
use crate::notification::NotificationId;

pub(super) struct Journal {
    log: Log,
}

impl Journal {
    pub(super) fn new(log: Log) -> Self {
        Self { log }
    }

    pub(super) fn write(&mut self, now: Now, event: &Event) {
        let (level, name) = describe(event);
        if !self.log.takes(level) {
            return;
        }
        match event {
            // One line a notification, so that one search finds its story.
            Event::Delivered { user, channel, rows, at_ms } => {
                for (id, created_ms) in rows {
                    self.log.write(now.wall_ms, level, name, |line| {
                        line.field("id", id);
                        line.field("user", user);
                        line.field("channel", channel);
                        line.field("ms", at_ms - created_ms);
                    });
                }
            }
            _ => self.log.write(now.wall_ms, level, name, |line| fields(event, now, line)),
        }
    }

    /// Sends on its way what one turn has written.
    pub(super) fn flush(&mut self) {
        self.log.flush();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.log.dropped()
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
        Event::Limited(_) => (Level::Debug, "limit_reached"),
        Event::Request { status: 500.., .. } => (Level::Warn, "request"),
        Event::Request { .. } => (Level::Info, "request"),
        Event::Revoked { .. } => (Level::Warn, "refresh_token_reused"),
        Event::Created { .. } => (Level::Info, "notification_created"),
        Event::Sent { .. } => (Level::Info, "notification_sent"),
        Event::Delivered { .. } => (Level::Info, "notification_delivered"),
        Event::Read { .. } => (Level::Info, "notification_read"),
        Event::Replayed { .. } => (Level::Info, "notification_replayed"),
        Event::Skipped { .. } => (Level::Info, "notification_skipped"),
        Event::Committed { failed: 0, .. } => (Level::Debug, "committed"),
        Event::Committed { .. } => (Level::Error, "committed"),
        Event::AnswerFailed { .. } => (Level::Error, "answer_failed"),
        Event::AcceptFailing { .. } => (Level::Error, "accept_failing"),
        Event::AcceptWorks => (Level::Warn, "accept_works"),
        Event::StorageFailing { .. } => (Level::Error, "storage_failing"),
        Event::StorageWorks => (Level::Warn, "storage_works"),
        Event::SharedLogFailing { .. } => (Level::Warn, "shared_log_failing"),
        Event::SharedLogWorks => (Level::Warn, "shared_log_works"),
        Event::DjangoRefused { .. } => (Level::Warn, "django_refused"),
        Event::Draining { .. } => (Level::Info, "draining"),
        Event::Reloaded { restart } if restart.is_empty() => (Level::Info, "reloaded"),
        Event::Reloaded { .. } => (Level::Warn, "reloaded"),
        Event::NotReloaded { .. } => (Level::Error, "not_reloaded"),
        Event::Stopped { .. } => (Level::Info, "stopped"),
    }
}

fn fields(event: &Event, now: Now, line: &mut Line<'_>) {
    match event {
        Event::Opened { user, channel, open, took_us } => {
            line.field("user", user);
            line.field("channel", channel);
            line.field("open", open);
            line.ms(*took_us);
        }
        Event::Closed { user, channel, cause, code, seconds, sent, owed } => {
            line.field("user", user);
            line.field("channel", channel);
            line.field("cause", cause.as_str());
            line.field("code", code);
            line.field("seconds", seconds);
            line.field("sent", sent);
            line.field("unacknowledged", owed);
        }
        Event::Refused { address, cause, status, rule } => {
            line.field("address", address);
            line.field("cause", cause.as_str());
            line.field("status", status);
            if let Some(rule) = rule {
                line.field("rule", rule);
            }
        }
        Event::Limited(limit) => line.field("limit", limit.as_str()),
        Event::Request { method, route, status, took_us } => {
            line.field("method", method);
            line.field("route", route);
            line.field("status", status);
            line.ms(*took_us);
        }
        Event::Revoked { user } => line.field("user", user),
        Event::Created { id, uuid, user, channel, sockets, took_us } => {
            line.field("id", id);
            line.field("notification_id", uuid);
            line.field("user", user);
            line.field("channel", channel);
            line.field("sockets", sockets);
            took_us.iter().for_each(|us| line.ms(*us));
        }
        Event::Sent { what, took_us } => {
            line.field("id", what.id);
            line.field("user", what.user);
            line.field("channel", what.channel);
            took_us.iter().for_each(|us| line.ms(*us));
        }
        Event::Delivered { .. } => {}
        Event::Read { user, what, count, .. } => {
            line.field("user", user);
            line.field("count", count);
            read(*user, what, now, line);
        }
        Event::Replayed { user, channel, ids } => {
            line.field("user", user);
            line.field("channel", channel);
            line.field("count", ids.len());
            line.field("ids", ids);
        }
        Event::Skipped { user, channel, count } => {
            line.field("user", user);
            line.field("channel", channel);
            line.field("count", count);
        }
        Event::Committed { jobs, failed, why, took_us } => {
            line.field("jobs", jobs);
            line.field("failed", failed);
            why.iter().for_each(|why| line.field("why", why));
            line.ms(*took_us);
        }
        Event::AnswerFailed { why }
        | Event::AcceptFailing { why }
        | Event::StorageFailing { why }
        | Event::SharedLogFailing { why } => line.field("why", why),
        Event::AcceptWorks | Event::StorageWorks | Event::SharedLogWorks => {}
        Event::DjangoRefused { cause, count } => {
            line.field("cause", cause.as_str());
            line.field("count", count);
        }
        Event::Draining { open } => line.field("open", open),
        Event::Reloaded { restart } => line.field("needs_restart", restart),
        Event::NotReloaded { mistakes } => line.field("mistakes", mistakes),
        Event::Stopped { seconds } => line.field("seconds", seconds),
    }
}

/// The ids that were read; of one that has its id from here, its row and how long that took: both stand in the id.
fn read(user: UserId, what: &WhatWasRead, now: Now, line: &mut Line<'_>) {
    match what {
        WhatWasRead::One(uuid) => {
            line.field("notification_id", uuid);
            if let Some((id, created_ms)) = NotificationId::of_own_uuid(uuid, user) {
                line.field("id", id);
                line.field("ms", now.wall_ms.saturating_sub(created_ms));
            }
        }
        WhatWasRead::Many(uuids) => line.field("notification_ids", uuids),
        WhatWasRead::All => line.field("all", true),
    }
}
