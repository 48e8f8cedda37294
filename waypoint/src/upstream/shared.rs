//! What all workers of the process must agree on about a cluster, by the cluster's number: how much
//! of its limits is taken, how busy and how healthy each endpoint is. Atomics, found once per worker
//! and cluster and then held; locks are taken only when endpoints come and go or are ejected.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use tracing::info;

use super::breakers::{Taken, retry_limit};
use super::names::{Names, System};
use super::outlier::{self, Cause, LocalFailure, Record};
use crate::model::cluster::{Breakers, Outlier};
use crate::model::endpoint::{Address, Endpoint};

/// What all workers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where the process's time begins.
    start: Instant,
    names: Names,
    clusters: Mutex<HashMap<u32, Arc<ClusterState>>>,
}

/// What is known of one cluster across workers.
#[derive(Debug, Default)]
pub(super) struct ClusterState {
    pub(super) connections: Taken,
    pub(super) pending: Taken,
    pub(super) requests: Taken,
    retries: Taken,
    hosts: Mutex<HashMap<Address, Arc<HostState>>>,
    /// Counts up whenever an endpoint is ejected or taken back.
    standing: AtomicU64,
    /// When the interval ends, in milliseconds of the process.
    sweep_at: AtomicU64,
}

/// What is known of one endpoint across workers.
#[derive(Debug)]
pub(super) struct HostState {
    /// Which one it is, for logs.
    address: Address,
    /// Requests and byte connections that it has at present.
    pub(super) active: Taken,
    /// Connections to it.
    pub(super) connections: Taken,
    pub(super) record: Record,
    pub(super) totals: Totals,
    /// When it was first seen: warming up begins there.
    pub(super) since: Instant,
}

/// Counts of an endpoint since it was first seen.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) connections: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) timeouts: AtomicU64,
}

/// How busy a cluster is, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections that stand or are being made.
    pub connections: u32,
    /// Requests that wait for one.
    pub pending: u32,
    /// Requests.
    pub requests: u32,
    /// Retries among them.
    pub retries: u32,
}

/// How an endpoint fares, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fare {
    /// Outlier detection leaves it out.
    pub ejected: bool,
    /// Requests at present.
    pub active: u32,
    /// Connections that stand or are being made.
    pub open: u32,
    /// Connections made so far.
    pub connections: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Requests so far.
    pub requests: u64,
    /// Of these, those that ended in an error.
    pub errors: u64,
    /// Of these, those that took too long.
    pub timeouts: u64,
}

/// A place among a cluster's retries, free again when it is dropped.
#[derive(Debug)]
pub struct RetryPlace(Arc<ClusterState>);

impl Default for Shared {
    fn default() -> Self {
        Self::resolving(Names::new(Arc::new(System::default())))
    }
}

impl Shared {
    /// What all workers share, with names resolved so.
    pub(super) fn resolving(names: Names) -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            names,
            clusters: Mutex::default(),
        }))
    }

    /// The state of the cluster of this number, made if it is new.
    pub(super) fn cluster(&self, id: u32) -> Arc<ClusterState> {
        self.0.clusters.lock().entry(id).or_default().clone()
    }

    /// How busy a cluster is.
    #[must_use]
    pub fn load(&self, cluster: u32) -> Load {
        let clusters = self.0.clusters.lock();
        clusters
            .get(&cluster)
            .map_or_else(Load::default, |state| Load {
                connections: state.connections.now(),
                pending: state.pending.now(),
                requests: state.requests.now(),
                retries: state.retries.now(),
            })
    }

    /// How an endpoint of a cluster fares, if it was ever looked at.
    #[must_use]
    pub fn fare(&self, cluster: u32, address: &Address) -> Option<Fare> {
        let state = self.0.clusters.lock().get(&cluster)?.clone();
        let host = state.hosts.lock().get(address)?.clone();
        let Totals {
            connections,
            connect_failures,
            requests,
            errors,
            timeouts,
        } = &host.totals;
        Some(Fare {
            ejected: host.record.is_ejected(),
            active: host.active.now(),
            open: host.connections.now(),
            connections: connections.load(Relaxed),
            connect_failures: connect_failures.load(Relaxed),
            requests: requests.load(Relaxed),
            errors: errors.load(Relaxed),
            timeouts: timeouts.load(Relaxed),
        })
    }

    /// Forgets a cluster that is gone, once no worker uses it any more.
    pub(super) fn forget(&self, id: u32) {
        let mut clusters = self.0.clusters.lock();
        clusters.retain(|of, state| *of != id || Arc::strong_count(state) > 1);
    }

    /// Who resolves names.
    pub(super) fn names(&self) -> &Names {
        &self.0.names
    }

    /// The process's time.
    pub(super) fn now(&self) -> Duration {
        self.0.start.elapsed()
    }
}

