//! Owns the reading of JSON that strangers wrote: bounded depth, no key twice, no NUL. Never guesses.
//! Enter at [`parse`].

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Levels of arrays and objects in one another.
pub const DEPTH_MAX: u32 = 32;

/// Reads one value and nothing behind it. `serde_json` itself refuses lone surrogates, bad UTF-8, a BOM and trailing
/// bytes; it would take the last of two equal keys, NUL, and a depth of 127.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { levels: DEPTH_MAX }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// The same of any format that serde reads.
pub fn read<'de, D: Deserializer<'de>>(format: D) -> Result<Value, D::Error> {
    Strict { levels: DEPTH_MAX }.deserialize(format)
}

struct Strict {
    levels: u32,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn deeper<E: Error>(&self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels }),
            None => Err(E::custom("nested deeper than 32 levels")),
        }
    }
}

fn checked<E: Error>(text: &str) -> Result<&str, E> {
    if text.contains('\0') { Err(E::custom("NUL in a string")) } else { Ok(text) }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        checked(value).map(Value::from)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self { ..inner })? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            checked(&key)?;
            let value = entries.next_value_seed(Self { ..inner })?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_refused() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(deep(32).as_bytes()).is_ok());
        for bad in [
            &deep(33),
            &"[".repeat(100_000),
            "",
            "{",
            "{}x",
            "\u{feff}{}",
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#""\u0000""#,
            r#"{"\u0000":1}"#,
            r#""\ud800""#,
            "NaN",
            "1e400",
            "[1,]",
            "'x'",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{}", bad.get(..40).unwrap_or(bad));
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn agrees_with_serde_json_where_it_takes_something(text in r#"[\[\]{}:,"a01e.\-tfn ]{0,30}"#) {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
