//! Addresses as types that cannot be swapped: who called, where to, in which network. They are
//! canonical from birth: an IPv4-mapped IPv6 address becomes the IPv4 address it stands for, so
//! that a dual-stack socket and an IPv4 one name a peer alike. Knows no socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The address a captured connection came from: the peer of the accepted socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(SocketAddr);

/// The address the application wanted to reach, before capture rewrote it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrigDst(SocketAddr);

/// The name of a network: addresses mean something only together with it. The empty name is the
/// default network.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(Arc<str>);

/// An address in a network, written `network/ip` (with an empty network: `/10.0.0.1`), which is
/// also its alias in on-demand xDS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkIp {
    /// Where the address is valid.
    pub network: Network,
    /// The canonical address.
    pub ip: IpAddr,
}

macro_rules! socket_address {
    ($name:ident) => {
        impl $name {
            /// Takes the address as the kernel reports it and makes it canonical.
            #[must_use]
            pub fn new(address: SocketAddr) -> Self {
                Self(canonical(address))
            }

            /// The canonical address and port.
            #[must_use]
            pub fn get(self) -> SocketAddr {
                self.0
            }

            /// The canonical address.
            #[must_use]
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            #[must_use]
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl From<SocketAddr> for $name {
            fn from(address: SocketAddr) -> Self {
                Self::new(address)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

socket_address!(ClientAddr);
socket_address!(OrigDst);

impl Network {
    /// A network by name; the empty name is the default network.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new("")
    }
}

impl NetworkIp {
    /// An address of a network, made canonical.
    #[must_use]
    pub fn new(network: Network, ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self { network, ip }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for NetworkIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

impl fmt::Debug for NetworkIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The same address with an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) turned into IPv4.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        // Kept as it is: a link-local address is nothing without its scope.
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.0.0.7]:80".parse().unwrap();
        let plain: SocketAddr = "10.0.0.7:80".parse().unwrap();
        assert_eq!(ClientAddr::new(mapped), ClientAddr::new(plain));
        assert_eq!(OrigDst::new(mapped).to_string(), "10.0.0.7:80");
        assert_eq!(
            NetworkIp::new(Network::default(), mapped.ip()).to_string(),
            "/10.0.0.7"
        );
    }

    #[test]
    fn ipv6_keeps_its_scope() {
        let local: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(OrigDst::new(local).get(), local);
    }
}
