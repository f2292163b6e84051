//! What an operator does: reload, stop, try the demo.

use crate::crowd::{Crowd, Heard};
use crate::disk::Disk;
use crate::process::Process;
use crate::server::{Server, command, patiently, program, service, user};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::process::{Command, Stdio};

#[test]
fn the_demo_introduces_itself() {
    let demo = Command::new(env!("CARGO_BIN_EXE_habittod"))
        .args(["demo", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn();
    let mut demo = Process(demo.unwrap());
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.ends_with("as maria or juan_perez, password demo.")));
    let curl = lines.find(|line| line.contains("curl -X POST 'http://127.0.0.1:"));
    let address = curl.as_ref().unwrap().split(['/', '\'']).find(|part| part.starts_with("127.")).unwrap();
    let body = r#"{"username":"maria","password":"demo"}"#;
    let request = format!(
        "POST /api/login/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"access\":"), "{answer}");
    let second = Command::new(env!("CARGO_BIN_EXE_habittod")).args(["demo", "--listen", address]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&second.stderr).ends_with(" (ss -ltnp), or choose another --listen\n"),
        "{second:?}"
    );
    kill("-TERM", demo.id());
    assert!(demo.wait().unwrap().success());
    assert!(curl.is_some_and(|line| line.contains("/api/properties/1/like/")));
}

