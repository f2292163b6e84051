//! Owns what `/api/login/` and `/api/refresh/` read and say, in the words of SimpleJWT. Never checks a password, never
//! prints one. Enter at [`credentials`] and [`refresh_token`].

use super::reply::{CREATED, Reply};
use serde_json::{Map, Value, json};

/// What a login gives.
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// The fields of a login; what is wrong with either is said of both at once.
pub fn credentials(fields: &Map<String, Value>) -> Result<Credentials, Reply> {
    match (text(fields, "username"), text(fields, "password")) {
        (Ok(username), Ok(password)) => Ok(Credentials { username, password }),
        (username, password) => {
            let mut problems = Map::new();
            for (name, read) in [("username", username), ("password", password)] {
                if let Err(problem) = read {
                    problems.insert(name.to_owned(), json!([problem]));
                }
            }
            Err(Reply::invalid(Value::Object(problems)))
        }
    }
}

/// The token to renew; other fields are not looked at (the app sends `refresh_token` too).
pub fn refresh_token(fields: &Map<String, Value>) -> Result<String, Reply> {
    text(fields, "refresh").map_err(|problem| Reply::invalid_field("refresh", problem))
}

/// As Django REST framework reads a text: a number is one, and white space around it is not part of it.
fn text(fields: &Map<String, Value>, name: &str) -> Result<String, &'static str> {
    let text = match fields.get(name) {
        None => return Err("This field is required."),
        Some(Value::Null) => return Err("This field may not be null."),
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err("Not a valid string."),
    };
    if text.is_empty() { Err("This field may not be blank.") } else { Ok(text) }
}

#[must_use]
pub fn signed_in(access: &str, refresh: &str) -> Reply {
    Reply::ok(CREATED, json!({ "refresh": refresh, "access": access }))
}

#[must_use]
pub fn renewed(access: &str, refresh: &str) -> Reply {
    Reply::ok(CREATED, json!({ "access": access, "refresh": refresh }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &Value) -> Result<(String, String), Value> {
        let read = credentials(fields.as_object().unwrap());
        read.map(|read| (read.username, read.password)).map_err(|reply| {
            assert_eq!(reply.status, 400);
            serde_json::from_str::<Value>(&reply.body).unwrap()["data"].clone()
        })
    }

    #[test]
    fn a_login_is_read_as_django_reads_it() {
        let both = |username: &str, password: &str| Ok((username.to_owned(), password.to_owned()));
        assert_eq!(read(&json!({"username": "ana", "password": "s e", "more": 1})), both("ana", "s e"));
        assert_eq!(read(&json!({"username": " ana\n", "password": 123_456})), both("ana", "123456"));
        let required = json!(["This field is required."]);
        assert_eq!(read(&json!({"username": "ana"})), Err(json!({"password": required})));
        assert_eq!(read(&json!({})), Err(json!({"username": required, "password": required})));
        for (odd, problem) in [
            (json!(null), "This field may not be null."),
            (json!(""), "This field may not be blank."),
            (json!("  "), "This field may not be blank."),
            (json!(true), "Not a valid string."),
            (json!(["a"]), "Not a valid string."),
            (json!({"a": 1}), "Not a valid string."),
        ] {
            assert_eq!(read(&json!({"username": odd, "password": "x"})), Err(json!({"username": [problem]})));
            let refused =
                refresh_token(json!({"refresh": odd, "refresh_token": "x"}).as_object().unwrap()).unwrap_err();
            assert!(refused.body.contains(&format!("{{\"refresh\":[\"{problem}\"]}}")), "{}", refused.body);
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let credentials = Credentials { username: "ana".to_owned(), password: "secreto".to_owned() };
        assert_eq!(format!("{credentials:?}"), "Credentials");
    }
}
