//! Owns who may ask: a head is judged before its body is taken or its socket upgraded. Never answers. Enter at
//! `Hub::judge`.

use super::addresses::{NOWHERE, address_of};
use super::connection::{Admitted, State};
use super::event::{Cause, Event, Limit};
use super::{Asker, Hub};
use crate::api::reply::{Reply, Unauthorized};
use crate::api::requests;
use crate::api::routes::{Access, Resource, Route};
use crate::auth::{Caller, Claims, TokenError};
use crate::clock::Now;
use crate::http::upgrade::Accept;
use crate::http::{self, BodyLength, Method, Request, upgrade};
use crate::matching::UserId;
use crate::storage::job::{Standing, Ticket};
use std::net::IpAddr;

impl<S> Hub<S> {
    /// In the contract's order: for sockets 426, 400, 403, 401, 403, 429, 503, for the rest 429, 401, 403, 415, 413. How
    /// many bytes of body are taken.
    pub(super) fn judge(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: &Request<'_>,
        body: BodyLength,
        route: Route,
    ) -> Result<usize, Reply> {
        if request.method == Method::Options {
            let foreign = request.header("origin").is_some_and(|origin| !self.allows_origin(origin));
            return Err(preflight(route, foreign));
        }
        if route.resource.is_sign_in() {
            self.judge_sign_in(now, ticket, request, route)?;
            let body_max = self.judge_body(request, body, route)?;
            self.admit(ticket, Admitted { route, caller: Caller::Service, expires_ms: i64::MAX, accept: None });
            return Ok(body_max);
        }
        if route.access == Access::Anyone {
            if matches!(route.resource, Resource::File(_)) {
                let address = self.client(ticket, request);
                if let Err(wait_us) = self.requests.take(Asker::Address(address), now.monotonic_us) {
                    return Err(self.throttled(Limit::RequestsPerSecond, wait_us));
                }
            }
            self.admit(ticket, Admitted { route, caller: Caller::Service, expires_ms: i64::MAX, accept: None });
            return Ok(self.rules.limits.body);
        }
        if let Resource::Socket(_, user) = route.resource {
            let judged = self.judge_handshake(now, ticket, request, body, user);
            let (accept, claims) = judged.map_err(|why| self.turned_away(ticket, request, why))?;
            let Claims { caller, expires_at_ms: expires_ms } = claims;
            self.admit(ticket, Admitted { route, caller, expires_ms, accept: Some(accept) });
            return Ok(0);
        }
        self.judge_call(now, ticket, request, body, route)
    }

    /// A request with a token. Who asks is noted for a refusal, too, where he is known.
    fn judge_call(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: &Request<'_>,
        body: BodyLength,
        route: Route,
    ) -> Result<usize, Reply> {
        self.judge_moment(ticket, request)?;
        self.judge_address(ticket, request).map_err(|why| self.turned_away(ticket, request, why))?;
        let claims = self.authenticate(now, request, false);
        let asker = match claims {
            Ok(Claims { caller: Caller::User(user), .. }) => Some(Asker::User(user)),
            Ok(_) => None,
            Err(_) => Some(Asker::Address(self.client(ticket, request))),
        };
        if let Some(asker) = asker
            && let Err(wait_us) = self.requests.take(asker, now.monotonic_us)
        {
            return Err(self.throttled(Limit::RequestsPerSecond, wait_us));
        }
        let Claims { caller, expires_at_ms: expires_ms } = claims.map_err(|why| Reply::unauthorized(&why))?;
        self.admit(ticket, Admitted { route, caller, expires_ms, accept: None });
        let allowed = match route.access {
            Access::Anyone | Access::UserOrService => true,
            Access::User => caller != Caller::Service,
            Access::Service => caller == Caller::Service,
        };
        if !allowed {
            return Err(Reply::forbidden());
        }
        self.judge_body(request, body, route)
    }

