//! Measures the HTTP reader: bytes to whole requests, with every check that makes a request unambiguous.
//!
//! A good figure: half a gigabyte a second on heads, that is under a microsecond for a like and for a handshake; bodies
//! that come with their length cost next to nothing, chunked ones one look a chunk.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on has failed")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use habittod::http::{Limits, Reader, Step};
use std::hint::black_box;

const LIMITS: Limits = Limits { head: 16 * 1_024, target: 8 * 1_024 };
const BODY_MAX: usize = 64 * 1_024;
/// As long as a real one.
const TOKEN: [u8; 212] = [b'x'; 212];

/// Reads all of it in pieces of `piece` bytes; how many bytes of bodies there were.
fn read(bytes: &[u8], buffer: &mut Vec<u8>, piece: usize) -> usize {
    let (mut reader, mut bodies) = (Reader::default(), 0);
    buffer.clear();
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let mut len = buffer.len();
            let step = reader.read(buffer, &mut len, &LIMITS).unwrap();
            buffer.truncate(len);
            match step {
                Step::More => break,
                Step::Head { .. } => reader.admit(BODY_MAX),
                Step::Ready { body, consumed, .. } => {
                    bodies += body;
                    buffer.drain(..consumed);
                }
                Step::Skipped { .. } => panic!("nothing was refused"),
            }
        }
    }
    assert!(buffer.is_empty());
    bodies
}

fn requests(c: &mut Criterion) {
    let token = str::from_utf8(&TOKEN).unwrap();
    let handshake = format!(
        "GET /ws/property-notifications/1017/?token={token} HTTP/1.1\r\nHost: habitto.example\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0\r\n\
         Accept-Encoding: gzip, deflate, br\r\nOrigin: https://habitto.example\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
    );
    let post = |framing: &str| {
        format!(
            "POST /api/properties/1017/like/ HTTP/1.1\r\nHost: habitto.example\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{framing}\r\n\r\n"
        )
    };
    let body = "x".repeat(BODY_MAX);
    let like = post("Content-Length: 2") + "{}";
    let sized = post(&format!("Content-Length: {BODY_MAX}")) + &body;
    let chunk = format!("400\r\n{}\r\n", &body[..1_024]);
    let chunked = post("Transfer-Encoding: chunked") + &chunk.repeat(BODY_MAX / 1_024) + "0\r\n\r\n";
    let cases = [
        ("a handshake", &handshake, usize::MAX, 0),
        ("a like", &like, usize::MAX, 2),
        ("a like in pieces of 16 bytes", &like, 16, 2),
        ("64 KiB by length, in packets", &sized, 1_448, BODY_MAX),
        ("64 KiB in chunks of 1 KiB, in packets", &chunked, 1_448, BODY_MAX),
    ];
    let mut group = c.benchmark_group("http");
    for (name, bytes, piece, bodies) in cases {
        let mut buffer = Vec::new();
        assert_eq!(read(bytes.as_bytes(), &mut buffer, piece), bodies);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| read(black_box(bytes.as_bytes()), &mut buffer, piece)));
    }
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
