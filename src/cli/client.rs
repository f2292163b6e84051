//! Owns the commands' way to a server on this machine: one HTTP request, and the `data` of its answer. Never goes far:
//! no TLS, no names, no redirects. Enter at [`Client::call`].

use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer that is asked for here is longer.
const ANSWER_MAX: u64 = 1024 * 1024;

pub(super) struct Client {
    pub address: SocketAddr,
    /// How long connecting, writing and each read may take.
    pub within: Duration,
}

impl Client {
    /// `token`: of whoever asks, if of anybody; `body`: null for none. A refusal is an answer, too: what it says is not
    /// looked at.
    pub(super) fn call(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> io::Result<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, self.within)?;
        stream.set_read_timeout(Some(self.within))?;
        stream.set_write_timeout(Some(self.within))?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let (host, length) = (self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{token}{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut envelope: Value = serde_json::from_str(body).map_err(io::Error::other)?;
        Ok(envelope.get_mut("data").map(Value::take).unwrap_or_default())
    }
}
