//! The real binary over real sockets, with tungstenite's client. One test binary; the rooms:
//! `server` starts and kills it and speaks HTTP, `device` is a client's socket, `crowd` are thousands.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod crowd;
mod delivery;
mod device;
mod exposition;
mod http;
mod logs;
mod metrics;
mod operation;
mod server;
mod sign_in;
mod tokens;