#[test]
fn a_hangup_reloads_limits_and_a_file_that_has_gone_changes_nothing() {
    let mut server = Server::start();
    server.put_world();
    let long = json!({"reason": "x".repeat(100)});
    let status = |server: &Server| server.call("POST", "/api/properties/10/like/", &user(2), long.clone()).status;
    assert_eq!(status(&server), 200);
    let file = server.folder().join("config.toml");
    std::fs::write(&file, "[limits]\nbody = 64\n[delivery]\nack = 'client'\n").unwrap();
    server.signal("-HUP");
    // Signals are taken at some later moment: one of these answers is the first under the new limit.
    assert!((0..100_000).any(|_| status(&server) == 413));
    assert_eq!(server.connect("property", 1).next().unwrap()["ack"], "pong");
    std::fs::remove_file(&file).unwrap();
    server.signal("-HUP");
    // Signals are taken in their order.
    let log = server.stop_and_read_log();
    let count = |event: &str| log.iter().filter(|line| line.contains(&format!(r#""event":"{event}""#))).count();
    assert_eq!((count("reloaded"), count("not_reloaded")), (1, 1), "{log:?}");
    assert!(log.iter().any(|line| line.contains(r#""needs_restart":["delivery.ack"]"#)), "{log:?}");
    assert!(log.iter().any(|line| line.contains("not_reloaded") && line.contains("config.toml")), "{log:?}");
}

/// The disk holds its start up while it makes its database.
#[test]
fn a_hangup_waits_for_the_start_and_a_stop_ends_it() {
    let starting = || {
        let disk = Disk::new();
        disk.hold_syncs();
        let serve = program(disk.folder.path(), &disk.env(false)).arg("serve").stdout(Stdio::piped()).spawn();
        let serve = Process(serve.unwrap());
        patiently(|| disk.held() > 0, || "no sync is held".to_owned());
        (disk, serve)
    };
    for stop in ["-TERM", "-INT"] {
        let (_disk, mut serve) = starting();
        kill(stop, serve.id());
        assert_eq!(serve.wait().unwrap().code(), Some(0), "{stop}");
    }
    let (disk, mut serve) = starting();
    kill("-HUP", serve.id());
    disk.heal();
    let mut log = BufReader::new(serve.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains(r#""event":"reloaded""#)));
    kill("-TERM", serve.id());
    assert!(serve.wait().unwrap().success());
}

#[test]
fn what_is_tried_at_a_terminal_ends_with_it() {
    for args in [&["demo", "--quiet"][..], &["echo"]] {
        let folder = tempfile::tempdir().unwrap();
        let tried = Command::new(env!("CARGO_BIN_EXE_habittod"))
            .args(args)
            .args(["--listen", "127.0.0.1:0"])
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .spawn();
        let mut tried = Process(tried.unwrap());
        let mut line = String::new();
        BufReader::new(tried.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        kill("-HUP", tried.id());
        assert!(tried.wait().unwrap().success(), "{args:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{args:?}");
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_file_that_was_there_at_the_start_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[limits]\nbody = 64\n").unwrap();
    let mut server = Server::start_in::<&str>(folder, &[]);
    std::fs::remove_file(&file).unwrap();
    server.signal("-HUP");
    let log = server.stop_and_read_log();
    assert!(log.iter().any(|line| line.contains("not_reloaded") && line.contains("config.toml")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains(r#""event":"reloaded""#)), "{log:?}");
}

#[test]
fn a_stop_says_goodbye_and_ends_well() {
    let mut server = Server::start();
    server.put_world();
    let mut device = server.connect("property", 1);
    device.next().unwrap();
    server.signal("-TERM");
    assert_eq!(device.next(), Err(1001));
    drop(device);
    assert_eq!(server.wait().code(), Some(0));
}

/// A stop in the middle of everything: 2,000 people are told something, a request is half sent, and all come back to
/// the next server.
#[test]
fn a_stop_loses_and_doubles_nothing() {
    const CROWD: usize = 2_000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let mut server = Server::start_with(&[("HABITTOD_SERVER_DRAIN", "2s")]);
    let mut crowd = Crowd::connect(&server, CROWD);
    let mut got: HashMap<(usize, String), usize> = HashMap::new();
    let note =
        |message: &str| json!({"users": (1..=CROWD).collect::<Vec<_>>(), "channel": "tenant", "message": message});
    let mut half = TcpStream::connect(server.address).unwrap();
    let body = note("in hand").to_string();
    let head = format!(
        "POST /api/notifications/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        service(),
        body.len()
    );
    half.write_all(head.as_bytes()).unwrap();
    let mut kept = TcpStream::connect(server.address).unwrap();
    let ready = "GET /health/ready HTTP/1.1\r\nHost: h\r\n\r\n";
    assert!(one_answer(&mut kept, ready).starts_with("HTTP/1.1 200 "));

    assert_eq!(server.call("POST", "/api/notifications/", &service(), note("before")).status, 201);
    server.signal("-TERM");
    let refused = std::iter::repeat_with(|| one_answer(&mut kept, ready)).find(|answer| !answer.contains(" 200 "));
    let refused = refused.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
    half.write_all(body.as_bytes()).unwrap();
    let mut note_down = |id, heard| match heard {
        Heard::Message(message) if message["type"] == "general" => {
            *got.entry((id, message["message"].as_str().unwrap().to_owned())).or_default() += 1;
        }
        Heard::Message(_) => {}
        Heard::Closed(code) => assert_eq!(code, 1001),
    };
    crowd.read_all(&mut note_down);
    while crowd.open() > 0 {
        crowd.turn(&mut note_down);
    }
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "a request in hand is finished: {answer}");
    // Who is too slow with a receipt is closed without, and told again what he owed one for. The log says of whom.
    let owed: HashMap<usize, Range<u64>> = server.read_log().iter().filter_map(|line| owed_at_close(line)).collect();
    assert_eq!((server.wait().code(), owed.len()), (Some(0), CROWD));

    server.restart();
    let mut crowd = Crowd::connect(&server, CROWD);
    let note_all = server.call("POST", "/api/notifications/", &service(), note("after"));
    assert_eq!(note_all.status, 201);
    let last = std::cell::Cell::new(0);
    let mut note_down = |id, heard| {
        if let Heard::Message(message) = heard
            && message["type"] == "general"
        {
            let text = message["message"].as_str().unwrap().to_owned();
            last.set(last.get() + usize::from(text == "after"));
            *got.entry((id, text)).or_default() += 1;
        }
    };
    crowd.read_all(&mut note_down);
    while last.get() < CROWD {
        crowd.turn(&mut note_down);
    }
    for id in 1..=CROWD {
        let owed = &owed[&id];
        for (n, text) in (0..).zip(["before", "in hand", "after"]) {
            let times = got.get(&(id, text.to_owned())).copied().unwrap_or_default();
            assert_eq!(times, 1 + usize::from(owed.contains(&n)), "user {id}, who owed for {owed:?}: {text}");
        }
    }
}

/// Whose socket was closed, and for which of those that it was sent, in order, it owed a receipt, if this line of the
/// log says so.
fn owed_at_close(line: &str) -> Option<(usize, Range<u64>)> {
    let line: Value = serde_json::from_str(line).unwrap();
    let number = |field: &str| line[field].as_u64().unwrap();
    (line["event"] == "connection_closed")
        .then(|| (number("user") as usize, number("sent") - number("unacknowledged")..number("sent")))
}

/// The answer to a request on a connection that is kept.
fn one_answer(stream: &mut TcpStream, request: &str) -> String {
    // A server on its way out may have closed it already; then there is no answer either.
    let _ = stream.write_all(request.as_bytes());
    let (mut got, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let count = stream.read(&mut part).unwrap();
        got.extend(&part[..count]);
        let text = String::from_utf8_lossy(&got).into_owned();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            body.len() >= length.parse().unwrap()
        });
        if whole || count == 0 {
            return text;
        }
    }
}

#[test]
fn a_backup_of_a_running_server_is_restored() {
    let server = Server::start();
    server.put_world();
    let note = |message: String| json!({"user": 1, "channel": "tenant", "message": message});
    let post = |n: usize| server.call("POST", "/api/notifications/", &service(), note(format!("n{n}")));
    (0..50).for_each(|n| assert_eq!(post(n).status, 201));
    // Others write meanwhile.
    let said = std::thread::scope(|scope| {
        let writer = scope.spawn(|| (50..200).for_each(|n| assert_eq!(post(n).status, 201)));
        let said = server.command(&["backup", "copy.db"]);
        writer.join().unwrap();
        said
    });
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    let again = server.command(&["backup", "copy.db"]);
    assert_eq!(again.code, 1, "{}", again.err);
    let itself = server.command(&["backup", "habittod.db"]);
    assert!(itself.code == 1 && itself.err.contains("exists, and is not overwritten"), "{}", itself.err);
    let beside = server.command(&["check"]);
    assert!(beside.code == 0 && beside.out.contains(&format!("in use by PID {}", server.pid())), "{}", beside.out);

    // The disk is lost: what remains is the copy.
    let restored = tempfile::tempdir().unwrap();
    std::fs::copy(server.folder().join("copy.db"), restored.path().join("habittod.db")).unwrap();
    drop(server);
    assert_eq!(command(restored.path(), &["check"]).code, 0);
    let mut server = Server::start_in::<&str>(restored, &[]);
    let total = server.call("GET", "/api/notifications/my/", &user(1), Value::Null).body["data"]["total"].clone();
    assert!((50..=200).contains(&total.as_u64().unwrap()), "{total}");
    server.kill();
    for name in ["habittod.db", "habittod.db-wal", "habittod.db-shm"] {
        std::fs::remove_file(server.folder().join(name)).unwrap();
    }
    std::fs::write(server.folder().join("config.toml"), "[server]\nadmin_listen = ''\n").unwrap();
    for word in ["check", "serve"] {
        let said = server.command(&[word]);
        assert!(said.code == 3 && said.err.contains("habittod.db.id says that there was a database"), "{}", said.err);
    }
}

#[test]
fn check_says_all_that_is_wrong_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[server]\nlistn = 'x'\n[limits]\nbody = 'much'\nping_interval = '25 weeks'\n";
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let said = command(folder.path(), &["check"]);
    let lines: Vec<&str> = said.err.lines().collect();
    assert_eq!((said.code, lines.len()), (2, 3), "{}", said.err);
    for (line, place) in lines.iter().zip(["2: server.listn", "4: limits.body", "5: limits.ping_interval"]) {
        assert!(line.contains(&format!("config.toml:{place}: ")), "{line}");
    }
    std::fs::write(folder.path().join("config.toml"), "[storage]\npath = 'new.db'\n").unwrap();
    let said = command(folder.path(), &["check"]);
    assert!(said.code == 0 && said.out.contains("new.db: will be made"), "{} {}", said.out, said.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // One that leads nowhere is not none.
    std::fs::remove_file(folder.path().join("config.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere.toml", folder.path().join("config.toml")).unwrap();
    let said = command(folder.path(), &["check"]);
    assert!(said.code == 2 && said.err.starts_with("config.toml: cannot be read: "), "{}", said.err);
}

#[test]
fn a_command_that_cannot_say_its_piece_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let token = |out: Stdio| {
        let said =
            program(folder.path(), &[]).args(["token", "1"]).stdout(out).stderr(Stdio::piped()).output().unwrap();
        (said.status.code(), String::from_utf8(said.stderr).unwrap())
    };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = (Some(1), "habittod: standard output: No space left on device (os error 28)\n".to_owned());
    assert_eq!(token(full.into()), said);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(token(writer.into()), (Some(0), String::new()));
}

#[test]
fn what_is_wrong_with_a_word_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (args, code, what) in [
        (["import", "."], 1, ".: a folder; "),
        (["import", ""], 2, "import needs a FILE"),
        (["backup", ""], 2, "backup needs the name of a FILE"),
        (["check", "--config="], 2, "--config names no file"),
        (["token", "9223372036854775808"], 2, "a number from 1 to 9223372036854775807, "),
    ] {
        let said = command(folder.path(), &args);
        assert!(said.code == code && said.err.contains(what), "{args:?}: {} {}", said.code, said.err);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_notification_is_explained_with_and_without_its_server() {
    let mut server = Server::start();
    server.put_world();
    server.like(2, 10);
    let says = |server: &Server, id: &str, what: &str| {
        let said = server.command(&["explain", id]);
        assert!(said.code == 0 && said.out.contains(what), "{what:?} is not in {}{}", said.out, said.err);
    };
    says(&server, "1", "created and committed: property_like, user 1, property channel");
    says(&server, "1", "no open socket on this channel");
    let mut owner = server.connect("property", 1);
    let uuid = owner.all()[1]["notification_id"].as_str().unwrap().to_owned();
    says(&server, &uuid, "queued in a replay for socket ");
    says(&server, &uuid, "acknowledged by socket ");
    owner.send(&json!({"type": "mark_read", "notification_id": uuid}));
    assert_eq!(owner.next().unwrap()["type"], "notification_read");
    says(&server, "1", "Z  delivered: a device has it\n");
    says(&server, "1", "Z  read\n");
    let public = server.call("GET", "/explain/1", "", Value::Null);
    assert_eq!(public.status, 404, "not for the public");
    for (id, code, what) in [("99", 1, "there never was one"), ("x", 2, "a number or a UUID")] {
        let said = server.command(&["explain", id]);
        assert!(said.code == code && said.err.contains(what), "{}", said.err);
    }
    server.kill();
    says(&server, "1", "Z  read\n");
    says(&server, "1", "no server answers");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start();
    let mut device = server.connect("tenant", 1);
    let note = json!({"user": 1, "channel": "tenant", "message": "m"});
    assert_eq!(server.call("POST", "/api/notifications/", &service(), note).status, 201);
    // It owes a receipt, which the first signal waits for.
    server.signal("-TERM");
    server.signal("-INT");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(device.next().unwrap()["type"], "connection_established");
    assert_eq!(device.next().unwrap()["type"], "general");
    assert_eq!(device.next(), Err(1006), "no goodbye");
}
