//! The real binary over real sockets, with tungstenite's client. One test binary; the rooms:
//! `server` starts and kills it and speaks HTTP, `device` is a client's socket, `crowd` are thousands, `disk` stands
//! between it and its files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod any_bytes;
mod chaos;
mod crowd;
mod delivery;
mod described;
mod description;
mod device;
mod disk;
mod django;
mod exposition;
mod faults;
mod hostile;
mod http;
mod logs;
mod metrics;
mod migration;
mod mobile_app;
#[path = "../fuzz/mutation.rs"]
mod mutation;
mod nodes;
mod operation;
mod power_loss;
mod process;
mod redis;
mod roles;
mod rolling;
mod server;
mod setbacks;
mod sign_in;
mod statuses;
mod tokens;
