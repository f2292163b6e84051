use super::super::tests::{Rows, any_command, notify};
use super::*;
use crate::api::command::{Backlog, From, NotificationFilter, Query, Recipients};
use crate::api::page::PageRequest;
use crate::notification::Channel;
use crate::storage::file::digest_of;
use crate::storage::{queries, schema};
use proptest::prelude::*;
use rusqlite::Connection;

/// What everybody may ask, answered in full.
fn everything(db: &Connection) -> Vec<String> {
    let page = || PageRequest::parse("http://h/".to_owned(), "page_size=100").unwrap();
    let all_kinds = || NotificationFilter { is_read: None, kind: None, channel: None };
    let asked = (1..6).map(UserId).flat_map(|of| {
        let backlog = |channel, from| {
            let (mark, oldest) = (NotificationId(20), NotificationId(2));
            Query::Backlog(Backlog { user: of, channel, from, mark, oldest, replay_max: 5, page_rows: 100 })
        };
        let since = From::Since(NotificationId(7).uuid(1_030, of, Channel::Tenant));
        [
            Query::Notifications { of, filter: all_kinds(), page: page() },
            Query::Notifications {
                of,
                filter: NotificationFilter { is_read: Some(false), ..all_kinds() },
                page: page(),
            },
            Query::Notifications {
                of,
                filter: NotificationFilter { kind: Some("aviso".to_owned()), ..all_kinds() },
                page: page(),
            },
            Query::NotificationSummary { of },
            Query::MyMatches { of, status: None, page: page() },
            Query::MyMatches { of, status: Some("pending"), page: page() },
            Query::PendingRequests { of, page: page() },
            backlog(Channel::Property, From::Waiting),
            backlog(Channel::Tenant, From::Waiting),
            backlog(Channel::Tenant, From::After { id: NotificationId(5), all: true }),
            backlog(Channel::Tenant, since),
        ]
    });
    asked.map(|query| format!("{query:?}: {:?}", queries::answer(db, &query).unwrap())).collect()
}

#[test]
fn a_broadcast_is_filed_as_it_comes() {
    let mut rows = Rows::new();
    let many = |n: i64| notify(Recipients::Many((1..=n).map(UserId).collect()), Channel::Tenant);
    // A sweep is under way when it comes.
    rows.run(many(2_500));
    rows.writer.file_entries(64).unwrap();
    rows.run(many(10_000));
    rows.writer.file_slice().unwrap();
    assert!(!rows.writer.has_unfiled());
    assert_eq!((rows.count("inbox"), rows.count("notification")), (12_500, 12_500));
}

#[test]
fn a_pause_files_in_portions() {
    let mut rows = Rows::new();
    rows.run(notify(Recipients::Many((1..=10_000).map(UserId).collect()), Channel::Tenant));
    let mut filed = Vec::new();
    while rows.writer.has_unfiled() {
        rows.writer.file().unwrap();
        filed.push(rows.count("inbox"));
    }
    assert_eq!(filed, [4_096, 8_192, 10_000]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// One writer files after each command, the other now and then, or forgets what it had in memory as after a crash.
    #[test]
    fn trailing_indexes_answer_as_plain_ones(
        commands in prop::collection::vec((any_command(), 0..6_u8), 1..60)
    ) {
        let (mut prompt, mut late) = (Rows::new(), Rows::new());
        for (command, then) in commands {
            let (one, other) = (prompt.run(command.clone()), late.run(command.clone()));
            prop_assert_eq!(format!("{:?}", one), format!("{:?}", other));
            prompt.writer.file().unwrap();
            match then {
                0 => late.writer.file().unwrap(),
                3 | 4 => drop(late.writer.file_entries(then.into()).unwrap()), // a sweep that stops halfway
                1 => late.writer.reload().unwrap(),
                2 => prop_assert_eq!(everything(&prompt.writer.db), everything(&late.writer.db), "after {:?}", command),
                _ => {}
            }
            for user in 1..6_i64 {
                let ids = |sql: &str| -> Vec<i64> {
                    let mut ids = late.writer.db.prepare(sql).unwrap();
                    ids.query_map([user], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
                };
                prop_assert_eq!(
                    ids(&format!("{} ORDER BY 1", schema::of_user("n.id", "", ""))),
                    ids("SELECT id FROM notification WHERE user = ?1 ORDER BY id")
                );
            }
        }
        prop_assert_eq!(digest_of(&prompt.writer.db).unwrap(), digest_of(&late.writer.db).unwrap());
        late.writer.file().unwrap();
        prop_assert!(!late.writer.has_unfiled());
        for (index, table) in [("inbox", "notification"), ("pair", "matches"), ("suit", "matches")] {
            prop_assert_eq!(late.count(index), late.count(table), "{}", index);
        }
    }
}
