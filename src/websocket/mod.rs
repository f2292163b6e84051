//! Owns the WebSocket protocol (RFC 6455, version 13, no extensions) after the handshake: bytes to events, events to
//! bytes. Never does I/O, never asks for the time, never knows what a message means, never panics on what a peer sent.
//! Enter at [`Session::read`] for what clients send, at [`frame`] for what the server sends.

// Hostile bytes are read here: every access says what happens when there is nothing.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod frame;
mod session;

pub use frame::close;
pub use session::{Event, Fault, Limits, Session};
