use super::*;
use crate::api::command::{Command, Query};
use crate::auth::password::{self, DJANGO_ITERATIONS};
use crate::matching::User;
use crate::notification::NotificationId;
use crate::storage::job::Job;
use crate::storage::{queries, schema};
use proptest::prelude::*;
use rusqlite::Connection;
use std::collections::HashMap;

const ANA: UserId = UserId(1);
const TTL_MS: i64 = 1_000_000;

/// A writer on a database in memory, and a clock.
struct Rows {
    writer: Writer,
    at_ms: i64,
}

impl Rows {
    fn new() -> Self {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        let mut rows = Self { writer: Writer::new(db).unwrap(), at_ms: 1_000 };
        rows.put(ANA, Some("hash"), None);
        rows
    }

    fn run(&mut self, command: Command) -> (Answer, Vec<Change>) {
        self.at_ms += 1;
        let job = Job { command, ticket: None, idempotency: None, at_ms: self.at_ms, asked_us: 0 };
        self.writer.apply(&job).unwrap()
    }

    fn put(&mut self, id: UserId, password: Option<&str>, is_active: Option<bool>) {
        let user = User { username: "ana".to_owned(), ..User::default() };
        self.run(Command::PutUser { id, user, is_active, password: password.map(str::to_owned) });
    }

    /// The token of a new family: what a good sign-in comes to.
    fn sign_in(&mut self) -> Token {
        self.try_sign_in("hash").unwrap()
    }

    fn try_sign_in(&mut self, checked: &str) -> Option<Token> {
        let token = Token { family: Uuid::new_v4(), id: Uuid::new_v4(), made_ms: self.at_ms + 1 };
        let (checked, expires_ms) = (checked.to_owned(), self.at_ms + TTL_MS);
        let command = Command::SignIn { user: ANA, checked, family: token.family, token: token.id, expires_ms };
        tokens(self.run(command).0)
    }

    fn refresh(&mut self, token: Token) -> Option<Token> {
        tokens(self.told(token).0)
    }

    fn told(&mut self, token: Token) -> (Answer, Vec<Change>) {
        self.run(Command::Refresh(Refresh {
            user: ANA,
            family: token.family,
            token: token.id,
            made_ms: token.made_ms,
            expires_ms: token.made_ms + TTL_MS,
            next: Uuid::new_v4(),
            next_expires_ms: self.at_ms + TTL_MS,
        }))
    }

    fn retain(&mut self) {
        self.run(Command::Retain { after: NotificationId(0), read_for_ms: i64::MAX, unread_for_ms: i64::MAX });
    }

