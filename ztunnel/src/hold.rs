//! Connections whose workload or policy data has not come yet are held, not opened: for a bounded
//! time, and only so many at once. Control planes tell of a pod a moment after it starts.

use std::sync::Arc;
use std::time::Duration;

use mesh::policy::{Action, Authorization, Denied, Inbound, Permit, Reason, Scope};
use mesh::workload::Workload;
use mesh::world::{SharedWorld, World};
use tokio::sync::Semaphore;

use crate::pods::Info;
use crate::telemetry::metrics::Metrics;

/// How long a connection is held.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections held at once in this process; further ones are refused.
const MOST_HELD: usize = 1024;
/// Policies that an error names.
const MOST_NAMED: usize = 3;

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
    Denied(Denied),
    /// None of the policies that allow something allows the connection.
    #[error("connection closed due to policy rejection: {denied} ({policies})")]
    NotAllowed {
        /// The decision.
        denied: Denied,
        /// The policies that could have allowed it.
        policies: String,
    },
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
        let decision = match now {
            Err(denied) if denied.is_pending() => {
                self.held(self.world.authorize(to, connection, PATIENCE))
                    .await?
            }
            decision => decision,
        };
        decision.map_err(|denied| self.explain(to, denied))
    }

    /// Names the policies behind a decision that none of them made alone.
    fn explain(&self, to: &Workload, denied: Denied) -> Error {
        match denied.reason {
            Reason::NotAllowed => {
                let policies = allowing(&self.world.read(), to);
                Error::NotAllowed { denied, policies }
            }
            _ => Error::Denied(denied),
        }
    }

    async fn held<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        let _place = self.places.try_acquire().map_err(|_| Error::Full)?;
        let _counted = Counted::new(&self.metrics);
        Ok(wait.await)
    }
}

impl Error {
    /// True if a policy denies the connection, as against data that is missing.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        match self {
            Self::NotAllowed { .. } => true,
            Self::Denied(denied) => !denied.is_pending(),
            Self::Unknown(_) | Self::Full => false,
        }
    }
}

/// The names of the policies that allow something to a workload: those that select it, otherwise
/// those of its namespace and of the mesh; some of them, where there are many.
fn allowing(world: &World, to: &Workload) -> String {
    let policies = world.policies();
    let allows = |policy: &&Arc<Authorization>| policy.action == Action::Allow && !policy.dry_run;
    let in_scope = |policy: &&Arc<Authorization>| match policy.scope {
        Scope::Global => true,
        Scope::Namespace => policy.name.namespace() == &*to.namespace,
        Scope::Selector => false,
    };
    let current = world
        .workload(&to.uid)
        .map_or(&to.policies, |current| &current.policies);
    let selecting = current
        .iter()
        .filter_map(|name| policies.get(name))
        .filter(allows);
    let mut names: Vec<&str> = selecting
        .map(|policy| policy.name.as_str())
        .take(MOST_NAMED)
        .collect();
    if names.is_empty() {
        let by_scope = policies.iter().filter(allows).filter(in_scope);
        names = by_scope
            .map(|policy| policy.name.as_str())
            .take(MOST_NAMED)
            .collect();
    }
    names.sort_unstable();
    names.join(", ")
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
