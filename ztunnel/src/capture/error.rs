//! What can go wrong between us and the kernel, each with the likely cause and what a person can
//! do about it. One line each: `main` prints it and ends.

use std::io;
use std::path::PathBuf;

/// Why capturing could not be set up, or a pod not be enrolled or released.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup2 hierarchy to attach to.
    #[error(
        "no cgroup2 filesystem is mounted: mount one, or mount the host's into this container and name it with CGROUP_ROOT"
    )]
    NoCgroup2,
    /// The folder named is no part of a cgroup2 hierarchy.
    #[error("{path} is not in a cgroup2 filesystem and has none mounted below it: CGROUP_ROOT must name the host's cgroup2 mount (in the chart, node.cgroup2)", path = .0.display())]
    NotCgroup2(PathBuf),
    /// The folder for pins is not on a bpffs.
    #[error("{path} is not a bpf filesystem: `mount -t bpf bpf {path}`, or mount the host's into this container and name it with BPFFS", path = .0.display())]
    NotBpffs(PathBuf),
    /// Linux capabilities are missing.
    #[error(
        "missing {0}: capturing needs CAP_BPF and CAP_NET_ADMIN (programs, socket options) and CAP_SYS_ADMIN (to enter pods' namespaces)"
    )]
    Capabilities(String),
    /// The kernel lacks something that capturing needs.
    #[error(
        "the kernel lacks {feature}, which needs Linux {since} or newer; this is Linux {running}"
    )]
    Kernel {
        /// What is missing.
        feature: &'static str,
        /// The first release that has it.
        since: &'static str,
        /// The running release.
        running: String,
    },
    /// Something of the machine could not be read.
    #[error("{path} could not be read")]
    Machine {
        /// The file.
        path: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The network namespace of the kubelet could not be entered.
    #[error("{path} is no network namespace that could be entered: HOST_NETNS must name the kubelet's", path = path.display())]
    HostNetns {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A kernel program was refused or could not be attached.
    #[error("kernel program {program}: {step} failed")]
    Program {
        /// The program's name.
        program: &'static str,
        /// What was tried with it.
        step: &'static str,
        /// The kernel's or aya's words, the verifier's log among them.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The embedded object could not be loaded.
    #[error("loading the kernel programs failed; is another version's map pinned at {path}?", path = pins.display())]
    Load {
        /// The folder of the pins.
        pins: PathBuf,
        /// aya's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map could not be read or written.
    #[error("kernel map {map}: {step} failed")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What was tried with it.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A pin could not be made, opened or removed.
    #[error("pin {path}: {step} failed", path = path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What was tried with it.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something in the pod's network namespace failed.
    #[error("in the pod's network namespace: {step} failed")]
    Namespace {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// One of our ports is taken in the pod.
    #[error(
        "port {port} is taken in the pod's network namespace: the application must not use 15001, 15006 or 15008"
    )]
    Port {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The pod has no address that could be captured.
    #[error(
        "the pod's network namespace has no address yet: was its network set up before it was enrolled?"
    )]
    NoAddress,
    /// The namespace is the node's own, whose connections are never captured.
    #[error(
        "the pod is in the node's own network namespace (hostNetwork), which is never captured"
    )]
    HostNetwork,
    /// All slots for pods are taken.
    #[error("all {limit} places for captured pods on this node are taken")]
    Full {
        /// How many pods one node can have enrolled.
        limit: u32,
    },
    /// Another pod holds this namespace.
    #[error("the network namespace is already enrolled as pod {0}")]
    Taken(String),
}
