//! Owns the tests of users coming and going. Never makes a world of its own: `apply::tests` does.

use super::*;
use crate::api::command::{Command, Recipients};
use crate::notification::Channel;
use crate::storage::apply::tests::*;
use crate::storage::job::Idempotency;
use serde_json::json;

#[test]
fn a_user_comes_is_shut_out_and_goes() {
    let mut rows = Rows::empty();
    let put = |is_active, password: Option<&str>| {
        let user = User { username: "eva".to_owned(), ..User::default() };
        Command::PutUser { id: TENANT, user, is_active, password: password.map(str::to_owned) }
    };
    let password = |rows: &Rows| -> Option<String> {
        rows.writer.db.query_row("SELECT password FROM user", [], |row| row.get(0)).unwrap()
    };
    let standing = |changes: &[Change]| match changes {
        [] | [Change::Known { user: TENANT }] => None,
        [Change::Standing { user: TENANT, standing }]
        | [Change::Known { user: TENANT }, Change::Standing { user: TENANT, standing }] => Some(*standing),
        other => panic!("{other:?}"),
    };
    // Command, status, whether he is shown as active, and what the hub hears.
    let steps = [
        (put(None, Some("p$1")), 201, true, None),
        (put(None, None), 200, true, None),
        (put(Some(false), None), 200, false, Some(Standing::Inactive)),
        (put(None, None), 200, false, None),
        (put(Some(true), None), 200, true, Some(Standing::Active)),
    ];
    for (n, (command, status, is_active, heard)) in steps.into_iter().enumerate() {
        let (answer, changes) = rows.run(command);
        let (answered, data) = reply(&answer);
        assert_eq!((answered, &data["is_active"], standing(&changes)), (status, &json!(is_active), heard), "step {n}");
        assert_eq!(password(&rows).as_deref(), Some("p$1"), "step {n}");
    }

    rows.run(put_property(true));
    rows.run(like(TENANT));
    rows.notify(TENANT, Channel::Tenant);
    let key = Idempotency { caller: TENANT.0, key: "k".to_owned(), fingerprint: 1 };
    rows.job(Command::MarkAllRead { by: TENANT }, Some(key));
    assert_eq!(rows.count("idempotency"), 1);
    let (answer, changes) = rows.run(Command::DeleteUser { id: TENANT });
    assert_eq!((reply(&answer).0, rows.count("idempotency")), (204, 0));
    assert!(matches!(
        changes[..],
        [Change::Forgotten { user: TENANT }, Change::Standing { user: TENANT, standing: Standing::Deleted }]
    ));
    assert_eq!((rows.count("matches"), rows.count("general"), password(&rows)), (0, 0, None));
    assert_eq!(rows.counts().keys().map(|(user, _)| *user).collect::<Vec<_>>(), [OWNER, AGENT]);
    assert_eq!(rows.told(Command::DeleteUser { id: TENANT }).0, 404);
    // What he had asked for before, and comes behind it, leaves nothing.
    let keys = [None, Some(Idempotency { caller: TENANT.0, key: "late".to_owned(), fingerprint: 2 })];
    let late = [like(TENANT), Command::Remember { status: 400, body: "{}".to_owned() }];
    for (command, key) in late.into_iter().zip(keys) {
        let (answer, changes) = rows.job(command, key);
        assert_eq!((reply(&answer).0, changes.len()), (401, 0));
    }
    assert_eq!((rows.count("matches"), rows.count("idempotency")), (0, 0));
    // What others do does not reach him; a new writer knows it too.
    rows.writer.reload().unwrap();
    assert_eq!(rows.told(notify(Recipients::One(TENANT, None), Channel::Tenant)).0, 404);
    let (answer, changes) = rows.run(put(None, None));
    assert_eq!((reply(&answer).0, standing(&changes)), (201, Some(Standing::Active)));
    assert_eq!(rows.told(notify(Recipients::One(TENANT, None), Channel::Tenant)).0, 201);
    assert_eq!(rows.told(Command::DeleteUser { id: STRANGER }).0, 404);
}

#[test]
fn whoever_was_never_put_can_be_deleted() {
    let mut rows = Rows::new();
    let unknown = UserId(77);
    rows.notify(unknown, Channel::Property);
    rows.run(like(unknown));
    assert_eq!(rows.told(Command::DeleteUser { id: unknown }).0, 204);
    assert_eq!((rows.count("matches"), rows.count("general")), (0, 0));
    assert!(rows.counts().keys().all(|(user, _)| *user != unknown));
    assert_eq!(rows.told(notify(Recipients::One(unknown, None), Channel::Tenant)).0, 404);
    assert_eq!(rows.told(Command::DeleteUser { id: unknown }).0, 404);

    // Without a row he is not found, and may have a token: he is remembered, once.
    let nobody = UserId(78);
    let gone = Change::Standing { user: nobody, standing: Standing::Deleted };
    for changed in [2, 0] {
        let (answer, changes) = rows.run(Command::DeleteUser { id: nobody });
        assert_eq!((reply(&answer).0, changes.len()), (404, changed));
        assert!(changes.last().is_none_or(|last| format!("{last:?}") == format!("{gone:?}")));
    }
    rows.writer.reload().unwrap();
    assert_eq!(rows.told(notify(Recipients::One(nobody, None), Channel::Tenant)).0, 404);
    assert_eq!(reply(&rows.run(put_user(nobody, "eva")).0).0, 201);
}

/// By SQLite's own count, not by a clock.
#[test]
fn whoever_has_ten_times_the_rows_costs_ten_times_as_much_to_forget() {
    let steps = |count: usize| -> i32 {
        let mut rows = Rows::new();
        (0..count).for_each(|_| drop(rows.notify(TENANT, Channel::Tenant)));
        while rows.writer.has_unfiled() {
            rows.writer.file_entries(usize::MAX).unwrap();
        }
        let forget = |sql: &&str| {
            let mut statement = rows.writer.db.prepare(sql).unwrap();
            statement.execute([TENANT.0]).unwrap();
            statement.get_status(rusqlite::StatementStatus::VmStep)
        };
        FORGET.iter().map(forget).sum()
    };
    let (few, many) = (steps(50), steps(500));
    assert!(many < 15 * few, "{few} steps for 50 rows, {many} for 500");
}
