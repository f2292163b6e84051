//! Owns what a request says: a view into its bytes, nothing copied. Never decides what may be asked.
//! Enter at [`Request::of`].

use std::borrow::Cow;
use std::fmt;
use std::mem::MaybeUninit;

use super::Refusal::{self, HeadTooLarge, Malformed, VersionNotSupported};
use super::target::{Target, is_host};
use super::{BodyLength, Terms};
use memchr::{memchr, memchr_iter, memchr2};

/// Header lines of one request: as many as Apache and hyper take.
const HEADERS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    /// Any other: methods are told apart by case, and may be any token (RFC 9110 9.1).
    Other,
}

impl Method {
    fn parse(token: &str) -> Result<Self, Refusal> {
        Ok(match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "PATCH" => Self::Patch,
            // Asks for a tunnel: its length and its target follow rules of their own.
            "CONNECT" => return Err(Malformed("method CONNECT")),
            _ => Self::Other,
        })
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Other => "OTHER",
        }
    }
}

/// What a head says, as places in its bytes: it outlives the buffer's moves. See [`Request::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes, up to and with the blank line.
    pub len: usize,
    /// How much follows.
    pub body: BodyLength,
    method: Method,
    path: Span,
    query: Span,
    host: Span,
    lines: Span,
    http11: bool,
    keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part` lies in `whole`; empty if it was not cut out of it.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        if whole.get(start..end).is_none() {
            return Self { start: 0, end: 0 };
        }
        Self { start: start as u32, end: end as u32 } // a head is far shorter than 4 GiB
    }

    fn bytes(self, whole: &[u8]) -> &[u8] {
        whole.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    fn text(self, whole: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(whole)).unwrap_or_default()
    }
}

/// One request, borrowed from the buffer it came in. Small and `Copy`: header fields are looked up in the bytes.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub method: Method,
    /// As sent, not decoded, without the query; begins with `/`, or is `*` for `OPTIONS`.
    pub path: &'a str,
    /// As sent, not decoded, without the `?`; may hold a token: not for logs.
    pub query: &'a str,
    /// Else HTTP/1.0.
    pub http11: bool,
    /// Host and port as sent, of letters, digits and `.-_:[]`; empty if an HTTP/1.0 client gave none.
    pub host: &'a str,
    /// The peer lets the connection be used again (RFC 9112 9.3).
    pub keep_alive: bool,
    pub body: &'a [u8],
    /// The header lines, each with its CRLF.
    lines: &'a [u8],
}

impl fmt::Debug for Request<'_> {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Head {
    /// Reads a complete head. [`Reader::read`](super::Reader::read) has already seen to line ends and control bytes;
    /// here: request line, field names, target, Host, and that the length of the body is beyond doubt.
    pub(super) fn parse(whole: &[u8]) -> Result<Self, Refusal> {
        let head = without_blank_lines(whole);
        let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut slots) {
            Ok(httparse::Status::Complete(end)) if end == head.len() => {}
            Ok(_) => return Err(Malformed("head")),
            Err(error) => return Err(refusal(error, head)),
        }
        let method = Method::parse(parsed.method.unwrap_or_default())?;
        let Target { authority, path, query } = Target::parse(parsed.path.unwrap_or_default(), method)?;
        let http11 = parsed.version == Some(1);
        let said = Essentials::of(parsed.headers, http11)?;
        let host = authority.unwrap_or(said.host); // RFC 9112 3.2.2
        let line_end = memchr(b'\n', head).map_or(head.len(), |i| i + 1);
        Ok(Self {
            len: whole.len(),
            body: said.body,
            method,
            path: Span::of(path.as_bytes(), whole),
            query: Span::of(query.as_bytes(), whole),
            host: Span::of(host.as_bytes(), whole),
            lines: Span::of(head.get(line_end..head.len().saturating_sub(2)).unwrap_or_default(), whole),
            http11,
            keep_alive: !said.close && (http11 || said.keep_alive),
        })
    }
}

impl<'a> Request<'a> {
    /// The request of a head that [`Reader::read`](super::Reader::read) showed: `bytes` begin with it.
    #[must_use]
    pub fn of(head: &Head, bytes: &'a [u8], body: &'a [u8]) -> Self {
        Self {
            method: head.method,
            path: Some(head.path.text(bytes)).filter(|path| !path.is_empty()).unwrap_or("/"), // `GET http://host`
            query: head.query.text(bytes),
            http11: head.http11,
            host: head.host.text(bytes),
            keep_alive: head.keep_alive,
            body,
            lines: head.lines.bytes(bytes),
        }
    }

    /// The values of all lines with this name (in any case), white space trimmed, as bytes.
    pub(super) fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let (lines, mut start) = (self.lines, 0);
        memchr_iter(b'\n', lines).filter_map(move |end| {
            let line = lines.get(std::mem::replace(&mut start, end + 1)..end)?;
            let (given, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            given.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }

    /// The value of the first line with this name (in any case), white space trimmed. `None`: no such line, or its
    /// value is not UTF-8; where that matters, see [`Self::header_count`].
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.values(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// How many lines have this name (in any case).
    #[must_use]
    pub fn header_count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    /// The elements of a comma-separated list, over all lines of it (RFC 9110 5.6.1).
    pub fn elements<'n>(&self, header: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.values(header).flat_map(list)
    }

    /// Whether a comma-separated list holds `token`, in any case.
    #[must_use]
    pub fn has_token(&self, header: &str, token: &str) -> bool {
        self.elements(header).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The media type without its parameters, as sent: compare it ignoring case. `None`: no such header; `""`: an
    /// unreadable one.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        let value = std::str::from_utf8(self.values("content-type").next()?).unwrap_or_default();
        Some(value.split_once(';').map_or(value, |(media, _)| media).trim_ascii())
    }

    /// Whether the peer asks to go on as a WebSocket (RFC 6455 4.2.1); [`upgrade::check`](super::upgrade::check) says
    /// whether it asks well.
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.http11 && self.has_token("connection", "upgrade") && self.has_token("upgrade", "websocket")
    }

    /// Names and values of the query, as [`form_pairs`] reads them.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        form_pairs(self.query)
    }

    /// The first value of this name; names are compared decoded, in their case. A broken value is still a value, so
    /// that it cannot pass for an absent one.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'a, str>> {
        // Compared first, decoded then: most are not the one that is looked for.
        raw_pairs(self.query).find_map(|(given, value)| (given == name || decode(given) == name).then(|| decode(value)))
    }

    /// What an answer has to heed, kept while it is being made.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { http11: self.http11, head_only: self.method == Method::Head, keep_alive: self.keep_alive }
    }
}

