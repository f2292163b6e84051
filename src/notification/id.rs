//! Owns the two names of a notification: its place in commit order and the UUID made from it. Never asks the database.
//! Enter at [`NotificationId`].

use super::Channel;
use crate::matching::UserId;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// A notification's place in commit order: the integer id of REST, and the row's primary key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NotificationId(pub i64);

const ROW_BITS: u32 = 48;

impl NotificationId {
    /// The UUIDv7 (RFC 9562, 5.7) of this row: the time of creation, 26 bits that tie it to its user and channel, and
    /// the id itself in the last 48. So a UUID leads to its row without an index, and one that was not made for that
    /// row is told by comparing the whole.
    #[must_use]
    pub fn uuid(self, created_ms: i64, user: UserId, channel: Channel) -> Uuid {
        let row = self.0.cast_unsigned() & ((1 << ROW_BITS) - 1);
        let check = mix(row ^ mix(user.0.cast_unsigned() << 1 | channel as u64));
        let mut random = [0; 10];
        random[..4].copy_from_slice(&check.to_be_bytes()[..4]);
        random[4..].copy_from_slice(&row.to_be_bytes()[2..]);
        Builder::from_unix_timestamp_millis(created_ms.max(0).cast_unsigned(), &random).into_uuid()
    }

    /// The row that a UUID of ours names, if it is one of ours: compare with [`Self::uuid`] of that row.
    #[must_use]
    pub fn of_uuid(uuid: &Uuid) -> Option<Self> {
        let [.., a, b, c, d, e, f] = *uuid.as_bytes();
        let row = i64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        (uuid.get_version_num() == 7 && row > 0).then_some(Self(row))
    }

    /// The row and the time of creation (wall ms) of a UUID that was made here, for this user. A sender's own is not.
    #[must_use]
    pub fn of_own_uuid(uuid: &Uuid, user: UserId) -> Option<(Self, i64)> {
        let (id, created_ms) = (Self::of_uuid(uuid)?, created_ms(uuid)?);
        Channel::ALL.into_iter().any(|channel| id.uuid(created_ms, user, channel) == *uuid).then_some((id, created_ms))
    }
}

/// The moment in a UUID that has one: wall ms.
#[must_use]
pub fn created_ms(uuid: &Uuid) -> Option<i64> {
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    Some(i64::try_from(seconds).ok()?.saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000)))
}

/// The id of somebody else's notification whose own id is no UUID, or is another recipient's already: a UUIDv5 of
/// channel, user and that id.
#[must_use]
pub fn foreign_uuid(channel: Channel, user: UserId, id: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("habittod:{}:{user}:{id}", channel.as_str()).as_bytes())
}

/// SplitMix64's finaliser: spreads neighbouring numbers apart. Not a secret.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// Reads a UUID in the one spelling that the wire uses: lower case, with hyphens. `uuid` itself would also take braces,
/// URNs and upper case for the same value.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_uuid_leads_back_to_its_row(row in 1i64..(1 << 48), ms in 0i64..(1 << 47), user in 1i64.., other in 1i64..) {
            let id = NotificationId(row);
            let uuid = id.uuid(ms, UserId(user), Channel::Property);
            prop_assert_eq!(NotificationId::of_uuid(&uuid), Some(id));
            prop_assert_eq!(NotificationId::of_own_uuid(&uuid, UserId(user)), Some((id, ms)));
            prop_assert_eq!(uuid.get_version_num(), 7);
            prop_assert_ne!(uuid, id.uuid(ms, UserId(user), Channel::Tenant));
            prop_assert_ne!(uuid, id.uuid(ms + 1, UserId(user), Channel::Property));
            if other != user {
                // 26 bits of check: one in 67 million pairs would collide.
                prop_assert_ne!(uuid, id.uuid(ms, UserId(other), Channel::Property));
            }
        }
    }

    #[test]
    fn one_spelling_only() {
        let text = "550e8400-e29b-41d4-a716-446655440000";
        assert!(parse_uuid(text).is_some());
        for odd in [text.to_uppercase(), format!("{{{text}}}"), format!("urn:uuid:{text}"), text.replace('-', "")] {
            assert_eq!(parse_uuid(&odd), None, "{odd}");
        }
    }
}
