//! Makes a cluster: what depends on nothing at once, everything else as soon as what it needs is there.
//!
//! ```text
//! fabric ─ etcd ─ API server ─┬─ controller-manager, scheduler
//!                             ├─ forwarder, kubeconfig, DNS
//! nodes (all at once): namespaces ─ containerd ─ images ─┴─ kubelet, kube-proxy ─ Ready
//! ```

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use std::{env, path::PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::address::{self, OfNode};
use crate::api::{self, Api};
use crate::certificate::Authority;
use crate::cgroup::Hierarchies;
use crate::cluster::{forward, import};
use crate::image::Image;
use crate::inside::{First, Inside};
use crate::node::{PAUSE_IMAGE, Place};
use crate::plane::Plane;
use crate::process::{POLL, Process};
use crate::record::{FABRIC, Folder, Record, WhenTaken};
use crate::{Progress, Spec, Tool, Tools, dns, host, interrupt, network, removal};

/// How long a component may take to come up, on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the API server is asked, each time by a kubectl that costs some CPU.
const ASK: Duration = Duration::from_millis(200);
/// Lines of a dead component's log that go into the error.
const TAIL: usize = 12;

/// Makes it, or removes what was made of it.
pub(crate) fn make(spec: &Spec, tools: &Tools, progress: Progress<'_>) -> Result<()> {
    host::check()?;
    tools.get_all(&Tool::CLUSTER, progress)?;
    tools.check_versions(progress)?;
    let _watch = interrupt::Watch::start()?;
    let name = spec.name();
    let folder = Folder::of(name)?;
    let _lock = folder.lock(WhenTaken::Fail)?;
    if let Some(record) = folder.record()? {
        let alive = record.complete && record.first.iter().all(Process::alive);
        ensure!(
            !alive,
            "the cluster {name:?} is already there: `cargo xtask cluster down --name {name}` removes it"
        );
    }
    // Of one that died with its machine, or whose making was killed: the lock says nobody is at it.
    removal::everything(&folder, name, &|_| {})?;
    let begun = Instant::now();
    let mut unmade = Unmade {
        folder: &folder,
        name,
        armed: true,
    };
    let made = Making::new(spec, tools, &folder, progress).and_then(|making| making.run());
    unmade.armed = false;
    let Err(error) = made else {
        progress(&format!(
            "the cluster {name:?} is up after {:.1} s",
            begun.elapsed().as_secs_f32()
        ));
        return Ok(());
    };
    let logs = removal::keep_logs(&folder, name);
    let removed = removal::everything(&folder, name, progress);
    let mut error = match logs {
        Ok(logs) => error.context(format!(
            "the cluster {name:?} doesn't come up; its logs are in {}",
            logs.display()
        )),
        Err(_) => error.context(format!("the cluster {name:?} doesn't come up")),
    };
    if let Err(left) = removed {
        error = error.context(format!("and can't be removed: {left:#}"));
    }
    Err(error)
}

/// Removes what was made when the making panics.
struct Unmade<'a> {
    folder: &'a Folder,
    name: &'a str,
    armed: bool,
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        if self.armed && removal::everything(self.folder, self.name, &|_| {}).is_err() {
            eprintln!("not all of the cluster {:?} could be removed", self.name);
        }
    }
}

struct Making<'a> {
    spec: &'a Spec,
    tools: &'a Tools,
    folder: &'a Folder,
    progress: Progress<'a>,
    pause: PathBuf,
    hierarchies: Hierarchies,
    authority: Authority,
    record: Mutex<Record>,
}

impl<'a> Making<'a> {
    fn new(
        spec: &'a Spec,
        tools: &'a Tools,
        folder: &'a Folder,
        progress: Progress<'a>,
    ) -> Result<Self> {
        let pki = folder.path().join("pki");
        for part in [&pki, &folder.logs()] {
            fs::create_dir_all(part).with_context(|| part.display().to_string())?;
        }
        let record = Record {
            name: spec.name().to_owned(),
            nodes: spec.nodes(),
            first: Vec::new(),
            daemons: Vec::new(),
            complete: false,
        };
        folder.save(&record)?;
        Ok(Self {
            spec,
            tools,
            folder,
            progress,
            pause: host::pause()?,
            hierarchies: Hierarchies::of_machine()?,
            authority: Authority::create(&pki)?,
            record: Mutex::new(record),
        })
    }

