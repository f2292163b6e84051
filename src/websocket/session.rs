//! Owns the way from a client's bytes to messages, pings, pongs and the close, and every rule a client may break.
//! Never answers (what a ping or a fault gets is the hub's business), never buffers but in the `Vec` it is lent.
//! Enter at [`Session::read`].

use std::{io::Cursor, ops::Range};

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

use super::frame::{CONTROL_MAX_BYTES, close};

/// Where one connection stands in the stream of frames. The default between messages: then it need not be kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Payload bytes of the data frame at hand that have not come yet; 0 = the next byte begins a frame.
    remaining: u32,
    /// The message under way; `None` = between messages.
    kind: Option<Kind>,
    /// The data frame at hand is its message's last.
    is_final: bool,
    /// Bytes of a character that the text so far breaks off in, 0 to 3.
    broken_off: u8,
    /// A close or a fault came: what follows is not read (RFC 6455 5.5.1, 7.1.7).
    closed: bool,
}

/// What the peer is held to, beyond the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole message, all fragments together, without headers. More than 4 GiB − 1 is taken as that.
    pub message: usize,
}

/// What the peer said. Borrows from the input, or from the lent `message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// At most 125 bytes, due back in a pong.
    Ping(&'a [u8]),
    /// At most 125 bytes; solicited or not (RFC 6455 5.5.3).
    Pong(&'a [u8]),
    /// The last event. The answer is [`push_close_answer`](super::frame::push_close_answer).
    Close {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// What the peer did wrong. Ends the session: send the close code, then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A rule of RFC 6455 was broken: this one.
    Protocol(&'static str),
    /// A text message or a close reason is not UTF-8 (RFC 6455 8.1).
    NotUtf8,
    /// A message is larger than [`Limits::message`].
    TooBig,
}

impl Fault {
    /// The code that tells the peer (RFC 6455 7.4.1).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Protocol(_) => close::PROTOCOL,
            Self::NotUtf8 => close::NOT_UTF8,
            Self::TooBig => close::TOO_BIG,
        }
    }

    /// The same in words, for the close frame. Holds nothing that the peer sent.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Protocol(rule) => rule,
            Self::NotUtf8 => "not UTF-8",
            Self::TooBig => "message too big",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// `message` begins with the mask of the data frame at hand, turned so that its first byte is the next one's key.
/// So it is empty only between messages: a header alone, or an empty fragment, leaves the mask there.
const MASK_BYTES: usize = 4;

type Step<'a> = Result<(usize, Option<Event<'a>>), Fault>;

impl Session {
    /// Takes the next event out of the front of `input`: how many bytes are used up, and what they were. Call it with
    /// what is left until it returns `(0, None)`; then `message` is empty unless a message is under way, and the rest of
    /// `input` (at most 130 bytes: a header, or a control frame) must come again, followed by more.
    ///
    /// `None` with bytes used is a part of a message, moved to `message`. One call takes one frame, or the part of one
    /// that is there, and looks at each of its bytes a bounded number of times: a budget of bytes is one of time.
    /// `input` is unmasked in place. `message` is lent anew each time and may be dropped when it is empty, and only
    /// then; it holds at most [`Limits::message`] and 4 bytes. A message that is whole in `input` does not touch it.
    ///
    /// # Errors
    /// The first rule that the peer broke, as early as it shows: a size at the header, bad UTF-8 at its first byte.
    /// After that, as after [`Event::Close`], whatever comes is used up unread.
    pub fn read<'a>(
        &mut self,
        input: &'a mut [u8],
        message: &'a mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(usize, Option<Event<'a>>), Fault> {
        if self.kind.is_none() {
            message.clear();
        }
        if self.closed {
            return Ok((input.len(), None));
        }
        let step = match self.kind {
            Some(kind) if self.remaining > 0 => self.take_payload(kind, input, message),
            _ => self.take_frame(input, message, limits),
        };
        if matches!(step, Err(_) | Ok((_, Some(Event::Close { .. })))) {
            *self = Self { closed: true, ..Self::default() };
        }
        step
    }

    fn take_frame<'a>(&mut self, input: &'a mut [u8], message: &'a mut Vec<u8>, limits: &Limits) -> Step<'a> {
        let Some(head) = Head::parse(input)? else { return Ok((0, None)) };
        match head.opcode {
            OpCode::Data(opcode) => self.take_fragment(opcode, &head, input, message, limits),
            OpCode::Control(opcode) => take_control(opcode, &head, input),
        }
    }

    fn take_fragment<'a>(
        &mut self,
        opcode: Data,
        head: &Head,
        input: &'a mut [u8],
        message: &'a mut Vec<u8>,
        limits: &Limits,
    ) -> Step<'a> {
        let kind = match (opcode, self.kind) {
            (Data::Continue, Some(kind)) => kind,
            (Data::Continue, None) => return Err(Fault::Protocol("continuation of no message")),
            (_, Some(_)) => return Err(Fault::Protocol("message within a message")),
            (Data::Text, None) => Kind::Text,
            (Data::Binary, None) => Kind::Binary,
            (Data::Reserved(_), None) => return Err(Fault::Protocol(RESERVED_OPCODE)),
        };
        let so_far = message.len().saturating_sub(MASK_BYTES);
        if head.length as usize > limits.message.saturating_sub(so_far) {
            return Err(Fault::TooBig);
        }

        let frame = head.payload();
        if self.kind.is_none() && head.is_final && frame.end <= input.len() {
            let used = frame.end;
            let payload = input.get_mut(frame).unwrap_or_default();
            unmask(payload, head.mask);
            return Ok((used, Some(kind.event(payload)?)));
        }

        (self.kind, self.is_final, self.remaining) = (Some(kind), head.is_final, head.length);
        match message.first_chunk_mut() {
            Some(mask) => *mask = head.mask,
            None => message.extend_from_slice(&head.mask),
        }
        let (used, event) = self.take_payload(kind, input.get_mut(frame.start..).unwrap_or_default(), message)?;
        Ok((frame.start + used, event))
    }

    /// Moves what has come of the data frame at hand to `message`.
    fn take_payload<'a>(&mut self, kind: Kind, input: &mut [u8], message: &'a mut Vec<u8>) -> Step<'a> {
        debug_assert!(message.len() >= MASK_BYTES, "message was dropped before it was empty");
        let used = input.len().min(self.remaining as usize);
        let (part, _) = input.split_at_mut(used);
        if let Some(mask) = message.first_chunk_mut::<MASK_BYTES>() {
            unmask(part, *mask);
            mask.rotate_left(used % MASK_BYTES);
        }
        message.extend_from_slice(part);
        self.remaining -= used as u32; // used <= remaining

        if self.remaining == 0 && self.is_final {
            *self = Self::default();
            return Ok((used, Some(kind.event(message.get(MASK_BYTES..).unwrap_or_default())?)));
        }
        if kind == Kind::Text {
            let unjudged = message.len().saturating_sub(used + usize::from(self.broken_off));
            self.broken_off = broken_off(message.get(unjudged..).unwrap_or_default())?;
        }
        Ok((used, None))
    }
}

