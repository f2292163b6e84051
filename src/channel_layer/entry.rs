//! Owns the bytes of an entry: commands as JSON, under a version. Never talks to Redis. Enter at [`Commands`] and
//! [`decode`].
//!
//! The version says what the commands mean, not only how they are written: raise it with any change after which an older
//! habittod would make other rows of the same entry. A node that meets a version it does not know stops there, since
//! guessing would make it differ from the others; so upgrade all nodes before the first one writes the new version.

use crate::api::command::Command;
use crate::storage::job::{Idempotency, Job};
use serde::{Deserialize, Serialize};

pub(super) const VERSION: u32 = 3;

/// Bytes after which an entry takes no further command; one command alone may be larger.
const ENTRY_BYTES: usize = 1024 * 1024;
/// Commands in one entry, which is applied in one transaction.
const COMMANDS_MAX: usize = 512;

#[derive(Serialize)]
struct Writing<'a> {
    c: &'a Command,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<&'a Idempotency>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    c: Command,
    #[serde(default)]
    k: Option<Idempotency>,
}

/// The commands of an entry while it is made.
#[derive(Default)]
pub(super) struct Commands {
    json: Vec<u8>,
    count: usize,
}

impl Commands {
    pub(super) fn push(&mut self, command: &Command, key: Option<&Idempotency>) {
        self.json.push(if self.count == 0 { b'[' } else { b',' });
        // Our own structs with string keys, into memory: cannot fail.
        let _ = serde_json::to_writer(&mut self.json, &Writing { c: command, k: key });
        self.count += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.json.len() >= ENTRY_BYTES || self.count >= COMMANDS_MAX
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.count == 0 {
            self.json.push(b'[');
        }
        self.json.push(b']');
        self.json
    }
}

/// The jobs that an entry stands for, at the entry's own time.
pub(super) fn decode(version: &str, json: &[u8], at_ms: i64) -> Result<Vec<Job>, String> {
    match version.parse::<u32>() {
        Ok(VERSION) => {}
        Ok(older) if older < VERSION => {
            return Err(format!(
                "it is of version {older}, this habittod knows {VERSION}; start from a backup of a node that has applied it"
            ));
        }
        _ => {
            let version = version.escape_debug();
            return Err(format!(
                "it is of version {version}, this habittod knows {VERSION}; run the habittod that wrote it"
            ));
        }
    }
    let read: Vec<Reading> = serde_json::from_slice(json).map_err(|e| {
        // What serde says of a value may show it.
        format!("this habittod does not know what it says (column {}); run the habittod that wrote it", e.column())
    })?;
    let job = |Reading { c, k }| Job { command: c, ticket: None, idempotency: k, at_ms, asked_us: 0 };
    Ok(read.into_iter().map(job).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::command::{Act, Recipients, Which};
    use crate::matching::{MatchId, Property, PropertyId, User, UserId};
    use crate::notification::{Channel, Content, General, Home, NotificationId};
    use serde_json::json;
    use uuid::Uuid;

    fn one_of_each() -> Vec<Command> {
        let (by, user, id) = (UserId(1), UserId(i64::MAX), NotificationId(3));
        let further = json!({"a": [1, 2.5, null, {"ñ": "\u{1F600}"}]}).as_object().cloned().unwrap();
        let general = General {
            kind: "general".to_owned(),
            title: String::new(),
            message: "m\n\"".to_owned(),
            data: r#"{"a":1}"#.to_owned(),
        };
        vec![
            Command::ActOnProperty { by, property: PropertyId(7), likes: true, reason: Some("sí".to_owned()) },
            Command::ActOnMatch { by, id: MatchId(4), act: Act::OwnerAccept, reason: None },
            Command::MarkOneRead { by, which: Which::Uuid(Uuid::from_u128(5)) },
            Command::MarkOneRead { by, which: Which::Row(id) },
            Command::MarkRead { by, ids: vec![Uuid::from_u128(6)], many: true },
            Command::MarkAllRead { by },
            Command::MarkDelivered { user, ids: vec![id] },
            Command::Skip { user, channel: Channel::Tenant, after: NotificationId(0), before: id },
            Command::Notify {
                to: Recipients::One(user, Some(Uuid::from_u128(8))),
                channel: Channel::Property,
                general: general.clone(),
            },
            Command::Notify { to: Recipients::Many(vec![by, user]), channel: Channel::Property, general },
            Command::Relay {
                user,
                channel: Channel::Tenant,
                uuid: Uuid::from_u128(11),
                content: Content::MatchRejectedByOwner {
                    home: Home { id: PropertyId(1), kind: "\u{1f}x".to_owned(), address: String::new() },
                },
            },
            Command::Meet { user },
            Command::PutUser {
                id: user,
                user: User { username: "ana".to_owned(), further: further.clone(), ..User::default() },
                is_active: Some(false),
                password: Some("pbkdf2_sha256$1$a$b".to_owned()),
            },
            Command::DeleteUser { id: user },
            Command::PutProperty {
                id: PropertyId(9),
                property: Property {
                    owner: by,
                    agent: Some(user),
                    kind: "casa".to_owned(),
                    address: "x".to_owned(),
                    price: Some(0.1 + 0.2),
                    bedrooms: None,
                    is_active: true,
                    further,
                },
            },
            Command::DeleteProperty { id: PropertyId(9) },
            Command::PutMatch { property: PropertyId(9), tenant: user, score: 98.4, metadata: Some("{}".to_owned()) },
            Command::Retain { after: id, read_for_ms: -1, unread_for_ms: i64::MIN },
            Command::Remember { status: 400, body: "{}".to_owned() },
        ]
    }

    #[test]
    fn every_command_comes_back_as_it_was() {
        let key = Idempotency { caller: 1, key: "k".to_owned(), fingerprint: u64::MAX };
        let mut commands = Commands::default();
        for (n, command) in one_of_each().iter().enumerate() {
            commands.push(command, (n % 2 == 0).then_some(&key));
        }
        let jobs = decode("3", &commands.finish(), 42).unwrap();
        for (n, (job, command)) in jobs.iter().zip(one_of_each()).enumerate() {
            assert_eq!((&job.command, job.at_ms), (&command, 42));
            assert_eq!(job.idempotency.as_ref(), (n % 2 == 0).then_some(&key));
        }
        assert_eq!(jobs.len(), one_of_each().len());
        assert!(decode("3", &Commands::default().finish(), 0).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_known_is_not_guessed_at() {
        let (older, newer) = ("start from a backup", "run the habittod that wrote it");
        for (version, json, remedy) in [
            ("2", "[]", older),
            ("4", "[]", newer),
            ("", "[]", newer),
            ("3", "[", newer),
            ("3", r#"[{"c":{"Unheard":{"of":1}}}]"#, newer),
            ("3", r#"[{"c":{"MarkAllRead":{"by":1,"gently":true}}}]"#, newer),
            ("3", r#"[{"c":{"MarkAllRead":{"by":1}},"x":1}]"#, newer),
        ] {
            let refusal = decode(version, json.as_bytes(), 0).unwrap_err();
            assert!(refusal.contains(remedy), "{version} {json}: {refusal}");
        }
    }
}
