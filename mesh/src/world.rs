//! Everything the control plane has told us, indexed for the questions that connections ask. A
//! change costs what it touches, not what there is. Pure: `shared` puts a lock and a version
//! around it, `xds` and `file` fill it.

mod change;
mod endpoints;
mod route;
mod shared;
mod through;
mod vips;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{Network, NetworkIp, OrigDst};
use crate::balance::Endpoint;
use crate::policy::{DecidedBy, Denied, Inbound, Permit, Policies, Reason};
use crate::workload::{NetworkMode, Service, ServiceKey, Uid, Workload};
use endpoints::Endpoints;
use vips::Vips;

pub use route::{Beyond, NoEndpoint, Route, RouteError};
pub use shared::{Reading, SharedWorld};

/// Ports that ztunnel itself listens on in every enrolled pod: outbound, inbound, HBONE.
const OWN_PORTS: [u16; 3] = [15001, 15006, 15008];

/// All workloads, services and policies.
#[derive(Debug, Default)]
pub struct World {
    /// The node this proxy runs on; empty if it serves no particular node.
    node: Arc<str>,
    workloads: HashMap<Uid, Arc<Workload>>,
    by_address: HashMap<NetworkIp, Vec<Uid>>,
    /// By `namespace/name`.
    by_pod: HashMap<String, Vec<Uid>>,
    /// Workloads that have a host name, by it.
    by_hostname: HashMap<Arc<str>, Vec<Uid>>,
    services: HashMap<ServiceKey, Entry>,
    /// Namespaces that have a service of this host name.
    services_by_hostname: HashMap<Arc<str>, BTreeSet<ServiceKey>>,
    vips: Vips,
    policies: Policies,
    synced: Synced,
    versions: Versions,
}

/// Which kinds of data have arrived at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Synced {
    /// Workloads and services.
    pub workloads: bool,
    /// Policies.
    pub policies: bool,
}

/// How often something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versions {
    /// Anything at all.
    pub all: u64,
    /// Something that may change the outcome of [`World::authorize`].
    pub authorization: u64,
}

/// A service that is there, or that endpoints name before it is.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Arc<Service>>,
    endpoints: Endpoints,
}

impl Synced {
    /// Whether everything has arrived.
    #[must_use]
    pub fn all(self) -> bool {
        self.workloads && self.policies
    }
}

/// Questions.
impl World {
    /// An empty world, seen from a node (an empty name: from no particular one).
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            ..Self::default()
        }
    }

    /// The node this proxy runs on; empty if it serves no particular node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Which kinds of data have arrived.
    #[must_use]
    pub fn synced(&self) -> Synced {
        self.synced
    }

    /// How often something changed.
    #[must_use]
    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// A workload by its unique name.
    #[must_use]
    pub fn workload(&self, uid: &Uid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that has an address to itself. While a reused address belongs to two, the one
    /// that is a pod, then the newest, is meant.
    #[must_use]
    pub fn workload_at(&self, network: &Network, ip: IpAddr) -> Option<&Arc<Workload>> {
        let uids = self.by_address.get(&NetworkIp::new(network.clone(), ip))?;
        let found = uids
            .iter()
            .rev()
            .find(|uid| uid.is_pod())
            .or_else(|| uids.last());
        found.and_then(|uid| self.workloads.get(uid))
    }

    /// The workload of a pod by namespace and name; with several (other clusters), the one on this
    /// proxy's node.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        let uids = self.by_pod.get(&pod(namespace, name))?;
        let mut workloads = uids.iter().filter_map(|uid| self.workloads.get(uid));
        let first = workloads.clone().next();
        workloads
            .find(|workload| workload.node == self.node)
            .or(first)
    }

    /// A service by namespace and host name.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)?.service.as_ref()
    }

    /// The service with this virtual address, as a workload of `namespace` sees it. Where several
    /// share it, the one of that namespace is meant, then the canonical one, then the first by name.
    #[must_use]
    pub fn service_at(
        &self,
        network: &Network,
        ip: IpAddr,
        namespace: &str,
    ) -> Option<&Arc<Service>> {
        let keys = self.vips.get(network, ip.to_canonical())?;
        let services = keys.iter().filter_map(|key| self.service(key));
        best_for(namespace, services)
    }

    /// The service of this host name, as a workload of `namespace` sees it; chosen as in
    /// [`World::service_at`].
    #[must_use]
    pub fn service_named(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        let keys = self.services_by_hostname.get(hostname)?;
        let services = keys.iter().filter_map(|key| self.service(key));
        best_for(namespace, services)
    }

    /// The endpoints of a service, in no order.
    pub fn endpoints(&self, key: &ServiceKey) -> &[Endpoint] {
        self.services
            .get(key)
            .map_or(&[], |entry| entry.endpoints.all())
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services
            .values()
            .filter_map(|entry| entry.service.as_ref())
    }

    /// All policies.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }
}

/// Decisions.
impl World {
    /// Decides over a connection to a workload, by what is known of that workload now (not when
    /// the caller looked it up): by policies, with the waypoint as the source of what comes through
    /// one, and by whether it goes round a waypoint that it has to pass.
    ///
    /// # Errors
    /// [`Denied`]; if [`Denied::is_pending`], hold a new connection and leave an open one be.
    pub fn authorize(&self, to: &Workload, connection: &Inbound) -> Result<Permit, Denied> {
        if !self.synced.policies {
            return Err(Denied::because(Reason::NotSynced));
        }
        let to = self.workloads.get(&to.uid).map_or(to, |current| &**current);
        let permit = self
            .policies
            .decide(&to.namespace, &to.policies, connection)?;
        match self.comes_through(to, connection) {
            Ok(()) => Ok(permit),
            Err(reason) => Err(Denied {
                reason,
                dry_run: permit.dry_run().to_vec(),
            }),
        }
    }

    /// Decides whether a captured pod may call out under its own identity. Whether the destination
    /// takes the call is the destination's decision.
    ///
    /// # Errors
    /// [`Denied`] if the workload isn't a pod of this node, or calls the proxy in its own pod.
    pub fn permit_outbound(&self, from: &Workload, to: OrigDst) -> Result<Permit, Denied> {
        let from = self
            .workloads
            .get(&from.uid)
            .map_or(from, |current| &**current);
        if !self.node.is_empty() && !from.node.is_empty() && from.node != self.node {
            return Err(Denied::because(Reason::NotLocal {
                workload: from.uid.to_string(),
                node: from.node.to_string(),
            }));
        }
        if from.network_mode == NetworkMode::HostNetwork {
            return Err(Denied::because(Reason::HostNetwork(from.uid.to_string())));
        }
        let itself = from.owns(to.ip()) || to.ip().is_loopback();
        if itself && OWN_PORTS.contains(&to.port()) {
            return Err(Denied::because(Reason::Loop(to.port())));
        }
        Ok(Permit::new(DecidedBy::Outbound, Vec::new()))
    }
}

fn pod(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn best_for<'a>(
    namespace: &str,
    services: impl Iterator<Item = &'a Arc<Service>>,
) -> Option<&'a Arc<Service>> {
    services
        .filter(|service| service.is_visible_from(namespace))
        .min_by_key(|service| (*service.key.namespace != *namespace, !service.canonical))
}

#[cfg(test)]
mod tests;
