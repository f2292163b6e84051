//! Owns every number that is shown: a second reader of the events that the log is made of, and what the turn itself
//! knows. Never asks anybody: plain integers on the loop's thread. Enter at [`Meters::observe`] and [`Meters::page`].

use crate::channel_layer::SharedLogLoad;
use crate::clock::Now;
use crate::hub::event::{Cause, CloseCause, Event, Limit, Unusable};
use crate::metrics::{Counts, Histogram, Kind, Label, MICROSECONDS, ONES, Page, Vitals, labels};
use crate::notification::{Channel, NotificationId};
use serde_json::{Value, json};

/// Bounds in microseconds: what a request, a commit or a turn takes.
const SHORT_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];
/// What one turn of the loop takes.
const TURN_US: &[u64] =
    &[10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// Up to the return of a person who was away: 7 days.
const LONG_US: &[u64] = &[
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
    3_600_000_000,
    86_400_000_000,
    604_800_000_000,
];
const BATCH: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

labels! {
    /// How a socket ended, as its close code.
    Code {
        Normal = "1000",
        GoingAway = "1001",
        Protocol = "1002",
        Unsupported = "1003",
        Unnamed = "1005",
        Abnormal = "1006",
        NotUtf8 = "1007",
        Policy = "1008",
        TooBig = "1009",
        Internal = "1011",
        TryAgain = "1013",
        TokenExpired = "4401",
        Deactivated = "4403",
        Other = "other",
    }
}

impl Code {
    /// `None`: no close frame was seen, or one without a code.
    fn of(code: Option<u16>, by_client: bool) -> Self {
        match code {
            Some(1000) => Self::Normal,
            Some(1001) => Self::GoingAway,
            Some(1002) => Self::Protocol,
            Some(1003) => Self::Unsupported,
            Some(1007) => Self::NotUtf8,
            Some(1008) => Self::Policy,
            Some(1009) => Self::TooBig,
            Some(1011) => Self::Internal,
            Some(1013) => Self::TryAgain,
            Some(4401) => Self::TokenExpired,
            Some(4403) => Self::Deactivated,
            Some(_) => Self::Other,
            None if by_client => Self::Unnamed,
            None => Self::Abnormal,
        }
    }
}

/// The rows of late that went out live when they were made: tells receipts of live ones from those of replayed ones.
struct Live {
    bits: Box<[u64]>,
    newest: i64,
}

/// Rows remembered; of older ones a receipt counts as one of a replay.
const LIVE_ROWS: i64 = 65_536;

impl Live {
    fn new() -> Self {
        Self { bits: vec![0; LIVE_ROWS as usize / 64].into(), newest: 0 }
    }

    fn place(id: NotificationId) -> (usize, u64) {
        let place = id.0.rem_euclid(LIVE_ROWS).cast_unsigned();
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn note(&mut self, id: NotificationId, was_live: bool) {
        let (word, bit) = Self::place(id);
        self.newest = self.newest.max(id.0);
        if let Some(word) = self.bits.get_mut(word) {
            *word = if was_live { *word | bit } else { *word & !bit };
        }
    }

    fn was(&self, id: NotificationId) -> bool {
        let (word, bit) = Self::place(id);
        id.0 > self.newest - LIVE_ROWS && self.bits.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// Requests by status, method and route, all of them from closed sets. What comes often moves to the front, where it is
/// found at once.
#[derive(Default)]
struct Requests {
    counts: Vec<((u16, &'static str, &'static str), u64)>,
}

impl Requests {
    fn add(&mut self, status: u16, method: &'static str, route: &'static str) {
        let key = (status, method, route);
        let place = match self.counts.iter().position(|(known, _)| *known == key) {
            Some(0) => 0,
            Some(place) => {
                self.counts.swap(place, place - 1);
                place - 1
            }
            None => {
                self.counts.push((key, 0));
                self.counts.len() - 1
            }
        };
        if let Some((_, count)) = self.counts.get_mut(place) {
            *count += 1;
        }
    }

    fn sorted(&self) -> Vec<((u16, &'static str, &'static str), u64)> {
        let mut counts = self.counts.clone();
        counts.sort_unstable();
        counts
    }

    /// Of this status and above.
    fn total(&self, status: u16) -> u64 {
        self.counts.iter().filter(|((found, ..), _)| *found >= status).map(|(_, count)| count).sum()
    }
}

/// What the loop knows at the moment of the page.
pub(super) struct Gauges {
    pub now: Now,
    pub connections: usize,
    pub unread: u64,
    pub waiting: u64,
    pub oldest_waiting_ms: Option<i64>,
    /// Jobs and questions under way, as the hub counts them.
    pub outstanding: usize,
    /// Waiting for the committer, waiting for the reader.
    pub queues: (usize, usize),
    pub shared_log: SharedLogLoad,
    pub log_lines_dropped: u64,
    pub unready: Option<String>,
    pub draining: bool,
    pub vitals: Vitals,
}

pub(super) struct Meters {
    started_ms: i64,
    sockets: Counts<Channel>,
    handshakes: Counts<Channel>,
    handshake_us: Histogram,
    refused: Counts<Cause>,
    closes: Counts<Code>,
    limited: Counts<Limit>,
    created: Counts<Channel>,
    sent: Counts<Channel>,
    replayed: Counts<Channel>,
    skipped: Counts<Channel>,
    delivered: Counts<Channel>,
    django_refused: Counts<Unusable>,
    read: u64,
    /// Read before any receipt came: delivered by that.
    read_first: u64,
    commit_wait_us: Histogram,
    write_wait_us: Histogram,
    receipt_live_us: Histogram,
    receipt_replayed_us: Histogram,
    live: Live,
    batch_jobs: Histogram,
    commit_us: Histogram,
    failed_jobs: u64,
    requests: Requests,
    request_us: Histogram,
    turn_us: Histogram,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Meters {
    pub(super) fn new(now: Now) -> Self {
        Self {
            started_ms: now.wall_ms,
            sockets: Counts::default(),
            handshakes: Counts::default(),
            handshake_us: Histogram::new(MICROSECONDS, SHORT_US),
            refused: Counts::default(),
            closes: Counts::default(),
            limited: Counts::default(),
            created: Counts::default(),
            sent: Counts::default(),
            replayed: Counts::default(),
            skipped: Counts::default(),
            delivered: Counts::default(),
            django_refused: Counts::default(),
            read: 0,
            read_first: 0,
            commit_wait_us: Histogram::new(MICROSECONDS, SHORT_US),
            write_wait_us: Histogram::new(MICROSECONDS, SHORT_US),
            receipt_live_us: Histogram::new(MICROSECONDS, LONG_US),
            receipt_replayed_us: Histogram::new(MICROSECONDS, LONG_US),
            live: Live::new(),
            batch_jobs: Histogram::new(ONES, BATCH),
            commit_us: Histogram::new(MICROSECONDS, SHORT_US),
            failed_jobs: 0,
            requests: Requests::default(),
            request_us: Histogram::new(MICROSECONDS, SHORT_US),
            turn_us: Histogram::new(MICROSECONDS, TURN_US),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    pub(super) fn observe(&mut self, event: &Event) {
        match event {
            Event::Opened { channel, took_us, .. } => {
                self.sockets.add(*channel, 1);
                self.handshakes.add(*channel, 1);
                self.handshake_us.observe(*took_us);
            }
            Event::Closed { channel, cause, code, .. } => {
                self.sockets.take(*channel);
                self.closes.add(Code::of(*code, *cause == CloseCause::ClosedByClient), 1);
            }
            Event::Refused { cause, .. } => self.refused.add(*cause, 1),
            Event::Limited(limit) => self.limited.add(*limit, 1),
            Event::Request { method, route, status, took_us } => {
                self.requests.add(*status, method, route);
                self.request_us.observe(*took_us);
            }
            Event::Created { id, channel, sockets, took_us, .. } => {
                self.created.add(*channel, 1);
                self.live.note(*id, *sockets > 0);
                took_us.iter().for_each(|us| self.commit_wait_us.observe(*us));
            }
            Event::Sent { what, took_us } => {
                self.sent.add(what.channel, 1);
                took_us.iter().for_each(|us| self.write_wait_us.observe(*us));
            }
            Event::Delivered { channel, rows, at_ms, .. } => {
                self.delivered.add(*channel, rows.len() as u64);
                for (id, created_ms) in rows {
                    let waited_us = at_ms.saturating_sub(*created_ms).max(0).cast_unsigned() * 1_000;
                    if self.live.was(*id) {
                        self.receipt_live_us.observe(waited_us);
                    } else {
                        self.receipt_replayed_us.observe(waited_us);
                    }
                }
            }
            Event::Read { count, undelivered, .. } => {
                self.read += u64::from(*count);
                self.read_first += u64::from(*undelivered);
            }
            Event::Replayed { channel, ids, .. } => self.replayed.add(*channel, ids.len() as u64),
            Event::Skipped { channel, count, .. } => self.skipped.add(*channel, u64::from(*count)),
            Event::Committed { jobs, failed, took_us, .. } => {
                self.batch_jobs.observe(*jobs as u64);
                self.commit_us.observe(*took_us);
                self.failed_jobs += *failed as u64;
            }
            Event::DjangoRefused { cause, count } => self.django_refused.add(*cause, *count),
            Event::Revoked { .. }
            | Event::AnswerFailed { .. }
            | Event::AcceptFailing { .. }
            | Event::AcceptWorks
            | Event::StorageFailing { .. }
            | Event::StorageWorks
            | Event::LogFailing { .. }
            | Event::LogWorks
            | Event::Draining { .. }
            | Event::Reloaded { .. }
            | Event::NotReloaded { .. }
            | Event::Stopped { .. } => {}
        }
    }

    pub(super) fn turned(&mut self, took_us: u64) {
        self.turn_us.observe(took_us);
    }

    /// Of all that was to be delivered since the start, what waited then included: the part that is.
    fn delivery_ratio(&self, waiting: u64) -> f64 {
        let delivered = self.delivered.total() + self.read_first;
        match delivered + waiting {
            0 => 1.0,
            all => delivered as f64 / all as f64,
        }
    }

    /// For Prometheus.
    pub(super) fn page(&self, g: &Gauges) -> String {
        let mut page = Page::default();
        self.sockets_of(&mut page, g);
        self.notifications_of(&mut page, g);
        self.storage_of(&mut page, g);
        self.nodes_of(&mut page, g);
        self.http_of(&mut page);
        self.process_of(&mut page, g);
        page.into_text()
    }

    fn sockets_of(&self, page: &mut Page, g: &Gauges) {
        page.counts("habittod_sockets", Kind::Gauge, "WebSockets open now.", "channel", &self.sockets);
        page.gauge("habittod_connections", "TCP connections open now, of every kind.", g.connections);
        page.counts("habittod_handshakes_total", Kind::Counter, "Sockets opened.", "channel", &self.handshakes);
        let mut refused = page.family("habittod_handshake_refusals_total", Kind::Counter, "Handshakes turned away.");
        for (cause, count) in self.refused.iter().filter(|(cause, _)| cause.of_handshake()) {
            refused.sample(&[("cause", cause.as_str())], count);
        }
        let help = "Connections and malformed requests turned away.";
        let mut refused = page.family("habittod_connection_refusals_total", Kind::Counter, help);
        for (cause, count) in self.refused.iter().filter(|(cause, _)| !cause.of_handshake()) {
            refused.sample(&[("cause", cause.as_str())], count);
        }
        page.histogram(
            "habittod_handshake_seconds",
            "From the accepted connection to its upgrade.",
            &self.handshake_us,
        );
        page.counts(
            "habittod_closes_total",
            Kind::Counter,
            "Sockets closed, by close code; 1005: none given, 1006: gone without one.",
            "code",
            &self.closes,
        );
        page.counts(
            "habittod_limit_hits_total",
            Kind::Counter,
            "How often a limit of the configuration was reached.",
            "limit",
            &self.limited,
        );
        let mut rates = page.family("habittod_rate_limited_total", Kind::Counter, "Turned away for coming too often.");
        for (limit, count) in self.limited.iter().filter(|(limit, _)| limit.is_rate()) {
            rates.sample(&[("limit", limit.as_str())], count);
        }
    }

    fn notifications_of(&self, page: &mut Page, g: &Gauges) {
        let by_channel = [
            ("habittod_notifications_created_total", "Notifications committed.", &self.created),
            ("habittod_notifications_sent_total", "Notifications written to a live socket, once a socket.", &self.sent),
            ("habittod_notifications_replayed_total", "Notifications sent after a connect.", &self.replayed),
            (
                "habittod_notifications_skipped_total",
                "Notifications beyond delivery.replay_max: left to REST.",
                &self.skipped,
            ),
            ("habittod_notifications_delivered_total", "Notifications acknowledged by a device.", &self.delivered),
        ];
        for (name, help, counts) in by_channel {
            page.counts(name, Kind::Counter, help, "channel", counts);
        }
        page.counter("habittod_notifications_read_total", "Notifications marked read.", self.read);
        page.counter(
            "habittod_notifications_read_undelivered_total",
            "Notifications read before any device had acknowledged them: delivered by that.",
            self.read_first,
        );
        page.gauge("habittod_notifications_unread", "Notifications that nobody has read.", g.unread);
        page.gauge("habittod_notifications_undelivered", "Notifications that wait for a device.", g.waiting);
        page.gauge(
            "habittod_notifications_undelivered_oldest_age_seconds",
            "Age of the oldest that waits, as of the last look; 0 where none does.",
            self.oldest_age_s(g),
        );
        page.gauge(
            "habittod_delivery_ratio",
            "Part that is delivered of all that was to be, since the start; 1 where nothing was.",
            self.delivery_ratio(g.waiting),
        );
        page.histogram(
            "habittod_notification_commit_seconds",
            "From the request to the commit of its notification.",
            &self.commit_wait_us,
        );
        page.histogram(
            "habittod_notification_write_seconds",
            "From the request until the kernel had the whole notification, once a live socket.",
            &self.write_wait_us,
        );
        let help = "From the request to the first acknowledgement; way=\"live\": it was pushed at once.";
        let mut family = page.family("habittod_notification_acknowledge_seconds", Kind::Histogram, help);
        family.histogram(&[("way", "live")], &self.receipt_live_us);
        family.histogram(&[("way", "replayed")], &self.receipt_replayed_us);
    }

    fn storage_of(&self, page: &mut Page, g: &Gauges) {
        page.histogram("habittod_commit_batch_jobs", "Jobs in one commit.", &self.batch_jobs);
        page.histogram("habittod_commit_seconds", "One commit, with its sync.", &self.commit_us);
        page.counter(
            "habittod_commit_failed_jobs_total",
            "Jobs that were not committed, for what storage says.",
            self.failed_jobs,
        );
        let mut depth = page.family("habittod_storage_queue_depth", Kind::Gauge, "Waiting for a storage thread.");
        depth.sample(&[("queue", "writes")], g.queues.0);
        depth.sample(&[("queue", "reads")], g.queues.1);
        page.gauge(
            "habittod_storage_outstanding",
            "Jobs and questions under way; limits.storage_queue bounds them.",
            g.outstanding,
        );
    }

    fn nodes_of(&self, page: &mut Page, g: &Gauges) {
        let help = "Commands that wait for the log of several nodes: to be appended, or kept until Redis is back.";
        let mut depth = page.family("habittod_shared_log_queue_depth", Kind::Gauge, help);
        depth.sample(&[("queue", "append")], g.shared_log.queued);
        depth.sample(&[("queue", "kept")], g.shared_log.kept);
        page.gauge(
            "habittod_shared_log_lag_seconds",
            "Age of the oldest entry of that log that is not committed here; 0 where all are.",
            g.shared_log.behind_ms as f64 / 1e3,
        );
        page.counts(
            "habittod_django_refused_total",
            Kind::Counter,
            "Messages of Django's channel layer that were dropped.",
            "cause",
            &self.django_refused,
        );
    }

    fn http_of(&self, page: &mut Page) {
        let help = "HTTP requests answered, by route template.";
        let mut requests = page.family("habittod_http_requests_total", Kind::Counter, help);
        for ((status, method, route), count) in self.requests.sorted() {
            requests.sample(&[("route", route), ("method", method), ("status", status_text(status))], count);
        }
        page.histogram("habittod_http_request_seconds", "From a request's last byte to its answer.", &self.request_us);
        page.counter("habittod_inbound_bytes_total", "Bytes read from sockets.", self.bytes_in);
        page.counter("habittod_outbound_bytes_total", "Bytes written to sockets.", self.bytes_out);
        page.histogram("habittod_loop_turn_seconds", "One turn of the loop, without its waiting.", &self.turn_us);
    }

    fn process_of(&self, page: &mut Page, g: &Gauges) {
        page.gauge("habittod_ready", "1 where /health/ready says so.", u8::from(g.unready.is_none()));
        page.gauge("habittod_draining", "1 while stopping.", u8::from(g.draining));
        page.counter(
            "habittod_log_lines_dropped_total",
            "Log lines lost: nobody read them, or not fast enough.",
            g.log_lines_dropped,
        );
        page.family("habittod_build_info", Kind::Gauge, "What is running.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        let v = &g.vitals;
        page.counter("process_cpu_seconds_total", "User and system CPU time.", v.cpu_us as f64 / 1e6);
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory.", v.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory.", v.virtual_bytes),
            ("process_open_fds", "Open file descriptors.", v.descriptors),
        ] {
            let mut family = page.family(name, Kind::Gauge, help);
            value.iter().for_each(|value| family.sample(&[], value));
        }
        page.gauge("process_max_fds", "File descriptors that may be open.", v.descriptors_max);
        page.gauge("process_start_time_seconds", "When it started (Unix time).", self.started_ms as f64 / 1e3);
    }

    fn oldest_age_s(&self, g: &Gauges) -> f64 {
        g.oldest_waiting_ms.map_or(0.0, |ms| g.now.wall_ms.saturating_sub(ms).max(0) as f64 / 1e3)
    }

    /// For the operator's page: what it draws, no more.
    pub(super) fn stats(&self, g: &Gauges) -> Value {
        let by_label = |counts: &dyn Fn() -> Vec<(&'static str, u64)>| -> Value {
            counts().into_iter().map(|(label, count)| (label.to_owned(), Value::from(count))).collect()
        };
        let v = &g.vitals;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "time_ms": g.now.wall_ms,
            "monotonic_us": g.now.monotonic_us,
            "started_ms": self.started_ms,
            "status": if g.draining { "draining" } else if g.unready.is_some() { "failing" } else { "ready" },
            "why": g.unready,
            "sockets": by_label(&|| list(&self.sockets)),
            "connections": g.connections,
            "handshakes": self.handshakes.total(),
            "refusals": by_label(&|| list(&self.refused)),
            "closes": by_label(&|| list(&self.closes)),
            "limits": by_label(&|| list(&self.limited)),
            "notifications": {
                "created": self.created.total(),
                "sent": self.sent.total(),
                "replayed": self.replayed.total(),
                "skipped": self.skipped.total(),
                "delivered": self.delivered.total() + self.read_first,
                "read": self.read,
            },
            "unread": g.unread,
            "undelivered": g.waiting,
            "oldest_undelivered_seconds": self.oldest_age_s(g),
            "delivery_ratio": self.delivery_ratio(g.waiting),
            "seconds": {
                "handshake": self.handshake_us.to_json(),
                "commit_wait": self.commit_wait_us.to_json(),
                "write_wait": self.write_wait_us.to_json(),
                "acknowledge_live": self.receipt_live_us.to_json(),
                "commit": self.commit_us.to_json(),
                "request": self.request_us.to_json(),
                "turn": self.turn_us.to_json(),
            },
            "batch_jobs": self.batch_jobs.to_json(),
            "failed_jobs": self.failed_jobs,
            "queues": { "writes": g.queues.0, "reads": g.queues.1 },
            "shared_log": {
                "queued": g.shared_log.queued,
                "kept": g.shared_log.kept,
                "lag_seconds": g.shared_log.behind_ms as f64 / 1e3,
            },
            "requests": self.requests.total(0),
            "server_errors": self.requests.total(500),
            "bytes": { "in": self.bytes_in, "out": self.bytes_out },
            "log_lines_dropped": g.log_lines_dropped,
            "process": {
                "cpu_seconds": v.cpu_us as f64 / 1e6,
                "resident_bytes": v.resident_bytes,
                "descriptors": v.descriptors,
                "descriptors_max": v.descriptors_max,
            },
        })
    }
}

/// Those that are not zero.
fn list<L: Label>(counts: &Counts<L>) -> Vec<(&'static str, u64)> {
    counts.iter().map(|(label, count)| (label.as_str(), count)).filter(|(_, count)| *count > 0).collect()
}

/// A status of ours as a label.
fn status_text(status: u16) -> &'static str {
    match status {
        101 => "101",
        200 => "200",
        201 => "201",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        414 => "414",
        415 => "415",
        422 => "422",
        426 => "426",
        429 => "429",
        431 => "431",
        500 => "500",
        503 => "503",
        505 => "505",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_wherever_they_stand() {
        let mut requests = Requests::default();
        for _ in 0..3 {
            requests.add(200, "GET", "/a/");
            requests.add(503, "GET", "/a/");
            requests.add(200, "PUT", "/a/");
            requests.add(200, "PUT", "/a/");
        }
        let expected = [((200, "GET", "/a/"), 3), ((200, "PUT", "/a/"), 6), ((503, "GET", "/a/"), 3)];
        assert_eq!(requests.sorted(), expected);
        assert_eq!((requests.total(0), requests.total(500)), (12, 3));
    }

    #[test]
    fn a_receipt_of_a_live_row_is_told_from_one_of_a_replay() {
        let mut live = Live::new();
        let id = NotificationId;
        live.note(id(1), true);
        live.note(id(2), false);
        assert!(live.was(id(1)) && !live.was(id(2)) && !live.was(id(3)));
        live.note(id(LIVE_ROWS + 2), true);
        assert!(!live.was(id(1)) && !live.was(id(2)) && live.was(id(LIVE_ROWS + 2)));
    }

    #[test]
    fn close_codes_of_clients_are_a_closed_set() {
        assert_eq!((Code::of(Some(3_123), true), Code::of(Some(1_000), true)), (Code::Other, Code::Normal));
        assert_eq!((Code::of(None, true), Code::of(None, false)), (Code::Unnamed, Code::Abnormal));
    }
}
