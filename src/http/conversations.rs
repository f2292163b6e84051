//! Owns the tests that play whole conversations against a [`Reader`]: any chunking, any bytes.
//! Never looks inside it. Enter at [`play`].

use proptest::prelude::*;

use super::upgrade;
use super::{BodyLength, Head, Limits, Reader, Refusal, Request, Step};

pub(super) const LIMITS: Limits = Limits { head: 512, target: 64 };
/// For bodies that are kept and for those that are skipped.
pub(super) const BODY_MAX: usize = 64;

/// What a connection would have done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Path, and what [`Step::Head`] said.
    Head(String, BodyLength, bool),
    /// Head and body.
    Request(Vec<u8>, Vec<u8>),
    Skipped,
    Refused(Refusal),
}

/// Reads `input`, cut at `sizes` (what they leave comes as one), and skips what is for `/skip`. Checks what holds at
/// each step.
pub(super) fn play(input: &[u8], sizes: &[usize]) -> Vec<Seen> {
    let (mut reader, mut seen, mut held) = (Reader::default(), Vec::new(), Vec::new());
    let mut rest = input;
    for size in sizes.iter().copied().chain([usize::MAX]) {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        held.extend_from_slice(chunk);
        if !read(&mut reader, &mut held, &mut seen) {
            break;
        }
        assert!(held.len() <= LIMITS.head + BODY_MAX, "waits with {} bytes", held.len());
    }
    seen
}

/// One event of a connection: all that `held` amounts to. False: it closes.
fn read(reader: &mut Reader, held: &mut Vec<u8>, seen: &mut Vec<Seen>) -> bool {
    let (mut start, mut end) = (0, held.len());
    let open = loop {
        let mut len = end - start;
        let step = reader.read(&mut held[start..end], &mut len, &LIMITS);
        assert!(len <= end - start, "the buffer grows");
        end = start + len;
        let bytes = &held[start..end];
        match step {
            Ok(Step::More) => break true,
            Ok(Step::Head { head, expects_continue }) => {
                let (request, body) = (Request::of(&head, bytes, &[]), head.body);
                if request.path == "/skip" {
                    reader.skip(BODY_MAX)
                } else {
                    reader.admit(BODY_MAX)
                }
                seen.push(Seen::Head(request.path.to_owned(), body, expects_continue));
            }
            Ok(Step::Ready { head, body, consumed }) => {
                let head = head.len;
                assert!(head > 0 && head + body <= consumed && consumed <= len && body <= BODY_MAX);
                seen.push(Seen::Request(bytes[..head].to_vec(), bytes[head..head + body].to_vec()));
                start += consumed;
            }
            Ok(Step::Skipped { consumed }) => {
                assert!(consumed <= len);
                seen.push(Seen::Skipped);
                start += consumed;
            }
            Err(refusal) => {
                let again = reader.read(&mut held[start..end], &mut len, &LIMITS);
                assert_eq!(again, Err(refusal), "a refusal is final");
                seen.push(Seen::Refused(refusal));
                break false;
            }
        }
    };
    held.truncate(end);
    held.drain(..start);
    open
}

/// A body and its framing.
fn framed() -> impl Strategy<Value = (String, Vec<u8>)> {
    let chunked = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4).prop_map(|chunks| {
        let mut bytes = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            let extension = ["", ";a=b", ";q=\"\t;\""][i % 3];
            bytes.extend_from_slice(format!("{:0w$X}{extension}\r\n", chunk.len(), w = i + 1).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice([b"0\r\n\r\n".as_slice(), b"00;x\r\nA: b\r\nC:\r\n\r\n"][chunks.len() % 2]);
        ("Transfer-Encoding: Chunked\r\n".to_owned(), bytes)
    });
    let sized = prop::collection::vec(any::<u8>(), 0..=BODY_MAX)
        .prop_map(|body| (format!("content-length:{}\r\n", body.len()), body));
    prop_oneof![Just((String::new(), Vec::new())), sized, chunked]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::collection::vec(
        prop::sample::select(
            &["Expect: 100-continue\r\n", "X-A: \u{f1} b\t\r\n", "Connection: close\r\n", "B:\r\n"][..],
        ),
        0..3,
    );
    let start = prop::sample::select(
        &[
            "GET / HTTP/1.1\r\n",
            "\r\n\r\nPUT /skip HTTP/1.1\r\n",
            "POST http://a/skip HTTP/1.1\r\n",
            "\r\nPOST /a?b=c HTTP/1.1\r\n",
        ][..],
    );
    (start, lines, framed()).prop_map(|(start, lines, (length, body))| {
        [format!("{start}Host: h:80\r\n{}{length}\r\n", lines.concat()).into_bytes(), body].concat()
    })
}

/// A conversation, and how it is cut.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let sizes = prop_oneof![Just(vec![1; 4000]), prop::collection::vec(0..40_usize, 0..60)];
    (prop::collection::vec(request(), 1..5).prop_map(|requests| requests.concat()), sizes)
}

/// Pieces of heads and bodies that parsers have disagreed about.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /skip HTTP/1.1\r\n",
    "GET / HTTP/2.0\r\n",
    "Host: h\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 03\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding",
    " ",
    ":",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\0",
    ",",
    ";",
    "#",
    "0\r\n\r\n",
    "1\r\nx\r\n",
    "ffffffff\r\n",
    "8000000000\r\n",
    "\u{e9}",
    "?%",
    "abc",
];

