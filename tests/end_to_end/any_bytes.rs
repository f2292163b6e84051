//! The fuzz targets' inputs, sent to the running program: it answers or closes, never by a fault of its own, and weighs
//! afterwards what it did before. `LIVE_INPUTS=100000 cargo test --release any_bytes` sends more of them.

use crate::hostile::{heard, memory_kib, upgraded};
use crate::mutation::{Chance, changed, seeds};
use crate::server::{PATIENCE, Server, service, user};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};

const INPUTS: u64 = 1_200;
/// What it may weigh more in the end: rows that some inputs make fill SQLite's caches.
const GROWTH_MAX_KIB: u64 = 24 * 1024;

#[test]
fn any_bytes_are_answered_or_refused_and_leave_nothing_behind() {
    let inputs = std::env::var("LIVE_INPUTS").map_or(INPUTS, |text| text.parse().unwrap());
    let mut server = Server::start_with(&[("HABITTOD_LIMITS_WS_MESSAGES_PER_SECOND", "0")]);
    server.put_world();
    let requests: Vec<Vec<u8>> = seeds("requests").into_iter().chain(good_requests()).collect();
    let (frames, messages) = (seeds("frames"), seeds("messages"));
    let (mut chance, mut warm_kib) = (Chance(0xf022), 0);
    for n in 0..inputs {
        if n == inputs / 4 {
            warm_kib = memory_kib(&server, "VmRSS:");
        }
        match n % 4 {
            0 | 1 => {
                let to = if n % 8 == 0 { server.admin } else { server.address };
                request(TcpStream::connect(to).unwrap(), &changed(&requests, &mut chance));
            }
            2 => conversation(&server, &changed(&frames, &mut chance)),
            _ => conversation(&server, &text_frame(&changed(&messages, &mut chance))),
        }
    }
    let kib = memory_kib(&server, "VmRSS:");
    println!("{inputs} inputs; {warm_kib} KiB after a quarter of them, {kib} KiB at the end");
    assert!(kib <= warm_kib + GROWTH_MAX_KIB, "from {warm_kib} to {kib} KiB");
    assert_eq!(server.ready().status, 200);
    server.stop_and_read_log();
    assert_eq!(server.complaints(), "");
}

/// Requests that are carried out, or would be.
fn good_requests() -> Vec<Vec<u8>> {
    let calls = [
        ("POST /api/properties/10/like/", user(2), r#"{"reason":"me gusta"}"#),
        ("POST /api/matches/1/owner_accept/", user(1), ""),
        ("GET /api/notifications/?page=1&page_size=20&is_read=false&type=general&channel=property", user(1), ""),
        ("POST /api/notifications/mark_all_as_read/", user(1), "{}"),
        (
            "POST /api/notifications/",
            service(),
            r#"{"users":[1,2,3],"channel":"tenant","message":"ñ","data":{"a":[1,{"b":null}]},"title":"t"}"#,
        ),
        ("PUT /api/users/3/", service(), r#"{"username":"otra","is_active":true,"further":1.5e3}"#),
        ("PUT /api/properties/11/", service(), r#"{"owner":1,"type":"casa","address":"x","price":1}"#),
        ("PUT /api/matches/", service(), r#"{"property":10,"tenant":3,"score":98.5,"metadata":{}}"#),
        ("POST /api/login/", String::new(), r#"{"username":"maria","password":"x"}"#),
        ("POST /api/refresh/", String::new(), r#"{"refresh":"x.y.z"}"#),
    ];
    let text = |(line, token, body): (&str, String, &str)| {
        let length = body.len();
        format!(
            "{line} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: k\r\nContent-Type: \
             application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    calls.into_iter().map(text).collect()
}

/// A masked text message; the mask is 0.
fn text_frame(text: &[u8]) -> Vec<u8> {
    let mut frame = match text.len() {
        length @ ..126 => vec![0x81, 0x80 | length as u8],
        length => vec![0x81, 0xfe, (length >> 8) as u8, length as u8],
    };
    frame.extend([0; 4]);
    frame.extend(text);
    frame
}

fn request(stream: TcpStream, bytes: &[u8]) {
    let answers = said(stream, bytes);
    let faults = answers.windows(12).filter(|window| window == b"HTTP/1.1 500").count();
    assert!(
        faults == 0 && (answers.is_empty() || answers.starts_with(b"HTTP/1.1 ")),
        "{} for {}",
        answers.escape_ascii(),
        bytes.escape_ascii()
    );
}

fn conversation(server: &Server, bytes: &[u8]) {
    let answers = said(upgraded(server, 2), bytes);
    let fault = [0x88, 0x02, 0x03, 0xf3]; // 1011
    assert!(!answers.windows(4).any(|window| window == fault), "1011 for {}", bytes.escape_ascii());
}

/// All that comes back until the server ends it.
fn said(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)) {
        // It may have ended it before all was written.
        Err(e) if !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected) => {
            panic!("{e}")
        }
        _ => heard(stream),
    }
}
