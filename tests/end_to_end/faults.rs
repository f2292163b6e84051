//! A disk that fails, once or for a while, or takes its time; descriptors that run out. What is promised then: 503 and
//! nothing changed, reads and sockets go on, and all is well again without a restart.

use crate::device::Device;
use crate::disk::{Disk, Errno};
use crate::server::{Reply, Server, command, service, service_at, user};
use habittod::clock::Clock;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

const ERRORS: [Errno; 3] = [Errno::Io, Errno::NoSpace, Errno::ReadOnly];

fn post(server: &Server, message: &str) -> Option<Reply> {
    let note = json!({"user": 1, "channel": "property", "message": message});
    server.try_call("POST", "/api/notifications/", Some(&service()), Some(&note))
}

fn messages(server: &Server) -> Vec<String> {
    let page = server.call("GET", "/api/notifications/?page_size=100", &user(1), Value::Null).body;
    let rows = page["data"]["results"].as_array().unwrap();
    rows.iter().map(|row| row["message"].as_str().unwrap().to_owned()).collect()
}

fn lines(server: &mut Server) -> Vec<Value> {
    server.stop_and_read_log().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_refused(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.head.contains("\r\nRetry-After: "), "{}", reply.head);
}

/// The first call of a new server that touches the disk fails, then the second, and so on, until none is left.
#[test]
fn whichever_call_fails_nothing_promised_is_lost_and_the_next_start_works() {
    for n in 1.. {
        let disk = Disk::fast();
        disk.fail_one(n, ERRORS[n as usize % ERRORS.len()]);
        let mut told = None;
        match Server::start_on(&disk, false, &[]) {
            Err(ended) => assert!(matches!(ended.code(), Some(1 | 3)), "call {n}: {ended}"),
            Ok(mut server) => {
                let reply = post(&server, "uno").unwrap();
                told = Some(reply.status);
                if reply.status != 201 {
                    assert_refused(&reply);
                    assert_eq!(messages(&server), Vec::<String>::new(), "call {n}");
                    let again = post(&server, "dos").unwrap();
                    assert_eq!(again.status, 201, "call {n} failed once: {}", again.body);
                }
                server.kill();
            }
        }
        let was_reached = disk.calls() >= n;
        disk.heal();
        let server = Server::start_on(&disk, false, &[]).unwrap_or_else(|ended| panic!("after call {n}: {ended}"));
        let expected: &[&str] = match told {
            None => &[],
            Some(201) => &["uno"],
            Some(_) => &["dos"],
        };
        assert_eq!(messages(&server), expected, "call {n}");
        if !was_reached {
            assert!(n > 20, "only {n} calls");
            return;
        }
    }
}

#[test]
fn while_writing_fails_the_rest_goes_on_and_it_heals_by_itself() {
    let disk = Disk::new();
    let mut server = Server::start_on(&disk, false, &[]).unwrap();
    server.put_world();
    let mut device = server.connect("property", 1);
    device.all();
    for (n, error) in ERRORS.into_iter().enumerate() {
        disk.fail(error);
        assert_refused(&post(&server, "lost").unwrap());
        assert_refused(&server.call("POST", "/api/properties/10/like/", &user(2), Value::Null));
        let ready = server.try_call("GET", "/health/ready", None, None).unwrap();
        assert_refused(&ready);
        assert!(ready.body["data"]["detail"].as_str().unwrap().starts_with("storage: "), "{}", ready.body);
        assert_eq!(server.try_call("GET", "/health/live", None, None).unwrap().status, 200);
        assert_eq!(messages(&server).len(), n, "reads go on, and nothing changed");
        assert_eq!(device.so_far(), Vec::<Value>::new(), "sockets go on, and hear of nothing");
        disk.heal();
        let is_ready = || server.try_call("GET", "/health/ready", None, None).is_some_and(|reply| reply.status == 200);
        assert!((0..1_000_000).any(|_| is_ready()), "never ready again after {error:?}");
        assert_eq!(post(&server, &format!("kept {n}")).unwrap().status, 201);
        assert_eq!(device.next().unwrap()["message"], format!("kept {n}"));
    }
    let log = lines(&mut server);
    let failed: Vec<&Value> = log.iter().filter(|line| line["event"] == "committed").collect();
    assert!(!failed.is_empty() && failed.iter().all(|line| line["why"].is_string()), "{failed:?}");
}

