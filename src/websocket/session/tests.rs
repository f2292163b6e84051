use super::*;
use proptest::{collection::vec, prelude::*, sample::select};
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

const LIMITS: Limits = Limits { message: 200 };
const FIN: u8 = 0x80;
const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client's frame, masked. `first` is the header's first byte: FIN, reserved bits, opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload, [0x37, 0xfa, 0x21, 0x3d], Form::Shortest)
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Shortest,
    Bits16,
    Bits64,
}

fn header(first: u8, length: u64, form: Form) -> Vec<u8> {
    let mut out = vec![first];
    match form {
        Form::Shortest if length < 126 => out.push(0x80 | length as u8),
        Form::Shortest if length > 0xffff => return header(first, length, Form::Bits64),
        Form::Shortest | Form::Bits16 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        Form::Bits64 => {
            out.push(0x80 | 127);
            out.extend(length.to_be_bytes());
        }
    }
    out
}

fn masked(first: u8, payload: &[u8], mask: [u8; 4], form: Form) -> Vec<u8> {
    let mut out = header(first, payload.len() as u64, form);
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.into()),
            Event::Binary(bytes) => Self::Binary(bytes.into()),
            Event::Ping(bytes) => Self::Ping(bytes.into()),
            Event::Pong(bytes) => Self::Pong(bytes.into()),
            Event::Close { code, reason } => Self::Close(code, reason.into()),
        }
    }
}

/// A connection as the hub has one: it owns nothing between two arrivals but what is half done.
#[derive(Default)]
struct Connection {
    session: Session,
    leftover: Vec<u8>,
    message: Vec<u8>,
    said: Vec<Said>,
    fault: Option<Fault>,
}

impl Connection {
    fn receive(&mut self, arrived: &[u8]) {
        let mut input = [&std::mem::take(&mut self.leftover), arrived].concat();
        let mut at = 0;
        loop {
            match self.session.read(&mut input[at..], &mut self.message, &LIMITS) {
                Ok((0, None)) => break,
                Ok((used, event)) => {
                    at += used;
                    self.said.extend(event.map(Said::from));
                }
                Err(fault) => {
                    assert_eq!(self.fault.replace(fault), None, "a second fault");
                }
            }
            assert!(self.message.len() <= LIMITS.message + MASK_BYTES);
        }
        assert!(self.message.is_empty() || !self.session.closed, "nothing is kept after the end");
        self.leftover = input.split_off(at);
        assert!(self.leftover.len() <= 130);
        if self.message.is_empty() {
            self.message = Vec::new();
        }
    }
}

fn hear(bytes: &[u8]) -> (Vec<Said>, Option<Fault>) {
    let mut connection = Connection::default();
    connection.receive(bytes);
    (connection.said, connection.fault)
}

#[test]
fn a_session_is_eight_bytes() {
    assert!(size_of::<Session>() <= 8);
}

#[test]
fn what_is_allowed() {
    let text = |s: &str| Said::Text(s.into());
    let long = "x".repeat(LIMITS.message);
    let cases = [
        ("a text", frame(FIN | TEXT, "año".as_bytes()), vec![text("año")]),
        ("an empty text", frame(FIN | TEXT, b""), vec![text("")]),
        ("a binary", frame(FIN | BINARY, b"\xff"), vec![Said::Binary(b"\xff".into())]),
        ("as long as may be", frame(FIN | TEXT, long.as_bytes()), vec![text(&long)]),
        ("a ping", frame(FIN | PING, &[7; 125]), vec![Said::Ping(vec![7; 125])]),
        ("a pong nobody asked for", frame(FIN | PONG, b""), vec![Said::Pong(vec![])]),
        (
            "a character in three fragments, a ping between",
            [
                frame(TEXT, b"\xe2"),
                frame(CONTINUE, b"\x82"),
                frame(FIN | PING, b"p"),
                frame(CONTINUE, b""),
                frame(FIN | CONTINUE, b"\xac"),
            ]
            .concat(),
            vec![Said::Ping(b"p".into()), text("€")],
        ),
        ("a close", frame(FIN | CLOSE, b""), vec![Said::Close(None, String::new())]),
        ("with a reason", close_frame(1000, "adiós".as_bytes()), vec![Said::Close(Some(1000), "adiós".into())]),
        (
            "nothing after a close",
            [close_frame(1001, b""), frame(FIN | TEXT, b"x"), vec![0xff; 9]].concat(),
            vec![Said::Close(Some(1001), String::new())],
        ),
    ];
    for (name, bytes, said) in cases {
        assert_eq!(hear(&bytes), (said, None), "{name}");
    }
}

