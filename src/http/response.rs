//! Owns how an answer is written. Never lets a value end its line: a response cannot be split.
//! Enter at [`Response::new`], leave by [`Response::encode`].

use std::borrow::Cow;
use std::io::Write;

/// The interim answer to `Expect: 100-continue` (RFC 9110 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What an answer has to heed of its request; see [`Request::terms`](super::Request::terms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Else HTTP/1.0, where staying open must be said.
    pub http11: bool,
    /// `HEAD`: all but the body.
    pub head_only: bool,
    pub keep_alive: bool,
}

impl Terms {
    /// For an answer to bytes that were no request.
    pub const CLOSE: Self = Self { http11: true, head_only: false, keep_alive: false };
}

/// An answer, whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
    /// The connection ends after this answer, whatever the peer would like.
    pub close: bool,
}

impl Response {
    /// Without fields, without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Cow::Borrowed(&[]), close: false }
    }

    /// One more field. Control bytes are taken out of `value`. Not for what [`Self::encode`] writes itself: `Date`,
    /// `Connection`, `Content-Length`.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(name.bytes().all(super::chunked::is_token) && !name.is_empty(), "{name:?}");
        let mut value = value.into();
        if value.contains(|c: char| c.is_control()) {
            value.to_mut().retain(|c| !c.is_control());
        }
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        self.body = body.into();
        self.header("Content-Type", content_type)
    }

    /// `Content-Type` was given as a header.
    #[must_use]
    pub fn typed_body(mut self, body: Vec<u8>) -> Self {
        self.body = body.into();
        self
    }

    /// `json`: a complete document in UTF-8.
    #[must_use]
    pub fn json_body(self, json: Vec<u8>) -> Self {
        self.body("application/json; charset=utf-8", json)
    }

    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Whether the connection ends after this answer.
    #[must_use]
    pub fn closes(&self, terms: Terms) -> bool {
        self.close || !terms.keep_alive
    }

    /// Appends the answer to `out`. `date`: of [`http_date`], best made once a second.
    pub fn encode(&self, out: &mut Vec<u8>, date: &str, terms: Terms) {
        self.encode_head(out, date, terms);
        out.extend_from_slice(self.body_sent(terms));
    }

    /// Appends all that stands before the body.
    pub fn encode_head(&self, out: &mut Vec<u8>, date: &str, terms: Terms) {
        let own = if matches!(self.body, Cow::Owned(_)) { self.body.len() } else { 0 };
        out.reserve(512 + own);
        write(out, format_args!("HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason(self.status)));
        for (name, value) in &self.headers {
            write(out, format_args!("{name}: {value}\r\n"));
        }
        if self.closes(terms) {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if !terms.http11 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        if !self.is_bodiless() {
            write(out, format_args!("Content-Length: {}\r\n", self.body.len()));
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The body, where these terms let it be sent.
    #[must_use]
    pub fn body_sent(&self, terms: Terms) -> &Cow<'static, [u8]> {
        const NOTHING: &Cow<'static, [u8]> = &Cow::Borrowed(&[]);
        if self.is_bodiless() || terms.head_only { NOTHING } else { &self.body }
    }

    /// RFC 9110 6.4.1, 8.6: these end with their head, and a length would only mislead.
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }
}

/// Appends formatted text.
pub(super) fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "a Vec takes all");
}

/// The phrase beside a status that this server gives (RFC 9110 15); the empty one for any other.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`: the IMF-fixdate of RFC 9110 5.6.7, from milliseconds since 1970.
#[must_use]
pub fn http_date(wall_ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(wall_ms).unwrap_or_default();
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const KEEP: Terms = Terms { http11: true, head_only: false, keep_alive: true };

    fn text(response: &Response, terms: Terms) -> String {
        let mut out = Vec::new();
        response.encode(&mut out, DATE, terms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_on_the_wire() {
        let ok = Response::new(200).header("Allow", "GET").json_body(b"{}".to_vec());
        assert_eq!(
            text(&ok, KEEP),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nAllow: GET\r\n\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}"
        );
        let head = text(&ok, Terms { head_only: true, ..KEEP });
        assert!(head.ends_with("Content-Length: 2\r\n\r\n"), "{head}");
    }

    #[test]
    fn connection_is_said_where_it_is_not_the_default() {
        let ok = Response::new(200);
        let old = Terms { http11: false, ..KEEP };
        assert!(!text(&ok, KEEP).contains("Connection"));
        assert!(text(&ok, old).contains("\r\nConnection: keep-alive\r\n"));
        assert!(text(&ok, Terms::CLOSE).contains("\r\nConnection: close\r\n"));
        assert!(text(&Response::new(400).json_body(b"{}".to_vec()), Terms::CLOSE).ends_with("\r\n\r\n{}"));
        let closing = ok.clone().closing();
        assert!(closing.closes(KEEP) && !ok.closes(KEEP) && ok.closes(Terms::CLOSE));
        assert!(text(&closing, KEEP).contains("\r\nConnection: close\r\n"));
        assert!(text(&closing, old).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn some_statuses_have_no_body_and_no_length() {
        for status in [101, 204, 304] {
            let answer = text(&Response::new(status).json_body(b"x".to_vec()), KEEP);
            assert!(answer.ends_with("\r\n\r\n") && !answer.contains("Length"), "{answer}");
        }
        assert!(text(&Response::new(404), KEEP).ends_with("\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn a_value_cannot_split_the_response() {
        let split = Response::new(200).header("X-A", "a\r\nSet-Cookie: b\0\u{85}\u{7f}\r\n\r\nñ".to_owned());
        let answer = text(&split, KEEP);
        assert!(answer.contains("\r\nX-A: aSet-Cookie: bñ\r\n"), "{answer:?}");
        assert_eq!(answer.matches("\r\n\r\n").count(), 1);
    }

    #[test]
    fn every_status_in_use_has_its_phrase() {
        let used = [
            100, 101, 200, 201, 204, 304, 400, 401, 403, 404, 405, 408, 413, 414, 415, 422, 426, 429, 431, 500, 503,
            505,
        ];
        assert!(used.iter().all(|&status| !reason(status).is_empty()));
        assert!(text(&Response::new(299), KEEP).starts_with("HTTP/1.1 299 \r\n"));
        assert!(CONTINUE.starts_with(format!("HTTP/1.1 100 {}\r\n", reason(100)).as_bytes()));
    }

    #[test]
    fn dates_are_imf_fixdates() {
        assert_eq!(http_date(784_111_777_999), DATE);
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(1_709_164_799_000), "Wed, 28 Feb 2024 23:59:59 GMT");
        assert_eq!(http_date(i64::MAX), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
