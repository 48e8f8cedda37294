//! The store as its feeders share it, a folder, a control plane and name resolution, and the task
//! that puts in force what they bring.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mesh::xds;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::compile::Compile;
use super::store::{Change, Rejected, Store};
use crate::model::endpoint::EndpointSet;

/// A handle on the store. Cheap to clone.
#[derive(Debug)]
pub struct Feed<C>(Arc<Shared<C>>);

#[derive(Debug)]
struct Shared<C> {
    store: Mutex<Store<C>>,
    /// Something was brought that may be put in force.
    brought: Notify,
    /// The clusters that are resolved by name may be others.
    names: Notify,
    /// There may be plugins whose code nobody sees to.
    plugins: Notify,
    counters: OnceLock<Arc<xds::Counters>>,
}

impl<C> Clone for Feed<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Compile> Feed<C> {
    /// A handle on `store`.
    #[must_use]
    pub fn new(store: Store<C>) -> Self {
        Self(Arc::new(Shared {
            store: Mutex::new(store),
            brought: Notify::new(),
            names: Notify::new(),
            plugins: Notify::new(),
            counters: OnceLock::new(),
        }))
    }

    /// Brings a change. Gives the resources of it that were refused.
    pub fn apply(&self, change: Change) -> Vec<Rejected> {
        let rejected = self.0.store.lock().apply(change, Instant::now());
        self.0.brought.notify_one();
        self.0.names.notify_one();
        self.0.plugins.notify_one();
        rejected
    }

    /// Brings what a cluster's names were resolved to; nothing where that failed.
    pub fn resolved(&self, cluster: &Arc<str>, endpoints: Option<EndpointSet>) {
        self.0.store.lock().resolved(cluster, endpoints);
        self.0.brought.notify_one();
    }

    /// The code of a plugin is there, or won't be.
    pub(super) fn loaded(&self) {
        self.0.brought.notify_one();
    }

    /// Notes what the client of the control plane counts, for the metrics.
    pub(super) fn count(&self, counters: Arc<xds::Counters>) {
        // There is one client for as long as the process lives.
        let _ = self.0.counters.set(counters);
    }

    /// What the client of the control plane counts, if there is one.
    #[must_use]
    pub fn counters(&self) -> Option<&Arc<xds::Counters>> {
        self.0.counters.get()
    }

    /// Looks at the store, for a moment.
    pub fn look<R>(&self, look: impl FnOnce(&mut Store<C>) -> R) -> R {
        look(&mut self.0.store.lock())
    }

    /// Waits until the clusters that are resolved by name may be others.
    pub(super) async fn names_change(&self) {
        self.0.names.notified().await;
    }

    /// Waits until there may be plugins whose code nobody sees to.
    pub(super) async fn plugins_come(&self) {
        self.0.plugins.notified().await;
    }

    /// Puts in force what is brought, forever.
    pub async fn run(self) {
        loop {
            let next = self.0.store.lock().settle(Instant::now());
            let later = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.brought.notified() => {}
                () = later => {}
            }
        }
    }
}
