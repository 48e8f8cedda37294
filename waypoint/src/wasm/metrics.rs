//! Numbers that plugins keep: counters, gauges and histograms by names of their own, which Prometheus
//! reads beside ours. A name that is ours, or that Prometheus couldn't read, is made one that isn't.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Metrics in all: names come from plugins, and some make them of what requests say.
const MOST: usize = 4096;
/// The longest name.
const LONGEST: usize = 512;
/// The upper bounds of a histogram's buckets.
const BOUNDS: [u64; 14] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000, 600_000,
];

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All numbers.
#[derive(Debug, Default)]
pub struct Metrics(RwLock<All>);

#[derive(Debug, Default)]
struct All {
    list: Vec<Arc<Metric>>,
    by_name: HashMap<(Kind, Box<str>), u32>,
}

#[derive(Debug)]
struct Metric {
    kind: Kind,
    name: Box<str>,
    /// Of a histogram, the sum.
    value: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

impl Metrics {
    /// The number of a metric, which is made where there is none; none where there are too many.
    pub(super) fn define(&self, kind: Kind, name: &str) -> Option<u32> {
        let name: Box<str> = name[..name.floor_char_boundary(LONGEST)].into();
        let mut all = self.0.write();
        let key = (kind, name.clone());
        if let Some(id) = all.by_name.get(&key) {
            return Some(*id);
        }
        if all.list.len() >= MOST {
            return None;
        }
        let id = u32::try_from(all.list.len()).ok()?;
        all.list.push(Arc::new(Metric {
            kind,
            name,
            value: AtomicU64::new(0),
            buckets: Default::default(),
        }));
        all.by_name.insert(key, id);
        Some(id)
    }

    /// Adds to a counter or gauge; false where that can't be done to it.
    pub(super) fn increment(&self, id: u32, by: i64) -> Option<bool> {
        let metric = self.of(id)?;
        let may = match metric.kind {
            Kind::Counter => by >= 0,
            Kind::Gauge => true,
            Kind::Histogram => false,
        };
        if may {
            metric
                .value
                .fetch_add(by.cast_unsigned(), Ordering::Relaxed);
        }
        Some(may)
    }

    /// Adds to a counter, sets a gauge, or counts a value.
    pub(super) fn record(&self, id: u32, value: u64) -> Option<()> {
        let metric = self.of(id)?;
        match metric.kind {
            Kind::Counter => drop(metric.value.fetch_add(value, Ordering::Relaxed)),
            Kind::Gauge => metric.value.store(value, Ordering::Relaxed),
            Kind::Histogram => {
                let bucket = BOUNDS.partition_point(|bound| value > *bound);
                metric.buckets[bucket].fetch_add(1, Ordering::Relaxed);
                metric.value.fetch_add(value, Ordering::Relaxed);
            }
        }
        Some(())
    }

    /// The value of a counter or gauge.
    pub(super) fn get(&self, id: u32) -> Option<u64> {
        let metric = self.of(id)?;
        let plain = metric.kind != Kind::Histogram;
        plain.then(|| metric.value.load(Ordering::Relaxed))
    }

    fn of(&self, id: u32) -> Option<Arc<Metric>> {
        self.0.read().list.get(id as usize).cloned()
    }

    /// Appends all of them as Prometheus reads them.
    pub fn encode(&self, out: &mut String) {
        let all = self.0.read();
        for metric in &all.list {
            metric.encode(out);
        }
    }
}

impl Metric {
    fn encode(&self, out: &mut String) {
        let name = readable(&self.name);
        let value = self.value.load(Ordering::Relaxed);
        // Writing to a text can't fail.
        let _ = match self.kind {
            Kind::Counter => writeln!(out, "# TYPE {name} counter\n{name} {value}"),
            Kind::Gauge => writeln!(out, "# TYPE {name} gauge\n{name} {}", value.cast_signed()),
            Kind::Histogram => {
                let _ = writeln!(out, "# TYPE {name} histogram");
                let mut count = 0;
                for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
                    count += bucket.load(Ordering::Relaxed);
                    let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
                }
                count += self.buckets[BOUNDS.len()].load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
                writeln!(out, "{name}_sum {value}\n{name}_count {count}")
            }
        };
    }
}

/// A name that Prometheus can read, and that isn't one of ours.
fn readable(name: &str) -> String {
    let ours = ["istio_", "envoy_", "waypoint_"];
    let mut readable = String::with_capacity(name.len());
    let digit = name.starts_with(|first: char| first.is_ascii_digit());
    if digit || name.is_empty() || ours.iter().any(|prefix| name.starts_with(prefix)) {
        readable.push_str("plugin_");
    }
    let safe = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':') => letter,
        _ => '_',
    };
    readable.extend(name.chars().map(safe));
    readable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_numbers_are_told_to_prometheus() {
        let metrics = Metrics::default();
        let counter = metrics.define(Kind::Counter, "seen.total").unwrap();
        assert_eq!(metrics.define(Kind::Counter, "seen.total"), Some(counter));
        let gauge = metrics.define(Kind::Gauge, "istio_open").unwrap();
        let histogram = metrics.define(Kind::Histogram, "time").unwrap();
        assert_eq!(metrics.increment(counter, 2), Some(true));
        assert_eq!(metrics.increment(counter, -1), Some(false));
        assert_eq!(metrics.increment(gauge, -3), Some(true));
        assert_eq!(metrics.increment(histogram, 1), Some(false));
        assert_eq!(metrics.increment(99, 1), None);
        metrics.record(histogram, 7).unwrap();
        metrics.record(histogram, 700_000).unwrap();
        assert_eq!(metrics.get(counter), Some(2));
        let mut text = String::new();
        metrics.encode(&mut text);
        for line in [
            "seen_total 2",
            "plugin_istio_open -3",
            "time_bucket{le=\"5\"} 0",
            "time_bucket{le=\"10\"} 1",
            "time_bucket{le=\"+Inf\"} 2",
            "time_sum 700007",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_name_is_cut_between_characters() {
        let metrics = Metrics::default();
        metrics.define(Kind::Gauge, &"é".repeat(LONGEST)).unwrap();
        metrics
            .define(Kind::Gauge, &format!("a{}", "é".repeat(LONGEST)))
            .unwrap();
        let all = metrics.0.read();
        let lengths: Vec<_> = all.list.iter().map(|metric| metric.name.len()).collect();
        assert_eq!(lengths, [LONGEST, LONGEST - 1]);
    }

    #[test]
    fn there_are_only_so_many() {
        let metrics = Metrics::default();
        for number in 0..MOST {
            metrics.define(Kind::Gauge, &number.to_string()).unwrap();
        }
        assert_eq!(metrics.define(Kind::Gauge, "more"), None);
    }
}
