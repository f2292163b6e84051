//! Owns what a client makes of a server's bytes, and the frames it sends. Never judges them. Enter at [`Reading::next`].

/// One thing that a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Status, head, body.
    Response(u16, String, String),
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// The server's bytes, as far as they came.
#[derive(Default)]
pub(super) struct Reading {
    bytes: Vec<u8>,
    upgraded: bool,
    /// The answers are to HEAD: they have no body, whatever they say.
    pub is_head: bool,
}

impl Reading {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Option<Said> {
        let (used, said) = if self.upgraded { frame(&self.bytes)? } else { response(&self.bytes, self.is_head)? };
        self.bytes.drain(..used);
        self.upgraded |= matches!(said, Said::Response(101, ..));
        Some(said)
    }
}

fn response(bytes: &[u8], is_head: bool) -> Option<(usize, Said)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.filter(|_| !is_head).map_or(0, |text| text.parse().unwrap());
    let body = bytes.get(end..end + length)?;
    Some((end + length, Said::Response(status, head, String::from_utf8(body.to_vec()).unwrap())))
}

fn frame(bytes: &[u8]) -> Option<(usize, Said)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert!(second < 0x80 && first & 0x70 == 0, "a server's frame is neither masked nor extended");
    let (start, length) = match second {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()) as usize),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        short => (2, short as usize),
    };
    let payload = bytes.get(start..start + length)?.to_vec();
    let said = match first {
        0x81 => Said::Text(String::from_utf8(payload).unwrap()),
        0x88 => Said::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        0x89 => Said::Ping(payload),
        0x8a => Said::Pong(payload),
        odd => panic!("a frame that begins with {odd:#x}"),
    };
    Some((start + length, said))
}

/// A client's frame, masked.
pub(super) fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x5a, 0x01, 0xff, 0x80];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long if long <= usize::from(u16::MAX) => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(long as u16).to_be_bytes());
        }
        longer => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(longer as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;
pub(super) const CLOSE: u8 = 0x88;
pub(super) const PING: u8 = 0x89;
pub(super) const PONG: u8 = 0x8a;
