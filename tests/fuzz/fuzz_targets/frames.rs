#![no_main]

#[allow(dead_code, reason = "each runs one target of all")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::frames(bytes));
