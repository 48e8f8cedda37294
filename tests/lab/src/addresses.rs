//! Who gets which address. A pure plan, so that a test, a route and a workload file can never
//! disagree: node n owns 10.244.n.0/24 and fd00:10:244:n::/64, nodes meet on 192.168.77.0/24 and
//! fd00:77::/64. Every lab has namespaces of its own, so all labs use the same plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The number of a node: 1 to 99.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// The most nodes a lab can have.
    pub const MAX: u8 = 99;

    /// `None` outside 1 to [`Self::MAX`].
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// The node's address on the fabric.
    #[must_use]
    pub fn on_fabric(self) -> Pair {
        fabric(self.0)
    }

    /// What a pod uses as its next hop: an address of the node.
    #[must_use]
    pub fn gateway(self) -> Pair {
        Pair {
            v4: Ipv4Addr::new(10, 244, self.0, 1),
            v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        }
    }

    /// The networks of the node's pods, as (address, prefix length).
    #[must_use]
    pub fn pods(self) -> ((Ipv4Addr, u8), (Ipv6Addr, u8)) {
        (
            (Ipv4Addr::new(10, 244, self.0, 0), 24),
            (
                Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(self.0), 0, 0, 0, 0),
                64,
            ),
        )
    }

    /// The address of the node's pod `index` (0 to 249).
    #[must_use]
    pub fn pod(self, index: u8) -> Pair {
        let last = index.saturating_add(2);
        let ((v4, _), (v6, _)) = self.pods();
        let [a, b, c, _] = v4.octets();
        let mut segments = v6.segments();
        segments[7] = u16::from(last);
        Pair {
            v4: Ipv4Addr::new(a, b, c, last),
            v6: Ipv6Addr::from(segments),
        }
    }
}

/// An IPv4 and an IPv6 address of the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// Both, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }
}

/// The prefix lengths of the fabric network.
pub const FABRIC_PREFIX: (u8, u8) = (24, 64);

/// Where the lab's own servers (the certificate authority) listen on the fabric.
#[must_use]
pub fn control() -> Pair {
    fabric(254)
}

/// The address of machine `index` outside the mesh (0 to 50).
#[must_use]
pub fn outside(index: u8) -> Pair {
    fabric(200 + index.min(50))
}

fn fabric(host: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(192, 168, 77, host),
        v6: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, u16::from(host)),
    }
}

/// The virtual address of service `index`; nothing routes it, only a proxy can answer.
#[must_use]
pub fn service(index: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(10, 96, 0, index.saturating_add(10)),
        v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(index) + 0x10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_lies_in_the_network_of_its_node_and_differs_from_the_gateway() {
        let node = NodeNumber::new(7).unwrap();
        let first = node.pod(0);
        assert_eq!(first.v4, Ipv4Addr::new(10, 244, 7, 2));
        assert_eq!(first.v6, "fd00:10:244:7::2".parse::<Ipv6Addr>().unwrap());
        assert_ne!(first.v4, node.gateway().v4);
        assert_ne!(first, node.pod(1));
    }

    #[test]
    fn a_node_number_out_of_range_does_not_exist() {
        assert!(NodeNumber::new(0).is_none());
        assert!(NodeNumber::new(100).is_none());
    }
}