#[test]
fn what_is_refused() {
    let payload = [b'x'; 126];
    let unmasked = vec![FIN | TEXT, 1, b'x'];
    let over = LIMITS.message as u64 + 1;
    let mut cases = vec![
        ("not masked", unmasked, 1002),
        ("continuation of nothing", frame(FIN | CONTINUE, b"x"), 1002),
        ("continuation after the end", [frame(FIN | TEXT, b"x"), frame(FIN | CONTINUE, b"x")].concat(), 1002),
        ("message within a message", [frame(TEXT, b"x"), frame(FIN | TEXT, b"x")].concat(), 1002),
        ("ping in fragments", frame(PING, b"x"), 1002),
        ("ping of 126 bytes, at its header", frame(FIN | PING, &payload)[..8].into(), 1002),
        ("16 bits for a short length", masked(FIN | TEXT, b"x", [1; 4], Form::Bits16), 1002),
        ("64 bits for a short length", masked(FIN | TEXT, &payload, [1; 4], Form::Bits64), 1002),
        ("a length with its top bit", [header(FIN | TEXT, 1 << 63, Form::Bits64), vec![0; 4]].concat(), 1002),
        ("the largest length", [header(FIN | TEXT, i64::MAX as u64, Form::Bits64), vec![0; 4]].concat(), 1009),
        ("too big, at its header", [header(FIN | BINARY, over, Form::Shortest), vec![0; 4]].concat(), 1009),
        (
            "fragments too big together, at the header",
            [frame(BINARY, &payload), frame(FIN | CONTINUE, &payload)[..8].into()].concat(),
            1009,
        ),
        ("not UTF-8", frame(FIN | TEXT, b"\xff"), 1007),
        ("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ("half a character at the end", frame(FIN | TEXT, b"\xe2\x82"), 1007),
        ("the same, in fragments", [frame(TEXT, b"\xe2\x82"), frame(FIN | CONTINUE, b"")].concat(), 1007),
        ("not UTF-8 in a fragment", frame(TEXT, b"a\xc0"), 1007),
        ("not UTF-8 over two fragments", [frame(TEXT, b"\xf4"), frame(CONTINUE, b"\x90")].concat(), 1007),
        ("not UTF-8 in a frame half here", frame(FIN | TEXT, b"\xf4\x90\x80\x80...")[..8].into(), 1007),
        ("half a close code", frame(FIN | CLOSE, b"\x03"), 1002),
        ("a close reason that is not UTF-8", close_frame(1000, b"\xff"), 1007),
    ];
    cases.extend((1..8).map(|bits| ("reserved bits", frame(FIN | bits << 4 | TEXT, b"x"), 1002)));
    cases.extend((3..8).chain(11..16).map(|opcode| ("reserved opcodes", frame(FIN | opcode, b"x"), 1002)));
    for (name, bytes, code) in cases {
        let (_, fault) = hear(&bytes);
        assert_eq!(fault.map(|fault| fault.close_code()), Some(code), "{name}: {fault:?}");
    }
}

#[test]
fn close_codes() {
    for code in 0..=u16::MAX {
        let allowed = matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999);
        let (said, fault) = hear(&close_frame(code, b""));
        assert_eq!(said == [Said::Close(Some(code), String::new())], allowed, "{code}");
        assert_eq!(fault.is_none(), allowed, "{code}");
    }
}

#[test]
fn a_million_empty_fragments_are_taken_one_by_one_and_kept_nowhere() {
    let (mut session, mut message) = (Session::default(), Vec::new());
    let mut bytes = frame(TEXT, b"");
    assert_eq!(session.read(&mut bytes, &mut message, &LIMITS), Ok((6, None)));
    let mut bytes = frame(CONTINUE, b"").repeat(1_000_000);
    for part in bytes.chunks_mut(60) {
        assert_eq!(session.read(part, &mut message, &LIMITS), Ok((6, None)));
    }
    assert_eq!(message.len(), MASK_BYTES);
}

#[test]
fn a_whole_message_needs_no_memory() {
    let (mut session, mut message) = (Session::default(), Vec::new());
    let mut bytes = frame(FIN | TEXT, b"hola");
    assert_eq!(session.read(&mut bytes, &mut message, &LIMITS), Ok((10, Some(Event::Text("hola")))));
    assert_eq!(message.capacity(), 0);
}

#[test]
fn unmasking_is_the_same_at_every_length_and_start() {
    let plain: Vec<u8> = (0..40).collect();
    for (from, to) in (0..40).flat_map(|from| (from..40).map(move |to| (from, to))) {
        let mut bytes = plain[from..to].to_vec();
        unmask(&mut bytes, [1, 20, 30, 255]);
        let expected = plain[from..to].iter().zip([1, 20, 30, 255].iter().cycle()).map(|(byte, key)| byte ^ key);
        assert!(bytes.iter().copied().eq(expected));
    }
}

