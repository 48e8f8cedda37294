//! Who is who: mutual TLS between pods, whatever node they are on, and nothing for a peer that
//! can't prove who it is.

use lab::ca::{Authority, Credentials, Flaw};
use lab::peer::{self, Meeting, Met};
use lab::{Lab, Pod, Verdict};

use crate::story::{PORT, Pair, counted, logged};

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
const REFUSALS: &str = "culvert_tls_refusals_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_on_different_nodes_speak_mutual_tls() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let sniffer = lab.sniff().unwrap();
    let verdict = client.get(server.at(PORT)).await;
    assert!(verdict.answer().is_some(), "{verdict}");
    let sniffed = sniffer.stop().unwrap();
    assert!(
        sniffed.begins_with_tls(15008),
        "ports seen: {:?}",
        sniffed.ports()
    );
    assert!(!sniffed.ports().contains(&PORT));
    let ends = [
        ("src.identity", CLIENT),
        ("dst.identity", SERVER),
        ("error", ""),
    ];
    let out = logged(
        lab.node(1),
        &[&ends[..], &[("direction", "outbound")]].concat(),
    )
    .await;
    let into = logged(
        lab.node(2),
        &[&ends[..], &[("direction", "inbound")]].concat(),
    )
    .await;
    for line in [out, into] {
        assert!(
            line.has(&[("src.workload", "client"), ("dst.workload", "server")]),
            "{line:?}"
        );
    }
    assert_eq!(
        (
            lab.authority().signed(CLIENT),
            lab.authority().signed(SERVER)
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_on_the_same_node_speak_mutual_tls_too() {
    let lab = Lab::builder().nodes(1).start().await.unwrap();
    let (client, server) = tokio::try_join!(
        lab.pod("client").start(),
        lab.pod("server").serving(PORT).start()
    )
    .unwrap();
    let verdict = client.get(server.at(PORT)).await;
    assert!(verdict.answer().is_some(), "{verdict}");
    let ends = [
        ("src.identity", CLIENT),
        ("dst.identity", SERVER),
        ("error", ""),
    ];
    logged(
        lab.node(1),
        &[&ends[..], &[("direction", "outbound")]].concat(),
    )
    .await;
    logged(
        lab.node(1),
        &[&ends[..], &[("direction", "inbound")]].concat(),
    )
    .await;
    let security = [
        ("connection_security_policy", "mutual_tls"),
        ("reporter", "destination"),
    ];
    counted(
        lab.node(1),
        "istio_tcp_connections_opened_total",
        &security,
        1.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_claims_anothers_address_gets_nowhere() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    // In the mesh: a socket bound to the address of another pod.
    let verdict = client.get(server.at(PORT)).from(server.ip()).await;
    assert!(verdict.answer().is_none(), "{verdict}");
    // Outside the mesh, with the address of the client on its own interface: the policy asks for
    // the client's identity, and an address is none.
    let thief = lab
        .pod("thief")
        .on(lab.node(2))
        .outside_the_mesh()
        .start()
        .await
        .unwrap();
    lab.policy(lab::document::allow(
        "only-client",
        principals(&["cluster.local/ns/default/sa/client"]),
    ))
    .await
    .unwrap();
    add_address(&thief, client.ip());
    let verdict = thief.get(server.at(PORT)).from(client.ip()).await;
    assert!(verdict.answer().is_none(), "{verdict}");
    let verdict = client.get(server.at(PORT)).await;
    assert!(verdict.answer().is_some(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_can_not_reach_another_pods_address() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let other = lab
        .pod("other")
        .on(lab.node(2))
        .serving(PORT)
        .start()
        .await
        .unwrap();
    let outsider = lab
        .pod("outsider")
        .outside_the_mesh()
        .start()
        .await
        .unwrap();
    let own = lab.authority().issue(CLIENT, Flaw::None).unwrap();
    let target = other.at(PORT).to_string();
    let meeting = peer::connect(outsider.netns(), server.at(15008), Some(&own), &target)
        .await
        .unwrap();
    assert_eq!(meeting.met, Met::Status(400));
    let right = server.at(PORT).to_string();
    let meeting = peer::connect(outsider.netns(), server.at(15008), Some(&own), &right)
        .await
        .unwrap();
    assert_eq!(meeting.met, Met::Status(200));
    assert!(meeting.was_with(SERVER));
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_a_certificate_is_refused_counted_and_logged() {
    let refused = Stranger::meets_the_server(|_| None).await;
    refused.counts_and_logs("no_certificate").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_trust_domain_is_refused_counted_and_logged() {
    let foreign = "spiffe://elsewhere.example/ns/default/sa/client";
    let refused =
        Stranger::meets_the_server(|ca| Some(ca.issue(foreign, Flaw::None).unwrap())).await;
    refused.counts_and_logs("other_trust_domain").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_an_expired_certificate_is_refused_counted_and_logged() {
    let refused =
        Stranger::meets_the_server(|ca| Some(ca.issue(CLIENT, Flaw::Expired).unwrap())).await;
    refused.counts_and_logs("expired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_an_unknown_root_is_refused_counted_and_logged() {
    let refused =
        Stranger::meets_the_server(|ca| Some(ca.issue(CLIENT, Flaw::UnknownRoot).unwrap())).await;
    refused.counts_and_logs("unknown_issuer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_who_was_called_gets_no_byte() {
    // The document says that this address is another account's than the certificate will say.
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    lab.change(|document| {
        let entry = document.workloads.get_mut(server.uid()).unwrap();
        entry.service_account = "somebody-else".to_owned();
    })
    .await
    .unwrap();
    let verdict = client.get(server.at(PORT)).await;
    assert!(verdict.answer().is_none(), "{verdict}");
}

/// A peer with credentials that must not be accepted.
struct Stranger {
    lab: Lab,
    meeting: Meeting,
}

impl Stranger {
    async fn meets_the_server(credentials: impl FnOnce(&Authority) -> Option<Credentials>) -> Self {
        let Pair {
            lab,
            client,
            server,
        } = Pair::start().await;
        let outsider = lab
            .pod("outsider")
            .outside_the_mesh()
            .start()
            .await
            .unwrap();
        // What follows must be the stranger's fault: an honest peer is served.
        assert!(matches!(
            client.get(server.at(PORT)).await,
            Verdict::Answered(_)
        ));
        let shown = credentials(lab.authority());
        let target = server.at(PORT).to_string();
        let meeting = peer::connect(outsider.netns(), server.at(15008), shown.as_ref(), &target)
            .await
            .unwrap();
        Self { lab, meeting }
    }

    async fn counts_and_logs(self, reason: &str) {
        assert!(
            matches!(self.meeting.met, Met::Refused(_)),
            "{:?}",
            self.meeting.met
        );
        let node = self.lab.node(2);
        counted(
            node,
            REFUSALS,
            &[("reporter", "destination"), ("reason", reason)],
            1.0,
        )
        .await;
        let closed = [
            ("reporter", "destination"),
            ("response_flags", "TLS_FAILURE"),
        ];
        counted(node, "istio_tcp_connections_closed_total", &closed, 1.0).await;
        let lines = node.ztunnel().log().access();
        assert!(
            lines
                .iter()
                .any(|line| line.get("direction") == "inbound" && !line.get("error").is_empty()),
            "no line names the reason {reason}: {lines:?}"
        );
    }
}

fn principals(values: &[&str]) -> mesh::file::format::Match {
    mesh::file::format::Match {
        principals: values.iter().map(|value| (*value).to_owned()).collect(),
        ..Default::default()
    }
}

fn add_address(pod: &Pod, address: std::net::IpAddr) {
    let step = lab::links::Step::Address("eth0".to_owned(), address, 32);
    lab::links::configure(pod.netns(), vec![step]).unwrap();
}
