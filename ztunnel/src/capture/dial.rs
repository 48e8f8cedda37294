//! Opening connections inside a pod's network namespace. The kernel programs know our sockets by
//! a mark in the socket's own storage, which only a process with `CAP_BPF` can write. Firewall
//! marks choose a route and prove nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use ebpf_contract::{RETURN_PATH_MARK, Stored};
use nix::libc;
use parking_lot::RwLock;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::listener::keepalive;
use super::namespace::Netns;
use super::{Shared, route};

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Source ports of connections that show a client's address. They lie below the range that Linux
/// clients use themselves: the client's own connection, which we hold, and ours to the application
/// have the same two addresses, and with the same two ports the kernel could not tell them apart.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 22_768;

/// Source ports tried before a connection fails: each try finds a port in use (by a connection of
/// the same client to the same application) more rarely than one in two.
const TRIES: usize = 16;

/// Opens connections inside a pod's network namespace. Cheap to clone.
///
/// Keep one as long as any connection made with [`From::Client`] lives: once the pod is released,
/// the last one that is dropped takes the return path of such connections away.
#[derive(Clone, Debug)]
pub struct PodNetns(pub(super) Arc<Side>);

/// The source address a connection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The pod's own address.
    Pod,
    /// The client's address, kept toward the pod's application. The port is not the client's.
    Client(SocketAddr),
}

/// Our side of a pod's namespace; exists once for each namespace.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) netns: Netns,
    shared: Arc<Shared>,
    addresses: RwLock<Vec<IpAddr>>,
    leaving: AtomicBool,
    port: AtomicU16,
}

impl Side {
    pub(super) fn new(netns: Netns, shared: Arc<Shared>) -> Self {
        Self {
            netns,
            shared,
            addresses: RwLock::default(),
            leaving: AtomicBool::new(false),
            port: AtomicU16::new(0),
        }
    }

    /// The pod is enrolled with these addresses.
    pub(super) fn joined(&self, addresses: &[IpAddr]) {
        *self.addresses.write() = addresses.to_vec();
        self.leaving.store(false, Ordering::Release);
    }

    /// The pod is released: whoever is last takes the return path away.
    pub(super) fn left(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Does a connection to this address stay in the pod?
    fn is_inward(&self, to: IpAddr) -> bool {
        to.is_loopback() || self.addresses.read().contains(&to)
    }

    fn next_port(&self) -> u16 {
        FIRST_PORT + self.port.fetch_add(1, Ordering::Relaxed) % PORTS
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.leaving.load(Ordering::Acquire) {
            return; // The process ends; the next one finds the return path in place.
        }
        if let Err(error) = route::remove(&self.netns, &self.shared.proc_sys_net) {
            // The namespace of a pod that is gone goes with its last descriptor, which is ours.
            tracing::debug!(%error, "the return path of a released pod could not be removed");
        }
    }
}

impl PodNetns {
    /// Connects to `to` from inside the pod's namespace, within 10 s, with `TCP_NODELAY` and
    /// keepalive set. Outbound capture lets it pass. With [`From::Client`], and to the pod's own
    /// addresses, so does inbound capture: it reaches the application and not us again.
    ///
    /// # Errors
    /// `TimedOut` after 10 s, `AddrNotAvailable` when a client's connections to the application
    /// have used up the source ports, `InvalidInput` when the families differ; otherwise those of
    /// `connect(2)`, `ConnectionRefused` at once when nobody listens.
    pub async fn connect(&self, to: SocketAddr, from: From) -> io::Result<TcpStream> {
        match from {
            // From the pod to itself: there is nothing to preserve, and nothing to route back.
            From::Client(client) if client.ip() != to.ip() => {
                self.connect_as(client.ip(), to).await
            }
            From::Client(_) => self.connect_marked(to, Stored::INWARD).await,
            From::Pod if self.0.is_inward(to.ip()) => self.connect_marked(to, Stored::INWARD).await,
            From::Pod => self.connect_marked(to, Stored::OWN).await,
        }
    }

    async fn connect_marked(&self, to: SocketAddr, kind: u32) -> io::Result<TcpStream> {
        let socket = self.open(to, kind)?;
        establish(socket, to).await
    }

    /// Connects to the pod's application and shows it the client's address.
    async fn connect_as(&self, client: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        if client.is_ipv4() != to.is_ipv4() {
            let message = format!("cannot show the address {client} to {to}: other family");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        for _ in 0..TRIES {
            let socket = self.open(to, Stored::INWARD)?;
            match to {
                SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
            socket.set_mark(RETURN_PATH_MARK)?;
            // Many connections may have the same source, as long as their other ends differ.
            socket.set_reuse_address(true)?;
            let source = SocketAddr::new(client, self.0.next_port());
            match socket.bind(&source.into()) {
                Err(error) if is_taken(&error) => continue,
                bound => bound?,
            }
            match establish(socket, to).await {
                Err(error) if is_taken(&error) => {}
                result => return result,
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
    }

    /// A socket inside the namespace that the kernel programs know as ours.
    fn open(&self, to: SocketAddr, kind: u32) -> io::Result<Socket> {
        let side = &self.0;
        let socket = side.netns.run(|| {
            let kind = Type::STREAM.nonblocking();
            Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))
        })??;
        let mark = Stored::mark(kind);
        side.shared.maps.sockets.set(&socket.as_raw_fd(), &mark)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keepalive())?;
        Ok(socket)
    }
}

/// The source port cannot be had, for now.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL)
    )
}

async fn establish(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(socket.into());
    match timeout(CONNECT_TIMEOUT, socket.connect(to)).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
