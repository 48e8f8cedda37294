//! What all workers of the process must agree on about a cluster, by the cluster's number: how much
//! of its limits is taken. Atomics, found once per worker and cluster and then held.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::breakers::{Taken, retry_limit};
use crate::model::cluster::Breakers;

/// What all workers share. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clusters: Mutex<HashMap<u32, Arc<ClusterState>>>,
}

/// What is known of one cluster across workers.
#[derive(Debug, Default)]
pub(super) struct ClusterState {
    pub(super) connections: Taken,
    pub(super) pending: Taken,
    pub(super) requests: Taken,
    pub(super) retries: Taken,
}

impl Shared {
    /// The state of the cluster of this number, made if it is new.
    pub(super) fn cluster(&self, id: u32) -> Arc<ClusterState> {
        self.0.clusters.lock().entry(id).or_default().clone()
    }
}

/// A place among a cluster's retries, free again when it is dropped.
#[derive(Debug)]
pub struct RetryPlace(Arc<ClusterState>);

impl ClusterState {
    /// Takes a place for one retry, if the cluster's limit or budget allows it.
    pub(super) fn retry(self: &Arc<Self>, breakers: &Breakers) -> Option<RetryPlace> {
        let active = self.requests.now().saturating_add(self.pending.now());
        let limit = retry_limit(breakers, active);
        self.retries.take(limit).then(|| RetryPlace(self.clone()))
    }
}

impl Drop for RetryPlace {
    fn drop(&mut self) {
        self.0.retries.give();
    }
}
