//! Measures authenticated upgrades: connect, GET with a token, 101, `connection_established`, by the CPU time of the
//! server's process. 64 are under way at once; three rounds, in turn with a ruler that makes the system calls only.
//!
//! A good figure: 0.7 of the ruler, some 30,000 a CPU-second where the ruler makes 45,000. Read the ratio: it moves less
//! with the machine. Nothing here decides about success.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark that cannot go on has failed")]

mod lab;

use lab::{Crowd, Kind, Server, median, sockets_max, thousands};

const SOCKETS: usize = 10_000;
const ROUNDS: usize = 3;

fn main() {
    if !lab::is_benchmark() {
        return;
    }
    let sockets = SOCKETS.min(sockets_max());
    let (mut own, mut ruler, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(upgrades_a_cpu_second(Kind::Habittod, sockets));
        ruler.push(upgrades_a_cpu_second(Kind::Ruler, sockets));
        ratios.push(own[own.len() - 1] / ruler[ruler.len() - 1]);
    }
    println!("{} sockets, medians of {ROUNDS} rounds: upgrades a CPU-second of the server", thousands(sockets as f64));
    println!("{:<24}{:>10}", Kind::Habittod.name(), thousands(median(own)));
    println!("{:<24}{:>10}", Kind::Ruler.name(), thousands(median(ruler)));
    println!("{:<24}{:>10.2}", "ratio", median(ratios));
}

fn upgrades_a_cpu_second(kind: Kind, sockets: usize) -> f64 {
    let server = Server::start(kind, 0, 0, "");
    let mut crowd = Crowd::new();
    let before_s = server.cpu_s();
    crowd.open(server.address, sockets);
    sockets as f64 / (server.cpu_s() - before_s)
}
