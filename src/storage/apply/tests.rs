use super::*;
use crate::api::command::{Act, Which};
use crate::api::frames::WhatWasRead;
use crate::matching::{MatchId, Property, PropertyId, User};
use crate::notification::{Channel, Content, General, Notification, NotificationId};
use crate::storage::job::Fewer;
use crate::storage::{queries, schema};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

pub(super) const OWNER: UserId = UserId(1);
pub(super) const AGENT: UserId = UserId(2);
pub(super) const TENANT: UserId = UserId(3);
pub(super) const STRANGER: UserId = UserId(4);
pub(super) const HOME: PropertyId = PropertyId(7);
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A writer on a database in memory, with a home in it.
pub(super) struct Rows {
    pub(super) writer: Writer,
    at_ms: i64,
}

impl Rows {
    pub(super) fn empty() -> Self {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        Self { writer: Writer::new(db).unwrap(), at_ms: 1_000 }
    }

    pub(super) fn new() -> Self {
        let mut rows = Self::empty();
        for (id, username) in [(OWNER, "maria"), (AGENT, "ana"), (TENANT, "juan")] {
            rows.run(put_user(id, username));
        }
        rows.run(put_property(true));
        rows
    }

    pub(super) fn job(&mut self, command: Command, idempotency: Option<Idempotency>) -> (Answer, Vec<Change>) {
        self.at_ms += 1;
        let job = Job { command, ticket: None, idempotency, at_ms: self.at_ms, asked_us: 0 };
        self.writer.apply(&job).unwrap()
    }

    pub(super) fn run(&mut self, command: Command) -> (Answer, Vec<Change>) {
        self.job(command, None)
    }

    /// Status and `data` of the reply, and who was told what.
    pub(super) fn told(&mut self, command: Command) -> (u16, Value, Vec<(UserId, Channel, String)>) {
        let (answer, changes) = self.run(command);
        let told = created(&changes).map(|n| (n.user, n.channel, n.content.kind().to_owned())).collect();
        let (status, data) = reply(&answer);
        (status, data, told)
    }

    /// One general notification; its row.
    pub(super) fn notify(&mut self, user: UserId, channel: Channel) -> Notification {
        let (_, changes) = self.run(notify(Recipients::One(user, None), channel));
        created(&changes).next().unwrap().clone()
    }

    /// Unread and waiting, of every user and channel that has either, counted from the rows.
    pub(super) fn counts(&self) -> Counts {
        let census = queries::census(&self.writer.db).unwrap();
        census.inboxes.into_iter().map(|count| ((count.user, count.channel), (count.unread, count.waiting))).collect()
    }

    pub(super) fn count(&self, table: &str) -> i64 {
        self.writer.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }
}

type Counts = BTreeMap<(UserId, Channel), (u32, u32)>;

pub(super) fn put_user(id: UserId, username: &str) -> Command {
    let user = User { username: username.to_owned(), email: format!("{username}@x"), ..User::default() };
    Command::PutUser { id, user, is_active: None, password: None }
}

pub(super) fn put_property(is_active: bool) -> Command {
    let (kind, address) = ("casa".to_owned(), "Calle 1".to_owned());
    let (owner, agent) = (OWNER, Some(AGENT));
    let property =
        Property { owner, agent, kind, address, price: None, bedrooms: None, is_active, further: Map::new() };
    Command::PutProperty { id: HOME, property }
}

pub(super) fn like(by: UserId) -> Command {
    Command::ActOnProperty { by, property: HOME, likes: true, reason: None }
}

pub(super) fn act(by: UserId, id: i64, act: Act) -> Command {
    Command::ActOnMatch { by, id: MatchId(id), act, reason: None }
}