/// Names and values, decoded as browsers encode forms (`+` is a space). Nothing is refused: a `%` without two hex
/// digits stays, bytes that are no UTF-8 become U+FFFD. Allocates only where there is an escape.
pub fn form_pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    raw_pairs(text).map(|(name, value)| (decode(name), decode(value)))
}

fn raw_pairs(mut rest: &str) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || {
        loop {
            let pair = match cut(rest, b'&') {
                Some((pair, after)) => {
                    rest = after;
                    pair
                }
                None => std::mem::take(&mut rest),
            };
            match pair {
                "" if rest.is_empty() => return None,
                "" => {}
                pair => return Some(cut(pair, b'=').unwrap_or((pair, ""))),
            }
        }
    })
}

/// What stands before and after the first such byte, an ASCII one. A token is long, and memchr is fast.
fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let end = memchr(at, text.as_bytes())?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

/// What the header fields say about connection and body, gathered in one pass.
struct Essentials<'a> {
    host: &'a str,
    close: bool,
    keep_alive: bool,
    body: BodyLength,
}

impl<'a> Essentials<'a> {
    fn of(fields: &[httparse::Header<'a>], http11: bool) -> Result<Self, Refusal> {
        let (mut host, mut length, mut coding) = (None, None, None);
        let (mut close, mut keep_alive) = (false, false);
        for field in fields {
            let (once, twice) = match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => (&mut host, "two Hosts"),
                14 if field.name.eq_ignore_ascii_case("content-length") => (&mut length, "two Content-Lengths"),
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => (&mut coding, "two Transfer-Encodings"),
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    close |= list(field.value).any(|token| token.eq_ignore_ascii_case(b"close"));
                    keep_alive |= list(field.value).any(|token| token.eq_ignore_ascii_case(b"keep-alive"));
                    continue;
                }
                _ => continue,
            };
            if once.replace(field.value.trim_ascii()).is_some() {
                return Err(Malformed(twice));
            }
        }
        let host = match host {
            Some(host) => std::str::from_utf8(host).ok().filter(|host| is_host(host)).ok_or(Malformed("Host"))?,
            None if http11 => return Err(Malformed("no Host")),
            None => "",
        };
        // RFC 9112 6.3, less all that two parsers could understand differently: that is how requests are smuggled.
        let body = match (length, coding) {
            (None, None) => BodyLength::None,
            (Some(length), None) => known_length(length)?,
            (None, Some(coding)) if http11 && coding.eq_ignore_ascii_case(b"chunked") => BodyLength::Chunked,
            (None, Some(_)) => return Err(Malformed("Transfer-Encoding")),
            (Some(_), Some(_)) => return Err(Malformed("Content-Length with Transfer-Encoding")),
        };
        Ok(Self { host, close, keep_alive, body })
    }
}

