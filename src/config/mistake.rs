//! Owns what is said about a wrong configuration, and which key was probably meant. Never shows a secret. Enter at
//! [`Mistakes`].

use super::keys::{Entry, KEYS};
use super::read::ALIASES;
use std::{collections::BTreeSet, fmt};

/// One thing that is wrong with the configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {wrong}")]
pub struct Mistake {
    /// `file:line: key`, or the name of an environment variable.
    pub place: String,
    /// What is wrong there, and what would be right.
    pub wrong: Wrong,
}

/// Everything that is wrong with the configuration; never empty. Shown one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// What is wrong with a value, and what would be right; it shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {right}")]
pub struct Wrong {
    pub what: String,
    pub right: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, right: impl Into<String>) -> Self {
        Self { what: what.into(), right: right.into() }
    }
}

pub(super) fn wrong<T>(what: impl Into<String>, right: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::new(what, right))
}

/// A value as it may appear in a message: one line, no longer than needed to be recognised.
pub(super) fn quote(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}

/// `a, b or c`.
pub(super) fn either<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// For `section.key`, or what stands at the top level instead of a section.
pub(super) fn unknown_key(name: &str) -> Wrong {
    let sections: BTreeSet<_> = KEYS.iter().map(|entry| entry.section).collect();
    let section = name.split_once('.').map(|(section, _)| section);
    let right = match (nearest(name), section) {
        (Some(entry), _) => format!("is {} meant?", entry.name),
        (None, Some(section)) => {
            let keys = KEYS.iter().filter(|entry| entry.section == section).map(|entry| entry.key);
            format!("[{section}] has {}", keys.collect::<Vec<_>>().join(", "))
        }
        (None, None) => match sections.iter().min_by_key(|section| distance(section, name)) {
            Some(section) if distance(section, name) <= section.len() / 3 => format!("is [{section}] meant?"),
            _ => format!("the sections are {}", sections.into_iter().collect::<Vec<_>>().join(", ")),
        },
    };
    Wrong::new("unknown", right)
}

pub(super) fn unknown_variable(name: &str) -> Wrong {
    let rest = name.trim_start_matches("HABITTOD_");
    let of_section: Vec<_> =
        KEYS.iter().filter(|entry| entry.section.eq_ignore_ascii_case(rest)).map(Entry::variable).collect();
    let right = if ALIASES.iter().any(|(alias, _)| *alias == rest) {
        format!("is {rest} meant?")
    } else if !of_section.is_empty() {
        format!("name a key as well: {}", either(of_section.iter().map(String::as_str)))
    } else if let Some(entry) = nearest(rest) {
        format!("is {} meant?", entry.variable())
    } else {
        "HABITTOD_ is followed by a section and a key of config.toml, e.g. HABITTOD_SERVER_LISTEN".to_owned()
    };
    Wrong::new("unknown", right)
}

/// The key that was meant: right but for its section, or a few letters off.
fn nearest(name: &str) -> Option<&'static Entry> {
    let name = name.to_ascii_lowercase().replace('.', "_");
    let misplaced = |entry: &&Entry| {
        name.strip_suffix(entry.key).is_some_and(|section| section.is_empty() || section.ends_with('_'))
    };
    let off_by = |entry: &&Entry| distance(&entry.name.replace('.', "_"), &name);
    let misplaced = KEYS.iter().filter(misplaced).max_by_key(|entry| entry.key.len());
    misplaced.or_else(|| KEYS.iter().min_by_key(off_by).filter(|entry| off_by(entry) <= 3))
}

/// Levenshtein's: how many letters must be added, removed or replaced.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.chars().enumerate() {
            next.push((row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("body", "bdoy", 2), ("ñu", "nu", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        for (name, meant) in [
            ("limits.bdoy", "is limits.body meant?"),
            ("server.path", "is storage.path meant?"),
            ("listen", "is server.listen meant?"),
            ("limit", "is [limits] meant?"),
            ("delivery.colour", "[delivery] has ack, replay_max"),
            ("foo", "the sections are auth, channel_layer, delivery, limits, log, server, storage"),
            ("websocket", "the sections are auth, channel_layer, delivery, limits, log, server, storage"),
        ] {
            assert_eq!(unknown_key(name).right, meant, "{name}");
        }
        for (name, meant) in [
            ("HABITTOD_SERVER_LISTN", "is HABITTOD_SERVER_LISTEN meant?"),
            ("HABITTOD_LISTEN", "is HABITTOD_SERVER_LISTEN meant?"),
            ("HABITTOD_SECRET_FILE", "is HABITTOD_AUTH_SECRET_FILE meant?"),
            ("HABITTOD_CHANNEL_LAYER", "is CHANNEL_LAYER meant?"),
            ("HABITTOD_LOG", "name a key as well: HABITTOD_LOG_LEVEL or HABITTOD_LOG_FORMAT"),
        ] {
            assert_eq!(unknown_variable(name).right, meant, "{name}");
        }
        assert!(unknown_variable("HABITTOD_").right.contains("HABITTOD_SERVER_LISTEN"));
    }
}
