//! Owns the log: one line an event on standard output, written by a thread of its own. Never blocks who writes to it:
//! where nobody reads, lines are dropped and counted. Enter at [`Log::write`]; what is written goes on its way with
//! [`Log::flush`], once a turn.

use crate::clock::rfc3339;
use crate::config::{Format, Level};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Bytes that may wait for a slow reader.
const WAITING_MAX: usize = 4 * 1024 * 1024;
/// At the end: how long a reader may take for what waits.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Every event there is; `src/README.md` says what each means.
pub const EVENTS: &[&str] = &[
    "listening",
    "connection_opened",
    "connection_closed",
    "refused",
    "limit_reached",
    "request",
    "refresh_token_reused",
    "notification_created",
    "notification_sent",
    "notification_delivered",
    "notification_read",
    "notification_replayed",
    "notification_skipped",
    "committed",
    "answer_failed",
    "accept_failing",
    "accept_works",
    "storage_failing",
    "storage_works",
    "shared_log_failing",
    "shared_log_works",
    "django_refused",
    "reloaded",
    "not_reloaded",
    "draining",
    "stopped",
    "log_lines_dropped",
];

pub struct Log {
    level: Level,
    format: Format,
    /// Lines of this turn.
    lines: Vec<u8>,
    count: u64,
    /// The last time that was written out, and its text.
    time: (i64, String),
    queue: Option<Sender<Chunk>>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
    /// All that were dropped here, and how many of those a line has told of.
    dropped: u64,
    told: u64,
}

/// Whole lines.
struct Chunk {
    bytes: Vec<u8>,
    count: u64,
}

/// Between the loop and the thread that writes.
#[derive(Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
    /// Nobody reads any more, and nobody will.
    closed: AtomicBool,
}

impl Log {
    /// `format`: by default text on a terminal, else JSON.
    #[must_use]
    pub fn start(level: Level, format: Option<Format>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
        Self::to(std::io::stdout(), level, format)
    }

    fn to(mut out: impl Write + Send + 'static, level: Level, format: Format) -> Self {
        let (queue, chunks) = channel();
        let (alive, ended) = channel();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // Where no thread can be had, nobody takes from the queue, and every line counts as dropped.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            print(&chunks, &mut out, &theirs);
        });
        Self {
            level,
            format,
            lines: Vec::new(),
            count: 0,
            time: (i64::MIN, String::new()),
            queue: Some(queue),
            ended,
            shared,
            dropped: 0,
            told: 0,
        }
    }

    #[must_use]
    pub fn takes(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Takes another level from now on.
    pub fn obey(&mut self, level: Level) {
        self.level = level;
    }

    /// Lines that nobody will read.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped + self.shared.lost.load(Ordering::Relaxed)
    }

    /// One line, if the level is taken; only then `fields` is called.
    pub fn write(&mut self, wall_ms: i64, level: Level, event: &'static str, fields: impl FnOnce(&mut Line<'_>)) {
        debug_assert!(EVENTS.contains(&event), "{event} is not documented");
        if !self.takes(level) {
            return;
        }
        let waiting = self.shared.waiting_bytes.load(Ordering::Relaxed) + self.lines.len();
        // What an operator has to know has room behind what is routine.
        let most = if level <= Level::Warn { 2 * WAITING_MAX } else { WAITING_MAX };
        if waiting > most || self.shared.closed.load(Ordering::Relaxed) {
            self.dropped += 1;
            return;
        }
        let lost = self.dropped() - self.told;
        if lost > 0 {
            self.told += lost;
            self.line(wall_ms, Level::Warn, "log_lines_dropped", |line| line.field("count", lost));
        }
        self.line(wall_ms, level, event, fields);
    }

    fn line(&mut self, wall_ms: i64, level: Level, event: &'static str, fields: impl FnOnce(&mut Line<'_>)) {
        if self.time.0 != wall_ms {
            self.time = (wall_ms, rfc3339(wall_ms));
        }
        let (time, level) = (&self.time.1, level.as_str());
        let out = &mut self.lines;
        let begun = match self.format {
            Format::Json => write!(out, r#"{{"time":"{time}","level":"{level}","event":"{event}""#),
            Format::Text => write!(out, "{time} {level:5} {event}"),
        };
        debug_assert!(begun.is_ok(), "a Vec takes all");
        fields(&mut Line { out, format: self.format });
        self.lines.extend_from_slice(if self.format == Format::Json { b"}\n" } else { b"\n" });
        self.count += 1;
    }

    /// Sends on its way what was written.
    pub fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let chunk = Chunk { bytes: std::mem::take(&mut self.lines), count: std::mem::take(&mut self.count) };
        let (length, count) = (chunk.bytes.len(), chunk.count);
        self.shared.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        if self.queue.as_ref().is_none_or(|queue| queue.send(chunk).is_err()) {
            self.shared.closed.store(true, Ordering::Relaxed); // no thread could be had
            self.dropped += count;
        }
    }

    /// Writes what waits, unless nobody reads it.
    pub fn end(mut self) {
        self.flush();
        self.queue = None;
        // Nothing is ever sent: this ends with the thread, or it is not waited for any longer.
        let ended = self.ended.recv_timeout(LAST_LINES);
        debug_assert!(matches!(ended, Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)));
    }
}

/// The fields of a line under way.
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

