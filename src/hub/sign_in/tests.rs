use super::*;
use crate::api::routes::Door;
use crate::auth::Verifier;
use crate::config::Config;
use crate::hub::Rules;
use crate::hub::event::CloseCause;
use crate::storage::job::{Answer, Census, Errand, Outcome};

const NOW: Now = Now { monotonic_us: 5_000_000, wall_ms: 1_700_000_000_000 };
const SECRET: &[u8] = &[b's'; 32];
const ANA: UserId = UserId(7);

/// A hub without sockets, and what it has to do.
struct Room {
    hub: Hub<()>,
}

impl Room {
    fn new() -> Self {
        Self { hub: Hub::new(NOW, Self::rules(true), &Census::default(), 1) }
    }

    fn rules(login: bool) -> Rules {
        let mut config = Config::default();
        config.auth.key = Some(Key::Secret(SECRET.to_vec()));
        config.auth.login = login;
        config.limits.logins_per_minute = 0;
        config.limits.logins_per_minute_per_user = 0;
        Rules::new(&config, Some(Verifier::from_secret(SECRET).unwrap()), 1_000)
    }

    /// A connection, and the last bytes of a request on it.
    fn begin(&mut self, path: &str, body: &'static str) -> (Ticket, &'static str) {
        let ticket = self.hub.accept(NOW, (), IpAddr::from([127, 0, 0, 1]), Door::Public).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.hub.receive(NOW, ticket, &mut head.into_bytes());
        (ticket, body)
    }

