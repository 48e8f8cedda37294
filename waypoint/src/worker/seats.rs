//! How many connections of clients may be open at a time: a flood of them is turned away at the door,
//! so that those who are in keep the memory, and the files for connections to upstream hosts, that
//! they need. Streams of tunnels are bounded in their tunnel.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::telemetry::Connections;

/// Files of the process that are for nothing of a client's: listeners, logs, the control plane.
const RESERVED: u64 = 256;

/// What a connection is reckoned at. At rest it costs 12 KiB (measured: 5 before its first request), one
/// with a head of 16 KiB under way 60; bodies are bounded by themselves.
const CONNECTION: u64 = 64 << 10;

/// Places for connections.
#[derive(Debug)]
pub struct Seats {
    counts: Arc<Connections>,
    most: usize,
}

/// One connection's, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Connections>);

impl Seats {
    /// So many.
    #[must_use]
    pub fn new(most: NonZeroUsize, counts: Arc<Connections>) -> Self {
        let most = most.get();
        Self { counts, most }
    }

    /// A seat; none where all are taken, which is counted.
    pub(super) fn take(&self) -> Option<Seat> {
        // Only the thread that accepts takes seats: nobody else comes between these two.
        if self.counts.open() >= self.most {
            self.counts.turned_away();
            return None;
        }
        self.counts.opened();
        Some(Seat(self.counts.clone()))
    }

    /// How many there are.
    pub(super) fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// How many connections there may be where nobody says it: as many as the files, and the memory where
/// that is limited, are enough for.
#[must_use]
pub fn of(files: u64, memory: Option<u64>) -> NonZeroUsize {
    let most = of_files(files);
    memory.map_or(most, |memory| most.min(of_memory(memory)))
}

/// How many connections half of so much memory is enough for: the rest is for the configuration and
/// for what passes.
fn of_memory(bytes: u64) -> NonZeroUsize {
    let most = usize::try_from(bytes / 2 / CONNECTION).unwrap_or(usize::MAX);
    NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)
}

/// How many connections there may be where a process may have so many files: each may need another one
/// to an upstream host.
fn of_files(files: u64) -> NonZeroUsize {
    let reserved = RESERVED.min(files / 4);
    let most = usize::try_from((files - reserved) / 2).unwrap_or(usize::MAX);
    NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_taken_until_it_is_left() {
        let counts = Arc::new(Connections::default());
        let seats = Seats::new(NonZeroUsize::new(2).unwrap(), counts.clone());
        let first = seats.take();
        let second = seats.take();
        assert!(first.is_some() && second.is_some() && seats.take().is_none());
        assert_eq!((counts.open(), counts.refused()), (2, 1));
        drop(first);
        assert!(seats.take().is_some(), "the one that was left is free");
        assert_eq!((counts.open(), counts.refused()), (1, 1));
    }

    #[test]
    fn what_is_scarcer_counts() {
        let (files, mib) = (1 << 20, 1 << 20);
        for (memory, most) in [
            (None, 524_160),
            (Some(1024 * mib), 8192),
            (Some(128 * mib), 1024),
            (Some(0), 1),
            (Some(u64::MAX), 524_160),
        ] {
            assert_eq!(of(files, memory).get(), most, "{memory:?}");
        }
        assert_eq!(of(1024, Some(1024 * mib)).get(), 384);
    }

    #[test]
    fn half_of_the_files_are_for_clients() {
        for (files, most) in [(0, 1), (8, 3), (128, 48), (1024, 384), (1 << 20, 524_160)] {
            assert_eq!(of_files(files).get(), most, "{files} files");
        }
    }
}
