//! Who goes through which waypoint, as node proxies are told it, and what a change recomputes.

use mesh::proto::workload::gateway_address::Destination;
use mesh::proto::workload::{Address, GatewayAddress, address};
use prost::Message;
use serde_json::{Value, json};

use super::super::*;
use super::{object, recomputed};

/// Two pods of accounts x and y behind service `all`, and x's alone behind service `x`.
fn shop(namespace: Value) -> Index {
    let mut index = Index::new(Mesh::default());
    for change in [
        object(json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": namespace}})),
        pod("x-1", "x", json!({})),
        pod("y-1", "y", json!({})),
        service("all", json!({"app": "web"}), json!({})),
        service("x", json!({"app": "web", "who": "x"}), json!({})),
    ] {
        index.apply(change);
    }
    index.recompute();
    index
}

fn pod(name: &str, account: &str, extra: Value) -> Change {
    let mut labels = json!({"app": "web", "who": account});
    for (key, value) in extra.as_object().unwrap() {
        labels[key] = value.clone();
    }
    object(json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"serviceAccountName": account, "containers": []},
        "status": {"podIP": "10.0.0.1"},
    }))
}

fn service(name: &str, selector: Value, labels: Value) -> Change {
    object(json!({
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"selector": selector, "ports": [{"port": 80}]},
    }))
}

fn gateway(namespace: &str, name: &str, meta: Value, from: &str, address: Value) -> Change {
    let mut metadata = json!({"name": name, "namespace": namespace});
    for (key, value) in meta.as_object().unwrap() {
        metadata[key] = value.clone();
    }
    let routes = json!({"namespaces": {"from": from, "selector": {"matchLabels": {"team": "a"}}}});
    object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata,
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": routes}]},
        "status": {"addresses": [address]},
    }))
}

fn plain(traffic: &str) -> Change {
    let labels = json!({"labels": {"istio.io/waypoint-for": traffic}});
    gateway(
        "shop",
        "waypoint",
        labels,
        "Same",
        hostname("waypoint.shop.svc.cluster.local"),
    )
}

fn hostname(name: &str) -> Value {
    json!({"type": "Hostname", "value": name})
}

/// Everything that goes through a waypoint: `service all → shop/waypoint.shop…`.
fn through(index: &mut Index) -> Vec<String> {
    let mut found = Vec::new();
    for (key, _) in index.services.all() {
        index.dirty.insert(Output::Service(key));
    }
    for (key, _) in index.pods.all() {
        index.dirty.insert(Output::Pod(key));
    }
    let all = index.recompute().into_iter();
    for update in all.filter(|update| update.kind == ResourceType::Address) {
        let value = update.resource.unwrap().value;
        let (name, waypoint) = match Address::decode(value.as_ref()).unwrap().r#type.unwrap() {
            address::Type::Service(service) => {
                (format!("service {}", service.name), service.waypoint)
            }
            address::Type::Workload(workload) => {
                (format!("pod {}", workload.name), workload.waypoint)
            }
        };
        found.extend(waypoint.map(|to| format!("{name} -> {}", where_to(&to))));
    }
    found.sort();
    found
}

fn where_to(address: &GatewayAddress) -> String {
    assert_eq!(address.hbone_mtls_port, 15008);
    match address.destination.as_ref().unwrap() {
        Destination::Hostname(name) => format!("{}/{}", name.namespace, name.hostname),
        Destination::Address(address) => format!("{:?}", address.address),
    }
}

#[test]
fn a_namespace_chooses_for_all_of_its_services_or_pods() {
    for (traffic, expected) in [
        ("service", ["service all", "service x"].as_slice()),
        ("workload", &["pod x-1", "pod y-1"]),
        ("all", &["pod x-1", "pod y-1", "service all", "service x"]),
        ("none", &[]),
        ("something-new", &[]),
    ] {
        let mut index = shop(json!({"istio.io/use-waypoint": "waypoint"}));
        index.apply(plain(traffic));
        let expected: Vec<String> = expected
            .iter()
            .map(|name| format!("{name} -> shop/waypoint.shop.svc.cluster.local"))
            .collect();
        assert_eq!(through(&mut index), expected, "{traffic}");
    }
}