    fn families(&self) -> i64 {
        self.writer.db.query_row("SELECT count(*) FROM refresh_family", [], |row| row.get(0)).unwrap()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Token {
    family: Uuid,
    id: Uuid,
    made_ms: i64,
}

impl Token {
    /// As Django makes it.
    fn foreign(made_ms: i64) -> Self {
        let id = Uuid::new_v4();
        Self { family: id, id, made_ms }
    }
}

fn tokens(answer: Answer) -> Option<Token> {
    match answer {
        Answer::Tokens { user: ANA, family, token: id, made_ms, .. } => Some(Token { family, id, made_ms }),
        Answer::Reply(reply) if reply.status == 401 => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_second_use_ends_the_family_and_is_told_once() {
    let mut rows = Rows::new();
    let (first, other) = (rows.sign_in(), rows.sign_in());
    let second = rows.refresh(first).unwrap();
    assert!(second.family == first.family && second.id != first.id);
    let (answer, changes) = rows.told(first);
    assert!(tokens(answer).is_none() && matches!(changes[..], [Change::Revoked { user: ANA }]));
    assert!(rows.told(first).1.is_empty());
    assert!(rows.refresh(second).is_none());
    assert!(rows.refresh(other).is_some());
}

#[test]
fn what_was_checked_must_still_hold() {
    let mut rows = Rows::new();
    assert!(rows.try_sign_in("another").is_none());
    rows.put(ANA, None, Some(false));
    assert!(rows.try_sign_in("hash").is_none());
    rows.put(ANA, None, Some(true));
    assert!(rows.try_sign_in("hash").is_some());
    rows.run(Command::DeleteUser { id: ANA });
    assert!(rows.try_sign_in("hash").is_none());
}

#[test]
fn another_password_ends_all_and_the_same_one_ends_nothing() {
    let mut rows = Rows::new();
    let (ours, foreign) = (rows.sign_in(), Token::foreign(rows.at_ms));
    rows.put(ANA, Some("hash"), None);
    rows.put(ANA, None, None);
    let ours = rows.refresh(ours).unwrap();
    rows.put(ANA, Some("new"), None);
    assert!(rows.refresh(ours).is_none() && rows.refresh(foreign).is_none());
    assert_eq!(rows.families(), 0);
    let later = Token::foreign(rows.at_ms + 1);
    assert!(rows.refresh(later).is_some());
}

#[test]
fn deactivation_keeps_the_token_for_later_and_deletion_does_not() {
    let mut rows = Rows::new();
    let token = rows.sign_in();
    rows.put(ANA, None, Some(false));
    assert!(rows.refresh(token).is_none());
    rows.put(ANA, None, Some(true));
    let token = rows.refresh(token).unwrap();
    let foreign = Token::foreign(rows.at_ms);
    rows.run(Command::DeleteUser { id: ANA });
    assert!(rows.refresh(token).is_none() && rows.refresh(foreign).is_none());
    rows.put(ANA, Some("hash"), None);
    assert!(rows.refresh(token).is_none() && rows.refresh(foreign).is_none());
}

#[test]
fn tokens_of_django_work_once_too() {
    let mut rows = Rows::new();
    // Those of people who are imported after they signed in.
    let foreign = Token::foreign(0);
    let next = rows.refresh(foreign).unwrap();
    assert_eq!(next.family, foreign.id);
    assert!(rows.refresh(foreign).is_none() && rows.refresh(next).is_none());
    // Ours, on the other hand, begin nothing.
    let unknown = Token { family: Uuid::new_v4(), id: Uuid::new_v4(), made_ms: rows.at_ms };
    assert!(rows.refresh(unknown).is_none());
}

#[test]
fn a_user_has_so_many_families_and_the_one_longest_unused_goes() {
    let mut rows = Rows::new();
    let (oldest, second) = (rows.sign_in(), rows.sign_in());
    let foreign = Token::foreign(rows.at_ms);
    let of_django = rows.refresh(foreign).unwrap();
    for _ in 3..FAMILIES_MAX {
        rows.sign_in();
    }
    let oldest = rows.refresh(oldest).unwrap();
    rows.sign_in();
    assert_eq!(rows.families(), FAMILIES_MAX);
    assert!(rows.refresh(second).is_none(), "went");
    rows.sign_in();
    assert!(rows.refresh(of_django).is_none(), "went");
    assert!(rows.refresh(foreign).is_none(), "does not look new again");
    assert!(rows.refresh(oldest).is_some());
    assert_eq!(rows.families(), FAMILIES_MAX);
}

#[test]
fn families_go_when_their_last_token_has_expired() {
    let mut rows = Rows::new();
    let (token, _) = (rows.sign_in(), rows.sign_in());
    rows.at_ms += TTL_MS / 2;
    let token = rows.refresh(token).unwrap();
    rows.at_ms += TTL_MS / 2 + 10;
    rows.retain();
    assert_eq!(rows.families(), 1);
    assert!(rows.refresh(token).is_some());
    rows.at_ms += TTL_MS + 10;
    rows.retain();
    assert_eq!(rows.families(), 0);
}

/// Counted, not timed: whoever is refused costs the same, whatever is stored, and however dear one user's password is.
#[test]
fn every_refusal_costs_the_same_rounds() {
    let mut rows = Rows::new();
    let put = |rows: &mut Rows, id: i64, username: &str, password: Option<String>, is_active: bool| {
        let user = User { username: username.to_owned(), ..User::default() };
        rows.run(Command::PutUser { id: UserId(id), user, is_active: Some(is_active), password });
    };
    let encode = |rounds| Some(password::encode("secreto", "sal", rounds));
    put(&mut rows, 2, "usual", encode(DJANGO_ITERATIONS), true);
    put(&mut rows, 3, "cheap", encode(1), true);
    put(&mut rows, 4, "none", None, true);
    put(&mut rows, 5, "inactive", encode(1), false);
    put(&mut rows, 6, "unusable", Some(format!("!{}", "9".repeat(40))), true);
    let check = |rows: &Rows, username: &str, given: &str| {
        let query = Query::Credentials { username: username.to_owned() };
        let Answer::Credentials { candidates, refusal_rounds } = queries::answer(&rows.writer.db, &query).unwrap()
        else {
            panic!("no credentials")
        };
        password::check(given, candidates.iter().map(|(_, stored)| stored.as_str()), refusal_rounds)
    };
    let all = ["usual", "cheap", "none", "inactive", "unusable", "nobody"];
    for username in all {
        assert_eq!(check(&rows, username, "mal").rounds, u64::from(DJANGO_ITERATIONS), "{username}");
    }
    let dear = DJANGO_ITERATIONS + DJANGO_ITERATIONS / 4;
    put(&mut rows, 7, "dear", encode(dear), true);
    for username in ["dear", "cheap", "nobody"] {
        let refused = check(&rows, username, "mal");
        assert_eq!((refused.which, refused.rounds), (None, u64::from(dear)), "{username}");
    }
    assert_eq!(check(&rows, "inactive", "secreto").which, None);
    assert_eq!(check(&rows, "cheap", "secreto").which, Some(0));
}

#[test]
fn a_database_from_before_there_were_sign_ins_takes_them() {
    let mut db = Connection::open_in_memory().unwrap();
    db.execute_batch(schema::MIGRATIONS[0]).unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    db.execute("INSERT INTO user VALUES (1, 'ana', '', '', '', '', '', 0, 'pbkdf2_sha256$2000000$s$h', '{}')", [])
        .unwrap();
    schema::migrate(&mut db).unwrap();
    let answer = queries::answer(&db, &Query::Credentials { username: "ana".to_owned() }).unwrap();
    assert!(matches!(answer, Answer::Credentials { refusal_rounds: 2_000_000, candidates } if candidates.len() == 1));
    let mut rows = Rows { writer: Writer::new(db).unwrap(), at_ms: 1_000 };
    let token = rows.try_sign_in("pbkdf2_sha256$2000000$s$h").unwrap();
    assert!(rows.refresh(token).is_some());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    SignIn,
    /// The token made so many before the last.
    Refresh(usize),
    Password,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![2 => Just(Step::SignIn), 8 => (0..12_usize).prop_map(Step::Refresh), 1 => Just(Step::Password)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Against a model: each family's newest token, while it lives.
    #[test]
    fn one_token_of_a_family_works_at_most(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut rows = Rows::new();
        let (mut made, mut alive): (Vec<Token>, HashMap<Uuid, Uuid>) = (Vec::new(), HashMap::new());
        let mut stored = "hash".to_owned();
        for step in steps {
            let gained = match step {
                Step::SignIn => rows.try_sign_in(&stored),
                Step::Refresh(back) => {
                    let Some(token) = made.iter().rev().nth(back).copied() else { continue };
                    let works = alive.get(&token.family) == Some(&token.id);
                    let next = rows.refresh(token);
                    prop_assert_eq!(next.is_some(), works);
                    if !works {
                        alive.remove(&token.family);
                    }
                    next
                }
                Step::Password => {
                    stored.push('x');
                    rows.put(ANA, Some(&stored), None);
                    alive.clear();
                    None
                }
            };
            if let Some(token) = gained {
                alive.insert(token.family, token.id);
                made.push(token);
            }
        }
    }
}