/// Removed or replaced by somebody while it is in use: what was written there would be gone with the server.
#[test]
fn nothing_is_promised_on_a_file_that_is_no_longer_there() {
    let server = Server::start();
    server.put_world();
    let (db, log) = (server.folder().join("habittod.db"), server.folder().join("habittod.db-wal"));
    for (n, file) in [&db, &log].into_iter().enumerate() {
        let aside = file.with_extension("aside");
        std::fs::rename(file, &aside).unwrap();
        assert_refused(&post(&server, "lost").unwrap());
        server.until(503, "removed or replaced while in use");
        std::fs::copy(&aside, file).unwrap();
        assert_refused(&post(&server, "lost").unwrap());
        assert_eq!(messages(&server).len(), n, "reads go on, and nothing changed");
        std::fs::rename(&aside, file).unwrap();
        server.until(200, "ready");
        assert_eq!(post(&server, &format!("kept {n}")).unwrap().status, 201);
    }
    assert_eq!(messages(&server), ["kept 1", "kept 0"]);
}

#[test]
fn a_slow_disk_holds_up_nobody_but_who_waits_for_it() {
    let disk = Disk::new();
    let server = Server::start_on(&disk, false, &[("HABITTOD_LIMITS_STORAGE_QUEUE", "1")]).unwrap();
    server.put_world();
    let mut device = server.connect("property", 1);
    device.all();
    disk.hold_syncs();
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let reply = post(&server, "uno").unwrap();
            answered.store(true, Ordering::SeqCst);
            reply.status
        });
        let live = || server.try_call("GET", "/health/live", None, None).unwrap().status;
        assert!((0..1_000_000).any(|_| live() == 200 && disk.held() > 0));
        assert_eq!(device.so_far(), Vec::<Value>::new(), "not told before it is synced");
        assert_refused(&post(&server, "dos").unwrap()); // the queue is full
        assert!(!answered.load(Ordering::SeqCst));
        disk.heal();
        assert_eq!(slow.join().unwrap(), 201);
    });
    assert_eq!(device.next().unwrap()["message"], "uno");
    assert_eq!(messages(&server), ["uno"]);
}

