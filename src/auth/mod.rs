//! Owns the answer to "who is asking": JSON Web Tokens and Django's passwords. Never does I/O, never asks for the time,
//! never prints a token, a key or a password. Enter at [`TokenMemory::verify`], [`Signer`] and [`password::check`].

mod key;
mod memory;
pub mod password;
mod signer;
mod token;

pub use key::KeyError;
pub use memory::TokenMemory;
pub use signer::Signer;
pub use token::*;

#[cfg(test)]
mod token_attacks;
#[cfg(test)]
mod vectors;
