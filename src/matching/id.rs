//! Owns the identifiers of users, properties and matches, and how they are written. Never looks anything up.
//! Enter at `parse`.

use serde::{Deserialize, Serialize};

/// Reads a decimal id as paths and tokens carry it: digits only, no sign, no leading zero, 1 to 2^63 - 1.
#[must_use]
pub fn parse_id(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    if !digits || text.starts_with('0') { None } else { text.parse().ok() }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// As in a path: decimal, without sign or leading zeros, at least 1.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                parse_id(text).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A person: owner, agent or tenant.
    UserId
);
id!(
    /// A home for rent.
    PropertyId
);
id!(
    /// A tenant's interest in a property.
    MatchId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_decimals() {
        assert_eq!(UserId::parse("1"), Some(UserId(1)));
        assert_eq!(UserId::parse("9223372036854775807"), Some(UserId(i64::MAX)));
        for odd in ["", "0", "01", "+1", "-1", " 1", "1 ", "9223372036854775808", "1.0", "0x1", "١"] {
            assert_eq!(UserId::parse(odd), None, "{odd:?}");
        }
    }
}
