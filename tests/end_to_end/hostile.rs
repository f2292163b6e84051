//! Clients that mean no good, many at once, over real sockets. Each gets what the contract says; meanwhile another
//! client's pings go on being answered, and the memory stays bounded: counts and bytes decide.

use crate::exposition::Scrape;
use crate::server::{PATIENCE, Server, patiently, service, user};
use habittod::clock::Clock;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a server may weigh in the middle of it all, in an unoptimised build.
const MEMORY_MAX_KIB: u64 = 128 * 1024;
/// What may be left of that: rows in SQLite's caches, and what the allocator keeps for the next burst.
const GROWTH_MAX_KIB: u64 = 24 * 1024;
/// Pings that have to be answered meanwhile. The attacks are of one size on every machine, and thousands of pings fit in:
/// a loop that gives itself to one of them, or lets them go first, answers a few.
const PINGS_MIN: u64 = 100;

#[test]
fn hostile_clients_get_their_answers_and_hurt_nobody_else() {
    let server = Server::start_with(&[
        ("HABITTOD_LIMITS_WS_MESSAGES_PER_SECOND", "0"),
        ("HABITTOD_LIMITS_CONNECTIONS_PER_USER", "0"),
        ("HABITTOD_LIMITS_OUTBOUND", "16 KiB"),
        ("HABITTOD_LIMITS_LOGINS_PER_MINUTE", "0"),
    ]);
    server.put_world();
    let before = memory_kib(&server, "VmRSS:");
    let over = AtomicBool::new(false);
    let (pings, longest_ms) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| ping_until(&server, &over));
        let attacks: [fn(&Server); 8] = [
            half_requests,
            dribbles,
            oversized,
            empty_fragments,
            ping_flood,
            never_read,
            connection_storm,
            login_storm,
        ];
        let target = &server;
        let all: Vec<_> = attacks.into_iter().map(|attack| scope.spawn(move || attack(target))).collect();
        let ended: Vec<_> = all.into_iter().map(|attack| attack.join()).collect();
        over.store(true, Ordering::SeqCst);
        let watched = watch.join().unwrap();
        assert!(ended.iter().all(Result::is_ok));
        watched
    });
    assert!(pings >= PINGS_MIN, "{pings} pings, one of them took {longest_ms} ms");
    let peak = memory_kib(&server, "VmHWM:");
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB at most");
    let after = memory_kib(&server, "VmRSS:");
    println!("{before} KiB before, {peak} KiB at most, {after} KiB after, {pings} pings in {longest_ms} ms at most");
    assert!(after < before + GROWTH_MAX_KIB, "{before} KiB before, {after} KiB after");
    assert_eq!(server.try_call("GET", "/health/ready", None, None).unwrap().status, 200);
}

/// Stopped after any number of bytes, in a request or in a conversation, and silent from then on: each is let go of in
/// its time, and nothing of it stays.
#[test]
fn a_client_that_stops_anywhere_is_let_go_of() {
    let server = Server::start_with(&[
        ("HABITTOD_LIMITS_HEAD_TIMEOUT", "2s"),
        ("HABITTOD_LIMITS_BODY_TIMEOUT", "2s"),
        ("HABITTOD_LIMITS_IDLE_TIMEOUT", "2s"),
        ("HABITTOD_LIMITS_PING_INTERVAL", "1s"),
        ("HABITTOD_LIMITS_PONG_TIMEOUT", "1s"),
        ("HABITTOD_LIMITS_CONNECTIONS_PER_USER", "0"),
    ]);
    server.put_world();
    let request = like_request("keep-alive");
    // A text in two fragments with a Ping between them.
    let mut conversation = upgrade_request(2).into_bytes();
    let head = conversation.len();
    conversation.extend([0x01, 0x84, 0, 0, 0, 0, b'{', b'"', b't', b'y', 0x89, 0x81, 0, 0, 0, 0, b'!']);
    conversation.extend([0x80, 0x85, 0, 0, 0, 0, b'p', b'e', b'"', b':', b'1']);
    let requests = (0..request.len()).step_by(7).map(|end| &request.as_bytes()[..end]);
    let conversations = (0..head).step_by(7).chain(head..conversation.len()).map(|end| &conversation[..end]);
    let stopped: Vec<TcpStream> = requests
        .chain(conversations)
        .map(|part| {
            let mut stream = stream(&server);
            stream.write_all(part).unwrap();
            stream
        })
        .collect();
    let count = stopped.len();
    let answers: Vec<Vec<u8>> = stopped.into_iter().map(heard).collect();
    let begin = |with: &[u8]| answers.iter().filter(|answer| answer.starts_with(with)).count();
    let (late, upgraded) = (begin(b"HTTP/1.1 408 "), begin(b"HTTP/1.1 101 "));
    // Who has said nothing at all is not told why.
    assert_eq!((late, upgraded), (count - (conversation.len() - head) - 2, conversation.len() - head));
    let open = || Scrape::of(&server).of_series("habittod_connections");
    patiently(|| open() == 1.0, || format!("{} are open beside the one that asks", open() - 1.0));
}

/// An ordinary client: how many pings were answered, and how many milliseconds the slowest answer took.
fn ping_until(server: &Server, over: &AtomicBool) -> (u64, u64) {
    let mut device = server.connect("tenant", 3);
    device.all();
    let (clock, mut pings, mut longest_ms) = (Clock::start(), 0, 0);
    while !over.load(Ordering::SeqCst) {
        let asked_ms = clock.now().monotonic_ms();
        device.so_far();
        pings += 1;
        longest_ms = longest_ms.max(clock.now().monotonic_ms() - asked_ms);
    }
    (pings, longest_ms)
}

