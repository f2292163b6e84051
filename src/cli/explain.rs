//! Owns `habittod explain NOTIFICATION_ID`: one notification's story, from the rows and from what a running server
//! remembers. Never changes anything, and never shows what a notification says. Enter at [`run`].

use super::client::Client;
use super::serve::exit_of;
use super::{Exit, Given, Ran, complain, say};
use crate::api::command::Which;
use crate::clock::{Clock, rfc3339};
use crate::config::Config;
use crate::matching::parse_id;
use crate::notification::{NotificationId, created_ms, parse_uuid};
use crate::storage::explain::{Story, Told, story};
use crate::storage::job::Standing;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// A server on the same machine that is slower than this has other troubles.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

pub(super) fn run(given: &Given) -> Ran {
    let which = given.word().and_then(|text| {
        let row = parse_id(text).map(|row| Which::Row(NotificationId(row)));
        row.or_else(|| parse_uuid(&text.to_ascii_lowercase()).map(Which::Uuid))
    });
    let Some(which) = which else { return given.usage("explain needs a NOTIFICATION_ID: a number or a UUID") };
    let config = given.config()?;
    let path = &config.storage.path;
    let Some(found) = story(path, which).or_else(|e| complain(&e, exit_of(&e)))? else {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let what = "no database there; run this where the server runs, or name it by --config or HABITTOD_STORAGE_PATH";
        return complain(format!("{}: {what}", path.display()), Exit::Database);
    };
    match &found.row {
        Some(told) => {
            let n = &told.notification;
            let asked = format!("/explain/{}?user={}", n.id.0, n.user.0);
            let memory = config.server.admin_listen.iter().find_map(|address| ask(*address, &asked));
            say(&tell(told, memory.as_ref(), &config))
        }
        None => complain(absent(which, &found, &config), Exit::Failed),
    }
}

/// What the running server remembers; `None` where none answers.
fn ask(address: SocketAddr, path: &str) -> Option<Value> {
    let client = Client { address, within: ANSWER_WITHIN };
    client.call("GET", path, None, &Value::Null).ok().filter(|data| data.get("steps").is_some())
}

/// Why there is no row.
fn absent(which: Which, story: &Story, config: &Config) -> String {
    let (id, made) = match which {
        Which::Row(id) => (Some(id), None),
        Which::Uuid(uuid) => (NotificationId::of_uuid(&uuid), created_ms(&uuid)),
    };
    let last = story.last.0;
    match id {
        Some(id) if id <= story.last => {
            let made = made.map(|ms| format!(", made {}", rfc3339(ms))).unwrap_or_default();
            format!(
                "notification {}{made}: not there any more; read ones go after {} (storage.retention), unread ones after 4 \
                 times as long, and a deleted user's with him",
                id.0,
                days(config.storage.retention)
            )
        }
        Some(id) => format!("notification {}: there never was one; the newest is {last}", id.0),
        None => {
            format!("there is no notification of that UUID, and it is none of those made here; the newest is {last}")
        }
    }
}

fn days(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 86_400 => format!("{} days", seconds / 86_400),
        _ => format!("{duration:?}"),
    }
}

fn tell(told: &Told, memory: Option<&Value>, config: &Config) -> String {
    let n = &told.notification;
    let mut lines = vec![(
        rfc3339(n.created_ms),
        format!("created and committed: {}, user {}, {} channel", n.content.kind(), n.user.0, n.channel.as_str()),
    )];
    for step in memory.and_then(|memory| memory.get("steps")).and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let what = match text("what").as_str() {
            "sent" => "queued live for",
            "replayed" => "queued in a replay for",
            _ => "acknowledged by",
        };
        lines.push((text("at"), format!("{what} socket {}", text("socket"))));
    }
    lines.extend(n.delivered_ms.map(|ms| (rfc3339(ms), "delivered: a device has it".to_owned())));
    lines.extend(n.read_ms.map(|ms| (rfc3339(ms), "read".to_owned())));
    // Equal times stay in the order in which things happen.
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut text = format!("notification {} ({})\n", n.id.0, n.uuid);
    for (at, what) in lines {
        text.push_str(&format!("{at}  {what}\n"));
    }
    for why in why(told, memory, config) {
        text.push_str(&format!("- {why}\n"));
    }
    text
}

/// Why it is not delivered or read, and what is not known.
fn why(told: &Told, memory: Option<&Value>, config: &Config) -> Vec<String> {
    let n = &told.notification;
    let mut why = Vec::new();
    if n.read_ms.is_none() && n.delivered_ms.is_some() {
        why.push("not read yet".to_owned());
    }
    if n.read_ms.is_none() && n.delivered_ms.is_none() {
        undelivered(told, memory, config, &mut why);
    }
    if n.read_ms.is_none() || n.delivered_ms.is_none() {
        match told.standing {
            Some(Standing::Active) => {}
            None => why.push(format!("user {} is not in the directory; a valid token is enough to connect", n.user.0)),
            Some(_) => why.push(format!("user {} is not active: his sockets are refused", n.user.0)),
        }
    }
    match memory {
        None => {
            why.push("which sockets it was sent to is not known: no server answers on server.admin_listen".to_owned())
        }
        Some(memory) => {
            let since = memory.get("complete_since").and_then(Value::as_str);
            if let Some(since) = since.filter(|since| *since > rfc3339(n.created_ms).as_str()) {
                why.push(format!("what was sent before {since} is not remembered: the server's memory begins there"));
            }
        }
    }
    let gone_ms = |times: u32| n.created_ms.saturating_add((config.storage.retention * times).as_millis() as i64);
    if Clock::start().now().wall_ms < gone_ms(4) {
        let (read, unread) = (rfc3339(gone_ms(1)), rfc3339(gone_ms(4)));
        why.push(if n.read_ms.is_some() {
            format!("kept until {read}")
        } else {
            format!("kept until {unread}, once read until {read}")
        });
    }
    why
}

