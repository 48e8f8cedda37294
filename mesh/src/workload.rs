//! The mesh as the control plane describes it: workloads, services, and how to reach them. A value
//! of these types has been checked; `parse` is the only way from the wire to here. Knows neither
//! xDS nor files.

mod gateway;
pub mod labels;
mod parse;
pub(crate) mod refusal;
mod service;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::Network;
use crate::identity::Identity;
use crate::policy::PolicyName;

pub use gateway::{GatewayAddress, GatewayTarget, WeightedGateway};
pub use parse::{Resource, address};
pub use refusal::Invalid;
pub use service::{
    AppProtocol, HealthPolicy, IpFamilies, LoadBalancing, Mode, PortMapping, Scope, Service,
    ServiceKey, Vip, Visibility,
};

/// The port on which every enrolled pod, and every waypoint by default, takes HBONE.
pub const HBONE_PORT: u16 = 15008;

/// The mesh-wide unique name of a workload, by convention
/// `cluster/group/kind/namespace/name[/section]`. It is the resource's name in xDS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(Arc<str>);

/// One workload: a pod, a virtual machine, or an external endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its unique name.
    pub uid: Uid,
    /// The pod's name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its addresses, canonical; none for a workload known by `hostname` or behind a gateway.
    pub addresses: Vec<IpAddr>,
    /// Name to resolve when there is no address.
    pub hostname: Option<Arc<str>>,
    /// The network its addresses belong to.
    pub network: Network,
    /// How it takes traffic.
    pub tunnel: TunnelProtocol,
    /// Who it is. An empty trust domain on the wire means `cluster.local`: istiod leaves exactly
    /// that one out. An empty service account means `default`.
    pub identity: Identity,
    /// The waypoint that traffic addressed to this workload passes.
    pub waypoint: Option<GatewayAddress>,
    /// The gateway of its network, for callers in another one.
    pub network_gateway: Option<GatewayAddress>,
    /// The node it runs on; empty if unknown.
    pub node: Arc<str>,
    /// Canonical service name, for telemetry.
    pub canonical_name: Arc<str>,
    /// Canonical service revision, for telemetry.
    pub canonical_revision: Arc<str>,
    /// What created it.
    pub kind: WorkloadKind,
    /// Name of what created it: the Deployment's, not the pod's.
    pub workload_name: Arc<str>,
    /// It speaks HBONE itself.
    pub native_tunnel: bool,
    /// Traffic reaches the application through a tunnel of its own.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// The services it backs, each with the ports it serves them on.
    pub services: BTreeMap<ServiceKey, Vec<PortMapping>>,
    /// Policies that select it by label. Namespace- and mesh-wide ones are found by scope.
    pub policies: Vec<PolicyName>,
    /// Whether it takes traffic now.
    pub health: Health,
    /// The cluster it belongs to.
    pub cluster: Arc<str>,
    /// Where it runs.
    pub locality: Locality,
    /// Whether its addresses are its own.
    pub network_mode: NetworkMode,
    /// Its labels, as far as routes of waypoints ask for them; nobody else is told of any.
    pub labels: Option<Box<labels::Labels>>,
    /// Its share of a service's traffic relative to other endpoints, at least 1 unless the control
    /// plane says 0 to keep traffic away.
    pub capacity: u32,
}

/// How a workload takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TunnelProtocol {
    /// Plain TCP.
    #[default]
    None,
    /// HBONE on [`HBONE_PORT`].
    Hbone,
}

/// What created a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WorkloadKind {
    /// A Deployment, or another controller.
    #[default]
    Deployment,
    /// A `CronJob`.
    CronJob,
    /// A bare pod.
    Pod,
    /// A Job.
    Job,
}

/// Whether a workload takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// It does.
    #[default]
    Healthy,
    /// It doesn't, or not yet.
    Unhealthy,
}

/// Whose addresses a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NetworkMode {
    /// Its own.
    #[default]
    Standard,
    /// The node's: the address says nothing about which workload it is.
    HostNetwork,
}

/// Where a workload runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone within the region.
    pub zone: Arc<str>,
    /// Subzone within the zone.
    pub subzone: Arc<str>,
}

/// A tunnel that the application itself terminates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// What the tunnel speaks.
    pub protocol: ApplicationProtocol,
    /// The port it listens on; none: the port that was called.
    pub port: Option<u16>,
}

/// What an application tunnel speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApplicationProtocol {
    /// Nothing special.
    None,
    /// PROXY protocol version 2.
    Proxy,
}

impl Uid {
    /// A name as the control plane wrote it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name says that it is a pod (and not, say, an entry for a virtual machine).
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.0.contains("//Pod/")
    }
}

impl Workload {
    /// Whether this very address is one of its own (not its node's).
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.network_mode == NetworkMode::Standard && self.addresses.contains(&ip)
    }

    /// Whether it stands for all endpoints that a service has in another network, as istiod sums them
    /// up: then its identity is nobody's, and theirs are the service's.
    #[must_use]
    pub fn stands_for_many(&self) -> bool {
        self.addresses.is_empty() && self.network_gateway.is_some()
    }

    /// The name of the pod's owner in HBONE baggage: `deployment`, `pod`, `job` or `cronjob`.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            WorkloadKind::Deployment => "deployment",
            WorkloadKind::CronJob => "cronjob",
            WorkloadKind::Pod => "pod",
            WorkloadKind::Job => "job",
        }
    }
}

impl Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests;
