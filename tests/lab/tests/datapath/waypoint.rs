//! The way through a waypoint, with a stand-in that forwards: who takes it, that nothing goes round one
//! that is required, and what becomes of calls when a pod of it is gone.

use std::collections::HashMap;
use std::net::SocketAddr;

use lab::ca::Flaw;
use lab::document::{Document, allow};
use lab::peer::{self, Met};
use lab::standin::StandIn;
use lab::{Lab, Pod};
use mesh::file::format::{Gateway, Match};

use crate::story::{PORT, counted, logged};

const HOSTNAME: &str = "shop.default.svc.cluster.local";
const WAYPOINT: &str = "way.default.svc.cluster.local";

/// `client` and `other` on the first node, `server` behind the service `shop` on the second, and a
/// waypoint of so many pods.
struct Scene {
    lab: Lab,
    client: Pod,
    server: Pod,
    shop: SocketAddr,
    ways: Vec<(Pod, StandIn)>,
}

impl Scene {
    async fn start(ways: usize) -> Self {
        let lab = Lab::start().await.unwrap();
        let (client, server) = tokio::try_join!(
            lab.pod("client").start(),
            lab.pod("server").on(lab.node(2)).serving(PORT).start(),
        )
        .unwrap();
        let shop = lab
            .service("shop", &[(80, PORT)], &[&server])
            .await
            .unwrap();
        let shop = SocketAddr::new(shop.v4.into(), 80);
        let mut pods = Vec::new();
        for number in 0..ways {
            let pod = lab.pod(&format!("way{number}")).outside_the_mesh();
            pods.push(pod.identity("default", "way").start().await.unwrap());
        }
        let behind: Vec<&Pod> = pods.iter().collect();
        lab.service("way", &[(15008, 15008)], &behind)
            .await
            .unwrap();
        let endpoints = HashMap::from([(shop, server.at(PORT))]);
        let stand_in = |pod: Pod| {
            let stand_in = StandIn::start(&lab, &pod, endpoints.clone()).unwrap();
            (pod, stand_in)
        };
        let ways = pods.into_iter().map(stand_in).collect();
        Self {
            lab,
            client,
            server,
            shop,
            ways,
        }
    }

    /// The service has the waypoint, and so may the server itself, and ingress gateways.
    async fn use_waypoint(&self, for_workload: bool, for_ingress: bool) {
        let uid = self.server.uid().to_owned();
        self.lab
            .change(move |document: &mut Document| {
                let shop = document.services.get_mut(HOSTNAME).unwrap();
                shop.waypoint = Some(gateway());
                shop.ingress_use_waypoint = for_ingress;
                let server = document.workloads.get_mut(&uid).unwrap();
                server.waypoint = for_workload.then(gateway);
            })
            .await
            .unwrap();
    }

    fn identity(&self) -> String {
        self.ways[0].0.identity()
    }
}

