//! The lab as a whole: builds it, changes the document that all ztunnels read and waits until they
//! did, and takes everything away again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mesh::file::format::{Policy, Workload as Entry};
use parking_lot::Mutex;

use crate::addresses::{self, NodeNumber};
use crate::ca::{Authority, TOKEN};
use crate::document::{self, Document};
use crate::leftovers::Leftovers;
use crate::netns::Netns;
use crate::node::{self, Node};
use crate::pod::{Pod, PodBuilder};
use crate::process::Place;
use crate::sniff::Sniffer;
use crate::workload::{Program, Workload};
use crate::zds::Zds;
use crate::ztunnel::{self, Recipe, Ztunnel};
use crate::{patience, wiring};

/// The port of the certificate authority.
const CA_PORT: u16 = 15012;
/// How long ztunnels may take to read a changed document.
const UPTAKE: Duration = Duration::from_secs(10);
/// The service whose name carries the document's revision.
const REVISION: &str = "lab-revision";

/// A running lab. Clones are handles to the same one; the last one to go removes everything.
#[derive(Clone, Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Dropped in this order: processes first, traces last.
    nodes: Vec<Arc<Node>>,
    authority: Authority,
    fabric: Netns,
    program: Program,
    document: Mutex<Revised>,
    files: Vec<PathBuf>,
    outside: AtomicU8,
    services: AtomicU8,
    janitor: Mutex<Janitor>,
}

#[derive(Debug, Default)]
struct Revised {
    document: Document,
    revision: u64,
}

/// What to build.
#[must_use = "start it"]
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: u8,
    running: bool,
    binary: Option<PathBuf>,
    program: Option<Program>,
    environment: BTreeMap<String, String>,
}

impl Builder {
    /// This many nodes (2, unless said).
    pub fn nodes(mut self, count: u8) -> Self {
        self.nodes = count;
        self
    }

    /// No ztunnel yet; a test starts it.
    pub fn without_ztunnel(mut self) -> Self {
        self.running = false;
        self
    }

    /// Another program as ztunnel.
    pub fn binary(mut self, path: PathBuf) -> Self {
        self.binary = Some(path);
        self
    }

    /// Another program as the pods' workload.
    pub fn program(mut self, program: Program) -> Self {
        self.program = Some(program);
        self
    }

    /// A variable in every ztunnel's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Builds it and waits until every ztunnel is ready.
    ///
    /// # Errors
    /// When a part can't be made; the message says which and the likely reason.
    pub async fn start(self) -> Result<Lab> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let program = match self.program {
            Some(program) => program,
            None => Program::find()?,
        };
        let binary = self.binary.unwrap_or_else(ztunnel::binary);
        let traces = Leftovers::create(NUMBER.fetch_add(1, Ordering::Relaxed))?;
        let janitor = Janitor::hire(&program, traces.clone())?;
        let fabric = wiring::fabric()?;
        let authority = authority(&fabric, &traces)?;
        let numbers: Vec<NodeNumber> = (1..=self.nodes)
            .map(|number| NodeNumber::new(number).ok_or_else(|| anyhow!("a lab has 1 to 99 nodes")))
            .collect::<Result<_>>()?;
        let mut files = Vec::new();
        let mut nodes = Vec::new();
        for number in &numbers {
            let mut parts = Parts {
                fabric: &fabric,
                traces: &traces,
                authority: &authority,
                binary: &binary,
                all: &numbers,
            };
            let (node, file) = parts
                .node(*number, &self.environment)
                .with_context(|| node::name(*number))?;
            nodes.push(Arc::new(node));
            files.push(file);
        }
        let lab = Lab {
            inner: Arc::new(Inner {
                nodes,
                authority,
                fabric,
                program,
                document: Mutex::default(),
                files,
                outside: AtomicU8::new(0),
                services: AtomicU8::new(0),
                janitor: Mutex::new(janitor),
            }),
        };
        lab.change(|_| ()).await?;
        if self.running {
            lab.launch().await?;
        }
        Ok(lab)
    }
}

