//! Owns the way from the text of `config.toml` to its keys, in order and with their lines. Never reads a value: that is
//! `keys.rs`. Enter at [`visit`].

use super::{
    keys::{Entry, KEYS},
    mistake::{Wrong, unknown_key},
};
use std::{collections::BTreeMap, ops::Range};
use toml::de::{DeTable, DeValue};

/// What stands on a line: a key with its value, or something wrong.
pub(super) struct Found<'a> {
    pub(super) line: usize,
    /// As written, with its section; empty where the line cannot be read.
    pub(super) name: String,
    pub(super) is: Result<(&'static Entry, &'a DeValue<'a>), Wrong>,
}

/// Shows `each` all that is found in `text`, top to bottom. Whether all of it could be read.
pub(super) fn visit(text: &str, each: impl FnMut(Found<'_>)) -> bool {
    let (table, errors) = DeTable::parse_recoverable(text);
    let line = |at: usize| line_of(text.as_bytes(), at);

    // One mistake a line: the parser may stumble over the same slip twice.
    let mut broken = BTreeMap::new();
    for error in &errors {
        broken.entry(error.span().map_or(1, |span| line(span.start))).or_insert_with(|| syntax(error.message()));
    }
    // What the parser made of a line that it could not read is a guess; a key and its value may even change places.
    let is_guess = |key: &Range<usize>, value: Range<usize>| {
        let (first, last) = (key.start.min(value.start).min(value.end), key.end.max(value.end));
        broken.range(line(first)..=line(last)).next().is_some()
    };
    let mut found = Vec::new();
    for (section, body) in table.get_ref() {
        let (span, section) = (section.span(), section.get_ref());
        let is_section = KEYS.iter().any(|entry| entry.section == section);
        match body.get_ref() {
            DeValue::Table(keys) if is_section => {
                for (key, value) in keys.iter().filter(|(key, value)| !is_guess(&key.span(), value.span())) {
                    let name = format!("{section}.{}", key.get_ref());
                    let entry = KEYS.iter().find(|entry| entry.name == name).ok_or_else(|| unknown_key(&name));
                    let is = entry.map(|entry| (entry, value.get_ref()));
                    found.push(Found { line: line(key.span().start), name, is });
                }
            }
            _ if is_guess(&span, body.span()) => {}
            _ => {
                let wrong = if is_section { not_a_section(section) } else { unknown_key(section) };
                found.push(Found { line: line(span.start), name: section.to_string(), is: Err(wrong) });
            }
        }
    }
    let whole = broken.is_empty();
    found.extend(broken.into_iter().map(|(line, wrong)| Found { line, name: String::new(), is: Err(wrong) }));
    found.sort_by_key(|found| found.line);
    found.into_iter().for_each(each);
    whole
}

/// The parser's own words; never the line's, which may hold a secret.
fn syntax(message: &str) -> Wrong {
    let right = match message {
        "duplicate key" => "keep one of them",
        _ => "write key = value, with words and all that has a unit in quotes",
    };
    Wrong::new(message, right)
}

fn not_a_section(section: &str) -> Wrong {
    Wrong::new("a section, not a key", format!("write [{section}] and its keys below"))
}

/// The line, from 1, of the byte at `at`.
pub(super) fn line_of(text: &[u8], at: usize) -> usize {
    text.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_neither_hides_the_others_nor_panics() {
        for (text, expected) in [
            ("[log]\nlevel = \n", vec!["2 "]),
            ("[log]\nlevel", vec!["2 "]),
            ("[log\nlevel = 1", vec!["1 "]),
            ("[log]\nlevel = [1,\n\n[limits]\nhead = 1", vec!["4 ", "5 "]),
            ("[log]\nlevel = 'a\nformat = 'b'", vec!["2 ", "3 log.format"]),
            ("log = {level = 1\n", vec!["1 "]),
        ] {
            let mut seen = Vec::new();
            assert!(!visit(text, |found| seen.push(format!("{} {}", found.line, found.name))), "{text:?}");
            assert_eq!(seen, expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_cut_short_panics() {
        let text = include_str!("../../config.toml").replace("# ", "");
        for (end, _) in text.char_indices().step_by(23) {
            visit(&text[..end], |_| {});
        }
    }
}
