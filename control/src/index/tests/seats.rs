//! Replicas of a waypoint in several zones: each is told which endpoints are near to it, and a replica
//! that comes, goes or turns out to stand elsewhere concerns nobody but itself.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;
use serde_json::{Value, json};

use super::super::*;
use super::object;

const CLUSTER: &str = "inbound-vip|80|http|a.shop.svc.cluster.local";

fn node(name: &str, zone: &str) -> Change {
    let labels = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone});
    object(json!({"kind": "Node", "metadata": {"name": name, "labels": labels}}))
}

fn pod(name: &str, account: &str, labels: Value, node: &str, address: &str) -> Change {
    object(json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": labels},
        "spec": {"serviceAccountName": account, "nodeName": node, "containers": []},
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn replica(name: &str, node: &str) -> Change {
    let labels = json!({"gateway.networking.k8s.io/gateway-name": "w", "pod-template-hash": name});
    pod(name, "w", labels, node, "10.0.1.1")
}

fn rule(policy: Value) -> Change {
    object(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"host": "a", "trafficPolicy": policy},
    }))
}

/// Service a with a pod on each of two nodes in zones of their own, and waypoint w with a replica on each.
fn world() -> Index {
    let mut index = Index::new(Mesh::default());
    for change in [
        object(
            json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": {"istio.io/use-waypoint": "w"}}}),
        ),
        node("n1", "z1"),
        node("n2", "z2"),
        object(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "w", "namespace": "shop"},
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
            "status": {"addresses": [{"type": "IPAddress", "value": "10.9.0.1"}]},
        })),
        object(json!({
            "kind": "Service", "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "a"}, "ports": [{"name": "http", "port": 80}]},
        })),
        pod("a-1", "a", json!({"app": "a"}), "n1", "10.0.0.1"),
        pod("a-2", "a", json!({"app": "a"}), "n2", "10.0.0.2"),
        replica("w-1", "n1"),
        replica("w-2", "n2"),
        rule(
            json!({"outlierDetection": {}, "loadBalancer": {"localityLbSetting": {"enabled": true}}}),
        ),
    ] {
        index.apply(change);
    }
    index
}

/// By zone of the replicas, the endpoints they are told now: `zone: priority`; and the zones that were
/// vacated.
fn told(index: &mut Index) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
    index.recompute();
    let (updates, gone) = index.take_l7();
    let mut all = BTreeMap::new();
    for (seat, updates) in updates {
        let found = updates
            .into_iter()
            .find(|one| &*one.name == CLUSTER && one.kind == ResourceType::Endpoints);
        let value = found.unwrap().resource.unwrap().value;
        let groups = ClusterLoadAssignment::decode(value).unwrap().endpoints;
        let groups = groups.into_iter().map(|group| {
            let zone = group.locality.unwrap().zone;
            format!("{zone}: {}", group.priority)
        });
        all.insert(seat.here.place.1, groups.collect());
    }
    let gone = gone.into_iter().map(|seat| seat.here.place.1);
    (all, gone.collect())
}

fn expected(all: &[(&str, [&str; 2])]) -> BTreeMap<String, Vec<String>> {
    let all = all.iter().map(|(zone, groups)| {
        let groups = groups.iter().map(ToString::to_string);
        ((*zone).to_owned(), groups.collect())
    });
    all.collect()
}

#[test]
fn each_replica_is_told_what_is_near_to_it() {
    let mut index = world();
    let own = expected(&[("z1", ["z1: 0", "z2: 1"]), ("z2", ["z1: 1", "z2: 0"])]);
    assert_eq!(told(&mut index), (own, vec![]));
    // An endpoint that changes is told to both, each in its own order.
    index.apply(pod("a-2", "a", json!({"app": "a"}), "n2", "10.0.0.9"));
    let own = expected(&[("z1", ["z1: 0", "z2: 1"]), ("z2", ["z1: 1", "z2: 0"])]);
    assert_eq!(told(&mut index), (own, vec![]));
    // Where nobody asks for what is near, all are told the same.
    index.apply(rule(json!({})));
    let same = expected(&[("z1", ["z1: 0", "z2: 0"]), ("z2", ["z1: 0", "z2: 0"])]);
    assert_eq!(told(&mut index), (same, vec![]));
    assert!(
        index.l7.problems().is_empty(),
        "the rule is followed: {:?}",
        index.l7.problems()
    );
}

