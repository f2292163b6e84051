//! Owns the golden conversations of `tests/transcripts`: what clients send, and the server's every byte in answer, on
//! clocks that stand still between the lines. Each is played again with the client's bytes cut anywhere, and must read
//! the same. `BLESS=1 cargo test transcripts` writes down what is said now, for `git diff` to show.
//! Never opens a socket. Enter at [`play`].
//!
//! ```text
//! set HABITTOD_LIMITS_HEAD_TIMEOUT 10s       before anything else
//! a> GET / HTTP/1.1|Host: h|                 | is CRLF, {length} what the body has; the first line opens `a`
//! a opens property 1 [since={n1}] [for=60s]  a handshake with a good token
//! a> {"type":"ping"}                         a text message, once it is a socket
//! a> 101* {"type":"ping"}                    the same 101 times
//! a> PING x, PONG x, PONG! 3, BINARY x, CLOSE 1000, HEX 81 …     PONG! echoes the Ping that names row 3
//! a ends, a resets, a window 100             half-closes, breaks off, lets so many bytes wait
//! notify 1 property hola [times=5]           the backend tells user 1
//! deactivate 1                               the backend bars user 1
//! storage holds, storage commits, storage answers, storage cannot read, storage goes on, storage fails, storage heals
//! storage writes, storage looks               the parts of "commits": one batch; a snapshot for the first question
//! wait 30s, wall 1h                          both clocks, or the wall clock alone
//! reload HABITTOD_LIMITS_PING_INTERVAL 5s    SIGHUP, with this beside what was set
//! drain                                      SIGTERM
//! {n1} the UUID of row 1, {unknown} of none; {user 1}, {user 1 for=60s}, {service} tokens; {x*100} 100 times x
//! ```

use super::random::Random;
use super::stage::{End, START, Stage};
use super::wire::{self, Reading, Said};
use super::{inhabited, rules, signer};
use crate::api::command::{Command, Recipients};
use crate::config::{Config, duration};
use crate::matching::{User, UserId};
use crate::notification::{Channel, General, NotificationId};
use crate::storage::job::{Errand, Job, Ticket};
use crate::storage::stepwise::Fault;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Ways in which each conversation is cut.
const CUTS: u64 = 5;

#[test]
fn transcripts_are_spoken_to_the_letter() {
    for (path, text) in all() {
        let spoken = play(&text, None);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &spoken).unwrap();
        } else {
            same(&path, &text, &spoken, "at once");
        }
    }
}

#[test]
fn transcripts_read_the_same_however_their_bytes_are_cut() {
    for (path, text) in all() {
        for seed in 0..CUTS {
            same(&path, &text, &play(&text, Some(Random::new(seed))), &format!("cut by seed {seed}"));
        }
    }
}

fn all() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

fn same(path: &Path, written: &str, spoken: &str, how: &str) {
    let differs = written.lines().zip(spoken.lines()).position(|(a, b)| a != b);
    let place = differs.or_else(|| (written != spoken).then(|| written.lines().count().min(spoken.lines().count())));
    if let Some(place) = place {
        let line = |text: &str| text.lines().nth(place).unwrap_or("(the end)").to_owned();
        panic!("{}:{}: {how}\nwritten: {}\n spoken: {}", path.display(), place + 1, line(written), line(spoken));
    }
}

/// The same conversation, with what the server really says.
fn play(text: &str, cuts: Option<Random>) -> String {
    let lines = || text.lines().filter(|line| !is_answer(line));
    let settings = lines().filter_map(|line| line.strip_prefix("set ")?.split_once(' '));
    let settings: Settings = settings.map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    let config = Config::load(None, settings.clone()).unwrap();
    let stage = Stage::new(rules(&config), inhabited(), START, 7);
    let mut play = Play { stage, settings, clients: Vec::new(), holds: false, cuts, spoken: String::new() };
    for line in lines() {
        play.spoken.push_str(line);
        play.spoken.push('\n');
        play.line(line);
        play.settle();
        play.listen();
    }
    play.spoken
}