fn gateway() -> Gateway {
    Gateway {
        hostname: Some(format!("default/{WAYPOINT}")),
        ..Gateway::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_service_pass_its_waypoint_and_both_legs_are_told() {
    let scene = Scene::start(1).await;
    scene.use_waypoint(false, false).await;
    let verdict = scene.client.get(scene.shop).await;
    assert!(verdict.answer().is_some(), "{verdict}");
    let [carried] = &scene.ways[0].1.carried()[..] else {
        panic!("{:?}", scene.ways[0].1.carried());
    };
    assert_eq!(carried.peer, scene.client.identity());
    assert_eq!(carried.authority, scene.shop.to_string());
    let forwarded = carried.forwarded.as_deref().unwrap();
    let from = format!("for=\"{}:", scene.client.ip());
    assert!(
        forwarded.starts_with(&from) && forwarded.ends_with(&format!("host={HOSTNAME}")),
        "{forwarded}"
    );
    let (client, way) = (scene.client.identity(), scene.identity());
    let first = [
        ("direction", "outbound"),
        ("src.identity", &*client),
        ("dst.identity", &*way),
        ("dst.workload", "way0"),
        ("dst.service", HOSTNAME),
        ("error", ""),
    ];
    logged(scene.lab.node(1), &first).await;
    let second = [
        ("direction", "inbound"),
        ("src.identity", &*way),
        ("src.workload", "way0"),
        ("dst.workload", "server"),
        ("dst.service", HOSTNAME),
        ("error", ""),
    ];
    logged(scene.lab.node(2), &second).await;
    let opened = "istio_tcp_connections_opened_total";
    let first = [
        ("reporter", "source"),
        ("source_workload", "client"),
        ("destination_workload", "way0"),
        ("destination_service", HOSTNAME),
        ("connection_security_policy", "mutual_tls"),
    ];
    counted(scene.lab.node(1), opened, &first, 1.0).await;
    let second = [
        ("reporter", "destination"),
        ("source_workload", "way0"),
        ("source_principal", &*way),
        ("destination_workload", "server"),
        ("destination_service", HOSTNAME),
        ("connection_security_policy", "mutual_tls"),
    ];
    counted(scene.lab.node(2), opened, &second, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_pod_pass_the_pods_waypoint_and_not_the_services() {
    let scene = Scene::start(1).await;
    scene.use_waypoint(false, false).await;
    assert!(
        scene
            .client
            .get(scene.server.at(PORT))
            .await
            .answer()
            .is_some()
    );
    assert_eq!(scene.ways[0].1.carried(), []);
    scene.use_waypoint(true, false).await;
    for to in [scene.server.at(PORT), scene.server.at_v6(PORT)] {
        let verdict = scene.client.get(to).await;
        assert!(verdict.answer().is_some(), "{to}: {verdict}");
        let carried = scene.ways[0].1.carried();
        assert_eq!(carried.last().unwrap().authority, to.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_round_a_required_waypoint() {
    let scene = Scene::start(1).await;
    let outside = scene
        .lab
        .pod("outside")
        .outside_the_mesh()
        .start()
        .await
        .unwrap();
    let own = scene
        .lab
        .authority()
        .issue(&outside.identity(), Flaw::None)
        .unwrap();
    let way = scene
        .lab
        .authority()
        .issue(&scene.identity(), Flaw::None)
        .unwrap();
    let to = scene.server.at(PORT);
    let hbone = SocketAddr::new(to.ip(), 15008);
    let round = async |credentials| {
        let authority = to.to_string();
        let met = peer::connect(outside.netns(), hbone, Some(credentials), &authority).await;
        met.unwrap().met
    };
    // With ways left that lead round it, as Istio leaves them, everybody comes in.
    for (for_workload, for_ingress) in [(false, false), (true, false), (false, true)] {
        scene.use_waypoint(for_workload, for_ingress).await;
        assert_eq!(round(&own).await, Met::Status(200));
        assert!(outside.get(to).await.answer().is_some());
    }
    let (client, to_pod) = (scene.client.clone(), to);
    let open = client.open(to_pod, "in-the-mesh").await.unwrap();
    assert!(open.say("before").await.answer().is_some());
    let plain = outside.open(to_pod, "outside").await.unwrap();
    assert!(plain.say("before").await.answer().is_some());
    scene.use_waypoint(true, true).await;
    assert_eq!(round(&own).await, Met::Status(401));
    assert_eq!(round(&way).await, Met::Status(200));
    assert!(outside.get(to).await.is_denied());
    logged(
        scene.lab.node(2),
        &[
            ("src.identity", &*outside.identity()),
            ("direction", "inbound"),
        ],
    )
    .await;
    assert!(
        scene
            .lab
            .node(2)
            .ztunnel()
            .log()
            .contains("leads through its waypoint default/way"),
        "the log does not name the waypoint"
    );
    for to in [scene.shop, to] {
        let verdict = scene.client.get(to).await;
        assert!(verdict.answer().is_some(), "through it, {to}: {verdict}");
    }
    // What was opened past it before it was required is closed.
    assert!(plain.say("after").await.answer().is_none());
    assert!(open.say("after").await.answer().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_at_the_destination_see_the_waypoint() {
    let scene = Scene::start(1).await;
    scene.use_waypoint(false, false).await;
    let only = |identity: &str| {
        let principal = identity.strip_prefix("spiffe://").unwrap().to_owned();
        allow(
            "only",
            Match {
                principals: vec![principal],
                ..Match::default()
            },
        )
    };
    scene.lab.policy(only(&scene.identity())).await.unwrap();
    assert!(scene.client.get(scene.shop).await.answer().is_some());
    assert!(scene.client.get(scene.server.at(PORT)).await.is_denied());
    scene
        .lab
        .policy(only(&scene.client.identity()))
        .await
        .unwrap();
    assert!(scene.client.get(scene.shop).await.is_denied());
    assert!(
        scene
            .client
            .get(scene.server.at(PORT))
            .await
            .answer()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_spread_over_the_pods_of_a_waypoint_and_leave_out_one_that_is_gone() {
    let mut scene = Scene::start(3).await;
    scene.use_waypoint(false, false).await;
    for _ in 0..30 {
        assert!(scene.client.get(scene.shop).await.answer().is_some());
    }
    let each: Vec<usize> = scene.ways.iter().map(|way| way.1.carried().len()).collect();
    assert!(each.iter().all(|count| *count >= 3), "{each:?}");
    // Gone without a word, one alone and one with its address: ztunnel still takes both for healthy.
    let (ended, stand_in) = scene.ways.remove(0);
    stand_in.end();
    for call in 0..30 {
        let verdict = scene.client.get(scene.shop).await;
        assert!(verdict.answer().is_some(), "call {call}: {verdict}");
    }
    let (vanished, stand_in) = scene.ways.remove(0);
    stand_in.end();
    drop(vanished);
    for call in 0..10 {
        let verdict = scene.client.get(scene.shop).await;
        assert!(verdict.answer().is_some(), "later call {call}: {verdict}");
    }
    drop(ended);
    let (_pod, last) = scene.ways.remove(0);
    last.end();
    scene
        .lab
        .change(|document: &mut Document| {
            let gone = |name: &str| format!("Kubernetes//Pod/default/{name}");
            document.workloads.remove(&gone("way0"));
            document.workloads.remove(&gone("way1"));
        })
        .await
        .unwrap();
    assert!(scene.client.get(scene.shop).await.is_denied());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waypoint_that_is_not_there_is_an_error_and_no_way_round() {
    let scene = Scene::start(1).await;
    scene.use_waypoint(false, false).await;
    scene
        .lab
        .change(|document: &mut Document| {
            document.services.remove(WAYPOINT);
        })
        .await
        .unwrap();
    assert!(scene.client.get(scene.shop).await.is_denied());
    let line = logged(
        scene.lab.node(1),
        &[("direction", "outbound"), ("src.workload", "client")],
    )
    .await;
    let error = line.get("error");
    assert!(
        error.contains("waypoint default/way") && error.contains("is unknown"),
        "{error}"
    );
    assert_eq!(scene.ways[0].1.carried(), []);
}
