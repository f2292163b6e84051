//! Owns what clients may ask and how they are answered: the only code that knows paths and JSON. Never carries anything
//! out. Enter at [`routes::route`] and [`requests::understand`] for HTTP, [`message::parse`] for sockets, [`frames`] for
//! what they are told.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))] // hostile bytes are read here

pub mod command;
pub mod directory;
pub mod frames;
pub mod json;
pub mod message;
pub mod page;
pub mod reply;
pub mod requests;
pub mod routes;
pub mod sign_in;
pub mod views;
