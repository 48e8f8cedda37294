//! Waypoints over the wire: each gets its own resources, and nobody else gets them.

use control::objects::{Change, Gateway, Kind, Namespace, Node, Object, Pod, Routing, Service};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

use super::discovery::Proxy;
use super::world::*;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";

const V1: &str = "inbound-vip|80|http/v1|web.shop.svc.cluster.local";
const WEB: &str = "inbound-vip|80|http|web.shop.svc.cluster.local";

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn waypoint_pod(name: &str, account: &str) -> Change {
    waypoint_pod_on("node-a", name, account)
}

fn waypoint_pod_on(node: &str, name: &str, account: &str) -> Change {
    replica_of("waypoint", node, name, account)
}

fn replica_of(waypoint: &str, node: &str, name: &str, account: &str) -> Change {
    let object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"gateway.networking.k8s.io/gateway-name": waypoint}},
        "spec": {"nodeName": node, "serviceAccountName": account, "containers": []},
        "status": {"podIP": "10.0.0.9"},
    });
    Change::Applied(Object::Pod(Box::new(
        Pod::from_kubernetes(&parse(object)).unwrap(),
    )))
}

fn web_pod(ready: bool) -> Change {
    let object = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "uid-web-1", "labels": {"app": "web", "version": "v1"}},
        "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": []},
        "status": {"podIP": "10.0.0.2", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    Change::Applied(Object::Pod(Box::new(
        Pod::from_kubernetes(&parse(object)).unwrap(),
    )))
}

fn routing(kind: Kind, name: &str, spec: &Value) -> Change {
    let object = json!({"apiVersion": "x/v1", "kind": kind.name(), "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    Change::Applied(Object::Routing(Box::new(
        Routing::read(kind, &parse(object)).unwrap(),
    )))
}

fn subsets(names: &[&str]) -> Change {
    let subsets: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "labels": {"version": name}}))
        .collect();
    routing(
        Kind::DestinationRule,
        "web",
        &json!({"host": "web", "subsets": subsets}),
    )
}

fn gateway(name: &str) -> Change {
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": "shop", "uid": "u"},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": [{"type": "Hostname", "value": format!("{name}.shop.svc.cluster.local")}]},
    });
    Change::Applied(Object::Gateway(Box::new(Gateway::from(&parse(gateway)))))
}

fn shop() -> Vec<Change> {
    let namespace =
        json!({"metadata": {"name": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}}});
    let web = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    vec![
        Change::Applied(Object::Namespace(Namespace::from(&parse(namespace)))),
        gateway("waypoint"),
        Change::Applied(Object::Service(Box::new(
            Service::from_kubernetes(&parse(web)).unwrap(),
        ))),
        waypoint_pod("waypoint-1", "waypoint"),
        waypoint_pod("forged-1", "sleep"),
        web_pod(true),
        subsets(&["v1"]),
    ]
}

async fn sent(proxy: &mut Proxy) -> Vec<String> {
    proxy.take().await.0
}

#[tokio::test]
async fn a_waypoint_gets_its_own_resources_and_what_changes_of_them() {
    let mut world = World::empty().await;
    world.change(shop());
    let mut waypoint = Proxy::connect(&world, Some(WAYPOINT)).await.unwrap();
    waypoint.subscribe(CLUSTER, &[]).await;
    let clusters = sent(&mut waypoint).await;
    assert!(
        clusters.iter().any(|name| name == V1) && clusters.iter().any(|name| name == "encap"),
        "{clusters:?}"
    );
    waypoint.subscribe(LISTENER, &[]).await;
    assert_eq!(sent(&mut waypoint).await.len(), 5);
    waypoint.subscribe(WORKLOAD, &[]).await;
    assert_eq!(sent(&mut waypoint).await.len(), 3);
    waypoint
        .send(mesh::proto::discovery::DeltaDiscoveryRequest {
            type_url: ENDPOINTS.to_owned(),
            resource_names_subscribe: vec![WEB.to_owned()],
            ..Default::default()
        })
        .await;
    assert_eq!(sent(&mut waypoint).await, [WEB]);

    world.change([web_pod(false)]);
    let mut changed = vec![sent(&mut waypoint).await, sent(&mut waypoint).await];
    changed.sort();
    assert_eq!(
        changed,
        [
            vec!["Kubernetes//Pod/shop/web-1".to_owned()],
            vec![WEB.to_owned()]
        ],
        "endpoints, and no listener"
    );
    assert!(waypoint.silent().await);

    let aborts = json!({"hosts": ["web"], "http": [{"fault": {"abort": {"httpStatus": 503}}, "route": [{"destination": {"host": "web"}}]}]});
    world.change([routing(Kind::VirtualService, "web", &aborts)]);
    assert_eq!(
        sent(&mut waypoint).await,
        ["main_internal"],
        "one listener of five"
    );
    world.change([routing(Kind::VirtualService, "web", &aborts)]);
    assert!(waypoint.silent().await, "the same again is nothing new");
}

