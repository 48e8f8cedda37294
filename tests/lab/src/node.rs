//! A node: a namespace with a place on the fabric, a cgroup subtree, a bpffs, a ZDS server and a
//! ztunnel. Pods are made on it by [`crate::Lab`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

use crate::addresses::{NodeNumber, Pair};
use crate::links::{self, Step};
use crate::netns::Netns;
use crate::process::Place;
use crate::workload::{Program, Workload};
use crate::zds::Zds;
use crate::ztunnel::Ztunnel;

/// One node of a lab.
#[derive(Debug)]
pub struct Node {
    pub(crate) number: NodeNumber,
    pub(crate) netns: Netns,
    pub(crate) cgroup: PathBuf,
    pub(crate) bpffs: PathBuf,
    pub(crate) zds: Zds,
    pub(crate) ztunnel: Ztunnel,
    pub(crate) pods: AtomicU8,
}

impl Node {
    /// `node-1`, as workloads name it.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.number)
    }

    /// Its addresses on the fabric.
    #[must_use]
    pub fn addresses(&self) -> Pair {
        self.number.on_fabric()
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its ztunnel.
    #[must_use]
    pub fn ztunnel(&self) -> &Ztunnel {
        &self.ztunnel
    }

    /// Its agent's side of ZDS.
    #[must_use]
    pub fn zds(&self) -> &Zds {
        &self.zds
    }

    /// Where its ztunnel pins programs.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.bpffs.join("culvert")
    }

    /// A process of the node itself, such as the kubelet: in the node's namespace and cgroup, in no pod.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn host_process(&self, name: &str) -> Result<Workload> {
        let cgroup = self.cgroup.join(format!("host-{name}"));
        std::fs::create_dir_all(&cgroup)?;
        Workload::start(
            name,
            &Program::find()?,
            &Place {
                netns: self.netns.clone(),
                cgroup,
                without: Vec::new(),
            },
        )
    }

    /// Cuts the node off the fabric.
    ///
    /// # Errors
    /// When the link is gone.
    pub fn unplug(&self) -> Result<()> {
        links::configure(&self.netns, vec![Step::Down("eth0".to_owned())])
    }
}

/// The name of a node by number.
#[must_use]
pub(crate) fn name(number: NodeNumber) -> String {
    format!("node-{}", number.get())
}

impl Node {
    pub(crate) fn next_pod(&self) -> u8 {
        self.pods.fetch_add(1, Ordering::Relaxed)
    }
}
