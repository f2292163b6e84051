//! Owns the tests of acts on matches: what each answers, and who is told. Never makes a world: `apply::tests` does.

use super::*;
use crate::api::command::Command;
use crate::storage::apply::tests::*;
use crate::storage::queries;
use serde_json::{Value, json};

#[test]
fn a_like_tells_owner_and_agent_once() {
    let mut rows = Rows::new();
    let property_like = |user| (user, Channel::Property, "property_like".to_owned());
    let (status, data, told) = rows.told(like(TENANT));
    assert_eq!((status, data), (200, json!({"status": "pending", "match_id": 1, "score": 0.0})));
    assert_eq!(told, [property_like(OWNER), property_like(AGENT)]);
    assert_eq!(rows.told(like(TENANT)), (200, json!({"status": "pending", "match_id": 1, "score": 0.0}), vec![]));
    // Who is not in the directory likes too.
    assert_eq!(rows.told(like(STRANGER)).2.len(), 2);
    for keeper in [OWNER, AGENT] {
        assert_eq!(rows.told(like(keeper)).0, 400);
    }
    rows.run(put_property(false));
    assert_eq!(rows.told(like(UserId(9))).0, 404);
    assert_eq!(
        rows.told(Command::ActOnProperty { by: TENANT, property: PropertyId(8), likes: true, reason: None }).0,
        404
    );
    let reject =
        Command::ActOnProperty { by: UserId(9), property: HOME, likes: false, reason: Some("lejos".to_owned()) };
    rows.run(put_property(true));
    assert_eq!(rows.told(reject), (200, json!({"status": "rejected", "match_id": 3}), vec![]));
}

#[test]
fn a_notification_shows_what_was_so_when_it_was_made() {
    let mut rows = Rows::new();
    let (_, changes) = rows.run(like(TENANT));
    let made = created(&changes).next().unwrap().clone();
    rows.run(put_user(TENANT, "otro"));
    rows.run(Command::DeleteProperty { id: HOME });
    let kept = queries::by_id(&rows.writer.db, made.id).unwrap().unwrap();
    assert_eq!(kept, made);
    assert!(matches!(kept.content, Content::PropertyLike { tenant, .. } if tenant.username == "juan"));
}

#[test]
fn acts_on_a_match_by_who_acts() {
    let mut rows = Rows::new();
    rows.run(like(TENANT));
    let shown = |status: &str| json!(status);
    let both = vec![
        (OWNER, Channel::Property, "match_accepted".to_owned()),
        (AGENT, Channel::Property, "match_accepted".to_owned()),
        (TENANT, Channel::Tenant, "match_accepted_by_owner".to_owned()),
    ];
    let tenant = vec![(TENANT, Channel::Tenant, "match_rejected_by_owner".to_owned())];
    let keepers: Vec<_> =
        [OWNER, AGENT].into_iter().map(|user| (user, Channel::Property, "property_like".to_owned())).collect();
    // In this order, on one match.
    let steps = [
        (STRANGER, Act::OwnerAccept, 403, Value::Null, vec![]),
        (TENANT, Act::OwnerAccept, 403, Value::Null, vec![]),
        (OWNER, Act::Like, 403, Value::Null, vec![]),
        (STRANGER, Act::Reject, 403, Value::Null, vec![]),
        (AGENT, Act::OwnerAccept, 200, shown("accepted"), both.clone()),
        (OWNER, Act::OwnerAccept, 200, shown("accepted"), vec![]),
        (OWNER, Act::OwnerReject, 200, shown("rejected"), tenant.clone()),
        (TENANT, Act::Like, 200, shown("rejected"), vec![]),
        (AGENT, Act::OwnerAccept, 200, shown("accepted"), both),
        (AGENT, Act::Reject, 200, shown("rejected"), tenant.clone()),
        (OWNER, Act::OwnerReject, 200, shown("rejected"), vec![]),
        (TENANT, Act::Reject, 200, shown("rejected"), vec![]),
    ];
    for (n, (by, what, status, shown, told)) in steps.into_iter().enumerate() {
        let (answered, data, heard) = rows.told(act(by, 1, what));
        assert_eq!((answered, &data["status"], heard), (status, &shown, told), "step {n}");
        if status == 200 {
            assert_eq!(data["match"]["status"], shown, "step {n}");
        }
    }
    // A tenant who says no himself may come back; the owner may not accept what is not asked for.
    rows.run(like(STRANGER));
    assert_eq!(rows.told(act(STRANGER, 2, Act::Reject)), (200, rows_match(&rows, 2), vec![]));
    assert_eq!(rows.told(act(OWNER, 2, Act::OwnerAccept)).0, 400);
    assert_eq!(rows.told(act(STRANGER, 2, Act::Accept)).2, keepers);
    assert_eq!(rows.told(act(OWNER, 99, Act::OwnerAccept)).0, 404);
    rows.run(Command::DeleteProperty { id: HOME });
    assert_eq!(rows.told(act(OWNER, 1, Act::OwnerAccept)).0, 404);
    assert_eq!(rows.told(act(TENANT, 1, Act::Like)).0, 404);
    assert_eq!(rows.told(act(OWNER, 2, Act::Reject)).0, 403);
    assert_eq!(rows.told(act(STRANGER, 2, Act::Reject)), (200, rows_match(&rows, 2), vec![]));
    assert_eq!(rows_match(&rows, 2)["status"], "rejected");
    assert_eq!(rows.count("matches"), 2, "a property that goes leaves its matches");
}

/// What an act on this match answers, as the row is now.
fn rows_match(rows: &Rows, id: i64) -> Value {
    let m = rows.writer.match_by_id(MatchId(id)).unwrap().unwrap();
    let status = m.status.as_str();
    json!({ "status": status, "match": serde_json::to_value(MatchView::new(&m)).unwrap() })
}

#[test]
fn an_engines_score_makes_a_suggestion() {
    let mut rows = Rows::new();
    let put = |score, metadata: Option<&str>| {
        let metadata = metadata.map(str::to_owned);
        Command::PutMatch { property: HOME, tenant: TENANT, score, metadata }
    };
    let (status, data, told) = rows.told(put(98.4, Some(r#"{"a":1}"#)));
    assert_eq!((status, &data["status"], &data["score"], told), (201, &json!("suggested"), &json!(98.4), vec![]));
    let (status, data, _) = rows.told(put(50.0, None));
    assert_eq!((status, &data["metadata"], &data["score"]), (200, &json!({"a": 1}), &json!(50.0)));
    assert_eq!(rows.told(act(OWNER, 1, Act::OwnerAccept)).0, 400);
    // A rejected suggestion is silent: the tenant never asked.
    assert_eq!(rows.told(act(OWNER, 1, Act::OwnerReject)).2, []);
    let elsewhere = Command::PutMatch { property: PropertyId(8), tenant: TENANT, score: 1.0, metadata: None };
    assert_eq!(rows.told(elsewhere).0, 404);
    // Nobody likes what is his own, though it was proposed to him.
    let own = Command::PutMatch { property: HOME, tenant: OWNER, score: 1.0, metadata: None };
    assert_eq!(rows.told(own).0, 201);
    for likes in [Act::Like, Act::Accept] {
        assert_eq!(
            rows.told(act(OWNER, 2, likes)),
            (400, json!({"error": "No puedes solicitar tu propia propiedad"}), vec![])
        );
    }
    rows.run(Command::DeleteUser { id: TENANT });
    assert_eq!(rows.told(put(98.4, None)).0, 404);
}
