//! Services: a name, virtual addresses, ports, and the rules for choosing an endpoint.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use super::{GatewayAddress, WeightedGateway};
use crate::address::Network;
use crate::identity::Identity;

/// A service's unique name, written `namespace/hostname`. It is the resource's name in xDS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The service's namespace.
    pub namespace: Arc<str>,
    /// The fully qualified host name.
    pub hostname: Arc<str>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and host name.
    pub key: ServiceKey,
    /// Short name.
    pub name: Arc<str>,
    /// Virtual addresses, or blocks of them.
    pub vips: Vec<Vip>,
    /// Ports it offers; a target port of 0 means that each endpoint says its own (a named port).
    pub ports: Vec<PortMapping>,
    /// Identities that any endpoint may prove instead of its own.
    pub subject_alt_names: Vec<Identity>,
    /// The waypoint that traffic addressed to this service passes.
    pub waypoint: Option<GatewayAddress>,
    /// Waypoints to share the traffic among by weight; when there are any, `waypoint` is not used.
    pub weighted_waypoints: Vec<WeightedGateway>,
    /// How an endpoint is chosen.
    pub load_balancing: LoadBalancing,
    /// Address families it serves.
    pub ip_families: IpFamilies,
    /// Preferred among services that share an address or a host name.
    pub canonical: bool,
    /// Ingress gateways too go through the waypoint.
    pub ingress_use_waypoint: bool,
    /// Who may see it.
    pub visibility: Visibility,
}

/// A virtual address of a service, or a block of them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Vip {
    /// The network the address belongs to.
    pub network: Network,
    /// The address as a block of one, or a larger block.
    pub block: IpNet,
}

/// A port of a service, and the port behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// The port that clients call.
    pub service_port: u16,
    /// The port that the endpoint listens on; 0 if only the endpoint knows.
    pub target_port: u16,
    /// What is spoken on it, as far as declared.
    pub app_protocol: AppProtocol,
}

/// A declared application protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// Not declared.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// TCP.
    Tcp,
    /// TLS.
    Tls,
}

/// How an endpoint of a service is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LoadBalancing {
    /// Places an endpoint should share with the caller, the most important first.
    pub preference: Vec<Scope>,
    /// What happens when no endpoint shares them all.
    pub mode: Mode,
    /// Whether unhealthy endpoints count.
    pub health: HealthPolicy,
}

/// A place that caller and endpoint can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Region.
    Region,
    /// Zone.
    Zone,
    /// Subzone.
    Subzone,
    /// Node.
    Node,
    /// Cluster.
    Cluster,
    /// Network.
    Network,
}

/// What the preferred places mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Nothing: any endpoint.
    #[default]
    Any,
    /// Only endpoints that share all of them.
    Strict,
    /// Endpoints that share all, else all but the last, and so on to any.
    Failover,
    /// No choice at all: the original destination is called.
    Passthrough,
}

/// Which endpoints count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HealthPolicy {
    /// Healthy ones.
    #[default]
    OnlyHealthy,
    /// All, as for a headless service that publishes addresses that are not ready.
    AllowAll,
}

/// Address families that a service serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IpFamilies {
    /// Whatever its endpoints have.
    #[default]
    Automatic,
    /// Only IPv4.
    Ipv4Only,
    /// Only IPv6.
    Ipv6Only,
    /// Both.
    Dual,
}

/// Who may see a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Workloads of the service's own namespace.
    Namespace,
}

impl ServiceKey {
    /// A key of its two parts.
    #[must_use]
    pub fn new(namespace: &str, hostname: &str) -> Self {
        Self {
            namespace: namespace.into(),
            hostname: hostname.into(),
        }
    }
}

impl Service {
    /// The port behind a service port: `Some(0)` if it differs per endpoint, none if the service
    /// has no such port.
    #[must_use]
    pub fn target_port(&self, service_port: u16) -> Option<u16> {
        target_port(&self.ports, service_port)
    }

    /// Whether workloads of this namespace may see it.
    #[must_use]
    pub fn is_visible_from(&self, namespace: &str) -> bool {
        self.visibility == Visibility::Public || *self.key.namespace == *namespace
    }
}

impl IpFamilies {
    /// Whether the service serves this family.
    #[must_use]
    pub fn accepts(self, ip: std::net::IpAddr) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::Ipv4Only => ip.is_ipv4(),
            Self::Ipv6Only => ip.is_ipv6(),
        }
    }
}

/// The port behind a service port, if there is one.
pub(crate) fn target_port(ports: &[PortMapping], service_port: u16) -> Option<u16> {
    ports
        .iter()
        .find(|port| port.service_port == service_port)
        .map(|port| port.target_port)
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.block.prefix_len() == self.block.max_prefix_len() {
            write!(f, "{}/{}", self.network, self.block.addr())
        } else {
            write!(f, "{}/{}", self.network, self.block)
        }
    }
}

impl fmt::Debug for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
