//! Owns the ruler: one epoll thread that makes the system calls of the job and nothing else. It trusts its clients, takes
//! each request for whole, checks no token, computes no accept key, encodes nothing and stores nothing; no server can be
//! faster. Enter at [`serve`].

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x21{\"type\":\"connection_established\"}";
const DONE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// As long as the frame of a like.
const LIKE: usize = 420;
const PING: &[u8] = b"\x89\x100123456789abcdef";

struct Connection {
    stream: TcpStream,
    is_feed: bool,
}

pub(super) fn serve() {
    let mut poll = Poll::new().unwrap();
    let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    rustix::net::sockopt::set_tcp_nodelay(&listener, true).unwrap();
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    println!("{}", serde_json::json!({ "listen": [listener.local_addr().unwrap()] }));
    let mut connections: slab::Slab<Connection> = slab::Slab::new();
    let mut feeds = vec![usize::MAX; 32_768];
    let frame = [&[0x81, 126][..], &(LIKE as u16).to_be_bytes(), &[b'x'; LIKE], PING].concat();
    let (mut events, mut buffer) = (Events::with_capacity(1_024), vec![0; 65_536]);
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() != ErrorKind::Interrupted => panic!("{e}"),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let key = connections.insert(Connection { stream, is_feed: false });
                    let stream = &mut connections[key].stream;
                    poll.registry().register(stream, Token(key), Interest::READABLE).unwrap();
                }
                continue;
            }
            let key = event.token().0;
            let connection = &mut connections[key];
            let bytes = match connection.stream.read(&mut buffer) {
                Ok(count @ 1..) => &buffer[..count],
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                _ => {
                    connections.remove(key);
                    continue;
                }
            };
            if connection.is_feed {
                continue; // a Pong
            }
            if bytes.starts_with(b"GET /ws/property-notifications/") {
                connection.is_feed = true;
                feeds[number(&bytes[31..])] = key;
                let _ = connection.stream.write(UPGRADED);
            } else if bytes.starts_with(b"POST /api/properties/") {
                let owner = feeds[number(&bytes[21..])];
                let _ = connections[owner].stream.write(&frame);
                let _ = connections[key].stream.write(DONE);
            }
        }
    }
}

fn number(digits: &[u8]) -> usize {
    digits.iter().take_while(|digit| digit.is_ascii_digit()).fold(0, |n, digit| n * 10 + usize::from(digit - b'0'))
}
