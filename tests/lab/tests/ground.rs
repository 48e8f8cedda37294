//! The lab's own ground, without any ztunnel: what later tests claim to be the mesh's doing must
//! not be the lab's.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::agent::orders::Direction;
use lab::pod::PodBuilder;
use lab::{End, Lab, Pod, Verdict};

const PORT: u16 = 8080;

/// Two nodes without a ztunnel; `client` on the first, `server` on the second.
struct Ground {
    lab: Lab,
    client: Pod,
    server: Pod,
}

impl Ground {
    async fn start() -> Self {
        let lab = Lab::builder().without_ztunnel().start().await.unwrap();
        let (client, server) = tokio::try_join!(
            outside(&lab, "client", 1).start(),
            outside(&lab, "server", 2).serving(PORT).start(),
        )
        .unwrap();
        Self {
            lab,
            client,
            server,
        }
    }
}

fn outside(lab: &Lab, name: &str, node: usize) -> PodBuilder {
    lab.pod(name).on(lab.node(node)).outside_the_mesh()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_reach_each_other_over_both_families_and_keep_their_addresses() {
    let Ground {
        lab,
        client,
        server,
    } = Ground::start().await;
    let neighbour = outside(&lab, "neighbour", 2).start().await.unwrap();
    for from in [&client, &neighbour] {
        let verdict = from.get(server.at(PORT)).await;
        assert!(
            verdict
                .answer()
                .unwrap()
                .starts_with(&format!("server sees {}:", from.ip())),
            "{verdict}"
        );
        let verdict = from.get(server.at_v6(PORT)).await;
        assert!(
            verdict
                .answer()
                .unwrap()
                .contains(&format!("[{}]", from.addresses().v6)),
            "{verdict}"
        );
        assert!(from.get(server.at(PORT)).mapped().await.answer().is_some());
    }
    assert_eq!(client.get(server.at(81)).await, Verdict::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_sees_what_crosses_the_fabric_and_only_that() {
    let Ground {
        lab,
        client,
        server,
    } = Ground::start().await;
    let neighbour = outside(&lab, "neighbour", 2).start().await.unwrap();
    let sniffer = lab.sniff().unwrap();
    assert!(
        client
            .get(server.at(PORT))
            .marked("across-the-fabric")
            .await
            .answer()
            .is_some()
    );
    assert!(
        neighbour
            .get(server.at(PORT))
            .marked("within-the-node")
            .await
            .answer()
            .is_some()
    );
    let sniffed = sniffer.stop().unwrap();
    assert!(sniffed.sees("across-the-fabric"));
    assert!(!sniffed.sees("within-the-node"));
    assert_eq!(sniffed.ports().into_iter().collect::<Vec<_>>(), [PORT]);
    assert!(!sniffed.begins_with_tls(PORT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_holders_and_ends_work_without_a_mesh() {
    let Ground {
        lab: _lab,
        client,
        server,
    } = Ground::start().await;
    for direction in [
        Direction::Up,
        Direction::Down,
        Direction::Both,
        Direction::AfterServersEnd,
    ] {
        let done = client
            .transfer(server.at(PORT), direction, 3_000_001, "sized")
            .await
            .unwrap();
        assert!(
            done.intact && done.bytes == 3_000_001,
            "{direction:?}: {done:?}"
        );
    }
    let held = client.open(server.at(PORT), "held").await.unwrap();
    assert_eq!(
        held.say("hello").await,
        Verdict::Answered("hello".to_owned())
    );
    assert_eq!(held.finish().await.unwrap(), End::Finished);
    let held = client.open(server.at(PORT), "cut").await.unwrap();
    held.reset().await.unwrap();
    let seen = lab::patience::some(
        "the server to see the reset",
        Duration::from_secs(5),
        async || server.ended("cut").await.unwrap().first().cloned(),
    );
    assert_eq!(seen.await.unwrap().end, End::Reset);
    let tally = client.get(server.at(PORT)).times(500).await.unwrap();
    assert_eq!((tally.answered, tally.example), (500, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_outside_is_reached_and_a_silent_one_times_out() {
    let lab = Lab::builder()
        .without_ztunnel()
        .nodes(1)
        .start()
        .await
        .unwrap();
    let client = lab.pod("client").outside_the_mesh().start().await.unwrap();
    let (machine, addresses) = lab.machine("machine").unwrap();
    machine.serve(PORT).await.unwrap();
    for address in addresses.both() {
        let verdict = client.get((address, 8080).into()).await;
        assert!(verdict.answer().is_some(), "{verdict}");
    }
    lab.node(1).unplug().unwrap();
    let begun = Instant::now();
    let verdict = client
        .get((addresses.v4, 8080).into())
        .within(Duration::from_millis(300))
        .await;
    assert!(verdict.answer().is_none());
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_when_a_lab_goes() {
    let lab = Lab::builder().without_ztunnel().start().await.unwrap();
    let client = lab.pod("client").outside_the_mesh().start().await.unwrap();
    let pid = client.pid();
    let traces = lab.traces();
    assert!(traces.folder.is_dir() && traces.cgroup.is_dir());
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop((client, lab));
    assert!(!traces.folder.exists() && !traces.cgroup.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&traces.name()));
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let lab = Lab::builder().without_ztunnel().start().await.unwrap();
    let client = lab.pod("client").outside_the_mesh().start().await.unwrap();
    let traces = lab.traces();
    println!(
        "{STANDS}{} {} {}",
        traces.folder.display(),
        traces.cgroup.display(),
        client.pid()
    );
    std::future::pending::<()>().await;
}

const VICTIM: &str = "LAB_VICTIM";
const STANDS: &str = "the lab stands: ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_when_the_process_is_killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let line = lines
        .find_map(|line| line.split(STANDS).nth(1).map(str::to_owned))
        .unwrap();
    let mut words = line.split(' ');
    let (folder, cgroup, pid) = (
        words.next().unwrap(),
        words.next().unwrap(),
        words.next().unwrap(),
    );
    let process = format!("/proc/{pid}");
    assert!(
        [folder, cgroup, &process]
            .iter()
            .all(|path| Path::new(path).exists()),
        "{line}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = || {
        [folder, cgroup, &process]
            .iter()
            .all(|path| !Path::new(path).exists())
    };
    lab::patience::until(
        "the janitor to remove everything",
        Duration::from_secs(10),
        gone,
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redirection_for_a_peers_ztunnel_leads_to_its_ports() {
    let lab = Lab::builder()
        .without_ztunnel()
        .nodes(1)
        .start()
        .await
        .unwrap();
    let pod = lab.pod("pod").outside_the_mesh().start().await.unwrap();
    let other = lab
        .pod("other")
        .outside_the_mesh()
        .serving(PORT)
        .start()
        .await
        .unwrap();
    let (out, into, tunnel) = (15001, 15006, 15008);
    for port in [out, into, tunnel] {
        pod.serve(port).await.unwrap();
    }
    lab::bench::istio::redirect(pod.netns()).unwrap();
    for (at, port) in [
        (pod.at(PORT), into),
        (pod.at_v6(PORT), into),
        (pod.at(tunnel), tunnel),
    ] {
        let verdict = other.get(at).await;
        let reached = verdict
            .answer()
            .is_some_and(|text| text.ends_with(&format!(":{port}")));
        assert!(reached, "from outside to {at}: {verdict}");
    }
    for at in [other.at(PORT), other.at_v6(PORT)] {
        let verdict = pod.get(at).await;
        let reached = verdict
            .answer()
            .is_some_and(|text| text.ends_with(&format!(":{out}")));
        assert!(reached, "from the pod to {at}: {verdict}");
    }
}
