//! Measures what a notification costs the hub, without sockets and without storage: its outcome comes in, its frame goes
//! to so many live sockets of its user, each of which is pinged and answers.
//!
//! A good figure: a few microseconds for one socket, well under a microsecond for each further one: the frame is encoded
//! once, and what is left is a queue, a Ping and a Pong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on has failed")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use habittod::api::routes::Door;
use habittod::auth::{Signer, Verifier};
use habittod::clock::Now;
use habittod::config::Config;
use habittod::hub::{Hub, Rules};
use habittod::matching::{PropertyId, UserId};
use habittod::notification::{Channel, Content, Home, Notification, NotificationId, Person};
use habittod::storage::job::{Answer, Census, Change, Outcome, Ticket};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

const NOW: Now = Now { monotonic_us: 5_000_000, wall_ms: 1_700_000_000_000 };
const SECRET: &[u8] = &[b's'; 32];
const OWNER: UserId = UserId(7);

struct Room {
    hub: Hub<()>,
    feeds: Vec<Ticket>,
    last: NotificationId,
}

impl Room {
    fn with(feeds: usize) -> Self {
        let mut config = Config::default();
        config.limits.connections_per_user = 0;
        let rules = Rules::new(&config, Some(Verifier::from_secret(SECRET).unwrap()), feeds);
        let mut hub = Hub::new(NOW, rules, &Census::default(), 1);
        let token = Signer::from_secret(SECRET).unwrap().access(OWNER, NOW.wall_ms, Duration::from_secs(3_600));
        let feeds = (0..feeds).map(|_| connect(&mut hub, &token)).collect();
        Self { hub, feeds, last: NotificationId(0) }
    }

    fn notify(&mut self) {
        self.last.0 += 1;
        let changes = vec![Change::Created(like(self.last))];
        let outcome =
            Outcome { ticket: None, answer: Answer::Nothing, changes, asked_us: NOW.monotonic_us, ours: true };
        self.hub.committed(NOW, vec![outcome], 100);
        for ticket in &self.feeds {
            let mut pong = [0x8a, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let said = take(&mut self.hub, *ticket);
            pong[6..].copy_from_slice(&said[said.len() - 16..]);
            self.hub.receive(NOW, *ticket, &mut pong);
        }
        // One receipt a socket: what storage would answer.
        let receipts = self.hub.effects.errands.drain(..).count();
        assert_eq!(receipts, self.feeds.len());
        let done = || Outcome { ticket: None, answer: Answer::Nothing, changes: Vec::new(), asked_us: 0, ours: true };
        self.hub.answered(NOW, (0..receipts).map(|_| done()).collect());
        black_box(self.hub.effects.events.drain(..).count());
        black_box(self.hub.effects.sent.drain(..).count());
    }
}

fn connect(hub: &mut Hub<()>, token: &str) -> Ticket {
    let ticket = hub.accept(NOW, (), IpAddr::from([127, 0, 0, 1]), Door::Public).unwrap();
    let mut request = format!(
        "GET /ws/property-notifications/{OWNER}/?token={token} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    hub.receive(NOW, ticket, &mut request);
    let greeting = take(hub, ticket);
    assert!(greeting.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&greeting));
    hub.effects.events.clear();
    ticket
}

/// What the reactor does with a socket that takes everything.
fn take(hub: &mut Hub<()>, ticket: Ticket) -> Vec<u8> {
    let (_, outbound) = hub.outbound(ticket).unwrap();
    let bytes: Vec<u8> = outbound.slices().iter().flat_map(|slice| slice.iter().copied()).collect();
    outbound.wrote(bytes.len());
    hub.flushed(NOW, ticket);
    hub.effects.flush.clear();
    bytes
}

fn like(id: NotificationId) -> Notification {
    let home = Home { id: PropertyId(10), kind: "departamento".to_owned(), address: "Av. Siempre Viva 123".to_owned() };
    let tenant = Person {
        id: UserId(2),
        username: "juan_perez".to_owned(),
        email: "juan@example.com".to_owned(),
        first_name: "Juan".to_owned(),
        last_name: "Pérez".to_owned(),
        phone: "+59170000000".to_owned(),
        user_type: "inquilino".to_owned(),
    };
    let channel = Channel::Property;
    Notification {
        id,
        uuid: id.uuid(NOW.wall_ms, OWNER, channel),
        user: OWNER,
        channel,
        content: Content::PropertyLike { home, tenant, score: 0.0 },
        created_ms: NOW.wall_ms,
        delivered_ms: None,
        read_ms: None,
    }
}

fn notifications(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub/one notification to sockets");
    for feeds in [1, 10, 1_000] {
        group.throughput(Throughput::Elements(feeds as u64));
        group.bench_with_input(BenchmarkId::from_parameter(feeds), &feeds, |b, feeds| {
            let mut room = Room::with(*feeds);
            b.iter(|| room.notify());
        });
    }
    group.finish();
}

criterion_group!(benches, notifications);
criterion_main!(benches);
