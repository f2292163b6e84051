//! Owns the question where one request ends and the next begins: bytes to requests, at any chunking, within limits.
//! Never owns a buffer, never takes a body whose head was not admitted. Enter at [`Reader::read`].

use super::Refusal::{self, BodyTooLarge, HeadTooLarge, Malformed, NotSkippable, TargetTooLong};
use super::chunked::{Chunks, Framing, Part, is_text};
use super::request::without_blank_lines;
use super::{Head, Request};
use memchr::memchr2;

/// Bytes of empty lines before a request: some old clients send one after a body (RFC 9112 2.2).
const BLANK_MAX: usize = 8;

/// Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte up to and with the blank line.
    pub head: usize,
    /// The second word of the request line.
    pub target: usize,
}

/// How much follows the head (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    None,
    /// At least 1 byte; a length beyond `usize` is `usize::MAX`.
    Known(usize),
    Chunked,
}

/// What the bytes amount to. Offsets count from the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing complete: call again when there are more bytes.
    More,
    /// `buffer[..head.len]` is a complete head, fit for [`Request::of`](super::Request::of). Judge it, say
    /// [`Reader::admit`] or [`Reader::skip`], and call again; nothing is dropped yet.
    Head { head: Head, expects_continue: bool },
    /// After the head, `buffer[head.len..][..body]` is the decoded body. Drop `consumed` bytes from the front (more than
    /// head and body where a body was chunked) and call again.
    Ready { head: Head, body: usize, consumed: usize },
    /// A refused request is over. Drop `consumed` bytes from the front and call again.
    Skipped { consumed: usize },
}

/// How far the request is that the next bytes belong to: what the peer's time is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No byte of a request yet.
    Idle,
    /// Up to the blank line, and until it is judged.
    Head,
    /// A body is on its way, to be kept or to be skipped.
    Body,
}

/// How far one connection's bytes are understood. Holds none of them.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
}

#[derive(Debug)]
enum State {
    Head(Scan),
    /// A head was shown and is not judged yet.
    Judging {
        head: Head,
        expects_continue: bool,
    },
    /// Body bytes come. New ones begin at `at`; before it are, if they are kept, the head and the body so far.
    Body {
        head: Head,
        at: usize,
        framing: Framing,
        fate: Fate,
    },
    Broken(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Scan::default())
    }
}

impl Reader {
    /// `buffer[..*len]` is all that came and was not dropped yet, the same bytes as at the last call and perhaps more.
    /// A body is decoded in place and a skipped one forgotten as it comes, so `*len` may shrink. Each byte is looked at
    /// once, but for a complete head. A refusal is final: all later calls give it again.
    pub fn read(&mut self, buffer: &mut [u8], len: &mut usize, limits: &Limits) -> Result<Step, Refusal> {
        let step = match &mut self.state {
            State::Head(scan) => match scan.run(buffer.get(..*len).unwrap_or(buffer), limits) {
                Ok(Some(judging)) => {
                    self.state = judging;
                    return self.read(buffer, len, limits);
                }
                Ok(None) => Ok(Step::More),
                Err(refusal) => Err(refusal),
            },
            State::Judging { head, expects_continue } => {
                Ok(Step::Head { head: *head, expects_continue: *expects_continue })
            }
            State::Body { head, at, framing, fate } => unframe(head, at, framing, *fate, buffer, len),
            State::Broken(refusal) => Err(*refusal),
        };
        match step {
            Ok(Step::Ready { .. } | Step::Skipped { .. }) => self.state = State::default(),
            Ok(Step::More | Step::Head { .. }) => {}
            Err(refusal) => self.state = State::Broken(refusal),
        }
        step
    }

    /// The request that was shown is welcome, and so are up to `body_max` bytes of body: more is
    /// [`Refusal::BodyTooLarge`] from the next [`Self::read`], before they came. Without effect if none was shown.
    pub fn admit(&mut self, body_max: usize) {
        self.judge(body_max, Fate::Keep, BodyTooLarge);
    }

