//! The seam to the kernel: which pods' connections come to us, and how they get back out.
//!
//! `Capture` loads the kernel programs of `ebpf/programs`, keeps them pinned so that they hold
//! while no ztunnel runs, and enrols pods. Each pod gets three listeners inside its own network
//! namespace and a handle for opening connections there. Nothing outside this room knows aya, a
//! map, a pin or a routing rule; nothing in here knows a workload, a policy or a certificate.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub use error::Error;

mod error;

/// The address a captured connection comes from, as the network shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub SocketAddr);

/// The address a captured connection was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrigDst(pub SocketAddr);

/// Where the kernel's file systems are, and what makes a probe the kubelet's.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cgroup2 folder above all pods and above ztunnel itself; `None` takes the first cgroup2
    /// mount of `/proc/mounts`.
    pub cgroup_root: Option<PathBuf>,
    /// A mounted bpffs; everything is pinned under `culvert` in it.
    pub bpffs: PathBuf,
    /// `sys/net` of a procfs; it shows the calling thread's network namespace.
    pub proc_sys_net: PathBuf,
    /// The network namespace whose processes outside of `kubepods` may probe pods unproxied: a
    /// file such as `/proc/1/ns/net`. `None` is the initial namespace of the machine.
    pub host_netns: Option<PathBuf>,
    /// The cgroup2 folder above all pods; processes below it are never taken for the kubelet.
    /// `None` looks for `kubepods` or `kubepods.slice` below `cgroup_root`.
    pub kubepods: Option<PathBuf>,
    /// Folders with files of network namespaces, searched by `uninstall` for pods that still have
    /// our routing rules.
    pub netns_dirs: Vec<PathBuf>,
}

/// A pod's network namespace: an open file of it.
#[derive(Debug)]
pub struct Netns(pub OwnedFd);

/// The kernel programs, loaded, attached and pinned. Dropping it leaves all of it in force.
#[derive(Clone)]
pub struct Capture {
    _shared: Arc<()>,
}

/// What ztunnel holds of an enrolled pod. Dropping the listeners makes the kernel refuse the
/// pod's new connections until they are opened again or the pod is released.
#[derive(Debug)]
pub struct PodSockets {
    /// Connections that the pod opens.
    pub outbound: Listener,
    /// Connections to the pod that are not HBONE.
    pub inbound: Listener,
    /// HBONE connections to the pod.
    pub hbone: Listener,
    /// The way to open connections in the pod's namespace.
    pub netns: PodNetns,
}

/// One listener in a pod's network namespace.
#[derive(Debug)]
pub struct Listener {
    socket: tokio::net::TcpListener,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Captured {
    /// The connection, `TCP_NODELAY` set.
    pub stream: tokio::net::TcpStream,
    /// Who opened it.
    pub client: ClientAddr,
    /// Where it was meant to go.
    pub original: OrigDst,
}

/// Opens connections inside a pod's network namespace. Cheap to clone; while one lives, the
/// return path of connections with a preserved source address stays in place.
#[derive(Clone, Debug)]
pub struct PodNetns {
    _namespace: Arc<OwnedFd>,
}

/// The source address a connection shall show.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The pod's own address.
    Pod,
    /// The client's IP address, kept toward the application. The port is ours.
    Client(SocketAddr),
}

/// One counter: what is counted, why, and how often since the programs were first pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `captured`, `passed` or `refused`.
    pub verdict: &'static str,
    /// The stable name of the reason.
    pub reason: &'static str,
    /// How often.
    pub value: u64,
}

impl Capture {
    /// Checks the machine, loads and pins the programs, adopts what an earlier ztunnel pinned.
    pub fn start(_config: Config) -> Result<Self, Error> {
        Err(Error::NoCgroup2)
    }

    /// Captures a pod: listeners first, then inbound, then outbound. All or nothing. Idempotent:
    /// the same pod again gives fresh sockets. Blocks for some milliseconds; must be called in a
    /// tokio runtime (`spawn_blocking` will do).
    pub fn enroll(&self, _uid: &str, _netns: Netns) -> Result<PodSockets, Error> {
        Err(Error::NoAddress)
    }

    /// Stops capturing a pod. Open connections go on.
    pub fn release(&self, _uid: &str) -> Result<(), Error> {
        Err(Error::NoAddress)
    }

    /// Releases every pod that is not named, also those which an earlier ztunnel enrolled.
    pub fn retain(&self, _uids: &[&str]) -> Result<Vec<String>, Error> {
        Err(Error::NoAddress)
    }

    /// Compares what should be attached with what is, repairs it and says what was repaired.
    pub fn reconcile(&self) -> Result<Vec<String>, Error> {
        Err(Error::NoAddress)
    }

    /// All counters, for metrics.
    pub fn counters(&self) -> Vec<Counter> {
        Vec::new()
    }

    /// Takes everything off the node, with or without a `Capture` of this process.
    pub fn uninstall(_config: &Config) -> Result<(), Error> {
        Err(Error::NoCgroup2)
    }
}

impl Listener {
    /// The next connection with both of its addresses. Connections whose original destination is
    /// unknown are reset and counted, never returned.
    pub async fn accept(&self) -> std::io::Result<Captured> {
        let (stream, client) = self.socket.accept().await?;
        let original = OrigDst(stream.local_addr()?);
        Ok(Captured {
            stream,
            client: ClientAddr(client),
            original,
        })
    }
}

impl PodNetns {
    /// Connects within 10 s from inside the pod's namespace. The kernel programs let it pass.
    pub async fn connect(
        &self,
        _to: SocketAddr,
        _from: From,
    ) -> std::io::Result<tokio::net::TcpStream> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
