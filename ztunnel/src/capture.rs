//! The seam to the kernel: which pods' connections come to us, and how they get back out.
//!
//! [`Capture`] loads the kernel programs of `ebpf/programs`, keeps them pinned so that they hold
//! while no ztunnel runs, and enrols pods. Each pod gets three listeners inside its own network
//! namespace, and a handle for opening connections there. Nothing outside this room knows aya, a
//! map, a pin or a routing rule; nothing in here knows a workload, a policy or a certificate.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use self::pins::Pins;
use self::pod::Pods;
use self::programs::{Loader, Maps, Program};

pub use self::counters::Counter;
pub use self::dial::{From, PodNetns};
pub use self::error::Error;
pub use self::listener::{Captured, Listener};
pub use self::namespace::Netns;

mod check;
mod counters;
mod dial;
mod error;
mod kernel;
mod links;
mod listener;
mod namespace;
mod pins;
mod pod;
mod programs;
mod reconcile;
mod route;
mod uninstall;

/// Where the kernel's file systems are, and what makes a probe the kubelet's.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cgroup2 folder above all pods and above ztunnel itself, or one above its mount, as on
    /// hybrid hosts; `None` takes the first cgroup2 mount of `/proc/mounts`.
    pub cgroup_root: Option<PathBuf>,
    /// A mounted bpffs; everything is pinned under `culvert` in it.
    pub bpffs: PathBuf,
    /// `sys/net` of a procfs. It shows the network namespace of the thread that opens a file in
    /// it, also where it is bind-mounted from the host.
    pub proc_sys_net: PathBuf,
    /// The network namespace that the kubelet is in, a file such as `/proc/1/ns/net`. `None` takes
    /// processes in any namespace but captured pods' for the node's; they must be outside of
    /// `kubepods` all the same.
    pub host_netns: Option<PathBuf>,
    /// The cgroup2 folder above all pods. Processes outside of it are the node's own, and may call
    /// a captured pod as if it were not: the kubelet's probes. `None` looks for `kubepods` and
    /// `kubepods.slice` below the cgroup root; if there is none, no process is taken for the
    /// kubelet.
    pub kubepods: Option<PathBuf>,
    /// Folders with files of network namespaces: where `uninstall` looks, beside the processes it
    /// can see, for pods that still have our routing rules.
    pub netns_dirs: Vec<PathBuf>,
}

/// The kernel programs, loaded, attached and pinned. Dropping it leaves all of it in force.
#[derive(Clone, Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    pods: Arc<Mutex<Pods>>,
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

/// What every part of this room needs.
#[derive(Debug)]
struct Shared {
    pins: Pins,
    loader: Loader,
    maps: Maps,
    /// In the order of [`programs::HOOKS`].
    hooks: Vec<Program>,
    cgroup: File,
    cgroup_id: u64,
    root: PathBuf,
    /// As configured; looked for if it is not.
    kubepods: Option<PathBuf>,
    proc_sys_net: PathBuf,
    own_netns: u64,
    node_netns: Option<u64>,
    cpus: usize,
    unknown_originals: AtomicU64,
}

