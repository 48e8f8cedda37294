//! Who has which address in a cluster. The same in every cluster: each has a network of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Services, IPv4 first: that family is a service's own unless it asks for more.
pub(crate) const SERVICES: &str = "10.96.0.0/16,fd00:10:96::/112";
pub(crate) const SERVICES_V4: &str = "10.96.0.0/16";
pub(crate) const SERVICES_V6: &str = "fd00:10:96::/112";
/// All pods of all nodes.
pub(crate) const PODS: &str = "10.244.0.0/16,fd00:10:244::/48";
/// The API server as a service.
pub(crate) const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The cluster's DNS.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(crate) const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x0a);
/// The fabric's end of the bridge: where the control plane listens.
pub(crate) const FABRIC: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
pub(crate) const FABRIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1);
/// The API server.
pub(crate) const API: SocketAddr = SocketAddr::new(IpAddr::V4(FABRIC), 6443);

/// The addresses of node 1, 2, …
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfNode(pub(crate) u8);

impl OfNode {
    pub(crate) fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, 0, 10 + self.0)
    }

    pub(crate) fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x10 + u16::from(self.0))
    }

    pub(crate) fn pods_v4(self) -> String {
        format!("10.244.{}.0/24", self.0)
    }

    pub(crate) fn pods_v6(self) -> String {
        format!("fd00:10:244:{:x}::/64", self.0)
    }

    pub(crate) fn name(self) -> String {
        format!("node{}", self.0)
    }
}