#[tokio::test]
async fn a_waypoint_beside_it_gets_none_of_them() {
    let mut world = World::empty().await;
    let api = json!({
        "metadata": {"name": "api", "namespace": "shop", "labels": {"istio.io/use-waypoint": "neighbour"}},
        "spec": {"clusterIP": "10.96.0.2", "selector": {"app": "api"}, "ports": [{"name": "http", "port": 80}]},
    });
    world.change(shop());
    world.change([
        gateway("neighbour"),
        replica_of("neighbour", "node-a", "neighbour-1", "neighbour"),
        Change::Applied(Object::Service(Box::new(
            Service::from_kubernetes(&parse(api)).unwrap(),
        ))),
    ]);
    for (token, own, others) in [(WAYPOINT, "|web.", "|api."), (NEIGHBOUR, "|api.", "|web.")] {
        let mut proxy = Proxy::connect(&world, Some(token)).await.unwrap();
        proxy.subscribe(CLUSTER, &[]).await;
        let clusters = sent(&mut proxy).await;
        let some = |of: &str| clusters.iter().any(|name| name.contains(of));
        assert!(some(own) && !some(others), "{token}: {clusters:?}");
        // Nor by asking for them by name.
        for (url, name) in [(ENDPOINTS, others), (LISTENER, "main_internal")] {
            let names = [WEB.replace("|web.", name), name.to_owned()];
            proxy
                .send(mesh::proto::discovery::DeltaDiscoveryRequest {
                    type_url: url.to_owned(),
                    resource_names_subscribe: names.into(),
                    ..Default::default()
                })
                .await;
            let told = proxy.next().await.unwrap();
            proxy.answer(&told, None).await;
            let bytes = told
                .resources
                .iter()
                .filter_map(|one| one.resource.as_ref());
            let told: String = bytes
                .map(|one| String::from_utf8_lossy(&one.value).into_owned())
                .collect();
            assert!(!told.contains(others), "{token} is told of {others}");
            assert_eq!(told.contains(own), url == LISTENER, "{token}");
        }
    }
}

#[tokio::test]
async fn clusters_come_before_the_listeners_that_need_them_and_go_after() {
    let mut world = World::empty().await;
    world.change(shop());
    let mut waypoint = Proxy::connect(&world, Some(WAYPOINT)).await.unwrap();
    waypoint.subscribe(CLUSTER, &[]).await;
    sent(&mut waypoint).await;
    waypoint.subscribe(LISTENER, &[]).await;
    sent(&mut waypoint).await;

    let to = |subset: &str| {
        let route = json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web", "subset": subset}}]}]});
        routing(Kind::VirtualService, "web", &route)
    };
    world.change([subsets(&["v2"]), to("v2")]);
    let (new, gone) = waypoint.take().await;
    assert!(
        new.iter().any(|name| name.contains("http/v2")) && gone.is_empty(),
        "{new:?} {gone:?}"
    );
    assert_eq!(
        waypoint.take().await,
        (vec!["main_internal".to_owned()], vec![])
    );
    assert_eq!(waypoint.take().await, (vec![], vec![V1.to_owned()]));
}