impl Capture {
    /// Checks the machine, loads the programs, and attaches them: in the place of an earlier
    /// ztunnel's, whose maps and pods are adopted. Those pods are captured all the while; their
    /// connections are refused until they are enrolled here.
    ///
    /// # Errors
    /// The first thing that is missing, in one line.
    pub fn start(config: Config) -> Result<Self, Error> {
        check::machine(&config.bpffs)?;
        let (root, cgroup) = check::cgroup_root(config.cgroup_root.as_deref())?;
        let node_netns = match &config.host_netns {
            Some(path) => Some(node_netns(path)?),
            None => None,
        };
        let own_netns = namespace::cookie_here().map_err(|source| Error::Namespace {
            step: "asking for the cookie of our own namespace",
            source,
        })?;

        let pins = Pins::below(&config.bpffs);
        pins.create_folders()?;
        let loader = Loader::new(&pins);
        let (hooks, maps) = loader.hooks()?;
        let cgroup_id = check::cgroup_id(&root)?;
        let cpus =
            aya::util::nr_cpus().map_err(|(path, source)| Error::Machine { path, source })?;
        let shared = Shared {
            pins,
            loader,
            maps,
            hooks,
            cgroup,
            cgroup_id,
            root,
            kubepods: config.kubepods,
            proc_sys_net: config.proc_sys_net,
            own_netns,
            node_netns,
            cpus,
            unknown_originals: AtomicU64::new(0),
        };
        let pods = Pods::adopting(&shared)?;
        reconcile::settings(&shared)?;
        let attached = reconcile::attach_hooks(&shared)?;
        tracing::info!(
            cgroup = %shared.root.display(),
            hooks = attached.len(),
            "capture is in force",
        );
        Ok(Self {
            shared: Arc::new(shared),
            pods: Arc::new(Mutex::new(pods)),
        })
    }

    /// Captures a pod: its listeners, then what comes to it, then what it opens. All or nothing.
    /// The same pod again, or with a new namespace, gives fresh sockets. Blocks for some
    /// milliseconds; call it in a tokio runtime (`spawn_blocking` will do).
    ///
    /// # Errors
    /// Names the step; the pod is as it was before. A pod that an earlier ztunnel captured stays
    /// captured, and its connections refused.
    pub fn enroll(&self, uid: &str, netns: Netns) -> Result<PodSockets, Error> {
        pod::enroll(&self.shared, &mut self.pods.lock(), uid, netns)
    }

    /// Stops capturing a pod. Open connections go on; a pod that is not known is no error.
    ///
    /// # Errors
    /// Names the step; calling it again goes on from there.
    pub fn release(&self, uid: &str) -> Result<(), Error> {
        pod::release(&self.shared, &mut self.pods.lock(), uid)
    }

    /// Releases every pod that is not named, also those which an earlier ztunnel enrolled, and
    /// says which. Call it once all pods of this node are known. Pods named but not enrolled stay
    /// as they are: captured, and refused.
    ///
    /// # Errors
    /// As [`Capture::release`].
    pub fn retain(&self, uids: &[&str]) -> Result<Vec<String>, Error> {
        let released = pod::retain(&self.shared, &mut self.pods.lock(), uids)?;
        for layout in self.shared.pins.others()? {
            tracing::info!(path = %layout.display(), "removing what another version pinned");
            pins::remove_layout(&layout)?;
        }
        Ok(released)
    }

    /// Compares what should be attached with what is, repairs it, and names what was repaired.
    /// Call it every few seconds: it takes well under a millisecond for a pod.
    ///
    /// # Errors
    /// What could not be repaired.
    pub fn reconcile(&self) -> Result<Vec<String>, Error> {
        reconcile::reconcile(&self.shared, &self.pods.lock())
    }

    /// All counters, for metrics.
    pub fn counters(&self) -> Vec<Counter> {
        counters::read(&self.shared)
    }

    /// Takes everything off the node: pins, programs, maps, and the return paths in pods. Works
    /// with or without a `Capture` in this process; one that there is must not be used after.
    ///
    /// # Errors
    /// The first one; everything that can be removed is removed all the same.
    pub fn uninstall(config: &Config) -> Result<(), Error> {
        uninstall::uninstall(config)
    }
}

impl Shared {
    fn count_unknown_original(&self) {
        self.unknown_originals.fetch_add(1, Ordering::Relaxed);
    }

    fn unknown_originals(&self) -> u64 {
        self.unknown_originals.load(Ordering::Relaxed)
    }
}

fn node_netns(path: &Path) -> Result<u64, Error> {
    let failed = |source| Error::HostNetns {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    Netns(file.into()).cookie().map_err(failed)
}