#[test]
fn a_replica_that_comes_or_goes_concerns_its_own_place() {
    let mut index = world();
    told(&mut index);
    let nobody = || (BTreeMap::new(), Vec::<String>::new());
    index.apply(replica("w-3", "n1"));
    assert_eq!(told(&mut index), nobody(), "another in the same zone");
    index.apply(Change::Removed(Kind::Pod, Key::new("shop", "w-1")));
    assert_eq!(told(&mut index), nobody(), "one of two of a zone");
    index.apply(Change::Removed(Kind::Pod, Key::new("shop", "w-3")));
    assert_eq!(told(&mut index).1, ["z1"], "the last of a zone");
    index.apply(pod(
        "forged",
        "a",
        json!({"gateway.networking.k8s.io/gateway-name": "w"}),
        "n1",
        "10.0.0.7",
    ));
    assert_eq!(told(&mut index), nobody(), "one with another account");
    index.apply(replica("w-4", ""));
    assert_eq!(told(&mut index), nobody(), "one without a node yet");
    index.apply(replica("w-4", "n1"));
    let own = expected(&[("z1", ["z1: 0", "z2: 1"]), ("z2", ["z1: 1", "z2: 0"])]);
    assert_eq!(told(&mut index), (own, vec![]));
}

#[test]
fn replicas_whose_node_turns_out_to_be_elsewhere_connect_anew() {
    let mut index = world();
    told(&mut index);
    let seat = |index: &Index| {
        let seat = index.seat_of_instance(&Key::new("shop", "w-1"), "w-1", "w");
        seat.unwrap().here.place.1
    };
    assert_eq!(seat(&index), "z1");
    index.apply(node("n1", "z3"));
    let own = expected(&[("z2", ["z2: 0", "z3: 1"]), ("z3", ["z2: 1", "z3: 0"])]);
    assert_eq!(told(&mut index), (own, vec!["z1".to_owned()]));
    assert_eq!(seat(&index), "z3");
    // Its place is another's already: that one's is filled, and who moved is told to come.
    index.apply(node("n1", "z2"));
    let (all, gone) = told(&mut index);
    let own = BTreeMap::from([("z2".to_owned(), vec!["z2: 0".to_owned()])]);
    assert_eq!((all, gone), (own, vec!["z3".to_owned()]));
}

#[test]
fn replicas_of_one_zone_are_told_apart_where_nodes_count() {
    let mut index = world();
    index.apply(node("n2", "z1"));
    // By the node that each replica is on, how many endpoints are in each priority.
    let by_node = |index: &mut Index| -> BTreeMap<String, Vec<usize>> {
        index.recompute();
        let (updates, _) = index.take_l7();
        let told = updates.into_iter().filter_map(|(seat, updates)| {
            let endpoints = updates
                .into_iter()
                .find(|one| &*one.name == CLUSTER && one.kind == ResourceType::Endpoints)?;
            let made = ClusterLoadAssignment::decode(endpoints.resource?.value).unwrap();
            let mut counts = Vec::new();
            for group in made.endpoints {
                let priority = usize::try_from(group.priority).unwrap();
                counts.resize(counts.len().max(priority + 1), 0);
                counts[priority] += group.lb_endpoints.len();
            }
            Some((seat.here.node.to_string(), counts))
        });
        told.collect()
    };
    let each = |counts: &[usize]| {
        BTreeMap::from(["n1", "n2"].map(|node| (node.to_owned(), counts.to_vec())))
    };
    assert_eq!(by_node(&mut index), each(&[2]), "one zone");
    index.apply(pod("a-3", "a", json!({"app": "a"}), "n2", "10.0.0.3"));
    let priority = json!({"failoverPriority": ["kubernetes.io/hostname"]});
    index.apply(rule(
        json!({"outlierDetection": {}, "loadBalancer": {"localityLbSetting": priority}}),
    ));
    let own = [("n1", vec![1, 2]), ("n2", vec![2, 1])];
    let own = own.map(|(node, counts)| (node.to_owned(), counts));
    assert_eq!(by_node(&mut index), BTreeMap::from(own));
    index.apply(replica("w-3", "n2"));
    assert!(by_node(&mut index).is_empty(), "another on the same node");
}
