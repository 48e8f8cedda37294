//! The lab as a whole: makes its parts, changes the document that all ztunnels read and waits until they
//! did, and takes everything away again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mesh::file::format::{Policy, Workload as Entry};
use parking_lot::Mutex;

use crate::addresses;
use crate::build::{self, Builder};
use crate::ca::Authority;
use crate::document::{self, Document};
use crate::janitor::Janitor;
use crate::leftovers::Leftovers;
use crate::netns::Netns;
use crate::node::Node;
use crate::pod::{Pod, PodBuilder};
use crate::process::Place;
use crate::sniff::Sniffer;
use crate::workload::{Program, Workload};
use crate::{patience, wiring};

/// How long ztunnels may take to read a changed document.
const UPTAKE: Duration = Duration::from_secs(10);
/// The service whose name carries the document's revision.
const REVISION: &str = "lab-revision";

/// A running lab. Clones are handles to the same one; the last one to go removes everything.
#[derive(Clone, Debug)]
pub struct Lab {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    // Dropped in this order: processes first, traces last.
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) authority: Authority,
    pub(crate) fabric: Netns,
    pub(crate) program: Program,
    pub(crate) document: Mutex<Revised>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) outside: AtomicU8,
    pub(crate) services: AtomicU8,
    pub(crate) janitor: Mutex<Janitor>,
}

#[derive(Debug, Default)]
pub(crate) struct Revised {
    document: Document,
    revision: u64,
}

impl Lab {
    /// Two nodes with a ztunnel each, unless the builder is told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Two nodes with a ztunnel each.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts the ztunnel of every node and waits until they are ready.
    ///
    /// # Errors
    /// When one does not get ready.
    pub async fn launch(&self) -> Result<()> {
        for node in &self.inner.nodes {
            node.ztunnel().launch()?;
        }
        for node in &self.inner.nodes {
            node.ztunnel().ready().await.with_context(|| node.name())?;
        }
        Ok(())
    }

    /// Node `number`, counted from 1.
    ///
    /// # Panics
    /// When the lab has no such node.
    #[must_use]
    pub fn node(&self, number: usize) -> &Arc<Node> {
        &self.inner.nodes[number - 1]
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.inner.nodes
    }

    /// The certificate authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// Starts the certificate authority again after [`Authority::stop`].
    ///
    /// # Errors
    /// When its port is taken.
    pub fn start_authority(&self) -> Result<()> {
        build::serve(&self.inner.fabric, &self.inner.authority)
    }

    /// A pod to be, on the first node unless said.
    pub fn pod(&self, name: &str) -> PodBuilder {
        PodBuilder::new(self.clone(), Arc::clone(self.node(1)), name)
    }

