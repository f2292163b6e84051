//! Owns what a client may say on a socket. Never answers. Enter at [`parse`].

use super::frames::Complaint;
use super::json;
use serde_json::Value;
use uuid::Uuid;

/// One message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Ping,
    /// Asks whether the last WebSocket Ping was answered: `habittod probe`.
    Probe,
    /// `many`: the list form was used, and is answered in kind.
    MarkRead {
        ids: Vec<Uuid>,
        many: bool,
    },
    MarkAllRead,
    Ack(Uuid),
    Auth(String),
}

/// Ids in one `mark_read`.
pub const MARK_READ_MAX: usize = 100;

/// Reads one text message.
pub fn parse(text: &str) -> Result<Message, Complaint> {
    if text == r#"{"type":"ping"}"# || text == r#"{"type": "ping"}"# {
        return Ok(Message::Ping); // as every client writes it: nothing to allocate
    }
    let value = json::parse(text.as_bytes()).map_err(|_| Complaint::InvalidJson)?;
    let Value::Object(fields) = value else {
        return Err(Complaint::InvalidMessage("Se esperaba un objeto JSON"));
    };
    match fields.get("type").and_then(Value::as_str) {
        Some("ping") if fields.get("probe") == Some(&Value::Bool(true)) => Ok(Message::Probe),
        Some("ping") => Ok(Message::Ping),
        Some("mark_read") => {
            mark_read(fields.get("notification_id"), fields.get("notification_ids"), fields.get("all"))
        }
        Some("ack") => id(fields.get("notification_id")).map(Message::Ack),
        Some("auth") => match fields.get("token") {
            Some(Value::String(token)) => Ok(Message::Auth(token.clone())),
            _ => Err(Complaint::InvalidMessage("El campo token falta o no es un texto")),
        },
        Some(_) => Err(Complaint::UnknownType),
        None => Err(Complaint::InvalidMessage("El campo type falta o no es un texto")),
    }
}

/// Exactly one of the three forms.
fn mark_read(one: Option<&Value>, many: Option<&Value>, all: Option<&Value>) -> Result<Message, Complaint> {
    match (one, many, all) {
        (one @ Some(_), None, None) => Ok(Message::MarkRead { ids: vec![id(one)?], many: false }),
        (None, Some(Value::Array(list)), None) if (1..=MARK_READ_MAX).contains(&list.len()) => {
            let mut ids = Vec::with_capacity(list.len());
            for entry in list {
                let id = id(Some(entry))?;
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
            Ok(Message::MarkRead { ids, many: true })
        }
        (None, Some(_), None) => Err(Complaint::InvalidMessage("notification_ids debe ser una lista de 1 a 100 ids")),
        (None, None, Some(Value::Bool(true))) => Ok(Message::MarkAllRead),
        (None, None, None) => Err(Complaint::InvalidMessage("Falta el campo notification_id")),
        _ => Err(Complaint::InvalidMessage("Indica solo uno: notification_id, notification_ids o all (true)")),
    }
}

fn id(value: Option<&Value>) -> Result<Uuid, Complaint> {
    match value {
        Some(Value::String(text)) if text.len() == 36 => {
            Uuid::try_parse(text).map_err(|_| Complaint::InvalidMessage("notification_id no es un UUID"))
        }
        Some(_) => Err(Complaint::InvalidMessage("notification_id no es un UUID")),
        None => Err(Complaint::InvalidMessage("Falta el campo notification_id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn what_clients_say() {
        let uuid = Uuid::try_parse(ID).unwrap();
        let good = [
            (r#"{"type":"ping","at":1}"#.to_owned(), Message::Ping),
            (r#"{"type":"ping","probe":1}"#.to_owned(), Message::Ping),
            (r#"{"type":"ping","probe":true}"#.to_owned(), Message::Probe),
            (
                format!(r#"{{"type":"mark_read","notification_id":"{ID}"}}"#),
                Message::MarkRead { ids: vec![uuid], many: false },
            ),
            (
                format!(r#"{{"type":"mark_read","notification_ids":["{ID}","{ID}"]}}"#),
                Message::MarkRead { ids: vec![uuid], many: true },
            ),
            (r#"{"type":"mark_read","all":true}"#.to_owned(), Message::MarkAllRead),
            (format!(r#"{{"type":"ack","notification_id":"{ID}"}}"#), Message::Ack(uuid)),
            (r#"{"type":"auth","token":"t"}"#.to_owned(), Message::Auth("t".to_owned())),
        ];
        for (text, message) in good {
            assert_eq!(parse(&text), Ok(message), "{text}");
        }
    }

    #[test]
    fn what_they_should_not() {
        let bad = [
            ("", "invalid_json"),
            ("{bad", "invalid_json"),
            ("\u{feff}{}", "invalid_json"),
            (r#"{"type":"ping"} x"#, "invalid_json"),
            (r#"{"type":NaN}"#, "invalid_json"),
            ("[1]", "invalid_message"),
            ("null", "invalid_message"),
            ("\"ping\"", "invalid_message"),
            ("{}", "invalid_message"),
            (r#"{"type":5}"#, "invalid_message"),
            (r#"{"type":"dance"}"#, "unknown_type"),
            (r#"{"type":"mark_read"}"#, "invalid_message"),
            (r#"{"type":"mark_read","notification_id":7}"#, "invalid_message"),
            (r#"{"type":"mark_read","notification_id":"x"}"#, "invalid_message"),
            (r#"{"type":"mark_read","notification_ids":[]}"#, "invalid_message"),
            (r#"{"type":"mark_read","all":false}"#, "invalid_message"),
            (r#"{"type":"ack"}"#, "invalid_message"),
            (r#"{"type":"auth","token":1}"#, "invalid_message"),
        ];
        for (text, code) in bad {
            assert_eq!(parse(text).unwrap_err().code(), code, "{text}");
        }
        let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
        assert_eq!(parse(&deep).unwrap_err().code(), "invalid_json");
        let many =
            format!(r#"{{"type":"mark_read","notification_ids":[{}]}}"#, vec![format!("\"{ID}\""); 101].join(","));
        assert_eq!(parse(&many).unwrap_err().code(), "invalid_message");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
