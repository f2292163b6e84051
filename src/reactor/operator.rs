//! Owns the operator's side: the thread that reads the process's vitals, and the answers that need them. Never serves a
//! client's path, nor a file. Enter at [`Operator::ask`] and [`reply`].

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

/// A page of numbers.
pub(super) fn reply(page: Resource, meters: &Meters, gauges: &Gauges) -> Reply {
    let (media_type, body) = match page {
        Resource::Stats => ("application/json; charset=utf-8", meters.stats(gauges).to_string()),
        _ => (Page::CONTENT_TYPE, meters.page(gauges)),
    };
    Reply { status: 200, headers: Vec::new(), body }
        .with_header("Content-Type", media_type)
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("Referrer-Policy", "no-referrer")
}