impl Lab {
    /// Two nodes with a ztunnel each, unless the builder is told otherwise.
    pub fn builder() -> Builder {
        Builder {
            nodes: 2,
            running: true,
            binary: None,
            program: None,
            environment: BTreeMap::new(),
        }
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
        serve(&self.inner.fabric, &self.inner.authority)
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

/// The parts that a node is made from.
struct Parts<'a> {
    fabric: &'a Netns,
    traces: &'a Leftovers,
    authority: &'a Authority,
    binary: &'a PathBuf,
    all: &'a [NodeNumber],
}

impl Parts<'_> {
    fn node(
        &mut self,
        number: NodeNumber,
        environment: &BTreeMap<String, String>,
    ) -> Result<(Node, PathBuf)> {
        let name = node::name(number);
        let netns = wiring::node(self.fabric, number, self.all)?;
        let cgroup = self.traces.subgroup(&name)?;
        let place = Place {
            netns: netns.clone(),
            cgroup: self.traces.subgroup(&format!("{name}/kubepods/ztunnel"))?,
            without: Vec::new(),
        };
        let bpffs = self.traces.bpffs(&format!("{name}-bpf"))?;
        let folder = self.traces.folder.join(&name);
        std::fs::create_dir_all(&folder)?;
        let (socket, file) = (folder.join("zds.sock"), folder.join("world.yaml"));
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut variables: BTreeMap<String, String> = [
            ("NODE_NAME", name.clone()),
            ("POD_NAME", format!("ztunnel-{name}")),
            ("POD_NAMESPACE", "istio-system".to_owned()),
            ("INSTANCE_IP", number.on_fabric().v4.to_string()),
            ("CA_ADDRESS", self.authority.url()),
            ("CA_ROOT_CA", text(&self.traces.folder.join("root.pem"))),
            ("XDS_ROOT_CA", text(&self.traces.folder.join("root.pem"))),
            ("TOKEN_PATH", text(&self.traces.folder.join("token"))),
            ("LOCAL_XDS_PATH", text(&file)),
            ("POD_SOURCE", "zds".to_owned()),
            ("INPOD_UDS", text(&socket)),
            ("CGROUP_ROOT", text(&cgroup)),
            ("BPFFS", text(&bpffs)),
            (
                "RUST_LOG",
                std::env::var("LAB_ZTUNNEL_LOG").unwrap_or_else(|_| "info".to_owned()),
            ),
            ("LOG_FORMAT", "json".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        variables.extend(environment.clone());
        let recipe = Recipe {
            binary: self.binary.clone(),
            environment: variables,
            place,
        };
        let node = Node {
            number,
            netns,
            cgroup,
            bpffs,
            zds: Zds::listen(&socket)?,
            ztunnel: Ztunnel::new(recipe),
            pods: AtomicU8::new(0),
        };
        Ok((node, file))
    }
}

fn authority(fabric: &Netns, traces: &Leftovers) -> Result<Authority> {
    let authority = Authority::create(SocketAddr::new(addresses::control().v4.into(), CA_PORT))?;
    std::fs::write(traces.folder.join("root.pem"), authority.root())?;
    std::fs::write(traces.folder.join("token"), TOKEN)?;
    serve(fabric, &authority)?;
    Ok(authority)
}

fn serve(fabric: &Netns, authority: &Authority) -> Result<()> {
    let at = SocketAddr::new(addresses::control().v4.into(), CA_PORT);
    authority.serve(
        fabric
            .listen(at)
            .with_context(|| format!("listening at {at} in the fabric"))?,
    )
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

/// A process that removes a lab's traces when the lab's own process could not: it waits for the
/// end of its stdin, which comes however that process ends.
#[derive(Debug)]
struct Janitor {
    traces: Leftovers,
    process: Option<Child>,
}

impl Janitor {
    fn hire(program: &Program, traces: Leftovers) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let (folder, cgroup) = (
            traces.folder.to_string_lossy(),
            traces.cgroup.to_string_lossy(),
        );
        let mut command = program.command(&["janitor", &folder, &cgroup]);
        // Its own process group: Ctrl-C in the terminal must not reach it.
        let process = command
            .process_group(0)
            .spawn()
            .context("starting the janitor")?;
        Ok(Self {
            traces: traces.clone(),
            process: Some(process),
        })
    }

    fn dismiss(&mut self) {
        if let Err(error) = self.traces.remove() {
            eprintln!("lab: {} leaves traces: {error:#}", self.traces.name());
        }
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            // It finds nothing to do and ends.
            let _ = process.wait();
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.dismiss();
        }
    }
}
