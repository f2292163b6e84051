//! The writer against a database in memory: what each command does to the rows, and that counts follow them.

use super::apply::Writer;
use super::job::{Answer, Change, Fewer, Idempotency, Job};
use super::{queries, schema};
use crate::api::command::{Command, Recipients, Which};
use crate::matching::{Property, PropertyId, User, UserId};
use crate::notification::{Channel, General, NotificationId};
use rusqlite::Connection;
use serde_json::Map;
use std::collections::BTreeMap;
use uuid::Uuid;

const OWNER: UserId = UserId(1);
const TENANT: UserId = UserId(2);

fn writer() -> Writer {
    let mut db = Connection::open_in_memory().unwrap();
    schema::migrate(&mut db).unwrap();
    let mut rows = Writer::new(db).unwrap();
    let home = |owner| Property {
        owner,
        agent: Some(UserId(3)),
        kind: "casa".to_owned(),
        address: "x".to_owned(),
        price: None,
        bedrooms: None,
        is_active: true,
        further: Map::new(),
    };
    for id in [10, 11, 12] {
        run(&mut rows, Command::PutProperty { id: PropertyId(id), property: home(OWNER) });
    }
    let user = User { username: "ana".to_owned(), ..User::default() };
    run(&mut rows, Command::PutUser { id: OWNER, user, is_active: None, password: None });
    rows
}

fn job(command: Command, at_ms: i64) -> Job {
    Job { command, ticket: None, idempotency: None, at_ms, asked_us: 0 }
}

fn run(rows: &mut Writer, command: Command) -> (Answer, Vec<Change>) {
    rows.apply(&job(command, 1_000)).unwrap()
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Reply(reply) => reply.status,
        other => panic!("{other:?}"),
    }
}

fn like(rows: &mut Writer, by: UserId, home: i64) -> (Answer, Vec<Change>) {
    run(rows, Command::ActOnProperty { by, property: PropertyId(home), likes: true, reason: None })
}

fn note(to: i64, uuid: Option<Uuid>) -> Command {
    let general =
        General { kind: "general".to_owned(), title: String::new(), message: "m".to_owned(), data: "{}".to_owned() };
    Command::Notify { to: Recipients::One(UserId(to), uuid), channel: Channel::Tenant, general }
}

fn ids(changes: &[Change]) -> Vec<NotificationId> {
    changes.iter().filter_map(|change| if let Change::Created(n) = change { Some(n.id) } else { None }).collect()
}

/// The counts that a hub would hold after these changes.
fn count(inboxes: &mut BTreeMap<(i64, Channel), (u32, u32)>, changes: &[Change]) {
    let mut settle = |user: UserId, channel, fewer: Fewer| {
        let entry = inboxes.entry((user.0, channel)).or_default();
        *entry = (entry.0 - fewer.unread, entry.1 - fewer.waiting);
    };
    for change in changes {
        match change {
            Change::Read { user, fewer, .. } => {
                Channel::ALL.into_iter().zip(fewer).for_each(|(channel, fewer)| settle(*user, channel, *fewer));
            }
            Change::Settled { user, channel, fewer } => settle(*user, *channel, *fewer),
            _ => {}
        }
    }
    for change in changes {
        match change {
            Change::Created(n) => {
                let entry = inboxes.entry((n.user.0, n.channel)).or_default();
                *entry = (entry.0 + 1, entry.1 + 1);
            }
            Change::Forgotten { user } => inboxes.retain(|(of, _), _| *of != user.0),
            _ => {}
        }
    }
}

#[test]
fn a_like_tells_owner_and_agent_once() {
    let mut rows = writer();
    let (answer, changes) = like(&mut rows, TENANT, 10);
    assert_eq!((status(&answer), ids(&changes).len()), (200, 2));
    assert!(ids(&like(&mut rows, TENANT, 10).1).is_empty());
    assert_eq!(status(&like(&mut rows, OWNER, 10).0), 400);
    assert_eq!(status(&like(&mut rows, UserId(3), 10).0), 400);
    assert_eq!(status(&like(&mut rows, TENANT, 99).0), 404);
}

