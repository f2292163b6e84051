//! Owns `habittod probe URL --token T`: a client that withholds its Pongs, and so finds out whether something on the way
//! answers pings in its place. Never sends the token where it would be logged: it goes in a header. Enter at [`run`].

use super::{Exit, Given, Ran, complain, say};
use crate::matching::UserId;
use crate::tls;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
use tungstenite::Error;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::http::Uri;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameSocket};
use uuid::Uuid;

/// A server or proxy that is slower than this does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a Ping may take to come through. Something that answers pings does so before it passes on what follows.
const PING_WITHIN: Duration = Duration::from_secs(2);
const HEAD_MAX: usize = 64 * 1024;
const FRAME_MAX: usize = 1024 * 1024;
const PROBE: &str = r#"{"type":"ping","probe":true}"#;

/// Both are what matters of a socket.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

pub(super) fn run(given: &Given) -> Ran {
    let (Some(url), Some(token)) = (given.word(), &given.token) else {
        return given.usage("probe needs a URL and --token T");
    };
    let Some(user) = user_of(token) else {
        return given.usage("--token must be a user's access token, as habittod token USER_ID prints it");
    };
    let target = Target::parse(url, user).or_else(|what| given.usage(&format!("{url}: {what}")))?;
    match Probe::open(&target, token).and_then(|mut probe| probe.judge()) {
        Ok(Verdict::Good) => {
            say("OK: pings reach the client, its Pongs reach the server, and nothing answers in its place; \
                                  delivery.ack = \"pong\" is right on this way\n")
        }
        Ok(Verdict::Answered) => complain(
            format!(
                "{url}: something on the way answers pings in the client's place, so that the server would take for \
                 delivered what no device has; set delivery.ack = \"client\""
            ),
            Exit::Failed,
        ),
        Ok(Verdict::Swallowed) => complain(
            format!(
                "{url}: something on the way swallows pings, so that the server would drop its clients; set delivery.ack = \
                 \"client\" and limits.ping_interval = 0, or let pings through"
            ),
            Exit::Failed,
        ),
        Ok(Verdict::OneWay) => complain(
            format!(
                "{url}: pings reach the client, but its Pongs do not reach the server; set delivery.ack = \"client\" and \
                 limits.ping_interval = 0, or let Pongs through"
            ),
            Exit::Failed,
        ),
        Err(what) => complain(format!("{url}: {what}"), Exit::Failed),
    }
}

/// Whom a token is for. Whether it is good, the server will say.
fn user_of(token: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let user = claims.get("user_id")?;
    user.as_i64().or_else(|| user.as_str()?.parse().ok()).filter(|user| *user > 0)
}

struct Target {
    host: String,
    port: u16,
    tls: bool,
    path: String,
}

impl Target {
    /// A whole address of a socket, or of what it lies under.
    fn parse(url: &str, user: i64) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("{e}; write e.g. wss://notify.example"))?;
        let tls = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            _ => return Err("write ws://, wss://, http:// or https:// before the host".to_owned()),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let base = uri.path().trim_end_matches('/');
        let socket = base.rsplit_once("-notifications/").filter(|(channel, whose)| {
            ["/ws/property", "/ws/tenant"].iter().any(|end| channel.ends_with(end)) && UserId::parse(whose).is_some()
        });
        let path = match socket {
            Some((_, whose)) if whose != user.to_string() => {
                return Err(format!("a socket of user {whose}, but the token is of user {user}; take one of the two"));
            }
            Some(_) => format!("{base}/"),
            None => format!("{base}/ws/tenant-notifications/{user}/"),
        };
        Ok(Self { host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls, path })
    }

    /// The value of `Host`: an IPv6 address stands in brackets there.
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, ANSWER_WITHIN) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn encrypt(&self, stream: TcpStream) -> Result<Box<dyn Stream>, String> {
        let config = tls::config().map_err(|e| e.to_string())?;
        let name = ServerName::try_from(self.host.clone()).map_err(|e| e.to_string())?;
        let client = ClientConnection::new(config, name).map_err(|e| e.to_string())?;
        Ok(Box::new(StreamOwned::new(client, stream)))
    }
}