pub(crate) fn memory_kib(server: &Server, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn stream(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything until the server ends it; a reset is an end.
pub(crate) fn heard(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{e}"),
        _ => all,
    }
}

fn upgrade_request(id: i64) -> String {
    format!(
        "GET /ws/property-notifications/{id}/?token={} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        user(id)
    )
}

pub(crate) fn upgraded(server: &Server, id: i64) -> TcpStream {
    let mut stream = stream(server);
    stream.write_all(upgrade_request(id).as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// The code of the close frame that the server's bytes end with.
fn close_code(bytes: &[u8]) -> Option<u16> {
    let place = bytes.windows(2).rposition(|two| two[0] == 0x88 && usize::from(two[1]) >= 2)?;
    Some(u16::from_be_bytes([*bytes.get(place + 2)?, *bytes.get(place + 3)?]))
}

/// Hundreds that begin a request and say no more.
fn half_requests(server: &Server) {
    let halves: Vec<TcpStream> = (0..400)
        .map(|n| {
            let mut stream = stream(server);
            let text = format!("POST /api/properties/10/like/ HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(n * 20));
            stream.write_all(text.as_bytes()).unwrap();
            stream
        })
        .collect();
    drop(halves);
}

fn like_request(connection: &str) -> String {
    let body = r#"{"reason": "una por una"}"#;
    format!(
        "POST /api/properties/10/like/ HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        user(2),
        body.len()
    )
}

/// A byte at a time is as good as all at once.
fn dribbles(server: &Server) {
    let mut slow = stream(server);
    slow.set_nodelay(true).unwrap();
    like_request("close").bytes().for_each(|byte| slow.write_all(&[byte]).unwrap());
    assert!(heard(slow).starts_with(b"HTTP/1.1 200 "));
    let mut socket = upgraded(server, 2);
    socket.set_nodelay(true).unwrap();
    let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    [0x89, 0x81, 0, 0, 0, 0, b'!'].iter().chain(&close).for_each(|byte| socket.write_all(&[*byte]).unwrap());
    assert_eq!(close_code(&heard(socket)), Some(1000));
}

/// Too much of everything.
fn oversized(server: &Server) {
    let cases = [
        ("431", format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(1 << 20))),
        ("414", format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(12_000))),
        (
            "413",
            format!(
                "POST /api/notifications/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n",
                service()
            ),
        ),
    ];
    for (status, bytes) in cases {
        let mut stream = stream(server);
        // The server may end it before all of it is written.
        let _ = stream.write_all(bytes.as_bytes());
        let answer = heard(stream);
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{status}: {}", answer.len());
    }
    let mut socket = upgraded(server, 2);
    socket.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(close_code(&heard(socket)), Some(1009));
}

/// A message of a million empty fragments is a message.
fn empty_fragments(server: &Server) {
    let mut socket = upgraded(server, 2);
    socket.write_all(&[0x01, 0x80, 0, 0, 0, 0]).unwrap();
    let thousand = [0x00, 0x80, 0, 0, 0, 0].repeat(1_000);
    for _ in 0..1_000 {
        socket.write_all(&thousand).unwrap();
    }
    socket.write_all(&[0x80, 0x80, 0, 0, 0, 0, 0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).unwrap();
    let said = heard(socket);
    assert!(String::from_utf8_lossy(&said).contains("invalid_json"));
    assert_eq!(close_code(&said), Some(1000));
}

fn ping_flood(server: &Server) {
    let mut socket = upgraded(server, 2);
    let _ = socket.write_all(&[0x89, 0x80, 0, 0, 0, 0].repeat(5_000));
    let said = heard(socket);
    // A reset may have overtaken the reason, since the flood was not read to its end.
    assert!(close_code(&said).is_none_or(|code| code == 1008), "{:?}", close_code(&said));
}

/// Readers that never read, on a channel where much is said: each is let go, and its memory with it.
fn never_read(server: &Server) {
    let deaf: Vec<TcpStream> = (0..20).map(|_| upgraded(server, 1)).collect();
    let long = "x".repeat(50_000);
    for n in 0..150 {
        let note = json!({"user": 1, "channel": "property", "message": "m", "data": {"n": n, "x": long}});
        assert_eq!(server.call("POST", "/api/notifications/", &service(), note).status, 201);
    }
    for socket in deaf {
        let said = heard(socket);
        assert_eq!(close_code(&said), Some(1013));
    }
    let unread = server.call("GET", "/api/notifications/my/", &user(1), Value::Null);
    assert_eq!(unread.body["data"]["by_type"]["general"], 150);
}

/// Connections that come and go as fast as they can.
fn connection_storm(server: &Server) {
    for n in 0..2_000 {
        let mut stream = stream(server);
        if n % 3 > 0 {
            stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        if n % 3 > 1 {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
        }
    }
}

/// More passwords at once than can be looked at: some are, and the rest is told so.
fn login_storm(server: &Server) {
    let storm: Vec<TcpStream> = (0..150)
        .map(|n| {
            let mut stream = stream(server);
            let body = json!({"username": format!("nobody {n}"), "password": "x"}).to_string();
            let head =
                "POST /api/login/ HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nConnection: close\r\n";
            stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut storm = storm.into_iter();
    assert!(storm.next().map(heard).unwrap().starts_with(b"HTTP/1.1 401 "));
    // Where a hash has just come to its end, the last of them has taken its place.
    let refused = storm.rev().map(heard).find(|answer| !answer.starts_with(b"HTTP/1.1 401 ")).unwrap();
    assert!(refused.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&refused));
}