    /// Whether a stop had not begun before this was asked.
    pub(super) fn judge_moment(&mut self, ticket: Ticket, request: &Request<'_>) -> Result<(), Reply> {
        if self.is_too_late(ticket) {
            let reply = self.shutting_down(ticket);
            return Err(self.turned_away(ticket, request, (Cause::Late, reply)));
        }
        Ok(())
    }

    fn judge_body(&mut self, request: &Request<'_>, body: BodyLength, route: Route) -> Result<usize, Reply> {
        let body_max = requests::body_max(route, self.rules.limits.body);
        // Whether a chunked one is a body at all is known at its end, and so judged then where it names no type.
        if body != BodyLength::None && (body != BodyLength::Chunked || request.content_type().is_some()) {
            requests::media_type(route, request)?;
        }
        if matches!(body, BodyLength::Known(length) if length > body_max) {
            self.limited(Limit::Body);
            return Err(Reply::too_large(body_max));
        }
        Ok(body_max)
    }

    fn judge_handshake(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: &Request<'_>,
        body: BodyLength,
        user: UserId,
    ) -> Result<(Accept, Claims), (Cause, Reply)> {
        let accept = upgrade::check(request).map_err(|fault| {
            (if fault.status() == 426 { Cause::NoUpgrade } else { Cause::Key }, upgrade_refusal(fault))
        })?;
        // Or what was judged could become true much later, when the body has come.
        if body != BodyLength::None {
            return Err((Cause::Body, Reply::faulty(400, "A handshake has no body.")));
        }
        // Which of several counts is not guessed at, nor what an unreadable one says.
        let allowed = match request.header_count("origin") {
            0 => true,
            1 => request.header("origin").is_some_and(|origin| self.allows_origin(origin)),
            _ => false,
        };
        if !allowed {
            return Err((Cause::Origin, Reply::forbidden()));
        }
        let claims = self.authenticate(now, request, true).map_err(|why| (cause_of(why), Reply::unauthorized(&why)))?;
        if claims.caller != Caller::User(user) {
            return Err((Cause::Foreign, Reply::forbidden()));
        }
        let limit = self.rules.limits.connections_per_user;
        if limit > 0 && self.sockets_of(user, limit) >= limit {
            self.limited(Limit::ConnectionsPerUser);
            return Err((Cause::ConnectionsPerUser, Reply::too_many(10)));
        }
        self.judge_address(ticket, request)?;
        let rate = self.handshakes.0;
        if let Err(wait_us) = rate.take(&mut self.handshakes.1, now.monotonic_us) {
            let seconds = wait_us.div_ceil(1_000_000) + self.jitter(ticket, 5);
            self.limited(Limit::HandshakesPerSecond);
            return Err((Cause::HandshakesPerSecond, Reply::unavailable("Too many handshakes.", seconds)));
        }
        if self.drain.is_some() {
            return Err((Cause::Draining, self.shutting_down(ticket)));
        }
        if self.is_overloaded() {
            return Err((Cause::Overloaded, Reply::unavailable("Overloaded.", 1 + self.jitter(ticket, 5))));
        }
        Ok((accept, claims))
    }

    /// Where a token may stand; a bad one in one place is not rescued by another.
    fn authenticate(&mut self, now: Now, request: &Request<'_>, handshake: bool) -> Result<Claims, Unauthorized> {
        let in_query = if handshake { request.query("token").filter(|token| !token.is_empty()) } else { None };
        let token = match in_query {
            Some(token) => token,
            None => match bearer(request) {
                Err(Unauthorized::Missing) if handshake => {
                    upgrade::bearer_subprotocol(request).ok_or(Unauthorized::Missing)?.into()
                }
                other => other?.into(),
            },
        };
        if handshake { self.verify_once(now, &token) } else { self.verify(now, &token) }
    }

    pub(super) fn verify(&mut self, now: Now, token: &str) -> Result<Claims, Unauthorized> {
        let Some(verifier) = &self.rules.verifier else { return Err(Unauthorized::Missing) };
        let claims = self.tokens.verify(verifier, token, now.wall_ms).map_err(Unauthorized::Token)?;
        self.served(claims)
    }