/// Texts that are cut anywhere, whole ones, and bytes that are no text.
fn payload(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let text = vec(select(vec!["a", "ñ", "€", "🏠"]), 0..longest / 4).prop_map(|parts| parts.concat().into_bytes());
    prop_oneof![
        4 => text.clone(),
        2 => (text, any::<prop::sample::Index>()).prop_map(|(mut text, at)| {
            text.truncate(at.index(text.len() + 1));
            text
        }),
        1 => vec(any::<u8>(), 0..longest),
    ]
}

/// Legal frames and what they say: a message in any fragments with controls between, or a control.
fn exchange() -> impl Strategy<Value = (Vec<u8>, Vec<Said>)> {
    let control = (any::<bool>(), vec(any::<u8>(), 0..=125), any::<[u8; 4]>()).prop_map(|(ping, payload, mask)| {
        let (opcode, said) =
            if ping { (PING, Said::Ping(payload.clone())) } else { (PONG, Said::Pong(payload.clone())) };
        (masked(FIN | opcode, &payload, mask, Form::Shortest), vec![said])
    });
    let text = vec(any::<char>(), 0..=50).prop_map(|chars| (TEXT, String::from_iter(chars).into_bytes()));
    let binary = vec(any::<u8>(), 0..=LIMITS.message).prop_map(|bytes| (BINARY, bytes));
    let between = prop_oneof![2 => Just((vec![], vec![])), 1 => control.clone()];
    let parts = vec((any::<prop::sample::Index>(), any::<[u8; 4]>(), between), 1..5);
    let message = (prop_oneof![text, binary], parts).prop_map(|((opcode, payload), parts)| {
        let (mut bytes, mut said, mut rest) = (vec![], vec![], &payload[..]);
        let last = parts.len() - 1;
        for (i, (at, mask, (control, meant))) in parts.into_iter().enumerate() {
            let (part, behind) = rest.split_at(if i == last { rest.len() } else { at.index(rest.len() + 1) });
            rest = behind;
            bytes.extend(control.iter().filter(|_| i > 0));
            said.extend(meant.into_iter().filter(|_| i > 0));
            let first = if i == last { FIN } else { 0 } | if i == 0 { opcode } else { CONTINUE };
            bytes.extend(masked(first, part, mask, Form::Shortest));
        }
        said.push(match String::from_utf8(payload) {
            Ok(text) if opcode == TEXT => Said::Text(text),
            Ok(text) => Said::Binary(text.into()),
            Err(e) => Said::Binary(e.into_bytes()),
        });
        (bytes, said)
    });
    prop_oneof![3 => message, 1 => control]
}

/// A frame as a client might send it that is wrong in most of the ways there are, though seldom.
fn odd_frame() -> impl Strategy<Value = Vec<u8>> {
    let mostly = |usual: u8, odd: Range<u8>| prop_oneof![20 => Just(usual), 1 => odd];
    let opcode = prop_oneof![
        10 => select(vec![CONTINUE, TEXT, BINARY, PING, PONG]),
        1 => Just(CLOSE),
        1 => 0..16_u8,
    ];
    let form = prop_oneof![20 => Just(Form::Shortest), 1 => Just(Form::Bits16), 1 => Just(Form::Bits64)];
    let payload = prop_oneof![6 => payload(40), 1 => payload(300), 1 => close_payload()];
    (opcode, any::<bool>(), mostly(0, 0..8), mostly(1, 0..1), payload, any::<[u8; 4]>(), form).prop_map(
        |(opcode, fin, reserved, is_masked, payload, mask, form)| {
            let fin = if fin || opcode >= CLOSE { FIN } else { 0 };
            let mut bytes = masked(fin | reserved << 4 | opcode, &payload, mask, form);
            if is_masked == 0 {
                bytes[1] &= 0x7f;
            }
            bytes
        },
    )
}

fn close_payload() -> impl Strategy<Value = Vec<u8>> {
    (900..5100_u16, payload(40)).prop_map(|(code, reason)| [&code.to_be_bytes(), &reason[..]].concat())
}

/// Some odd frames, a few of their bytes changed, the end cut off.
fn odd_stream() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop_oneof![3 => Just(vec![]), 1 => vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)];
    let kept = prop_oneof![1 => Just(1.0), 1 => 0.0..1.0];
    (vec(odd_frame(), 1..6), changes, kept).prop_map(|(frames, changes, kept)| {
        let mut bytes = frames.concat();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate((bytes.len() as f64 * kept) as usize);
        bytes
    })
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Refused,
    Closed,
    Waiting,
}

