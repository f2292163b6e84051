//! Owns HTTP/1 (RFC 9110, 9112) as values: bytes in, requests out; responses in, bytes out. Never does I/O, asks a
//! clock or keeps a buffer. Enter at [`Reader::read`], then [`Request::of`], then [`Response::encode`].
#![cfg_attr(not(test), warn(clippy::indexing_slicing))] // hostile bytes are read here

mod chunked;
#[cfg(test)]
mod conversations;
mod reader;
mod request;
mod response;
mod target;
pub mod upgrade;

pub use reader::{BodyLength, Limits, Reader, Stage, Step};
pub use request::{Head, Method, Request, form_pairs};
pub use response::{CONTINUE, Response, Terms, http_date};

/// What is wrong with the bytes. Where the next request would begin is unknown then: answer, and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: says what, for the log; never holds bytes of the peer.
    Malformed(&'static str),
    /// 413
    BodyTooLarge,
    /// 414
    TargetTooLong,
    /// 431: too many bytes or too many fields.
    HeadTooLarge,
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported,
    /// No status: the request was answered already, but its body is too long, or too odd, to be skipped.
    NotSkippable,
}

impl Refusal {
    /// The status to answer with, or `None` to close without another answer.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Malformed(_) => Some(400),
            Self::BodyTooLarge => Some(413),
            Self::TargetTooLong => Some(414),
            Self::HeadTooLarge => Some(431),
            Self::VersionNotSupported => Some(505),
            Self::NotSkippable => None,
        }
    }

    /// The cause in a few English words, one of a fixed set: fit for logs and metric labels.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Malformed(what) => what,
            Self::BodyTooLarge => "body too large",
            Self::TargetTooLong => "target too long",
            Self::HeadTooLarge => "head too large",
            Self::VersionNotSupported => "version not supported",
            Self::NotSkippable => "refused body not skippable",
        }
    }
}
