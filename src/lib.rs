//! habittod: real-time notifications for a rental marketplace. `src/README.md` is the map; the modules below stand in
//! reading order, and imports go downward only.

pub mod clock;
pub mod config;

pub mod matching;
pub mod notification;

pub mod auth;
pub mod http;
pub mod tls;
pub mod web;
pub mod websocket;

pub mod api;

pub mod channel_layer;
pub mod hub;
pub mod inbox;
pub mod reactor;
pub mod storage;

pub mod log;
pub mod metrics;

pub mod cli;
