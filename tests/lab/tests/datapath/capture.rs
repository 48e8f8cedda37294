//! What is captured and what is not: every kind of socket of a pod in the mesh, nothing of others.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Verdict, patience};

use crate::story::{PORT, Pair, SOON, logged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv4_ipv6_and_mapped_sockets_all_go_through_the_tunnel() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let sniffer = lab.sniff().unwrap();
    let v4 = client.get(server.at(PORT)).marked("marker-of-v4").await;
    let v6 = client.get(server.at_v6(PORT)).marked("marker-of-v6").await;
    let mapped = client
        .get(server.at(PORT))
        .mapped()
        .marked("marker-of-mapped")
        .await;
    let sniffed = sniffer.stop().unwrap();
    for (verdict, marker) in [
        (&v4, "marker-of-v4"),
        (&v6, "marker-of-v6"),
        (&mapped, "marker-of-mapped"),
    ] {
        assert!(verdict.answer().is_some(), "{marker}: {verdict}");
        assert!(!sniffed.sees(marker), "{marker}");
    }
    assert!(sniffed.begins_with_tls(15008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_sees_the_clients_own_address() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let neighbour = lab.pod("neighbour").on(lab.node(2)).start().await.unwrap();
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    for from in [&client, &neighbour, &plain] {
        let verdict = from.get(server.at(PORT)).await;
        let expected = format!("server sees {}:", from.ip());
        assert!(
            verdict
                .answer()
                .is_some_and(|text| text.starts_with(&expected)),
            "{}: {verdict}",
            from.name()
        );
        let verdict = from.get(server.at_v6(PORT)).await;
        let expected = format!("server sees [{}]:", from.addresses().v6);
        assert!(
            verdict
                .answer()
                .is_some_and(|text| text.starts_with(&expected)),
            "{}: {verdict}",
            from.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_is_seen_before_the_mesh_and_never_after() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::outside().await;
    let sniffer = lab.sniff().unwrap();
    assert!(
        client
            .get(server.at(PORT))
            .marked("in-plain-sight")
            .await
            .answer()
            .is_some()
    );
    assert!(sniffer.stop().unwrap().sees("in-plain-sight"));
    tokio::try_join!(client.enroll(), server.enroll()).unwrap();
    let sniffer = lab.sniff().unwrap();
    for _ in 0..50 {
        assert!(
            client
                .get(server.at(PORT))
                .marked("in-plain-sight")
                .await
                .answer()
                .is_some()
        );
    }
    let sniffed = sniffer.stop().unwrap();
    assert!(!sniffed.sees("in-plain-sight"));
    assert!(
        sniffed.begins_with_tls(15008),
        "ports seen: {:?}",
        sniffed.ports()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_in_the_mesh_and_outside_reach_each_other_in_plaintext() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let plain = lab
        .pod("plain")
        .on(lab.node(2))
        .outside_the_mesh()
        .serving(PORT)
        .start()
        .await
        .unwrap();
    let into = plain.get(server.at(PORT)).await;
    assert!(into.answer().is_some(), "{into}");
    let out = client.get(plain.at(PORT)).await;
    assert!(
        out.answer()
            .is_some_and(|text| text.contains(&client.ip().to_string())),
        "{out}"
    );
    let unproven = [
        ("direction", "inbound"),
        ("dst.workload", "server"),
        ("src.identity", ""),
        ("error", ""),
    ];
    logged(lab.node(2), &unproven).await;
    logged(
        lab.node(1),
        &[
            ("direction", "outbound"),
            ("dst.workload", "plain"),
            ("dst.hbone_addr", ""),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_outside_the_mesh_are_left_alone() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::outside().await;
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    for node in lab.nodes() {
        assert!(node.ztunnel().log().access().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_own_process_probes_a_pod_untouched_whatever_policy_says() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    lab.policy(lab::document::deny("nobody", everyone()))
        .await
        .unwrap();
    assert!(client.get(server.at(PORT)).await.is_denied());
    let kubelet = lab.node(2).host_process("kubelet").unwrap();
    for at in [server.at(PORT), server.at_v6(PORT)] {
        let verdict = kubelet.get(at).await;
        assert!(verdict.answer().is_some(), "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_and_an_absent_pod_are_clear_at_once() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let begun = Instant::now();
    let closed = client.get(server.at(81)).await;
    assert!(closed.is_denied(), "{closed}");
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    let closed = plain.get(server.at(81)).await;
    assert!(closed.is_denied(), "{closed}");
    let closed = client.get(plain.at(81)).await;
    assert!(closed.is_denied(), "{closed}");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_port_elsewhere_and_on_loopback_are_told_apart() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    // The same port as a server elsewhere, on the client's own pod: both are reached.
    client.serve(PORT).await.unwrap();
    for to in [&server, &client] {
        let verdict = client.get(to.at(PORT)).await;
        let expected = format!("{} sees", to.name());
        assert!(
            verdict
                .answer()
                .is_some_and(|text| text.starts_with(&expected)),
            "{}: {verdict}",
            to.name()
        );
    }
    let loopback = client.get(([127, 0, 0, 1], PORT).into()).await;
    assert!(
        loopback
            .answer()
            .is_some_and(|text| text.starts_with("client sees 127.0.0.1")),
        "{loopback}"
    );
    drop(lab);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_starts_again_gets_its_port_while_connections_to_it_are_open() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    // In the server's namespace the proxy's accepted sockets have the application's port.
    let _open = (
        plain.open(server.at(PORT), "plain").await.unwrap(),
        client.open(server.at(PORT), "tunnel").await.unwrap(),
    );
    server.end();
    let again = server.another_process().unwrap();
    let listening = async || again.serve(PORT).await.ok();
    patience::some("the port to be free again", SOON, listening)
        .await
        .unwrap();
    for from in [&client, &plain] {
        let verdict = from.get(server.at(PORT)).await;
        assert!(verdict.answer().is_some(), "{}: {verdict}", from.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_from_a_captured_node_is_put_back() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    assert!(plain.get(server.at(PORT)).await.answer().is_some());
    // Somebody deletes a rule in a pod, somebody else what is pinned on the other node.
    let delete = || {
        let mut delete = Command::new("ip");
        delete
            .args(["-4", "rule", "del", "fwmark", "0x539"])
            .status()
    };
    assert!(server.netns().enter(delete).unwrap().unwrap().success());
    assert!(unpin(&lab.node(1).pins(), "connect") > 0);
    patience::until("the repair to be counted", SOON * 3, || {
        let metrics = lab.node(1).ztunnel().metrics();
        metrics.is_ok_and(|metrics| metrics.sum("culvert_capture_repairs_total", &[]) >= 1.0)
    })
    .await
    .unwrap();
    patience::some("the server to be reached again", SOON * 3, async || {
        let verdict = plain.get(server.at(PORT)).within(SOON / 5).await;
        verdict.answer().map(str::to_owned)
    })
    .await
    .unwrap();
    let sniffer = lab.sniff().unwrap();
    let verdict = client.get(server.at(PORT)).marked("repaired").await;
    assert!(verdict.answer().is_some(), "{verdict}");
    assert!(!sniffer.stop().unwrap().sees("repaired"));
}

/// Removes the pinned links whose names begin so; gives how many.
fn unpin(folder: &Path, name: &str) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                return unpin(&entry.path(), name);
            }
            let is_link = folder.ends_with("links");
            let ours = is_link && entry.file_name().to_string_lossy().starts_with(name);
            usize::from(ours && std::fs::remove_file(entry.path()).is_ok())
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxys_own_ports_lead_to_no_loop() {
    let Pair {
        lab: _lab,
        client,
        server,
    } = Pair::start().await;
    for port in [15001, 15006, 15008] {
        let begun = Instant::now();
        let verdict = client.get(server.at(port)).await;
        assert!(
            !matches!(verdict, Verdict::Answered(_) | Verdict::TimedOut),
            "{port}: {verdict}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{port}: {:?}",
            begun.elapsed()
        );
    }
    assert!(client.get(server.at(PORT)).await.answer().is_some());
}

fn everyone() -> mesh::file::format::Match {
    mesh::file::format::Match {
        source_ips: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        ..Default::default()
    }
}