    /// A machine outside the mesh, on the fabric, and its address.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn machine(&self, name: &str) -> Result<(Workload, addresses::Pair)> {
        let index = self.inner.outside.fetch_add(1, Ordering::Relaxed);
        let numbers: Vec<_> = self.inner.nodes.iter().map(|node| node.number).collect();
        let netns = wiring::outside(&self.inner.fabric, index, &numbers)?;
        let cgroup = self.traces().subgroup(&format!("outside{index}"))?;
        let place = Place {
            netns,
            cgroup,
            without: Vec::new(),
        };
        Ok((
            Workload::start(name, &self.inner.program, &place)?,
            addresses::outside(index),
        ))
    }

    /// A service in `default` with virtual addresses and these pods as endpoints.
    ///
    /// # Errors
    /// When a ztunnel does not take up the change.
    pub async fn service(
        &self,
        name: &str,
        ports: &[(u16, u16)],
        endpoints: &[&Pod],
    ) -> Result<addresses::Pair> {
        let addresses = addresses::service(self.inner.services.fetch_add(1, Ordering::Relaxed));
        let service = document::service(name, "default", addresses, ports);
        let uids: Vec<String> = endpoints.iter().map(|pod| pod.uid().to_owned()).collect();
        self.change(move |document| {
            let key = format!("{}/{}", service.namespace, service.hostname);
            for uid in &uids {
                if let Some(workload) = document.workloads.get_mut(uid) {
                    workload
                        .services
                        .insert(key.clone(), document::ports(ports));
                }
            }
            document.services.insert(service.hostname.clone(), service);
        })
        .await?;
        Ok(addresses)
    }

    /// Adds a policy, or replaces the one of the same name, and waits until it is in force.
    ///
    /// # Errors
    /// When a ztunnel does not take up the change.
    pub async fn policy(&self, policy: Policy) -> Result<()> {
        self.change(|document| {
            document
                .policies
                .insert(format!("{}/{}", policy.namespace, policy.name), policy);
        })
        .await
    }

    /// Removes every policy.
    ///
    /// # Errors
    /// When a ztunnel does not take up the change.
    pub async fn no_policies(&self) -> Result<()> {
        self.change(|document| {
            document.policies.clear();
            document.raw_policies.clear();
        })
        .await
    }

    /// Changes the document and waits until every ztunnel that runs has taken it up.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn change(&self, change: impl FnOnce(&mut Document)) -> Result<()> {
        let revision = self.offer(change)?;
        for node in &self.inner.nodes {
            self.taken_up(node, revision).await?;
        }
        Ok(())
    }

    /// Changes the document without waiting, and gives its revision: each has a service of its own
    /// name, which ztunnels then show at their admin port.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn offer(&self, change: impl FnOnce(&mut Document)) -> Result<u64> {
        let mut revised = self.inner.document.lock();
        change(&mut revised.document);
        let before = revision_host(revised.revision);
        revised.document.services.remove(&before);
        revised.revision += 1;
        let host = revision_host(revised.revision);
        let mut service =
            document::service(REVISION, "lab", addresses::service(u8::MAX), &[(80, 80)]);
        service.hostname.clone_from(&host);
        service.addresses.clear();
        revised.document.services.insert(host, service);
        for file in &self.inner.files {
            revised.document.write(file)?;
        }
        Ok(revised.revision)
    }

    /// Captures what crosses the fabric, from now on.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn sniff(&self) -> Result<Sniffer> {
        Sniffer::start(&self.inner.fabric)
    }

    pub(crate) fn program(&self) -> &Program {
        &self.inner.program
    }

    pub(crate) async fn add_workload(&self, entry: Entry) -> Result<()> {
        self.change(|document| {
            document.workloads.insert(entry.uid.clone(), entry);
        })
        .await
    }

    /// What the lab has on the machine beside processes and namespaces.
    #[must_use]
    pub fn traces(&self) -> Leftovers {
        self.inner.janitor.lock().traces.clone()
    }

    async fn taken_up(&self, node: &Arc<Node>, revision: u64) -> Result<()> {
        let what = format!(
            "{} to take up revision {revision} of the document",
            node.name()
        );
        patience::some(&what, UPTAKE, async || {
            let node = Arc::clone(node);
            let done = tokio::task::spawn_blocking(move || {
                // A ztunnel that does not run, or waits for its first sync, will read the newest file.
                !node.ztunnel().is_ready()
                    || shown_revision(&node).is_some_and(|shown| shown >= revision)
            });
            done.await.is_ok_and(|done| done).then_some(())
        })
        .await
        .with_context(|| format!("its log:\n{}", node.ztunnel().log().tail(20)))
    }
}

/// The revision of the document that a ztunnel shows; a later one may have come in between.
fn shown_revision(node: &Node) -> Option<u64> {
    let dump = node.ztunnel().admin("GET", "/config_dump").ok()?.body;
    let digits = dump.split(&format!("{REVISION}-")).nth(1)?;
    digits
        .split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn revision_host(revision: u64) -> String {
    format!("{REVISION}-{revision}.lab.svc.cluster.local")
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!(
                    "--- the end of the log of {}'s ztunnel ---\n{}",
                    node.name(),
                    node.ztunnel().log().tail(60)
                );
            }
        }
        self.janitor.lock().dismiss();
    }
}
