//! Owns very many clients' sockets at once, each of which answers its Pings by itself. Enter at [`Crowd::connect`].

use crate::server::{PATIENCE, Server, user};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use tungstenite::protocol::Role;
use tungstenite::{Error, Message, WebSocket};

pub(crate) struct Crowd {
    poll: Poll,
    /// Of user 1, 2, …; `None` once closed.
    sockets: Vec<Option<WebSocket<TcpStream>>>,
}

/// What happened to one user's socket.
pub(crate) enum Heard {
    Message(Value),
    /// With its code; 1006 if there was none.
    Closed(u16),
}

impl Crowd {
    /// One tenant's socket for each user from 1 to `count`.
    pub(crate) fn connect(server: &Server, count: usize) -> Self {
        let poll = Poll::new().unwrap();
        let sockets = (1..=count)
            .map(|id| {
                let (stream, rest) = handshake(server, id as i64);
                let mut stream = TcpStream::from_std(stream);
                poll.registry().register(&mut stream, Token(id), Interest::READABLE).unwrap();
                Some(WebSocket::from_partially_read(stream, rest, Role::Client, None))
            })
            .collect();
        Self { poll, sockets }
    }

    pub(crate) fn open(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    /// Waits for sockets that have something, and gives all that they have to `each`, with their users.
    pub(crate) fn turn(&mut self, mut each: impl FnMut(usize, Heard)) {
        let mut events = Events::with_capacity(1_024);
        while let Err(e) = self.poll.poll(&mut events, Some(PATIENCE)) {
            assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}");
        }
        assert!(!events.is_empty(), "nothing happens");
        events.iter().for_each(|event| self.read(event.token().0, &mut each));
    }

    /// What came along with the handshakes.
    pub(crate) fn read_all(&mut self, mut each: impl FnMut(usize, Heard)) {
        (1..=self.sockets.len()).for_each(|id| self.read(id, &mut each));
    }

    fn read(&mut self, id: usize, each: &mut impl FnMut(usize, Heard)) {
        while let Some(socket) = &mut self.sockets[id - 1] {
            match socket.read() {
                Ok(Message::Text(text)) => each(id, Heard::Message(serde_json::from_str(&text).unwrap())),
                Ok(Message::Close(frame)) => {
                    let _ = socket.flush();
                    self.sockets[id - 1] = None;
                    each(id, Heard::Closed(frame.map_or(1005, |frame| frame.code.into())));
                }
                Ok(_) => {}
                Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.sockets[id - 1] = None;
                    each(id, Heard::Closed(1006));
                }
            }
        }
    }
}

/// The socket after its 101, and what came with it.
fn handshake(server: &Server, id: i64) -> (std::net::TcpStream, Vec<u8>) {
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    let token = user(id);
    let request = format!(
        "GET /ws/tenant-notifications/{id}/?token={token} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut got, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let count = stream.read(&mut part).unwrap();
        assert!(count > 0, "no answer to a handshake");
        got.extend(&part[..count]);
        if let Some(end) = got.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            assert!(got.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&got));
            stream.set_nonblocking(true).unwrap();
            return (stream, got.split_off(end + 4));
        }
    }
}
