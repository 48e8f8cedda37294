//! What only somebody on the nodes can see: processes, pins, and the rules in pods' namespaces.
//! Only for clusters of our own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::Node;

use crate::process;
use crate::stage::Stage;

/// How long a look at a node may take.
const LOOK: Duration = Duration::from_secs(20);

/// Runs a program on `node` and gives what it wrote.
///
/// # Errors
/// When it fails.
pub fn run(node: &Node, program: &str, words: &[&str]) -> Result<String> {
    let mut command = node.command(program);
    command.args(words);
    process::run(&mut command, LOOK)?.well(&format!(
        "{program} {} on {}",
        words.join(" "),
        node.name
    ))
}

/// Kills the process of a pod's first container, as an out-of-memory kill would.
///
/// # Errors
/// When the nodes can't be looked into, or the process isn't found.
pub fn kill(stage: &Stage, namespace: &str, pod: &str) -> Result<()> {
    let cluster = stage
        .made()
        .context("the nodes of this cluster can't be looked into")?;
    let found = stage.get(&["pod", pod, "-n", namespace])?;
    let at = found["spec"]["nodeName"].as_str();
    let node = cluster
        .nodes()
        .iter()
        .find(|node| Some(node.name.as_str()) == at)
        .with_context(|| format!("pod {pod} is on no node of the cluster: {at:?}"))?;
    let container = found["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .with_context(|| format!("pod {pod} has no container"))?;
    let process = process_of(node, container)?;
    run(node, "kill", &["-9", &process]).map(drop)
}

/// The process of a container on `node`, as the node numbers it; Kubernetes names the container
/// `containerd://…`.
fn process_of(node: &Node, container: &str) -> Result<String> {
    let id = container.rsplit('/').next().unwrap_or(container);
    let tasks = run(node, "ctr", &["-n", "k8s.io", "tasks", "ls"])?;
    tasks
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&id))
        .and_then(|words| words.get(1).map(|&pid| pid.to_owned()))
        .with_context(|| format!("containerd on {} runs no container {id}", node.name))
}

/// What of capture there is in one pod's network namespace: rules, routes, addresses and listeners
/// that a pod outside the mesh does not have.
///
/// # Errors
/// When the namespace can't be looked into.
pub fn inside(node: &Node, netns: &str) -> Result<Vec<String>> {
    let net = format!("--net={netns}");
    let mut found = Vec::new();
    for (words, ordinary) in [
        (
            ["ip", "rule"],
            &["lookup local", "lookup main", "lookup default"][..],
        ),
        (
            ["ip", "-6 rule"],
            &["lookup local", "lookup main", "lookup default"][..],
        ),
        (["ip", "route show table 100"], &[][..]),
        (["ip", "-6 route show table 100"], &[][..]),
        (
            ["ip", "-o address show dev lo"],
            &["127.0.0.1/8", "::1/128"][..],
        ),
    ] {
        let mut line = vec![net.as_str(), words[0]];
        line.extend(words[1].split(' '));
        let mut command = node.command("nsenter");
        command.args(&line);
        // A table that has no route is an error to ip, and just what is wanted.
        let ended = process::run(&mut command, LOOK)?;
        found.extend(
            ended
                .stdout
                .lines()
                .filter(|line| !line.trim().is_empty())
                .filter(|line| !ordinary.iter().any(|known| line.contains(known)))
                .map(|line| format!("{}: {}", words[1], line.trim())),
        );
    }
    let sockets = run(node, "nsenter", &[&net, "ss", "-Hltn"])?;
    for port in ["15001", "15006", "15008"] {
        let listener = sockets.lines().find(|line| {
            line.split_whitespace()
                .nth(3)
                .is_some_and(|at| at.ends_with(&format!(":{port}")))
        });
        found.extend(listener.map(|line| format!("listener: {line}")));
    }
    Ok(found)
}

/// The paths of the network namespaces of the pods on `node`.
///
/// # Errors
/// When the folder can't be read.
pub fn pod_namespaces(node: &Node) -> Result<Vec<String>> {
    let names = run(node, "ls", &["/run/netns"])?;
    Ok(names
        .split_whitespace()
        .map(|name| format!("/run/netns/{name}"))
        .collect())
}

/// What the kernel itself puts into a BPF file system when it is mounted.
const OF_THE_KERNEL: [&str; 2] = ["maps.debug", "progs.debug"];

/// Every file that is pinned in the BPF file system of `node`.
///
/// # Errors
/// When it can't be read.
pub fn pins(node: &Node) -> Result<Vec<String>> {
    let found = run(node, "find", &["/sys/fs/bpf", "-mindepth", "1"])?;
    let of_the_kernel = |path: &&str| OF_THE_KERNEL.iter().any(|name| path.ends_with(name));
    Ok(found
        .lines()
        .filter(|path| !of_the_kernel(path))
        .map(str::to_owned)
        .collect())
}

/// Tasks of ztunnel's image that containerd still runs on `node`.
///
/// # Errors
/// When containerd does not answer.
pub fn ztunnel_containers(node: &Node) -> Result<Vec<String>> {
    let containers = run(node, "ctr", &["-n", "k8s.io", "containers", "ls"])?;
    Ok(containers
        .lines()
        .filter(|line| line.contains("/ztunnel:"))
        .map(str::to_owned)
        .collect())
}

/// That the chart's removal left nothing on `node`.
///
/// # Errors
/// Names what is left.
pub fn is_clean(node: &Node) -> Result<()> {
    let pins = pins(node)?;
    ensure!(
        pins.is_empty(),
        "pinned on {}: {}",
        node.name,
        pins.join(", ")
    );
    let containers = ztunnel_containers(node)?;
    ensure!(
        containers.is_empty(),
        "running on {}: {}",
        node.name,
        containers.join(", ")
    );
    for netns in pod_namespaces(node)? {
        let found = inside(node, &netns)?;
        ensure!(
            found.is_empty(),
            "in {netns} on {}: {}",
            node.name,
            found.join("; ")
        );
    }
    Ok(())
}
