//! What the subscription counts, for metrics and for the admin page.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The kinds of resources that a node proxy subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Workloads and services.
    Address,
    /// Policies.
    Authorization,
}

/// How a connection to the control plane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Termination {
    /// It never stood.
    ConnectionError,
    /// It broke, or the control plane refused.
    Error,
    /// The control plane ended it in order, as it does from time to time.
    Complete,
}

/// Counts since the start. Reads are independent of each other.
#[derive(Debug, Default)]
pub struct Counters {
    connected: AtomicBool,
    terminations: [AtomicU64; 3],
    types: Vec<(&'static str, Counts)>,
}

/// Counts of one type of resources.
#[derive(Debug, Default)]
struct Counts {
    messages: AtomicU64,
    bytes: AtomicU64,
    rejected: AtomicU64,
}

impl Kind {
    /// All of them, in the order in which they are asked for.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// The type's URL in xDS.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
        }
    }
}

impl Termination {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ConnectionError, Self::Error, Self::Complete];

    /// The name as a metric's label, Istio's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionError => "ConnectionError",
            Self::Error => "Error",
            Self::Complete => "Complete",
        }
    }
}

impl Counters {
    /// Whether a stream stands now.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Connections that ended so.
    #[must_use]
    pub fn terminations(&self, how: Termination) -> u64 {
        self.terminations[how as usize].load(Ordering::Relaxed)
    }

    /// The types that are subscribed to, by their URLs.
    pub fn types(&self) -> impl Iterator<Item = &'static str> {
        self.types.iter().map(|(type_url, _)| *type_url)
    }

    /// Responses received.
    #[must_use]
    pub fn messages(&self, type_url: &str) -> u64 {
        self.read(type_url, |counts| &counts.messages)
    }

    /// Bytes of the resources received.
    #[must_use]
    pub fn bytes(&self, type_url: &str) -> u64 {
        self.read(type_url, |counts| &counts.bytes)
    }

    /// Resources refused.
    #[must_use]
    pub fn rejected(&self, type_url: &str) -> u64 {
        self.read(type_url, |counts| &counts.rejected)
    }

    /// Counters of these types, all zero.
    #[must_use]
    pub fn new(types: impl IntoIterator<Item = &'static str>) -> Self {
        let types = types.into_iter();
        Self {
            types: types.map(|url| (url, Counts::default())).collect(),
            ..Self::default()
        }
    }

    fn of(&self, type_url: &str) -> Option<&Counts> {
        let mut types = self.types.iter();
        types.find(|(url, _)| *url == type_url).map(|(_, of)| of)
    }

    fn read(&self, type_url: &str, which: fn(&Counts) -> &AtomicU64) -> u64 {
        let counts = self.of(type_url);
        counts.map_or(0, |counts| which(counts).load(Ordering::Relaxed))
    }

    pub(super) fn stands(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    pub(super) fn terminated(&self, how: Termination) {
        self.stands(false);
        self.terminations[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn message(&self, type_url: &str, bytes: usize, rejected: usize) {
        let Some(counts) = self.of(type_url) else {
            return;
        };
        let count = |of: &AtomicU64, n: usize| {
            of.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed)
        };
        count(&counts.messages, 1);
        count(&counts.bytes, bytes);
        count(&counts.rejected, rejected);
    }
}
