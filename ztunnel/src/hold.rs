//! Connections whose workload or policy data has not come yet are held, not opened: for a bounded
//! time, and only so many at once. Control planes tell of a pod a moment after it starts.

use std::sync::Arc;
use std::time::Duration;

use mesh::policy::{Denied, Inbound, Permit};
use mesh::workload::Workload;
use mesh::world::{SharedWorld, World};
use tokio::sync::Semaphore;

use crate::pods::Info;
use crate::telemetry::metrics::Metrics;

/// How long a connection is held.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections held at once in this process; further ones are refused.
const MOST_HELD: usize = 1024;

/// Asks the world, and holds where it has no answer yet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hold {
    world: SharedWorld,
    metrics: Metrics,
    places: Arc<Semaphore>,
}

/// Why there was no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The control plane has not told of this pod.
    #[error(
        "workload {0} is unknown after {PATIENCE:?}: the control plane has not told of it (is it reachable, and the pod's ServiceAccount still the same?)"
    )]
    Unknown(Info),
    /// A policy denies the connection, or its policies are not here.
    #[error("connection closed due to policy rejection: {0}")]
    Denied(#[from] Denied),
    /// Too many connections wait already.
    #[error("{MOST_HELD} connections wait for the control plane already")]
    Full,
}

impl Hold {
    /// Nothing held yet.
    #[must_use]
    pub fn new(world: SharedWorld, metrics: Metrics) -> Self {
        Self {
            world,
            metrics,
            places: Arc::new(Semaphore::new(MOST_HELD)),
        }
    }

    /// The workload that a pod of this node is. Its ServiceAccount has to be the pod's, so that a
    /// pod that took over another's name never gets that one's identity.
    pub async fn own(&self, pod: &Info) -> Result<Arc<Workload>, Error> {
        let known = |world: &World| {
            let workload = world.pod(&pod.namespace, &pod.name)?;
            (workload.identity.service_account() == pod.service_account)
                .then(|| Arc::clone(workload))
        };
        let now = known(&self.world.read());
        match now {
            Some(workload) => Ok(workload),
            None => {
                let held = self
                    .held(tokio::time::timeout(PATIENCE, self.world.until(known)))
                    .await?;
                held.map_err(|_| Error::Unknown(pod.clone()))
            }
        }
    }

    /// Decides over an inbound connection.
    pub async fn authorize(&self, to: &Workload, connection: &Inbound) -> Result<Permit, Error> {
        let now = self.world.read().authorize(to, connection);
        match now {
            Err(denied) if denied.is_pending() => Ok(self
                .held(self.world.authorize(to, connection, PATIENCE))
                .await??),
            decision => Ok(decision?),
        }
    }

    async fn held<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        let _place = self.places.try_acquire().map_err(|_| Error::Full)?;
        let _counted = Counted::new(&self.metrics);
        Ok(wait.await)
    }
}

/// Counts one held connection for as long as it lives, also where the wait is given up.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.held(1);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.held(-1);
    }
}

#[cfg(test)]
mod tests;
