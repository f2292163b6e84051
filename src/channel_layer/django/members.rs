//! Owns who is known, and in `core` the membership in Django's groups: one name in each of a user's two groups, renewed
//! before Django forgets it, taken back at the end. Never reads a message. Enter at [`Members::run`].

use super::core::Keyring;
use super::{AGAIN, Common, LOOK_EVERY, message};
use crate::api::command::Command;
use crate::hub::Seen;
use crate::matching::UserId;
use crate::notification::Channel;
use crate::storage::known_users;
use redis::{Connection, RedisResult, cmd, pipe};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

/// Django forgets a member after a day.
const GROUP_EXPIRY_S: u64 = 86_400;
const RENEW_EVERY_US: u64 = 6 * 60 * 60 * 1_000_000;
const _: () = assert!(RENEW_EVERY_US * 3 < GROUP_EXPIRY_S * 1_000_000, "two renewals may fail");
/// Users whose groups are joined in one round trip.
const USERS_AT_ONCE: usize = 500;

pub(super) struct Members {
    common: Common,
    database: PathBuf,
    /// `core` only: in `pubsub` a pattern covers everybody.
    keyring: Option<Keyring>,
    link: Option<Connection>,
    /// Which return of Redis the connection is from: one that was away may have forgotten the groups.
    link_of: u64,
    renew_us: u64,
}

impl Members {
    pub(super) fn new(common: Common, database: PathBuf, keyring: Option<Keyring>) -> Self {
        Self { common, database, keyring, link: None, link_of: 0, renew_us: 0 }
    }

    /// Until there is no more news, which is when the server ends.
    pub(super) fn run(mut self, news: &Receiver<Seen>) {
        // What cannot be read now is known once it connects, or at the next start.
        let known = known_users(&self.database).unwrap_or_default();
        self.common.known.write().unwrap_or_else(PoisonError::into_inner).extend(known);
        loop {
            self.join_all();
            let pause = if self.keyring.is_some() && self.link.is_none() { AGAIN } else { LOOK_EVERY };
            match news.recv_timeout(pause) {
                Ok(first) => self.learn(std::iter::once(first).chain(news.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let known = self.everybody();
        let _ = self.leave(&known);
    }

    fn everybody(&self) -> Vec<UserId> {
        self.common.known.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn learn(&mut self, news: impl Iterator<Item = Seen>) {
        let News { come, gone, met } =
            News::of(&mut self.common.known.write().unwrap_or_else(PoisonError::into_inner), news);
        self.common.relay(met.into_iter().map(|user| Command::Meet { user }).collect());
        if self.join(&come).is_err() || self.leave(&gone).is_err() {
            self.link = None;
        }
    }

    /// At the start, after Redis was away, and before Django forgets.
    fn join_all(&mut self) {
        let now_us = self.common.clock.now().monotonic_us;
        let returns = self.common.road.returns();
        if std::mem::replace(&mut self.link_of, returns) != returns {
            self.link = None;
        }
        if self.keyring.is_none() || (self.link.is_some() && now_us < self.renew_us) {
            return;
        }
        if self.link.is_none() {
            self.link = self.common.address.connect(LOOK_EVERY).ok();
        }
        let everybody = self.everybody();
        match self.join(&everybody) {
            Ok(()) => self.renew_us = now_us + RENEW_EVERY_US,
            Err(_) => self.link = None,
        }
    }

    fn join(&mut self, users: &[UserId]) -> RedisResult<()> {
        let (Some(keyring), Some(link)) = (&self.keyring, &mut self.link) else { return Ok(()) };
        let now_s = self.common.clock.now().wall_ms as f64 / 1_000.0;
        for some in users.chunks(USERS_AT_ONCE) {
            let mut joins = pipe();
            for (key, member) in groups(&self.common.prefix, keyring, some) {
                joins.add_command(cmd("ZADD").arg(&key).arg(now_s).arg(member).to_owned()).ignore();
                joins.add_command(cmd("EXPIRE").arg(&key).arg(GROUP_EXPIRY_S).to_owned()).ignore();
            }
            joins.exec(link)?;
        }
        Ok(())
    }

    fn leave(&mut self, users: &[UserId]) -> RedisResult<()> {
        let (Some(keyring), Some(link)) = (&self.keyring, &mut self.link) else { return Ok(()) };
        for some in users.chunks(USERS_AT_ONCE) {
            let mut leaves = pipe();
            for (key, member) in groups(&self.common.prefix, keyring, some) {
                leaves.add_command(cmd("ZREM").arg(&key).arg(member).to_owned()).ignore();
            }
            leaves.exec(link)?;
        }
        Ok(())
    }
}

/// Who has come, who has gone, and whom only his socket told of.
#[derive(Default, Debug, PartialEq, Eq)]
struct News {
    come: Vec<UserId>,
    gone: Vec<UserId>,
    met: Vec<UserId>,
}

impl News {
    /// What is new beside what is `known`, which it becomes.
    fn of(known: &mut HashSet<UserId>, news: impl Iterator<Item = Seen>) -> Self {
        let mut new = Self::default();
        for seen in news {
            match seen {
                Seen::Stored(user) if known.insert(user) => new.come.push(user),
                Seen::Connected(user) if known.insert(user) => {
                    new.come.push(user);
                    new.met.push(user);
                }
                Seen::Deleted(user) if known.remove(&user) => new.gone.push(user),
                _ => {}
            }
        }
        // Who was deleted and is there again has done both: what he did last counts.
        new.come.retain(|user| known.contains(user));
        new.gone.retain(|user| !known.contains(user));
        new
    }
}

/// The key of each group of these users, and our name in it.
fn groups(prefix: &str, keyring: &Keyring, users: &[UserId]) -> impl Iterator<Item = (String, String)> {
    users.iter().flat_map(|user| Channel::ALL.map(|channel| (*user, channel))).map(move |(user, channel)| {
        let group = message::group(channel, user);
        (format!("{prefix}:group:{group}"), keyring.member(user, &group))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_and_comes_at_once_is_what_he_was_last() {
        let [a, b, c, d] = [1, 2, 3, 4].map(UserId);
        let mut known = HashSet::from([a, b]);
        let seen = [
            Seen::Deleted(a),
            Seen::Stored(a),
            Seen::Deleted(b),
            Seen::Stored(c),
            Seen::Deleted(c),
            Seen::Connected(d),
            Seen::Connected(a),
        ];
        let news = News::of(&mut known, seen.into_iter());
        assert_eq!(news, News { come: vec![a, d], gone: vec![b, c], met: vec![d] });
        assert_eq!(known, HashSet::from([a, d]));
    }
}
