//! Earliest deadline first: weighted turns that are as even as can be, as Envoy takes them. Each
//! entry's next turn is due one over its weight after its last.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rand::Rng;

/// Entries that take turns by weight.
#[derive(Debug)]
pub(super) struct Edf {
    heap: BinaryHeap<Turn>,
    weights: Box<[f64]>,
    now: f64,
    order: u64,
}

#[derive(Debug)]
struct Turn {
    due: f64,
    /// Among those that are due at the same time the one that came first goes first.
    order: u64,
    entry: usize,
}

impl Edf {
    /// Entries with these weights, all above zero, that start at a random point of their cycle:
    /// workers that all start anew at a push must not all turn to the same endpoint.
    pub(super) fn new(weights: &[f64], random: &mut impl Rng) -> Self {
        let heap = weights
            .iter()
            .enumerate()
            .map(|(entry, weight)| Turn {
                due: random.random::<f64>() / weight,
                order: entry as u64,
                entry,
            })
            .collect();
        Self {
            heap,
            weights: weights.into(),
            now: 0.0,
            order: weights.len() as u64,
        }
    }

    /// The entry whose turn it is. `weigh` tells its weight at present from its number and the
    /// weight that it was made with.
    pub(super) fn pick(&mut self, weigh: impl Fn(usize, f64) -> f64) -> Option<usize> {
        let mut turn = self.heap.peek_mut()?;
        let entry = turn.entry;
        self.now = turn.due;
        let weight = weigh(entry, self.weights[entry]).max(f64::MIN_POSITIVE);
        self.order += 1;
        turn.due = self.now + 1.0 / weight;
        turn.order = self.order;
        Some(entry)
    }
}

impl Ord for Turn {
    /// The largest is due first: it is what the heap has on top.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .due
            .total_cmp(&self.due)
            .then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}
