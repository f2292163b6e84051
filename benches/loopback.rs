//! Measures the whole way of a notification: POST like → commit and sync → frame at the owner → Pong → receipt on a later
//! commit. 1,000 owners are connected, 64 posters have one request under way each on a kept-alive connection; each has
//! owners of its own, so that the k-th frame at an owner answers the k-th like for him.
//!
//! Beside it in the same rounds stands a ruler that makes the same system calls and stores nothing, and with
//! `--features peers` axum with one SQLite commit a like and no receipts.
//!
//! Where `redis-server` is installed, two nodes on one Redis stand there, too: all likes go to the first.
//!
//! A good figure: 0.25 of the ruler or more, and several times axum. Read the ratios, and the latencies only beside each
//! other: all 64 are always under way, so p50 is 64 divided by the rate. Nothing here decides about success but the counts:
//! a like that was confirmed and did not come, or came twice, ends this with 1.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark that cannot go on has failed")]

mod lab;

use lab::{Crowd, FIRST_TENANT, Heard, Kind, Server, median, now, thousands, token};
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

const OWNERS: usize = 1_000;
const POSTERS: usize = 64;
/// A like is made once: this times the owners bounds the likes of a round.
const TENANTS: usize = 600;
const WARM_UP_S: f64 = 1.0;
const MEASURE_S: f64 = 4.0;
const ROUNDS: usize = 3;
/// How long the last frames may take before they count as lost.
const PATIENCE_US: u64 = 5_000_000;

const KINDS: &[Kind] = &[
    Kind::Ruler,
    Kind::Habittod,
    Kind::HabittodInfo,
    Kind::TwoNodes,
    #[cfg(feature = "peers")]
    Kind::Axum4k,
    #[cfg(feature = "peers")]
    Kind::Axum,
];

struct Round {
    a_cpu_second: f64,
    /// The same, with the CPU of a node that follows counted, too.
    of_both: f64,
    /// CPU seconds of Redis for each of the node that is asked.
    redis: f64,
    a_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn main() -> ExitCode {
    if !lab::is_benchmark() {
        return ExitCode::SUCCESS;
    }
    let tokens: Vec<String> = (0..TENANTS as i64).map(|n| token(FIRST_TENANT + n)).collect();
    let mut rounds: Vec<Vec<Round>> = KINDS.iter().map(|_| Vec::new()).collect();
    let mut wrong = 0;
    for _ in 0..ROUNDS {
        for (kind, rounds) in KINDS.iter().zip(&mut rounds).filter(|(kind, _)| kind.is_here()) {
            let mut load = Load::start(*kind, &tokens);
            rounds.push(load.measure());
            wrong += load.wrong();
        }
    }
    println!("medians of {ROUNDS} rounds of {MEASURE_S} s, {POSTERS} posters, {} owners", thousands(OWNERS as f64));
    println!("{:<24}{:>14}{:>10}{:>14}{:>10}{:>10}", "", "a CPU-second", "÷ ruler", "a second", "p50 ms", "p99 ms");
    for (kind, own) in KINDS.iter().zip(&rounds).filter(|(kind, _)| kind.is_here()) {
        let of = |figure: fn(&Round) -> f64| median(own.iter().map(figure).collect());
        let ratio =
            median(own.iter().zip(&rounds[0]).map(|(own, ruler)| own.a_cpu_second / ruler.a_cpu_second).collect());
        let (a_cpu_second, a_second) = (of(|round| round.a_cpu_second), of(|round| round.a_second));
        println!(
            "{:<24}{:>14}{ratio:>10.2}{:>14}{:>10.2}{:>10.2}",
            kind.name(),
            thousands(a_cpu_second),
            thousands(a_second),
            of(|round| round.p50_ms),
            of(|round| round.p99_ms)
        );
    }
    let of = |kind| KINDS.iter().position(|known| *known == kind).map_or(&[][..], |at| &rounds[at]);
    compare(of(Kind::TwoNodes), of(Kind::Habittod));
    println!("lost, doubled or refused: {wrong}");
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What two nodes on this machine do, beside one alone: pairs of a round each.
fn compare(two: &[Round], one: &[Round]) {
    if two.is_empty() {
        return;
    }
    let ratio =
        |figure: fn(&Round) -> f64| median(two.iter().zip(one).map(|(two, one)| figure(two) / figure(one)).collect());
    println!(
        "two nodes ÷ one: {:.2} a CPU-second of the one that is asked, {:.2} of both together, {:.2} a second; Redis \
         took {:.2} of the CPU of the one that is asked",
        ratio(|round| round.a_cpu_second),
        ratio(|round| round.of_both),
        ratio(|round| round.a_second),
        median(two.iter().map(|round| round.redis).collect())
    );
}

struct Load<'a> {
    server: Server,
    crowd: Crowd,
    clients: Clients<'a>,
}

/// Who likes, and who waits to hear of it.
struct Clients<'a> {
    posters: Vec<Poster>,
    /// Of each owner: how many likes were asked for, and when those that have not come were.
    owners: Vec<(usize, VecDeque<u64>)>,
    tokens: &'a [String],
    likes: bool,
    /// From a like's request to its frame.
    took_us: Vec<u64>,
    /// Frames that nobody asked for, and answers that are not 200.
    odd: usize,
}

