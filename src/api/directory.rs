//! Owns the reading of users and properties as the backend describes them, for the service calls and for `import`.
//! Never stores one. Enter at [`user`] and [`property`].

use crate::auth::password;
use crate::matching::{Property, User, UserId, parse_id};
use serde_json::{Map, Value};

/// Which field cannot be, and why, in the words of Django REST framework.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldError {
    pub field: String,
    pub problem: String,
}

/// A user, and what is not given back.
#[derive(Debug)]
pub struct UserFields {
    pub user: User,
    pub is_active: Option<bool>,
    /// Plain or in Django's encoding.
    pub password: Option<String>,
}

const PASSWORD_MAX: usize = 4_096;

fn wrong<T>(field: &str, problem: impl Into<String>) -> Result<T, FieldError> {
    Err(FieldError { field: field.to_owned(), problem: problem.into() })
}

/// Takes the fields of a user out of `fields`; what is left is further.
pub fn user(fields: &mut Map<String, Value>) -> Result<UserFields, FieldError> {
    let username = text(fields, "username", 150)?;
    if username.is_empty() {
        return wrong("username", "This field is required.");
    }
    let password = match fields.shift_remove("password") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if password::is_foreign(&text) => {
            return wrong("password", "Only pbkdf2_sha256 hashes are known.");
        }
        Some(Value::String(text)) if password::is_encoded(&text) => Some(text),
        // A sign-in is read without white space around the password, so it is not stored with it.
        Some(Value::String(text)) if !text.trim().is_empty() && text.chars().count() <= PASSWORD_MAX => {
            Some(text.trim().to_owned())
        }
        Some(_) => return wrong("password", "Not a valid string."),
    };
    let user = User {
        username,
        email: text(fields, "email", 254)?,
        first_name: text(fields, "first_name", 150)?,
        last_name: text(fields, "last_name", 150)?,
        phone: text(fields, "phone", 32)?,
        user_type: text(fields, "user_type", 32)?,
        further: Map::new(),
    };
    let is_active = truth(fields, "is_active")?;
    fields.shift_remove("id");
    Ok(UserFields { user: User { further: std::mem::take(fields), ..user }, is_active, password })
}

/// Takes the fields of a property out of `fields`; what is left is further.
pub fn property(fields: &mut Map<String, Value>) -> Result<Property, FieldError> {
    let owner = match fields.shift_remove("owner") {
        None | Some(Value::Null) => return wrong("owner", "This field is required."),
        Some(value) => id(&value, "owner")?,
    };
    let agent = match fields.shift_remove("agent") {
        None | Some(Value::Null) => None,
        Some(value) => Some(id(&value, "agent")?),
    };
    let (kind, address) = (text(fields, "type", 100)?, text(fields, "address", 500)?);
    for (name, value) in [("type", &kind), ("address", &address)] {
        if value.is_empty() {
            return wrong(name, "This field is required.");
        }
    }
    let price = match fields.shift_remove("price") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_f64().or_else(|| value.as_str().and_then(decimal)) {
            Some(price) if price >= 0.0 && price.is_finite() => Some(price),
            _ => return wrong("price", "A valid number is required."),
        },
    };
    let bedrooms = match fields.shift_remove("bedrooms") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_i64() {
            Some(count) if count >= 0 => Some(count),
            _ => return wrong("bedrooms", "A valid integer is required."),
        },
    };
    let is_active = truth(fields, "is_active")?.unwrap_or(true);
    fields.shift_remove("id");
    Ok(Property { owner, agent, kind, address, price, bedrooms, is_active, further: std::mem::take(fields) })
}

/// Django writes decimals as strings.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

fn id(value: &Value, field: &str) -> Result<UserId, FieldError> {
    match value.as_i64().filter(|n| *n > 0).or_else(|| value.as_str().and_then(parse_id)) {
        Some(id) => Ok(UserId(id)),
        None => wrong(field, "A valid integer is required."),
    }
}

fn text(fields: &mut Map<String, Value>, field: &str, max: usize) -> Result<String, FieldError> {
    match fields.shift_remove(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) if text.chars().count() > max => {
            wrong(field, format!("Ensure this field has no more than {max} characters."))
        }
        Some(Value::String(text)) if !text.contains(char::is_control) => Ok(text),
        Some(_) => wrong(field, "Not a valid string."),
    }
}

fn truth(fields: &mut Map<String, Value>, field: &str) -> Result<Option<bool>, FieldError> {
    match fields.shift_remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => wrong(field, "Must be a valid boolean."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn users() {
        let read =
            user(&mut fields(json!({"id": 9, "username": "ana", "phone": null, "photo": "p.jpg", "password": "x"})))
                .unwrap();
        assert_eq!((read.user.username.as_str(), read.user.phone.as_str(), read.is_active), ("ana", "", None));
        assert_eq!(read.user.further, fields(json!({"photo": "p.jpg"})));
        for (bad, field) in [
            (json!({}), "username"),
            (json!({"username": ""}), "username"),
            (json!({"username": 5}), "username"),
            (json!({"username": "a\u{1b}"}), "username"),
            (json!({"username": "a", "email": "x".repeat(255)}), "email"),
            (json!({"username": "a", "is_active": "yes"}), "is_active"),
            (json!({"username": "a", "password": ""}), "password"),
            (json!({"username": "a", "password": " "}), "password"),
        ] {
            assert_eq!(user(&mut fields(bad.clone())).unwrap_err().field, field, "{bad}");
        }
    }

    #[test]
    fn properties() {
        let whole = json!({"owner": "7", "type": "casa", "address": "x", "price": "2500.50", "zone_id": 2});
        let read = property(&mut fields(whole)).unwrap();
        assert_eq!((read.owner, read.price, read.is_active), (UserId(7), Some(2500.5), true));
        assert_eq!(read.further, fields(json!({"zone_id": 2})));
        for (bad, field) in [
            (json!({"type": "casa", "address": "x"}), "owner"),
            (json!({"owner": 0, "type": "casa", "address": "x"}), "owner"),
            (json!({"owner": 1, "address": "x"}), "type"),
            (json!({"owner": 1, "type": "casa", "address": ""}), "address"),
            (json!({"owner": 1, "type": "casa", "address": "x", "agent": "a"}), "agent"),
            (json!({"owner": 1, "type": "casa", "address": "x", "price": -1}), "price"),
            (json!({"owner": 1, "type": "casa", "address": "x", "price": "9".repeat(400)}), "price"),
            (json!({"owner": 1, "type": "casa", "address": "x", "price": "."}), "price"),
            (json!({"owner": 1, "type": "casa", "address": "x", "price": "inf"}), "price"),
            (json!({"owner": 1, "type": "casa", "address": "x", "bedrooms": 1.5}), "bedrooms"),
        ] {
            assert_eq!(property(&mut fields(bad.clone())).unwrap_err().field, field, "{bad}");
        }
    }
}
