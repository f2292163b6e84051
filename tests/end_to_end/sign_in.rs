//! Passwords for tokens, tokens for tokens, and who gets neither.

use crate::device::Device;
use crate::server::{PATIENCE, Reply, SECRET, Server, service, user};
use habittod::auth::{Signer, password};
use habittod::clock::Clock;
use habittod::matching::UserId;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use uuid::Uuid;

/// A server with María (1) in it, whose password is "secreto", and limits that the tests here do not meet.
fn start() -> Server {
    start_with(&[])
}

fn start_with(env: &[(&'static str, &str)]) -> Server {
    let mut all = vec![
        ("HABITTOD_LIMITS_LOGINS_PER_MINUTE", "0"),
        ("HABITTOD_LIMITS_LOGINS_PER_MINUTE_PER_USER", "0"),
        ("HABITTOD_LOG_LEVEL", "debug"),
    ];
    all.extend_from_slice(env);
    let server = Server::start_with(&all);
    put(&server, 1, &json!({"username": "maria", "password": fast("secreto")}));
    server
}

/// In Django's encoding, with few rounds.
fn fast(plain: &str) -> String {
    password::encode(plain, &password::salt(), 2)
}

fn put(server: &Server, id: i64, user: &Value) {
    let reply = server.call("PUT", &format!("/api/users/{id}/"), &service(), user.clone());
    assert!(matches!(reply.status, 200 | 201), "{}", reply.body);
}

fn post(server: &Server, path: &str, body: &Value) -> Reply {
    server.try_call("POST", path, None, Some(body)).unwrap()
}

fn login(server: &Server, username: &str, password: &str) -> Reply {
    post(server, "/api/login/", &json!({"username": username, "password": password}))
}

fn refresh(server: &Server, token: &str) -> Reply {
    post(server, "/api/refresh/", &json!({"refresh": token, "refresh_token": token}))
}

fn sign_in(server: &Server) -> (String, String) {
    tokens(&login(server, "maria", "secreto"))
}

/// Access and refresh token of a good answer.
fn tokens(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let token = |name: &str| reply.body["data"][name].as_str().unwrap().to_owned();
    (token("access"), token("refresh"))
}

fn refused_as(reply: &Reply) -> (u16, String) {
    assert!(reply.head.contains("WWW-Authenticate: Bearer"), "{}", reply.head);
    assert_eq!(reply.body["message"], "Token de autenticación requerido");
    (reply.status, reply.body["data"]["detail"].as_str().unwrap().to_owned())
}

fn is_invalid(reply: &Reply) -> bool {
    assert_eq!(reply.body["data"]["code"], "token_not_valid", "{}", reply.body);
    refused_as(reply) == (401, "Token is invalid".to_owned())
}

/// Of a test key for ES256.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0kglHycpkyPiJ9kdr/Eru4pUNo6+
DqEqnBgHz9991Ehp6ZRPsxXUGbiYoSodppw8zKcmbdKTsiGRaS2XujT7gQ==
-----END PUBLIC KEY-----
";
const NO_ACCOUNT: &str = "No active account found with the given credentials";

#[test]
fn a_password_opens_what_its_user_may_see() {
    let server = start();
    let reply = login(&server, "maria", "secreto");
    let (access, renewable) = tokens(&reply);
    assert!(reply.head.contains("Cache-Control: no-store"), "{}", reply.head);
    let fields: Vec<&str> = reply.body["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((fields, &reply.body["message"]), (vec!["refresh", "access"], &json!("Creado exitosamente")));
    assert_eq!(server.call("GET", "/api/users/me/", &access, Value::Null).body["data"]["username"], "maria");
    assert!(Device::connect(&server, "property", 1, &access, "").is_ok());
    let reply = refresh(&server, &renewable);
    let fields: Vec<&str> = reply.body["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((fields, &reply.body["message"]), (vec!["access", "refresh"], &json!("Creado exitosamente")));
    let (next, _) = tokens(&reply);
    assert_eq!(server.call("GET", "/api/users/me/", &next, Value::Null).status, 200);

    // Plain in the service's call, white space as the app's keyboard leaves it, and a form.
    put(&server, 2, &json!({"username": "juan_perez", "password": " clave larga "}));
    tokens(&login(&server, "juan_perez ", "clave larga "));
    let form = "username=juan_perez&password=clave+larga";
    let head = format!(
        "POST /api/login HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    tokens(&server.raw(head.as_bytes()).unwrap());
}

#[test]
fn an_imported_user_keeps_his_password() {
    let mut server = start();
    server.kill();
    let encoded = "pbkdf2_sha256$30000$seasalt$VrX+V8drCGo68wlvy6rfu8i1d1pfkdeXA4LJkRGJodY=";
    let file = server.folder().join("users.jsonl");
    std::fs::write(&file, json!({"user": {"id": 7, "username": "léo", "password": encoded}}).to_string()).unwrap();
    let import = Command::new(env!("CARGO_BIN_EXE_habittod"))
        .args(["import", "users.jsonl"])
        .current_dir(server.folder())
        .env("HABITTOD_AUTH_SECRET", SECRET)
        .output()
        .unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    server.restart();
    tokens(&login(&server, "léo", "lètmein"));
    assert_eq!(login(&server, "léo", "letmein").status, 401);
}

#[test]
fn nobody_learns_who_exists() {
    let server = start();
    put(&server, 2, &json!({"username": "sin_clave"}));
    put(&server, 3, &json!({"username": "inactiva", "password": fast("secreto"), "is_active": false}));
    put(&server, 4, &json!({"username": "borrada", "password": fast("secreto")}));
    assert_eq!(server.call("DELETE", "/api/users/4/", &service(), Value::Null).status, 204);
    let cases = [
        ("maria", "Secreto"),
        ("MARIA", "secreto"),
        ("nadie", "secreto"),
        ("sin_clave", "secreto"),
        ("inactiva", "secreto"),
        ("borrada", "secreto"),
    ];
    let answers: Vec<_> = cases.iter().map(|(name, password)| login(&server, name, password)).collect();
    for (reply, case) in answers.iter().zip(cases) {
        assert_eq!(refused_as(reply), (401, NO_ACCOUNT.to_owned()), "{case:?}");
        assert_eq!(reply.body, answers[0].body);
    }
}

#[test]
fn the_newest_user_of_a_name_whose_password_it_is() {
    let server = start();
    put(&server, 8, &json!({"username": "maria", "password": fast("otra")}));
    put(&server, 9, &json!({"username": "maria", "password": fast("secreto")}));
    let me = |password: &str| {
        let (access, _) = tokens(&login(&server, "maria", password));
        server.call("GET", "/api/users/me/", &access, Value::Null).body["data"]["id"].clone()
    };
    assert_eq!((me("otra"), me("secreto")), (json!(8), json!(9)));
}

#[test]
fn what_is_no_sign_in_is_told_why() {
    let server = start();
    for (path, body, status, data) in [
        ("/api/login/", json!({"username": "maria"}), 400, json!({"password": ["This field is required."]})),
        (
            "/api/login/",
            json!({}),
            400,
            json!({"username": ["This field is required."], "password": ["This field is required."]}),
        ),
        ("/api/refresh/", json!({}), 400, json!({"refresh": ["This field is required."]})),
        (
            "/api/refresh/",
            json!({"refresh": "x"}),
            401,
            json!({"detail": "Token is invalid", "code": "token_not_valid"}),
        ),
        ("/api/login/", json!([1]), 400, json!({"detail": "Invalid data. Expected a dictionary."})),
    ] {
        let reply = post(&server, path, &body);
        assert_eq!((reply.status, &reply.body["data"]), (status, &data), "{path} {body}");
        assert!(reply.head.contains("Cache-Control: no-store"), "{}", reply.head);
    }
    let raw = |head: &str, body: &str| {
        let length = body.len();
        let all = format!("{head} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        server.raw(all.as_bytes()).unwrap()
    };
    assert_eq!(raw("POST /api/login/", "x").status, 415);
    assert_eq!(raw("GET /api/login/", "").status, 405);
    assert_eq!(raw("HEAD /api/refresh/", "").status, 405);
    let preflight = server.raw(
        b"OPTIONS /api/login/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
    );
    let preflight = preflight.unwrap();
    assert_eq!(preflight.status, 204);
    for field in
        ["Access-Control-Allow-Origin: *", "Access-Control-Allow-Methods: POST, OPTIONS", "Allow: POST, OPTIONS"]
    {
        assert!(preflight.head.contains(field), "{field}: {}", preflight.head);
    }
}

#[test]
fn a_refresh_token_works_once() {
    let mut server = start();
    let (_, first) = sign_in(&server);
    let (_, other) = sign_in(&server);
    let (_, second) = tokens(&refresh(&server, &first));
    let (_, third) = tokens(&refresh(&server, &second));
    server.kill_and_restart();
    assert!(is_invalid(&refresh(&server, &second)), "used, and a crash does not undo it");
    assert!(is_invalid(&refresh(&server, &third)), "its family ends with it");
    assert!(is_invalid(&refresh(&server, &first)));
    tokens(&refresh(&server, &other));
}

#[test]
fn of_racing_refreshes_one_wins() {
    let server = start();
    let (_, token) = sign_in(&server);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| refresh(&server, &token).status)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 7, "{statuses:?}");
}

#[test]
fn each_kind_of_token_is_good_for_one_thing() {
    let server = start();
    let (access, renewable) = sign_in(&server);
    let refused = refresh(&server, &access);
    assert_eq!(refused_as(&refused), (401, "Token has wrong type".to_owned()));
    let refused = server.call("GET", "/api/users/me/", &renewable, Value::Null);
    assert_eq!(refused.body["data"]["messages"][0]["message"], "Token has wrong type");
    assert_eq!(Device::connect(&server, "property", 1, &renewable, "").err(), Some(401));
    let mut device = Device::connect(&server, "property", 1, &access, "").unwrap();
    device.next().unwrap();
    device.send(&json!({"type": "auth", "token": renewable}));
    assert_eq!(device.next().unwrap()["code"], "invalid_token");
    assert_eq!(refresh(&server, &service()).status, 401);
    let (now_ms, hour) = (Clock::start().now().wall_ms, Duration::from_secs(3_600));
    let stranger = Signer::from_secret(&[b'x'; 32]).unwrap();
    let forged = stranger.refresh(UserId(1), Uuid::new_v4(), Uuid::new_v4(), now_ms, hour);
    assert!(is_invalid(&refresh(&server, &forged)));
    let ours = Signer::from_secret(SECRET.as_bytes()).unwrap();
    let old = ours.refresh(UserId(1), Uuid::new_v4(), Uuid::new_v4(), now_ms - 7_200_000, hour);
    assert_eq!(refused_as(&refresh(&server, &old)), (401, "Token is expired".to_owned()));
    let unknown = ours.refresh(UserId(1), Uuid::new_v4(), Uuid::new_v4(), now_ms, hour);
    assert!(is_invalid(&refresh(&server, &unknown)));
    // As Django makes them, without a family: the first use begins one.
    let id = Uuid::new_v4();
    let foreign = ours.refresh(UserId(1), id, id, now_ms, hour);
    tokens(&refresh(&server, &foreign));
    assert!(is_invalid(&refresh(&server, &foreign)));
}

#[test]
fn who_is_out_gets_no_new_tokens() {
    let server = start();
    let (_, token) = sign_in(&server);
    let set = |fields: Value| {
        let mut user = json!({"username": "maria"});
        user.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        put(&server, 1, &user);
    };
    set(json!({"is_active": false}));
    let refused = refresh(&server, &token);
    assert_eq!((refused.status, &refused.body["data"]["code"]), (401, &json!("user_inactive")));
    set(json!({"is_active": true}));
    let (_, token) = tokens(&refresh(&server, &token));
    set(json!({"password": fast("nueva")}));
    assert!(is_invalid(&refresh(&server, &token)), "another password");
    let (_, token) = tokens(&login(&server, "maria", "nueva"));
    assert_eq!(server.call("DELETE", "/api/users/1/", &service(), Value::Null).status, 204);
    assert_eq!(refresh(&server, &token).body["data"]["code"], "user_not_found");
    set(json!({"password": fast("nueva")}));
    assert!(is_invalid(&refresh(&server, &token)), "deleted, then put again");
    assert_eq!(server.call("GET", "/api/users/me/", &user(1), Value::Null).status, 200);
}

#[test]
fn tries_are_counted_by_address_and_by_name() {
    let throttled = |reply: &Reply| {
        if reply.status == 429 {
            let wait = reply.head.split("Retry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            assert!((1..=60).contains(&wait.unwrap().parse::<u64>().unwrap()), "{}", reply.head);
            assert_eq!(reply.body["data"]["detail"], "Request was throttled.");
        }
        reply.status
    };
    let server = start_with(&[("HABITTOD_LIMITS_LOGINS_PER_MINUTE", "3")]);
    let right = || throttled(&login(&server, "maria", "secreto"));
    assert_eq!([right(), right(), right(), right()], [200, 200, 200, 429]);
    assert_eq!(throttled(&login(&server, "maria", "mal")), 429);
    let elsewhere = "POST /api/login/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.9\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(server.raw(elsewhere.as_bytes()).unwrap().status, 400);
    assert_eq!(refresh(&server, &user(1)).status, 401, "no hash, no limit of sign-ins");

    let server = start_with(&[("HABITTOD_LIMITS_LOGINS_PER_MINUTE_PER_USER", "2")]);
    let right = || throttled(&login(&server, "maria", "secreto"));
    assert_eq!([right(), right(), right()], [200, 200, 429]);
    assert_eq!(throttled(&login(&server, "maria", "mal")), 429);
    assert_eq!(throttled(&login(&server, "otra", "mal")), 401);
}

#[test]
fn where_nobody_signs_in_the_paths_are_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let public = folder.path().join("public.pem");
    std::fs::write(&public, PUBLIC_KEY).unwrap();
    for setting in [("HABITTOD_AUTH_LOGIN", "false"), ("HABITTOD_AUTH_PUBLIC_KEY_FILE", public.to_str().unwrap())] {
        let off = Server::start_with(&[setting]);
        for path in ["/api/login/", "/api/refresh"] {
            for method in ["POST", "GET", "OPTIONS"] {
                let reply = off.try_call(method, path, None, None).unwrap();
                let told = (reply.status, reply.body["data"]["detail"].as_str());
                assert_eq!(told, (404, Some("Not found.")), "{setting:?} {method} {path}");
            }
        }
    }
}

#[test]
fn nothing_secret_is_logged() {
    let mut server = start();
    let body = r#"{"username":"maria","password":"secreto"}"#;
    let with_key = format!(
        "POST /api/login/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (access, first) = tokens(&server.raw(with_key.as_bytes()).unwrap());
    let (_, other) = tokens(&server.raw(with_key.as_bytes()).unwrap());
    assert_ne!(first, other, "an answer with tokens is not kept");
    let (_, second) = tokens(&refresh(&server, &first));
    assert!(is_invalid(&refresh(&server, &first)));
    assert_eq!(login(&server, "maria", "contraseña-mala").status, 401);
    assert_eq!(login(&server, "desconocida", "secreto").status, 401);
    let log = server.stop_and_read_log();
    assert!(log.iter().any(|line| line.contains(r#""refresh_token_reused","user":1"#)), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("/api/login/")));
    for secret in ["maria", "desconocida", "secreto", "mala", &access, &first, &second, "eyJ"] {
        assert!(!log.iter().any(|line| line.contains(secret)), "{secret}");
    }
}

/// Beyond what can be hashed in time, 503; and everything else goes on meanwhile.
#[test]
fn a_crowd_at_the_door_is_told_when_to_come_back() {
    let server = start();
    let body = json!({"username": "nadie", "password": "x"}).to_string();
    let request = format!(
        "POST /api/login/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (told, answers) = mpsc::channel();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let told = told.clone();
        std::thread::spawn(move || {
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).is_ok() {
                let _ = told.send(answer);
            }
        });
    }
    let refused = std::iter::from_fn(|| answers.recv_timeout(PATIENCE).ok()).find(|a| a.starts_with("HTTP/1.1 503 "));
    assert!(refused.is_some_and(|answer| answer.contains("Retry-After: ")));
    assert_eq!(server.call("GET", "/api/users/me/", &user(1), Value::Null).status, 200);
}