/// A stream that has these bytes, then no more for now, and takes whatever is written.
struct Wire<'a>(&'a [u8]);

impl std::io::Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl std::io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// tungstenite's own reading of the same bytes.
fn tungstenite_hears(bytes: &[u8]) -> (Vec<Said>, Verdict) {
    let limit = Some(LIMITS.message);
    let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
    let mut socket = WebSocket::from_raw_socket(Wire(bytes), Role::Server, Some(config));
    let mut said = vec![];
    loop {
        said.push(match socket.read() {
            Ok(Message::Text(text)) => Said::Text(text.as_str().into()),
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.into()),
            Ok(Message::Ping(bytes)) => Said::Ping(bytes.into()),
            Ok(Message::Pong(bytes)) => Said::Pong(bytes.into()),
            // What it makes of a close code that is not allowed.
            Ok(Message::Close(Some(close))) if close.reason.as_str() == "Protocol violation" => {
                return (said, Verdict::Refused);
            }
            Ok(Message::Close(close)) => {
                let code = close.as_ref().map(|close| close.code.into());
                said.push(Said::Close(code, close.map(|close| close.reason.as_str().into()).unwrap_or_default()));
                return (said, Verdict::Closed);
            }
            Ok(Message::Frame(_)) => unreachable!(),
            Err(tungstenite::Error::Io(_)) => return (said, Verdict::Waiting),
            Err(_) => return (said, Verdict::Refused),
        });
    }
}

proptest! {
    #[test]
    fn any_chunking_says_the_same(
        exchanges in vec(exchange(), 0..8),
        close in any::<bool>(),
        sizes in vec(prop_oneof![1..4_usize, 1..300_usize], 1..20),
    ) {
        let (mut bytes, mut said) = (vec![], vec![]);
        for (part, meant) in exchanges {
            bytes.extend(part);
            said.extend(meant);
        }
        if close {
            bytes.extend(close_frame(1000, b"adios"));
            said.push(Said::Close(Some(1000), "adios".into()));
        }
        prop_assert_eq!(hear(&bytes), (said.clone(), None));

        let mut connection = Connection::default();
        let mut rest = &bytes[..];
        for size in sizes.into_iter().cycle() {
            let (chunk, behind) = rest.split_at(size.min(rest.len()));
            connection.receive(chunk);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!((connection.said, connection.fault), (said, None));
        prop_assert!(connection.leftover.is_empty());
        prop_assert_eq!(connection.message.capacity(), 0, "nothing is under way");
    }

    /// Byte by byte they say the same and break the same rule as all at once.
    #[test]
    fn odd_streams_are_judged_alike_byte_by_byte(bytes in odd_stream()) {
        let mut connection = Connection::default();
        bytes.iter().for_each(|&byte| connection.receive(&[byte]));
        prop_assert_eq!((connection.said, connection.fault), hear(&bytes));
    }

    #[test]
    fn no_bytes_panic_and_each_call_advances(mut bytes in vec(any::<u8>(), 0..400)) {
        let (mut session, mut message, mut at) = (Session::default(), vec![], 0);
        for _ in 0..bytes.len() {
            match session.read(&mut bytes[at..], &mut message, &LIMITS) {
                Ok((0, None)) => return Ok(()),
                Ok((used, _)) => at += used,
                Err(_) => {}
            }
        }
        prop_assert_eq!(session.read(&mut bytes[at..], &mut message, &LIMITS), Ok((0, None)));
    }

    /// We agree with tungstenite on every event and every refusal, but are knowingly stricter in one point (lengths
    /// that are not in their shortest form) and earlier in three, where it waits for the whole frame first: control
    /// frames that are too long, fragments that are too big together, text that breaks within a frame.
    #[test]
    fn tungstenite_judges_alike(bytes in odd_stream()) {
        let (said, fault) = hear(&bytes);
        let (their_said, their_verdict) = tungstenite_hears(&bytes);
        if fault == Some(Fault::Protocol("length not in its shortest form")) {
            prop_assert!(their_said.starts_with(&said));
            return Ok(());
        }
        prop_assert_eq!(&said, &their_said);
        let verdict = match (fault, said.last()) {
            (Some(_), _) => Verdict::Refused,
            (None, Some(Said::Close(..))) => Verdict::Closed,
            (None, _) => Verdict::Waiting,
        };
        if verdict == Verdict::Refused && their_verdict == Verdict::Waiting {
            // With the rest of the frame, whatever it is, it says nothing more before it refuses, too.
            let completed = [&bytes[..], &[0; 400]].concat();
            prop_assert_eq!(tungstenite_hears(&completed), (said, Verdict::Refused));
        } else {
            prop_assert_eq!(verdict, their_verdict);
        }
    }
}
