//! Owns the steps of a sign-in: the name's stored passwords, the comparison on the hasher's thread, the commit, the
//! tokens. Never hashes, never keeps a password once it is compared. Enter at `begin_sign_in` and `refresh`.

use super::connection::{State, Waiting};
use super::event::Limit;
use super::rates::{Rate, Rates};
use super::{Asker, Hub};
use crate::api::command::{Command, Query, Refresh};
use crate::api::reply::{Reply, Unauthorized};
use crate::api::routes::{Resource, Route};
use crate::api::sign_in::{self, Credentials};
use crate::auth::{Signer, password};
use crate::clock::Now;
use crate::config::{Auth, Key, Limits};
use crate::http::Request;
use crate::matching::UserId;
use crate::storage::job::Ticket;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use uuid::Uuid;

/// PBKDF2 rounds that may wait: 10 s of one core. Who would wait longer is told to come back.
const HASHING_MAX: u64 = 32_000_000;
/// How many a core does in a second, roughly.
const ROUNDS_PER_SECOND: u64 = 3_000_000;

/// Who makes tokens here, and how long they are good.
#[derive(Debug)]
pub struct Issuer {
    signer: Signer,
    access_ttl: Duration,
    refresh_ttl_ms: i64,
}

impl Issuer {
    /// `None` where sign-in is off; only a secret can sign.
    #[must_use]
    pub fn new(auth: &Auth) -> Option<Self> {
        let Some(Key::Secret(secret)) = auth.key.as_ref().filter(|_| auth.login) else { return None };
        Some(Self {
            signer: Signer::from_secret(secret).ok()?,
            access_ttl: auth.access_ttl,
            refresh_ttl_ms: i64::try_from(auth.refresh_ttl.as_millis()).unwrap_or(i64::MAX),
        })
    }
}

/// Work for the thread that hashes. What it finds comes back in a letter.
pub enum PasswordTask {
    /// A plain password on its way to storage.
    Encode { ticket: Ticket, command: Command },
    /// Whose password this is.
    Check { ticket: Ticket, password: String, candidates: Vec<(UserId, String)>, refusal_rounds: u32, cost: u64 },
}

/// How often somebody may try.
pub(super) struct Logins {
    by_network: Rates<IpAddr>,
    /// By the name's hash: names may be long, and are nobody's business here.
    by_name: Rates<u64>,
    hasher: RandomState,
}

impl Logins {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            by_network: Rates::new(Rate::per_minute(limits.logins_per_minute)),
            by_name: Rates::new(Rate::per_minute(limits.logins_per_minute_per_user)),
            hasher: RandomState::new(),
        }
    }

    fn take_address(&mut self, address: IpAddr, now: Now) -> Result<(), u64> {
        self.by_network.take(network(address), now.monotonic_us)
    }

    /// The name as it was given, whether or not anybody has it. Another case is another name, as it is to the directory.
    pub(super) fn take_name(&mut self, name: &str, now: Now) -> Result<(), u64> {
        self.by_name.take(self.hasher.hash_one(name), now.monotonic_us)
    }
}

