//! Owns a simulated life: a hub that is restarted, devices that come, answer, fall silent and vanish, a storage that
//! delays, fails and crashes, clocks that jump. After each step, what must hold is checked. Never opens a socket.
//!
//! `cargo test simulation` lives a few lives; `SEEDS=10000 cargo test --release simulation` many; `SEED=n` that one.
//! Enter at [`World::step`].

mod check;
mod device;
mod ledger;
mod poster;

use super::random::Random;
use super::stage::{START, Stage};
use super::{TENANTS, inhabited, rules, signer, wire};
use crate::auth::Signer;
use crate::config::{Ack, Config};
use crate::hub::connection::State;
use crate::matching::UserId;
use crate::notification::Channel;
use crate::storage::stepwise::{Fault, Store};
use device::{Mood, Socket};
use ledger::Ledger;
use poster::Poster;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Lives that `cargo test` lives, and the steps of each.
const SEEDS: u64 = 50;
const STEPS: usize = 400;

#[test]
fn whatever_happens_nothing_is_lost_doubled_or_early() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, many) => 1..many.unwrap_or(SEEDS) + 1,
    };
    for seed in seeds {
        if catch_unwind(AssertUnwindSafe(|| live(seed))).is_err() {
            panic!("again with: SEED={seed} cargo test simulation");
        }
    }
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    world.end();
}

