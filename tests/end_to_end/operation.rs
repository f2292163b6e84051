//! What an operator does: reload, stop, try the demo.

use crate::server::{Server, user};
use serde_json::json;

#[test]
fn the_demo_introduces_itself() {
    let mut demo = std::process::Command::new(env!("CARGO_BIN_EXE_habittod"))
        .args(["demo", "--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(demo.stdout.take().unwrap()));
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.ends_with("as maria or juan_perez, password demo.")));
    let curl = lines.find(|line| line.contains("curl -X POST 'http://127.0.0.1:"));
    let address = curl.as_ref().unwrap().split(['/', '\'']).find(|part| part.starts_with("127.")).unwrap();
    let body = r#"{"username":"maria","password":"demo"}"#;
    let request = format!(
        "POST /api/login/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"access\":"), "{answer}");
    std::process::Command::new("kill").arg(demo.id().to_string()).status().unwrap();
    assert!(demo.wait().unwrap().success());
    assert!(curl.is_some_and(|line| line.contains("/api/properties/1/like/")));
}

#[test]
fn a_hangup_reloads_limits() {
    let server = Server::start();
    server.put_world();
    let long = json!({"reason": "x".repeat(100)});
    let status = || server.call("POST", "/api/properties/10/like/", &user(2), long.clone()).status;
    assert_eq!(status(), 200);
    std::fs::write(server.folder().join("config.toml"), "[limits]\nbody = 64\n").unwrap();
    server.signal("-HUP");
    // Signals are taken at some later moment: one of these answers is the first under the new limit.
    assert!((0..100_000).any(|_| status() == 413));
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
