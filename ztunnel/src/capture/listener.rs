//! Listeners inside a pod's network namespace, and what they accept.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use ebpf_contract::{Endpoint, Stored, port};
use mesh::address::{ClientAddr, OrigDst};
use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use super::error::Error;
use super::namespace::Netns;

/// Connections that the kernel has accepted and we have not; then it drops SYNs, and clients try
/// again after a second. The kernel's own limit, `somaxconn`, is 4,096 too.
const BACKLOG: i32 = 4096;

/// A peer that is gone without a word is noticed after 180 s + 9 × 20 s.
pub(super) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(180))
        .with_interval(Duration::from_secs(20))
        .with_retries(9)
}

/// One listener in a pod's network namespace.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<TcpListener>,
    /// Set for the outbound listener, whose connections carry their original destination.
    originals: Option<Arc<Shared>>,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Captured {
    /// The connection, with `TCP_NODELAY` and keepalive set.
    pub stream: TcpStream,
    /// Who opened it.
    pub client: ClientAddr,
    /// Where it was meant to go.
    pub original: OrigDst,
}

impl Listener {
    pub(super) fn new(socket: Arc<TcpListener>, originals: Option<Arc<Shared>>) -> Self {
        Self { socket, originals }
    }

    /// The next connection with both of its addresses. A connection on the outbound listener
    /// whose original destination is unknown is reset and counted, never returned: somebody
    /// called port 15001 itself.
    ///
    /// # Errors
    /// Those of `accept(2)`; with `EMFILE` and the like the caller should wait a moment.
    pub async fn accept(&self) -> io::Result<Captured> {
        loop {
            let (stream, client) = self.socket.accept().await?;
            let original = match &self.originals {
                // Inbound: the socket has the address that the client called.
                None => stream.local_addr()?,
                Some(shared) => match original(shared, &stream)? {
                    Some(original) => original,
                    None => {
                        shared.count_unknown_original();
                        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                        continue;
                    }
                },
            };
            return Ok(Captured {
                stream,
                client: ClientAddr::new(client),
                original: OrigDst::new(original),
            });
        }
    }
}

/// The destination that the kernel programs stored with an accepted socket.
fn original(shared: &Shared, stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let stored = shared.maps.sockets.get(&stream.as_raw_fd())?;
    Ok(stored
        .filter(|stored| stored.kind == Stored::ACCEPTED)
        .map(|stored| socket_address(&stored.original)))
}

fn socket_address(endpoint: &Endpoint) -> SocketAddr {
    let ip = Ipv6Addr::from(endpoint.ip.0).to_canonical();
    SocketAddr::new(ip, endpoint.port())
}

/// A pod's three listening sockets, in the order of [`ebpf_contract::Listeners`].
pub(super) struct Sockets([Arc<TcpListener>; 3]);

impl Sockets {
    /// Opens them inside the namespace. The ports may be taken by another ztunnel that we are
    /// about to relieve: then both listen, and the kernel programs pick ours.
    pub(super) fn open(netns: &Netns) -> Result<Self, Error> {
        let open = |port| {
            netns
                .run(|| listen(port))
                .and_then(|socket| TcpListener::from_std(socket?.into()))
                .map(Arc::new)
                .map_err(|source| match source.raw_os_error() {
                    Some(libc::EADDRINUSE) => Error::Port { port, source },
                    _ => Error::Namespace {
                        step: "opening a listener",
                        source,
                    },
                })
        };
        Ok(Self([
            open(port::OUTBOUND)?,
            open(port::INBOUND)?,
            open(port::HBONE)?,
        ]))
    }

    /// The sockets' descriptors, in their order.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 3] {
        self.0.each_ref().map(|socket| socket.as_fd())
    }

    /// The sockets themselves, in their order.
    pub(super) fn shared(&self) -> &[Arc<TcpListener>; 3] {
        &self.0
    }
}

/// A dual-stack listener, or an IPv4 one where the kernel has no IPv6.
fn listen(port: u16) -> io::Result<Socket> {
    let stream = |domain| Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP));
    let (socket, address) = match stream(Domain::IPV6) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let socket = stream(Domain::IPV4)?;
            (socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        Err(error) => return Err(error),
    };
    // Accepted sockets occupy the application's own ports, and may outlive us.
    socket.set_reuse_address(true)?;
    // Another ztunnel listens before this one ends.
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf_contract::Ip;

    #[test]
    fn mapped_addresses_come_out_as_ipv4() {
        let v4 = Endpoint::new(Ip::v4([192, 0, 2, 7]), 443);
        assert_eq!(socket_address(&v4), "192.0.2.7:443".parse().unwrap());
        let v6 = Endpoint::new(Ip("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()), 80);
        assert_eq!(socket_address(&v6), "[2001:db8::7]:80".parse().unwrap());
    }
}
