//! Who may open a socket, and for how long.

use crate::device::Device;
use crate::server::{Server, service, user, user_for};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn handshakes_are_judged_before_the_upgrade() {
    let server = Server::start_with(&[("HABITTOD_LIMITS_CONNECTIONS_PER_USER", "2")]);
    server.put_world();
    let status = |user: i64, token: &str| Device::connect(&server, "property", user, token, "").err();
    assert_eq!(status(1, "garbage"), Some(401));
    assert_eq!(status(1, ""), Some(401));
    assert_eq!(status(1, &user(2)), Some(403));
    assert_eq!(status(1, &service()), Some(403));
    let _open = (server.connect("property", 1), server.connect("tenant", 1));
    assert_eq!(status(1, &user(1)), Some(429));
}

#[test]
fn a_socket_does_not_outlive_its_token_unless_renewed() {
    let server = Server::start();
    let short = user_for(1, Duration::from_secs(2));
    let mut device = Device::connect(&server, "property", 1, &short, "").unwrap();
    let mut renewed = Device::connect(&server, "property", 1, &short, "").unwrap();
    device.next().unwrap();
    assert_eq!(device.next().unwrap()["type"], "token_expiring");
    renewed.send(&json!({"type": "auth", "token": user(2)}));
    renewed.send(&json!({"type": "auth", "token": user(1)}));
    assert_eq!(device.next(), Err(4401));
    let said: Vec<Value> = renewed.so_far();
    let told: Vec<_> = said.iter().map(|m| (m["type"].as_str().unwrap(), m["code"].as_str())).collect();
    assert_eq!(
        told,
        [
            ("connection_established", None),
            ("token_expiring", None),
            ("error", Some("invalid_token")),
            ("auth_ok", None)
        ]
    );
}

#[test]
fn a_deactivated_user_is_out_within_a_moment() {
    let server = Server::start();
    server.put_world();
    let mut device = server.connect("property", 1);
    device.next().unwrap();
    let user_row = json!({"username": "maria", "is_active": false});
    assert_eq!(server.call("PUT", "/api/users/1/", &service(), user_row).status, 200);
    assert_eq!(device.next(), Err(4403));
    assert_eq!(server.call("GET", "/api/users/me/", &user(1), Value::Null).body["data"]["code"], "user_inactive");
    assert_eq!(server.call("DELETE", "/api/users/1/", &service(), Value::Null).status, 204);
    assert_eq!(Device::connect(&server, "property", 1, &user(1), "").err(), Some(401));
}
