//! Owns the HTTP side of a connection: requests are taken one by one, understood and answered, sockets upgraded. Never
//! judges who may ask (`admission`), nor knows a path or JSON (`api` does). Enter at `drive_http`.

use super::admission::judge_echo;
use super::connection::{Admitted, Feed, State, Waiting};
use super::event::{Event, Limit};
use super::idempotency::{idempotency, key_of_unread};
use super::{Hub, PIPELINE_BYTES, PasswordTask, Seen, idle_ms, ms, response, seconds};
use crate::api::command::{Command, Query};
use crate::api::reply::Reply;
use crate::api::requests::{self, Asked};
use crate::api::routes::{Door, Resource, Route, route};
use crate::api::sign_in::Credentials;
use crate::clock::{Now, rfc3339};
use crate::http::upgrade::Accept;
use crate::http::{self, BodyLength, CONTINUE, Request, Response, Stage, Step, Terms, upgrade};
use crate::matching::UserId;
use crate::notification::{Channel, NotificationId};
use crate::storage::job::{Idempotency, Ticket};
use crate::web::File;
use std::borrow::Cow;

/// Bytes of a refused request's body that are read past; a longer one ends the connection.
const SKIP_MAX: usize = 256 * 1024;

/// What a request that waits is waiting for.
enum Work {
    Page(Resource),
    /// A command with a plain password in it.
    Encode(Command),
    SignIn(Credentials),
    Write(Command),
    Read(Query),
}

impl<S> Hub<S> {
    /// Takes requests out of `input[start..end]` until one has to wait.
    pub(super) fn drive_http(
        &mut self,
        now: Now,
        ticket: Ticket,
        input: &mut [u8],
        start: &mut usize,
        end: &mut usize,
    ) {
        let limits = http::Limits { head: self.rules.limits.head, target: self.rules.limits.target };
        loop {
            let Some(connection) = self.connection(ticket) else { return };
            let queued = connection.queued();
            let State::Http(http) = &mut connection.state else { return };
            if http.waiting.is_some() || queued > PIPELINE_BYTES {
                return;
            }
            let (mut len, head) = (*end - *start, http.reader.head());
            let step = http.reader.read(input.get_mut(*start..*end).unwrap_or_default(), &mut len, &limits);
            *end = *start + len;
            let bytes = input.get(*start..*end).unwrap_or_default();
            match step {
                Ok(Step::More) => return self.track_stage(now, ticket),
                Ok(Step::Head { head, expects_continue }) => {
                    let request = Request::of(&head, bytes, &[]);
                    self.head(now, ticket, &request, head.body, expects_continue, len == head.len);
                }
                Ok(Step::Ready { head, body, consumed }) => {
                    let body = bytes.get(head.len..head.len + body).unwrap_or_default();
                    self.request(now, ticket, &Request::of(&head, bytes, body));
                    *start += consumed;
                    self.track_stage(now, ticket);
                }
                Ok(Step::Skipped { consumed }) => {
                    *start += consumed;
                    if self.drain.is_some() {
                        return self.begin_closing(now, ticket);
                    }
                    self.track_stage(now, ticket);
                }
                Err(refusal) => {
                    let request = head.map(|head| Request::of(&head, bytes, &[]));
                    return self.unreadable(now, ticket, refusal, request.as_ref());
                }
            }
        }
    }

    /// The `Origin` of the request whose body is on its way.
    pub(super) fn origin_of_body(&mut self, ticket: Ticket) -> Option<String> {
        let connection = self.connection(ticket)?;
        let State::Http(http) = &connection.state else { return None };
        let head = http.reader.head()?;
        Request::of(&head, &connection.cold.as_ref()?.input, &[]).header("origin").map(str::to_owned)
    }

