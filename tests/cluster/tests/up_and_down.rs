//! A cluster on this machine: two nodes, pods that reach each other in both families, and nothing
//! left afterwards, however it ended. Needs root, and the programs of Kubernetes: `cargo xtask test`
//! sees to both.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Cluster, Spec, Tools};
use nix::sys::signal::Signal;

/// What waits for a condition in a cluster on a busy machine gives up after this.
const LIMIT: Duration = Duration::from_secs(90);

/// A server on each node, a headless and a dual-stack Service: with the image that every node has.
const PODS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: server}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "culvert.local/pause:dev", args: [serve, "8080"], imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: server}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "culvert.local/pause:dev", args: [serve, "8080"], imagePullPolicy: Never}]
"#;

/// Removes the cluster also when the test fails.
struct Removed(&'static str);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(self.0, &|_| {}) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_nothing_stays_behind() {
    let name = "t-pods";
    let before = Left::now(name);
    let removed = Removed(name);
    let cluster = Cluster::up(&Spec::new(name, 2).unwrap(), &Tools::from_env(), &|line| {
        println!("{line}")
    })
    .unwrap();
    let status = cluster.status().unwrap();
    assert_eq!(
        status.nodes,
        [("node1".to_owned(), true), ("node2".to_owned(), true)]
    );
    let dead: Vec<_> = status
        .components
        .iter()
        .filter(|(_, alive)| !alive)
        .collect();
    assert!(dead.is_empty(), "{dead:?}");

    apply(&cluster, PODS);
    kubectl(
        &cluster,
        &[
            "wait",
            "--for=condition=Ready",
            "pod/one",
            "pod/two",
            "--timeout=60s",
        ],
    );
    let ips = kubectl(
        &cluster,
        &["get", "pod", "two", "-o", "jsonpath={.status.podIPs[*].ip}"],
    );
    let ips: Vec<_> = ips.split(' ').collect();
    assert_eq!(ips.len(), 2, "a pod has an address of each family: {ips:?}");
    for ip in &ips {
        let address = if ip.contains(':') {
            format!("[{ip}]:8080")
        } else {
            format!("{ip}:8080")
        };
        let answer = get(&cluster, "one", &address).unwrap();
        let from = answer.split_whitespace().nth(1).unwrap();
        assert!(answer.starts_with("two "), "{answer}");
        let own = kubectl(
            &cluster,
            &["get", "pod", "one", "-o", "jsonpath={.status.podIPs[*].ip}"],
        );
        assert!(
            own.split(' ').any(|ip| ip == from),
            "{from} is not of {own}: pods are not to be masqueraded"
        );
    }
    // The service answers from both pods, found by name, on either node.
    for pod in ["one", "two"] {
        eventually("both pods answer for the service", || {
            let answers: Vec<_> = (0..8)
                .filter_map(|_| get(&cluster, pod, "server.default.svc.cluster.local:80"))
                .collect();
            ["one ", "two "]
                .iter()
                .all(|name| answers.iter().any(|answer| answer.starts_with(name)))
        });
    }
    assert!(kubectl(&cluster, &["logs", "one"]).contains("one listens on 8080"));
    // Each node has pins and namespaces of its own.
    for node in cluster.nodes() {
        let listed = node.command("ls").arg("/run/netns").output().unwrap();
        let namespaces = String::from_utf8(listed.stdout).unwrap();
        assert!(
            namespaces.lines().any(|line| line.starts_with("cni-")),
            "{}: {namespaces}",
            node.name
        );
    }
    let local = cluster
        .forward(
            ([127, 0, 0, 1], 0).into(),
            format!("{}:8080", ips[0]).parse().unwrap(),
        )
        .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(
        &mut std::net::TcpStream::connect(local).unwrap(),
        &mut answer,
    )
    .unwrap();
    assert!(answer.starts_with("two "), "{answer}");

    drop(removed);
    assert_eq!(Left::now(name), before);
    assert!(Cluster::open(name).is_err());
}

#[test]
fn two_clusters_live_side_by_side() {
    let _removed = [Removed("t-left"), Removed("t-right")];
    let up = |name| {
        Cluster::up(&Spec::new(name, 1).unwrap(), &Tools::from_env(), &|line| {
            println!("{name}: {line}")
        })
    };
    let (left, right) = thread::scope(|scope| {
        let left = scope.spawn(|| up("t-left"));
        (left.join().unwrap().unwrap(), up("t-right").unwrap())
    });
    kubectl(&left, &["create", "namespace", "only-here"]);
    let seen = kubectl(&right, &["get", "namespaces", "-o", "name"]);
    assert!(!seen.contains("only-here"), "{seen}");
    let again = Cluster::up(
        &Spec::new("t-left", 1).unwrap(),
        &Tools::from_env(),
        &|_| {},
    )
    .unwrap_err();
    assert!(format!("{again:#}").contains("already there"), "{again:#}");
    Cluster::down("t-left", &|_| {}).unwrap();
    assert!(
        right
            .status()
            .unwrap()
            .nodes
            .iter()
            .all(|(_, ready)| *ready),
        "the other one was hurt"
    );
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    let name = "t-cut";
    let before = Left::now(name);
    let _removed = Removed(name);
    let mut child = half_made(name);
    signal(&child, Signal::SIGINT);
    assert!(!child.wait().unwrap().success());
    assert_eq!(Left::now(name), before);
}

#[test]
fn what_a_killed_making_left_is_removed_by_down() {
    let name = "t-killed";
    let before = Left::now(name);
    let _removed = Removed(name);
    let mut child = half_made(name);
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    assert_ne!(Left::now(name), before, "a killed program can't clean up");
    assert!(format!("{:#}", Cluster::open(name).unwrap_err()).contains("down"));
    Cluster::down(name, &|_| {}).unwrap();
    assert_eq!(Left::now(name), before);
    Cluster::down(name, &|_| {}).unwrap(); // nothing there: nothing to do
}

/// The command, in the middle of making a cluster.
fn half_made(name: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cluster"))
        .args(["up", "--nodes", "1", "--name", name])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let record = folder().join(name).join("record.json");
    eventually("the API server is on record", || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended before: {ended:?}");
        std::fs::read_to_string(&record).is_ok_and(|text| text.contains("kube-apiserver"))
    });
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// What a cluster could leave on the machine.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    groups: Vec<PathBuf>,
    mounts: usize,
    folder: bool,
    links: usize,
}

impl Left {
    fn now(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let hierarchies = mounts.lines().filter(|line| {
            line.split(' ')
                .nth(2)
                .is_some_and(|kind| kind.starts_with("cgroup"))
        });
        let groups = hierarchies
            .filter_map(|line| line.split(' ').nth(1))
            .map(|at| Path::new(at).join("culvert").join(name));
        Self {
            groups: groups.filter(|group| group.exists()).collect(),
            mounts: mounts.lines().filter(|line| line.contains(name)).count(),
            folder: folder().join(name).exists(),
            links: std::fs::read_dir("/sys/class/net").unwrap().count(),
        }
    }
}

fn folder() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"));
    home.join("culvert/clusters")
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn get(cluster: &Cluster, pod: &str, address: &str) -> Option<String> {
    let mut command = cluster.kubectl();
    let output = command
        .args(["exec", pod, "--", "/pause", "get", address])
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

fn kubectl(cluster: &Cluster, words: &[&str]) -> String {
    let output = cluster.kubectl().args(words).output().unwrap();
    assert!(
        output.status.success(),
        "kubectl {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn apply(cluster: &Cluster, manifest: &str) {
    let mut command = cluster.kubectl();
    let mut child = command
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), manifest.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
