//! The inbound connections that are open, so that a change of policy reaches them: each is decided
//! over again when policies or workloads change, and told to end if it is denied now. What is
//! still undecided (data on its way) goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh::policy::{Denied, Inbound};
use mesh::workload::Workload;
use mesh::world::SharedWorld;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::telemetry::metrics::Metrics;

/// Decisions made in one go; after as many, others may have the lock and the thread.
const DECISIONS_AT_ONCE: usize = 256;

/// Every open inbound connection. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    last: AtomicU64,
    open: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    to: Arc<Workload>,
    connection: Inbound,
    tell: oneshot::Sender<Denied>,
}

/// A connection in the registry, for as long as this lives.
#[derive(Debug)]
pub struct Tracked {
    all: Connections,
    number: u64,
    told: oneshot::Receiver<Denied>,
}

/// An open connection, for people to look at.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The workload it goes to.
    pub to: Arc<Workload>,
    /// What decisions look at.
    pub connection: Inbound,
}

impl Connections {
    /// Enters a connection. Do it before it is decided over: then no change of policy can slip in
    /// between the decision and the entry.
    #[must_use]
    pub fn track(&self, to: Arc<Workload>, connection: Inbound) -> Tracked {
        let (tell, told) = oneshot::channel();
        let number = self.0.last.fetch_add(1, Ordering::Relaxed);
        self.0.open.lock().insert(
            number,
            Entry {
                to,
                connection,
                tell,
            },
        );
        Tracked {
            all: self.clone(),
            number,
            told,
        }
    }

    /// Decides over every open connection again whenever that may have another outcome.
    pub async fn enforce(self, world: SharedWorld, metrics: Metrics) {
        let mut changes = world.authorization_changes();
        while changes.changed().await.is_ok() {
            let closed = self.decide_again(&world).await;
            if closed > 0 {
                tracing::info!(closed, "open connections closed by a change of policy");
                (0..closed).for_each(|_| metrics.closed_by_policy());
            }
        }
    }

    /// What is open, in no order.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let open = self.0.open.lock();
        open.values()
            .map(|entry| Shown {
                to: entry.to.clone(),
                connection: entry.connection.clone(),
            })
            .collect()
    }

    async fn decide_again(&self, world: &SharedWorld) -> usize {
        let numbers: Vec<u64> = self.0.open.lock().keys().copied().collect();
        let mut closed = 0;
        for some in numbers.chunks(DECISIONS_AT_ONCE) {
            closed += self.decide_some(world, some);
            tokio::task::yield_now().await;
        }
        closed
    }

    fn decide_some(&self, world: &SharedWorld, numbers: &[u64]) -> usize {
        let world = world.read();
        let mut open = self.0.open.lock();
        let denied: Vec<(u64, Denied)> = numbers
            .iter()
            .filter_map(|number| {
                let entry = open.get(number)?;
                let denied = world.authorize(&entry.to, &entry.connection).err()?;
                (!denied.is_pending()).then_some((*number, denied))
            })
            .collect();
        let closed = denied.len();
        for (number, denied) in denied {
            if let Some(entry) = open.remove(&number) {
                // The connection may be ending by itself at this very moment.
                let _ = entry.tell.send(denied);
            }
        }
        closed
    }
}

impl Tracked {
    /// Waits until the connection is denied; forever, if it never is.
    pub async fn denied(&mut self) -> Denied {
        match (&mut self.told).await {
            Ok(denied) => denied,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.all.0.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