    /// The request that was shown is answered by the caller already; its body is thrown away as it comes. One beyond
    /// `skip_max` bytes is [`Refusal::NotSkippable`]. A peer that expects a `100 Continue` and gets a refusal may or
    /// may not send the body: close instead. Without effect if no request was shown.
    pub fn skip(&mut self, skip_max: usize) {
        self.judge(skip_max, Fate::Drop, NotSkippable);
    }

    fn judge(&mut self, body_max: usize, fate: Fate, too_large: Refusal) {
        let State::Judging { head, .. } = self.state else { return };
        let framing = match head.body {
            BodyLength::None => Framing::Sized(0),
            BodyLength::Known(size) if size <= body_max => Framing::Sized(size),
            BodyLength::Known(_) => {
                self.state = State::Broken(too_large);
                return;
            }
            BodyLength::Chunked => Framing::Chunked(Chunks::new(body_max)),
        };
        self.state = State::Body { head, at: head.len, framing, fate };
    }

    /// Of the request whose body is on its way, if that is welcome: it still stands at the front of the buffer.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        match self.state {
            State::Body { head, fate: Fate::Keep, .. } => Some(head),
            _ => None,
        }
    }

    #[must_use]
    pub fn stage(&self) -> Stage {
        match &self.state {
            State::Head(Scan { at: Line::Blank | Line::BlankCr, .. }) => Stage::Idle,
            State::Head(_) | State::Judging { .. } | State::Broken(_) => Stage::Head,
            State::Body { .. } => Stage::Body,
        }
    }
}

/// Takes what came of a body: moves it up against what is kept, or forgets it.
fn unframe(
    head: &Head,
    at: &mut usize,
    framing: &mut Framing,
    fate: Fate,
    buffer: &mut [u8],
    len: &mut usize,
) -> Result<Step, Refusal> {
    let end = (*len).min(buffer.len());
    let mut from = *at;
    let mut to = if fate == Fate::Keep { *at } else { 0 };
    loop {
        let part = framing.next(buffer.get(from..end).unwrap_or_default());
        match part.map_err(|refusal| if fate == Fate::Keep { refusal } else { NotSkippable })? {
            Part::Body(n) => {
                if fate == Fate::Keep {
                    buffer.copy_within(from..from + n, to);
                    to += n;
                }
                from += n;
            }
            Part::Frame => from += 1,
            Part::Over if fate == Fate::Keep => {
                return Ok(Step::Ready { head: *head, body: to - head.len, consumed: from });
            }
            Part::Over => return Ok(Step::Skipped { consumed: from }),
            Part::More => break,
        }
    }
    *at = to;
    *len = to.min(*len);
    Ok(Step::More)
}

/// Looks for the end of a head, each byte once, and is stricter about lines than httparse: no bare CR or LF, no
/// control bytes, no folded line (RFC 9112 2.2, 5.2).
#[derive(Debug, Default)]
struct Scan {
    at: Line,
    seen: usize,
}

/// What the last byte was.
#[derive(Clone, Copy, Debug, Default)]
enum Line {
    /// Nothing, or empty lines before the request.
    #[default]
    Blank,
    BlankCr,
    Text,
    Cr,
    Lf,
    /// The CR of the blank line.
    EndCr,
}

