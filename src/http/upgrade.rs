//! Owns the opening handshake of a WebSocket (RFC 6455 4.2). Never judges path, method, origin or token: the caller
//! does, in the contract's order. Enter at [`check`].

use super::Request;
use super::response::write;

/// Why there is no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeFault {
    /// 426: not asked for, or in HTTP/1.0.
    NotUpgrade,
    /// 426: no version, or another than 13.
    Version,
    /// 400: not exactly one `Sec-WebSocket-Key` of exactly 16 bytes in base64.
    Key,
}

impl UpgradeFault {
    /// A 426 needs `Upgrade: websocket` and `Sec-WebSocket-Version: 13` beside it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NotUpgrade | Self::Version => 426,
            Self::Key => 400,
        }
    }
}

/// A well-formed wish for a WebSocket. Outlives its request: the answer may have to wait for the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    key: [u8; 24],
}

/// Judges the headers of a handshake, whatever its path and method.
pub fn check(request: &Request<'_>) -> Result<Accept, UpgradeFault> {
    if !request.wants_upgrade() {
        return Err(UpgradeFault::NotUpgrade);
    }
    let mut versions = request.values("sec-websocket-version");
    if (versions.next(), versions.next()) != (Some(b"13".as_slice()), None) {
        return Err(UpgradeFault::Version);
    }
    let mut keys = request.values("sec-websocket-key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => key.try_into().map(|key| Accept { key }).map_err(|_| UpgradeFault::Key),
        _ => Err(UpgradeFault::Key),
    }
}

/// 16 bytes are 21 digits, one whose lower four bits say nothing, and two fillers.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || b"+/".contains(b);
    matches!(key, [digits @ .., b'A' | b'Q' | b'g' | b'w', b'=', b'='] if digits.len() == 21 && digits.iter().all(is_digit))
}

impl Accept {
    /// Appends the complete head of the 101; frames may follow it at once. `subprotocol`: one that the client offered.
    pub fn encode(&self, out: &mut Vec<u8>, subprotocol: Option<&'static str>) {
        let accept = tungstenite::handshake::derive_accept_key(&self.key);
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        write(out, format_args!("Sec-WebSocket-Accept: {accept}\r\n"));
        if let Some(subprotocol) = subprotocol {
            write(out, format_args!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The token of `Sec-WebSocket-Protocol: bearer, <token>`, the only header that a browser's script can set. `None`: no
/// `bearer` among the protocols; `""`: none, or an unreadable one, after it.
#[must_use]
pub fn bearer_subprotocol<'a>(request: &Request<'a>) -> Option<&'a str> {
    let mut offered = request.elements("sec-websocket-protocol").skip_while(|element| *element != b"bearer");
    offered.next()?;
    Some(offered.next().and_then(|token| std::str::from_utf8(token).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::Head;
    use super::*;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";

    fn request(head: &str) -> Request<'_> {
        Request::of(&Head::parse(head.as_bytes()).unwrap(), head.as_bytes(), &[])
    }

    fn judged(version: &str, headers: &[&str]) -> Result<Accept, UpgradeFault> {
        let head = format!("GET /ws/ HTTP/{version}\r\nHost: h\r\n{}\r\n", headers.concat());
        check(&request(&head))
    }

    #[test]
    fn the_example_of_the_rfc() {
        let mut out = b"before".to_vec();
        judged("1.1", &[UPGRADE, VERSION, KEY]).unwrap().encode(&mut out, Some("bearer"));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "beforeHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: bearer\r\n\r\n"
        );
    }

    #[test]
    fn faults_in_the_order_of_the_contract() {
        use UpgradeFault::{Key, NotUpgrade, Version};
        let cases: &[(&str, &[&str], UpgradeFault)] = &[
            ("1.1", &[], NotUpgrade),
            ("1.0", &[UPGRADE, VERSION, KEY], NotUpgrade),
            ("1.1", &["Upgrade: websocket\r\n", VERSION, KEY], NotUpgrade),
            ("1.1", &["Connection: upgrade\r\n", VERSION, KEY], NotUpgrade),
            ("1.1", &["Connection: upgrade\r\nUpgrade: h2c\r\n", VERSION, KEY], NotUpgrade),
            ("1.1", &[UPGRADE, KEY], Version),
            ("1.1", &[UPGRADE, "Sec-WebSocket-Version: 8\r\n"], Version),
            ("1.1", &[UPGRADE, "Sec-WebSocket-Version: 013\r\n", KEY], Version),
            ("1.1", &[UPGRADE, VERSION, VERSION, KEY], Version),
            ("1.1", &[UPGRADE, VERSION], Key),
            ("1.1", &[UPGRADE, VERSION, KEY, KEY], Key),
            ("1.1", &[UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n"], Key),
        ];
        for (version, headers, fault) in cases {
            assert_eq!(judged(version, headers), Err(*fault), "{headers:?}");
        }
        assert_eq!((NotUpgrade.status(), Version.status(), Key.status()), (426, 426, 400));
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_strict_base64() {
        for good in ["AAAAAAAAAAAAAAAAAAAAAA==", "dGhlIHNhbXBsZSBub25jZQ==", "+/+/+/+/+/+/+/+/+/+/+w=="] {
            assert!(is_key(good.as_bytes()), "{good}");
        }
        for odd in [
            "",
            "==",
            "AAAAAAAAAAAAAAAAAAAAAB==",
            "AAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAA-A==",
            "AAAAAAAAAAAAAAAAAAAAA A==",
            "AAAAAAAAAAAAAAAAAAAAAAAAAA==",
        ] {
            assert!(!is_key(odd.as_bytes()), "{odd}");
        }
    }

    #[test]
    fn a_token_among_the_subprotocols() {
        let cases: &[(&str, Option<&str>)] = &[
            ("", None),
            ("Sec-WebSocket-Protocol: chat, v2\r\n", None),
            ("Sec-WebSocket-Protocol: bearer,a.b-c_d\r\n", Some("a.b-c_d")),
            ("Sec-WebSocket-Protocol: chat , bearer , a.b\r\n", Some("a.b")),
            ("Sec-WebSocket-Protocol: bearer\r\nSec-WebSocket-Protocol: a.b\r\n", Some("a.b")),
            ("Sec-WebSocket-Protocol: bearer\r\n", Some("")),
            ("Sec-WebSocket-Protocol: Bearer, a\r\n", None),
        ];
        for (headers, token) in cases {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            assert_eq!(bearer_subprotocol(&request(&head)), *token, "{headers:?}");
        }
    }
}