impl Line<'_> {
    /// One field. `value` becomes JSON: numbers, texts and lists of those.
    pub fn field(&mut self, name: &'static str, value: impl Serialize) {
        match self.format {
            Format::Json => self.out.extend_from_slice(b",\""),
            Format::Text => self.out.push(b' '),
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.format == Format::Json { b"\":" } else { b"=" });
        let begin = self.out.len();
        // As JSON in both formats: no control byte as it is.
        let written = serde_json::to_writer(&mut *self.out, &value);
        debug_assert!(written.is_ok(), "fields are numbers, texts and lists of those");
        if self.format == Format::Text {
            self.bare(begin);
        }
    }

    /// The field `ms`, of microseconds.
    pub fn ms(&mut self, us: u64) {
        self.field("ms", us as f64 / 1_000.0);
    }

    /// Takes the quotes off a text that needs none.
    fn bare(&mut self, begin: usize) {
        let plain = match self.out.get(begin..) {
            Some([b'"', inner @ .., b'"']) => {
                !inner.is_empty() && inner.iter().all(|b| b.is_ascii_alphanumeric() || b"_-./:{}[]".contains(b))
            }
            _ => false,
        };
        if plain {
            self.out.pop();
            self.out.remove(begin);
        }
    }
}

fn print(chunks: &Receiver<Chunk>, out: &mut impl Write, shared: &Shared) {
    while let Ok(chunk) = chunks.recv() {
        // Locked a chunk at a time: `demo` writes there, too.
        let written = out.write_all(&chunk.bytes).and_then(|()| out.flush());
        if let Err(e) = written {
            // A closed pipe ends the log, not the server; a full disk may have room again.
            if e.kind() == ErrorKind::BrokenPipe {
                shared.closed.store(true, Ordering::Relaxed);
            }
            shared.lost.fetch_add(chunk.count, Ordering::Relaxed);
        }
        shared.waiting_bytes.fetch_sub(chunk.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{SyncSender, sync_channel};

    const INFO: Level = Level::Info;

    /// Hands on what is written once somebody takes it.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(format: Format) -> (Log, Receiver<Vec<u8>>) {
        let (pipe, reader) = sync_channel(0);
        (Log::to(Pipe(pipe), INFO, format), reader)
    }

    fn text(reader: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(reader.recv().unwrap()).unwrap()
    }

    #[test]
    fn lines_in_both_formats() {
        let cases = [
            (
                Format::Json,
                r#"{"time":"1970-01-01T00:00:00.001Z","level":"info","event":"request","route":"/a/{id}/","why":"a b\u001b","ids":[1,2],"ms":1.5}"#,
            ),
            (Format::Text, r#"1970-01-01T00:00:00.001Z info  request route=/a/{id}/ why="a b\u001b" ids=[1,2] ms=1.5"#),
        ];
        for (format, expected) in cases {
            let (mut log, reader) = log(format);
            log.write(1, INFO, "request", |line| {
                line.field("route", "/a/{id}/");
                line.field("why", "a b\x1b");
                line.field("ids", [1, 2]);
                line.ms(1_500);
            });
            log.flush();
            assert_eq!(text(&reader), format!("{expected}\n"));
        }
    }

    #[test]
    fn what_is_not_taken_is_not_formatted() {
        let (mut log, _reader) = log(Format::Json);
        log.obey(Level::Warn);
        log.write(1, INFO, "request", |_| panic!("formatted"));
        assert!(log.lines.is_empty() && log.dropped() == 0);
    }

    #[test]
    fn what_an_operator_has_to_know_has_room_behind_what_is_routine() {
        let (mut log, _reader) = log(Format::Json);
        let long = "x".repeat(1_000);
        for (level, budgets) in [(INFO, 1), (Level::Warn, 2)] {
            let before = log.dropped();
            log.write(1, level, "draining", |_| {});
            assert_eq!(log.dropped(), before, "{level:?}");
            for _ in 0..10_000 {
                log.write(1, level, "request", |line| line.field("why", &long));
                log.flush();
            }
            assert!(log.dropped() > before + 5_000, "{level:?}");
            assert!(log.shared.waiting_bytes.load(Ordering::Relaxed) <= budgets * WAITING_MAX + 2_000, "{level:?}");
        }
    }

    #[test]
    fn a_reader_that_stops_costs_lines_not_memory() {
        let (mut log, reader) = log(Format::Json);
        let long = "x".repeat(1_000);
        for _ in 0..10_000 {
            log.write(1, INFO, "request", |line| line.field("why", &long));
            log.flush();
        }
        let dropped = log.dropped();
        assert!(dropped > 5_000, "{dropped}");
        assert!(log.shared.waiting_bytes.load(Ordering::Relaxed) <= WAITING_MAX + 2_000);
        // It goes on reading: the next line that is taken says how many it has missed.
        let kept = 10_000 - dropped;
        (0..kept).for_each(|_| drop(text(&reader)));
        while log.shared.waiting_bytes.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        log.write(1, INFO, "draining", |_| {});
        log.flush();
        let said = text(&reader);
        let mut lines = said.lines();
        assert!(lines.next().unwrap().contains(&format!(r#""event":"log_lines_dropped","count":{dropped}"#)), "{said}");
        assert!(lines.next().unwrap().contains("draining"));
    }

    #[test]
    fn a_closed_pipe_ends_the_log_only() {
        let (mut log, reader) = log(Format::Json);
        drop(reader);
        // Each is lost, whether the thread or the loop finds out; so is one that tells of it.
        for count in 1..=100 {
            log.write(1, INFO, "draining", |_| {});
            log.flush();
            while log.dropped() < count {
                std::thread::yield_now();
            }
        }
        assert!((100..=101).contains(&log.dropped()) && log.lines.is_empty());
        log.end();
    }

    #[test]
    fn every_event_is_in_the_map() {
        let map = include_str!("README.md");
        for event in EVENTS {
            assert_eq!(map.matches(&format!("| `{event}` |")).count(), 1, "{event}");
        }
    }
}
