//! Measures the storage threads: likes a second by how many are under way, on a real file that is really synced. Each
//! like is a row of its match and one of its notification; its receipt follows, as the owner's Pong would make it, and
//! rides on a later commit.
//!
//! A good figure: the rate grows ten times from 1 to 64 under way, for they share their syncs; beyond that SQLite's own
//! work is the limit, some 30 microseconds a like with its receipt. With one under way it is the disk that is measured.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on has failed")]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use habittod::api::command::Command;
use habittod::clock::Clock;
use habittod::inbox::{Letter, post_office};
use habittod::matching::{Property, PropertyId, User, UserId};
use habittod::storage::Storage;
use habittod::storage::file::DatabaseFile;
use habittod::storage::job::{Change, Errand, Job};
use std::sync::mpsc::Receiver;
use std::time::Duration;

const OWNERS: i64 = 1_000;
const TENANTS: i64 = 1_000;
const FIRST_TENANT: i64 = 1_000_001;

struct Room {
    storage: Option<Storage>,
    inbox: Receiver<Letter>,
    clock: Clock,
    likes: i64,
    _folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (post, inbox) = post_office(|| {});
        let clock = Clock::start();
        let file = DatabaseFile::claim(&folder.path().join("habittod.db")).unwrap();
        let (storage, _) = Storage::open(file, clock, &post).unwrap();
        let mut room = Self { storage: Some(storage), inbox, clock, likes: 0, _folder: folder };
        let people = (1..=OWNERS).chain(FIRST_TENANT..FIRST_TENANT + TENANTS).map(put_user);
        let all: Vec<Command> = people.chain((1..=OWNERS).map(put_property)).collect();
        let count = all.len();
        all.into_iter().for_each(|command| room.write(command));
        let mut answered = 0;
        while answered < count {
            answered += room.committed().0;
        }
        room
    }

    fn write(&self, command: Command) {
        let now = self.clock.now();
        let (at_ms, asked_us) = (now.wall_ms, now.monotonic_us);
        let job = Job { command, ticket: None, idempotency: None, at_ms, asked_us };
        self.storage.as_ref().unwrap().leave(Errand::Write(job));
    }

    /// The next commit: how many jobs it was of, and the receipts that its notifications ask for.
    fn committed(&mut self) -> (usize, Vec<Command>) {
        let Letter::Committed { outcomes, .. } = self.inbox.recv().unwrap() else { panic!("not a commit") };
        let created = outcomes.iter().flat_map(|outcome| &outcome.changes).filter_map(|change| match change {
            Change::Created(n) => Some(Command::MarkDelivered { user: n.user, ids: vec![n.id] }),
            _ => None,
        });
        (outcomes.len(), created.collect())
    }

    /// No pair of tenant and property comes twice.
    fn like(&mut self) {
        let by = UserId(FIRST_TENANT + self.likes / OWNERS);
        let property = PropertyId(self.likes % OWNERS + 1);
        self.likes += 1;
        self.write(Command::ActOnProperty { by, property, likes: true, reason: None });
    }

    /// So many likes, of which so many are under way at once.
    fn likes(&mut self, count: u64, under_way: u64) -> Duration {
        let began_us = self.clock.now().monotonic_us;
        let (mut asked, mut done) = (0, 0);
        while done < count {
            while asked < count && asked - done < under_way {
                self.like();
                asked += 1;
            }
            let (_, receipts) = self.committed();
            done += receipts.len() as u64;
            receipts.into_iter().for_each(|receipt| self.write(receipt));
        }
        Duration::from_micros(self.clock.now().monotonic_us - began_us)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Before the folder goes.
        self.storage.take().unwrap().close();
    }
}

fn put_user(id: i64) -> Command {
    let user = User {
        username: format!("user{id}"),
        email: format!("user{id}@example.com"),
        first_name: "Ana".to_owned(),
        last_name: format!("Rojas {id}"),
        phone: "+59170000000".to_owned(),
        user_type: "inquilino".to_owned(),
        further: serde_json::Map::new(),
    };
    Command::PutUser { id: UserId(id), user, is_active: None, password: None }
}

fn put_property(id: i64) -> Command {
    let property = Property {
        owner: UserId(id),
        agent: None,
        kind: "departamento".to_owned(),
        address: format!("Av. Siempre Viva {id}"),
        price: None,
        bedrooms: None,
        is_active: true,
        further: serde_json::Map::new(),
    };
    Command::PutProperty { id: PropertyId(id), property }
}

fn likes(c: &mut Criterion) {
    let mut group = c.benchmark_group("likes with receipts, under way");
    group.sampling_mode(SamplingMode::Flat).sample_size(20).throughput(Throughput::Elements(1));
    for under_way in [1, 10, 64, 256] {
        group.bench_with_input(BenchmarkId::from_parameter(under_way), &under_way, |b, under_way| {
            let mut room = Room::new();
            b.iter_custom(|count| room.likes(count, *under_way));
        });
    }
    group.finish();
}

criterion_group!(benches, likes);
criterion_main!(benches);
