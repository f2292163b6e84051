//! Owns how numbers are kept and shown: counts by a fixed set of labels, histograms, and the text page (Prometheus
//! exposition format 0.0.4). Never knows what is measured. Enter at [`Counts`], [`Histogram`] and [`Page`].
//!
//! Own code, since the one thread that counts needs plain integers: the crates for it (`prometheus`,
//! `prometheus-client`) keep atomics behind locks for many threads, and write OpenMetrics or take labels as owned text.
//! Here a label's value is `&'static str`: the compiler keeps whatever a client sent out of the page.

mod vitals;

pub use vitals::Vitals;

use std::fmt::{Display, Write};
use std::marker::PhantomData;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    const ALL: &'static [Self];
    fn as_str(self) -> &'static str;
    fn place(self) -> usize;
}

/// An enum that is a [`Label`], each variant with its word.
macro_rules! labels {
    ($(#[$about:meta])* $vis:vis $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$what])* $variant),+ }

        impl $crate::metrics::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use labels;

impl Label for crate::notification::Channel {
    const ALL: &'static [Self] = &Self::ALL;

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }

    fn place(self) -> usize {
        self as usize
    }
}

/// One counter for each value of a label.
pub struct Counts<L> {
    counts: Box<[u64]>,
    label: PhantomData<L>,
}

impl<L: Label> Default for Counts<L> {
    fn default() -> Self {
        Self { counts: vec![0; L::ALL.len()].into(), label: PhantomData }
    }
}

impl<L: Label> Counts<L> {
    /// So many more of this label.
    pub fn add(&mut self, label: L, count: u64) {
        if let Some(place) = self.counts.get_mut(label.place()) {
            *place += count;
        }
    }

    /// One less of this label, for what goes again; never below 0.
    pub fn take(&mut self, label: L) {
        if let Some(place) = self.counts.get_mut(label.place()) {
            *place = place.saturating_sub(1);
        }
    }

    #[must_use]
    pub fn of(&self, label: L) -> u64 {
        self.counts.get(label.place()).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().copied().zip(self.counts.iter().copied())
    }
}

/// Observed in microseconds, shown in seconds.
pub const MICROSECONDS: Scale = Scale { per_unit: 1_000_000 };
/// What is counted as it is.
pub const ONES: Scale = Scale { per_unit: 1 };

/// How many of what is observed make one of what is shown.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    per_unit: u64,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "the page shows floating-point numbers")]
    fn shown(self, value: u64) -> f64 {
        value as f64 / self.per_unit as f64
    }
}

/// How often values up to each bound were seen.
pub struct Histogram {
    scale: Scale,
    bounds: &'static [u64],
    /// One for each bound, and one for what lies beyond.
    counts: Box<[u64]>,
    sum: u64,
}

impl Histogram {
    /// `bounds`: rising, as observed.
    #[must_use]
    pub fn new(scale: Scale, bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted(), "bounds rise");
        Self { scale, bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0 }
    }

    /// Counts one value, in the unit of the bounds.
    pub fn observe(&mut self, value: u64) {
        // All of them, without a branch: cheaper than a search that guesses wrong.
        let place = self.bounds.iter().filter(|bound| **bound < value).count();
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// For charts: bounds as shown, how many in each bucket (one more than bounds), sum as shown.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let bounds: Vec<f64> = self.bounds.iter().map(|bound| self.scale.shown(*bound)).collect();
        serde_json::json!({ "bounds": bounds, "counts": self.counts, "sum": self.scale.shown(self.sum) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The page under way.
#[derive(Default)]
pub struct Page {
    text: String,
}

/// Of one name: its samples follow each other.
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Page {
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family. `help`: one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { page: self, name }
    }

    pub fn counter(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    pub fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    pub fn counts<L: Label>(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        label: &'static str,
        by: &Counts<L>,
    ) {
        let mut family = self.family(name, kind, help);
        for (value, count) in by.iter() {
            family.sample(&[(label, value.as_str())], count);
        }
    }

    pub fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        self.family(name, Kind::Histogram, help).histogram(&[], histogram);
    }

    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        let written = self.text.write_fmt(text);
        debug_assert!(written.is_ok(), "a String takes all");
    }
}

impl Family<'_> {
    pub fn sample(&mut self, labels: &[(&'static str, &'static str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    pub fn histogram(&mut self, labels: &[(&'static str, &'static str)], histogram: &Histogram) {
        let mut seen = 0;
        for (place, count) in histogram.counts.iter().enumerate() {
            seen += count;
            let bound = histogram
                .bounds
                .get(place)
                .map_or_else(|| "+Inf".to_owned(), |bound| histogram.scale.shown(*bound).to_string());
            self.line("_bucket", labels, Some(&bound), seen);
        }
        self.line("_sum", labels, None, histogram.scale.shown(histogram.sum));
        self.line("_count", labels, None, seen);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        let name = self.name;
        self.page.write(format_args!("{name}{suffix}"));
        let mut open = '{';
        for (label, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.page.write(format_args!("{open}{label}=\"{value}\""));
            open = ',';
        }
        let close = if open == ',' { "}" } else { "" };
        self.page.write(format_args!("{close} {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        Fruit { Apple = "apple", Pear = "pear" }
    }

    #[test]
    fn a_page_as_prometheus_reads_it() {
        let mut fruit = Counts::<Fruit>::default();
        fruit.add(Fruit::Pear, 3);
        fruit.take(Fruit::Apple);
        let mut waits = Histogram::new(MICROSECONDS, &[1_000, 2_500_000]);
        for us in [0, 1_000, 1_001, 2_500_000, 2_500_001] {
            waits.observe(us);
        }
        let mut page = Page::default();
        page.counts("fruit_total", Kind::Counter, "Fruit.", "kind", &fruit);
        page.gauge("level", "Level.", 0.5);
        page.family("wait_seconds", Kind::Histogram, "Waits.").histogram(&[("how", "long")], &waits);
        assert_eq!(
            page.into_text(),
            "# HELP fruit_total Fruit.\n# TYPE fruit_total counter\n\
             fruit_total{kind=\"apple\"} 0\nfruit_total{kind=\"pear\"} 3\n\
             # HELP level Level.\n# TYPE level gauge\nlevel 0.5\n\
             # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n\
             wait_seconds_bucket{how=\"long\",le=\"0.001\"} 2\nwait_seconds_bucket{how=\"long\",le=\"2.5\"} 4\n\
             wait_seconds_bucket{how=\"long\",le=\"+Inf\"} 5\n\
             wait_seconds_sum{how=\"long\"} 5.002002\nwait_seconds_count{how=\"long\"} 5\n"
        );
        assert_eq!((fruit.total(), fruit.of(Fruit::Pear), waits.count()), (3, 3, 5));
    }

    #[test]
    fn for_charts() {
        let mut batch = Histogram::new(ONES, &[1, 10]);
        batch.observe(7);
        assert_eq!(batch.to_json(), serde_json::json!({ "bounds": [1.0, 10.0], "counts": [0, 1, 0], "sum": 7.0 }));
    }
}
