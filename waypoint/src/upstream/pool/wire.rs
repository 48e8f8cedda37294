//! A count of what was written to a connection, and whether it broke: whether anything of a request left,
//! and whether another may follow, is known, not guessed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use mesh::tap::{Tap, Tapped};

use crate::upstream::connect::Io;

/// A connection's bytes.
pub(super) type Wire = Tapped<Io, Written>;

/// Bytes written to a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Arc<Account>);

#[derive(Debug, Default)]
struct Account {
    bytes: AtomicU64,
    broken: AtomicBool,
}

impl Written {
    /// How many so far.
    pub(super) fn now(&self) -> u64 {
        self.0.bytes.load(Relaxed)
    }

    /// Whether reading or writing has failed. The connection's own driver may not know yet.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Relaxed)
    }
}

impl Tap for Written {
    fn wrote(&self, count: usize) {
        // Only this connection writes it: no need for an atomic addition.
        let bytes = self.now() + count as u64;
        self.0.bytes.store(bytes, Relaxed);
    }

    fn failed(&self, _error: &io::Error) {
        self.0.broken.store(true, Relaxed);
    }
}

/// A connection's bytes, and how many of them were written.
pub(super) fn counted(io: Io) -> (Wire, Written) {
    let written = Written::default();
    (Tapped::new(io, written.clone()), written)
}
