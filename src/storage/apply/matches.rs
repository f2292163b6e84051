//! Owns what commands do to matches: what `matching::decide` says, written, and told to whom it concerns.
//! Never decides a transition. Enter at [`Writer::act_on_property`] and [`Writer::act_on_match`].

use super::{Applied, Writer};
use crate::api::command::Act;
use crate::api::reply::{CREATED, Reply, UPDATED};
use crate::api::views::{self, Acted, MatchView};
use crate::matching::{Match, MatchId, Move, Property, PropertyId, Refusal, Status, Telling, UserId, Verdict, decide};
use crate::notification::{Channel, Contact, Content, Home};
use crate::storage::job::Answer;
use crate::storage::schema::{self, sql, sql_part};
use rusqlite::{OptionalExtension, params};

impl Writer {
    pub(super) fn act_on_property(&mut self, by: UserId, id: PropertyId, likes: bool, reason: Option<&str>) -> Applied {
        let Some(home) = self.property(id)?.filter(|home| home.is_active) else {
            return Ok(Answer::Reply(super::directory::no_property()));
        };
        if home.is_kept_by(by) {
            return Ok(Answer::Reply(own_property()));
        }
        let before = self.match_of_pair(id, by)?;
        let action = if likes { Move::TenantLikes } else { Move::TenantRejects };
        let found = match self.act(before, id, by, Some(&home), action, reason)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Answer::Reply(refusal)),
        };
        let data = if likes { views::liked(&found) } else { views::rejected(&found) };
        Ok(Answer::Reply(Reply::ok(CREATED, data)))
    }

    pub(super) fn act_on_match(&mut self, by: UserId, id: MatchId, act: Act, reason: Option<&str>) -> Applied {
        let Some(found) = self.match_by_id(id)? else {
            return Ok(Answer::Reply(no_match()));
        };
        let home = self.property(found.property)?;
        let keeps = home.as_ref().is_some_and(|home| home.is_kept_by(by));
        let is_tenant = found.tenant == by;
        let (action, allowed, message) = match act {
            Act::OwnerAccept => (Move::OwnerAccepts, keeps, "Match aceptado por propietario/agente"),
            Act::OwnerReject => (Move::OwnerRejects, keeps, "Match rechazado por propietario/agente"),
            Act::Reject if keeps && !is_tenant => (Move::OwnerRejects, true, "Match rechazado por propietario/agente"),
            Act::Reject => (Move::TenantRejects, is_tenant, "Match rechazado exitosamente"),
            Act::Accept => (Move::TenantLikes, is_tenant, "Match aceptado exitosamente"),
            Act::Like => (Move::TenantLikes, is_tenant, "Interés registrado exitosamente"),
        };
        // The tenant's own no tells nobody, and needs no property.
        let needs_home = matches!(act, Act::OwnerAccept | Act::OwnerReject) || (is_tenant && act != Act::Reject);
        if home.is_none() && needs_home {
            return Ok(Answer::Reply(Reply::refused(404, "Propiedad no encontrada")));
        }
        if !allowed {
            return Ok(Answer::Reply(Reply::refused(403, "No autorizado")));
        }
        // The engine proposed his own to him, or he became its owner since.
        if keeps && action == Move::TenantLikes {
            return Ok(Answer::Reply(own_property()));
        }
        let (property, tenant) = (found.property, found.tenant);
        Ok(Answer::Reply(match self.act(Some(found), property, tenant, home.as_deref(), action, reason)? {
            Ok(m) => Reply::ok(message, Acted { status: m.status.as_str(), r#match: MatchView::new(&m) }),
            Err(refusal) => refusal,
        }))
    }

    /// Decides, writes the match and tells those who have to hear of it.
    fn act(
        &mut self,
        before: Option<Match>,
        property: PropertyId,
        tenant: UserId,
        home: Option<&Property>,
        action: Move,
        reason: Option<&str>,
    ) -> rusqlite::Result<Result<Match, Reply>> {
        let (status, telling) = match (decide(before.as_ref().map(|m| m.status), action), before.as_ref()) {
            (Verdict::Becomes(status, telling), _) => (status, telling),
            (Verdict::Unchanged, Some(same)) => return Ok(Ok(same.clone())),
            (Verdict::Refused(Refusal::NotRequested), _) => {
                return Ok(Err(Reply::refused(400, "El inquilino no ha solicitado esta propiedad")));
            }
            (Verdict::Unchanged | Verdict::Refused(Refusal::NoMatch), _) => return Ok(Err(no_match())),
        };
        let now = match before {
            Some(before) => {
                self.db
                    .prepare_cached(
                        "UPDATE matches SET status = ?2, reason = coalesce(?3, reason), updated_ms = ?4 WHERE id = ?1",
                    )?
                    .execute(params![before.id.0, schema::status_number(status), reason, self.at_ms])?;
                Match { status, updated_ms: self.at_ms, ..before }
            }
            None => self.insert_match(property, tenant, 0.0, status, reason, "{}")?,
        };
        if let Some(home) = home {
            self.tell(telling, &now, home)?;
        }
        Ok(Ok(now))
    }

    fn tell(&mut self, telling: Telling, m: &Match, home: &Property) -> rusqlite::Result<()> {
        let shown = Home { id: m.property, kind: home.kind.clone(), address: home.address.clone() };
        match telling {
            Telling::Nobody => {}
            Telling::Keepers => {
                let tenant = views::person(m.tenant, self.user(m.tenant)?.as_deref());
                for keeper in home.keepers() {
                    let content = Content::PropertyLike { home: shown.clone(), tenant: tenant.clone(), score: m.score };
                    self.insert_notification(keeper, Channel::Property, content)?;
                }
            }
            Telling::Both => {
                let owner = self.user(home.owner)?.unwrap_or_default();
                let owner_name = owner.display_name();
                let contact = Contact { email: owner.email.clone(), phone: owner.phone.clone() };
                let tenant_username = self.user(m.tenant)?.unwrap_or_default().username.clone();
                for keeper in home.keepers() {
                    let content = Content::MatchAccepted {
                        home: shown.clone(),
                        owner: contact.clone(),
                        tenant_username: tenant_username.clone(),
                    };
                    self.insert_notification(keeper, Channel::Property, content)?;
                }
                let content = Content::MatchAcceptedByOwner { home: shown, owner_name, owner: contact, score: m.score };
                self.insert_notification(m.tenant, Channel::Tenant, content)?;
            }
            Telling::Tenant => {
                let content = Content::MatchRejectedByOwner { home: shown };
                self.insert_notification(m.tenant, Channel::Tenant, content)?;
            }
        }
        Ok(())
    }

    fn insert_match(
        &mut self,
        property: PropertyId,
        tenant: UserId,
        score: f64,
        status: Status,
        reason: Option<&str>,
        metadata: &str,
    ) -> rusqlite::Result<Match> {
        self.last.one_match += 1;
        let id = MatchId(self.last.one_match);
        self.db.prepare_cached("INSERT INTO matches VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)")?.execute(params![
            id.0,
            property.0,
            tenant.0,
            score,
            schema::status_number(status),
            reason,
            metadata,
            self.at_ms
        ])?;
        let metadata = metadata.to_owned();
        let made =
            Match { id, property, tenant, score, status, metadata, created_ms: self.at_ms, updated_ms: self.at_ms };
        self.filed.note_match(&made);
        Ok(made)
    }

    /// An id for a match that somebody else made: the one it has there, or the next.
    pub(in crate::storage) fn next_match_id(&mut self, given: Option<MatchId>) -> MatchId {
        let id = given.unwrap_or(MatchId(self.last.one_match + 1));
        self.last.one_match = self.last.one_match.max(id.0);
        id
    }

    pub(super) fn put_match(
        &mut self,
        property: PropertyId,
        tenant: UserId,
        score: f64,
        metadata: Option<&str>,
    ) -> Applied {
        if self.property(property)?.is_none() {
            return Ok(Answer::Reply(super::directory::no_property()));
        }
        if self.deleted.contains(&tenant) {
            return Ok(Answer::Reply(super::directory::no_user()));
        }
        let Some(before) = self.match_of_pair(property, tenant)? else {
            let made = self.insert_match(property, tenant, score, Status::Suggested, None, metadata.unwrap_or("{}"))?;
            return Ok(Answer::Reply(Reply::created(MatchView::new(&made))));
        };
        let metadata = metadata.unwrap_or(&before.metadata).to_owned();
        self.db
            .prepare_cached("UPDATE matches SET score = ?2, metadata = ?3, updated_ms = ?4 WHERE id = ?1")?
            .execute(params![before.id.0, score, metadata, self.at_ms])?;
        let now = Match { score, metadata, updated_ms: self.at_ms, ..before };
        Ok(Answer::Reply(Reply::ok(UPDATED, MatchView::new(&now))))
    }

    pub(in crate::storage) fn match_by_id(&self, id: MatchId) -> rusqlite::Result<Option<Match>> {
        self.db
            .prepare_cached(sql!("SELECT " MATCH " FROM matches m WHERE id = ?1"))?
            .query_row([id.0], schema::one_match)
            .optional()
    }
}

fn own_property() -> Reply {
    Reply::refused(400, "No puedes solicitar tu propia propiedad")
}

fn no_match() -> Reply {
    Reply::not_found("No Match matches the given query.")
}

#[cfg(test)]
mod tests;