impl ClusterState {
    /// Takes a place for one retry, if the cluster's limit or budget allows it.
    pub(super) fn retry(self: &Arc<Self>, breakers: &Breakers) -> Option<RetryPlace> {
        let active = self.requests.now().saturating_add(self.pending.now());
        let limit = retry_limit(breakers, active);
        self.retries.take(limit).then(|| RetryPlace(self.clone()))
    }

    /// The states of these endpoints, in their order. Those of others are forgotten, unless they are
    /// still in use: an endpoint that comes back finds its requests counted.
    pub(super) fn hosts<'a>(
        &self,
        endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    ) -> Vec<Arc<HostState>> {
        let mut hosts = self.hosts.lock();
        let states = endpoints.map(|endpoint| {
            let state = hosts.entry(endpoint.address.clone());
            state
                .or_insert_with(|| Arc::new(HostState::new(endpoint.address.clone())))
                .clone()
        });
        let states = states.collect();
        hosts.retain(|_, state| Arc::strong_count(state) > 1);
        states
    }

    /// Counts up whenever an endpoint is ejected or taken back.
    pub(super) fn standing(&self) -> u64 {
        self.standing.load(Relaxed)
    }

    /// Counts an answer of this endpoint.
    pub(super) fn answered(
        &self,
        host: &HostState,
        status: StatusCode,
        outlier: Option<&Outlier>,
        now: impl FnOnce() -> Duration,
    ) {
        if status.is_server_error() {
            host.totals.errors.fetch_add(1, Relaxed);
        }
        if let Some(outlier) = outlier
            && let Some(cause) = host.record.answered(status, outlier)
        {
            self.eject(host, cause, outlier, now());
        }
    }

    /// Counts a failure at this endpoint that no answer told of.
    pub(super) fn failed(
        &self,
        host: &HostState,
        failure: LocalFailure,
        outlier: Option<&Outlier>,
        now: impl FnOnce() -> Duration,
    ) {
        let count = match failure {
            LocalFailure::Connect => &host.totals.connect_failures,
            LocalFailure::Timeout => &host.totals.timeouts,
            LocalFailure::Reset => &host.totals.errors,
        };
        count.fetch_add(1, Relaxed);
        if let Some(outlier) = outlier
            && let Some(cause) = host.record.failed(failure, outlier)
        {
            self.eject(host, cause, outlier, now());
        }
    }

    fn eject(&self, host: &HostState, cause: Cause, outlier: &Outlier, now: Duration) {
        // Under the lock, so that two workers can't both take the last ejection.
        let hosts = self.hosts.lock();
        let ejected = hosts
            .values()
            .filter(|host| host.record.is_ejected())
            .count();
        let dice = rand::random_range(0..100);
        if host
            .record
            .eject(cause, outlier, (ejected, hosts.len()), now, dice)
        {
            self.standing.fetch_add(1, Relaxed);
            info!(endpoint = ?host.address, ?cause, "an endpoint is left out for a while");
        }
    }

    /// Takes all endpoints back: nobody judges them any more, and nobody else would end what the last
    /// judgement was.
    pub(super) fn pardon(&self) {
        // Nobody was ever left out of most clusters.
        if self.standing() == 0 {
            return;
        }
        let hosts = self.hosts.lock();
        let returned = hosts.values().filter(|host| host.record.pardon()).count();
        if returned > 0 {
            self.standing.fetch_add(1, Relaxed);
        }
    }

    /// Ends the interval of outlier detection if it is over. Any worker may find that it is.
    pub(super) fn sweep(&self, outlier: &Outlier, now: Duration) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.sweep_at.load(Relaxed);
        let next = millis(now + outlier.interval);
        if millis(now) < due
            || self
                .sweep_at
                .compare_exchange(due, next, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let hosts: Vec<_> = self.hosts.lock().values().cloned().collect();
        let records: Vec<_> = hosts.iter().map(|host| &host.record).collect();
        let swept = outlier::sweep(&records, outlier, now);
        if swept.returned {
            self.standing.fetch_add(1, Relaxed);
        }
        for (place, cause) in swept.causes {
            self.eject(&hosts[place], cause, outlier, now);
        }
    }
}

impl HostState {
    fn new(address: Address) -> Self {
        Self {
            address,
            active: Taken::default(),
            connections: Taken::default(),
            record: Record::default(),
            totals: Totals::default(),
            since: Instant::now(),
        }
    }
}

impl Drop for RetryPlace {
    fn drop(&mut self) {
        self.0.retries.give();
    }
}
