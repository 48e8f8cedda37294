//! A node with pods, as namespaces: `world.pod("a")`, `pod.call("198.51.100.7:443")`. Everything is
//! named `cvcap-PID-…` and removed when the world is dropped. Worlds do not see each other, so the
//! tests may run side by side.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::runtime::Runtime;
use ztunnel::capture::{Capture, Config, From, Listener, Netns, PodNetns, PodSockets};

use crate::pod::{Answer, Pod};

/// Longer than anything here takes, shorter than a person waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A node: its namespace has a bridge, and the pods hang on it.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) config: Config,
    runtime: Runtime,
    folder: tempfile::TempDir,
    kubepods: PathBuf,
    pods: AtomicU8,
    /// Dropped last: what is in it must be gone.
    _cgroup: Cgroup,
}

impl World {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces and load kernel programs: run them as root, \
             for example with `cargo xtask test`"
        );
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cvcap-{}-{number}", process::id());
        let folder = tempfile::Builder::new().prefix(&name).tempdir().unwrap();
        let none: Option<&str> = None;
        mount(
            Some("bpf"),
            folder.path(),
            Some("bpf"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        let cgroup = Cgroup::enter();
        let kubepods = cgroup.root.join(format!("kubepods-{number}"));
        fs::create_dir(&kubepods).unwrap();

        let node = format!("{name}-node");
        ip(&format!("netns add {node}"));
        for command in [
            "link set lo up",
            "link add br0 type bridge forward_delay 0",
            "addr add 10.77.0.1/24 dev br0",
            "-6 addr add fd77::1/64 dev br0 nodad",
            "link set br0 up",
        ] {
            ip(&format!("-n {node} {command}"));
        }
        let config = Config {
            cgroup_root: Some(cgroup.root.clone()),
            bpffs: folder.path().to_owned(),
            proc_sys_net: "/proc/sys/net".into(),
            host_netns: Some(format!("/run/netns/{node}").into()),
            kubepods: Some(kubepods.clone()),
            netns_dirs: vec!["/run/netns".into()],
        };
        Self {
            name,
            config,
            runtime: Runtime::new().unwrap(),
            folder,
            kubepods,
            pods: AtomicU8::new(1),
            _cgroup: cgroup,
        }
    }

    /// Starts ztunnel's capture, in the place of one that is there.
    pub(crate) fn capture(&self) -> Capture {
        Capture::start(self.config.clone()).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// A new pod on the node's bridge.
    pub(crate) fn pod(&self, name: &str) -> Pod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        let netns = format!("{}-{name}", self.name);
        let node = format!("{}-node", self.name);
        ip(&format!("netns add {netns}"));
        ip(&format!(
            "-n {node} link add name pod-{name} type veth peer name eth0 netns {netns}"
        ));
        ip(&format!("-n {node} link set dev pod-{name} master br0 up"));
        for command in [
            "link set lo up".into(),
            format!("addr add 10.77.0.{number}/24 dev eth0"),
            format!("-6 addr add fd77::{number}/64 dev eth0 nodad"),
            "link set eth0 up".into(),
            "route add default via 10.77.0.1".into(),
            "-6 route add default via fd77::1".into(),
        ] {
            ip(&format!("-n {netns} {command}"));
        }
        Pod {
            uid: format!("uid-{name}"),
            netns: Path::new("/run/netns").join(netns),
            v4: [10, 77, 0, number].into(),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// The node itself, as if it were a pod.
    pub(crate) fn node(&self) -> Pod {
        Pod {
            uid: "node".into(),
            netns: format!("/run/netns/{}-node", self.name).into(),
            v4: [10, 77, 0, 1].into(),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    pub(crate) fn enroll(&self, capture: &Capture, pod: &Pod) -> PodSockets {
        self.try_enroll(capture, pod)
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub(crate) fn try_enroll(
        &self,
        capture: &Capture,
        pod: &Pod,
    ) -> Result<PodSockets, ztunnel::capture::Error> {
        let _guard = self.runtime.enter();
        capture.enroll(&pod.uid, Netns(File::open(&pod.netns).unwrap().into()))
    }

    /// Answers everything that comes to a pod's listeners with one line. Ends with the world, or
    /// when the returned handles are aborted.
    pub(crate) fn answer(&self, sockets: PodSockets) -> Vec<tokio::task::JoinHandle<()>> {
        let PodSockets {
            outbound,
            inbound,
            hbone,
            netns,
        } = sockets;
        let answer = |name: &'static str, listener: Listener, netns: PodNetns| {
            self.runtime.spawn(async move {
                loop {
                    let mut captured = listener.accept().await.unwrap();
                    let (client, original) = (captured.client.get(), captured.original.get());
                    let line = format!("{name} from {} to {original}\n", client.ip());
                    let _ = captured.stream.write_all(line.as_bytes()).await;
                    let _ = &netns;
                }
            })
        };
        vec![
            answer("outbound", outbound, netns.clone()),
            answer("inbound", inbound, netns.clone()),
            answer("hbone", hbone, netns),
        ]
    }

    /// Passes everything that comes to a pod on to its application, under the client's address.
    pub(crate) fn relay(&self, inbound: Listener, netns: PodNetns) -> tokio::task::JoinHandle<()> {
        self.runtime.spawn(async move {
            loop {
                let captured = inbound.accept().await.unwrap();
                let netns = netns.clone();
                tokio::spawn(async move {
                    let mut client = captured.stream;
                    let from = From::Client(captured.client.get());
                    match netns.connect(captured.original.get(), from).await {
                        Ok(mut app) => drop(copy_bidirectional(&mut client, &mut app).await),
                        Err(_) => client.set_zero_linger().unwrap(),
                    }
                });
            }
        })
    }

    /// A connection that ztunnel opens in the pod's namespace.
    pub(crate) fn connect(
        &self,
        netns: &PodNetns,
        to: SocketAddr,
        from: From,
    ) -> io::Result<Answer> {
        let connected = self.runtime.block_on(netns.connect(to, from))?.into_std()?;
        connected.set_nonblocking(false)?;
        Answer::read(connected)
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// What is counted under this reason.
    pub(crate) fn count(&self, capture: &Capture, reason: &str) -> u64 {
        let counters = capture.counters();
        let counter = counters.iter().find(|counter| counter.reason == reason);
        counter
            .unwrap_or_else(|| panic!("no reason {reason}"))
            .value
    }

    /// Runs `bash -c script` as a process of a pod: below `kubepods`, in this network namespace.
    pub(crate) fn in_kubepods(&self, netns: &Path, script: &str) -> String {
        let group = self.kubepods.join("pod");
        fs::create_dir_all(&group).unwrap();
        let enter = format!(
            "echo $$ > {}/cgroup.procs && exec nsenter --net={} bash -c '{script}'",
            group.display(),
            netns.display()
        );
        let output = Command::new("bash").arg("-c").arg(enter).output().unwrap();
        let _ = fs::remove_dir(group);
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    /// What is pinned, anywhere below our bpffs.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), found),
                    false => found.push(entry.path()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.folder.path().join("culvert"), &mut found);
        found
    }

    /// The pin whose path ends so.
    pub(crate) fn pin(&self, end: &str) -> PathBuf {
        let pins = self.pins();
        let pin = pins.iter().find(|pin| pin.to_string_lossy().contains(end));
        pin.unwrap_or_else(|| panic!("no pin {end} in {pins:?}"))
            .clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{}-", self.name)) {
                let _ = Command::new("ip").args(["netns", "del", &name]).status();
            }
        }
        let _ = fs::remove_dir(&self.kubepods);
    }
}

/// Waits until something is true.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_true() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        thread::yield_now();
    }
}

/// An error with its causes, as `main` prints it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    // A routing table that was never used is none.
    let fine = output.status.success() || error.contains("FIB table does not exist");
    assert!(fine, "ip {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// This process's own cgroup2 folder: the root that is attached to. The process itself, which
/// plays ztunnel, applications and kubelet, lives in a folder below while any world exists.
struct Cgroup {
    root: PathBuf,
}

impl Cgroup {
    fn enter() -> Self {
        let mut worlds = WORLDS.lock().unwrap();
        let mount = cgroup2_mount();
        let root = mount.join(format!("cvcap-{}", process::id()));
        if *worlds == 0 {
            remove_stale(&mount);
            let own = root.join("ztunnel");
            fs::create_dir_all(&own).unwrap();
            fs::write(own.join("cgroup.procs"), process::id().to_string()).unwrap();
        }
        *worlds += 1;
        Self { root }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut worlds = WORLDS.lock().unwrap();
        *worlds -= 1;
        if *worlds == 0 {
            let _ = fs::write(
                cgroup2_mount().join("cgroup.procs"),
                process::id().to_string(),
            );
            remove_cgroup(&self.root);
        }
    }
}

/// How many worlds there are in this process.
static WORLDS: Mutex<u32> = Mutex::new(0);

fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" cgroup2 "));
    let mount = mount.expect("a cgroup2 mount");
    mount.split(' ').nth(1).unwrap().into()
}

/// Removes what test processes left that were killed.
fn remove_stale(mount: &Path) {
    let is_stale = |name: &str| {
        let rest = name.strip_prefix("cvcap-")?;
        let pid = rest.split('-').next()?;
        (!Path::new("/proc").join(pid).exists()).then_some(())
    };
    for entry in fs::read_dir(mount).unwrap().flatten() {
        if is_stale(&entry.file_name().to_string_lossy()).is_some() {
            remove_cgroup(&entry.path());
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_stale(&name).is_some() {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn remove_cgroup(folder: &Path) {
    for below in fs::read_dir(folder).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&below.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