    /// For a socket's token.
    pub(super) fn verify_once(&mut self, now: Now, token: &str) -> Result<Claims, Unauthorized> {
        let Some(verifier) = &self.rules.verifier else { return Err(Unauthorized::Missing) };
        let claims = self.tokens.verify_once(verifier, token, now.wall_ms).map_err(Unauthorized::Token)?;
        self.served(claims)
    }

    /// Whether its user may be served.
    fn served(&self, claims: Claims) -> Result<Claims, Unauthorized> {
        if let Caller::User(user) = claims.caller {
            match self.users.standing(user) {
                Standing::Active => {}
                Standing::Inactive => return Err(Unauthorized::UserInactive),
                Standing::Deleted => return Err(Unauthorized::UserGone),
            }
        }
        Ok(claims)
    }

    /// The client's address: what a trusted proxy says, else the peer's own.
    pub(super) fn client(&mut self, ticket: Ticket, request: &Request<'_>) -> IpAddr {
        let peer = self.peer(ticket);
        let trusted = |address: IpAddr| self.rules.proxies.iter().any(|proxy| proxy.contains(address));
        // Each proxy adds behind what it was told, as a further element or a line of its own.
        let hops: Vec<&[u8]> = request.elements("x-forwarded-for").collect();
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            match std::str::from_utf8(hop).ok().and_then(address_of) {
                Some(address) if trusted(client) => client = address,
                _ => break,
            }
        }
        client
    }

    /// Whether there is room for this client's address. A proxy's own connections count for it until one becomes a
    /// socket, and then for the client.
    fn judge_address(&mut self, ticket: Ticket, request: &Request<'_>) -> Result<(), (Cause, Reply)> {
        let most = self.rules.limits.connections_per_ip;
        if most == 0 {
            return Ok(());
        }
        let (client, peer) = (self.client(ticket, request), self.peer(ticket));
        let crowded = match self.connection(ticket).map(|connection| &connection.state) {
            Some(State::Http(http)) if client == peer => http.crowded,
            _ => self.addresses.count(client) >= most,
        };
        if crowded {
            self.limited(Limit::ConnectionsPerIp);
            return Err((Cause::ConnectionsPerIp, Reply::too_many(10)));
        }
        Ok(())
    }

    /// From here on, this connection is the client's whom a proxy speaks for.
    pub(super) fn count_for_client(&mut self, ticket: Ticket, request: &Request<'_>) {
        let (client, peer) = (self.client(ticket, request), self.peer(ticket));
        if client != peer {
            let place = self.addresses.enter(client);
            if let Some(connection) = self.connection(ticket) {
                let left = std::mem::replace(&mut connection.address, place);
                self.addresses.leave(left);
            }
        }
    }

    /// Who holds the other end: the client, or a proxy.
    pub(super) fn peer(&mut self, ticket: Ticket) -> IpAddr {
        let place = self.connection(ticket).map_or(NOWHERE, |connection| connection.address);
        self.addresses.at(place)
    }

    /// Of a request that is not all there: the client, once its head is; before that, who holds the other end.
    pub(super) fn client_or_peer(&mut self, ticket: Ticket) -> IpAddr {
        let client = match self.connection(ticket).map(|connection| &connection.state) {
            Some(State::Http(http)) => http.client,
            _ => None,
        };
        client.unwrap_or_else(|| self.peer(ticket))
    }

    pub(super) fn allows_origin(&self, origin: &str) -> bool {
        self.rules.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }

    fn turned_away(&mut self, ticket: Ticket, request: &Request<'_>, (cause, reply): (Cause, Reply)) -> Reply {
        let address = self.client(ticket, request);
        self.refused(address, cause, reply.status);
        reply
    }

    fn shutting_down(&self, ticket: Ticket) -> Reply {
        Reply::unavailable("Shutting down.", 1 + self.jitter(ticket, 5))
    }

    /// 429 for coming too often.
    pub(super) fn throttled(&mut self, limit: Limit, wait_us: u64) -> Reply {
        self.limited(limit);
        Reply::too_many(wait_us.div_ceil(1_000_000))
    }

    /// Bytes that are no request.
    pub(super) fn malformed(&mut self, ticket: Ticket, refusal: http::Refusal, status: u16) {
        let (cause, limit) = match refusal {
            http::Refusal::TargetTooLong => (Cause::TargetTooLong, Some(Limit::Target)),
            http::Refusal::HeadTooLarge => (Cause::HeadTooLarge, Some(Limit::Head)),
            http::Refusal::BodyTooLarge => (Cause::BodyTooLarge, Some(Limit::Body)),
            http::Refusal::VersionNotSupported => (Cause::Version, None),
            http::Refusal::Malformed(_) | http::Refusal::NotSkippable => (Cause::Malformed, None),
        };
        if let Some(limit) = limit {
            self.limited(limit);
        }
        let address = self.client_or_peer(ticket);
        self.effects.events.push(Event::Refused { address, cause, status, rule: Some(refusal.cause()) });
    }

    fn admit(&mut self, ticket: Ticket, admitted: Admitted) {
        if let Some(State::Http(http)) = self.connection(ticket).map(|connection| &mut connection.state) {
            http.admitted = Some(admitted);
        }
    }
}

