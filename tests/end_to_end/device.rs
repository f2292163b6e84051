//! Owns a client's socket: tungstenite's, which answers Pings by itself when it reads. Enter at [`Device::connect`].

use crate::described;
use crate::server::{PATIENCE, Server};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

pub(crate) struct Device {
    socket: WebSocket<Patient>,
    channel: String,
}

/// A stream that waits for so long. A wait that may end is also ended by a process that is stopped and goes on
/// (signal(7)): the client would take that for the end of its socket.
struct Patient(TcpStream);

impl Patient {
    fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(into) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Device {
    /// The status of the refusal, if it is one.
    pub(crate) fn connect(server: &Server, channel: &str, user: i64, token: &str, more: &str) -> Result<Self, u16> {
        let stream = Patient::connect(server.address).unwrap();
        let url = format!("ws://{}/ws/{channel}-notifications/{user}/?token={token}{more}", server.address);
        match tungstenite::client(url, stream) {
            Ok((socket, _)) => Ok(Self { socket, channel: channel.to_owned() }),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(e) => panic!("{e}"),
        }
    }

    /// `None` where nobody listens, or not for us.
    pub(crate) fn try_connect(address: SocketAddr, channel: &str, user: i64) -> Option<Self> {
        let stream = Patient::connect(address).ok()?;
        let token = crate::server::user(user);
        let url = format!("ws://{address}/ws/{channel}-notifications/{user}/?token={token}");
        tungstenite::client(url, stream).ok().map(|(socket, _)| Self { socket, channel: channel.to_owned() })
    }

    /// Another handle of its stream, to end it from elsewhere.
    pub(crate) fn stream(&self) -> TcpStream {
        self.socket.get_ref().0.try_clone().unwrap()
    }

    /// The next message, or the code with which the server closed.
    pub(crate) fn next(&mut self) -> Result<Value, u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let message = serde_json::from_str(&text).unwrap();
                    described::message(&self.channel, &message);
                    return Ok(message);
                }
                Ok(Message::Close(frame)) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Ok(_) => {}
                Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => panic!("nothing came for {PATIENCE:?}"),
                #[allow(clippy::print_stdout, reason = "shown with a test that fails")]
                Err(e) => {
                    println!("the socket ended: {e}");
                    return Err(1006);
                }
            }
        }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).unwrap();
    }

    /// So many empty Pings.
    pub(crate) fn pings(&mut self, count: usize) {
        for _ in 0..count {
            self.socket.send(Message::Ping(Vec::new().into())).unwrap();
        }
    }

    /// Closes with a code, and waits for the answer.
    pub(crate) fn close(&mut self, code: u16) {
        self.close_saying(code, "");
    }

    pub(crate) fn close_saying(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.socket.close(Some(frame)).unwrap();
        while self.socket.read().is_ok() {}
    }

    /// Everything that came before the answer to a ping sent now. Pongs go out before that ping, so the server has
    /// them, too, by then.
    pub(crate) fn so_far(&mut self) -> Vec<Value> {
        self.send(&json!({"type": "ping"}));
        let mut got = Vec::new();
        loop {
            let message = self.next().unwrap();
            if message["type"] == "pong" {
                return got;
            }
            got.push(message);
        }
    }

    /// Reads what there is and lets the receipts out; then once more, for those that were asked for meanwhile.
    pub(crate) fn all(&mut self) -> Vec<Value> {
        let mut got = self.so_far();
        got.extend(self.so_far());
        got
    }
}

pub(crate) fn types(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["type"].as_str().unwrap()).collect()
}