impl Scan {
    fn run(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<State>, Refusal> {
        let full = bytes.len() >= limits.head;
        let bytes = if full { bytes.get(..limits.head).unwrap_or_default() } else { bytes };
        while let [byte, ..] = bytes.get(self.seen..).unwrap_or_default() {
            self.seen += 1;
            self.at = match (self.at, *byte) {
                (Line::Text, byte) if is_text(byte) => {
                    self.seen += text_run(bytes.get(self.seen..).unwrap_or_default());
                    Line::Text
                }
                (Line::Text, b'\r') => Line::Cr,
                (Line::Cr, b'\n') => Line::Lf,
                (Line::Lf, b'\r') => Line::EndCr,
                (Line::EndCr, b'\n') => return judging(bytes.get(..self.seen).unwrap_or_default(), limits).map(Some),
                (Line::Blank, b'\r') if self.seen < BLANK_MAX => Line::BlankCr,
                (Line::BlankCr, b'\n') => Line::Blank,
                (Line::Lf, b' ' | b'\t') => return Err(Malformed("folded line")),
                (Line::Blank | Line::Lf, byte) if is_text(byte) => Line::Text,
                (Line::Cr | Line::EndCr | Line::BlankCr, _) => return Err(Malformed("bare CR")),
                (_, b'\n') => return Err(Malformed("bare LF")),
                (_, b'\r') => return Err(Malformed("empty lines")),
                _ => return Err(Malformed("control byte")),
            };
        }
        match full {
            false => Ok(None),
            true if target_len(bytes) > limits.target => Err(TargetTooLong),
            true => Err(HeadTooLarge),
        }
    }
}

/// Leading bytes of ordinary text. In blocks, which the compiler turns into vector code: this is most of a head.
fn text_run(bytes: &[u8]) -> usize {
    let is_all_text = |block: &&[u8]| block.iter().fold(true, |text, &byte| text & is_text(byte));
    let blocks = bytes.chunks_exact(16).take_while(is_all_text).count() * 16;
    let rest = bytes.get(blocks..).unwrap_or_default();
    blocks + rest.iter().take_while(|&&byte| is_text(byte)).count()
}

/// The state after a complete head.
fn judging(head: &[u8], limits: &Limits) -> Result<State, Refusal> {
    if target_len(head) > limits.target {
        return Err(TargetTooLong);
    }
    let parsed = Head::parse(head)?;
    let asks = |request: Request<'_>| request.http11 && request.has_token("expect", "100-continue");
    let expects_continue = parsed.body != BodyLength::None && asks(Request::of(&parsed, head, &[]));
    Ok(State::Judging { head: parsed, expects_continue })
}

/// Bytes of the second word, as far as it came.
fn target_len(head: &[u8]) -> usize {
    let head = without_blank_lines(head);
    let method = memchr2(b' ', b'\r', head).filter(|&end| head.get(end) == Some(&b' '));
    let target = method.and_then(|end| head.get(end + 1..)).unwrap_or_default();
    memchr2(b' ', b'\r', target).unwrap_or(target.len())
}

#[cfg(test)]
mod tests {
    use super::super::conversations::{BODY_MAX, LIMITS, Seen, play};
    use super::*;

    /// The first refusal, as one chunk and byte by byte.
    fn refused(bytes: &[u8]) -> Option<Refusal> {
        let whole = play(bytes, &[]);
        assert_eq!(whole, play(bytes, &vec![1; bytes.len()]));
        whole.into_iter().find_map(|seen| if let Seen::Refused(refusal) = seen { Some(refusal) } else { None })
    }

    /// A request with these header lines (each ends in CRLF) beside Host.
    fn with(lines: &str, rest: &str) -> Vec<u8> {
        format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n{rest}").into_bytes()
    }