fn is_answer(line: &str) -> bool {
    line.split_once(' ').is_some_and(|(word, _)| word.ends_with('<'))
}

struct Client {
    name: String,
    ticket: Ticket,
    end: End,
    reading: Reading,
    upgraded: bool,
    pings: Vec<Vec<u8>>,
    over: bool,
}

type Settings = Vec<(OsString, OsString)>;

struct Play {
    stage: Stage,
    settings: Settings,
    clients: Vec<Client>,
    /// Storage does nothing by itself.
    holds: bool,
    cuts: Option<Random>,
    spoken: String,
}

impl Play {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [] | ["" | "set", ..] => {}
            [word, ..] if word.starts_with('#') => {}
            ["wait", time] => self.stage.pass(ms(time)),
            ["wall", time] => self.stage.now.wall_ms += ms(time) as i64,
            ["reload", name, value] => {
                self.settings.push((OsString::from(name), OsString::from(value)));
                let config = Config::load(None, self.settings.clone()).unwrap();
                self.stage.hub.obey(self.stage.now, rules(&config));
            }
            ["drain"] => self.stage.hub.drain(self.stage.now),
            ["storage", "holds"] => self.holds = true,
            ["storage", "commits"] => self.store_works(),
            ["storage", "writes"] => {
                self.stage.store.commit(usize::MAX);
                self.stage.store.tell();
            }
            ["storage", "looks"] => self.stage.store.look(true),
            ["storage", "answers"] => self.stage.store.answer_all(),
            ["storage", "goes", "on"] => self.holds = false,
            ["storage", "fails"] => self.stage.store.fail(Fault::ReadOnly),
            ["storage", "cannot", "read"] => {
                self.stage.store.commit(usize::MAX);
                self.stage.store.tell();
                self.stage.store.look(false);
                self.stage.store.answer();
            }
            ["storage", "heals"] => {
                self.stage.store.heal();
                self.stage.store.probe();
            }
            ["notify", user, channel, message, more @ ..] => self.notify(user, channel, message, more),
            ["deactivate", user] => self.deactivate(user),
            [name, "opens", channel, user, more @ ..] => self.opens(name, channel, user, more),
            [name, "ends"] => {
                let client = self.client(name);
                let (ticket, end) = (client.ticket, End::clone(&client.end));
                self.stage.end(ticket, &end);
            }
            [name, "resets"] => {
                let client = self.client(name);
                let (ticket, end) = (client.ticket, End::clone(&client.end));
                self.stage.reset(ticket, &end);
            }
            [name, "window", bytes] => {
                let client = self.client(name);
                let (ticket, end) = (client.ticket, End::clone(&client.end));
                self.stage.open_window(ticket, &end, bytes.parse().unwrap());
            }
            [name, said @ ..] if name.ends_with('>') => self.says(name.trim_end_matches('>'), &said.join(" ")),
            _ => panic!("what is {line:?}?"),
        }
    }

    fn client(&mut self, name: &str) -> &mut Client {
        let known = self.clients.iter().position(|client| client.name == name && !client.over);
        let place = known.unwrap_or_else(|| {
            let (ticket, end) = self.stage.accept(1 << 20).unwrap();
            let (reading, pings) = (Reading::default(), Vec::new());
            let name = name.to_owned();
            self.clients.push(Client { name, ticket, end, reading, upgraded: false, pings, over: false });
            self.clients.len() - 1
        });
        &mut self.clients[place]
    }

    fn says(&mut self, name: &str, said: &str) {
        let length = said.split_once("||").map_or(0, |(_, body)| body.len() + body.matches('|').count());
        let text = self.filled(&said.replace("{length}", &length.to_string()));
        let (times, text) =
            text.split_once("* ").and_then(|(n, text)| Some((n.parse().ok()?, text))).unwrap_or((1, &text));
        let client = self.client(name);
        client.reading.is_head = text.starts_with("HEAD ");
        let bytes = match text.split_once(' ').filter(|_| client.upgraded || text.starts_with("HEX")) {
            Some(("PING", payload)) => wire::sent(wire::PING, payload.as_bytes()),
            Some(("PONG", payload)) => wire::sent(wire::PONG, payload.as_bytes()),
            Some(("PONG!", row)) => {
                let row = row.parse::<i64>().unwrap().to_be_bytes();
                let ping = client.pings.iter().rfind(|ping| ping.ends_with(&row)).expect("a Ping that names this row");
                wire::sent(wire::PONG, ping)
            }
            Some(("BINARY", payload)) => wire::sent(wire::BINARY, payload.as_bytes()),
            Some(("CLOSE", code)) => wire::sent(wire::CLOSE, &code.parse::<u16>().unwrap().to_be_bytes()),
            Some(("HEX", digits)) => {
                digits.split(' ').map(|two| u8::from_str_radix(two, 16).unwrap()).collect::<Vec<u8>>()
            }
            _ if client.upgraded => wire::sent(wire::TEXT, text.as_bytes()),
            _ => text.replace('|', "\r\n").into_bytes(),
        };
        let (ticket, end) = (client.ticket, End::clone(&client.end));
        self.send(ticket, &end, &bytes.repeat(times));
    }

    /// At once, or in pieces with a turn after each.
    fn send(&mut self, ticket: Ticket, end: &End, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(cuts) = &mut self.cuts
            && !rest.is_empty()
        {
            let most = [1, 5, 200][cuts.below(3) as usize].min(rest.len());
            let (piece, behind) = rest.split_at(1 + cuts.below(most as u64) as usize);
            self.stage.send(ticket, end, piece);
            self.stage.turn();
            rest = behind;
        }
        self.stage.send(ticket, end, rest);
    }

    fn opens(&mut self, name: &str, channel: &str, user: &str, more: &[&str]) {
        let option = |wanted: &str| more.iter().find_map(|option| option.strip_prefix(wanted));
        let ttl = option("for=").unwrap_or("1h");
        let since = option("since=").map(|id| format!("&since={id}")).unwrap_or_default();
        let target = format!("/ws/{channel}-notifications/{user}/?token={{user {user} for={ttl}}}{since}");
        let head = "Host: h|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Version: 13|\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==||";
        self.says(name, &format!("GET {target} HTTP/1.1|{head}"));
    }

    fn notify(&mut self, user: &str, channel: &str, message: &str, more: &[&str]) {
        let times = more.first().map_or(1, |word| word.strip_prefix("times=").unwrap().parse().unwrap());
        for _ in 0..times {
            let general = General {
                kind: "aviso".to_owned(),
                title: String::new(),
                message: self.filled(message),
                data: "{}".to_owned(),
            };
            let to = Recipients::One(UserId::parse(user).unwrap(), None);
            self.write(Command::Notify { to, channel: Channel::parse(channel).unwrap(), general });
        }
    }

    fn deactivate(&mut self, user: &str) {
        let id = UserId::parse(user).unwrap();
        let user = User { username: format!("u{id}"), ..User::default() };
        self.write(Command::PutUser { id, user, is_active: Some(false), password: None });
    }

    fn write(&mut self, command: Command) {
        let (ticket, idempotency, at_ms, asked_us) = (None, None, self.stage.now.wall_ms, 0);
        self.stage.store.errands.push_back(Errand::Write(Job { command, ticket, idempotency, at_ms, asked_us }));
    }

    fn store_works(&mut self) {
        self.stage.store.commit(usize::MAX);
        self.stage.store.tell();
        self.stage.store.answer_all();
    }

    fn settle(&mut self) {
        loop {
            if !self.holds {
                self.store_works();
            }
            self.stage.turn();
            let still = if self.holds { self.stage.is_still() } else { self.stage.is_idle() };
            if still {
                return;
            }
        }
    }

    /// Writes down what each client hears.
    fn listen(&mut self) {
        let rows = self.rows();
        for place in 0..self.clients.len() {
            let client = &mut self.clients[place];
            if client.end.borrow().window < 1 << 20 || client.over {
                continue;
            }
            let bytes = self.stage.read(client.ticket, &client.end, usize::MAX);
            client.reading.feed(&bytes);
            let mut heard = Vec::new();
            while let Some(said) = client.reading.next() {
                if let Said::Ping(payload) = &said {
                    client.pings.push(payload.clone());
                }
                client.upgraded |= matches!(said, Said::Response(101, ..));
                heard.push(shown(said));
            }
            if client.end.borrow().over {
                client.over = true;
                heard.push("END".to_owned());
            }
            for same in heard.chunk_by(|one, next| one == next) {
                let (name, mut text) = (&client.name, same[0].clone());
                for (id, uuid) in &rows {
                    text = text.replace(&uuid.to_string(), &format!("{{n{id}}}"));
                }
                let times = if same.len() > 1 { format!("{}* ", same.len()) } else { String::new() };
                self.spoken.push_str(&format!("{name}< {times}{text}\n"));
            }
        }
        self.settle();
    }

    fn rows(&self) -> Vec<(i64, Uuid)> {
        let mut select =
            self.stage.store.db().prepare("SELECT id, created_ms, user, channel FROM notification").unwrap();
        let rows = select.query_map([], |row| {
            let channel = Channel::ALL[row.get::<_, i64>(3)? as usize];
            let id: i64 = row.get(0)?;
            Ok((id, NotificationId(id).uuid(row.get(1)?, UserId(row.get(2)?), channel)))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Puts in what stands between braces.
    fn filled(&self, text: &str) -> String {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            whole.push_str(before);
            let put = behind.split_once('}').and_then(|(name, after)| Some((self.value(name)?, after)));
            rest = if let Some((value, after)) = put {
                whole.push_str(&value);
                after
            } else {
                whole.push('{');
                behind
            };
        }
        whole + rest
    }

    fn value(&self, name: &str) -> Option<String> {
        if let Some(row) = name.strip_prefix('n').and_then(|row| row.parse::<i64>().ok()) {
            return self.rows().iter().find(|(id, _)| *id == row).map(|(_, uuid)| uuid.to_string());
        }
        if let Some((text, times)) = name.split_once('*') {
            return Some(text.repeat(times.parse().ok()?));
        }
        let words: Vec<&str> = name.split(' ').collect();
        let now_ms = self.stage.now.wall_ms;
        let hour = Duration::from_secs(3_600);
        match words.as_slice() {
            ["unknown"] => Some("0197a2b4-0000-7000-8000-000000000001".to_owned()),
            ["service"] => Some(signer().service(now_ms, hour)),
            ["user", id] => Some(signer().access(UserId::parse(id)?, now_ms, hour)),
            ["user", id, ttl] => {
                let ttl = duration(ttl.strip_prefix("for=")?).ok()?;
                Some(signer().access(UserId::parse(id)?, now_ms, ttl))
            }
            _ => None,
        }
    }
}

fn shown(said: Said) -> String {
    match said {
        Said::Response(_, head, body) => {
            let head = head.trim_end().replace("\r\n", " | ");
            if body.is_empty() { head } else { format!("{head} || {body}") }
        }
        Said::Text(text) if text.len() > 1_000 => format!("({} bytes)", text.len()),
        Said::Text(text) => text,
        Said::Ping(payload) if payload.len() == 16 => {
            format!("PING {}", i64::from_be_bytes(payload[8..].try_into().unwrap()))
        }
        Said::Ping(payload) => format!("PING {}", String::from_utf8_lossy(&payload)),
        Said::Pong(payload) => format!("PONG {}", String::from_utf8_lossy(&payload)),
        Said::Close(code) => format!("CLOSE {}", code.map_or_else(String::new, |code| code.to_string())),
    }
}

fn ms(text: &str) -> u64 {
    duration(text).unwrap().as_millis() as u64
}
