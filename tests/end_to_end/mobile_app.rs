//! The calls of the mobile app, each in the shapes that it reads; it cannot be changed together with the server.

use crate::server::{Server, service, user};
use serde_json::{Value, json};

/// Owner 1 with a flat that has photos, tenant 2 who asked for it.
fn world() -> (Server, i64) {
    let server = Server::start();
    server.put_world();
    let home = json!({"owner": 1, "type": "departamento", "address": "Av. 1", "price": 2500.0, "bedrooms": 2,
        "photos": ["a.jpg"], "main_photo": "a.jpg", "currency": "BOB", "city": "La Paz", "country": "BO",
        "bathrooms": 1, "area": 70.5});
    assert_eq!(server.call("PUT", "/api/properties/10/", &service(), home).status, 200);
    let tenant =
        json!({"username": "juan_perez", "first_name": "Juan", "last_name": "Perez", "profile_picture": "p.jpg"});
    assert_eq!(server.call("PUT", "/api/users/2/", &service(), tenant).status, 200);
    server.like(2, 10);
    let requests = server.call("GET", "/api/matches/pending_requests/?type=property", &user(1), Value::Null);
    let one_match = requests.body["data"]["results"][0]["match"]["id"].as_i64().unwrap();
    (server, one_match)
}

fn get(server: &Server, path: &str, who: i64) -> Value {
    let reply = server.call("GET", path, &user(who), Value::Null);
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    reply.body
}

#[test]
fn a_refusal_has_its_text_at_the_top_and_no_errors_beside_it() {
    let (server, one_match) = world();
    for (path, who) in [
        ("/api/properties/999/like/".to_owned(), 2),
        ("/api/properties/10/like/".to_owned(), 1),
        (format!("/api/matches/{one_match}/owner_accept/"), 3),
    ] {
        let reply = server.call("POST", &path, &user(who), Value::Null);
        assert!(reply.status >= 400 && reply.body["message"].is_string(), "{path}: {}", reply.body);
        assert!(reply.body.get("errors").is_none(), "{path}: {}", reply.body);
    }
}

#[test]
fn likes_rejections_and_acceptances_are_2xx() {
    let (server, one_match) = world();
    server.put_property(11);
    for path in ["/api/properties/11/like/", "/api/properties/11/reject/"] {
        assert_eq!(server.call("POST", path, &user(2), Value::Null).status, 200, "{path}");
    }
    let accepted = server.call("POST", &format!("/api/matches/{one_match}/owner_accept/"), &user(1), Value::Null);
    assert_eq!(accepted.status, 200, "{}", accepted.body);
}

#[test]
fn the_owners_reject_button_rejects() {
    let (server, one_match) = world();
    let mut tenant = server.connect("tenant", 2);
    assert_eq!(tenant.next().unwrap()["type"], "connection_established");
    let rejected = server.call("POST", &format!("/api/matches/{one_match}/reject/"), &user(1), Value::Null);
    assert_eq!((rejected.status, &rejected.body["data"]["status"]), (200, &json!("rejected")), "{}", rejected.body);
    assert_eq!(tenant.next().unwrap()["type"], "match_rejected_by_owner");
    assert_eq!(get(&server, "/api/matches/pending_requests/?type=property", 1)["data"]["count"], 0);
}

#[test]
fn pending_requests_show_the_home_and_who_asks() {
    let (server, one_match) = world();
    let request = get(&server, "/api/matches/pending_requests/?type=property", 1)["data"]["results"][0].clone();
    let found = &request["match"];
    assert_eq!((found["id"].as_i64(), found["subject_id"].as_i64()), (Some(one_match), Some(10)));
    assert!(found["score"].is_number(), "{found}");
    let home = &request["property"];
    assert_eq!((home["id"].as_i64(), home["address"].as_str()), (Some(10), Some("Av. 1")));
    for (field, value) in [
        ("photos", json!(["a.jpg"])),
        ("main_photo", json!("a.jpg")),
        ("price", json!(2500.0)),
        ("currency", json!("BOB")),
        ("city", json!("La Paz")),
        ("country", json!("BO")),
        ("bedrooms", json!(2)),
        ("bathrooms", json!(1)),
        ("area", json!(70.5)),
    ] {
        assert_eq!(home[field], value, "{field}");
    }
    let who = &request["interested_user"];
    for (field, value) in
        [("username", "juan_perez"), ("first_name", "Juan"), ("last_name", "Perez"), ("profile_picture", "p.jpg")]
    {
        assert_eq!(who[field], value, "{field}");
    }
}