enum Verdict {
    Good,
    Answered,
    Swallowed,
    OneWay,
}

/// An open socket whose Pings lie unanswered.
struct Probe {
    socket: FrameSocket<Box<dyn Stream>>,
    /// For its time-outs.
    tcp: TcpStream,
    ping: Option<Vec<u8>>,
}

impl Probe {
    fn open(target: &Target, token: &str) -> Result<Self, String> {
        let tcp = target.connect().map_err(|e| format!("cannot connect: {e}"))?;
        tcp.set_read_timeout(Some(ANSWER_WITHIN)).map_err(no_answer)?;
        let plain = tcp.try_clone().map_err(no_answer)?;
        let mut stream: Box<dyn Stream> = if target.tls { target.encrypt(plain)? } else { Box::new(plain) };
        let (key, host, path) = (generate_key(), target.authority(), &target.path);
        let request = format!(
            "GET {path}?probe=1 HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(no_answer)?;
        let (head, rest) = head(&mut stream)?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status != "101" {
            let hint = match status {
                "401" | "403" => "; is the token of this server, and still good?",
                "404" => "; is this where habittod's /ws/ lies?",
                "429" => {
                    "; this user, or this address, has as many sockets open as it may: close some, or use another's token"
                }
                "426" | "400" => "; does the proxy pass on Upgrade and Connection?",
                _ => "",
            };
            let status: String = status.chars().filter(char::is_ascii_alphanumeric).take(3).collect();
            return Err(format!("no WebSocket: answered with status {status}{hint}"));
        }
        if !head.contains(&derive_accept_key(key.as_bytes())) {
            return Err("what answers is no WebSocket server: Sec-WebSocket-Accept is wrong".to_owned());
        }
        Ok(Self { socket: FrameSocket::from_partially_read(stream, rest), tcp, ping: None })
    }

    /// Whether the server believes to have heard a Pong, before and after there was one.
    fn judge(&mut self) -> Result<Verdict, String> {
        self.until("connection_established")?;
        self.wait_for_ping()?;
        if self.is_answered()? {
            return Ok(Verdict::Answered);
        }
        let Some(payload) = self.ping.take() else { return Ok(Verdict::Swallowed) };
        self.send(Frame::pong(payload))?;
        Ok(if self.is_answered()? { Verdict::Good } else { Verdict::OneWay })
    }

    fn is_answered(&mut self) -> Result<bool, String> {
        self.send(Frame::message(PROBE.as_bytes(), OpCode::Data(Data::Text), true))?;
        let answer = self.until("pong")?;
        let answered = answer.get("ping_answered").and_then(Value::as_bool);
        answered.ok_or_else(|| "what answers is not habittod, or one that is too old to be probed".to_owned())
    }

    fn wait_for_ping(&mut self) -> Result<(), String> {
        let _ = self.tcp.set_read_timeout(Some(PING_WITHIN));
        while self.ping.is_none() {
            match self.socket.read(Some(FRAME_MAX)) {
                Ok(Some(frame)) => drop(self.take(&frame)?),
                Err(Error::Io(e)) if is_late(&e) => break,
                other => return Err(ended(other)),
            }
        }
        let _ = self.tcp.set_read_timeout(Some(ANSWER_WITHIN));
        Ok(())
    }

    /// The next message of this type.
    fn until(&mut self, wanted: &str) -> Result<Value, String> {
        loop {
            let frame = match self.socket.read(Some(FRAME_MAX)) {
                Ok(Some(frame)) => frame,
                other => return Err(ended(other)),
            };
            if let Some(message) = self.take(&frame)?
                && message.get("type").is_some_and(|name| name == wanted)
            {
                return Ok(message);
            }
        }
    }

    /// A message, if it is one. A Ping is kept and not answered.
    fn take(&mut self, frame: &Frame) -> Result<Option<Value>, String> {
        match frame.header().opcode {
            OpCode::Control(Control::Ping) => self.ping = Some(frame.payload().to_vec()),
            OpCode::Control(Control::Close) => return Err("the server closed the socket".to_owned()),
            OpCode::Data(Data::Text) => return Ok(serde_json::from_slice(frame.payload()).ok()),
            _ => {}
        }
        Ok(None)
    }

    fn send(&mut self, mut frame: Frame) -> Result<(), String> {
        frame.header_mut().mask = Uuid::new_v4().into_bytes().first_chunk().copied();
        self.socket.send(frame).map_err(|e| format!("the connection broke: {e}"))
    }
}

fn ended(read: tungstenite::Result<Option<Frame>>) -> String {
    match read {
        Err(Error::Io(e)) if is_late(&e) => "the socket is open, but no answer comes".to_owned(),
        Err(e) => format!("the connection broke: {e}"),
        Ok(_) => "the connection was cut".to_owned(),
    }
}

/// Whether a read took longer than it may.
fn is_late(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn no_answer(e: io::Error) -> String {
    if is_late(&e) {
        return format!("no answer within {} s", ANSWER_WITHIN.as_secs());
    }
    match e.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(why)) => format!(
            "the certificate is not trusted here: {why}; add its CA to those of this machine, or name it in SSL_CERT_FILE"
        ),
        _ => format!("no answer: {e}"),
    }
}

