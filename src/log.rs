//! Owns the log: one line an event on standard output, written by a thread of its own. Never blocks who writes to it:
//! where nobody reads, lines are dropped and counted. Enter at [`Log::write`].

use crate::clock::rfc3339;
use crate::config::{Format, Level};
use serde_json::{Map, Value};
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Lines that may wait for a slow reader.
const LINES_MAX: usize = 4_096;

pub struct Log {
    level: Level,
    format: Format,
    lines: Option<SyncSender<String>>,
    dropped: u64,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// `format`: by default text on a terminal, else JSON.
    #[must_use]
    pub fn start(level: Level, format: Option<Format>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
        let (lines, queue) = sync_channel(LINES_MAX);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || print(&queue)).ok();
        Self { level, format, lines: Some(lines), dropped: 0, thread }
    }

    #[must_use]
    pub fn takes(&self, level: Level) -> bool {
        level <= self.level
    }

    pub fn obey(&mut self, level: Level) {
        self.level = level;
    }

    /// `fields`: a JSON object.
    pub fn write(&mut self, wall_ms: i64, level: Level, event: &str, fields: Value) {
        if !self.takes(level) {
            return;
        }
        if self.dropped > 0 {
            let lost = line(
                self.format,
                wall_ms,
                Level::Warn,
                "log_lines_dropped",
                serde_json::json!({ "count": self.dropped }),
            );
            if self.send(lost) {
                self.dropped = 0;
            }
        }
        let line = line(self.format, wall_ms, level, event, fields);
        if !self.send(line) {
            self.dropped += 1;
        }
    }

    fn send(&self, line: String) -> bool {
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            // Nobody reads any more: nothing can be done about it here.
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) | None => true,
            Some(Err(TrySendError::Full(_))) => false,
        }
    }

    /// Writes what waits, unless nobody reads it.
    pub fn end(mut self) {
        let full = self.dropped > 0;
        self.lines = None;
        if let Some(thread) = self.thread.take().filter(|_| !full) {
            let _ = thread.join();
        }
    }
}

fn print(queue: &Receiver<String>) {
    while let Ok(line) = queue.recv() {
        // Locked a line at a time: `demo` writes there, too. A closed pipe ends the log, not the server.
        if std::io::stdout().write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

fn line(format: Format, wall_ms: i64, level: Level, event: &str, fields: Value) -> String {
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    match format {
        Format::Json => {
            let mut whole = Map::new();
            whole.insert("time".to_owned(), Value::from(rfc3339(wall_ms)));
            whole.insert("level".to_owned(), Value::from(level.as_str()));
            whole.insert("event".to_owned(), Value::from(event));
            whole.extend(fields);
            let mut line = serde_json::to_string(&whole).unwrap_or_default();
            line.push('\n');
            line
        }
        Format::Text => {
            let mut line = format!("{} {:5} {event}", rfc3339(wall_ms), level.as_str());
            for (name, value) in fields {
                // As JSON: quotes around texts, no control byte as it is.
                line.push_str(&format!(" {name}={value}"));
            }
            line.push('\n');
            line
        }
    }
}