/// One subscriber of IPv6 has a /64, and as many addresses as he likes.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl<S> Hub<S> {
    /// The rates of what needs no token. Who asks for a hash counts twice.
    pub(super) fn judge_sign_in(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: &Request<'_>,
        route: Route,
    ) -> Result<(), Reply> {
        self.judge_moment(ticket, request)?;
        let address = self.client(ticket, request);
        let taken = self.requests.take(Asker::Address(address), now.monotonic_us);
        taken.map_err(|wait_us| self.throttled(Limit::RequestsPerSecond, wait_us))?;
        if route.resource == Resource::Login {
            let taken = self.logins.take_address(address, now);
            taken.map_err(|wait_us| self.throttled(Limit::LoginsPerMinute, wait_us))?;
        }
        Ok(())
    }

    /// Asks for the passwords that go with the name. The one given stays with the connection that waits.
    pub(super) fn begin_sign_in(&mut self, ticket: Ticket, credentials: Credentials) {
        let Credentials { username, password } = credentials;
        if let Some(waiting) = self.waiting(ticket) {
            waiting.password = Some(password);
            self.ask(ticket, Query::Credentials { username });
        }
    }

    /// Whether there is anybody or not, the same is done.
    pub(super) fn check_password(
        &mut self,
        now: Now,
        ticket: Ticket,
        candidates: Vec<(UserId, String)>,
        refusal_rounds: u32,
    ) {
        let Some(password) = self.waiting(ticket).and_then(|waiting| waiting.password.take()) else { return };
        let cost = u64::from(refusal_rounds) * candidates.len().max(1) as u64;
        match self.room_to_hash() {
            Ok(()) => self.hash(PasswordTask::Check { ticket, password, candidates, refusal_rounds, cost }),
            Err(reply) => self.answer_waiting(now, ticket, reply),
        }
    }

    pub(super) fn room_to_hash(&self) -> Result<(), Reply> {
        if self.hashing < HASHING_MAX {
            return Ok(());
        }
        Err(Reply::unavailable("Too many passwords to hash.", self.hashing / ROUNDS_PER_SECOND))
    }

    pub(super) fn hash(&mut self, task: PasswordTask) {
        self.outstanding += 1;
        self.hashing += match &task {
            PasswordTask::Encode { .. } => u64::from(password::DJANGO_ITERATIONS),
            PasswordTask::Check { cost, .. } => *cost,
        };
        self.effects.hash.push(task);
    }

    /// A command whose password is hashed now.
    pub fn hashed(&mut self, now: Now, ticket: Ticket, command: Command) {
        self.hashing_is_done(u64::from(password::DJANGO_ITERATIONS));
        self.submit(now, Some(ticket), command, None);
    }

    /// A password was compared. Where nobody waits any more, nobody gets tokens.
    pub fn checked(&mut self, now: Now, ticket: Ticket, found: Option<(UserId, String)>, cost: u64) {
        self.hashing_is_done(cost);
        if self.waiting(ticket).is_none() {
            return;
        }
        match (found, &self.rules.issuer) {
            (_, None) => self.answer_waiting(now, ticket, switched_off()),
            (Some((user, checked)), Some(issuer)) => {
                let expires_ms = now.wall_ms.saturating_add(issuer.refresh_ttl_ms);
                let (family, token) = (Uuid::new_v4(), Uuid::new_v4());
                self.submit(now, Some(ticket), Command::SignIn { user, checked, family, token, expires_ms }, None);
            }
            (None, _) => self.answer_waiting(now, ticket, Reply::unauthorized(&Unauthorized::NoAccount)),
        }
    }

    fn hashing_is_done(&mut self, cost: u64) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.hashing = self.hashing.saturating_sub(cost);
    }

    /// Whether the token is one; whether it was used before is for storage to know.
    pub(super) fn refresh(&self, now: Now, token: &str) -> Result<Command, Reply> {
        let refuse = |why| Reply::unauthorized(&Unauthorized::Refresh(why));
        let (Some(verifier), Some(issuer)) = (&self.rules.verifier, &self.rules.issuer) else {
            return Err(switched_off());
        };
        let claims = verifier.verify_refresh(token, now.wall_ms).map_err(refuse)?;
        Ok(Command::Refresh(Refresh {
            user: claims.user,
            family: claims.family,
            token: claims.jti,
            made_ms: claims.issued_at_ms,
            expires_ms: claims.expires_at_ms,
            next: Uuid::new_v4(),
            next_expires_ms: now.wall_ms.saturating_add(issuer.refresh_ttl_ms),
        }))
    }

    /// The tokens of what is committed.
    pub(super) fn issue(
        &mut self,
        now: Now,
        ticket: Ticket,
        user: UserId,
        (family, token): (Uuid, Uuid),
        made_ms: i64,
        expires_ms: i64,
    ) {
        let Some(resource) = self.waiting(ticket).map(|waiting| waiting.route.resource) else { return };
        let reply = match &self.rules.issuer {
            None => switched_off(),
            Some(Issuer { signer, access_ttl, .. }) => {
                let ttl = Duration::from_millis(expires_ms.saturating_sub(made_ms).max(0).cast_unsigned());
                let access = signer.access(user, made_ms, *access_ttl);
                let refresh = signer.refresh(user, family, token, made_ms, ttl);
                let say = if resource == Resource::Login { sign_in::signed_in } else { sign_in::renewed };
                say(&access, &refresh)
            }
        };
        self.answer_waiting(now, ticket, reply);
    }

    fn waiting(&mut self, ticket: Ticket) -> Option<&mut Waiting> {
        match self.connection(ticket).map(|connection| &mut connection.state) {
            Some(State::Http(http)) => http.waiting.as_mut(),
            _ => None,
        }
    }
}

/// While it was on its way: now there is no such path.
fn switched_off() -> Reply {
    Reply::not_found("Not found.")
}

#[cfg(test)]
mod tests;