/// Digits only, no leading zero: `parse` alone would take `+1` and `01`.
fn known_length(value: &[u8]) -> Result<BodyLength, Refusal> {
    match value {
        b"0" => Ok(BodyLength::None),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            // Digits fail to parse only by being too many.
            Ok(BodyLength::Known(std::str::from_utf8(value).unwrap_or_default().parse().unwrap_or(usize::MAX)))
        }
        _ => Err(Malformed("Content-Length")),
    }
}

/// The elements of one line of a comma-separated list.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

/// Empty lines before a request are tolerated (RFC 9112 2.2); the reader bounds them.
pub(super) fn without_blank_lines(mut head: &[u8]) -> &[u8] {
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    head
}

fn refusal(error: httparse::Error, head: &[u8]) -> Refusal {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => HeadTooLarge,
        Error::Version if names_other_version(head) => VersionNotSupported,
        Error::Version => Malformed("version"),
        Error::HeaderName => Malformed("header name"),
        Error::HeaderValue => Malformed("header value"),
        Error::NewLine | Error::Status | Error::Token => Malformed("request line"),
    }
}

/// Whether the third and last word of the request line is like `HTTP/2.0`.
fn names_other_version(head: &[u8]) -> bool {
    let mut words = head.split(|&b| b == b'\r').next().unwrap_or_default().split(|&b| b == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    matches!(version, Some([b'0'..=b'9', b'.', b'0'..=b'9'])) && words.next().is_none()
}

fn decode(text: &str) -> Cow<'_, str> {
    if memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match rest {
            [b'+', ..] => (b' ', after),
            [b'%', high, low, beyond @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, beyond),
                _ => (b'%', after),
            },
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request<'_>, Refusal> {
        parse_bytes(head.as_bytes())
    }

    fn parse_bytes(head: &[u8]) -> Result<Request<'_>, Refusal> {
        Ok(Request::of(&Head::parse(head)?, head, b"body"))
    }

    /// What is wrong with a request line, given a Host.
    fn line(line: &str) -> Option<Refusal> {
        parse(&format!("{line}\r\nHost: h\r\n\r\n")).err()
    }

    #[test]
    fn a_request_as_it_is_seen() {
        let request =
            parse("\r\nPATCH /a%20b/?x=1 HTTP/1.1\r\nHost: h.example:8000\r\nX-A:  b \t\r\nx-a: c\r\n\r\n").unwrap();
        assert_eq!((request.method, request.path, request.query), (Method::Patch, "/a%20b/", "x=1"));
        assert_eq!((request.host, request.body), ("h.example:8000", b"body".as_slice()));
        assert_eq!((request.header("X-a"), request.header_count("X-A"), request.header("x")), (Some("b"), 2, None));
        assert_eq!(request.terms(), Terms { http11: true, head_only: false, keep_alive: true });
        assert_eq!(format!("{request:?}"), "Request { method: Patch, path: \"/a%20b/\", .. }");
    }

    #[test]
    fn methods() {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(parse(&head).unwrap().method.as_str(), method);
        }
        for method in ["BREW", "get", "Get", "M-SEARCH", "VERSION-CONTROL", "G3T", "!#$%&'*+-.^_`|~"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(parse(&head).unwrap().method, Method::Other, "{method}");
        }
        for method in ["GET\t", "G\u{c9}T", "G(T", "G/T", "\"GET\"", "G:T", "G@T", "G\0T", ""] {
            assert!(matches!(line(&format!("{method} / HTTP/1.1")), Some(Malformed(_))), "{method:?}");
        }
        assert_eq!(line("CONNECT h:443 HTTP/1.1"), Some(Malformed("method CONNECT")));
    }

    #[test]
    fn versions() {
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/9.9"] {
            assert_eq!(line(&format!("GET / {version}")), Some(VersionNotSupported), "{version}");
        }
        for version in
            ["http/1.1", "HTTP/1.", "HTTP/11", "HTTP/2", "HTTP/1.1 ", "HTTP/1.10", " HTTP/1.1", "HTTP/1.1\t", ""]
        {
            assert!(matches!(line(&format!("GET / {version}")), Some(Malformed(_))), "{version:?}");
        }
        assert_eq!(parse_bytes(b"PRI * HTTP/2.0\r\n\r\n").err(), Some(VersionNotSupported));
        assert!(matches!(line("GET /"), Some(Malformed(_))));
    }

    #[test]
    fn hosts() {
        let host = |version: &str, fields: &str| {
            parse(&format!("GET / HTTP/{version}\r\n{fields}\r\n")).map(|request| request.host.to_owned())
        };
        for version in ["1.0", "1.1"] {
            assert_eq!(host(version, "Host: h:80\r\n").as_deref(), Ok("h:80"));
            assert_eq!(host(version, "Host: h\r\nHOST: h\r\n"), Err(Malformed("two Hosts")));
            for odd in ["", "a b", "a,b", "u@h", "h/", "\u{e9}"] {
                assert_eq!(host(version, &format!("Host: {odd}\r\n")), Err(Malformed("Host")), "{odd:?}");
            }
        }
        assert_eq!(host("1.0", "").as_deref(), Ok(""));
        assert_eq!(host("1.1", ""), Err(Malformed("no Host")));
        assert_eq!(parse("GET http://h/ HTTP/1.1\r\n\r\n").err(), Some(Malformed("no Host")));
        let absolute = parse("GET http://other:1/p?q HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!((absolute.host, absolute.path, absolute.query), ("other:1", "/p", "q"));
        for target in ["/a b", "/\t", "/#", "a", ""] {
            assert!(matches!(line(&format!("GET {target} HTTP/1.1")), Some(Malformed(_))), "{target:?}");
        }
    }

    #[test]
    fn field_names() {
        for field in [": v", "A : v", "A\t: v", "A B: v", "A", "A\u{e9}: v", "A@: v", "(A): v", "A\0: v"] {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
            assert!(matches!(parse(&head), Err(Malformed(_))), "{field:?}");
        }
        let two = parse("GET / HTTP/1.1\r\nHost: h\r\n\r\nA: b\r\n\r\n");
        assert_eq!(two.err(), Some(Malformed("head")));
        let request = parse_bytes(b"GET / HTTP/1.1\r\nHost: h\r\nA: \xff\r\nA: b\r\n\r\n").unwrap();
        assert_eq!((request.header("A"), request.header_count("A")), (None, 2));
        assert_eq!(request.header("host"), Some("h"));
        // As long as the names that frame a message.
        let long = "Date: x\r\nUser-Agent: close\r\nSec-Fetch-Site: x\r\nIf-Modified-Since: x\r\n";
        let head = format!("GET / HTTP/1.1\r\n{long}Host: h\r\n{long}\r\n");
        let request = parse(&head).unwrap();
        assert_eq!((request.host, request.keep_alive), ("h", true));
    }

    #[test]
    fn keep_alive() {
        let cases = [
            ("1.1", "", true),
            ("1.1", "close", false),
            ("1.1", "Keep-Alive, CLOSE", false),
            ("1.1", "closed", true),
            ("1.0", "", false),
            ("1.0", "keep-alive", true),
            ("1.0", "x,Keep-Alive", true),
            ("1.0", "keep-alive, close", false),
        ];
        for (version, connection, stays) in cases {
            let head = format!("GET / HTTP/{version}\r\nHost: h\r\nConnection: {connection}\r\n\r\n");
            assert_eq!(parse(&head).unwrap().keep_alive, stays, "{version} {connection}");
        }
        assert!(!parse("GET / HTTP/1.1\r\nHost: h\r\nConnection: a\r\nConnection: close\r\n\r\n").unwrap().keep_alive);
    }

    #[test]
    fn content_types() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"", None),
            (b"Content-Type: Application/JSON ; charset=utf-8\r\n", Some("Application/JSON")),
            (b"Content-Type:\r\n", Some("")),
            (b"Content-Type: \xff\r\n", Some("")),
        ];
        for (field, media) in cases {
            let head = [b"GET / HTTP/1.1\r\nHost: h\r\n", *field, b"\r\n"].concat();
            assert_eq!(parse_bytes(&head).unwrap().content_type(), *media);
        }
    }

    #[test]
    fn queries() {
        let request =
            parse("GET /?a=1&&b=x%20y+z&b=2&%63=%C3%B1&d&e=%zz%4&f=%ff&g==%26 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let cases = [
            ("a", Some("1")),
            ("b", Some("x y z")),
            ("c", Some("\u{f1}")),
            ("d", Some("")),
            ("e", Some("%zz%4")),
            ("f", Some("\u{fffd}")),
            ("g", Some("=&")),
            ("A", None),
            ("", None),
        ];
        for (name, value) in cases {
            assert_eq!(request.query(name).as_deref(), value, "{name}");
        }
        assert!(matches!(request.query("a"), Some(Cow::Borrowed("1"))));
        assert_eq!(request.query_pairs().count(), 8);
    }
}