#[test]
fn an_own_label_is_stronger_than_the_namespaces() {
    let mut index = shop(json!({"istio.io/use-waypoint": "waypoint"}));
    index.apply(plain("all"));
    index.apply(pod("y-1", "y", json!({"istio.io/use-waypoint": "none"})));
    let elsewhere =
        json!({"istio.io/use-waypoint": "w", "istio.io/use-waypoint-namespace": "edge"});
    index.apply(service("all", json!({"app": "web"}), elsewhere.clone()));
    let shop = "shop/waypoint.shop.svc.cluster.local";
    let before = [format!("pod x-1 -> {shop}"), format!("service x -> {shop}")];
    assert_eq!(through(&mut index), before, "edge/w does not exist");
    let labels = || json!({"labels": {"istio.io/waypoint-for": "all"}});
    let ip = json!({"type": "IPAddress", "value": "10.9.9.9"});
    index.apply(gateway("edge", "w", labels(), "Same", ip.clone()));
    assert_eq!(
        through(&mut index),
        before,
        "it does not let this namespace in"
    );
    index.apply(gateway("edge", "w", labels(), "Selector", ip.clone()));
    assert_eq!(through(&mut index), before, "nor one without team: a");
    index.apply(gateway("edge", "w", labels(), "All", ip));
    let after = [
        before[0].clone(),
        "service all -> [10, 9, 9, 9]".to_owned(),
        before[1].clone(),
    ];
    assert_eq!(through(&mut index), after);
}

#[test]
fn a_waypoint_does_not_go_through_itself() {
    let mut index = shop(json!({"istio.io/use-waypoint": "waypoint"}));
    index.apply(plain("all"));
    let own = json!({"gateway.networking.k8s.io/gateway-name": "waypoint"});
    index.apply(pod("x-1", "x", own));
    let managed = json!({"gateway.istio.io/managed": "istio.io-mesh-controller"});
    index.apply(service("x", json!({"app": "web"}), managed));
    let names: Vec<String> = through(&mut index)
        .iter()
        .map(|line| line.split(" ->").next().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["pod y-1", "service all"]);
}

#[test]
fn the_older_form_takes_an_accounts_pods_and_the_services_that_have_no_others() {
    let mut index = shop(json!({}));
    let meta = json!({"annotations": {"istio.io/for-service-account": "x"}});
    let changed = recomputed(
        &mut index,
        gateway("shop", "x", meta, "Same", hostname("w")),
    );
    assert_eq!(changed, ["pod x-1", "pod y-1", "shop/all", "shop/x"]);
    assert_eq!(
        through(&mut index),
        ["pod x-1 -> shop/w", "service x -> shop/w"]
    );
    assert_eq!(
        recomputed(&mut index, pod("y-1", "x", json!({}))),
        ["pod y-1", "shop/all", "shop/x"]
    );
    assert_eq!(
        through(&mut index).len(),
        4,
        "both pods are of x now, and of both services"
    );
}

#[test]
fn a_gateway_recomputes_its_users_only() {
    let mut index = shop(json!({}));
    index.apply(service(
        "x",
        json!({"who": "x"}),
        json!({"istio.io/use-waypoint": "waypoint"}),
    ));
    index.recompute();
    assert_eq!(recomputed(&mut index, plain("all")), ["shop/x"]);
    assert_eq!(recomputed(&mut index, plain("all")), [] as [&str; 0]);
    let removed = Change::Removed(Kind::Gateway, Key::new("shop", "waypoint"));
    assert_eq!(recomputed(&mut index, removed), ["shop/x"]);
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint", "labels": {"istio.io/waypoint-for": "all"}},
        "spec": {"controllerName": "istio.io/mesh-controller"},
    });
    assert_eq!(recomputed(&mut index, object(class)), [] as [&str; 0]);
}

#[test]
fn enrolling_a_namespace_recomputes_what_is_in_it_and_other_labels_do_not() {
    let mut index = shop(json!({}));
    let labelled = |labels: Value| {
        object(json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}))
    };
    let ambient = json!({"istio.io/dataplane-mode": "ambient"});
    assert_eq!(recomputed(&mut index, labelled(ambient)), [] as [&str; 0]);
    let enrolled = json!({"istio.io/use-waypoint": "waypoint"});
    assert_eq!(
        recomputed(&mut index, labelled(enrolled)),
        ["pod x-1", "pod y-1", "shop/all", "shop/x"]
    );
}
