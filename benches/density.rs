//! Measures what an idle authenticated socket costs: bytes of the server's memory, then CPU time for its keep-alive Pings.
//! Real sockets, the real binary, default settings but for the interval of the Pings, which is shortened so that they
//! can be counted in seconds; the share of a core is scaled back to the default interval by the Pings that were counted.
//!
//! criterion takes the bytes as its measurement, a fresh server a sample, so that it tells what changed since the last
//! run. The table at the end is the one to quote.
//!
//! A good figure: under 250 bytes a socket at 10,000, under 1 % of a core. Above 1,024 bytes a socket at 10,000 sockets
//! (or as many as the descriptor limit allows) this ends with 1. CPU time decides nothing.
//!
//! Not counted: what the kernel keeps for a socket, about 5 KB an end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark that cannot go on has failed")]

mod lab;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use lab::{Crowd, Heard, Kind, Server, sockets_max, thousands};
use std::process::ExitCode;
use std::time::Duration;

const SIZES: [usize; 4] = [1_000, 5_000, 10_000, usize::MAX];
/// The line that is held, and where.
const BYTES_MAX: u64 = 1_024;
const HELD_AT: usize = 10_000;
const IDLE_S: f64 = 6.0;
const PING_EVERY: &str = "ping_interval = \"2s\"";
/// `limits.ping_interval` as it comes.
const DEFAULT_PING_S: f64 = 25.0;

/// Bytes of memory, in place of time.
struct Bytes;

impl Measurement for Bytes {
    type Intermediate = ();
    type Value = u64;

    fn start(&self) {}

    fn end(&self, (): ()) -> u64 {
        panic!("bytes are counted by the server's process: iter_custom")
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, bytes: &u64) -> f64 {
        *bytes as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Bytes {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "B"
    }

    fn scale_throughputs(&self, _typical: f64, _throughput: &Throughput, _values: &mut [f64]) -> &'static str {
        "B"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "B"
    }
}

struct Row {
    sockets: usize,
    rss: u64,
    bytes_a_socket: u64,
    ping_us: f64,
}

fn main() -> ExitCode {
    if !lab::is_benchmark() {
        return ExitCode::SUCCESS;
    }
    let most = sockets_max();
    let mut sizes: Vec<usize> = SIZES.iter().map(|size| *size.min(&most)).collect();
    sizes.dedup();
    sample(&sizes);
    println!(
        "{:<24}{:>9}{:>12}{:>14}{:>13}{:>16}",
        "", "sockets", "B a socket", "process MiB", "µs a Ping", "% of a core"
    );
    let rows = measure(Kind::Habittod, &sizes);
    #[cfg(feature = "peers")]
    for kind in [Kind::Axum, Kind::Axum4k] {
        measure(kind, &[HELD_AT.min(most)]);
    }
    println!(
        "\n% of a core: for a Ping to each socket every {DEFAULT_PING_S} s. The memory is the whole growth of the process, \
         Pings included, by the sockets."
    );
    let Some(held) = rows.iter().find(|row| row.sockets == HELD_AT.min(most)) else { return ExitCode::FAILURE };
    if held.bytes_a_socket > BYTES_MAX {
        println!("{} B a socket at {} sockets: more than {BYTES_MAX}", held.bytes_a_socket, held.sockets);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Bytes a socket as soon as all are open, in ten servers for each size.
fn sample(sizes: &[usize]) {
    let mut criterion = Criterion::default().with_measurement(Bytes).configure_from_args();
    let mut group = criterion.benchmark_group("bytes of RSS a socket, sockets");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    // Short enough that each sample is one server.
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(10));
    for size in sizes {
        group.bench_with_input(BenchmarkId::from_parameter(size), size, |b, size| {
            b.iter_custom(|servers| (0..servers).map(|_| bytes_a_socket(*size)).sum());
        });
    }
    group.finish();
}

fn bytes_a_socket(sockets: usize) -> u64 {
    let server = Server::start(Kind::Habittod, 0, 0, "");
    let before = server.rss();
    Crowd::new().open(server.address, sockets);
    server.rss().saturating_sub(before) / sockets as u64
}

fn measure(kind: Kind, sizes: &[usize]) -> Vec<Row> {
    let server = Server::start(kind, 0, 0, PING_EVERY);
    let before = server.rss();
    let mut crowd = Crowd::new();
    let mut rows = Vec::new();
    for size in sizes {
        crowd.open(server.address, *size);
        let (mut pings, cpu_s) = (0, server.cpu_s());
        crowd.listen(IDLE_S, |heard| pings += u32::from(heard == Heard::Ping));
        let (cpu_s, rss) = (server.cpu_s() - cpu_s, server.rss());
        let row = Row {
            sockets: *size,
            rss,
            bytes_a_socket: rss.saturating_sub(before) / *size as u64,
            ping_us: cpu_s * 1e6 / f64::from(pings),
        };
        show(kind, &row);
        rows.push(row);
    }
    rows
}

fn show(kind: Kind, row: &Row) {
    let (bytes, mib) = (thousands(row.bytes_a_socket as f64), row.rss as f64 / f64::from(1 << 20));
    let (ping, share) = if row.ping_us.is_finite() {
        let share = row.ping_us * row.sockets as f64 / DEFAULT_PING_S / 1e6 * 100.0;
        (format!("{:.1}", row.ping_us), format!("{share:.2}"))
    } else {
        ("-".to_owned(), "-".to_owned()) // it sends none
    };
    println!("{:<24}{:>9}{bytes:>12}{mib:>14.1}{ping:>13}{share:>16}", kind.name(), thousands(row.sockets as f64));
}