impl Kind {
    fn event(self, payload: &[u8]) -> Result<Event<'_>, Fault> {
        Ok(match self {
            Self::Text => Event::Text(utf8(payload)?),
            Self::Binary => Event::Binary(payload),
        })
    }
}

fn take_control<'a>(opcode: Control, head: &Head, input: &'a mut [u8]) -> Step<'a> {
    let frame = head.payload();
    let used = frame.end;
    let Some(payload) = input.get_mut(frame) else { return Ok((0, None)) };
    unmask(payload, head.mask);
    let event = match opcode {
        Control::Ping => Event::Ping(payload),
        Control::Pong => Event::Pong(payload),
        Control::Close => close_event(payload)?,
        Control::Reserved(_) => return Err(Fault::Protocol(RESERVED_OPCODE)),
    };
    Ok((used, Some(event)))
}

/// RFC 6455 5.5.1 and 7.4; of the codes registered since, tungstenite knows 1012 and 1013.
fn close_event(payload: &[u8]) -> Result<Event<'_>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Event::Close { code: None, reason: "" }),
            _ => Err(Fault::Protocol("close code of one byte")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(Fault::Protocol("close code not allowed"));
    }
    Ok(Event::Close { code: Some(code), reason: utf8(reason)? })
}

const RESERVED_OPCODE: &str = "reserved opcode";

/// A client's frame header that breaks no rule which it can break by itself.
struct Head {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; MASK_BYTES],
    /// Bytes of the header.
    size: usize,
    /// Bytes of the payload.
    length: u32,
}

impl Head {
    /// `None` = the header is not all there.
    fn parse(input: &[u8]) -> Result<Option<Self>, Fault> {
        let mut cursor = Cursor::new(input);
        // A slice cannot fail to be read: the one error there is, is about the opcode.
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Fault::Protocol(RESERVED_OPCODE))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let FrameHeader { opcode, is_final, mask, .. } = header;

        let Some(mask) = mask else { return Err(Fault::Protocol("frame not masked")) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Fault::Protocol("reserved bits set"));
        }
        if cursor.position() != header.len(length) as u64 {
            return Err(Fault::Protocol("length not in its shortest form"));
        }
        if length > i64::MAX as u64 {
            return Err(Fault::Protocol("length with its top bit set"));
        }
        if matches!(opcode, OpCode::Control(_)) && !is_final {
            return Err(Fault::Protocol("control frame fragmented"));
        }
        if matches!(opcode, OpCode::Control(_)) && length > CONTROL_MAX_BYTES as u64 {
            return Err(Fault::Protocol("control frame too long"));
        }
        let length = u32::try_from(length).map_err(|_| Fault::TooBig)?;
        Ok(Some(Self { opcode, is_final, mask, size: cursor.position() as usize, length }))
    }

    /// Where the payload is, in the bytes that the header was parsed from.
    fn payload(&self) -> Range<usize> {
        self.size..self.size.saturating_add(self.length as usize)
    }
}

/// RFC 6455 5.3, eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; MASK_BYTES]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)
}

/// How many bytes at the end of this piece of text begin a character that the next piece must complete.
fn broken_off(text: &[u8]) -> Result<u8, Fault> {
    match str::from_utf8(text) {
        Ok(_) => Ok(0),
        Err(e) if e.error_len().is_none() => Ok((text.len() - e.valid_up_to()) as u8), // 1 to 3
        Err(_) => Err(Fault::NotUtf8),
    }
}

#[cfg(test)]
mod tests;
