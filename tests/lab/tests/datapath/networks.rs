//! Two networks and a gateway between them: a pod of one calls a service whose endpoints are in the
//! other, in a tunnel within a tunnel, and never at their own addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use lab::document::{Document, allow, ports};
use lab::log::Access;
use lab::standin::StandIn;
use lab::{Direction, Lab, Pod, patience};
use mesh::file::format::{Gateway, Match, TunnelProtocol, Workload as Entry};

use crate::story::{PORT, SOON, counted, logged};

const SHOP: &str = "shop.default.svc.cluster.local";
const WEST: &str = "west";
/// Where the gateway takes HBONE: not where ztunnels do.
const GATE: u16 = 15009;
/// What istiod tells of the endpoints that a service has in another network: all of them in one.
const SUM: &str = "west/SplitHorizonWorkload/istio-system/gate/default/shop";

/// `client` in a network of its own on the first node; on the second, in the network `west`, servers
/// behind the service `shop` and a gateway.
struct Scene {
    lab: Lab,
    client: Pod,
    servers: Vec<Pod>,
    gate: Pod,
    gateway: StandIn,
    shop: SocketAddr,
}

impl Scene {
    async fn start(servers: usize) -> Self {
        let lab = Lab::start().await.unwrap();
        let west = |name: String| lab.pod(&name).on(lab.node(2));
        let client = lab.pod("client").start().await.unwrap();
        let gate = west("gate".to_owned()).outside_the_mesh();
        let gate = gate.identity("istio-system", "gate").start().await.unwrap();
        let mut pods = Vec::new();
        for number in 0..servers {
            let server = west(format!("server{number}")).serving(PORT);
            pods.push(server.start().await.unwrap());
        }
        let behind: Vec<&Pod> = pods.iter().collect();
        let shop = lab.service("shop", &[(80, PORT)], &behind).await.unwrap();
        let hbone = pods.iter().map(|server| server.at(15008)).collect();
        let services = HashMap::from([(format!("{SHOP}:80"), hbone)]);
        let gateway = StandIn::gateway(&lab, &gate, GATE, services).unwrap();
        let scene = Self {
            shop: SocketAddr::new(shop.v4.into(), 80),
            servers: pods,
            lab,
            client,
            gate,
            gateway,
        };
        scene.part().await;
        scene
    }

    /// Tells of two networks, as istiod does: one's own endpoints each, the other's in one.
    async fn part(&self) {
        let of_west: Vec<String> = self
            .servers
            .iter()
            .map(|pod| pod.uid().to_owned())
            .collect();
        let gate = self.gate.uid().to_owned();
        let names = self.servers.iter().map(|pod| pod.identity()).collect();
        let sum = Entry {
            uid: SUM.to_owned(),
            name: SUM.to_owned(),
            namespace: "default".to_owned(),
            network: WEST.to_owned(),
            tunnel_protocol: TunnelProtocol::Hbone,
            network_gateway: Some(Gateway {
                address: Some(format!("{WEST}/{}", self.gate.ip())),
                hbone_mtls_port: GATE,
                ..Gateway::default()
            }),
            services: [(format!("default/{SHOP}"), ports(&[(80, PORT)]))].into(),
            ..Entry::default()
        };
        self.lab
            .change(move |document: &mut Document| {
                for uid in of_west.iter().chain([&gate]) {
                    WEST.clone_into(&mut document.workloads.get_mut(uid).unwrap().network);
                }
                document.workloads.insert(SUM.to_owned(), sum);
                document.services.get_mut(SHOP).unwrap().subject_alt_names = names;
            })
            .await
            .unwrap();
    }

    async fn change(&self, change: impl FnOnce(&mut Document)) {
        self.lab.change(change).await.unwrap();
    }

