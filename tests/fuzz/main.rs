//! Runs the fuzz targets for a moment: each seed of its corpus as it is, then changed ones. `FUZZ_INPUTS=1000000` runs so
//! many over all targets, `FUZZ_SEED` others. With coverage to guide it: `tests/fuzz/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a target that fails panics")]
#![allow(clippy::print_stdout, reason = "what a long run has tried")]

mod mutation;
mod targets;

use mutation::{Chance, changed, seeds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Inputs of all targets together, beside their seeds.
const INPUTS: u64 = 15_000;
/// No input takes as long; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a process may weigh more after all inputs than after the first of each target.
const GROWTH_MAX_KIB: u64 = 8 * 1024;

/// Inputs tried so far.
static TRIED: AtomicU64 = AtomicU64::new(0);

#[test]
fn no_bytes_break_what_holds() {
    let (inputs, seed) = (number("FUZZ_INPUTS", INPUTS), number("FUZZ_SEED", 0xf022));
    let (alive, ended) = channel::<()>();
    let trying = std::thread::spawn(move || {
        let _alive = alive;
        try_all(inputs, seed);
    });
    let tried = || TRIED.load(Ordering::Relaxed);
    let mut before = tried();
    while ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        assert_ne!(tried(), before, "an input hangs");
        before = tried();
    }
    trying.join().unwrap();
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn try_all(inputs: u64, seed: u64) {
    let each = inputs / targets::TARGETS.len() as u64;
    let warm = each / 10;
    for (name, target) in targets::TARGETS {
        let (seeds, mut chance, mut warm_kib) = (seeds(name), Chance(seed), 0);
        seeds.iter().for_each(|seed| target(seed));
        for n in 0..each {
            if n == warm {
                warm_kib = memory_kib();
            }
            let input = changed(&seeds, &mut chance);
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                panic!("{name}, input {n}: {}", input.escape_ascii());
            }
            TRIED.fetch_add(1, Ordering::Relaxed);
        }
        let kib = memory_kib();
        println!("{name}: {each} inputs; {warm_kib} KiB after {warm} of them, {kib} KiB at the end");
        assert!(kib <= warm_kib + GROWTH_MAX_KIB, "{name}: from {warm_kib} to {kib} KiB");
    }
}

/// What this process weighs.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
