//! Owns `habittod token`: prints an access token made with the configured secret. Never shows the secret.
//! Enter at [`run`].

use super::{Exit, Given, Ran, complain, say};
use crate::auth::Signer;
use crate::clock::Clock;
use crate::config::{Key, NO_KEY};
use crate::matching::UserId;

pub(super) fn run(given: &Given) -> Ran {
    let user = match (given.word().map(UserId::parse), given.has("--service")) {
        (Some(None), _) => {
            return given
                .usage(&format!("USER_ID must be a number from 1 to {}, without sign or leading zeros", i64::MAX));
        }
        // The backend is nobody in particular: a USER_ID beside --service changes nothing.
        (_, true) => None,
        (Some(user), false) => user,
        (None, false) => return given.usage("token needs a USER_ID or --service"),
    };
    let config = given.config()?;
    let secret = match &config.auth.key {
        Some(Key::Secret(secret)) => secret,
        Some(Key::PublicPem(_)) => {
            let what = "auth.public_key_file: a public key checks tokens and cannot sign them";
            return complain(format!("{what}; ask whoever holds the private key, or set auth.secret"), Exit::Usage);
        }
        None => return complain(NO_KEY, Exit::Usage),
    };
    let signer = Signer::from_secret(secret).or_else(|e| complain(format!("auth.secret: {e}"), Exit::Usage))?;
    let ttl = given.ttl.unwrap_or(config.auth.access_ttl);
    if ttl.is_zero() {
        return given.usage("--ttl must be longer than 0");
    }
    let now_ms = Clock::start().now().wall_ms;
    let token = match user {
        Some(user) => signer.access(user, now_ms, ttl),
        None => signer.service(now_ms, ttl),
    };
    say(&format!("{token}\n"))
}