struct Poster {
    stream: TcpStream,
    /// The owner whose turn is next.
    owner: usize,
    answer: Vec<u8>,
}

impl<'a> Load<'a> {
    fn start(kind: Kind, tokens: &'a [String]) -> Self {
        let server = Server::start(kind, OWNERS as i64, TENANTS as i64, "");
        let mut crowd = Crowd::new();
        crowd.open(server.address, OWNERS);
        let posters = (0..POSTERS).map(|n| Poster::connect(server.address, &crowd, n)).collect();
        let owners = (0..OWNERS).map(|_| (0, VecDeque::new())).collect();
        let clients = Clients { posters, owners, tokens, likes: true, took_us: Vec::new(), odd: 0 };
        Self { server, crowd, clients }
    }

    fn measure(&mut self) -> Round {
        (0..POSTERS).for_each(|n| self.clients.like(n));
        self.run(WARM_UP_S);
        self.clients.took_us.clear();
        let (cpu_s, (follower_s, redis_s)) = (self.server.cpu_s(), self.server.cpu_s_beside());
        let began_us = now().monotonic_us;
        self.run(MEASURE_S);
        let (cpu_s, took_s) = (self.server.cpu_s() - cpu_s, (now().monotonic_us - began_us) as f64 / 1e6);
        let beside = self.server.cpu_s_beside();
        let (follower_s, redis_s) = (beside.0 - follower_s, beside.1 - redis_s);
        let mut took_us = std::mem::take(&mut self.clients.took_us);
        took_us.sort_unstable();
        let part = |share: f64| took_us[(took_us.len() as f64 * share) as usize] as f64 / 1e3;
        let count = took_us.len() as f64;
        Round {
            a_cpu_second: count / cpu_s,
            of_both: count / (cpu_s + follower_s),
            redis: redis_s / cpu_s,
            a_second: count / took_s,
            p50_ms: part(0.5),
            p99_ms: part(0.99),
        }
    }

    fn run(&mut self, seconds: f64) {
        let clients = &mut self.clients;
        self.crowd.listen(seconds, |heard| clients.hear(heard));
    }

    /// Lets what is under way arrive; then what is missing or too much.
    fn wrong(&mut self) -> usize {
        self.clients.likes = false;
        let until_us = now().monotonic_us + PATIENCE_US;
        while self.clients.owed() > 0 && now().monotonic_us < until_us {
            let clients = &mut self.clients;
            self.crowd.turn(Duration::from_millis(100), |heard| clients.hear(heard));
        }
        self.clients.owed() + self.clients.odd + usize::from(!self.server.agrees())
    }
}

impl Clients<'_> {
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Ping => {}
            Heard::Text(owner) => match self.owners[owner].1.pop_front() {
                Some(asked_us) => self.took_us.push(now().monotonic_us - asked_us),
                None => self.odd += 1,
            },
            Heard::Other(Token(token)) => {
                let n = token - OWNERS;
                if let Some(is_good) = self.posters[n].read() {
                    self.odd += usize::from(!is_good);
                    if self.likes {
                        self.like(n);
                    }
                }
            }
        }
    }

    fn like(&mut self, n: usize) {
        let poster = &mut self.posters[n];
        let owner = poster.owner;
        poster.owner = if owner + POSTERS < OWNERS { owner + POSTERS } else { n };
        let (asked, waiting) = &mut self.owners[owner];
        assert!(*asked < TENANTS, "every tenant has liked every property: raise TENANTS for this machine");
        let request = format!(
            "POST /api/properties/{}/like/ HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
            owner + 1,
            self.tokens[*asked]
        );
        *asked += 1;
        waiting.push_back(now().monotonic_us);
        assert_eq!(poster.stream.write(request.as_bytes()).unwrap(), request.len());
    }

    fn owed(&self) -> usize {
        self.owners.iter().map(|(_, waiting)| waiting.len()).sum()
    }
}

impl Poster {
    fn connect(address: SocketAddr, crowd: &Crowd, n: usize) -> Self {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        crowd.poll.registry().register(&mut stream, Token(OWNERS + n), Interest::READABLE).unwrap();
        Self { stream, owner: n, answer: Vec::new() }
    }

    /// Whether the answer is a good one, once all of it has come.
    fn read(&mut self) -> Option<bool> {
        let mut buffer = [0; 4_096];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the server closed a poster's connection"),
            Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("{e}"),
        }
        let head = self.answer.windows(4).position(|end| end == b"\r\n\r\n")?;
        let text = str::from_utf8(&self.answer[..head]).unwrap().to_ascii_lowercase();
        let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let end = head + 4 + length.parse::<usize>().unwrap();
        (self.answer.len() >= end).then(|| {
            self.answer.clear();
            text.starts_with("http/1.1 200 ")
        })
    }
}