    /// Where the next request would begin is not known. `request`: whose body it is.
    fn unreadable(&mut self, now: Now, ticket: Ticket, refusal: http::Refusal, request: Option<&Request<'_>>) {
        let Some(status) = refusal.status() else { return self.begin_closing(now, ticket) };
        let Some(connection) = self.connection(ticket) else { return };
        let State::Http(http) = &mut connection.state else { return };
        let reply = match http.refusal.take() {
            Some(reply) if refusal == http::Refusal::BodyTooLarge => reply,
            _ => Reply::faulty(status, &format!("Bad request: {}.", refusal.cause())),
        };
        let asked = http.admitted.take();
        let kept = request.and_then(|request| key_of_unread(&reply, request, asked));
        self.malformed(ticket, refusal, reply.status);
        match (request, kept.filter(|_| !self.is_overloaded())) {
            (Some(request), Some(kept)) => {
                let terms = Terms { keep_alive: false, ..request.terms() };
                self.remember(now, ticket, request, terms, reply, kept);
            }
            _ => self.last_reply(now, ticket, request.and_then(|request| request.header("origin")), reply),
        }
    }

    /// Each stage of a request has one absolute deadline, set when it begins.
    fn track_stage(&mut self, now: Now, ticket: Ticket) {
        let limits = self.rules.limits;
        let Some(connection) = self.connection(ticket) else { return };
        let queued = connection.queued();
        let State::Http(http) = &mut connection.state else { return };
        let stage = http.reader.stage();
        let waits = http.waiting.is_some();
        if stage != Stage::Body {
            http.client = None;
        }
        if stage == http.stage && stage != Stage::Idle && !waits {
            return;
        }
        http.stage = stage;
        let allowed_ms = match stage {
            // An answer has to be taken, however long a connection may be idle.
            Stage::Idle if limits.idle_timeout.is_zero() && queued > 0 => ms(limits.body_timeout),
            Stage::Idle => idle_ms(&limits),
            Stage::Head => ms(limits.head_timeout),
            Stage::Body => ms(limits.body_timeout),
        };
        http.until_ms = now.monotonic_ms().saturating_add(allowed_ms);
        self.schedule(now, ticket);
    }

    fn head(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: &Request<'_>,
        body: BodyLength,
        expects_continue: bool,
        body_is_to_come: bool,
    ) {
        let known = route(self.door(ticket), self.rules.issuer.is_some(), request.method, request.path);
        let route = known.as_ref().ok().copied();
        let template = route.map_or("other", |route| route.resource.template());
        let judged = match self.rules.verifier {
            None => judge_echo(request),
            Some(_) => known.and_then(|route| self.judge(now, ticket, request, body, route)),
        };
        let client = (body != BodyLength::None).then(|| self.client(ticket, request));
        let usual = self.rules.limits.body;
        let Some(connection) = self.connection(ticket) else { return };
        let State::Http(http) = &mut connection.state else { return };
        http.client = client;
        let continues = expects_continue && body_is_to_come;
        let reply = match judged {
            Ok(body_max) => return self.take_body(ticket, body_max, continues),
            Err(reply) => reply,
        };
        let kept = key_of_unread(&reply, request, http.admitted.take());
        if let Some((asked, _)) = kept {
            let body_max = requests::body_max(asked.route, usual);
            if !matches!(body, BodyLength::Known(length) if length > body_max) {
                // Only the body tells whether it is the same request that comes again.
                (http.admitted, http.refusal) = (Some(asked), Some(reply));
                return self.take_body(ticket, body_max, continues);
            }
        }
        http.reader.skip(SKIP_MAX);
        let mut terms = request.terms();
        // Whoever asked whether to send the body will not send it: where the next request begins is unknown.
        terms.keep_alive &= !expects_continue;
        // Nor is more read past than that.
        terms.keep_alive &= !matches!(body, BodyLength::Known(length) if length > SKIP_MAX);
        match kept.filter(|_| !self.is_overloaded()) {
            Some(kept) => self.remember(now, ticket, request, terms, reply, kept),
            None => self.respond(now, ticket, reply, terms, request, template),
        }
    }