    fn run(&self) -> Result<()> {
        let nodes: Vec<_> = (1..=self.spec.nodes()).map(OfNode).collect();
        let names: Vec<_> = nodes.iter().map(|at| at.name()).collect();
        self.hierarchies.make(self.spec.name(), &names)?;
        let images = self.images()?;
        let fabric = self.fabric()?;
        let plane = Plane {
            tools: self.tools,
            authority: &self.authority,
            progress: self.progress,
        };
        let etcd = plane.etcd(&self.folder.path().join("etcd"))?;
        self.daemon(&fabric, "etcd", etcd)?;
        self.daemon(&fabric, "kube-apiserver", plane.kube_apiserver()?)?;
        let (fabric, images) = (&fabric, &images);
        let kubectl = self.tools.get(Tool::Kubectl, self.progress)?;
        let api = &Api::new(fabric, kubectl, &self.authority)?;
        let inside: Vec<Inside> = thread::scope(|scope| {
            let nodes: Vec<_> = nodes
                .iter()
                .map(|at| scope.spawn(move || self.node(fabric, *at, images)))
                .collect();
            let served = self.wait("the API server", LIMIT, ASK, || {
                Ok(api.ask(&["get", "--raw", "/readyz"]).is_ok())
            });
            let nodes: Result<Vec<_>> = nodes
                .into_iter()
                .map(ScopedJoinHandle::join)
                .map(joined)
                .collect();
            served.and(nodes)
        })?;
        (self.progress)("the API server answers");
        self.daemon(
            fabric,
            "kube-controller-manager",
            plane.kube_controller_manager()?,
        )?;
        self.daemon(fabric, "kube-scheduler", plane.kube_scheduler()?)?;
        for (at, node) in nodes.iter().zip(&inside) {
            let place = Place::new(self.folder, *at);
            let kubelet = place.kubelet(
                &self.tools.get(Tool::Kubelet, self.progress)?,
                &self.authority,
            );
            self.daemon(node, &format!("{}-kubelet", at.name()), kubelet)?;
            let proxy = place.kube_proxy(&self.tools.get(Tool::KubeProxy, self.progress)?);
            self.daemon(node, &format!("{}-kube-proxy", at.name()), proxy)?;
        }
        self.kubeconfig(fabric)?;
        api.apply(&dns::manifest(&names[0]))?;
        self.wait("the nodes", LIMIT, ASK, || {
            let listed = api.ask(&["get", "nodes", "-o", "json"])?;
            let ready = api::ready_nodes(&listed)?;
            Ok(ready.len() == names.len() && ready.iter().all(|(_, ready)| *ready))
        })?;
        (self.progress)(&format!("{} Ready", names.join(" and ")));
        for node in &inside {
            self.wait("the cluster's DNS", LIMIT, POLL, || dns::answers(node))?;
        }
        (self.progress)("DNS answers on every node");
        let mut record = self.record();
        record.complete = true;
        self.folder.save(&record)
    }

    fn fabric(&self) -> Result<Inside> {
        let first = First {
            name: FABRIC,
            program: &self.pause,
            log: self.folder.log(FABRIC)?,
            roots: Vec::new(),
            groups: self.hierarchies.system(self.spec.name()),
            hostname: FABRIC,
        };
        let fabric = Inside::create(first, || Ok(()))?;
        self.keep_first(&fabric)?;
        network::fabric(&fabric)?;
        (self.progress)("the network between the nodes is there");
        Ok(fabric)
    }