fn undelivered(told: &Told, memory: Option<&Value>, config: &Config, why: &mut Vec<String>) {
    if told.skipped {
        let most = config.delivery.replay_max;
        return why.push(format!(
            "not delivered: when its user connected, more than delivery.replay_max ({most}) were waiting, and only the \
             newest were sent; it waits unread in REST"
        ));
    }
    let list = |name: &str| memory.and_then(|memory| memory.get(name)).and_then(Value::as_array);
    let channel = told.notification.channel.as_str();
    let open = list("open_sockets")
        .map(|open| open.iter().filter(|socket| socket.get("channel").is_some_and(|name| name == channel)).count());
    let sent = list("steps").is_some_and(|steps| !steps.is_empty());
    let next = "it is sent at his next connect";
    why.push(match (open, sent) {
        (None, _) => format!("not delivered: no device has acknowledged it; {next}"),
        (Some(0), false) => format!("not delivered: its user has no open socket on this channel; {next}"),
        (Some(0), true) => {
            format!("not delivered: the socket that it was sent to closed before its receipt came; {next}")
        }
        (Some(count), true) => {
            let mode = config.delivery.ack.as_str();
            format!(
                "not delivered: {count} of its user's sockets are open, and no receipt has come (delivery.ack = {mode})"
            )
        }
        (Some(count), false) => {
            format!("not delivered: {count} of its user's sockets are open and will get it, unless they read slowly")
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::UserId;
    use crate::notification::{Channel, Content, General, Notification};
    use serde_json::json;
    use std::sync::Arc;

    fn told() -> Told {
        let (id, user, channel, created_ms) = (NotificationId(7), UserId(5), Channel::Tenant, 1_700_000_000_000);
        let general =
            General { kind: "x".into(), title: String::new(), message: "secret words".into(), data: "{}".into() };
        let notification = Notification {
            id,
            uuid: id.uuid(created_ms, user, channel),
            user,
            channel,
            content: Content::General(Arc::new(general)),
            created_ms,
            delivered_ms: None,
            read_ms: None,
        };
        Told { notification, skipped: false, standing: Some(Standing::Active) }
    }

    #[test]
    fn the_whole_way_is_told_in_order_and_without_its_words() {
        let mut told = told();
        told.notification.delivered_ms = Some(1_700_000_002_000);
        told.notification.read_ms = Some(1_700_000_003_000);
        let memory = json!({ "open_sockets": [], "complete_since": rfc3339(1_600_000_000_000), "steps": [
            { "at": rfc3339(1_700_000_001_000), "socket": "1.2", "what": "sent" },
            { "at": rfc3339(1_700_000_001_900), "socket": "1.2", "what": "acknowledged" },
        ]});
        let text = tell(&told, Some(&memory), &Config::default());
        let whats: Vec<&str> = text.lines().skip(1).take(5).map(|line| line.split_once("Z  ").unwrap().1).collect();
        assert_eq!(
            whats,
            [
                "created and committed: x, user 5, tenant channel",
                "queued live for socket 1.2",
                "acknowledged by socket 1.2",
                "delivered: a device has it",
                "read"
            ]
        );
        assert!(!text.contains("secret words"), "{text}");
        assert!(!text.contains("not "), "{text}");
    }

    #[test]
    fn what_keeps_it_from_its_user_is_said() {
        let config = Config::default();
        let says = |told: &Told, memory: Option<Value>, what: &str| {
            let text = tell(told, memory.as_ref(), &config);
            assert!(text.contains(what), "{what:?} is not in {text}");
        };
        let memory = |sockets: usize, sent: bool| {
            let open = vec![json!({ "socket": "1.1", "channel": "tenant" }); sockets];
            let step = json!({ "at": rfc3339(1_700_000_001_000), "socket": "1.1", "what": "sent" });
            Some(
                json!({ "steps": vec![step; usize::from(sent)], "open_sockets": open, "complete_since": rfc3339(1_600_000_000_000) }),
            )
        };
        says(&told(), None, "no server answers on server.admin_listen");
        says(&told(), memory(0, false), "no open socket on this channel");
        says(&told(), memory(0, true), "closed before its receipt came");
        says(&told(), memory(2, true), "2 of its user's sockets are open, and no receipt has come");
        says(&Told { skipped: true, ..told() }, memory(0, false), "delivery.replay_max (1000)");
        says(&Told { standing: Some(Standing::Inactive), ..told() }, memory(0, false), "is not active");
        says(&Told { standing: None, ..told() }, memory(0, false), "not in the directory");
        let forgotten = json!({ "steps": [], "open_sockets": [], "complete_since": rfc3339(1_800_000_000_000) });
        says(&told(), Some(forgotten), "sent before 2027-");
    }

    #[test]
    fn a_missing_row_is_gone_or_never_was() {
        let story = Story { row: None, last: NotificationId(10) };
        let config = Config::default();
        let (gone, never) = (Which::Row(NotificationId(10)), Which::Row(NotificationId(11)));
        assert!(absent(gone, &story, &config).contains("read ones go after 90 days"));
        assert!(absent(never, &story, &config).contains("there never was one; the newest is 10"));
        let uuid = NotificationId(3).uuid(1_700_000_000_000, UserId(1), Channel::Property);
        assert!(absent(Which::Uuid(uuid), &story, &config).contains("notification 3, made 2023-11-14T"));
    }
}
