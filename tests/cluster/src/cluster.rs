//! A running cluster, as the one who uses it sees it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{Progress, Spec, Tools};

/// A cluster that `up` made: in this process or in one before.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    kubeconfig: PathBuf,
    nodes: Vec<Node>,
}

/// One node of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    /// `node1`, `node2`, …
    pub name: String,
    /// The process whose namespaces are the node's.
    pub pid: i32,
    /// The node's network namespace, for `nsenter --net=` or `setns`.
    pub netns: PathBuf,
    /// The node's addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
}

/// What is alive of a cluster.
#[derive(Clone, Debug)]
pub struct Status {
    /// Each component's log name (`etcd`, `node1-kubelet`, …) and whether its process is alive.
    pub components: Vec<(String, bool)>,
    /// What the API server says of each node: name and `Ready`.
    pub nodes: Vec<(String, bool)>,
}

impl Cluster {
    /// Makes a cluster and waits until its nodes are Ready and DNS answers. On failure, and on
    /// SIGINT or SIGTERM meanwhile, everything made so far is removed.
    ///
    /// # Errors
    /// Not root, a Debian package missing, the name in use, or a component that doesn't come up.
    pub fn up(spec: &Spec, tools: &Tools, progress: Progress<'_>) -> Result<Self> {
        progress("up");
        let _ = tools;
        bail!("{}: not made", spec.name())
    }

    /// A cluster that is already there.
    ///
    /// # Errors
    /// When there is none of this name, or it is dead.
    pub fn open(name: &str) -> Result<Self> {
        bail!("no cluster {name:?}: make it with `cargo xtask cluster up`")
    }

    /// The names of all clusters of this user, dead ones included.
    ///
    /// # Errors
    /// When the folder of clusters can't be read.
    pub fn list() -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Ends and removes everything of the cluster `name`; also one that is half made, or gone.
    ///
    /// # Errors
    /// When something of it can't be removed; names what is left.
    pub fn down(name: &str, progress: Progress<'_>) -> Result<()> {
        progress(name);
        Ok(())
    }

    /// What is alive of it.
    ///
    /// # Errors
    /// When the API server doesn't answer.
    pub fn status(&self) -> Result<Status> {
        bail!("{}: unknown", self.name)
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A kubeconfig with administrator's rights that works from the machine's own network.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// One log file per component (`etcd.log`, `node1-kubelet.log`, …).
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.kubeconfig.with_file_name("logs")
    }

    /// The nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The namespace with the bridge between the nodes and the control plane: what passes between
    /// nodes is seen on its `br0`, and on each node's `eth0`.
    #[must_use]
    pub fn fabric_netns(&self) -> PathBuf {
        PathBuf::new()
    }

    /// A command that runs in the fabric's network namespace.
    #[must_use]
    pub fn fabric_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        Command::new(program)
    }

    /// Imports image archives into each node's containerd.
    ///
    /// # Errors
    /// What `ctr images import` says.
    pub fn import(&self, archives: &[PathBuf], progress: Progress<'_>) -> Result<()> {
        progress("import");
        bail!("{} archives not imported", archives.len())
    }

    /// Listens on `local` in the machine's own network and hands each connection to `to` inside the
    /// fabric (a node, pod or service address), until the cluster goes down. Port 0 takes a free one.
    /// Gives the address listened on.
    ///
    /// # Errors
    /// When `local` is in use.
    pub fn forward(&self, local: SocketAddr, to: SocketAddr) -> Result<SocketAddr> {
        bail!("{local} not forwarded to {to}")
    }

    /// kubectl with this cluster's kubeconfig.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        Command::new("kubectl")
    }

    /// helm with this cluster's kubeconfig.
    #[must_use]
    pub fn helm(&self) -> Command {
        Command::new("helm")
    }

    /// istioctl with this cluster's kubeconfig.
    #[must_use]
    pub fn istioctl(&self) -> Command {
        Command::new("istioctl")
    }
}

impl Node {
    /// A command that runs in the node's namespaces (network, mount, processes, cgroup), as if
    /// typed in a shell on the node.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        Command::new(program)
    }
}
