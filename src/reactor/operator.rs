//! Owns the operator's side: the thread that reads the process's vitals, and the pages of `server.admin_listen`.
//! Never serves a client's path. Enter at [`Operator::ask`] and [`reply`].

use super::meters::{Gauges, Meters};
use crate::api::reply::Reply;
use crate::api::routes::Resource;
use crate::inbox::{Letter, Postbox};
use crate::metrics::{Page, Vitals};
use crate::storage::job::Ticket;
use std::io;
use std::sync::mpsc::{Sender, channel};

/// The queue to the thread. Each connection has one question under way at most, which bounds it.
pub(super) struct Operator {
    asked: Sender<(Ticket, Resource)>,
}

impl Operator {
    pub(super) fn start(post: Postbox) -> io::Result<Self> {
        let (asked, queue) = channel::<(Ticket, Resource)>();
        // Detached: it ends with its queue.
        std::thread::Builder::new().name("vitals".to_owned()).spawn(move || {
            for (ticket, page) in queue {
                post.post(Letter::Vitals { ticket, page, vitals: Vitals::read() });
            }
        })?;
        Ok(Self { asked })
    }

    /// Asks for what a page needs from the kernel; the letter that comes back names ticket and page.
    pub(super) fn ask(&self, ticket: Ticket, page: Resource) {
        // The thread lives as long as this.
        let _ = self.asked.send((ticket, page));
    }
}

/// A page.
pub(super) fn reply(page: Resource, meters: &Meters, gauges: &Gauges) -> Reply {
    match page {
        Resource::Metrics => typed(Page::CONTENT_TYPE, meters.page(gauges)),
        Resource::Stats => typed("application/json; charset=utf-8", meters.stats(gauges).to_string()),
        Resource::OperatorScript => {
            typed("text/javascript; charset=utf-8", include_str!("../web/operator/operator.js").to_owned())
        }
        Resource::OperatorStyle => {
            typed("text/css; charset=utf-8", include_str!("../web/operator/operator.css").to_owned())
        }
        _ => typed("text/html; charset=utf-8", include_str!("../web/operator/index.html").to_owned())
            .with_header("Content-Security-Policy", POLICY),
    }
}

/// Nothing but what this listener serves itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn typed(media_type: &'static str, body: String) -> Reply {
    Reply { status: 200, headers: Vec::new(), body }
        .with_header("Content-Type", media_type)
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("Referrer-Policy", "no-referrer")
}
