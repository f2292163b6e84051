//! Owns the tests of the hub as a whole: conversations word by word, and a simulated life of many devices.
//! Never opens a socket. Enter at `transcripts` and `simulation`; `stage` is what they are played on.

mod pressure;
mod random;
mod simulation;
mod stage;
mod transcripts;
mod wire;

use super::Rules;
use crate::api::command::Command;
use crate::auth::{Signer, Verifier};
use crate::config::Config;
use crate::matching::{Property, PropertyId, User, UserId};
use crate::storage::job::{Errand, Job};
use crate::storage::stepwise::Store;
use serde_json::Map;

const SECRET: &[u8] = b"a secret of the tests, 32 bytes or more";

fn signer() -> Signer {
    Signer::from_secret(SECRET).unwrap()
}

fn rules(config: &Config) -> Rules {
    Rules::new(config, Some(Verifier::from_secret(SECRET).unwrap()), 1_000)
}

const OWNER: i64 = 1;
const AGENT: i64 = 2;
const TENANTS: [i64; 2] = [3, 4];

/// A database with an owner, an agent, two tenants and two homes.
fn inhabited() -> Store {
    let mut store = Store::new();
    let user = |id: i64| Command::PutUser {
        id: UserId(id),
        user: User { username: format!("u{id}"), ..User::default() },
        is_active: None,
        password: None,
    };
    let home = |id: i64, agent: Option<i64>| Command::PutProperty {
        id: PropertyId(id),
        property: Property {
            owner: UserId(OWNER),
            agent: agent.map(UserId),
            kind: "casa".to_owned(),
            address: format!("Calle {id}"),
            price: None,
            bedrooms: None,
            is_active: true,
            further: Map::new(),
        },
    };
    let commands =
        [OWNER, AGENT, TENANTS[0], TENANTS[1]].map(user).into_iter().chain([home(1, None), home(2, Some(AGENT))]);
    store.errands.extend(commands.map(|command| {
        let (ticket, idempotency, at_ms, asked_us) = (None, None, stage::START.wall_ms, 0);
        Errand::Write(Job { command, ticket, idempotency, at_ms, asked_us })
    }));
    store.commit(usize::MAX);
    store.tell();
    store.letters.clear();
    store
}
