//! Owns the framing of a body, above all of a chunked one (RFC 9112 7.1), as an automaton that sees each byte once.
//! Never looks back, so any chunking of the input gives the same result. Enter at [`Framing::next`].

use super::Refusal::{self, BodyTooLarge, Malformed};

/// A chunk's line: size, extension and CRLF. Extensions mean nothing to anybody, but some clients sign with them.
const CHUNK_LINE_MAX: u32 = 256;
/// All trailers together; they are read and thrown away.
const TRAILERS_MAX: u32 = 4096;
/// Framing that a body may cost whatever its length, and further bytes of it for each byte of data: a body in chunks of
/// one byte passes (5 each), one that is all extensions does not.
const FRAMING_FREE: usize = 8192;
const FRAMING_PER_BYTE: usize = 16;

/// How the rest of a body is told from what follows it.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes more.
    Sized(usize),
    Chunked(Chunks),
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// There are none yet.
    More,
    /// So many bytes of the body.
    Body(usize),
    /// One byte that is no part of the body.
    Frame,
    /// What follows is the next request.
    Over,
}

impl Framing {
    /// `bytes` begins where the last part ended.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Part, Refusal> {
        match self {
            Self::Sized(left) => Ok(run(left, bytes)),
            Self::Chunked(chunks) => chunks.next(bytes),
        }
    }
}

/// Takes what is there of the `left` bytes.
fn run(left: &mut usize, bytes: &[u8]) -> Part {
    let taken = bytes.len().min(*left);
    let part = match (*left, taken) {
        (0, _) => Part::Over,
        (_, 0) => Part::More,
        (_, taken) => Part::Body(taken),
    };
    *left -= taken;
    part
}

/// Reads `1*8HEXDIG [ext] CRLF data CRLF … 0 [ext] CRLF trailers CRLF`.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of this chunk: as read so far, then as left.
    size: usize,
    /// Bytes of this chunk line, or of all trailers.
    line: u32,
    /// Bytes of body that may still be announced.
    body_left: usize,
    /// Bytes of framing that may still come.
    framing_left: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a line after the last chunk: a trailer's, or the CR of the end.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Over,
}

impl Chunks {
    /// `body_max`: the most bytes of body that are taken.
    pub(super) fn new(body_max: usize) -> Self {
        Self { at: At::Size, size: 0, line: 0, body_left: body_max, framing_left: FRAMING_FREE }
    }

    fn next(&mut self, bytes: &[u8]) -> Result<Part, Refusal> {
        if self.at == At::Data {
            match run(&mut self.size, bytes) {
                Part::Over => self.at = At::DataCr,
                part => return Ok(part),
            }
        }
        if self.at == At::Over {
            return Ok(Part::Over);
        }
        let Some(&byte) = bytes.first() else { return Ok(Part::More) };
        self.framing_left = self.framing_left.checked_sub(1).ok_or(Malformed("chunk framing too long"))?;
        self.at = self.step(byte)?;
        Ok(Part::Frame)
    }

    /// Goes over one byte of framing.
    fn step(&mut self, byte: u8) -> Result<At, Refusal> {
        self.line += 1;
        Ok(match (self.at, byte) {
            (At::Size | At::Extension, _) if self.line > CHUNK_LINE_MAX => {
                return Err(Malformed("chunk line too long"));
            }
            (At::Size, b'\r') if self.line > 1 => At::SizeLf,
            (At::Size, b';') if self.line > 1 => At::Extension,
            (At::Size, _) => self.digit(byte)?,
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, _) if is_text(byte) => At::Extension,
            (At::SizeLf, b'\n') => self.announced()?,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.line = 0;
                At::Size
            }
            (At::Trailer | At::TrailerName | At::TrailerValue, _) if self.line > TRAILERS_MAX => {
                return Err(Malformed("trailers too long"));
            }
            (At::Trailer, b'\r') => At::EndLf,
            (At::TrailerName, b':') => At::TrailerValue,
            (At::Trailer | At::TrailerName, _) if is_token(byte) => At::TrailerName,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, _) if is_text(byte) => At::TrailerValue,
            (At::TrailerLf, b'\n') => At::Trailer,
            (At::EndLf, b'\n') => At::Over,
            _ => return Err(Malformed("chunk framing")),
        })
    }

    fn digit(&mut self, byte: u8) -> Result<At, Refusal> {
        let digit = char::from(byte).to_digit(16).filter(|_| self.line <= 8).ok_or(Malformed("chunk size"))?;
        self.size = (self.size << 4) | digit as usize; // at most 32 bits
        Ok(At::Size)
    }

    /// A chunk line is complete. A body that will be too long is refused before it comes.
    fn announced(&mut self) -> Result<At, Refusal> {
        self.line = 0;
        self.body_left = self.body_left.checked_sub(self.size).ok_or(BodyTooLarge)?;
        self.framing_left = self.framing_left.saturating_add(self.size.saturating_mul(FRAMING_PER_BYTE));
        Ok(if self.size == 0 { At::Trailer } else { At::Data })
    }
}

/// What may stand in a line: no control byte but the tab (RFC 9110 5.5).
pub(super) fn is_text(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// `tchar` of RFC 9110 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
