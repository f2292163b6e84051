//! Owns the thread that answers questions from snapshots, beside the committer and never in its way.
//! Never writes. Enter at [`run`].

use super::Depth;
use super::job::{Answer, Ask, Outcome};
use super::queries;
use crate::api::command::Query;
use crate::inbox::{Letter, Postbox};
use rusqlite::Connection;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

/// Until the queue is closed.
pub(super) fn run(db: Connection, asks: &Receiver<Ask>, post: &Postbox, depth: &Depth) {
    while let Ok(ask) = asks.recv() {
        let answer = queries::answer(&db, &ask.query).unwrap_or_else(|e| failed(&ask.query, e.to_string()));
        depth.reads.fetch_sub(1, Ordering::Relaxed);
        let outcome = Outcome { ticket: Some(ask.ticket), answer, changes: Vec::new(), asked_us: 0, ours: true };
        post.post(Letter::Answered(vec![outcome]));
    }
}

/// What is answered where a question cannot be.
pub(super) fn failed(query: &Query, why: String) -> Answer {
    match query {
        Query::Backlog(_) => Answer::NoBacklog(why),
        _ => Answer::Failed(why),
    }
}