    /// What the log of the first node says of a call that does not come to be.
    async fn fails(&self) -> String {
        let before = self.lab.node(1).ztunnel().log().access().len();
        let verdict = self.client.get(self.shop).await;
        assert!(verdict.is_denied(), "{verdict}");
        let node = self.lab.node(1);
        let line = patience::some("a line of the access log", SOON, async || {
            node.ztunnel().log().access().into_iter().nth(before)
        });
        line.await.unwrap().get("error").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_in_another_network_is_called_in_a_tunnel_within_a_tunnel() {
    let scene = Scene::start(1).await;
    let verdict = scene.client.get(scene.shop).await;
    assert!(verdict.answer().is_some(), "{verdict}");
    let (client, gate) = (scene.client.identity(), scene.gate.identity());
    let [carried] = &scene.gateway.carried()[..] else {
        panic!("{:?}", scene.gateway.carried());
    };
    assert_eq!(carried.peer, client);
    assert_eq!(carried.authority, format!("{SHOP}:80"));
    assert_eq!(carried.network, None, "that is for the far end");
    let at_gate = format!("{}:{GATE}", scene.gate.ip());
    let first = [
        ("direction", "outbound"),
        ("src.identity", &*client),
        ("dst.addr", &*at_gate),
        ("dst.hbone_addr", &*format!("{SHOP}:80")),
        ("dst.workload", "gate"),
        ("dst.identity", &*gate),
        ("dst.service", SHOP),
        ("error", ""),
    ];
    logged(scene.lab.node(1), &first).await;
    // The far end sees who calls, although the bytes come from the gateway.
    let server = scene.servers[0].identity();
    let second = [
        ("direction", "inbound"),
        ("src.identity", &*client),
        ("dst.workload", "server0"),
        ("dst.identity", &*server),
        ("dst.service", SHOP),
        ("error", ""),
    ];
    let line = logged(scene.lab.node(2), &second).await;
    let from_gate = format!("{}:", scene.gate.ip());
    assert!(line.get("src.addr").starts_with(&from_gate), "{line:?}");
    let opened = [
        ("reporter", "source"),
        ("source_workload", "client"),
        ("destination_workload", "gate"),
        ("destination_principal", &*gate),
        ("destination_service", SHOP),
        ("connection_security_policy", "mutual_tls"),
    ];
    let name = "istio_tcp_connections_opened_total";
    counted(scene.lab.node(1), name, &opened, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_and_half_closes_pass_both_tunnels_whole() {
    let scene = Scene::start(1).await;
    for direction in [
        Direction::Up,
        Direction::Down,
        Direction::Both,
        Direction::AfterServersEnd,
    ] {
        let moved = scene.client.transfer(scene.shop, direction, 8 << 20, "far");
        moved.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_chooses_anew_for_every_connection() {
    let scene = Scene::start(2).await;
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..10 {
        let verdict = scene.client.get(scene.shop).await;
        let answer = verdict.answer().unwrap_or_else(|| panic!("{verdict}"));
        let name = answer.split(' ').next().unwrap_or_default().to_owned();
        *answers.entry(name).or_default() += 1;
    }
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [5, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_of_the_other_network_see_the_caller() {
    let scene = Scene::start(1).await;
    let only = |identity: String| {
        let principal = identity.strip_prefix("spiffe://").unwrap().to_owned();
        allow(
            "only",
            Match {
                principals: vec![principal],
                ..Match::default()
            },
        )
    };
    scene.lab.policy(only(scene.gate.identity())).await.unwrap();
    let error = scene.fails().await;
    assert!(
        error.starts_with("beyond the gateway") && error.contains("refused with 401"),
        "{error}"
    );
    scene
        .lab
        .policy(only(scene.client.identity()))
        .await
        .unwrap();
    let verdict = scene.client.get(scene.shop).await;
    assert!(verdict.answer().is_some(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_who_is_expected_is_talked_to() {
    let scene = Scene::start(1).await;
    let server = scene.servers[0].identity();
    let name = |names: Vec<String>| {
        move |document: &mut Document| {
            document.services.get_mut(SHOP).unwrap().subject_alt_names = names;
        }
    };
    let somebody = "spiffe://cluster.local/ns/default/sa/somebody".to_owned();
    scene.change(name(vec![somebody])).await;
    let error = scene.fails().await;
    assert!(
        error.starts_with("beyond the gateway")
            && error.contains("identity_mismatch")
            && error.contains("subject_alt_names")
            && error.contains(&server),
        "{error}"
    );
    scene.change(name(Vec::new())).await;
    let error = scene.fails().await;
    assert!(error.contains("but no subject_alt_names"), "{error}");
    scene.change(name(vec![server])).await;
    assert!(scene.client.get(scene.shop).await.answer().is_some());
    // The gateway is somebody else.
    let gate = scene.gate.uid().to_owned();
    let carried = scene.gateway.carried().len();
    scene
        .change(move |document| {
            let entry = document.workloads.get_mut(&gate).unwrap();
            "another".clone_into(&mut entry.service_account);
        })
        .await;
    let error = scene.fails().await;
    assert!(
        error.starts_with("connection to") && error.contains("identity_mismatch"),
        "{error}"
    );
    assert_eq!(scene.gateway.carried().len(), carried);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_there_is_no_way_and_endpoints_here_step_in() {
    let Scene {
        lab,
        client,
        gate,
        gateway,
        shop,
        servers: _servers,
    } = Scene::start(1).await;
    let pod = lab.pod("near").serving(PORT).start().await.unwrap();
    let near = pod.uid().to_owned();
    let entry = near.clone();
    lab.change(move |document| {
        let serves = (format!("default/{SHOP}"), ports(&[(80, PORT)]));
        document.workloads.get_mut(&entry).unwrap().services = [serves].into();
    })
    .await
    .unwrap();
    // The gateway is gone without a word, and still announced.
    gateway.end();
    for call in 0..20 {
        let verdict = client.get(shop).await;
        let answer = verdict.answer().unwrap_or_else(|| panic!("{verdict}"));
        assert!(answer.starts_with("near"), "{call}: {answer}");
    }
    let lines = lab.node(1).ztunnel().log().access();
    let said = |line: &Access| line.get("dst.hbone_addr") == pod.at(PORT).to_string();
    assert!(lines.len() >= 20 && lines.iter().all(said), "{lines:?}");
    // It is announced no more, and nobody is left here.
    let gate = gate.uid().to_owned();
    lab.change(move |document| {
        document.workloads.remove(&gate);
        document.workloads.remove(&near);
    })
    .await
    .unwrap();
    let told = "is unknown: it was removed, or is on its way";
    let log = lab.node(1).ztunnel().log();
    assert!(!log.contains(told));
    assert!(client.get(shop).await.is_denied());
    let named = || log.contains(told);
    patience::until("the gateway to be named", SOON, named)
        .await
        .unwrap();
}