fn node(name: &str, zone: &str) -> Change {
    let labels = json!({"topology.kubernetes.io/zone": zone});
    let node = json!({"metadata": {"name": name, "labels": labels}});
    Change::Applied(Object::Node(Node::from(&parse::<
        k8s_openapi::api::core::v1::Node,
    >(node))))
}

/// A replica that has its clusters asks for the endpoints of the service; says the priority of the pod on
/// node-a.
async fn priority(proxy: &mut Proxy) -> u32 {
    proxy.subscribe(CLUSTER, &[]).await;
    sent(proxy).await;
    proxy
        .send(mesh::proto::discovery::DeltaDiscoveryRequest {
            type_url: ENDPOINTS.to_owned(),
            resource_names_subscribe: vec![WEB.to_owned()],
            ..Default::default()
        })
        .await;
    let told = proxy.next().await.unwrap();
    proxy.answer(&told, None).await;
    let resource = told.resources[0].resource.as_ref().unwrap();
    let endpoints = ClusterLoadAssignment::decode(&*resource.value).unwrap();
    let of = |group: &&envoy_types::pb::envoy::config::endpoint::v3::LocalityLbEndpoints| {
        group.locality.as_ref().unwrap().zone == "a"
    };
    endpoints.endpoints.iter().find(of).unwrap().priority
}

#[tokio::test]
async fn replicas_in_several_zones_are_told_what_is_near_to_each() {
    let mut world = World::empty().await;
    let near = json!({"host": "web", "trafficPolicy": {"outlierDetection": {}, "loadBalancer": {"localityLbSetting": {"failover": []}}}});
    let far_pod = json!({
        "metadata": {"name": "web-2", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"nodeName": "node-b", "serviceAccountName": "web", "containers": []},
        "status": {"podIP": "10.0.0.3", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let far_pod = Pod::from_kubernetes(&parse(far_pod)).unwrap();
    world.change(shop());
    world.change([
        node("node-a", "a"),
        node("node-b", "b"),
        waypoint_pod_on("node-b", "waypoint-2", "waypoint"),
        Change::Applied(Object::Pod(Box::new(far_pod))),
        routing(Kind::DestinationRule, "web", &near),
    ]);
    let mut here = Proxy::connect(&world, Some(WAYPOINT)).await.unwrap();
    let mut there = Proxy::connect(&world, Some(WAYPOINT_2)).await.unwrap();
    assert_eq!(priority(&mut here).await, 0);
    assert_eq!(priority(&mut there).await, 1);
    // The node of the second turns out to be in the first's zone: it connects anew, the first does not.
    world.change([node("node-b", "a")]);
    let ended = there.ended().await;
    assert!(ended.is_ok(), "{ended:?}");
    let mut there = Proxy::connect(&world, Some(WAYPOINT_2)).await.unwrap();
    assert_eq!(priority(&mut there).await, 0);
    let told = here.next().await.unwrap();
    assert_eq!(told.type_url, ENDPOINTS, "the stream goes on");
}

#[tokio::test]
async fn nobody_else_gets_them() {
    let mut world = World::empty().await;
    world.change(shop());
    for token in [FORGED, SLEEP] {
        let refused = Proxy::connect(&world, Some(token)).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied, "{token}");
    }
    for (token, url) in [(WAYPOINT, ADDRESS), (ZTUNNEL, LISTENER)] {
        let mut proxy = Proxy::connect(&world, Some(token)).await.unwrap();
        proxy.subscribe(url, &[]).await;
        assert_eq!(
            proxy.next().await.unwrap_err().code(),
            Code::InvalidArgument,
            "{token}"
        );
    }
}

#[tokio::test]
async fn a_wrong_object_changes_nothing_and_is_told() {
    let mut world = World::empty().await;
    world.change(shop());
    let mut waypoint = Proxy::connect(&world, Some(WAYPOINT)).await.unwrap();
    waypoint.subscribe(CLUSTER, &[]).await;
    sent(&mut waypoint).await;
    world.change([routing(
        Kind::DestinationRule,
        "web",
        &json!({"host": "web", "subsets": "v1"}),
    )]);
    assert!(waypoint.silent().await, "the last good rule stays in force");
}