    /// A node up to containerd with its first images; kubelet needs the API server.
    fn node(
        &self,
        fabric: &Inside,
        at: OfNode,
        images: &[(Option<u8>, PathBuf)],
    ) -> Result<Inside> {
        let (place, name) = (Place::new(self.folder, at), at.name());
        let node = place.create(
            self.spec.name(),
            &self.hierarchies,
            &self.pause,
            self.folder.log(&name)?,
        )?;
        self.keep_first(&node)?;
        network::node(fabric, &node, at, self.spec.nodes())?;
        place.configure(&self.authority)?;
        let containerd = format!("{name}-containerd");
        self.daemon(&node, &containerd, place.containerd()?)?;
        let socket =
            || node.in_mounts(|| Ok(Path::new("/run/containerd/containerd.sock").exists()));
        self.wait(&containerd, LIMIT, POLL, socket)?;
        for (only, archive) in images {
            if only.is_none_or(|only| only == at.0) {
                import(&node, archive)?;
            }
        }
        (self.progress)(&format!("{name}: containerd runs"));
        Ok(node)
    }

    /// The archives every cluster needs, and the one node that needs each, if not all.
    fn images(&self) -> Result<Vec<(Option<u8>, PathBuf)>> {
        let coredns = self.tools.get(Tool::Coredns, self.progress)?;
        let images = [
            (None, PAUSE_IMAGE, self.pause.clone(), "/pause"),
            (Some(1), dns::IMAGE, coredns, "/coredns"),
        ];
        images
            .into_iter()
            .map(|(only, name, program, path)| {
                let archive = self.folder.path().join(format!("{}.tar", &path[1..]));
                let image = Image {
                    name: name.to_owned(),
                    files: vec![(program, path.to_owned())],
                    entrypoint: vec![path.to_owned()],
                    ..Image::default()
                };
                image.write(&archive)?;
                Ok((only, archive))
            })
            .collect()
    }

    /// The administrator's kubeconfig, for the shell of whoever asked for the cluster.
    fn kubeconfig(&self, fabric: &Inside) -> Result<()> {
        let (listening, process) = forward(
            self.folder,
            fabric,
            ([127, 0, 0, 1], 0).into(),
            address::API,
        )?;
        self.keep(process)?;
        let admin = ("culvert-admin", Some("system:masters"));
        let context = format!("culvert-{}", self.spec.name());
        let made = self
            .authority
            .kubeconfig("admin", admin, listening, &context)?;
        let path = self.folder.kubeconfig();
        fs::rename(made, &path)?;
        // Under sudo the files are root's, and the user's own kubectl has to read this one.
        let id = |name: &str| env::var(name).ok().and_then(|id| id.parse().ok());
        if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
            for path in [self.folder.path(), &path] {
                chown(path, Some(user), Some(group)).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    fn daemon(&self, inside: &Inside, name: &str, command: Command) -> Result<()> {
        interrupt::check()?;
        let process = inside.start(name, command, self.folder.log(name)?)?;
        self.keep(process)
    }

    fn keep(&self, process: Process) -> Result<()> {
        let mut record = self.record();
        record.daemons.push(process);
        self.folder.save(&record)
    }

    fn keep_first(&self, inside: &Inside) -> Result<()> {
        let mut record = self.record();
        record.first.push(inside.first.clone());
        self.folder.save(&record)
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it holds. Fails at once when any process of the cluster has ended, because then
    /// nothing that is waited for will come.
    fn wait(
        &self,
        what: &str,
        limit: Duration,
        every: Duration,
        holds: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            interrupt::check()?;
            let last = match holds() {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(error) => Some(error),
            };
            let dead = self
                .record()
                .daemons
                .iter()
                .find(|process| !process.alive())
                .cloned();
            if let Some(dead) = dead {
                bail!(
                    "{} has ended; the end of its log:\n{}",
                    dead.name,
                    self.tail(&dead.name)
                );
            }
            if Instant::now() > deadline {
                let last = last.map_or_else(String::new, |error| format!(": {error:#}"));
                bail!("{what} didn't come up within {} s{last}", limit.as_secs());
            }
            thread::sleep(every);
        }
    }

    fn tail(&self, component: &str) -> String {
        let log = fs::read_to_string(self.folder.logs().join(format!("{component}.log")))
            .unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(TAIL).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// What a thread made, or that it panicked.
pub(crate) fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|_| Err(anyhow!("a thread that makes a node panicked")))
}