    fn take_body(&mut self, ticket: Ticket, body_max: usize, continues: bool) {
        let Some(connection) = self.connection(ticket) else { return };
        let State::Http(http) = &mut connection.state else { return };
        http.reader.admit(body_max);
        if continues {
            connection.cold().outbound.push(|out| out.extend_from_slice(CONTINUE));
            self.flush_later(ticket);
        }
    }

    /// Keeps a refusal under its key before it is given.
    fn remember(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: &Request<'_>,
        terms: Terms,
        reply: Reply,
        (asked, key): (Admitted, Idempotency),
    ) {
        self.wait(now, ticket, request, asked.route, terms);
        let command = Command::Remember { status: reply.status, body: reply.body };
        self.submit(now, Some(ticket), command, Some(key));
    }

    fn door(&mut self, ticket: Ticket) -> Door {
        match self.connection(ticket).map(|connection| &connection.state) {
            Some(State::Http(http)) => http.door,
            _ => Door::Public,
        }
    }

    /// A whole request.
    fn request(&mut self, now: Now, ticket: Ticket, request: &Request<'_>) {
        let peer = self.peer(ticket);
        let Some(connection) = self.connection(ticket) else { return };
        let State::Http(http) = &mut connection.state else { return };
        let Some(Admitted { route, caller, expires_ms, accept }) = http.admitted.take() else {
            return self.upgrade_echo(ticket, request);
        };
        let refusal = http.refusal.take();
        if let (Resource::Socket(channel, user), Some(accept)) = (route.resource, accept) {
            return self.upgrade(now, ticket, request, &accept, (user, channel), expires_ms);
        }
        if let Resource::File(file) = route.resource {
            return self.hand_out(now, ticket, request, file);
        }
        let key = match idempotency(route, caller, request, request.body) {
            Ok(key) => key,
            Err(reply) => {
                return self.respond(now, ticket, reply, request.terms(), request, route.resource.template());
            }
        };
        let https = self.rules.proxies.iter().any(|proxy| proxy.contains(peer))
            && request.header("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        let origin = match request.host {
            "" => String::new(),
            host => format!("{}://{host}", if https { "https" } else { "http" }),
        };
        let asked = match refusal {
            Some(reply) => Err(reply),
            None => requests::understand(route, caller, request, &origin, self.rules.limits.body),
        };
        let asked = match (asked, &key) {
            (Err(reply), Some(_)) if reply.headers.is_empty() => {
                Ok(Asked::Write(Command::Remember { status: reply.status, body: reply.body }))
            }
            (asked, _) => asked,
        };
        let work = match asked.and_then(|asked| self.weigh(now, ticket, request, asked)) {
            Ok(work) => work,
            Err(reply) => {
                return self.respond(now, ticket, reply, request.terms(), request, route.resource.template());
            }
        };
        self.wait(now, ticket, request, route, request.terms());
        match work {
            Work::Page(page) => self.effects.own_pages.push((ticket, page)),
            Work::Encode(command) => self.hash(PasswordTask::Encode { ticket, command }),
            Work::SignIn(credentials) => self.begin_sign_in(ticket, credentials),
            Work::Write(command) => self.submit(now, Some(ticket), command, key),
            Work::Read(query) => self.ask(ticket, query),
        }
    }

