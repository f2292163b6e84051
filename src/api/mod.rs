//! Owns what clients may ask and how they are answered: the only code that knows paths and JSON.
//! Never carries anything out. Enter at [`routes::route`] for requests, [`message`] for sockets, [`frames`] for answers.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))] // hostile bytes are read here

pub mod command;
pub mod frames;
pub mod page;
pub mod reply;
pub mod views;
