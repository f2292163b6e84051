//! Owns the table of transitions of a match. Never writes one: it says what would follow. Enter at [`decide`].

/// Where a match stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Proposed by the matching engine; nobody has acted.
    Suggested,
    Pending,
    Accepted,
    Rejected(Rejecter),
}

/// Who said no. A tenant may change their mind; the owner's no stands until the owner accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejecter {
    Tenant,
    Owner,
}

impl Status {
    /// As the wire spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suggested => "suggested",
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// What somebody does to a match. "Owner" is whoever answers for the property: its owner or its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A like, or the tenant's accept: the same thing.
    TenantLikes,
    TenantRejects,
    OwnerAccepts,
    OwnerRejects,
}

/// What follows from a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The match takes this status and these people hear of it.
    Becomes(Status, Telling),
    /// Nothing changes and nobody hears of it.
    Unchanged,
    Refused(Refusal),
}

/// Who hears of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Nobody,
    /// `property_like` to the owner and the agent.
    Keepers,
    /// `match_accepted` to the owner and the agent, `match_accepted_by_owner` to the tenant.
    Both,
    /// `match_rejected_by_owner` to the tenant.
    Tenant,
}

/// Why a move cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The owner acts on a match that does not exist.
    NoMatch,
    /// The owner accepts what the tenant does not ask for.
    NotRequested,
}

/// The table. `before` is `None` where there is no match yet.
#[must_use]
pub fn decide(before: Option<Status>, action: Move) -> Verdict {
    use Rejecter::{Owner, Tenant};
    use Status::{Accepted, Pending, Rejected, Suggested};
    use Verdict::{Becomes, Refused, Unchanged};
    match (action, before) {
        (Move::TenantLikes, None | Some(Suggested | Rejected(Tenant))) => Becomes(Pending, Telling::Keepers),
        (Move::TenantLikes, Some(_)) => Unchanged,

        // A tenant's "no" does not wipe out the owner's: it would open the way to a new like.
        (Move::TenantRejects, Some(Rejected(_))) => Unchanged,
        (Move::TenantRejects, _) => Becomes(Rejected(Tenant), Telling::Nobody),

        (Move::OwnerAccepts | Move::OwnerRejects, None) => Refused(Refusal::NoMatch),
        (Move::OwnerAccepts, Some(Pending | Rejected(Owner))) => Becomes(Accepted, Telling::Both),
        (Move::OwnerAccepts, Some(Accepted)) => Unchanged,
        (Move::OwnerAccepts, Some(Suggested | Rejected(Tenant))) => Refused(Refusal::NotRequested),

        (Move::OwnerRejects, Some(Rejected(Owner))) => Unchanged,
        (Move::OwnerRejects, Some(Suggested)) => Becomes(Rejected(Owner), Telling::Nobody),
        (Move::OwnerRejects, Some(_)) => Becomes(Rejected(Owner), Telling::Tenant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Rejecter::{Owner, Tenant};
    use Status::{Accepted, Pending, Rejected, Suggested};
    use Verdict::{Becomes, Refused, Unchanged};

    /// One test per cell: every move against every status.
    macro_rules! cells {
        ($($name:ident: $before:expr, $action:ident => $verdict:expr;)*) => {
            $(#[test] fn $name() { assert_eq!(decide($before, Move::$action), $verdict); })*
        };
    }

    cells! {
        like_of_nothing: None, TenantLikes => Becomes(Pending, Telling::Keepers);
        like_of_suggested: Some(Suggested), TenantLikes => Becomes(Pending, Telling::Keepers);
        like_of_pending: Some(Pending), TenantLikes => Unchanged;
        like_of_accepted: Some(Accepted), TenantLikes => Unchanged;
        like_after_own_rejection: Some(Rejected(Tenant)), TenantLikes => Becomes(Pending, Telling::Keepers);
        like_after_the_owners_rejection: Some(Rejected(Owner)), TenantLikes => Unchanged;

        tenant_rejects_nothing: None, TenantRejects => Becomes(Rejected(Tenant), Telling::Nobody);
        tenant_rejects_suggested: Some(Suggested), TenantRejects => Becomes(Rejected(Tenant), Telling::Nobody);
        tenant_rejects_pending: Some(Pending), TenantRejects => Becomes(Rejected(Tenant), Telling::Nobody);
        tenant_rejects_accepted: Some(Accepted), TenantRejects => Becomes(Rejected(Tenant), Telling::Nobody);
        tenant_rejects_again: Some(Rejected(Tenant)), TenantRejects => Unchanged;
        tenant_rejects_after_the_owner: Some(Rejected(Owner)), TenantRejects => Unchanged;

        owner_accepts_nothing: None, OwnerAccepts => Refused(Refusal::NoMatch);
        owner_accepts_suggested: Some(Suggested), OwnerAccepts => Refused(Refusal::NotRequested);
        owner_accepts_pending: Some(Pending), OwnerAccepts => Becomes(Accepted, Telling::Both);
        owner_accepts_again: Some(Accepted), OwnerAccepts => Unchanged;
        owner_accepts_after_the_tenants_no: Some(Rejected(Tenant)), OwnerAccepts => Refused(Refusal::NotRequested);
        owner_accepts_after_own_rejection: Some(Rejected(Owner)), OwnerAccepts => Becomes(Accepted, Telling::Both);

        owner_rejects_nothing: None, OwnerRejects => Refused(Refusal::NoMatch);
        owner_rejects_suggested: Some(Suggested), OwnerRejects => Becomes(Rejected(Owner), Telling::Nobody);
        owner_rejects_pending: Some(Pending), OwnerRejects => Becomes(Rejected(Owner), Telling::Tenant);
        owner_rejects_accepted: Some(Accepted), OwnerRejects => Becomes(Rejected(Owner), Telling::Tenant);
        owner_rejects_after_the_tenants_no: Some(Rejected(Tenant)), OwnerRejects => Becomes(Rejected(Owner), Telling::Tenant);
        owner_rejects_again: Some(Rejected(Owner)), OwnerRejects => Unchanged;
    }
}