    /// What has to be done for an answer, if there is room for it; `Err`: the answer, where it is known already.
    fn weigh(&mut self, now: Now, ticket: Ticket, request: &Request<'_>, asked: Asked) -> Result<Work, Reply> {
        match asked {
            Asked::Server(Resource::Explain(id)) => Err(self.explain(request, id)),
            Asked::Server(resource) => self.server_state(resource).map_or(Ok(Work::Page(resource)), Err),
            _ if self.is_overloaded() => Err(Reply::unavailable("Overloaded.", 1 + self.jitter(ticket, 3))),
            Asked::Write(command) if command.holds_plain_password() => {
                self.room_to_hash()?;
                Ok(Work::Encode(command))
            }
            Asked::Write(command) => Ok(Work::Write(command)),
            Asked::Read(query) => Ok(Work::Read(query)),
            Asked::Renew(token) => Ok(Work::Write(self.refresh(now, &token)?)),
            Asked::SignIn(credentials) => match self.logins.take_name(&credentials.username, now) {
                Ok(()) => Ok(Work::SignIn(credentials)),
                Err(wait_us) => Err(self.throttled(Limit::LoginsPerMinutePerUser, wait_us)),
            },
        }
    }

    fn wait(&mut self, now: Now, ticket: Ticket, request: &Request<'_>, route: Route, terms: Terms) {
        let origin = request.header("origin").map(str::to_owned);
        if let Some(State::Http(http)) = self.connection(ticket).map(|connection| &mut connection.state) {
            let method = request.method.as_str();
            let asked_us = now.monotonic_us;
            http.waiting = Some(Waiting { terms, method, route, asked_us, origin, password: None });
        }
    }

    /// The answer that a waiting request gets.
    pub(super) fn answer_waiting(&mut self, now: Now, ticket: Ticket, reply: Reply) {
        let Some(connection) = self.connection(ticket) else { return };
        let State::Http(http) = &mut connection.state else { return };
        let Some(waiting) = http.waiting.take() else { return };
        self.effects.events.push(Event::Request {
            method: waiting.method,
            route: waiting.route.resource.template(),
            status: reply.status,
            took_us: now.monotonic_us.saturating_sub(waiting.asked_us),
        });
        self.write(now, ticket, response(reply), waiting.terms, waiting.origin.as_deref());
        self.track_stage(now, ticket);
        self.resume(now, ticket);
    }

    /// Answers at once.
    fn respond(
        &mut self,
        now: Now,
        ticket: Ticket,
        reply: Reply,
        terms: Terms,
        request: &Request<'_>,
        template: &'static str,
    ) {
        let method = request.method.as_str();
        self.effects.events.push(Event::Request { method, route: template, status: reply.status, took_us: 0 });
        self.write(now, ticket, response(reply), terms, request.header("origin"));
    }

    /// A file that is the same for all.
    fn hand_out(&mut self, now: Now, ticket: Ticket, request: &Request<'_>, file: File) {
        let response = file.response(request);
        let (method, route) = (request.method.as_str(), file.path());
        self.effects.events.push(Event::Request { method, route, status: response.status, took_us: 0 });
        self.write(now, ticket, response, request.terms(), request.header("origin"));
    }

    fn write(&mut self, now: Now, ticket: Ticket, mut response: Response, mut terms: Terms, origin: Option<&str>) {
        terms.keep_alive &= self.drain.is_none();
        if let Some(origin) = origin {
            response = self.readable_from(origin, ticket, response);
        }
        let date = self.date(now).to_owned();
        let Some(connection) = self.connection(ticket) else { return };
        let outbound = &mut connection.cold().outbound;
        outbound.push(|out| response.encode_head(out, &date, terms));
        match response.body_sent(terms) {
            Cow::Borrowed(body) => outbound.push_static(body),
            Cow::Owned(body) => outbound.push(|out| out.extend_from_slice(body)),
        }
        self.flush_later(ticket);
        if response.closes(terms) {
            self.begin_closing(now, ticket);
        }
    }