    /// Somebody asks to sign in as "ana"; the question that follows is answered with these passwords.
    fn ask(&mut self, candidates: Vec<(UserId, String)>) -> Ticket {
        let (ticket, body) = self.begin("/api/login/", r#"{"username":"ana","password":"secreto"}"#);
        self.hub.receive(NOW, ticket, &mut body.as_bytes().to_vec());
        let asked = self.hub.effects.reads.pop().unwrap();
        assert_eq!(asked.query, Query::Credentials { username: "ana".to_owned() });
        self.answer(ticket, Answer::Credentials { candidates, refusal_rounds: password::DJANGO_ITERATIONS });
        ticket
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let outcome = Outcome { ticket: Some(ticket), answer, changes: Vec::new(), asked_us: 0, ours: true };
        self.hub.answered(NOW, vec![outcome]);
    }

    fn leave(&mut self, ticket: Ticket) {
        self.hub.gone(NOW, ticket, CloseCause::Reset);
        self.hub.reap(ticket).unwrap();
    }

    /// The task that is next for the hasher's thread.
    fn task(&mut self) -> (Ticket, u64) {
        match self.hub.effects.hash.remove(0) {
            PasswordTask::Check { ticket, password, cost, .. } if password == "secreto" => (ticket, cost),
            _ => panic!("another task"),
        }
    }

    /// What is written to a connection.
    fn said(&mut self, ticket: Ticket) -> String {
        let (_, outbound) = self.hub.outbound(ticket).unwrap();
        outbound.slices().iter().map(|bytes| str::from_utf8(bytes).unwrap()).collect()
    }

    fn is_idle(&self) -> bool {
        self.hub.hashing == 0 && self.hub.outstanding == 0 && self.hub.effects.errands.is_empty()
    }
}

#[test]
fn a_right_password_is_committed_before_there_are_tokens() {
    let mut room = Room::new();
    let asker = room.ask(vec![(ANA, "stored".to_owned())]);
    let (ticket, cost) = room.task();
    assert_eq!((ticket, cost), (asker, u64::from(password::DJANGO_ITERATIONS)));
    room.hub.checked(NOW, ticket, Some((ANA, "stored".to_owned())), cost);
    let Some(Errand::Write(job)) = room.hub.effects.errands.pop() else { panic!("nothing to commit") };
    let Command::SignIn { user: ANA, checked, family, token, expires_ms } = job.command else {
        panic!("not a sign-in")
    };
    assert_eq!((checked.as_str(), expires_ms), ("stored", NOW.wall_ms + 7 * 24 * 60 * 60 * 1_000));
    assert!(room.hub.outbound(asker).is_none_or(|(_, outbound)| outbound.is_empty()));
    room.answer(asker, Answer::Tokens { user: ANA, family, token, made_ms: NOW.wall_ms, expires_ms });
    let said = room.said(asker);
    let body: serde_json::Value = serde_json::from_str(said.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let refresh = body["data"]["refresh"].as_str().unwrap();
    let claims = Verifier::from_secret(SECRET).unwrap().verify_refresh(refresh, NOW.wall_ms).unwrap();
    assert_eq!((claims.user, claims.family, claims.jti, claims.expires_at_ms), (ANA, family, token, expires_ms));
    assert!(room.is_idle());
}

#[test]
fn whoever_leaves_while_his_password_is_compared_gets_nothing_and_leaves_nothing() {
    let mut room = Room::new();
    let asker = room.ask(vec![(ANA, "stored".to_owned())]);
    let (ticket, cost) = room.task();
    room.leave(asker);
    room.hub.checked(NOW, ticket, Some((ANA, "stored".to_owned())), cost);
    assert!(room.is_idle());
}

#[test]
fn sign_in_that_is_switched_off_on_the_way_is_not_there() {
    let mut room = Room::new();
    let askers: Vec<Ticket> = (0..3).map(|_| room.ask(Vec::new())).collect();
    let (renews, body) = room.begin("/api/refresh/", r#"{"refresh":"x"}"#);
    room.hub.obey(NOW, Room::rules(false));
    room.hub.receive(NOW, renews, &mut body.as_bytes().to_vec());
    for found in [None, Some((ANA, "stored".to_owned()))] {
        let (ticket, cost) = room.task();
        room.hub.checked(NOW, ticket, found, cost);
    }
    let (family, token) = (Uuid::nil(), Uuid::nil());
    room.answer(askers[2], Answer::Tokens { user: ANA, family, token, made_ms: 0, expires_ms: 1 });
    for ticket in askers.into_iter().chain([renews]) {
        let said = room.said(ticket);
        assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
    }
}

#[test]
fn only_so_many_rounds_wait() {
    let mut room = Room::new();
    let fit = HASHING_MAX / u64::from(password::DJANGO_ITERATIONS);
    let askers: Vec<Ticket> = (0..fit).map(|_| room.ask(Vec::new())).collect();
    let late = room.ask(Vec::new());
    assert_eq!(room.hub.effects.hash.len() as u64, fit);
    let said = room.said(late);
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("Retry-After: 10\r\n"), "{said}");
    for asker in askers {
        let (ticket, cost) = room.task();
        assert_eq!(ticket, asker);
        room.hub.checked(NOW, ticket, None, cost);
        assert!(room.said(asker).starts_with("HTTP/1.1 401 "));
    }
    assert!(room.is_idle());
    room.ask(Vec::new());
    assert_eq!(room.hub.effects.hash.len(), 1);
}

#[test]
fn only_a_secret_signs_and_only_where_sign_in_is_on() {
    let auth = |key: Option<Key>, login| Auth { key, login, ..Auth::default() };
    let secret = || Some(Key::Secret(vec![b's'; 32]));
    assert!(Issuer::new(&auth(secret(), true)).is_some());
    assert!(Issuer::new(&auth(secret(), false)).is_none());
    assert!(Issuer::new(&auth(Some(Key::PublicPem(vec![b's'; 32])), true)).is_none());
    assert!(Issuer::new(&auth(None, true)).is_none());
}

#[test]
fn a_subscriber_is_one_address() {
    let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
    assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9") && !same("2001:db8:1:2::1", "2001:db8:1:3::1"));
    assert!(same("203.0.113.1", "203.0.113.1") && !same("203.0.113.1", "203.0.113.2"));
}

#[test]
fn names_are_counted_one_by_one() {
    let now = Now { monotonic_us: 1_000_000, wall_ms: 0 };
    let mut logins = Logins::new(&Limits { logins_per_minute_per_user: 2, ..Limits::default() });
    let taken = ["ana", "ana", "ana", "Ana", "eva"].map(|name| logins.take_name(name, now).is_ok());
    assert_eq!(taken, [true, true, false, true, true]);
}