    fn body_of(bytes: &[u8]) -> Vec<u8> {
        match play(bytes, &[]).as_slice() {
            [Seen::Head(..), Seen::Request(_, body)] => body.clone(),
            other => panic!("{other:?} from {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn lines_are_strict() {
        let cases: &[(&str, &str)] = &[
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", "bare LF"),
            ("GET / HTTP/1.1\r\nHost: h\n\r\n", "bare LF"),
            ("GET / HTTP/1.1\r\nHost: h\r\n\n", "bare LF"),
            ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "bare LF"),
            ("GET / HTTP/1.1\rHost: h\r\n\r\n", "bare CR"),
            ("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", "bare CR"),
            ("GET / HTTP/1.1\r\nHost: h\r\n\rX: y\r\n\r\n", "bare CR"),
            ("\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", "bare CR"),
            ("GET / HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n", "folded line"),
            ("GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\tz\r\n\r\n", "folded line"),
            ("GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n", "control byte"),
            ("GET / HTTP/1.1\r\nHost: h\r\nX: \x0b\r\n\r\n", "control byte"),
            ("GET / HTTP/1.1\r\nHost: h\r\nX: \x7f\r\n\r\n", "control byte"),
            ("\x16\x03\x01", "control byte"),
            ("\r\n\r\n\r\n\r\n\r\nGET", "empty lines"),
        ];
        for (bytes, what) in cases {
            assert_eq!(refused(bytes.as_bytes()), Some(Malformed(what)), "{bytes:?}");
        }
        assert_eq!(refused(b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nX: \xff\t \r\n\r\n"), None);
    }

    #[test]
    fn a_length_can_be_read_in_one_way_only() {
        let chunked = "Transfer-Encoding: chunked\r\n";
        let cases: &[(&str, &str)] = &[
            ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "Content-Length with Transfer-Encoding"),
            ("Transfer-Encoding: x\r\nContent-Length: 0\r\n", "Content-Length with Transfer-Encoding"),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", "two Content-Lengths"),
            ("Content-Length: 1\r\ncontent-length: 2\r\n", "two Content-Lengths"),
            ("Content-Length: 5, 5\r\n", "Content-Length"),
            ("Content-Length: +1\r\n", "Content-Length"),
            ("Content-Length: -1\r\n", "Content-Length"),
            ("Content-Length: 01\r\n", "Content-Length"),
            ("Content-Length: 00\r\n", "Content-Length"),
            ("Content-Length: 0x1\r\n", "Content-Length"),
            ("Content-Length: 1 1\r\n", "Content-Length"),
            ("Content-Length: 1;\r\n", "Content-Length"),
            ("Content-Length: \r\n", "Content-Length"),
            ("Content-Length:\r\n", "Content-Length"),
            ("Content-Length: \u{661}\r\n", "Content-Length"),
            ("Transfer-Encoding: \r\n", "Transfer-Encoding"),
            ("Transfer-Encoding: identity\r\n", "Transfer-Encoding"),
            ("Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding"),
            ("Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding"),
            ("Transfer-Encoding: chunked,\r\n", "Transfer-Encoding"),
            ("Transfer-Encoding: xchunked\r\n", "Transfer-Encoding"),
            ("Transfer-Encoding: \"chunked\"\r\n", "Transfer-Encoding"),
            ("Transfer-Encoding: chunked\u{a0}\r\n", "Transfer-Encoding"),
            (&[chunked, chunked].concat(), "two Transfer-Encodings"),
            ("Content-Length : 1\r\n", "header name"),
            ("Transfer-Encoding\t: chunked\r\n", "header name"),
        ];
        for (lines, what) in cases {
            assert_eq!(refused(&with(lines, "0\r\n\r\n")), Some(Malformed(what)), "{lines:?}");
        }
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(refused(old), Some(Malformed("Transfer-Encoding")));
        assert_eq!(body_of(&with("Transfer-Encoding: \t CHUNKED \r\n", "2\r\nhi\r\n0\r\n\r\n")), b"hi");
        assert_eq!(body_of(&with("Content-Length:\t2 \r\n", "hi")), b"hi");
        assert_eq!(body_of(&with("Content-Length: 0\r\n", "")), b"");
        assert_eq!(body_of(b"GET / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"), b"hi");
    }

    #[test]
    fn chunks() {
        let coded = |rest| with("Transfer-Encoding: chunked\r\n", rest);
        for rest in [
            "5\r\nhello\r\n0\r\n\r\n",
            "00000002\r\nhe\r\n3;a=b;c=\"\u{e9} d\"\r\nllo\r\n000;x\r\n\r\n",
            "1\r\nh\r\n4\r\nello\r\n0\r\nDigest: x=y\r\nTransfer-Encoding:\r\n\r\n",
        ] {
            assert_eq!(body_of(&coded(rest)), b"hello", "{rest:?}");
        }
        let cases: &[(&str, &str)] = &[
            ("\r\n", "chunk size"),
            (";x\r\n", "chunk size"),
            ("g\r\n", "chunk size"),
            ("0x5\r\nhello", "chunk size"),
            ("+5\r\nhello", "chunk size"),
            ("-5\r\nhello", "chunk size"),
            (" 5\r\nhello", "chunk size"),
            ("5 \r\nhello", "chunk size"),
            ("000000005\r\nhello", "chunk size"),
            ("100000000\r\nhello", "chunk size"),
            ("5\nhello", "chunk size"),
            ("5\r\rhello", "chunk framing"),
            ("5;a\nhello", "chunk framing"),
            ("5;a\r\rhello", "chunk framing"),
            ("5;a\0\r\nhello", "chunk framing"),
            ("5\r\nhelloX", "chunk framing"),
            ("5\r\nhello\n", "chunk framing"),
            ("5\r\nhello\rX", "chunk framing"),
            ("0\r\nX y: z\r\n\r\n", "chunk framing"),
            ("0\r\n: z\r\n\r\n", "chunk framing"),
            ("0\r\nX: z\n\r\n", "chunk framing"),
            ("0\r\nX: z\r\n folded\r\n", "chunk framing"),
            ("0\r\nX: z\r\n\n", "chunk framing"),
        ];
        for (rest, what) in cases {
            assert_eq!(refused(&coded(rest)), Some(Malformed(what)), "{rest:?}");
        }
    }

    #[test]
    fn framing_is_bounded() {
        let coded = |rest: &str| refused(&with("Transfer-Encoding: chunked\r\n", rest));
        let end = "0\r\n\r\n";
        assert_eq!(coded(&format!("1;{}\r\nx\r\n{end}", "a".repeat(253))), None);
        assert_eq!(coded(&format!("1;{}\r\nx\r\n{end}", "a".repeat(254))), Some(Malformed("chunk line too long")));
        for unit in ["a", "A:\r\n"] {
            let trailers = |bytes: usize| format!("A:{}", unit.repeat(bytes / unit.len()));
            // Besides: `A:`, its CRLF, and the CR of the end; the LF is free.
            assert_eq!(coded(&format!("0\r\n{}\r\n\r\n", trailers(4096 - 5))), None);
            assert_eq!(coded(&format!("0\r\n{}", trailers(4096))), Some(Malformed("trailers too long")));
        }
        let named = |bytes: usize| coded(&format!("0\r\n{}", "a".repeat(bytes)));
        assert_eq!((named(4096), named(4097)), (None, Some(Malformed("trailers too long"))));
        let padded = format!("1;{}\r\nx\r\n", "a".repeat(200));
        assert_eq!(coded(&padded.repeat(64)), Some(Malformed("chunk framing too long")));
        assert_eq!(coded(&format!("{}{end}", "00000001\r\nx\r\n".repeat(BODY_MAX))), None);
    }

    #[test]
    fn what_is_too_long_has_its_own_status() {
        let fits = |path: usize, head: usize| {
            let mut bytes = format!("GET /{} HTTP/1.1\r\nHost: h\r\nX: ", "a".repeat(path - 1)).into_bytes();
            bytes.resize(head - 4, b'x');
            [bytes.as_slice(), b"\r\n\r\n"].concat()
        };
        assert_eq!(refused(&fits(LIMITS.target, LIMITS.head)), None);
        assert_eq!(refused(&fits(LIMITS.target + 1, 200)), Some(TargetTooLong));
        assert_eq!(refused(&fits(LIMITS.target + 1, LIMITS.head + 1)), Some(TargetTooLong));
        assert_eq!(refused(&fits(LIMITS.head + 9, LIMITS.head + 99)), Some(TargetTooLong));
        assert_eq!(refused(&fits(9, LIMITS.head + 1)), Some(HeadTooLarge));
        assert_eq!(refused(&fits(LIMITS.target, LIMITS.head + 1)), Some(HeadTooLarge));
        assert_eq!(refused(&vec![b'A'; LIMITS.head]), Some(HeadTooLarge));
        assert_eq!(refused(&with(&"A:\r\n".repeat(99), "")), None);
        assert_eq!(refused(&with(&"A:\r\n".repeat(100), "")), Some(HeadTooLarge));
        for length in ["65", "4294967297", "18446744073709551617", "99999999999999999999999999999999"] {
            assert_eq!(refused(&with(&format!("Content-Length: {length}\r\n"), "x")), Some(BodyTooLarge), "{length}");
        }
        for chunks in ["41\r\n", "FFFFFFFF\r\n", "1\r\nx\r\n40\r\n"] {
            assert_eq!(refused(&with("Transfer-Encoding: chunked\r\n", chunks)), Some(BodyTooLarge), "{chunks:?}");
        }
    }

    #[test]
    fn a_head_waits_to_be_judged() {
        let mut buffer = with("Expect: 100-Continue\r\nContent-Length: 2\r\n", "hi");
        let (head, mut len) = (buffer.len() - 2, buffer.len());
        let mut reader = Reader::default();
        reader.admit(9); // nobody asked
        assert_eq!(reader.read(&mut b"\r".to_vec(), &mut 1, &LIMITS), Ok(Step::More));
        assert_eq!(reader.stage(), Stage::Idle);
        let mut reader = Reader::default();
        assert_eq!((reader.read(&mut buffer, &mut 0, &LIMITS), reader.stage()), (Ok(Step::More), Stage::Idle));
        assert_eq!((reader.read(&mut buffer, &mut 3, &LIMITS), reader.stage()), (Ok(Step::More), Stage::Head));
        let parsed = Head::parse(&buffer[..head]).unwrap();
        let shown = Ok(Step::Head { head: parsed, expects_continue: true });
        assert_eq!(reader.read(&mut buffer, &mut len, &LIMITS), shown);
        assert_eq!((reader.read(&mut buffer, &mut len, &LIMITS), reader.stage()), (shown, Stage::Head));
        reader.admit(2);
        assert_eq!((reader.read(&mut buffer, &mut (head + 1), &LIMITS), reader.stage()), (Ok(Step::More), Stage::Body));
        let ready = Ok(Step::Ready { head: parsed, body: 2, consumed: head + 2 });
        assert_eq!((reader.read(&mut buffer, &mut len, &LIMITS), reader.stage()), (ready, Stage::Idle));
    }

    #[test]
    fn who_expects_a_continue() {
        let expects = |version: &str, lines: &str| {
            let head = format!("PUT / HTTP/{version}\r\nHost: h\r\n{lines}\r\n");
            matches!(play(head.as_bytes(), &[]).first(), Some(Seen::Head(_, _, true)))
        };
        let expect = "Expect: 100-continue\r\n";
        assert!(expects("1.1", &format!("{expect}Content-Length: 2\r\n")));
        assert!(expects("1.1", &format!("{expect}Transfer-Encoding: chunked\r\n")));
        assert!(!expects("1.1", "Content-Length: 2\r\n"));
        assert!(!expects("1.1", expect)); // for what?
        assert!(!expects("1.0", &format!("{expect}Content-Length: 2\r\n"))); // RFC 9110 10.1.1
    }

    #[test]
    fn a_refused_body_is_skipped_or_ends_the_connection() {
        let skip = |lines: &str, rest: &str| {
            let text = format!("POST /skip HTTP/1.1\r\nHost: h\r\n{lines}\r\n{rest}GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            let whole = play(text.as_bytes(), &[]);
            assert_eq!(whole, play(text.as_bytes(), &vec![1; text.len()]));
            whole
        };
        for (lines, rest) in [
            ("", ""),
            ("Content-Length: 5\r\n", "hello"),
            ("Transfer-Encoding: chunked\r\n", "3\r\nhel\r\n2;x\r\nlo\r\n0\r\nA: b\r\n\r\n"),
        ] {
            assert!(matches!(skip(lines, rest).as_slice(), [_, Seen::Skipped, _, Seen::Request(..)]), "{lines:?}");
        }
        for (lines, rest) in [
            ("Content-Length: 65\r\n", ""),
            ("Transfer-Encoding: chunked\r\n", "41\r\n"),
            ("Transfer-Encoding: chunked\r\n", "oops"),
        ] {
            assert!(matches!(skip(lines, rest).as_slice(), [_, Seen::Refused(NotSkippable)]), "{lines:?}");
        }
        assert_eq!(NotSkippable.status(), None);
    }

    #[test]
    fn a_reader_is_small() {
        assert!(size_of::<Reader>() <= 128, "{}", size_of::<Reader>());
    }
}