struct World {
    random: Random,
    stage: Stage,
    config: Config,
    ack: Ack,
    users: i64,
    signer: Signer,
    sockets: Vec<Socket>,
    posters: Vec<Poster>,
    ledger: Ledger,
    fault: bool,
    /// Storage takes a step in one of so many turns.
    pace: u64,
    /// Whom half of everything is about.
    favourite: (UserId, Channel),
    /// Bytes that some notifications are long: then a replay has several pages.
    length: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut config = Config::default();
        config.delivery.ack = [Ack::Pong, Ack::Pong, Ack::Pong, Ack::Client, Ack::Written][random.below(5) as usize];
        config.delivery.replay_max = [1_000, 1_000, 3, 1][random.below(4) as usize];
        config.storage.retention = Duration::from_secs(2 * 24 * 60 * 60);
        config.limits.requests_per_second = 0;
        config.limits.outbound = [256 * 1024, 4 * 1024, 1_200][random.below(3) as usize];
        config.limits.storage_queue = [10_000, 10_000, 8][random.below(3) as usize];
        config.limits.connections_per_user = [16, 3][random.below(2) as usize];
        let store = inhabited();
        let mut rules = rules(&config);
        rules.page_rows = [100, 2, 1][random.below(3) as usize];
        let mut stage = Stage::new(rules, store, START, random.next());
        stage.chunk = [64 * 1024, 512, 7][random.below(3) as usize];
        let ack = config.delivery.ack;
        let (users, signer) = (TENANTS[1], signer());
        let (sockets, posters, ledger) = (Vec::new(), Vec::new(), Ledger::default());
        let pace = [1, 1, 4][random.below(3) as usize];
        let favourite = (UserId(1 + random.below(users as u64) as i64), Channel::ALL[random.below(2) as usize]);
        let length = [0, 0, 30_000][random.below(3) as usize];
        let fault = false;
        Self { random, stage, config, ack, users, signer, sockets, posters, ledger, fault, pace, favourite, length }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..9 => self.connect(),
            9..23 => self.post(),
            23..43 => self.device_reads(),
            43..48 => self.device_says(),
            48..51 => self.device_answers(),
            51..56 => self.device_leaves(),
            56..58 => self.device_changes_its_mood(),
            58..85 => self.storage_works(),
            85..89 => drop(self.posters_read()),
            89..93 => self.time_passes(),
            93..95 => self.storage_fails_or_heals(),
            95 => self.crash(),
            96 => self.rest(),
            _ => self.device_comes_back(),
        }
        self.turn();
    }

    /// What they were for may come again, on sockets that connect later and on those that are there already.
    fn forget_lost_receipts(&mut self) {
        self.ledger.forget_lost_receipts(&self.stage.store);
        for socket in &mut self.sockets {
            socket.settled.retain(|id| self.ledger.acknowledged.contains(id));
        }
    }

    fn turn(&mut self) {
        let known = self.stage.hub.committed;
        self.stage.turn();
        for socket in self.sockets.iter_mut().filter(|socket| socket.mark.is_none()) {
            if self.stage.hub.feed(socket.ticket).is_some() {
                socket.mark = Some(known);
                if socket.since.is_none() {
                    // Of a row behind that the hub has not heard yet, though a page may have brought it: to it, that is live.
                    let settled = self.ledger.acknowledged.iter().copied().filter(|id| *id <= known.0);
                    socket.settled = settled.collect();
                }
            }
        }
        self.sockets.retain(|socket| {
            let line = socket.end.borrow();
            !(line.over && line.to_client.is_empty() && line.written.is_empty())
        });
    }

    fn token(&self, user: i64, ttl_s: u64) -> String {
        self.signer.access(UserId(user), self.stage.now.wall_ms, Duration::from_secs(ttl_s))
    }

    fn connect(&mut self) {
        if self.sockets.iter().filter(|socket| !socket.over).count() >= 10 {
            return;
        }
        let (user, channel) = self.somebody();
        self.connect_as(user, channel);
    }

    fn connect_as(&mut self, UserId(user): UserId, channel: Channel) {
        let window = [64, 700, 64 * 1024][self.random.below(3) as usize];
        let mood = [Mood::Answers, Mood::Answers, Mood::Slow, Mood::Mute][self.random.below(4) as usize];
        let Some((ticket, end)) = self.stage.accept(window) else { return };
        let mut socket = Socket::new(UserId(user), channel, ticket, end, mood);
        let mut more = String::new();
        if self.random.one_in(3) {
            let rows: Vec<(i64, _)> = self.ledger.rows.iter().map(|(id, row)| (*id, row.uuid)).collect();
            if let Some((id, uuid)) = self.random.pick(&rows) {
                more = format!("&since={uuid}");
                socket.since = Some(*id);
            }
        }
        let ttl_s = [40, 3_600, 864_000][self.random.below(3) as usize];
        let target = format!("/ws/{}-notifications/{user}/?token={}{more}", channel.as_str(), self.token(user, ttl_s));
        let request = handshake(&target);
        let request = socket.say(request);
        self.stage.send(ticket, &socket.end, &request);
        self.sockets.push(socket);
    }

    /// A user and a channel: every other time the same.
    fn somebody(&mut self) -> (UserId, Channel) {
        if self.random.one_in(2) {
            return self.favourite;
        }
        let user = UserId(1 + self.random.below(self.users as u64) as i64);
        (user, Channel::ALL[self.random.below(2) as usize])
    }

    fn some_socket(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.sockets.len()).filter(|place| !self.sockets[*place].over).collect();
        self.random.pick(&open).copied()
    }

    fn device_reads(&mut self) {
        let Some(place) = self.some_socket() else { return };
        let most = [1, 50, 4_000, usize::MAX][self.random.below(4) as usize];
        self.reads(place, most);
    }

    /// True if there was something to read or to answer.
    fn reads(&mut self, place: usize, most: usize) -> bool {
        let socket = &mut self.sockets[place];
        // What was written is checked first: only then is it known what it may be.
        socket.check_written(&mut self.ledger);
        let bytes = self.stage.read(socket.ticket, &socket.end, most);
        let said = socket.hear(&bytes, &mut self.ledger);
        if !said.is_empty() {
            self.stage.send(socket.ticket, &socket.end, &said);
        }
        let line = socket.end.borrow();
        let at_end = line.over && line.to_client.is_empty();
        drop(line);
        socket.over |= at_end;
        !bytes.is_empty()
    }

    fn device_answers(&mut self) {
        let Some(place) = self.some_socket() else { return };
        let socket = &mut self.sockets[place];
        if socket.mood != Mood::Mute {
            let pong = socket.answer();
            self.stage.send(socket.ticket, &socket.end, &pong);
        }
    }

    fn device_says(&mut self) {
        let Some(place) = self.some_socket() else { return };
        let user = self.sockets[place].user.0;
        let token = self.token(user, 3_600);
        let socket = &mut self.sockets[place];
        if socket.mark.is_none() {
            return;
        }
        let frame = match self.random.below(12) {
            0 => wire::sent(wire::PING, b"alive?"),
            1 => wire::sent(wire::PONG, b"unasked"),
            2 => wire::sent(wire::PONG, &[7; 16]),
            3 => wire::sent(wire::BINARY, b"?"),
            _ => wire::sent(wire::TEXT, socket.message(&mut self.random, &self.ledger, &token).as_bytes()),
        };
        let frame = socket.say(frame);
        self.stage.send(socket.ticket, &socket.end, &frame);
    }

    fn device_leaves(&mut self) {
        let Some(place) = self.some_socket() else { return };
        let socket = &mut self.sockets[place];
        match self.random.below(4) {
            0 => {
                let close = wire::sent(wire::CLOSE, &1000_u16.to_be_bytes());
                let close = socket.say(close);
                self.stage.send(socket.ticket, &socket.end, &close);
            }
            1 => self.stage.end(socket.ticket, &socket.end),
            _ => self.stage.reset(socket.ticket, &socket.end),
        }
        socket.over = true;
    }

    /// It reads and answers what there is, breaks off and connects anew.
    fn device_comes_back(&mut self) {
        let Some(place) = self.some_socket() else { return };
        self.sockets[place].mood = Mood::Answers;
        self.reads(place, usize::MAX);
        self.turn();
        self.check();
        let Some(socket) = self.sockets.get_mut(place) else { return };
        self.stage.reset(socket.ticket, &socket.end);
        socket.over = true;
        let (user, channel) = (socket.user, socket.channel);
        self.connect_as(user, channel);
    }

    fn device_changes_its_mood(&mut self) {
        let Some(place) = self.some_socket() else { return };
        self.sockets[place].mood = [Mood::Answers, Mood::Slow, Mood::Mute][self.random.below(3) as usize];
    }

    /// One of its threads goes one step on; where it is slow, seldom.
    fn storage_works(&mut self) {
        if !self.random.one_in(self.pace) {
            return;
        }
        match self.random.below(9) {
            0..3 => self.commit(),
            3..5 => self.stage.store.tell(),
            5..7 => self.read_storage(),
            7 => self.stage.store.answer(),
            _ => self.stage.store.idle(),
        }
    }

    fn commit(&mut self) {
        let count = 1 + self.random.below(12) as usize;
        self.commit_some(count);
    }

    fn commit_some(&mut self, count: usize) {
        if self.stage.store.is_failing() && self.random.one_in(2) {
            self.stage.store.probe();
        }
        self.stage.store.commit(count);
        self.ledger.refresh(&self.stage.store);
        self.forget_lost_receipts();
    }

    fn read_storage(&mut self) {
        let works = !self.random.one_in(20);
        self.stage.store.look(works);
    }

    fn time_passes(&mut self) {
        let ms = [5, 30, 1_000, 12_000, 26_000][self.random.below(5) as usize];
        self.stage.pass(ms);
        if self.random.one_in(8) {
            let hours = self.random.below(60) as i64 - 24;
            self.stage.now.wall_ms += hours * 60 * 60 * 1_000;
        }
    }

    fn storage_fails_or_heals(&mut self) {
        self.fault = !self.fault;
        if self.fault {
            let fault = if self.random.one_in(2) { Fault::Full } else { Fault::ReadOnly };
            self.stage.store.fail(fault);
        } else {
            self.stage.store.heal();
        }
    }

    /// `kill -9`, and up again on the same rows.
    fn crash(&mut self) {
        let spare = Store::new();
        let store = std::mem::replace(&mut self.stage.store, spare).crash();
        for end in self.sockets.iter().map(|socket| &socket.end).chain(self.posters.iter().map(|poster| &poster.end)) {
            let mut line = end.borrow_mut();
            (line.broken, line.over) = (true, true);
        }
        for socket in &mut self.sockets {
            socket.check_written(&mut self.ledger);
        }
        self.sockets.clear();
        self.posters.clear();
        self.ledger.refresh(&store);
        let chunk = self.stage.chunk;
        self.stage = Stage::new(rules(&self.config), store, self.stage.now, self.random.next());
        self.stage.chunk = chunk;
        self.forget_lost_receipts();
    }

    /// Everything that can go on without time does.
    fn rest(&mut self) {
        for socket in &self.sockets {
            self.stage.open_window(socket.ticket, &socket.end, 64 * 1024);
        }
        for _ in 0..1_000 {
            self.server_rests();
            let mut moved = false;
            for place in 0..self.sockets.len() {
                moved |= !self.sockets[place].over && self.reads(place, usize::MAX);
            }
            moved |= self.posters_read();
            if !moved && self.stage.is_idle() {
                self.turn();
                self.check();
                return self.check_rest();
            }
        }
        panic!("it never comes to rest");
    }

    fn server_rests(&mut self) {
        loop {
            let idle = self.stage.is_idle();
            self.commit_some(usize::MAX);
            self.stage.store.tell();
            self.stage.store.answer_all();
            self.turn();
            for socket in &mut self.sockets {
                socket.check_written(&mut self.ledger);
            }
            if idle && self.stage.is_idle() {
                return;
            }
        }
    }

    /// Storage heals, everybody leaves, and each user comes once more and answers: then nothing waits, nothing is lost.
    fn end(&mut self) {
        self.fault = false;
        self.stage.store.heal();
        self.stage.store.probe();
        self.rest();
        let mut served = self.posters.iter().filter(|poster| !poster.end.borrow().over);
        assert!(served.all(Poster::is_answered), "a request was never answered");
        for socket in &mut self.sockets {
            self.stage.reset(socket.ticket, &socket.end);
            socket.over = true;
        }
        self.rest();
        self.sockets.clear();
        assert_eq!(self.stage.hub.feeds, 0);
        for user in 1..=self.users {
            for channel in Channel::ALL {
                self.last_visit(user, channel);
            }
        }
        self.ledger.check_posts(&self.stage.store);
        let entries = self.stage.hub.table.iter().map(|(_, entry)| &entry.connection.state);
        assert!(entries.into_iter().all(|state| matches!(state, State::Http(_) | State::Feed(_))));
    }

    fn last_visit(&mut self, user: i64, channel: Channel) {
        let Some((ticket, end)) = self.stage.accept(64 * 1024) else { panic!("full") };
        let mut socket = Socket::new(UserId(user), channel, ticket, end, Mood::Answers);
        let target = format!("/ws/{}-notifications/{user}/?token={}", channel.as_str(), self.token(user, 60));
        let request = socket.say(handshake(&target));
        self.stage.send(ticket, &socket.end, &request);
        self.sockets.push(socket);
        self.rest();
        self.stage.pass(1_000);
        let place = self.sockets.len() - 1;
        if self.ack == Ack::Client {
            let all = self.sockets[place].got.last().map(|id| self.ledger.rows[id].uuid);
            if let Some(uuid) = all {
                let text = format!(r#"{{"type":"ack","notification_id":"{uuid}"}}"#);
                let frame = self.sockets[place].say(wire::sent(wire::TEXT, text.as_bytes()));
                self.stage.send(ticket, &self.sockets[place].end, &frame);
                self.rest();
            }
        }
        let served = self.stage.hub.users.standing(UserId(user)) == crate::storage::job::Standing::Active;
        for (id, row) in self.ledger.of(UserId(user), channel).filter(|_| served) {
            assert!(!row.waits(), "row {id} was never delivered: {row:?}");
        }
    }
}

fn handshake(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}
