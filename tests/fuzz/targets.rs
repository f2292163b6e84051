//! Owns what is tried with any bytes: each function takes some and panics where something does not hold. They run for
//! a moment in `cargo test` (`main.rs`) and for as long as you like under cargo-fuzz (`fuzz_targets`).
//! Enter at [`TARGETS`].

use habittod::api::message;
use habittod::auth::Verifier;
use habittod::config::Config;
use habittod::http::{self, BodyLength, Reader, Refusal, Request, Step};
use habittod::websocket::{self, Event, Fault, Session};
use std::fs;
use std::path::Path;

pub(crate) type Target = fn(&[u8]);

/// By the name of their corpus.
pub(crate) const TARGETS: [(&str, Target); 5] = [
    ("requests", requests),
    ("frames", frames),
    ("messages", messages),
    ("tokens", tokens),
    ("configuration", configuration),
];

const HTTP: http::Limits = http::Limits { head: 2_048, target: 256 };
const BODY_MAX: usize = 4_096;
const MESSAGE: websocket::Limits = websocket::Limits { message: 1_024 };

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Head(String, BodyLength),
    Whole(Vec<u8>, Vec<u8>),
    Refused(Refusal),
}

/// Heads and bodies, sized and chunked. The same at any chunking, within the limits; and what was taken for a body is
/// what a plain reading of its framing gives.
pub(crate) fn requests(bytes: &[u8]) {
    let whole = read_requests(bytes, usize::MAX);
    for size in [1, 7] {
        assert_eq!(read_requests(bytes, size), whole, "in pieces of {size}");
    }
    let mut rest = bytes;
    for seen in &whole {
        let Seen::Whole(head, body) = seen else { continue };
        // The head stands in what came, and its body behind it.
        let place = rest.windows(head.len()).position(|window| window == head).expect("a head that came");
        let behind = &rest[place + head.len()..];
        let (plain, used) = plain_body(head, behind).expect("framing that was accepted");
        assert_eq!(&plain, body, "the body that others would see");
        rest = &behind[used..];
    }
}

fn read_requests(bytes: &[u8], size: usize) -> Vec<Seen> {
    let (mut reader, mut held, mut seen) = (Reader::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.min(bytes.len().max(1))) {
        held.extend_from_slice(piece);
        loop {
            let mut len = held.len();
            let step = reader.read(&mut held, &mut len, &HTTP);
            assert!(len <= held.len(), "the buffer grows");
            held.truncate(len);
            match step {
                Ok(Step::More) => break,
                Ok(Step::Head { head, .. }) => {
                    let request = Request::of(&head, &held[..head.len], &[]);
                    assert!(request.path.starts_with('/') || request.path == "*");
                    let _ = (request.content_type(), request.query_pairs().count(), request.header("host"));
                    seen.push(Seen::Head(request.path.to_owned(), head.body));
                    reader.admit(BODY_MAX);
                }
                Ok(Step::Ready { head, body, consumed }) => {
                    assert!(body <= BODY_MAX && head.len + body <= consumed);
                    seen.push(Seen::Whole(held[..head.len].to_vec(), held[head.len..head.len + body].to_vec()));
                    held.drain(..consumed);
                }
                Ok(Step::Skipped { .. }) => panic!("nothing is skipped here"),
                Err(refusal) => {
                    seen.push(Seen::Refused(refusal));
                    return seen;
                }
            }
        }
        assert!(held.len() <= HTTP.head + BODY_MAX + size.min(bytes.len()), "{} bytes are held", held.len());
    }
    seen
}

/// A body as a simple reader, of whole bytes and strict, takes it: and how many bytes it lay in.
fn plain_body(head: &[u8], bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let fields = |wanted: &str| -> Vec<String> {
        let lines = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let named = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| value.trim_matches([' ', '\t']).to_owned()).collect()
    };
    match (fields("content-length").as_slice(), fields("transfer-encoding").as_slice()) {
        ([], []) => Some((Vec::new(), 0)),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length = length.parse().ok()?;
            Some((bytes.get(..length)?.to_vec(), length))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => plain_chunks(bytes),
        _ => None,
    }
}

fn plain_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    let line = |at: usize| bytes[at..].windows(2).position(|two| two == b"\r\n").map(|end| &bytes[at..at + end]);
    loop {
        let size_line = line(at)?;
        at += size_line.len() + 2;
        let digits = size_line.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            loop {
                let trailer = line(at)?;
                at += trailer.len() + 2;
                if trailer.is_empty() {
                    return Some((body, at));
                }
            }
        }
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size;
        bytes.get(at..at + 2).filter(|end| *end == b"\r\n")?;
        at += 2;
    }
}

/// Frames of a client: the same messages and the same fault at any chunking, within the limit.
pub(crate) fn frames(bytes: &[u8]) {
    let whole = read_frames(bytes, usize::MAX);
    for size in [1, 7] {
        assert_eq!(read_frames(bytes, size), whole, "in pieces of {size}");
    }
}

fn read_frames(bytes: &[u8], size: usize) -> (Vec<String>, Option<Fault>) {
    let (mut session, mut message, mut held, mut said) = (Session::default(), Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.min(bytes.len().max(1))) {
        held.extend_from_slice(piece);
        loop {
            let used = match session.read(&mut held, &mut message, &MESSAGE) {
                Ok((0, None)) => break,
                Ok((used, event)) => {
                    if let Some(Event::Text(text)) = &event {
                        assert!(text.len() <= MESSAGE.message);
                    }
                    said.extend(event.map(|event| format!("{event:?}")));
                    used
                }
                Err(fault) => return (said, Some(fault)),
            };
            held.drain(..used);
            if held.is_empty() {
                break;
            }
        }
        assert!(message.len() <= MESSAGE.message + 4, "{} bytes of a message are held", message.len());
    }
    (said, None)
}

/// Texts of a socket; what is understood is what serde_json reads, too.
pub(crate) fn messages(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if message::parse(text).is_ok() {
        let value: serde_json::Value = serde_json::from_str(text).expect("a message that was understood");
        assert!(value["type"].is_string());
    }
}

/// Tokens: nothing but what our key signed is ever good, and no bytes here were.
pub(crate) fn tokens(bytes: &[u8]) {
    let verifier = Verifier::from_secret(b"a secret that no corpus was signed with").expect("long enough");
    let Ok(text) = str::from_utf8(bytes) else { return };
    for now_ms in [0, 1_700_000_000_000, i64::MAX] {
        assert!(verifier.verify(text, now_ms).is_err() && verifier.verify_refresh(text, now_ms).is_err());
    }
}

/// Files: understood or told what is wrong, on at least one line.
pub(crate) fn configuration(bytes: &[u8]) {
    // In shared memory where there is such a thing: a million files wear out a disk.
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let file = folder.join(format!("habittod-fuzz-{}.toml", std::process::id()));
    fs::write(&file, bytes).expect("a temporary folder");
    if let Err(mistakes) = Config::load(Some(&file), []) {
        assert!(!mistakes.to_string().is_empty());
    }
    // One that stays is the next one's to overwrite.
    let _ = fs::remove_file(&file);
}