    /// With what lets a page of that origin read it (Fetch, "CORS protocol"), if it may. Of a request whose origin is not
    /// known: `*`.
    pub(super) fn readable_from(&mut self, origin: &str, ticket: Ticket, response: Response) -> Response {
        // Pages from elsewhere have no business with the operator's numbers.
        if self.door(ticket) != Door::Public || !self.allows_origin(origin) {
            return response;
        }
        let any = self.rules.origins.iter().any(|allowed| allowed == "*");
        response
            .header("Access-Control-Allow-Origin", if any { "*".to_owned() } else { origin.to_owned() })
            .header("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
            .header("Vary", "Origin")
    }

    /// What the server knows of itself; `None` where the reactor knows better.
    fn server_state(&mut self, resource: Resource) -> Option<Reply> {
        match (resource, self.unready()) {
            (Resource::Live, _) => Some(Reply::ok("ok", serde_json::json!({ "status": "live" }))),
            (Resource::Ready, Some(why)) => Some(Reply::unavailable(&why, 5)),
            (Resource::Ready, None) => Some(Reply::ok(
                "ok",
                serde_json::json!({ "status": "ready", "sockets": self.feeds, "connections": self.table.len() }),
            )),
            _ => None,
        }
    }

    /// Why this server should be sent no one, if so.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        match &self.failing {
            _ if self.drain.is_some() => Some("draining".to_owned()),
            Some(why) => Some(format!("storage: {why}")),
            None => self.log_failing.as_ref().map(|why| format!("shared log: {why}")),
        }
    }

    /// What is known of a notification's way beyond its row, and which sockets of its user (`?user=`) are open.
    fn explain(&self, request: &Request<'_>, id: NotificationId) -> Reply {
        let name = |socket: Ticket| format!("{}.{}", socket.key, socket.generation);
        let steps: Vec<_> = self
            .sends
            .of(id)
            .map(
                |step| serde_json::json!({ "at": rfc3339(step.at_ms), "socket": name(step.socket), "what": step.what }),
            )
            .collect();
        let user = request.query("user").and_then(|text| UserId::parse(&text));
        let channel = |ticket: Ticket| match &self.table.get(ticket.key as usize)?.connection.state {
            State::Feed(feed) => Some(feed.channel),
            _ => None,
        };
        let named = |ticket| serde_json::json!({ "socket": name(ticket), "channel": channel(ticket) });
        let open = user.map(|user| self.tickets_of(user).map(named).collect::<Vec<_>>());
        let since = rfc3339(self.sends.complete_since_ms());
        Reply::ok("ok", serde_json::json!({ "steps": steps, "complete_since": since, "open_sockets": open }))
    }

    fn upgrade_echo(&mut self, ticket: Ticket, request: &Request<'_>) {
        let Ok(accept) = upgrade::check(request) else { return };
        let Some(connection) = self.connection(ticket) else { return };
        connection.cold().outbound.push(|out| accept.encode(out, None));
        connection.state = State::Echo;
        self.flush_later(ticket);
    }

    /// The 101, a place in the index, and the question what this user has missed.
    fn upgrade(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: &Request<'_>,
        accept: &Accept,
        (user, channel): (UserId, Channel),
        expires_ms: i64,
    ) {
        let subprotocol = upgrade::bearer_subprotocol(request).map(|_| "bearer");
        let since = request.query("since").filter(|since| !since.is_empty());
        let silent_ms = self.silent_at_ms(now);
        self.count_for_client(ticket, request);
        let Some(connection) = self.connection(ticket) else { return };
        connection.cold().outbound.push(|out| accept.encode(out, subprotocol));
        let took_us = match &connection.state {
            State::Http(http) => now.monotonic_us.saturating_sub(http.opened_us),
            _ => 0,
        };
        connection.opened_s = seconds(now);
        connection.state = State::Feed(Feed::new(now, user, channel, expires_ms, silent_ms));
        self.flush_later(ticket);
        self.enter_index(ticket);
        self.effects.events.push(Event::Opened { user, channel, open: self.feeds, took_us });
        self.effects.seen.push(Seen::Connected(user));
        match request.query("probe") {
            Some(_) => self.begin_probe(now, ticket),
            None => self.begin_replay(now, ticket, since.as_deref()),
        }
    }
}
