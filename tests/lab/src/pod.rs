//! A pod: a namespace on a node, a workload in it, an entry in the document, and, once enrolled,
//! an announcement over ZDS. Derefs to its [`Workload`], so a test says `client.get(…)`.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use anyhow::{Context, Result};
use mesh::file::format::{TunnelProtocol, Workload as Entry, WorkloadType};

use crate::Lab;
use crate::addresses::Pair;
use crate::netns::Netns;
use crate::node::Node;
use crate::process::{Place, Process};
use crate::wiring;
use crate::workload::Workload;
use crate::zds::Announced;

/// The trust domain of every lab.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// A pod that runs. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Pod {
    workload: Workload,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lab: Lab,
    node: Arc<Node>,
    place: Place,
    addresses: Pair,
    entry: Entry,
}

impl Deref for Pod {
    type Target = Workload;

    fn deref(&self) -> &Workload {
        &self.workload
    }
}

impl Pod {
    /// Where its port is over IPv4.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }

    /// Where its port is over IPv6.
    #[must_use]
    pub fn at_v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.inner.addresses.v6), port)
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.inner.addresses.v4)
    }

    /// Both addresses.
    #[must_use]
    pub fn addresses(&self) -> Pair {
        self.inner.addresses
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.inner.place.netns
    }

    /// Its uid in the document and over ZDS.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.inner.entry.uid
    }

    /// Its SPIFFE identity.
    #[must_use]
    pub fn identity(&self) -> String {
        let entry = &self.inner.entry;
        format!(
            "spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}",
            entry.namespace, entry.service_account
        )
    }

    /// Another process in the pod, such as a container that was started again.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn another_process(&self) -> Result<Workload> {
        Workload::start(
            &self.inner.entry.name,
            self.inner.lab.program(),
            &self.inner.place,
        )
    }

    /// Another program in the pod, in its namespace and cgroup.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run(&self, command: std::process::Command) -> Result<Process> {
        Process::start(command, &self.inner.place)
    }

    /// Puts the pod into the mesh: captured first, then announced as reachable over HBONE.
    ///
    /// # Errors
    /// When ztunnel refuses it or does not take up the change.
    pub async fn enroll(&self) -> Result<()> {
        self.capture().await?;
        self.speak(TunnelProtocol::Hbone).await
    }

    /// Takes it out: peers stop using HBONE first, then capture ends.
    ///
    /// # Errors
    /// When ztunnel refuses or does not take up the change.
    pub async fn release(&self) -> Result<()> {
        self.speak(TunnelProtocol::None).await?;
        let (node, uid) = (Arc::clone(&self.inner.node), self.uid().to_owned());
        tokio::task::spawn_blocking(move || node.zds.remove(&uid)).await?
    }

    /// Only announces it over ZDS.
    ///
    /// # Errors
    /// The error that ztunnel acknowledged with.
    pub async fn capture(&self) -> Result<()> {
        let (node, uid) = (Arc::clone(&self.inner.node), self.uid().to_owned());
        let announced = Announced {
            name: self.inner.entry.name.clone(),
            namespace: self.inner.entry.namespace.clone(),
            service_account: self.inner.entry.service_account.clone(),
            netns: self.inner.place.netns.clone(),
        };
        tokio::task::spawn_blocking(move || node.zds.add(&uid, announced))
            .await?
            .with_context(|| format!("enrolling {}", self.uid()))
    }

    /// Only changes how peers reach it.
    ///
    /// # Errors
    /// When a ztunnel does not take up the change.
    pub async fn speak(&self, protocol: TunnelProtocol) -> Result<()> {
        let uid = self.uid().to_owned();
        self.inner
            .lab
            .change(move |document| {
                if let Some(entry) = document.workloads.get_mut(&uid) {
                    entry.tunnel_protocol = protocol;
                }
            })
            .await
    }
}

/// A pod to be; [`PodBuilder::start`] makes it.
#[must_use = "start it"]
#[derive(Debug)]
pub struct PodBuilder {
    lab: Lab,
    node: Arc<Node>,
    name: String,
    namespace: String,
    service_account: String,
    enrolled: bool,
    serves: Vec<u16>,
}

impl PodBuilder {
    pub(crate) fn new(lab: Lab, node: Arc<Node>, name: &str) -> Self {
        Self {
            lab,
            node,
            name: name.to_owned(),
            namespace: "default".to_owned(),
            service_account: name.to_owned(),
            enrolled: true,
            serves: Vec::new(),
        }
    }

    /// On this node (the first, unless said).
    pub fn on(mut self, node: &Arc<Node>) -> Self {
        self.node = Arc::clone(node);
        self
    }

    /// With this identity (namespace `default` and the pod's name, unless said).
    pub fn identity(mut self, namespace: &str, service_account: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        service_account.clone_into(&mut self.service_account);
        self
    }

    /// Not in the mesh, until [`Pod::enroll`].
    pub fn outside_the_mesh(mut self) -> Self {
        self.enrolled = false;
        self
    }

    /// Serving on this port from the start.
    pub fn serving(mut self, port: u16) -> Self {
        self.serves.push(port);
        self
    }

    /// Makes it, starts its workload, and enrols it unless it shall stay outside.
    ///
    /// # Errors
    /// When something of it can't be made; the message says what.
    pub async fn start(self) -> Result<Pod> {
        let index = self.node.next_pod();
        let addresses = self.node.number.pod(index);
        let netns = wiring::pod(&self.node.netns, self.node.number, index)
            .with_context(|| format!("making the pod {}", self.name))?;
        let cgroup = self
            .node
            .cgroup
            .join(format!("kubepods/pod{index}-{}", self.name));
        std::fs::create_dir_all(&cgroup)?;
        let place = Place {
            netns,
            cgroup,
            without: Vec::new(),
        };
        let workload = Workload::start(&self.name, self.lab.program(), &place)?;
        let entry = Entry {
            uid: format!("Kubernetes//Pod/{}/{}", self.namespace, self.name),
            name: self.name.clone(),
            namespace: self.namespace,
            service_account: self.service_account,
            addresses: addresses.both().to_vec(),
            node: self.node.name(),
            workload_type: WorkloadType::Deployment,
            workload_name: self.name.clone(),
            canonical_name: self.name,
            canonical_revision: "v1".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            ..Entry::default()
        };
        for port in self.serves {
            workload.serve(port).await?;
        }
        let inner = Inner {
            lab: self.lab.clone(),
            node: self.node,
            place,
            addresses,
            entry: entry.clone(),
        };
        let pod = Pod {
            workload,
            inner: Arc::new(inner),
        };
        // One change of the document instead of two, in the order of an enrolment: captured first.
        if self.enrolled {
            pod.capture().await?;
            self.lab
                .add_workload(Entry {
                    tunnel_protocol: TunnelProtocol::Hbone,
                    ..entry
                })
                .await?;
        } else {
            self.lab.add_workload(entry).await?;
        }
        Ok(pod)
    }
}
