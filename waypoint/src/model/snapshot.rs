//! A whole configuration at one moment: what `source` publishes and requests read. Immutable,
//! except that each cluster's endpoints have a cell of their own, so that an endpoint change
//! touches nothing else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use mesh::workload::Workload;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::endpoint::EndpointSet;
use super::http::Extension;
use super::listener::Listener;
use super::route::RouteTable;

/// A whole configuration. A request loads it once and keeps it to its end.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each published one.
    pub version: u64,
    /// Listeners by name.
    pub listeners: HashMap<Arc<str>, Arc<Listener>>,
    /// Clusters by name.
    pub clusters: HashMap<Arc<str>, Arc<ClusterEntry>>,
    /// Route tables that are subscribed to, by name.
    pub routes: HashMap<Arc<str>, Arc<RouteTable>>,
    /// Filters that are subscribed to, by name.
    pub extensions: HashMap<Arc<str>, Arc<Extension>>,
}

/// A cluster with its endpoints.
#[derive(Debug)]
pub struct ClusterEntry {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Its endpoints now; kept when the cluster changes but not its endpoints.
    pub endpoints: Arc<ArcSwap<EndpointSet>>,
    /// Unlike any other cluster's of this process: what is kept of a cluster between snapshots
    /// (breakers, outliers, pools) is found by it. A cluster that only changes keeps it.
    pub id: u32,
}

/// Who is behind an address, for telemetry and policy. Swapped when workloads change.
#[derive(Debug, Default)]
pub struct Peers {
    /// Workloads by address.
    pub by_address: HashMap<IpAddr, Arc<Workload>>,
}

/// The places where the present configuration is found. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Current {
    snapshot: Arc<ArcSwap<Snapshot>>,
    peers: Arc<ArcSwap<Peers>>,
    version: watch::Sender<u64>,
    listens: Arc<AtomicBool>,
}

impl Current {
    /// The configuration now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The configuration now, for a moment: cheaper, not to be kept across an `await`.
    #[must_use]
    pub fn glance(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The workload behind an address.
    #[must_use]
    pub fn peer(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.peers.load().by_address.get(&address).cloned()
    }

    /// Publishes a configuration.
    pub fn publish(&self, snapshot: Snapshot) {
        let version = snapshot.version;
        self.snapshot.store(Arc::new(snapshot));
        self.version.send_replace(version);
    }

    /// Tells when another configuration has been published.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The sockets of a configuration were opened, as far as they can be.
    pub fn listening(&self) {
        self.listens.store(true, Ordering::Release);
    }

    /// Whether they were: before that nobody can connect, whatever has been published.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.listens.load(Ordering::Acquire)
    }

    /// Publishes who is behind which address.
    pub fn publish_peers(&self, peers: Peers) {
        self.peers.store(Arc::new(peers));
    }
}
