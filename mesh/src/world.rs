//! Everything the control plane has told us, indexed for the questions that connections ask. A
//! change costs what it touches, not what there is. Pure: `shared` puts a lock and a version
//! around it, `xds` and `file` fill it.

mod endpoints;
mod route;
mod shared;
mod vips;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{Network, NetworkIp, OrigDst};
use crate::balance::Endpoint;
use crate::policy::{
    Authorization, DecidedBy, Denied, Inbound, Permit, Policies, PolicyName, Reason,
};
use crate::workload::{NetworkMode, Resource, Service, ServiceKey, Uid, Workload};
use endpoints::Endpoints;
use vips::Vips;

pub use route::{NoEndpoint, Route, RouteError};
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

/// Changes.
impl World {
    /// An empty world, seen from a node (an empty name: from no particular one).
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            ..Self::default()
        }
    }

    /// Adds or replaces a workload or a service.
    pub fn insert(&mut self, resource: Resource) {
        match resource {
            Resource::Workload(workload) => self.insert_workload(*workload),
            Resource::Service(service) => self.insert_service(*service),
        }
    }

    /// Removes the workload or service of this xDS resource name; gives whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if self.workloads.contains_key(name) {
            return self.remove_workload(&Uid::new(name));
        }
        name.split_once('/').is_some_and(|(namespace, hostname)| {
            self.remove_service(&ServiceKey::new(namespace, hostname))
        })
    }

    /// Adds or replaces a workload.
    pub fn insert_workload(&mut self, workload: Workload) {
        let former = self.workloads.get(&workload.uid);
        if former.is_some_and(|former| **former == workload) {
            return;
        }
        let same_policies = former.is_some_and(|former| {
            former.policies == workload.policies && former.namespace == workload.namespace
        });
        if !same_policies {
            self.versions.authorization += 1;
        }
        self.unlink(&workload.uid);
        self.versions.all += 1;
        let workload = Arc::new(workload);
        let uid = &workload.uid;
        for key in addresses(&workload) {
            self.by_address.entry(key).or_default().push(uid.clone());
        }
        self.by_pod
            .entry(pod(&workload.namespace, &workload.name))
            .or_default()
            .push(uid.clone());
        if let Some(hostname) = &workload.hostname {
            self.by_hostname
                .entry(hostname.clone())
                .or_default()
                .push(uid.clone());
        }
        for (key, ports) in &workload.services {
            let endpoint = Endpoint {
                workload: workload.clone(),
                ports: ports.clone(),
            };
            self.services
                .entry(key.clone())
                .or_default()
                .endpoints
                .insert(endpoint);
        }
        self.workloads.insert(uid.clone(), workload);
    }

    /// Removes a workload; gives whether it was there.
    pub fn remove_workload(&mut self, uid: &Uid) -> bool {
        let removed = self.unlink(uid);
        if removed {
            self.versions.all += 1;
            self.versions.authorization += 1;
        }
        removed
    }

    /// Adds or replaces a service.
    pub fn insert_service(&mut self, service: Service) {
        if self
            .service(&service.key)
            .is_some_and(|former| **former == service)
        {
            return;
        }
        self.unlink_service(&service.key);
        self.versions.all += 1;
        let service = Arc::new(service);
        let key = &service.key;
        for vip in &service.vips {
            self.vips.insert(vip, key);
        }
        let hostname = key.hostname.clone();
        self.services_by_hostname
            .entry(hostname)
            .or_default()
            .insert(key.clone());
        self.services.entry(key.clone()).or_default().service = Some(service.clone());
    }

    /// Removes a service; gives whether it was there. Its endpoints stay known, in case it returns.
    pub fn remove_service(&mut self, key: &ServiceKey) -> bool {
        let removed = self.unlink_service(key);
        if removed {
            self.versions.all += 1;
        }
        removed
    }

    /// Adds or replaces a policy.
    pub fn insert_policy(&mut self, policy: Authorization) {
        if self
            .policies
            .get(&policy.name)
            .is_some_and(|former| **former == policy)
        {
            return;
        }
        self.policies.insert(policy);
        self.versions.all += 1;
        self.versions.authorization += 1;
    }

    /// Removes a policy; gives whether it was there.
    pub fn remove_policy(&mut self, name: &PolicyName) -> bool {
        let removed = self.policies.remove(name);
        if removed {
            self.versions.all += 1;
            self.versions.authorization += 1;
        }
        removed
    }

    /// Notes that a first complete set of workloads and services, or of policies, has arrived.
    pub fn mark_synced(&mut self, arrived: Synced) {
        let synced = Synced {
            workloads: self.synced.workloads || arrived.workloads,
            policies: self.synced.policies || arrived.policies,
        };
        if synced != self.synced {
            self.synced = synced;
            self.versions.all += 1;
            self.versions.authorization += 1;
        }
    }

    fn unlink(&mut self, uid: &Uid) -> bool {
        let Some(workload) = self.workloads.remove(uid) else {
            return false;
        };
        for key in addresses(&workload) {
            forget(&mut self.by_address, &key, uid);
        }
        forget(
            &mut self.by_pod,
            &pod(&workload.namespace, &workload.name),
            uid,
        );
        if let Some(hostname) = &workload.hostname {
            forget(&mut self.by_hostname, hostname, uid);
        }
        for key in workload.services.keys() {
            if let Some(entry) = self.services.get_mut(key) {
                entry.endpoints.remove(uid);
                self.drop_if_empty(key);
            }
        }
        true
    }

    fn unlink_service(&mut self, key: &ServiceKey) -> bool {
        let service = self
            .services
            .get_mut(key)
            .and_then(|entry| entry.service.take());
        let Some(service) = service else {
            return false;
        };
        for vip in &service.vips {
            self.vips.remove(vip, key);
        }
        if let Some(keys) = self.services_by_hostname.get_mut(&key.hostname) {
            keys.remove(key);
            if keys.is_empty() {
                self.services_by_hostname.remove(&key.hostname);
            }
        }
        self.drop_if_empty(key);
        true
    }

    fn drop_if_empty(&mut self, key: &ServiceKey) {
        let empty = |entry: &Entry| entry.service.is_none() && entry.endpoints.is_empty();
        if self.services.get(key).is_some_and(empty) {
            self.services.remove(key);
        }
    }
}

/// Questions.
impl World {
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
    /// the caller looked it up).
    ///
    /// # Errors
    /// [`Denied`]; if [`Denied::is_pending`], hold a new connection and leave an open one be.
    pub fn authorize(&self, to: &Workload, connection: &Inbound) -> Result<Permit, Denied> {
        if !self.synced.policies {
            return Err(Denied::because(Reason::NotSynced));
        }
        let to = self.workloads.get(&to.uid).map_or(to, |current| &**current);
        self.policies
            .decide(&to.namespace, &to.policies, connection)
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

/// The addresses that a workload is found by: none of a host's, which say nothing about it.
fn addresses(workload: &Workload) -> impl Iterator<Item = NetworkIp> {
    let own = workload.network_mode == NetworkMode::Standard;
    let own = own.then_some(&workload.addresses).into_iter().flatten();
    own.map(|ip| NetworkIp::new(workload.network.clone(), *ip))
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

fn forget<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Vec<Uid>>, key: &K, uid: &Uid) {
    if let Some(uids) = index.get_mut(key) {
        uids.retain(|other| other != uid);
        if uids.is_empty() {
            index.remove(key);
        }
    }
}
