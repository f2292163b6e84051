//! Owns the frames from server to client: whole, unmasked, never fragmented (RFC 6455 5.2). Never queues or sends them.
//! Enter at [`text`] for a frame that goes to many sockets, at the `push_` functions for one socket's outbound bytes.

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Bytes of a control frame's payload at most (RFC 6455 5.5).
pub const CONTROL_MAX_BYTES: usize = 125;

/// A close frame's payload begins with its code, in two bytes.
const REASON_MAX_BYTES: usize = CONTROL_MAX_BYTES - 2;

/// The longest header that a server writes: two bytes and a 64-bit length.
const HEADER_MAX_BYTES: usize = 10;

/// The close codes that this server sends (RFC 6455 7.4.1, the IANA registry, and its own from 4000 on).
pub mod close {
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL: u16 = 1002;
    pub const UNSUPPORTED: u16 = 1003;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const TRY_AGAIN: u16 = 1013;
    pub const TOKEN_EXPIRED: u16 = 4401;
    pub const DEACTIVATED: u16 = 4403;
}

/// A text message as one frame, in an allocation of its own size. `payload` must be UTF-8.
#[must_use]
pub fn text(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_MAX_BYTES + payload.len());
    push_text(&mut out, payload);
    out
}

/// Appends a text message as one frame. `payload` must be UTF-8.
pub fn push_text(out: &mut Vec<u8>, payload: &[u8]) {
    debug_assert!(str::from_utf8(payload).is_ok());
    push(out, OpCode::Data(Data::Text), payload);
}

/// Appends a binary message as one frame.
pub fn push_binary(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, OpCode::Data(Data::Binary), payload);
}

/// Appends a ping; of `payload`, 125 bytes are taken at most.
pub fn push_ping(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, OpCode::Control(Control::Ping), within_control(payload));
}

/// Appends a pong; of `payload`, 125 bytes are taken at most, which is all that a received ping can have.
pub fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, OpCode::Control(Control::Pong), within_control(payload));
}

/// Appends a close frame. `reason` is cut to 123 bytes, at the end of a character; without a code there is none.
pub fn push_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let opcode = OpCode::Control(Control::Close);
    let Some(code) = code else { return push(out, opcode, &[]) };
    debug_assert!(CloseCode::from(code).is_allowed(), "{code} must not be sent");
    let (reason, _) = reason.split_at(reason.floor_char_boundary(REASON_MAX_BYTES));
    push_header(out, opcode, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends the answer to a received close frame: its own code, or none if it had none (RFC 6455 5.5.1).
pub fn push_close_answer(out: &mut Vec<u8>, received: Option<u16>) {
    push_close(out, received, "");
}

fn push(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    push_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

fn push_header(out: &mut Vec<u8>, opcode: OpCode, length: usize) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let written = header.format(length as u64, out);
    debug_assert!(written.is_ok(), "a Vec takes all bytes");
}

fn within_control(payload: &[u8]) -> &[u8] {
    payload.get(..CONTROL_MAX_BYTES).unwrap_or(payload)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::{Message, Role, WebSocket};

    use super::*;

    /// What a client makes of these bytes.
    fn client_reads(bytes: Vec<u8>) -> Message {
        WebSocket::from_raw_socket(Cursor::new(bytes), Role::Client, None).read().unwrap()
    }

    fn pushed(push: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = vec![];
        push(&mut out);
        out
    }

    #[test]
    fn messages_of_every_length_form() {
        assert_eq!(text("año".as_bytes()), [&[0x81, 4][..], "año".as_bytes()].concat());
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            assert_eq!(client_reads(text(&payload)), Message::text("x".repeat(length)));
            let binary = pushed(|out| push_binary(out, &payload));
            assert_eq!(client_reads(binary), Message::binary(payload));
        }
    }

    #[test]
    fn frames_are_appended() {
        let mut out = text(b"a");
        push_ping(&mut out, b"b");
        push_pong(&mut out, b"");
        assert_eq!(out, b"\x81\x01a\x89\x01b\x8a\x00");
    }

    #[test]
    fn control_payloads_are_cut() {
        let ping = pushed(|out| push_ping(out, &[7; 126]));
        assert_eq!(client_reads(ping), Message::Ping(vec![7; 125].into()));
    }

    #[test]
    fn closes() {
        assert_eq!(pushed(|out| push_close(out, None, "unsaid")), [0x88, 0]);
        assert_eq!(pushed(|out| push_close_answer(out, Some(3001))), [0x88, 2, 0x0b, 0xb9]);
        assert_eq!(pushed(|out| push_close_answer(out, None)), [0x88, 0]);
        assert_eq!(
            pushed(|out| push_close(out, Some(close::GOING_AWAY), "adiós")),
            [&[0x88, 8, 0x03, 0xe9][..], "adiós".as_bytes()].concat()
        );
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let out = pushed(|out| push_close(out, Some(close::POLICY), &"ñ".repeat(70)));
        assert_eq!(out.len(), 2 + 2 + 122);
        let Message::Close(Some(read)) = client_reads(out) else { panic!("no close") };
        assert_eq!(read.reason.as_str(), "ñ".repeat(61));
    }
}
