//! The four metrics of connections, which share their labels: one look-up when a connection opens
//! finds a place for all of them, and its end only adds to that place.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::labels::Labels;

/// Different label sets that are kept. Past it, connections are counted only as untracked: a bound
/// on memory, not on truth.
const MOST_LABEL_SETS: usize = 20_000;

/// The counts of all connections. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counts: RwLock<HashMap<Labels, Arc<Counts>>>,
    untracked: AtomicU64,
}

/// The counts of connections with the same labels.
#[derive(Debug, Default)]
pub(super) struct Counts {
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// One of the four metrics: its name, its meaning, and where it is counted.
type Metric = (&'static str, &'static str, fn(&Counts) -> &AtomicU64);

const METRICS: [Metric; 4] = [
    (
        "istio_tcp_connections_opened",
        "Connections opened",
        |counts| &counts.opened,
    ),
    (
        "istio_tcp_connections_closed",
        "Connections closed",
        |counts| &counts.closed,
    ),
    (
        "istio_tcp_sent_bytes",
        "Bytes from the client to the server",
        |counts| &counts.sent,
    ),
    (
        "istio_tcp_received_bytes",
        "Bytes from the server to the client",
        |counts| &counts.received,
    ),
];

impl Counts {
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, sent: u64, received: u64) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.received.fetch_add(received, Ordering::Relaxed);
    }
}

impl Traffic {
    /// The counts of connections with these labels; none, and counted as untracked, where there
    /// are too many different ones.
    pub(super) fn of(&self, labels: Labels) -> Option<Arc<Counts>> {
        if let Some(counts) = self.0.counts.read().get(&labels) {
            return Some(Arc::clone(counts));
        }
        let mut all = self.0.counts.write();
        if all.len() >= MOST_LABEL_SETS && !all.contains_key(&labels) {
            self.0.untracked.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Arc::clone(all.entry(labels).or_default()))
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all: Vec<_> = self
            .0
            .counts
            .read()
            .iter()
            .map(|(labels, counts)| (labels.clone(), Arc::clone(counts)))
            .collect();
        for (name, help, read) in METRICS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, counts) in &all {
                let value = read(counts).load(Ordering::Relaxed);
                // A failure opens under the labels of a success: it alone never shows up as opened.
                if value > 0 || counts.closed.load(Ordering::Relaxed) > 0 {
                    family
                        .encode_family(labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                }
            }
        }
        let help = "Connections past the bound on label sets";
        let mut untracked = encoder.encode_descriptor(
            "culvert_untracked_connections",
            help,
            None,
            MetricType::Counter,
        )?;
        untracked
            .encode_counter::<NoLabelSet, _, u64>(&self.0.untracked.load(Ordering::Relaxed), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::{Ends, Flag, Reporter, Security};
    use crate::testing::pod;

    fn labels(source: &str) -> Labels {
        let source = pod(source, "10.0.0.1");
        Labels::new(Ends {
            reporter: Reporter::Source,
            source: Some(&source),
            source_identity: None,
            destination: None,
            destination_identity: None,
            service: None,
            security: Security::Unknown,
        })
    }

    #[test]
    fn label_sets_are_bounded_and_what_is_past_the_bound_is_still_counted() {
        let traffic = Traffic::default();
        for number in 0..MOST_LABEL_SETS {
            assert!(traffic.of(labels(&number.to_string())).is_some());
        }
        assert!(traffic.of(labels("one-more")).is_none());
        assert!(
            traffic.of(labels("7")).is_some(),
            "those there are go on counting"
        );
        assert_eq!(traffic.0.untracked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_same_labels_share_their_counts() {
        let traffic = Traffic::default();
        traffic.of(labels("a")).unwrap().opened();
        traffic.of(labels("a")).unwrap().closed(3, 4);
        let denied = labels("a").ended(Flag::Denied);
        traffic.of(denied).unwrap().closed(0, 0);
        let counts = traffic.of(labels("a")).unwrap();
        assert_eq!(counts.closed.load(Ordering::Relaxed), 1);
        assert_eq!(traffic.0.counts.read().len(), 2);
    }
}