/// The answer to OPTIONS (Fetch, "CORS-preflight request"): what an allowed origin may send. `foreign`: to any other.
fn preflight(route: Route, foreign: bool) -> Reply {
    let allow = route.resource.allow();
    let reply = Reply::no_content().with_header("Allow", allow);
    if foreign {
        return reply;
    }
    reply
        .with_header("Access-Control-Allow-Methods", allow)
        .with_header("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key")
        .with_header("Access-Control-Max-Age", "600")
}

/// An echo server takes any path and knows nobody.
pub(super) fn judge_echo(request: &Request<'_>) -> Result<usize, Reply> {
    if request.method != Method::Get {
        return Err(Reply::method_not_allowed(request.method, "GET"));
    }
    upgrade::check(request).map(|_| 0).map_err(upgrade_refusal)
}

fn cause_of(why: Unauthorized) -> Cause {
    match why {
        Unauthorized::Missing => Cause::NoToken,
        Unauthorized::Token(TokenError::Expired) => Cause::ExpiredToken,
        Unauthorized::BadHeader | Unauthorized::Token(_) => Cause::BadToken,
        Unauthorized::UserInactive => Cause::UserInactive,
        Unauthorized::UserGone => Cause::UserDeleted,
        // Of a sign-in, never of a handshake.
        Unauthorized::Refresh(_) | Unauthorized::NoAccount => Cause::BadToken,
    }
}

fn upgrade_refusal(fault: upgrade::UpgradeFault) -> Reply {
    match fault.status() {
        426 => Reply::faulty(426, "This path speaks WebSocket (RFC 6455), version 13.")
            .with_header("Upgrade", "websocket")
            .with_header("Sec-WebSocket-Version", "13"),
        status => Reply::faulty(status, "Sec-WebSocket-Key must be 16 bytes in base64, once."),
    }
}

/// `Authorization: Bearer …`, the scheme in any case.
fn bearer<'a>(request: &Request<'a>) -> Result<&'a str, Unauthorized> {
    match request.header_count("authorization") {
        0 => return Err(Unauthorized::Missing),
        1 => {}
        // Which of them counts is not guessed at.
        _ => return Err(Unauthorized::BadHeader),
    }
    let value = request.header("authorization").unwrap_or_default();
    let mut parts = value.split_ascii_whitespace();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(scheme), Some(token), None) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        (Some(scheme), ..) if scheme.eq_ignore_ascii_case("bearer") => Err(Unauthorized::BadHeader),
        _ => Err(Unauthorized::Missing),
    }
}
