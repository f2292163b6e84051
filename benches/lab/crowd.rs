//! Owns many clients' sockets on one thread: opens them, reads what comes, answers Pings as every client stack does.
//! Never judges what it is told. Enter at [`Crowd::open`].

use super::{now, token};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Handshakes under way at once.
const OPENING: usize = 64;
const EVENTS: usize = 1_024;
const READ_MAX: usize = 64 * 1_024;
/// Nothing here takes as long; what does, hangs.
const PATIENCE_US: u64 = 60_000_000;

/// What one of the clients heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A text message: the first is `connection_established`.
    Text(usize),
    /// A Ping, and the Pong is on its way.
    Ping,
    /// Something came for a token that is not of the crowd.
    Other(Token),
}

struct Client {
    stream: TcpStream,
    /// The beginning of a frame whose rest has not come.
    rest: Vec<u8>,
}

pub(crate) struct Crowd {
    pub(crate) poll: Poll,
    events: Events,
    clients: Vec<Client>,
    buffer: Vec<u8>,
}

impl Crowd {
    pub(crate) fn new() -> Self {
        let (poll, events) = (Poll::new().unwrap(), Events::with_capacity(EVENTS));
        Self { poll, events, clients: Vec::new(), buffer: vec![0; READ_MAX] }
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Opens sockets until there are `count`: the n-th is the property channel of user n. Each has been greeted then.
    pub(crate) fn open(&mut self, address: SocketAddr, count: usize) {
        let (mut open, until_us) = (self.len(), now().monotonic_us + PATIENCE_US);
        while open < count {
            while self.len() < count && self.len() - open < OPENING {
                self.connect(address);
            }
            self.turn(Duration::from_secs(1), |heard| open += usize::from(matches!(heard, Heard::Text(_))));
            assert!(now().monotonic_us < until_us, "{open} of {count} sockets are open");
        }
    }

    fn connect(&mut self, address: SocketAddr) {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        let user = self.len() as i64 + 1;
        let request = handshake(user, &token(user));
        // So little always fits into the buffer of a new socket.
        assert_eq!(stream.write(request.as_bytes()).unwrap(), request.len());
        self.poll.registry().register(&mut stream, Token(self.len()), Interest::READABLE).unwrap();
        self.clients.push(Client { stream, rest: Vec::new() });
    }

    /// For so long.
    pub(crate) fn listen(&mut self, seconds: f64, mut hear: impl FnMut(Heard)) {
        let until_us = now().monotonic_us + (seconds * 1e6) as u64;
        while let left @ 1.. = until_us.saturating_sub(now().monotonic_us) {
            self.turn(Duration::from_micros(left), &mut hear);
        }
    }

    /// Whatever has come, or will within `patience`.
    pub(crate) fn turn(&mut self, patience: Duration, mut hear: impl FnMut(Heard)) {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(e) if e.kind() != ErrorKind::Interrupted => panic!("{e}"),
            _ => {}
        }
        for event in &self.events {
            match self.clients.get_mut(event.token().0) {
                Some(client) => client.read(&mut self.buffer, event.token().0, &mut hear),
                None => hear(Heard::Other(event.token())),
            }
        }
    }
}

impl Client {
    fn read(&mut self, buffer: &mut [u8], own: usize, hear: &mut impl FnMut(Heard)) {
        loop {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            self.rest.clear();
            let (came, room) = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => panic!("the server closed socket {own}"),
                Ok(came) => (came, buffer.len() - kept),
                Err(e) if e.kind() == ErrorKind::WouldBlock => (0, 1),
                Err(e) => panic!("socket {own}: {e}"),
            };
            self.take(&buffer[..kept + came], own, hear);
            if came < room {
                return; // less than there was room for: all of it
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], own: usize, hear: &mut impl FnMut(Heard)) {
        if bytes.starts_with(b"HTTP/1.1 ") {
            assert!(bytes.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(bytes));
            match bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                Some(end) => bytes = &bytes[end + 4..],
                None => return self.rest.extend_from_slice(bytes),
            }
        }
        loop {
            let mut cursor = Cursor::new(bytes);
            let header = FrameHeader::parse(&mut cursor).unwrap();
            let Some((header, length)) = header else { break };
            let start = cursor.position() as usize;
            let Some(payload) = bytes.get(start..start + length as usize) else { break };
            match header.opcode {
                OpCode::Data(Data::Text) => hear(Heard::Text(own)),
                OpCode::Control(Control::Ping) => {
                    self.pong(payload);
                    hear(Heard::Ping);
                }
                other => panic!("socket {own} got {other:?}"),
            }
            bytes = &bytes[start + payload.len()..];
        }
        self.rest.extend_from_slice(bytes);
    }

    fn pong(&mut self, payload: &[u8]) {
        let header = FrameHeader {
            opcode: OpCode::Control(Control::Pong),
            mask: Some([0; 4]), // unmasking costs the server the same
            ..FrameHeader::default()
        };
        let mut frame = Vec::with_capacity(6 + payload.len());
        header.format(payload.len() as u64, &mut frame).unwrap();
        frame.extend_from_slice(payload);
        assert_eq!(self.stream.write(&frame).unwrap(), frame.len());
    }
}

pub(crate) fn handshake(user: i64, token: &str) -> String {
    format!(
        "GET /ws/property-notifications/{user}/?token={token} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