#[test]
fn counts_follow_the_rows() {
    let mut rows = writer();
    let mut inboxes = BTreeMap::new();
    let mut made = Vec::new();
    for round in 0..3 {
        let commands = [
            Command::ActOnProperty { by: TENANT, property: PropertyId(10 + round), likes: true, reason: None },
            note(1, None),
            note(2, None),
            Command::MarkDelivered { user: OWNER, ids: made.clone() },
            Command::MarkDelivered { user: TENANT, ids: made.clone() },
            Command::Skip { user: OWNER, channel: Channel::Tenant, before: NotificationId(i64::MAX) },
            Command::MarkOneRead { by: OWNER, which: Which::Row(NotificationId(1 + round)) },
            note(1, None),
        ];
        for command in commands {
            let changes = run(&mut rows, command).1;
            made.extend(ids(&changes));
            count(&mut inboxes, &changes);
        }
        let census = queries::census(&rows.db).unwrap();
        let stored: BTreeMap<_, _> =
            census.inboxes.iter().map(|(user, channel, u, w)| ((user.0, *channel), (*u, *w))).collect();
        inboxes.retain(|_, inbox| *inbox != (0, 0));
        assert_eq!(stored, inboxes, "round {round}");
    }
    count(&mut inboxes, &run(&mut rows, Command::MarkAllRead { by: OWNER }).1);
    count(&mut inboxes, &run(&mut rows, Command::DeleteUser { id: OWNER }).1);
    inboxes.retain(|_, inbox| *inbox != (0, 0));
    assert!(inboxes.keys().all(|(user, _)| *user != OWNER.0));
}

#[test]
fn ids_are_never_used_again() {
    let mut rows = writer();
    let before = ids(&run(&mut rows, note(1, None)).1);
    run(&mut rows, Command::DeleteUser { id: OWNER });
    rows.reload().unwrap();
    let after = ids(&run(&mut rows, note(2, None)).1);
    assert!(after[0] > before[0]);
    assert_eq!(status(&run(&mut rows, note(1, None)).0), 404);
}

#[test]
fn a_known_notification_id_gives_the_row_there_is() {
    let mut rows = writer();
    let uuid = Some(Uuid::from_u128(7));
    let (first, again) = (run(&mut rows, note(2, uuid)), run(&mut rows, note(2, uuid)));
    assert_eq!((status(&first.0), status(&again.0), again.1.len()), (201, 200, 0));
}

#[test]
fn a_remembered_answer_is_given_again_for_a_day() {
    let mut rows = writer();
    let keyed = |fingerprint, at_ms| Job {
        idempotency: Some(Idempotency { caller: 0, key: "k".to_owned(), fingerprint }),
        ..job(note(2, None), at_ms)
    };
    let mut told = |fingerprint, at_ms| {
        let (answer, changes) = rows.apply(&keyed(fingerprint, at_ms)).unwrap();
        (status(&answer), changes.len())
    };
    assert_eq!(told(1, 0), (201, 1));
    assert_eq!(told(1, 10), (201, 0));
    assert_eq!(told(2, 10), (422, 0));
    assert_eq!(told(1, super::apply::IDEMPOTENCY_MS), (201, 1));
}

#[test]
fn retention_takes_old_rows_stride_by_stride() {
    let mut rows = writer();
    for _ in 0..3 {
        run(&mut rows, note(2, None));
    }
    run(&mut rows, Command::MarkOneRead { by: TENANT, which: Which::Row(NotificationId(2)) });
    let retain = |read_before_ms, unread_before_ms| Command::Retain {
        after: NotificationId(0),
        read_before_ms,
        unread_before_ms,
    };
    let left =
        |rows: &Writer| rows.db.query_row("SELECT count(*) FROM notification", [], |row| row.get::<_, i64>(0)).unwrap();
    run(&mut rows, retain(1_000, 1_000));
    assert_eq!(left(&rows), 3); // none is older
    run(&mut rows, retain(1_001, 1_000));
    assert_eq!(left(&rows), 2); // the read one
    let changes = run(&mut rows, retain(1_001, 1_001)).1;
    assert_eq!((left(&rows), changes.len()), (0, 2));
    let shared: i64 = rows.db.query_row("SELECT count(*) FROM general", [], |row| row.get(0)).unwrap();
    assert_eq!(shared, 0);
}