#[test]
fn without_descriptors_the_loop_neither_spins_nor_goes_deaf() {
    let disk = Disk::new();
    let mut server = Server::start_on(&disk, false, &[("HABITTOD_LIMITS_WS_MESSAGES_PER_SECOND", "0")]).unwrap();
    let mut device = server.connect("property", 1);
    device.all();
    // Let in before there is no room.
    let mut operator = TcpStream::connect(server.admin).unwrap();
    operator.write_all(b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"}}") {
        operator.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    let pid = server.pid().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--nofile=40:40"]).status().unwrap().success());
    // Each may make the kernel refuse once; after that, a loop that spun would ask it once a turn or more.
    let clients: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    device.so_far();
    let (clock, before) = (Clock::start(), disk.refused_accepts());
    let refused = || disk.refused_accepts() - before;
    while refused() < 15 {
        device.so_far();
    }
    let elapsed_ms = clock.now().monotonic_ms();
    assert!(refused() <= elapsed_ms / 100 + 3, "{} in {elapsed_ms} ms", refused());
    // Who looks for how many are open cannot open what tells him; it is all of them.
    operator.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let page = std::io::read_to_string(operator).unwrap();
    assert!(page.contains("\nprocess_open_fds 40\n") && page.contains("\nprocess_max_fds 40\n"), "{page}");
    assert!(!page.contains("\nprocess_resident_memory_bytes 0\n"), "{page}");
    drop(clients);
    assert_eq!(server.try_call("GET", "/health/live", None, None).unwrap().status, 200);
    let log = lines(&mut server);
    let told: Vec<&Value> = log.iter().filter(|line| line["event"].as_str().unwrap().starts_with("accept_")).collect();
    assert_eq!(told[0]["event"], "accept_failing");
    assert!(told[0]["why"].as_str().unwrap().starts_with("Too many open files"), "{}", told[0]);
    assert_eq!(told.last().unwrap()["event"], "accept_works");
    assert!(told.windows(2).all(|two| two[0]["event"] != two[1]["event"]), "{told:?}");
}

/// Ahead, two hours back, and right again: what is open stays open, what was committed later stays later, and a token is
/// as good as the clock says.
#[test]
fn a_clock_that_jumps_changes_neither_order_nor_sockets() {
    const HOUR: i64 = 3_600;
    let disk = Disk::new();
    let server = Server::start_on(&disk, false, &[]).unwrap();
    server.put_world();
    let mut device = server.connect("property", 1);
    device.all();
    for (ahead, text) in [(0, "uno"), (HOUR - 600, "dos"), (-2 * HOUR, "tres"), (0, "cuatro")] {
        disk.set_clock_ahead(ahead);
        let note = json!({"user": 1, "channel": "property", "message": text});
        let posted = server.try_call("POST", "/api/notifications/", Some(&service_at(ahead)), Some(&note)).unwrap();
        assert_eq!(posted.status, 201, "{text}: {}", posted.body);
        assert_eq!(device.next().unwrap()["message"], text);
        // Good for an hour from now, which lies two hours ahead of the clock in between.
        let mine = server.call("GET", "/api/notifications/my/", &user(1), Value::Null).status;
        assert_eq!(mine, if ahead < 0 { 401 } else { 200 }, "{text}");
        assert_eq!(server.ready().status, 200, "{text}");
    }
    assert_eq!(device.so_far(), Vec::<Value>::new());
    assert_eq!(messages(&server), ["cuatro", "tres", "dos", "uno"]);
    let page = server.call("GET", "/api/notifications/", &user(1), Value::Null).body;
    let id = page["data"]["results"][2]["notification_id"].as_str().unwrap();
    let since = Device::connect(&server, "property", 1, &user(1), &format!("&since={id}")).unwrap().all();
    assert_eq!(since[1..].iter().map(|m| m["message"].clone()).collect::<Vec<_>>(), ["tres", "cuatro"]);
    // Now an hour has passed, if one believes the clock.
    disk.set_clock_ahead(HOUR + 60);
    assert_eq!(server.call("GET", "/api/notifications/my/", &user(1), Value::Null).status, 401);
    let note = json!({"user": 1, "channel": "property", "message": "cinco"});
    server.try_call("POST", "/api/notifications/", Some(&service_at(HOUR)), Some(&note)).unwrap();
    let closed = std::iter::repeat_with(|| device.next()).find_map(Result::err);
    assert_eq!(closed, Some(4401));
}

#[test]
fn a_database_that_is_not_one_is_named_and_left_alone() {
    let good = tempfile::tempdir().unwrap();
    let mut server = Server::start_in::<&str>(good, &[]);
    server.put_world();
    server.stop_and_read_log();
    let whole = std::fs::read(server.folder().join("habittod.db")).unwrap();
    let mut damaged = whole.clone();
    damaged[4_096..12_000].fill(0x5a);
    let cases: [(&str, &[u8]); 5] = [
        ("cut", &whole[..whole.len() - 5_000]),
        ("damaged", &damaged),
        ("empty", b""),
        ("foreign", b"%PDF-1.7 is no database, however long it is..................................................."),
        ("header alone", &whole[..100]),
    ];
    for (name, bytes) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("habittod.db");
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(folder.path().join("habittod.db.id"), "").unwrap();
        for word in ["check", "serve"] {
            let said = command(folder.path(), &[word]);
            assert_eq!((said.code, said.err.lines().count()), (3, 1), "{name}, {word}: {}", said.err);
            assert!(said.err.contains("habittod.db: "), "{name}, {word}: {}", said.err);
            assert!(std::fs::read(&path).unwrap() == bytes, "{name} was changed by {word}");
        }
    }
}

#[test]
fn a_second_server_on_the_same_file_says_so() {
    let disk = Disk::new();
    let first = Server::start_on(&disk, false, &[]).unwrap();
    assert_eq!(Server::start_on(&disk, false, &[]).err().and_then(|ended| ended.code()), Some(3));
    assert_eq!(first.try_call("GET", "/health/ready", None, None).unwrap().status, 200);
}
