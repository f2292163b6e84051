//! Owns `habittod demo`: the real server on a throw-away database with two people and a home in it. Never reads a
//! configuration. Enter at [`run`].

use super::{Exit, complain, say, serve};
use crate::api::command::Command;
use crate::auth::{Signer, password};
use crate::clock::Clock;
use crate::config::{Config, Key, Level};
use crate::inbox::post_office;
use crate::matching::{Property, PropertyId, User, UserId};
use crate::storage::Storage;
use crate::storage::file::DatabaseFile;
use crate::storage::job::Job;
use serde_json::Map;
use std::net::SocketAddr;
use std::time::Duration;
use uuid::Uuid;

const OWNER: UserId = UserId(1);
const TENANT: UserId = UserId(2);
const HOME: PropertyId = PropertyId(1);
const PASSWORD: &str = "demo";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn run(listen: Option<SocketAddr>) -> Exit {
    let folder = std::env::temp_dir().join(format!("habittod-demo-{}", Uuid::new_v4().simple()));
    if let Err(e) = std::fs::create_dir(&folder) {
        return complain(format!("{}: {e}", folder.display()), Exit::Failed);
    }
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut config = Config::default();
    config.auth.key = Some(Key::Secret(secret.clone().into_bytes()));
    config.auth.login = true;
    config.storage.path = folder.join("demo.db");
    config.log.level = Level::Warn;
    config.server.admin_listen.clear();
    if let Some(listen) = listen {
        config.server.listen = vec![listen];
    }
    let exit = match people(&config) {
        Ok(()) => serve::serve(&config, serve::Reload::Nothing, |address| introduce(address, &secret)),
        Err(what) => complain(what, Exit::Failed),
    };
    // Throw-away: what cannot be removed is left to the system's own cleaning.
    let _ = std::fs::remove_dir_all(&folder);
    exit
}

/// María, who lets a flat; Juan, who looks for one.
fn people(config: &Config) -> Result<(), String> {
    let (post, _inbox) = post_office(|| {});
    let clock = Clock::start();
    let file = DatabaseFile::claim(&config.storage.path).map_err(|e| e.to_string())?;
    let (storage, _) = Storage::open(file, clock, &post).map_err(|e| e.to_string())?;
    let user = |id, username: &str, first: &str, last: &str, user_type: &str| Command::PutUser {
        id,
        user: User {
            username: username.to_owned(),
            email: format!("{username}@example.com"),
            first_name: first.to_owned(),
            last_name: last.to_owned(),
            phone: "+591 70000000".to_owned(),
            user_type: user_type.to_owned(),
            further: Map::new(),
        },
        is_active: None,
        // It is printed below: nothing to protect by many rounds, which would only hold up the start.
        password: Some(password::encode(PASSWORD, &password::salt(), 1)),
    };
    let home = Property {
        owner: OWNER,
        agent: None,
        kind: "departamento".to_owned(),
        address: "Av. Siempre Viva 123".to_owned(),
        price: Some(2_500.0),
        bedrooms: Some(2),
        is_active: true,
        further: Map::new(),
    };
    let commands = [
        user(OWNER, "maria", "María", "García", "propietario"),
        user(TENANT, "juan_perez", "Juan", "Perez", "inquilino"),
        Command::PutProperty { id: HOME, property: home },
    ];
    for command in commands {
        let at_ms = clock.now().wall_ms;
        storage.write(Job { command, ticket: None, idempotency: None, at_ms, asked_us: 0 });
    }
    storage.close();
    Ok(())
}

fn introduce(address: SocketAddr, secret: &str) {
    let Ok(signer) = Signer::from_secret(secret.as_bytes()) else { return };
    let now_ms = Clock::start().now().wall_ms;
    let (owner, tenant) = (signer.access(OWNER, now_ms, DAY), signer.access(TENANT, now_ms, DAY));
    say(&format!(
        "habittod demo on http://{address} (throw-away database; Ctrl-C ends it)

María (user 1) lets a flat, Juan (user 2) looks for one. They sign in as maria and juan_perez, password {PASSWORD}.

1. María's socket; any WebSocket client shows it, for example:

   npx wscat -c 'ws://{address}/ws/property-notifications/1/?token={owner}'

2. Juan likes the flat, and María's socket shows property_like at once:

   curl -X POST 'http://{address}/api/properties/1/like/' -H 'Authorization: Bearer {tenant}'

3. Stop María's client, let Juan take it back and like again, and connect her anew: what she missed is there.

   curl -X POST 'http://{address}/api/properties/1/reject/' -H 'Authorization: Bearer {tenant}'
"
    ));
}
