//! Owns how the numbers are shown: the page of `/metrics`, and what the operator's page draws. Never counts.
//! Enter at [`Meters::page`] and [`Meters::stats`].

use super::Meters;
use crate::channel_layer::SharedLogLoad;
use crate::clock::Now;
use crate::metrics::{Counts, Kind, Label, Page, Vitals};
use serde_json::{Value, json};

/// What the loop knows at the moment of the page.
pub(in crate::reactor) struct Gauges {
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

impl Meters {
    /// Of all that was to be delivered since the start, what waited then included: the part that is.
    fn delivery_ratio(&self, waiting: u64) -> f64 {
        let delivered = self.delivered.total() + self.read_first;
        match delivered + waiting {
            0 => 1.0,
            all => delivered as f64 / all as f64,
        }
    }

    /// For Prometheus.
    pub(in crate::reactor) fn page(&self, g: &Gauges) -> String {
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
    pub(in crate::reactor) fn stats(&self, g: &Gauges) -> Value {
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
