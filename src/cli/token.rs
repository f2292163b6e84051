//! Owns `habittod token`: prints an access token made with the configured secret. Never shows the secret.
//! Enter at [`run`].

use super::{Exit, complain, mistaken, say, usage};
use crate::auth::Signer;
use crate::clock::Clock;
use crate::config::{Config, Key, Mistakes, NO_KEY};
use crate::matching::UserId;
use std::time::Duration;

pub(super) fn run(
    config: Result<Config, Mistakes>,
    user: Option<&String>,
    ttl: Option<Duration>,
    service: bool,
) -> Exit {
    let user = match (user.map(|text| UserId::parse(text)), service) {
        (Some(None), _) => return usage("USER_ID must be a number from 1, without sign or leading zeros"),
        // The backend is nobody in particular: a USER_ID beside --service changes nothing.
        (_, true) => None,
        (Some(user), false) => user,
        (None, false) => return usage("token needs a USER_ID or --service"),
    };
    let config = match config {
        Ok(config) => config,
        Err(mistakes) => return mistaken(&mistakes),
    };
    let secret = match &config.auth.key {
        Some(Key::Secret(secret)) => secret,
        Some(Key::PublicPem(_)) => {
            let what = "auth.public_key_file: a public key checks tokens and cannot sign them";
            return complain(format!("{what}; ask whoever holds the private key, or set auth.secret"), Exit::Usage);
        }
        None => return complain(NO_KEY, Exit::Usage),
    };
    let signer = match Signer::from_secret(secret) {
        Ok(signer) => signer,
        Err(e) => return complain(format!("auth.secret: {e}"), Exit::Usage),
    };
    let ttl = ttl.unwrap_or(config.auth.access_ttl);
    if ttl.is_zero() {
        return usage("--ttl must be longer than 0");
    }
    let now_ms = Clock::start().now().wall_ms;
    let token = match user {
        Some(user) => signer.access(user, now_ms, ttl),
        None => signer.service(now_ms, ttl),
    };
    say(&format!("{token}\n"))
}