pub(super) fn notify(to: Recipients, channel: Channel) -> Command {
    let (kind, message, data) = ("aviso".to_owned(), "hola".to_owned(), r#"{"a":1}"#.to_owned());
    Command::Notify { to, channel, general: General { kind, title: String::new(), message, data } }
}

pub(super) fn created(changes: &[Change]) -> impl Iterator<Item = &Notification> {
    changes.iter().filter_map(|change| match change {
        Change::Created(made) => Some(made),
        _ => None,
    })
}

pub(super) fn reply(answer: &Answer) -> (u16, Value) {
    let Answer::Reply(reply) = answer else { panic!("{answer:?}") };
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    (reply.status, body["data"].clone())
}

fn fewer(changes: &[Change]) -> Vec<[Fewer; 2]> {
    let read = changes.iter().filter_map(|change| match change {
        Change::Read { fewer, .. } => Some(*fewer),
        _ => None,
    });
    read.collect()
}

const NONE: Fewer = Fewer { unread: 0, waiting: 0 };

#[test]
fn an_id_of_the_backends_is_stored_once() {
    let mut rows = Rows::new();
    for foreign in ["550e8400-e29b-41d4-a716-446655440000", "019abcde-0000-7000-8000-000000000001"] {
        let uuid: Uuid = foreign.parse().unwrap();
        let command = notify(Recipients::One(TENANT, Some(uuid)), Channel::Tenant);
        let (status, first, told) = rows.told(command.clone());
        assert_eq!((status, &first["notification_id"], told.len()), (201, &json!(foreign), 1));
        assert_eq!(first["data"]["notification_id"], foreign);
        assert_eq!(rows.told(command), (200, first.clone(), vec![]));
        let (answer, changes) = rows.run(Command::MarkOneRead { by: TENANT, which: Which::Uuid(uuid) });
        let (status, row) = reply(&answer);
        assert_eq!((status, &row["id"], &row["is_read"]), (200, &first["id"], &json!(true)));
        assert!(matches!(&changes[..], [Change::Read { what: WhatWasRead::One(it), .. }] if *it == uuid));
    }
    // One of ours is known too.
    let ours = rows.notify(OWNER, Channel::Property).uuid;
    assert_eq!(rows.told(notify(Recipients::One(OWNER, Some(ours)), Channel::Property)).0, 200);
}

#[test]
fn many_share_what_they_are_told() {
    let mut rows = Rows::new();
    rows.run(Command::DeleteUser { id: AGENT });
    let many = notify(Recipients::Many(vec![OWNER, AGENT, TENANT]), Channel::Property);
    let (status, data, told) = rows.told(many);
    assert_eq!((status, data), (201, json!({"created": 2})));
    assert_eq!(told.iter().map(|(user, ..)| *user).collect::<Vec<_>>(), [OWNER, TENANT]);
    assert_eq!((rows.count("general"), rows.count("notification")), (1, 2));
    rows.run(Command::DeleteUser { id: OWNER });
    assert_eq!((rows.count("general"), rows.count("notification")), (1, 1));
    rows.run(Command::DeleteUser { id: TENANT });
    assert_eq!((rows.count("general"), rows.count("notification")), (0, 0));
    let nobody = notify(Recipients::Many(vec![OWNER, AGENT]), Channel::Property);
    assert_eq!(rows.told(nobody), (201, json!({"created": 0}), vec![]));
    assert_eq!(rows.told(notify(Recipients::One(OWNER, None), Channel::Property)).0, 404);
    assert_eq!(rows.count("general"), 0);
}

#[test]
fn marks_count_what_they_change() {
    let mut rows = Rows::new();
    let property: Vec<_> = (0..3).map(|_| rows.notify(TENANT, Channel::Property)).collect();
    let tenant = rows.notify(TENANT, Channel::Tenant);
    let foreign = rows.notify(OWNER, Channel::Tenant);
    let one = Fewer { unread: 1, waiting: 1 };

    // Receipts: his, not delivered yet; each once.
    let receipts = vec![property[0].id, foreign.id, NotificationId(99), property[0].id];
    let (_, changes) = rows.run(Command::MarkDelivered { user: TENANT, ids: receipts });
    let [Change::Delivered { user: TENANT, channel: Channel::Property, rows: ids, waiting: 1, .. }] = &changes[..]
    else {
        panic!("{changes:?}")
    };
    assert_eq!(ids, &[(property[0].id, property[0].created_ms)]);
    let delivered_ms = queries::by_id(&rows.writer.db, property[0].id).unwrap().unwrap().delivered_ms;
    assert!(rows.run(Command::MarkDelivered { user: TENANT, ids: vec![property[0].id] }).1.is_empty());
    assert!(delivered_ms.is_some());

    // Both channels in one message; twice is once; what is not his is not there.
    let ids = vec![property[0].uuid, tenant.uuid, foreign.uuid, tenant.uuid, Uuid::nil()];
    let (answer, changes) = rows.run(Command::MarkRead { by: TENANT, ids, many: true });
    assert!(matches!(answer, Answer::Marked { missing } if missing == [foreign.uuid, Uuid::nil()]));
    assert_eq!(fewer(&changes), [[Fewer { unread: 1, waiting: 0 }, one]]);
    let again = Command::MarkRead { by: TENANT, ids: vec![tenant.uuid], many: false };
    let (_, changes) = rows.run(again);
    assert_eq!(fewer(&changes), [[NONE, NONE]], "told again, counted no more");
    let missing = Command::MarkRead { by: TENANT, ids: vec![foreign.uuid], many: false };
    assert!(rows.run(missing).1.is_empty());

    // By REST; reading is delivery.
    let (answer, changes) = rows.run(Command::MarkOneRead { by: TENANT, which: Which::Row(property[1].id) });
    assert_eq!(fewer(&changes), [[one, NONE]]);
    let row = reply(&answer).1;
    assert!(row["is_read"] == true && row["read_at"] == row["delivered_at"] && row["read_at"].is_string(), "{row}");
    let theirs = Command::MarkOneRead { by: TENANT, which: Which::Row(foreign.id) };
    assert_eq!(rows.told(theirs).0, 404);

    // All: what is left of both channels.
    let (answer, changes) = rows.run(Command::MarkAllRead { by: TENANT });
    assert_eq!((reply(&answer), fewer(&changes)), ((200, json!({"updated": 1})), vec![[one, NONE]]));
    let (answer, _) = rows.run(Command::MarkAllRead { by: TENANT });
    assert_eq!(reply(&answer).1, json!({"updated": 0}));
    let first = queries::by_id(&rows.writer.db, property[0].id).unwrap().unwrap();
    assert!(first.delivered_ms == delivered_ms && delivered_ms < first.read_ms, "each is set once");
    assert_eq!(rows.counts(), Counts::from([((OWNER, Channel::Tenant), (1, 1))]));
}

#[test]
fn what_is_skipped_stays_unread_and_no_longer_waits() {
    let mut rows = Rows::new();
    let early = rows.notify(TENANT, Channel::Tenant);
    let made: Vec<_> = (0..4).map(|_| rows.notify(TENANT, Channel::Tenant)).collect();
    rows.run(Command::MarkDelivered { user: TENANT, ids: vec![made[0].id] });
    let skip = Command::Skip { user: TENANT, channel: Channel::Tenant, after: early.id, before: made[3].id };
    let (_, changes) = rows.run(skip.clone());
    assert!(matches!(changes[..], [Change::Skipped { user: TENANT, count: 2, .. }]), "{changes:?}");
    assert!(matches!(rows.run(skip).1[..], [Change::Skipped { count: 0, .. }]));
    assert_eq!(rows.counts(), Counts::from([((TENANT, Channel::Tenant), (5, 2))]));
    let (_, changes) = rows.run(Command::MarkRead { by: TENANT, ids: vec![made[1].uuid], many: false });
    assert_eq!(fewer(&changes), [[NONE, Fewer { unread: 1, waiting: 0 }]]);
}

#[test]
fn ids_are_never_used_again() {
    let mut rows = Rows::new();
    rows.run(like(TENANT));
    let newest = rows.notify(TENANT, Channel::Tenant).id;
    rows.run(Command::DeleteUser { id: TENANT });
    rows.writer.reload().unwrap();
    let next = rows.notify(OWNER, Channel::Tenant).id;
    assert_eq!(next.0, newest.0 + 1);
    assert_eq!(rows.told(like(STRANGER)).1["match_id"], 2);
    let before = created(&rows.run(like(UserId(9))).1).last().unwrap().id;
    // Housekeeping removes everything.
    rows.run(Command::Retain { after: NotificationId(0), read_for_ms: i64::MIN, unread_for_ms: i64::MIN });
    assert_eq!((rows.count("notification"), rows.count("general")), (0, 0));
    rows.writer.reload().unwrap();
    assert_eq!(rows.notify(OWNER, Channel::Tenant).id.0, before.0 + 1);
    // Ids that others gave, too.
    assert_eq!(rows.writer.next_match_id(Some(MatchId(50))), MatchId(50));
    assert_eq!(rows.writer.next_match_id(None), MatchId(51));
    assert_eq!(rows.writer.next_match_id(Some(MatchId(20))), MatchId(20));
    assert_eq!(rows.told(like(UserId(10))).1["match_id"], 52);
}

#[test]
fn a_key_gives_the_first_answer_again() {
    let mut rows = Rows::new();
    let key = |caller: i64, fingerprint| Some(Idempotency { caller, key: "k".to_owned(), fingerprint });
    let text = |answer: Answer| match answer {
        Answer::Reply(reply) => (reply.status, reply.body),
        other => panic!("{other:?}"),
    };
    let command = notify(Recipients::One(TENANT, None), Channel::Tenant);
    let first = text(rows.job(command.clone(), key(0, u64::MAX)).0);
    let (again, changes) = rows.job(command.clone(), key(0, u64::MAX));
    assert_eq!(text(again), first);
    assert!(changes.is_empty() && rows.count("notification") == 1);
    let (other, changes) = rows.job(command.clone(), key(0, 1));
    assert_eq!(text(other).0, 422);
    assert!(changes.is_empty());
    assert_ne!(text(rows.job(command.clone(), key(5, 1)).0), first, "another caller's key is another key");

    // Refusals are answers; what may be otherwise next time is not.
    for (status, kept) in [(400, true), (404, true), (401, false), (429, false), (503, false)] {
        rows.writer.db.execute("DELETE FROM idempotency", []).unwrap();
        rows.job(Command::Remember { status, body: "{}".to_owned() }, key(0, 2));
        assert_eq!(rows.count("idempotency") == 1, kept, "{status}");
    }

    // After a day, it is a new request; housekeeping sweeps what is older.
    let first = text(rows.job(command.clone(), key(0, 3)).0);
    rows.at_ms += DAY_MS - 2;
    assert_eq!(text(rows.job(command.clone(), key(0, 3)).0), first);
    assert_ne!(text(rows.job(command, key(0, 3)).0), first);
    let retain = Command::Retain { after: NotificationId(0), read_for_ms: i64::MAX, unread_for_ms: i64::MAX };
    rows.run(retain.clone());
    assert_eq!(rows.count("idempotency"), 1);
    rows.at_ms += DAY_MS;
    rows.run(retain);
    assert_eq!(rows.count("idempotency"), 0);
}

#[test]
fn housekeeping_goes_in_strides_and_ends_at_the_first_young_row() {
    const STRIDE: usize = notifications::RETAIN_STRIDE as usize;
    let mut rows = Rows::new();
    let many = |n: usize| notify(Recipients::Many((100..100 + n as i64).map(UserId).collect()), Channel::Tenant);
    rows.at_ms = 10_000;
    rows.run(many(STRIDE));
    rows.at_ms = 20_000;
    rows.run(many(10));
    rows.at_ms = 30_000;
    rows.run(many(5));
    // Read: the first of the oldest ones, and one of the second lot.
    rows.run(Command::MarkAllRead { by: UserId(100) });

    let at_ms = rows.at_ms;
    let retain = |after, read_before_ms: i64, unread_before_ms: i64| Command::Retain {
        after,
        read_for_ms: at_ms - read_before_ms,
        unread_for_ms: at_ms - unread_before_ms,
    };
    // Read ones of the first two lots go; nothing changes for those who count.
    let (answer, changes) = rows.run(retain(NotificationId(0), 25_000, 5_000));
    let Answer::RetainAfter(after) = answer else { panic!("{answer:?}") };
    assert_eq!((after.0, rows.count("notification")), (STRIDE as i64, (STRIDE + 15 - 1) as i64));
    let (answer, more) = rows.run(retain(after, 25_000, 5_000));
    assert!(matches!(answer, Answer::Nothing) && changes.is_empty() && more.is_empty());
    assert_eq!(rows.count("notification"), (STRIDE + 15 - 2) as i64);

    // Unread ones of the first lot; they are counted down, and their text goes with the last.
    let before = rows.counts();
    let mut after = NotificationId(0);
    let mut settled = Counts::new();
    loop {
        let (answer, changes) = rows.run(retain(after, 25_000, 15_000));
        for change in changes {
            let Change::Settled { user, channel, fewer } = change else { panic!("{change:?}") };
            settled.insert((user, channel), (fewer.unread, fewer.waiting));
        }
        match answer {
            Answer::RetainAfter(next) => after = next,
            _ => break,
        }
    }
    assert_eq!((rows.count("notification"), rows.count("general")), (14, 2));
    assert_eq!(settled.len(), STRIDE - 1);
    assert!(settled.values().all(|fewer| *fewer == (1, 1)));
    assert_eq!(before.len() - rows.counts().len(), STRIDE - 10);
}

#[test]
fn what_django_tells_is_there_once_for_each() {
    let mut rows = Rows::new();
    let uuid = Uuid::from_u128(0x183d_a0cd_0273_4a8c_946e_f780_df49_23dd);
    let general =
        General { kind: "general".to_owned(), title: String::new(), message: "m".to_owned(), data: "{}".to_owned() };
    let mut relay = |user, channel| {
        let content = Content::General(general.clone().into());
        let (_, changes) = rows.run(Command::Relay { user, channel, uuid, content });
        created(&changes).map(|n| n.uuid).collect::<Vec<_>>()
    };
    assert_eq!((relay(TENANT, Channel::Tenant), relay(TENANT, Channel::Tenant)), (vec![uuid], vec![]));
    // One id for several: each has his own of it, and that once.
    for (user, channel) in [(TENANT, Channel::Property), (OWNER, Channel::Tenant)] {
        let own = crate::notification::foreign_uuid(channel, user, &uuid.to_string());
        assert_eq!((relay(user, channel), relay(user, channel)), (vec![own], vec![]));
    }
    rows.run(Command::DeleteUser { id: OWNER });
    let content = Content::General(general.into());
    let (_, changes) = rows.run(Command::Relay { user: OWNER, channel: Channel::Tenant, uuid, content });
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn somebody_new_is_met_once() {
    let mut rows = Rows::new();
    let mut known = |user| matches!(rows.run(Command::Meet { user }).1[..], [Change::Known { .. }]);
    assert_eq!((known(STRANGER), known(STRANGER), known(TENANT)), (true, false, false));
    assert_eq!(queries::known_users(&rows.writer.db).unwrap(), [OWNER, AGENT, TENANT, STRANGER]);
    rows.run(Command::DeleteUser { id: TENANT });
    assert_eq!(queries::known_users(&rows.writer.db).unwrap(), [OWNER, AGENT, STRANGER]);
}

/// The counts as the hub keeps them.
fn follow(counts: &mut Counts, changes: Vec<Change>) {
    let settle = |counts: &mut Counts, user, channel, fewer: Fewer| {
        let inbox = counts.entry((user, channel)).or_default();
        *inbox = (inbox.0.checked_sub(fewer.unread).unwrap(), inbox.1.checked_sub(fewer.waiting).unwrap());
    };
    for change in changes {
        match change {
            Change::Created(n) => {
                let inbox = counts.entry((n.user, n.channel)).or_default();
                *inbox = (inbox.0 + 1, inbox.1 + 1);
            }
            Change::Read { user, fewer, .. } => {
                for (channel, fewer) in Channel::ALL.into_iter().zip(fewer) {
                    settle(counts, user, channel, fewer);
                }
            }
            Change::Delivered { user, channel, waiting, .. } | Change::Skipped { user, channel, count: waiting } => {
                settle(counts, user, channel, Fewer { unread: 0, waiting });
            }
            Change::Settled { user, channel, fewer } => settle(counts, user, channel, fewer),
            Change::Forgotten { user } => counts.retain(|(of, _), _| *of != user),
            Change::Standing { .. } | Change::Revoked { .. } | Change::Known { .. } => {}
        }
    }
    counts.retain(|_, inbox| *inbox != (0, 0));
}

pub(super) fn any_command() -> impl Strategy<Value = Command> {
    let user = || (1..6_i64).prop_map(UserId);
    let row = || (1..40_i64).prop_map(NotificationId);
    let channel = || prop_oneof![Just(Channel::Property), Just(Channel::Tenant)];
    let acts = prop_oneof![Just(Act::OwnerAccept), Just(Act::OwnerReject), Just(Act::Like), Just(Act::Reject)];
    prop_oneof![
        user().prop_map(like),
        (user(), 1..6_i64, acts).prop_map(|(by, id, what)| act(by, id, what)),
        (user(), channel()).prop_map(|(to, channel)| notify(Recipients::One(to, None), channel)),
        (prop::collection::vec(user(), 1..4), channel())
            .prop_map(|(to, channel)| notify(Recipients::Many(to), channel)),
        (user(), row()).prop_map(|(by, id)| Command::MarkOneRead { by, which: Which::Row(id) }),
        user().prop_map(|by| Command::MarkAllRead { by }),
        (user(), prop::collection::vec(row(), 0..9)).prop_map(|(user, ids)| Command::MarkDelivered { user, ids }),
        (user(), channel(), row(), row()).prop_map(|(user, channel, after, before)| Command::Skip {
            user,
            channel,
            after,
            before
        }),
        user().prop_map(|id| Command::DeleteUser { id }),
        user().prop_map(|id| put_user(id, "x")),
        (row(), -5..50_i64, -5..50_i64)
            .prop_map(|(after, read_for_ms, unread_for_ms)| { Command::Retain { after, read_for_ms, unread_for_ms } }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn counts_follow_the_rows_whatever_happens(commands in prop::collection::vec(any_command(), 1..60)) {
        let mut rows = Rows::new();
        let (mut counts, mut newest) = (Counts::new(), 0);
        for command in commands {
            let (_, changes) = rows.run(command.clone());
            for made in created(&changes) {
                prop_assert!(made.id.0 > newest, "{:?} used again by {:?}", made.id, command);
                newest = made.id.0;
            }
            follow(&mut counts, changes);
            prop_assert_eq!(&counts, &rows.counts(), "after {:?}", command);
            // Every text is shown by as many rows as it says, and by one at least.
            let wrong: i64 = rows.writer.db.query_row(
                "SELECT count(*) FROM general g WHERE shared_by <> (SELECT count(*) FROM notification WHERE general = g.id)
                   OR shared_by < 1",
                [],
                |row| row.get(0),
            ).unwrap();
            prop_assert_eq!(wrong, 0, "after {:?}", command);
        }
    }
}
