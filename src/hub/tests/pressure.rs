//! Owns tests of clients that read late: whoever was not read from is read again, and gets all that is his.
//! Never opens a socket.

use super::stage::{End, START, Stage};
use super::{inhabited, rules};
use crate::config::Config;
use crate::hub::event::{Event, Limit};
use crate::hub::{PIPELINE_BYTES, Rules};
use crate::storage::job::Ticket;
use crate::storage::stepwise::Store;

const GET: &[u8] = b"GET /api/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n";

/// A client that takes nothing yet.
fn stalled(rules: Rules, store: Store) -> (Stage, Ticket, End) {
    let mut stage = Stage::new(rules, store, START, 7);
    let (ticket, end) = stage.accept(0).unwrap();
    (stage, ticket, end)
}

fn served() -> (Stage, Ticket, End) {
    stalled(rules(&Config::load(None, []).unwrap()), inhabited())
}

/// He reads all there is.
fn read_all(stage: &mut Stage, ticket: Ticket, end: &End) -> Vec<u8> {
    stage.open_window(ticket, end, usize::MAX);
    while !stage.is_still() {
        stage.turn();
    }
    stage.read(ticket, end, usize::MAX)
}

fn answers(bytes: &[u8]) -> usize {
    bytes.windows(17).filter(|window| window == b"HTTP/1.1 200 OK\r\n").count()
}

#[test]
fn a_request_that_came_while_too_much_was_queued_is_answered() {
    let (mut stage, ticket, end) = served();
    let mut asked = 0;
    while stage.hub.queued_of(ticket).unwrap() <= PIPELINE_BYTES {
        stage.send(ticket, &end, GET);
        stage.turn();
        asked += 1;
    }
    stage.send(ticket, &end, GET);
    stage.turn();
    assert_eq!(end.borrow().to_server.len(), GET.len(), "it waits in the kernel");
    assert_eq!(answers(&read_all(&mut stage, ticket, &end)), asked + 1);
}

#[test]
fn a_client_that_ended_while_its_last_answer_was_under_way_gets_all_of_it() {
    let (mut stage, ticket, end) = served();
    let last = String::from_utf8_lossy(GET).replace("h\r\n\r\n", "h\r\nConnection: close\r\n\r\n");
    stage.send(ticket, &end, last.as_bytes());
    stage.turn();
    let queued = stage.hub.queued_of(ticket).unwrap();
    assert!(queued > 10_000);
    stage.end(ticket, &end);
    stage.turn();
    assert_eq!(read_all(&mut stage, ticket, &end).len(), queued);
    assert_eq!(stage.hub.connections(), 0, "nobody is waited for");
}

#[test]
fn a_client_that_always_leaves_a_byte_behind_is_kept_no_more_than_that() {
    let (mut stage, ticket, end) = served();
    stage.open_window(ticket, &end, usize::MAX);
    let asked = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000);
    for bytes in [&asked[..1], &[&asked[1..], &asked[..1]].concat(), &[&asked[1..], &asked[..1]].concat()] {
        stage.send(ticket, &end, bytes);
        read_all(&mut stage, ticket, &end);
    }
    let input = &stage.hub.connection(ticket).unwrap().cold().input;
    assert!((input.len(), input.capacity()) <= (1, 16), "{} bytes held for {}", input.capacity(), input.len());
}

/// Behind the answer: nothing, the beginning of a head, the beginning of a body.
#[test]
fn an_answer_that_is_not_taken_is_waited_for_as_long_as_its_stage_says() {
    let body = b"POST /api/login/ HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let cases = [
        ("75s", b"".as_slice(), 75, Limit::IdleTimeout),
        ("0", b"", 20, Limit::BodyTimeout),
        ("75s", b"GET", 10, Limit::HeadTimeout),
        ("75s", body, 20, Limit::BodyTimeout),
    ];
    for (idle, behind, seconds, limit) in cases {
        let idle = ("HABITTOD_LIMITS_IDLE_TIMEOUT".into(), idle.into());
        let login = ("HABITTOD_AUTH_SECRET".into(), "a secret of the tests, 32 bytes or more".into());
        let rules = rules(&Config::load(None, [idle, login]).unwrap());
        let (mut stage, ticket, end) = stalled(rules, inhabited());
        stage.send(ticket, &end, &[b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n", behind].concat());
        stage.turn();
        for (ms, over) in [(seconds * 1_000 - 1, false), (1, true)] {
            stage.pass(ms);
            stage.turn();
            stage.turn();
            assert_eq!(end.borrow().over, over, "{limit:?}");
        }
        assert!(
            stage.events.iter().any(|event| matches!(event, Event::Limited(which) if *which == limit)),
            "{limit:?}"
        );
    }
}

#[test]
fn an_echo_that_waited_for_room_is_said() {
    let config = Config::load(None, []).unwrap();
    let (mut stage, ticket, end) = stalled(Rules { verifier: None, ..rules(&config) }, Store::new());
    let handshake = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let large = super::wire::sent(super::wire::TEXT, &vec![b'x'; PIPELINE_BYTES + 1]);
    let small = super::wire::sent(super::wire::TEXT, b"the last word");
    stage.chunk = usize::MAX;
    stage.send(ticket, &end, &[handshake.as_bytes(), &large, &small].concat());
    stage.turn();
    let heard = read_all(&mut stage, ticket, &end);
    assert!(heard.ends_with(b"the last word"), "{} bytes", heard.len());
}
