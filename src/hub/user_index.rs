//! Owns the way from a user to the first of his sockets, each of which names the next. Keeps places in the table, not
//! users: whose place it is, the table knows. Never reads the table itself. Enter at [`UserIndex::head`].

use super::connection::NOBODY;
use crate::matching::UserId;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// Five bytes a user, filled or not.
#[derive(Default)]
pub(super) struct UserIndex {
    heads: HashTable<u32>,
    hasher: RandomState,
}

impl UserIndex {
    /// `user_of` tells whose socket stands at a place; here and below it must know every place that was set.
    pub(super) fn head(&self, user: UserId, user_of: impl Fn(u32) -> UserId) -> u32 {
        self.heads.find(self.hasher.hash_one(user), |place| user_of(*place) == user).copied().unwrap_or(NOBODY)
    }

    pub(super) fn set_head(&mut self, user: UserId, head: u32, user_of: impl Fn(u32) -> UserId) {
        let hash = self.hasher.hash_one(user);
        match self.heads.find_entry(hash, |place| user_of(*place) == user) {
            Ok(known) if head == NOBODY => drop(known.remove()),
            Ok(mut known) => *known.get_mut() = head,
            Err(_) if head == NOBODY => {}
            Err(_) => {
                self.heads.insert_unique(hash, head, |place| self.hasher.hash_one(user_of(*place)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_answers_as_a_map_does(moves in vec((1i64..40, any::<bool>()), 0..400)) {
            let mut table = Vec::new();
            let (mut index, mut model) = (UserIndex::default(), HashMap::new());
            for (user, opens) in moves {
                let head = if opens { table.len() as u32 } else { NOBODY };
                if opens {
                    table.push(UserId(user));
                    model.insert(user, head);
                } else {
                    model.remove(&user);
                }
                index.set_head(UserId(user), head, |place| table[place as usize]);
                for user in 1..40 {
                    let known = model.get(&user).copied().unwrap_or(NOBODY);
                    prop_assert_eq!(index.head(UserId(user), |place| table[place as usize]), known);
                }
            }
        }
    }
}