/// The head of an answer, and what came with it.
fn head(stream: &mut dyn Stream) -> Result<(String, Vec<u8>), String> {
    let (mut got, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some(end) = got.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = got.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&got).into_owned(), rest));
        }
        match stream.read(&mut part) {
            Ok(0) => return Err("the connection was cut before an answer".to_owned()),
            Ok(count) => got.extend(part.iter().take(count)),
            Err(e) => return Err(no_answer(e)),
        }
        if got.len() > HEAD_MAX {
            return Err("what answers does not speak HTTP".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Signer;
    use crate::matching::UserId;

    #[test]
    fn a_url_may_be_of_the_server_of_a_folder_or_of_a_socket() {
        for (url, expected) in [
            ("ws://h", ("h", 80, false, "/ws/tenant-notifications/7/")),
            ("https://h/", ("h", 443, true, "/ws/tenant-notifications/7/")),
            ("wss://h:1/notify/", ("h", 1, true, "/notify/ws/tenant-notifications/7/")),
            ("http://[::1]:8000", ("::1", 8000, false, "/ws/tenant-notifications/7/")),
            ("ws://h/ws/property-notifications/7", ("h", 80, false, "/ws/property-notifications/7/")),
            ("ws://h/my-notifications/api", ("h", 80, false, "/my-notifications/api/ws/tenant-notifications/7/")),
        ] {
            let Target { host, port, tls, path } = Target::parse(url, 7).unwrap();
            assert_eq!((host.as_str(), port, tls, path.as_str()), expected, "{url}");
        }
        for (url, expected) in [("ws://h", "h:80"), ("http://[::1]:8000", "[::1]:8000"), ("wss://[::1]", "[::1]:443")] {
            assert_eq!(Target::parse(url, 7).unwrap().authority(), expected, "{url}");
        }
        for odd in ["h:8000", "ftp://h", "", "ws://"] {
            assert!(Target::parse(odd, 7).is_err(), "{odd}");
        }
        let other = Target::parse("ws://h/ws/property-notifications/9/", 7).map(|target| target.path);
        assert!(other.is_err_and(|what| what.starts_with("a socket of user 9, but the token is of user 7; ")));
    }

    #[test]
    fn what_does_not_come_in_time_is_no_answer() {
        for late in [ErrorKind::WouldBlock, ErrorKind::TimedOut] {
            assert_eq!(no_answer(late.into()), "no answer within 15 s");
        }
        assert_eq!(no_answer(ErrorKind::ConnectionReset.into()), "no answer: connection reset");
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let signer = Signer::from_secret(&[7; 32]).unwrap();
        assert_eq!(user_of(&signer.access(UserId(12), 0, ANSWER_WITHIN)), Some(12));
        assert_eq!(user_of(&signer.service(0, ANSWER_WITHIN)), None);
        for odd in ["", "x", "a.b.c", "..", "a.e30.c"] {
            assert_eq!(user_of(odd), None, "{odd}");
        }
    }
}
