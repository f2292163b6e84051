//! Owns `habittod demo`: the real server on a throw-away database with made-up people and homes in it. Never reads a
//! configuration. Enter at [`run`].

mod life;

use super::serve::{self, Hangup, Orders};
use super::{Exit, Given, Ran, complain, say};
use crate::api::command::Command;
use crate::auth::{Signer, password};
use crate::clock::Clock;
use crate::config::{Config, Key, Level};
use crate::inbox::post_office;
use crate::matching::{Property, PropertyId, User, UserId};
use crate::storage::Storage;
use crate::storage::file::DatabaseFile;
use crate::storage::job::{Errand, Job};
use serde_json::Map;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use uuid::Uuid;

const OWNER: UserId = UserId(1);
const TENANT: UserId = UserId(2);
/// Another owner, who answers by himself.
const NEIGHBOUR: UserId = UserId(3);
const PASSWORD: &str = "demo";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The first three are María's, the others the neighbour's.
const HOMES: [(&str, &str, f64, i64); 9] = [
    ("departamento", "Av. Siempre Viva 123", 2_500.0, 2),
    ("casa", "Calle Los Pinos 45", 4_200.0, 3),
    ("monoambiente", "Plaza Colón 8, piso 3", 1_600.0, 1),
    ("departamento", "Av. Ballivián 910", 3_100.0, 3),
    ("casa", "Calle Jordán 217", 5_400.0, 4),
    ("estudio", "Pasaje Las Retamas 12", 1_350.0, 1),
    ("departamento", "Av. América 1450, piso 7", 3_800.0, 2),
    ("casa", "Camino a Tiquipaya 32", 4_900.0, 3),
    ("monoambiente", "Calle España 64", 1_500.0, 1),
];
const OWNERS_HOMES: std::ops::RangeInclusive<i64> = 1..=3;

pub(super) fn run(given: &Given) -> Ran {
    let quiet = given.has("--quiet");
    // From here on, for there is a folder to be removed.
    let orders = Orders::take(Hangup::Stop)?;
    let folder = std::env::temp_dir().join(format!("habittod-demo-{}", Uuid::new_v4().simple()));
    if let Err(e) = std::fs::create_dir(&folder) {
        return complain(format!("{}: {e}", folder.display()), Exit::Failed);
    }
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut config = Config::default();
    config.auth.key = Some(Key::Secret(secret.clone().into_bytes()));
    config.auth.login = true;
    config.storage.path = folder.join("demo.db");
    // It may run for days, and somebody likes something all the time.
    config.storage.retention = HOUR;
    config.log.level = Level::Warn;
    config.server.admin_listen.clear();
    if let Some(listen) = given.listen {
        config.server.listen = vec![listen];
    }
    let mut going_on = None;
    let ran = match people(&config) {
        Ok(()) => serve::serve(&config, orders, |address| {
            let Ok(signer) = Signer::from_secret(secret.as_bytes()) else { return };
            let address = reachable(address);
            introduce(address, &signer, quiet);
            if !quiet {
                going_on = life::begin(address, signer);
            }
        }),
        Err(what) => complain(what, Exit::Failed),
    };
    drop(going_on);
    // Throw-away: what cannot be removed is left to the system's own cleaning.
    let _ = std::fs::remove_dir_all(&folder);
    ran
}

/// An address that a browser here can open, for one that means all of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// María, who lets homes; Juan, who looks for one; the neighbour, and people who look around.
fn people(config: &Config) -> Result<(), String> {
    let (post, _inbox) = post_office(|| {});
    let clock = Clock::start();
    let file = DatabaseFile::claim(&config.storage.path).map_err(|e| e.to_string())?;
    let (storage, _) = Storage::open(file, clock, &post).map_err(|e| e.to_string())?;
    // It is printed below: nothing to protect by many rounds, which would only hold up the start.
    let encoded = password::encode(PASSWORD, &password::salt(), 1);
    let user = |id, username: &str, first: &str, last: &str, user_type: &str| Command::PutUser {
        id,
        user: User {
            username: username.to_owned(),
            email: format!("{username}@example.com"),
            first_name: first.to_owned(),
            last_name: last.to_owned(),
            phone: format!("+591 7000 {:04}", id.0),
            user_type: user_type.to_owned(),
            further: Map::new(),
        },
        is_active: None,
        password: Some(encoded.clone()),
    };
    let mut commands = vec![
        user(OWNER, "maria", "María", "García", "propietario"),
        user(TENANT, "juan_perez", "Juan", "Perez", "inquilino"),
        user(NEIGHBOUR, "carlos", "Carlos", "Rojas", "propietario"),
    ];
    for (id, first, last) in life::VISITORS {
        commands.push(user(UserId(id), &life::username(first), first, last, "inquilino"));
    }
    for (id, (kind, address, price, bedrooms)) in (1..).zip(HOMES) {
        let property = Property {
            owner: if OWNERS_HOMES.contains(&id) { OWNER } else { NEIGHBOUR },
            agent: None,
            kind: kind.to_owned(),
            address: address.to_owned(),
            price: Some(price),
            bedrooms: Some(bedrooms),
            is_active: true,
            further: Map::new(),
        };
        commands.push(Command::PutProperty { id: PropertyId(id), property });
        // What the matching engine would say.
        for tenant in life::VISITORS.map(|(id, ..)| id).into_iter().chain([TENANT.0]) {
            let score = 60.0 + f64::from(u8::try_from((tenant * 29 + id * 17) % 40).unwrap_or_default());
            let (property, tenant) = (PropertyId(id), UserId(tenant));
            commands.push(Command::PutMatch { property, tenant, score, metadata: None });
        }
    }
    for command in commands {
        let at_ms = clock.now().wall_ms;
        storage.leave(Errand::Write(Job { command, ticket: None, idempotency: None, at_ms, asked_us: 0 }));
    }
    storage.close();
    Ok(())
}

fn introduce(address: SocketAddr, signer: &Signer, quiet: bool) {
    let now_ms = Clock::start().now().wall_ms;
    let (owner, tenant) = (signer.access(OWNER, now_ms, DAY), signer.access(TENANT, now_ms, DAY));
    let life =
        if quiet { "Nobody else does anything (--quiet)." } else { "Others like María's homes every few seconds." };
    let _ = say(&format!(
        "habittod demo on http://{address} (throw-away database; Ctrl-C ends it)

María (user 1) lets homes, Juan (user 2) looks for one. {life}

Open in a browser, already signed in:

   both side by side   http://{address}/#owner={owner}&tenant={tenant}
   María               http://{address}/#token={owner}&user=1
   Juan                http://{address}/#token={tenant}&user=2

Or sign in at http://{address}/ as maria or juan_perez, password {PASSWORD}.

The same without a browser:

1. María's socket; any WebSocket client shows it, for example:

   npx wscat -c 'ws://{address}/ws/property-notifications/1/?token={owner}'

2. Juan likes the flat, and María's socket shows property_like at once:

   curl -X POST 'http://{address}/api/properties/1/like/' -H 'Authorization: Bearer {tenant}'

3. Stop María's client. Take Juan's like back (below), like again (2), then connect María again (1): what she missed
   is there.

   curl -X POST 'http://{address}/api/properties/1/reject/' -H 'Authorization: Bearer {tenant}'
"
    ));
}
