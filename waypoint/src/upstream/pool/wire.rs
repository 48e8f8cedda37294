//! A count of what was written to a connection: whether anything of a request left is known, not
//! guessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mesh::tap::{Tap, Tapped};

use crate::upstream::connect::Io;

/// A connection's bytes.
pub(super) type Wire = Tapped<Io, Written>;

/// Bytes written to a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Arc<AtomicU64>);

impl Written {
    /// How many so far.
    pub(super) fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Tap for Written {
    fn wrote(&self, count: usize) {
        // Only this connection writes it: no need for an atomic addition.
        self.0.store(self.now() + count as u64, Relaxed);
    }
}

/// A connection's bytes, and how many of them were written.
pub(super) fn counted(io: Io) -> (Wire, Written) {
    let written = Written::default();
    (Tapped::new(io, written.clone()), written)
}
