//! Builds a lab: the fabric, the certificate authority, nodes and what their ztunnels are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;

use crate::addresses::{self, NodeNumber};
use crate::ca::{Authority, TOKEN};
use crate::janitor::Janitor;
use crate::leftovers::Leftovers;
use crate::netns::Netns;
use crate::node::{self, Node};
use crate::process::Place;
use crate::wiring;
use crate::workload::Program;
use crate::world::{Inner, Lab};
use crate::zds::Zds;
use crate::ztunnel::{self, Recipe, Ztunnel};

/// The port of the certificate authority.
const CA_PORT: u16 = 15012;

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

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: 2,
            running: true,
            binary: None,
            program: None,
            environment: BTreeMap::new(),
        }
    }
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

/// Serves the authority at its place in the fabric.
pub(crate) fn serve(fabric: &Netns, authority: &Authority) -> Result<()> {
    let at = SocketAddr::new(addresses::control().v4.into(), CA_PORT);
    authority.serve(
        fabric
            .listen(at)
            .with_context(|| format!("listening at {at} in the fabric"))?,
    )
}