/// All that is made of a request once it is there; must not panic, whatever the bytes.
fn look(head: &[u8]) {
    let Ok(parsed) = Head::parse(head) else { return };
    let request = Request::of(&parsed, head, head);
    let _ = (request.content_type(), request.query("a"), request.query_pairs().count(), request.terms());
    let _ = (request.header("Host"), request.header_count(""), request.has_token("connection", "close"));
    let _ = (upgrade::check(&request).is_ok(), upgrade::bearer_subprotocol(&request), format!("{request:?}"));
    assert!(request.path.starts_with('/') || request.path == "*");
}

/// The lengths that differently careless parsers would take from a head; `None`: chunked.
fn careless_lengths(head: &str) -> Vec<Option<u64>> {
    let values = |wanted: &str| -> Vec<String> {
        let lines = head.split(['\r', '\n']).filter_map(|line| line.split_once(':'));
        let named = lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| value.trim().to_ascii_lowercase()).collect()
    };
    let number = |text: &str| {
        let digits = text.trim().trim_start_matches('+');
        digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap_or(0)
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let coded = |yes: bool| if yes { None } else { Some(lengths.first().map_or(0, |l| number(l))) };
    vec![
        coded(codings.iter().any(|c| c.contains("chunked"))),
        coded(codings.last().is_some_and(|c| c == "chunked")),
        coded(!codings.is_empty()),
        coded(!codings.is_empty() && lengths.is_empty()),
        if codings.is_empty() { Some(lengths.last().map_or(0, |l| number(l))) } else { None },
        if codings.is_empty() {
            Some(lengths.last().map_or(0, |l| l.rsplit(',').next().map_or(0, number)))
        } else {
            None
        },
    ]
}

/// A header line that has to do with lengths, in all the ways to spell it.
fn length_line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(
        &[
            "Content-Length",
            "content-length",
            "Transfer-Encoding",
            "TRANSFER-ENCODING",
            "X",
            "Content-Length ",
            " Content-Length",
        ][..],
    );
    let value = prop::sample::select(
        &[
            "0",
            "3",
            "03",
            "+3",
            "3,3",
            "3, 4",
            "3 4",
            "",
            "chunked",
            "Chunked",
            "chunked, gzip",
            "gzip",
            "xchunked",
            "identity",
            "0x3",
        ][..],
    );
    let end = prop::sample::select(&["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n "][..]);
    (name, prop::sample::select(&[":", ": ", ":\t"][..]), value, end).prop_map(|(n, c, v, e)| format!("{n}{c}{v}{e}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_chunking_gives_the_same_requests((bytes, sizes) in conversation()) {
        let whole = play(&bytes, &[]);
        prop_assert!(!whole.iter().any(|seen| matches!(seen, Seen::Refused(_))), "{whole:?}");
        prop_assert_eq!(whole, play(&bytes, &sizes));
    }

    #[test]
    fn damaged_conversations_are_read_the_same_at_any_chunking(
        (mut bytes, sizes) in conversation(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n\t :,;0"[usize::from(byte) % 8]),
            }
        }
        prop_assert_eq!(play(&bytes, &[]), play(&bytes, &sizes));
    }

    #[test]
    fn no_pieces_panic_or_loop(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
        sizes in prop::collection::vec(0..9_usize, 0..60),
    ) {
        let bytes = pieces.concat().into_bytes();
        look(&bytes);
        prop_assert_eq!(play(&bytes, &[]), play(&bytes, &sizes));
    }

    #[test]
    fn no_bytes_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        look(&bytes);
        look(&[b"GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Protocol: ", bytes.as_slice(), b"\r\n\r\n"].concat());
        prop_assert_eq!(play(&bytes, &[]), play(&bytes, &vec![1; bytes.len()]));
    }

    #[test]
    fn a_wrong_len_does_not_panic(lens in prop::collection::vec(0..200_usize, 1..20), (bytes, _) in conversation()) {
        let (mut reader, mut buffer) = (Reader::default(), bytes);
        for mut len in lens {
            let before = len;
            let _ = reader.read(&mut buffer, &mut len, &LIMITS);
            prop_assert!(len <= before);
            reader.admit(BODY_MAX);
        }
    }

    #[test]
    fn what_is_accepted_has_one_length_for_everybody(lines in prop::collection::vec(length_line(), 0..4)) {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{}\r\n", lines.concat());
        if let Some(Seen::Head(_, body, _)) = play(head.as_bytes(), &[]).first() {
            let ours = match *body {
                BodyLength::None => Some(0),
                BodyLength::Known(n) => Some(n as u64),
                BodyLength::Chunked => None,
            };
            prop_assert!(careless_lengths(&head).iter().all(|theirs| *theirs == ours), "{head:?} {ours:?}");
        }
    }
}

#[test]
fn a_dribbled_head_costs_a_glance_a_byte() {
    // Were each byte to cost a look at all before it, this would take minutes in a debug build.
    let limits = Limits { head: 1 << 18, target: 64 };
    let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\nX: ".to_vec();
    bytes.resize(limits.head, b'x');
    let mut reader = Reader::default();
    for mut len in 1..limits.head {
        assert_eq!(reader.read(&mut bytes, &mut len, &limits), Ok(Step::More));
    }
    let mut len = limits.head;
    assert_eq!(reader.read(&mut bytes, &mut len, &limits), Err(Refusal::HeadTooLarge));
}
