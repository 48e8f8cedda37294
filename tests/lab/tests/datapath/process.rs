//! ztunnel as a program: what it says when it can't start, and what it leaves when it is removed.

use std::path::Path;
use std::time::Duration;

use lab::ztunnel::Recipe;
use lab::{Lab, patience};

use crate::story::{PORT, Pair, SOON};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;
const LIMIT: Duration = Duration::from_secs(10);

/// Starts it and expects it to fail with exactly one line of complaint that has these words.
async fn fails_clearly(recipe: &Recipe, arguments: &[&str], words: &[&str]) {
    let (status, said) = recipe.run(arguments, LIMIT).await.unwrap();
    assert!(!status.success(), "it must not succeed; it said:\n{said}");
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("\"INFO\"") && !line.is_empty())
        .collect();
    assert_eq!(errors.len(), 1, "one clear line, not:\n{said}");
    for word in words {
        assert!(
            errors[0].contains(word),
            "{word:?} is not in {:?}",
            errors[0]
        );
    }
}

async fn idle() -> (Lab, Recipe) {
    let lab = Lab::builder()
        .nodes(1)
        .without_ztunnel()
        .start()
        .await
        .unwrap();
    let recipe = lab.node(1).ztunnel().recipe();
    (lab, recipe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_flag_or_variable_is_one_clear_line() {
    let (_lab, recipe) = idle().await;
    fails_clearly(&recipe, &["--no-such-flag"], &["--no-such-flag"]).await;
    fails_clearly(
        &recipe.clone().with("POD_SOURCE", "carrier-pigeon"),
        &[],
        &["carrier-pigeon"],
    )
    .await;
    fails_clearly(
        &recipe.clone().with("TRUST_DOMAIN", "not a domain"),
        &[],
        &["not a domain"],
    )
    .await;
    fails_clearly(&recipe.with("STATS_ADDR", "nowhere"), &[], &["nowhere"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_cgroup2_or_bpffs_is_one_clear_line() {
    let (lab, recipe) = idle().await;
    let folder = lab.traces().folder;
    let nowhere = folder.join("nowhere").to_string_lossy().into_owned();
    fails_clearly(
        &recipe.clone().with("CGROUP_ROOT", nowhere.as_str()),
        &[],
        &["cgroup", "nowhere"],
    )
    .await;
    let ordinary = folder.to_string_lossy().into_owned();
    fails_clearly(
        &recipe.with("BPFFS", ordinary.as_str()),
        &[],
        &["bpf", &ordinary],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_capability_is_one_clear_line() {
    let (_lab, recipe) = idle().await;
    for (number, name) in [
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CAP_BPF, "CAP_BPF"),
    ] {
        fails_clearly(&recipe.clone().without_capability(number), &[], &[name]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ztunnel_keeps_only_the_capabilities_that_it_needs() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let pid = lab.node(1).ztunnel().pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    let effective = u64::from_str_radix(effective, 16).unwrap();
    assert_eq!(
        effective,
        1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN | 1 << CAP_BPF,
        "{effective:x}"
    );
    assert!(client.get(server.at(PORT)).await.answer().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninstall_leaves_no_pin_and_no_rule_and_traffic_is_plain_again() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    for (node, pod) in [(lab.node(1), &client), (lab.node(2), &server)] {
        assert!(
            rules(pod).contains("0x539"),
            "what is to be removed exists: {}",
            rules(pod)
        );
        node.ztunnel().kill().await.unwrap();
        assert!(files_below(&node.pins()) > 0);
        let recipe = node.ztunnel().recipe();
        let (status, said) = recipe.run(&["uninstall"], LIMIT).await.unwrap();
        assert!(status.success(), "{said}");
        assert_eq!(
            files_below(&node.pins()),
            0,
            "pins are left; it said:\n{said}"
        );
    }
    let sniffer = lab.sniff().unwrap();
    let verdict = client
        .get(server.at(PORT))
        .marked("plain-after-uninstall")
        .await;
    assert!(verdict.answer().is_some(), "{verdict}");
    assert!(sniffer.stop().unwrap().sees("plain-after-uninstall"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_takes_the_pods_rules_away() {
    let lab = Lab::builder().nodes(1).start().await.unwrap();
    let pod = lab.pod("pod").outside_the_mesh().start().await.unwrap();
    let before = rules(&pod);
    pod.enroll().await.unwrap();
    assert_ne!(rules(&pod), before);
    pod.release().await.unwrap();
    // Not at once: what had begun before still needs them.
    let gone = || rules(&pod) == before;
    patience::until("the rules to be gone", SOON, gone)
        .await
        .unwrap();
}

/// The routing rules and the marked table of a pod, both families.
fn rules(pod: &lab::Pod) -> String {
    let lists = [
        ["-4", "rule", "list"],
        ["-6", "rule", "list"],
        ["-4", "route", "list"],
        ["-6", "route", "list"],
    ];
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("ip")
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    pod.netns()
        .enter(|| {
            lists
                .iter()
                .map(|list| run(list))
                .collect::<Vec<_>>()
                .join("\n")
        })
        .unwrap()
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| {
            if entry.path().is_dir() {
                files_below(&entry.path())
            } else {
                1
            }
        })
        .sum()
}
