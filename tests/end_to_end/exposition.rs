//! Owns a strict reader of Prometheus's text format 0.0.4: what it takes, Prometheus takes. Enter at [`Scrape::of`].

use crate::server::{Server, get};
use std::collections::{BTreeMap, BTreeSet};

/// One look at `/metrics`.
pub(crate) struct Scrape {
    /// By series as written: name and labels.
    values: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    pub(crate) fn of(server: &Server) -> Self {
        let (head, body) = get(server.admin, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        assert!(!head.contains("Access-Control"), "{head}");
        Self::parse(&body)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut scrape = Self { values: BTreeMap::new(), kinds: BTreeMap::new() };
        let (mut helped, mut family) = (BTreeSet::new(), String::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
                assert!(helped.insert(name.to_owned()), "HELP twice: {line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
                assert!(helped.contains(name), "no HELP: {line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "TYPE twice: {line}");
                name.clone_into(&mut family);
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = labels_of(series);
                let of = if scrape.kinds[&family] == "histogram" {
                    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap()
                } else {
                    &name
                };
                assert_eq!(of, family, "among the samples of another: {line}");
                assert_eq!(labels.contains_key("le"), name.ends_with("_bucket"), "{line}");
                let value: f64 = value.parse().unwrap();
                assert!(value.is_finite() && value >= 0.0, "{line}");
                assert!(scrape.values.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        scrape.check_histograms(text);
        scrape
    }

    /// Buckets rise, in their order, and the last is the count.
    fn check_histograms(&self, text: &str) {
        let mut rows: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for line in text.lines().filter(|line| line.contains("_bucket{")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, mut labels) = labels_of(series);
            let bound = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
            let name = name.strip_suffix("_bucket").unwrap();
            rows.entry(format!("{name}{labels:?}")).or_default().push((bound, value.parse().unwrap()));
        }
        let histograms = self.kinds.values().filter(|kind| *kind == "histogram").count();
        assert!(rows.len() >= histograms);
        for (name, buckets) in rows {
            assert!(buckets.is_sorted() && buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}");
            assert_eq!(buckets.last().unwrap().0, f64::INFINITY, "{name}");
        }
        for (series, value) in self.values.iter().filter(|(series, _)| series.contains("le=\"+Inf\"")) {
            let count =
                series.replace("_bucket", "_count").replace("le=\"+Inf\"", "").replace(",}", "}").replace("{}", "");
            assert_eq!(self.values.get(&count), Some(value), "{series}");
        }
    }

    /// The value of a series, spelled as on the page; 0 where there is none yet.
    pub(crate) fn of_series(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or_default()
    }

    /// The sum over all labels.
    pub(crate) fn total(&self, name: &str) -> f64 {
        let of = |series: &&String| series.split('{').next() == Some(name);
        self.values.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
    }

    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.values.keys().map(String::as_str).collect()
    }

    /// Names as queries use them: those of histograms with their three endings.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.values.keys().filter_map(|series| series.split('{').next()).collect()
    }
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.starts_with(|c: char| c.is_ascii_lowercase())
}

fn labels_of(series: &str) -> (String, BTreeMap<String, String>) {
    let Some((name, labels)) = series.split_once('{') else {
        assert!(is_name(series), "{series}");
        return (series.to_owned(), BTreeMap::new());
    };
    assert!(is_name(name), "{series}");
    let mut found = BTreeMap::new();
    for label in labels.strip_suffix('}').unwrap().split("\",") {
        let (name, value) = label.split_once("=\"").unwrap();
        let value = value.trim_end_matches('"');
        // Nothing here needs escaping, since nothing here was written by a client.
        assert!(is_name(name) && value.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b)), "{series}");
        assert!(found.insert(name.to_owned(), value.to_owned()).is_none(), "{series}");
    }
    (name.to_owned(), found)
}