#[test]
fn the_inbox_counts_for_the_badge_and_is_marked_by_its_integer() {
    let (server, _) = world();
    let page = get(&server, "/api/notifications/?page=1&page_size=50", 1);
    let row = &page["data"]["results"][0];
    let id = row["id"].as_i64().unwrap();
    assert!(row["title"].is_string() && row["message"].is_string() && row["created_at"].is_string(), "{row}");
    assert_eq!((&row["is_read"], &row["notification_id"].is_string()), (&json!(false), &true));
    assert_eq!(get(&server, "/api/notifications/?is_read=false", 1)["count"], 1, "the badge");
    assert_eq!(
        server.call("POST", &format!("/api/notifications/{id}/mark_as_read/"), &user(1), Value::Null).status,
        200
    );
    assert_eq!(get(&server, "/api/notifications/?is_read=false", 1)["count"], 0, "the badge");
    let read = get(&server, "/api/notifications/?page=1&page_size=50&is_read=true", 1);
    assert_eq!(read["data"]["results"][0]["id"], id);
}

#[test]
fn accepted_matches_are_listed_for_who_missed_the_push() {
    let (server, one_match) = world();
    server.call("POST", &format!("/api/matches/{one_match}/owner_accept/"), &user(1), Value::Null);
    let path = "/api/matches/my/?type=property&status=accepted&page=1&page_size=20";
    let found = get(&server, path, 2)["data"]["results"][0].clone();
    assert_eq!((found["id"].as_i64(), found["subject_id"].as_i64()), (Some(one_match), Some(10)));
    assert_eq!(found["property_title"], "departamento en Av. 1");
    // Dart reads a time without a zone as local time.
    assert!(
        found["updated_at"].as_str().unwrap().ends_with('Z') && found["created_at"].as_str().unwrap().ends_with('Z')
    );
}

#[test]
fn the_home_page_hears_of_the_acceptance() {
    let (server, one_match) = world();
    let mut tenant = server.connect("tenant", 2);
    tenant.next().unwrap();
    server.call("POST", &format!("/api/matches/{one_match}/owner_accept/"), &user(1), Value::Null);
    let heard = tenant.next().unwrap();
    assert_eq!((heard.get("event"), &heard["type"]), (None, &json!("match_accepted_by_owner")));
    assert_eq!(heard["property_id"], 10);
    // An integer would collide with the ids of matches, which it keeps in the same set.
    assert_eq!(heard["notification_id"].as_str().map(str::len), Some(36));
    assert_eq!(heard["property_title"], "departamento en Av. 1");
    assert!(heard["timestamp"].as_str().unwrap().ends_with('Z'), "{heard}");
}

#[test]
fn the_chat_page_hears_of_a_like() {
    let (server, _) = world();
    let mut owner = server.connect("property", 1);
    owner.next().unwrap();
    let heard = owner.next().unwrap();
    assert!(heard["type"].as_str().unwrap().contains("property_like"), "{heard}");
    assert!(heard.get("event").is_none() && heard.get("pending_requests_count").is_none(), "{heard}");
}

#[test]
fn a_login_gives_what_the_app_keeps_and_a_401_is_renewed() {
    let (server, _) = world();
    let ana = json!({"username": "ana", "password": "secreto"});
    assert_eq!(server.call("PUT", "/api/users/9/", &service(), ana.clone()).status, 201);
    let signed_in = server.try_call("POST", "/api/login/", None, Some(&ana)).unwrap();
    let (access, refresh) = (&signed_in.body["data"]["access"], &signed_in.body["data"]["refresh"]);
    assert!(access.is_string(), "{}", signed_in.status);
    assert_eq!(server.call("GET", "/api/users/me/", "expired", Value::Null).status, 401);
    let again = json!({"refresh": refresh, "refresh_token": refresh});
    let renewed = server.try_call("POST", "/api/refresh/", None, Some(&again)).unwrap();
    let token = renewed.body["data"]["access"].as_str().unwrap();
    assert_eq!(server.call("GET", "/api/users/me/", token, Value::Null).status, 200);
}
