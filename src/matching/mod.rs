//! Owns what the market is about: users, properties and matches as values, and the rules between them.
//! Never reads a database or a request. Enter at [`rules::decide`].

mod id;
mod rules;

pub use id::{MatchId, PropertyId, UserId, parse_id};
pub use rules::{Move, Refusal, Rejecter, Status, Telling, Verdict, decide};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A person as the backend describes them. Absent texts are empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub username: String,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub phone: String,
    pub user_type: String,
    /// Whatever else the backend sent; given back as it came.
    pub further: Map<String, Value>,
}

impl User {
    /// "First Last", or the user name where there is no such name.
    #[must_use]
    pub fn display_name(&self) -> String {
        let full = format!("{} {}", self.first_name, self.last_name);
        match full.trim() {
            "" => self.username.clone(),
            name => name.to_owned(),
        }
    }
}

/// A home for rent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Property {
    pub owner: UserId,
    pub agent: Option<UserId>,
    /// "departamento", "casa", …: the first half of the title.
    pub kind: String,
    pub address: String,
    pub price: Option<f64>,
    pub bedrooms: Option<i64>,
    pub is_active: bool,
    /// Whatever else the backend sent; given back as it came.
    pub further: Map<String, Value>,
}

impl Property {
    /// Whether this user answers for the property, as its owner or its agent.
    #[must_use]
    pub fn is_kept_by(&self, user: UserId) -> bool {
        self.owner == user || self.agent == Some(user)
    }

    /// The owner, and the agent where that is somebody else.
    pub fn keepers(&self) -> impl Iterator<Item = UserId> {
        [Some(self.owner), self.agent.filter(|agent| *agent != self.owner)].into_iter().flatten()
    }
}

/// The title of a property on the wire, as the user's document has it.
#[must_use]
pub fn property_title(kind: &str, address: &str) -> String {
    kind.strip_prefix(TITLE_ITSELF).map_or_else(|| format!("{kind} en {address}"), str::to_owned)
}

/// Before a kind that is the whole title. No kind that anybody writes begins so: control characters are refused.
const TITLE_ITSELF: char = '\u{1f}';

/// The kind and the address behind a title that somebody else made; the address, where he told it too.
#[must_use]
pub fn behind_title(title: &str, address: Option<&str>) -> (String, String) {
    let split = match address {
        Some(address) => {
            title.strip_suffix(address).and_then(|rest| rest.strip_suffix(" en ")).map(|kind| (kind, address))
        }
        None => title.split_once(" en "),
    };
    match split {
        Some((kind, address)) if !kind.starts_with(TITLE_ITSELF) => (kind.to_owned(), address.to_owned()),
        _ => (format!("{TITLE_ITSELF}{title}"), address.unwrap_or_default().to_owned()),
    }
}

/// A tenant's interest in a property; unique by both.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub id: MatchId,
    pub property: PropertyId,
    pub tenant: UserId,
    /// Percent, from the matching engine; 0 where it said nothing.
    pub score: f64,
    pub status: Status,
    /// A JSON object, as text.
    pub metadata: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    pub updated_ms: i64,
}
