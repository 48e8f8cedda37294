//! Endpoints as compiled: Envoy's `ClusterLoadAssignment`. A set is immutable; a change is a new
//! set in the cluster's cell.

use std::net::SocketAddr;
use std::sync::Arc;

use super::cluster::Drops;
use super::rare::Rare;

/// The endpoints of a cluster.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// Localities, lowest priority number first.
    pub localities: Vec<Locality>,
    /// Traffic dropped before balancing.
    pub drops: Drops,
    /// How far healthy endpoints may stand in for unhealthy ones of their priority, in percent
    /// (Envoy's default 140).
    pub overprovisioning: u32,
}

/// The endpoints of one place and priority.
#[derive(Debug, Default)]
pub struct Locality {
    /// `region/zone/subzone`, empty parts left empty.
    pub name: Arc<str>,
    /// Zero first.
    pub priority: u32,
    /// Its share, where localities are weighted.
    pub weight: u32,
    /// The endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// How it is reached.
    pub address: Address,
    /// Its host name, where it has one of its own.
    pub hostname: Box<str>,
    /// Its share among its neighbours, at least 1.
    pub weight: u32,
    /// Its health, as the control plane knows it.
    pub health: Health,
    /// Who it is, for telemetry.
    pub workload: Option<Box<WorkloadRef>>,
    /// Metadata that chooses a transport (`envoy.transport_socket_match`).
    pub transport_match: Rare<Labels>,
    /// Metadata of load balancing (`envoy.lb`), `hash_key` among it.
    pub lb: Rare<Labels>,
}

/// Keys and their values.
pub type Labels = Vec<(Box<str>, Box<str>)>;

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// By a socket.
    Socket(SocketAddr),
    /// By a name that is resolved.
    Name(Box<str>, u16),
    /// In an HBONE tunnel.
    Tunnel {
        /// The authority of the CONNECT: the endpoint's own address.
        to: SocketAddr,
        /// Where the tunnel ends, with its port: the endpoint's ztunnel, a waypoint or gateway.
        via: SocketAddr,
    },
    /// In a tunnel within a tunnel, through another network's gateway.
    DoubleTunnel {
        /// The authority of the inner CONNECT, `host:port`.
        to: Box<str>,
        /// The gateway.
        via: SocketAddr,
    },
}

/// An endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// It is used.
    #[default]
    Healthy,
    /// It is used as far as healthy ones don't suffice.
    Degraded,
    /// It is not used, except in panic.
    Unhealthy,
    /// It is not used for new work; sticky sessions still find it.
    Draining,
}

/// Who an endpoint is: istiod's `istio.workload` metadata, `name;namespace;canonical
/// name;canonical revision;cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct WorkloadRef {
    /// The workload.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// `service.istio.io/canonical-name`
    pub canonical_name: Box<str>,
    /// `service.istio.io/canonical-revision`
    pub canonical_revision: Box<str>,
    /// The cluster of Kubernetes it runs in.
    pub cluster: Box<str>,
}
