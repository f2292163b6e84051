//! Owns the families of refresh tokens: which token of each still works. Never makes a token, never checks a password.
//! Enter at [`Writer::sign_in`] and [`Writer::refresh`].

use super::{Applied, Writer};
use crate::api::command::Refresh;
use crate::api::reply::{Reply, Unauthorized};
use crate::auth::TokenError;
use crate::matching::UserId;
use crate::storage::job::{Answer, Change};
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

/// Families of one user: more than a person has devices. The one that was not used for longest goes.
pub(super) const FAMILIES_MAX: i64 = 32;

/// A family as it begins.
struct Family {
    id: Uuid,
    user: UserId,
    current: Uuid,
    foreign_ms: Option<i64>,
    expires_ms: i64,
}

impl Writer {
    /// A password was checked on the way here. Whoever was deactivated or got another password meanwhile stays out.
    pub(super) fn sign_in(
        &mut self,
        user: UserId,
        checked: &str,
        family: Uuid,
        token: Uuid,
        expires_ms: i64,
    ) -> Applied {
        let still_his = self
            .db
            .prepare_cached("SELECT 1 FROM user WHERE id = ?1 AND standing = 0 AND password = ?2")?
            .exists(params![user.0, checked])?;
        if !still_his {
            return refused(Unauthorized::NoAccount);
        }
        self.begin(&Family { id: family, user, current: token, foreign_ms: None, expires_ms })?;
        Ok(Answer::Tokens { user, family, token, made_ms: self.at_ms, expires_ms })
    }

    /// A token works once. The second time somebody else has it, and nobody knows who is who: the family ends.
    pub(super) fn refresh(&mut self, r: &Refresh) -> Applied {
        match self.standing(r.user)? {
            Some(1) => return refused(Unauthorized::UserInactive),
            Some(2) => return refused(Unauthorized::UserGone),
            _ => {}
        }
        match self.current(r)? {
            Some(Some(current)) if current == r.token => {
                self.db
                    .prepare_cached(
                        "UPDATE refresh_family SET current = ?2, used_ms = ?3, expires_ms = max(expires_ms, ?4)
                         WHERE id = ?1",
                    )?
                    .execute(params![r.family.as_bytes(), r.next.as_bytes(), self.at_ms, r.next_expires_ms])?;
            }
            Some(current) => {
                if current.is_some() {
                    self.db
                        .prepare_cached("UPDATE refresh_family SET current = NULL WHERE id = ?1")?
                        .execute([r.family.as_bytes()])?;
                    self.changes.push(Change::Revoked { user: r.user });
                }
                return refused(Unauthorized::Refresh(TokenError::Invalid));
            }
            // Made by Django, and seen for the first time.
            None if r.family == r.token && r.made_ms > self.floor(r.user)? => {
                let expires_ms = r.expires_ms.max(r.next_expires_ms);
                let foreign_ms = Some(r.made_ms);
                self.begin(&Family { id: r.family, user: r.user, current: r.next, foreign_ms, expires_ms })?;
            }
            None => return refused(Unauthorized::Refresh(TokenError::Invalid)),
        }
        let (made_ms, expires_ms) = (self.at_ms, r.next_expires_ms);
        Ok(Answer::Tokens { user: r.user, family: r.family, token: r.next, made_ms, expires_ms })
    }

    /// Another password, or no user any more: whoever holds one of his refresh tokens has to sign in again.
    pub(super) fn revoke_all(&self, user: UserId) -> rusqlite::Result<()> {
        self.db.prepare_cached("DELETE FROM refresh_family WHERE user = ?1")?.execute([user.0])?;
        self.raise_floor(user, self.at_ms)
    }

    pub(super) fn forget_expired_families(&self) -> rusqlite::Result<()> {
        self.db.prepare_cached("DELETE FROM refresh_family WHERE expires_ms <= ?1")?.execute([self.at_ms])?;
        Ok(())
    }

    fn begin(&self, family: &Family) -> rusqlite::Result<()> {
        let mut others = self.db.prepare_cached(
            "SELECT id, foreign_ms FROM refresh_family WHERE user = ?1 ORDER BY used_ms DESC, id DESC LIMIT -1 OFFSET ?2",
        )?;
        let too_many = others
            .query_map([family.user.0, FAMILIES_MAX - 1], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<([u8; 16], Option<i64>)>, _>>()?;
        for (id, foreign_ms) in too_many {
            self.db.prepare_cached("DELETE FROM refresh_family WHERE id = ?1")?.execute([id])?;
            if let Some(made_ms) = foreign_ms {
                // Without its row, its first token would look new.
                self.raise_floor(family.user, made_ms)?;
            }
        }
        self.db.prepare_cached("INSERT INTO refresh_family VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
            family.id.as_bytes(),
            family.user.0,
            family.current.as_bytes(),
            family.foreign_ms,
            self.at_ms,
            family.expires_ms
        ])?;
        Ok(())
    }

    fn raise_floor(&self, user: UserId, made_ms: i64) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO refresh_floor VALUES (?1, ?2) ON CONFLICT (user) DO UPDATE SET made_ms = max(made_ms, ?2)",
            )?
            .execute([user.0, made_ms])?;
        Ok(())
    }

    fn floor(&self, user: UserId) -> rusqlite::Result<i64> {
        let floor = self
            .db
            .prepare_cached("SELECT made_ms FROM refresh_floor WHERE user = ?1")?
            .query_row([user.0], |row| row.get(0))
            .optional()?;
        Ok(floor.unwrap_or(i64::MIN))
    }

    fn standing(&self, user: UserId) -> rusqlite::Result<Option<i64>> {
        self.db
            .prepare_cached("SELECT standing FROM user WHERE id = ?1")?
            .query_row([user.0], |row| row.get(0))
            .optional()
    }

    /// The token that works, of a family that is known.
    fn current(&self, r: &Refresh) -> rusqlite::Result<Option<Option<Uuid>>> {
        self.db
            .prepare_cached("SELECT current FROM refresh_family WHERE id = ?1")?
            .query_row([r.family.as_bytes()], |row| row.get::<_, Option<[u8; 16]>>(0))
            .optional()
            .map(|found| found.map(|current| current.map(Uuid::from_bytes)))
    }
}

fn refused(why: Unauthorized) -> Applied {
    Ok(Answer::Reply(Reply::unauthorized(&why)))
}

#[cfg(test)]
mod tests;
