//! A running cluster, as the one who uses it sees it.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::address::OfNode;
use crate::cgroup::Hierarchies;
use crate::inside::Inside;
use crate::record::{self, FABRIC, Folder, Record, WhenTaken};
use crate::spec::check_name;
use crate::{Progress, Spec, Tool, Tools, api, host, making, removal};

/// A cluster that `up` made: in this process or in one before.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    folder: Folder,
    kubeconfig: PathBuf,
    fabric: Inside,
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
    inside: Inside,
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
    /// SIGINT or SIGTERM meanwhile, everything made so far is removed; the logs of a failure stay.
    ///
    /// # Errors
    /// Not root, a Debian package missing, the name in use, or a component that doesn't come up.
    pub fn up(spec: &Spec, tools: &Tools, progress: Progress<'_>) -> Result<Self> {
        making::make(spec, tools, progress)?;
        Self::open(spec.name())
    }

    /// A cluster that is already there.
    ///
    /// # Errors
    /// When there is none of this name, or it is half made or dead.
    pub fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let folder = Folder::of(name)?;
        let Some(record) = folder.record()? else {
            bail!("no cluster {name:?}: make it with `cargo xtask cluster up`");
        };
        ensure!(
            record.complete,
            "the cluster {name:?} is being made, or was only half made: \
             `cargo xtask cluster down --name {name}` removes what there is"
        );
        Self::of(folder, &record)
    }

    /// The names of all clusters of this user, dead ones included.
    ///
    /// # Errors
    /// When the folder of clusters can't be read.
    pub fn list() -> Result<Vec<String>> {
        record::names()
    }

    /// Ends and removes everything of the cluster `name`; also one that is half made, or gone.
    ///
    /// # Errors
    /// When something of it can't be removed; names what is left.
    pub fn down(name: &str, progress: Progress<'_>) -> Result<()> {
        removal::down(name, progress)
    }

    /// What is alive of it.
    ///
    /// # Errors
    /// When the API server doesn't answer.
    pub fn status(&self) -> Result<Status> {
        let record = self.folder.record()?.context("the cluster has gone")?;
        let processes = record.first.iter().chain(&record.daemons);
        let components = processes
            .map(|process| (process.name.clone(), process.alive()))
            .collect();
        let output = self
            .kubectl()
            .args(["get", "nodes", "-o", "json"])
            .output()
            .context("kubectl")?;
        ensure!(
            output.status.success(),
            "the API server doesn't answer: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(Status {
            components,
            nodes: api::ready_nodes(&output.stdout)?,
        })
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
        self.folder.logs()
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
        self.fabric.netns()
    }

    /// A command that runs in the fabric's network namespace.
    #[must_use]
    pub fn fabric_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.fabric.network_command(program)
    }

    /// Imports image archives into each node's containerd, all nodes at once.
    ///
    /// # Errors
    /// What `ctr images import` says.
    pub fn import(&self, archives: &[PathBuf], progress: Progress<'_>) -> Result<()> {
        std::thread::scope(|scope| {
            let nodes: Vec<_> = self
                .nodes
                .iter()
                .map(|node| {
                    scope.spawn(move || {
                        archives
                            .iter()
                            .try_for_each(|archive| import(&node.inside, archive))?;
                        progress(&format!(
                            "{}: {} images imported",
                            node.name,
                            archives.len()
                        ));
                        Ok(())
                    })
                })
                .collect();
            nodes
                .into_iter()
                .try_for_each(|node| making::joined(node.join()))
        })
    }

    /// Listens on `local` in the machine's own network and hands each connection to `to` inside the
    /// fabric (a node, pod or service address), until the cluster goes down. Port 0 takes a free one.
    /// Gives the address listened on.
    ///
    /// # Errors
    /// When `local` is in use.
    pub fn forward(&self, local: SocketAddr, to: SocketAddr) -> Result<SocketAddr> {
        let _lock = self.folder.lock(WhenTaken::Wait)?;
        let mut record = self.folder.record()?.context("the cluster has gone")?;
        let (listening, process) = forward(&self.folder, &self.fabric, local, to)?;
        record.daemons.push(process);
        self.folder.save(&record)?;
        Ok(listening)
    }

    /// kubectl with this cluster's kubeconfig.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        self.client(Tool::Kubectl)
    }

    /// helm with this cluster's kubeconfig.
    #[must_use]
    pub fn helm(&self) -> Command {
        self.client(Tool::Helm)
    }

    /// istioctl with this cluster's kubeconfig.
    #[must_use]
    pub fn istioctl(&self) -> Command {
        self.client(Tool::Istioctl)
    }

    fn client(&self, tool: Tool) -> Command {
        let program = Tools::from_env().find(tool);
        let mut command = Command::new(program.unwrap_or_else(|| tool.program().into()));
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn of(folder: Folder, record: &Record) -> Result<Self> {
        let hierarchies = Hierarchies::of_machine()?;
        let first = |name: &str| {
            let process = record.first.iter().find(|process| process.name == name);
            process
                .filter(|process| process.alive())
                .cloned()
                .with_context(|| {
                    format!(
                        "{name} of the cluster {0:?} is dead: `cargo xtask cluster down --name {0}` removes it",
                        record.name
                    )
                })
        };
        let fabric = Inside::new(first(FABRIC)?, hierarchies.system(&record.name));
        let nodes = (1..=record.nodes).map(OfNode).map(|at| {
            let name = at.name();
            let inside = Inside::new(first(&name)?, hierarchies.node_system(&record.name, &name));
            Ok(Node {
                pid: inside.first.pid,
                netns: inside.netns(),
                ips: vec![at.v4().into(), at.v6().into()],
                name,
                inside,
            })
        });
        Ok(Self {
            name: record.name.clone(),
            kubeconfig: folder.kubeconfig(),
            nodes: nodes.collect::<Result<_>>()?,
            folder,
            fabric,
        })
    }
}

impl Node {
    /// A command that runs in the node's namespaces (network, mount, processes, cgroup), as if
    /// typed in a shell on the node.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.inside.command(program)
    }
}

/// Hands an image archive to the node's containerd. It is read here, so it may lie where the node
/// doesn't see it.
pub(crate) fn import(node: &Inside, archive: &Path) -> Result<()> {
    let file =
        File::open(archive).with_context(|| format!("image archive {}", archive.display()))?;
    let output = node
        .command("ctr")
        .args(["--namespace", "k8s.io", "images", "import", "-"])
        .stdin(Stdio::from(file))
        .output()
        .context("ctr (Debian's containerd)")?;
    ensure!(
        output.status.success(),
        "{} can't be imported into {}: {}",
        archive.display(),
        node.first.name,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Starts a forwarder; see [`Cluster::forward`].
pub(crate) fn forward(
    folder: &Folder,
    fabric: &Inside,
    local: SocketAddr,
    to: SocketAddr,
) -> Result<(SocketAddr, crate::process::Process)> {
    let listener = TcpListener::bind(local).with_context(|| format!("can't listen on {local}"))?;
    let listening = listener.local_addr()?;
    let name = format!("forward-{}", listening.port());
    let mut command = Command::new(host::pause()?);
    command.args(["forward", &to.to_string()]);
    let socket = Stdio::from(OwnedFd::from(listener));
    let process = fabric.start_with(&name, command, folder.log(&name)?, socket)?;
    Ok((listening, process))
}
