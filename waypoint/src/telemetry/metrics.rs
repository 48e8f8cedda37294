//! Counters and histograms by label set, and the text that Prometheus reads. A handle is found once
//! and then moves without a lock; looking one up takes the family's lock and is rare. A family that
//! is full takes no new label sets, and says how many it refused.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The most label sets a family keeps: about 20 MB of text at Istio's label sets.
const MOST_SERIES: usize = 20_000;

/// The upper bounds of a histogram's buckets: Envoy's, in milliseconds or bytes.
const BOUNDS: [(&str, u64); 19] = [
    ("0.5", 0),
    ("1", 1),
    ("5", 5),
    ("10", 10),
    ("25", 25),
    ("50", 50),
    ("100", 100),
    ("250", 250),
    ("500", 500),
    ("1000", 1000),
    ("2500", 2500),
    ("5000", 5000),
    ("10000", 10_000),
    ("30000", 30_000),
    ("60000", 60_000),
    ("300000", 300_000),
    ("600000", 600_000),
    ("1.8e+06", 1_800_000),
    ("3.6e+06", 3_600_000),
];

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

/// A distribution of whole numbers.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One more than there are bounds: the last has none.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// A metric with all its label sets.
#[derive(Debug)]
pub(super) struct Family<T> {
    name: &'static str,
    help: &'static str,
    series: Mutex<HashMap<Arc<str>, Arc<T>>>,
    refused: AtomicU64,
}

/// What a family can hold.
pub(super) trait Cell: Default {
    /// The type that Prometheus knows it by.
    const KIND: &'static str;

    /// Appends its lines.
    fn encode(&self, name: &str, labels: &str, out: &mut String);
}

impl Counter {
    /// Adds so many.
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Histogram {
    /// Counts a value.
    pub(super) fn observe(&self, value: u64) {
        let bucket = BOUNDS.partition_point(|(_, bound)| value > *bound);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl Cell for Counter {
    const KIND: &'static str = "counter";

    fn encode(&self, name: &str, labels: &str, out: &mut String) {
        let value = self.0.load(Ordering::Relaxed);
        line(out, name, "", labels, "", value);
    }
}

impl Cell for Histogram {
    const KIND: &'static str = "histogram";

    fn encode(&self, name: &str, labels: &str, out: &mut String) {
        let mut total = 0;
        let bounds = BOUNDS.iter().map(|(text, _)| *text).chain(["+Inf"]);
        for (bound, bucket) in bounds.zip(&self.buckets) {
            total += bucket.load(Ordering::Relaxed);
            line(out, name, "_bucket", labels, bound, total);
        }
        line(
            out,
            name,
            "_sum",
            labels,
            "",
            self.sum.load(Ordering::Relaxed),
        );
        line(out, name, "_count", labels, "", total);
    }
}

impl<T: Cell> Family<T> {
    /// A family without any series yet.
    pub(super) fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            series: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// The series of a label set (`a="b",c="d"`, escaped). None where the family is full.
    pub(super) fn of(&self, labels: &Arc<str>) -> Option<Arc<T>> {
        let mut series = self.series.lock();
        if let Some(known) = series.get(labels) {
            return Some(Arc::clone(known));
        }
        if series.len() >= MOST_SERIES {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let new = Arc::new(T::default());
        series.insert(Arc::clone(labels), Arc::clone(&new));
        Some(new)
    }

    /// Appends all series; nothing where there is none.
    pub(super) fn encode(&self, out: &mut String) {
        let series = self.series.lock();
        if !series.is_empty() {
            let (name, help, kind) = (self.name, self.help, T::KIND);
            push(
                out,
                format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
            );
        }
        for (labels, cell) in &*series {
            cell.encode(self.name, labels, out);
        }
    }

    /// How often a label set was refused because the family was full.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Appends a line: `name_suffix{labels,le="bound"} value`.
fn line(out: &mut String, name: &str, suffix: &str, labels: &str, bound: &str, value: u64) {
    let comma = if labels.is_empty() || bound.is_empty() {
        ""
    } else {
        ","
    };
    match (labels, bound) {
        ("", "") => push(out, format_args!("{name}{suffix} {value}\n")),
        (labels, "") => push(out, format_args!("{name}{suffix}{{{labels}}} {value}\n")),
        (labels, bound) => push(
            out,
            format_args!("{name}{suffix}{{{labels}{comma}le=\"{bound}\"}} {value}\n"),
        ),
    }
}

/// Appends one label, escaped, after a comma where another is there.
pub(super) fn label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(name);
    labels.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            other => labels.push(other),
        }
    }
    labels.push('"');
}

/// Writing to a text cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests;
