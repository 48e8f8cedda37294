//! Where a gateway is: a waypoint of a service or workload, or the gateway of another network.

use std::fmt;

use super::ServiceKey;
use crate::address::NetworkIp;

/// A gateway that takes HBONE.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// Which one.
    pub target: GatewayTarget,
    /// The port on which it takes HBONE; for a gateway that is a service, the service port.
    pub hbone_port: u16,
}

/// How a gateway is named.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum GatewayTarget {
    /// By the host name of its service (or workload), which adapts to the caller's address family.
    Hostname(ServiceKey),
    /// By an address, of a service or of a workload.
    Address(NetworkIp),
}

/// A gateway with its share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightedGateway {
    /// The gateway.
    pub gateway: GatewayAddress,
    /// Its share, relative to the others'.
    pub weight: u32,
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.hbone_port)
    }
}

impl fmt::Display for GatewayTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(key) => key.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Debug for GatewayTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
