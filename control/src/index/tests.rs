//! The index: what each change recomputes, what stays in force, and that order does not matter.

mod concerns;
mod entries;
mod keys;
mod labels;
mod order;
mod seats;
mod waypoints;

use serde_json::{Value, json};

use super::*;
use crate::objects::{
    AuthorizationPolicy, Gateway, GatewayClass, MeshConfig, PeerAuthentication, Routing,
};

/// An object from the JSON that the API server would send.
pub(super) fn object(value: Value) -> Change {
    let kind = value["kind"].as_str().unwrap().to_owned();
    let removed = |kind| Change::Removed(kind, Key::new("", ""));
    match kind.as_str() {
        "Namespace" => Change::Applied(Object::Namespace(Namespace::from(
            &serde_json::from_value(value).unwrap(),
        ))),
        "Node" => Change::Applied(Object::Node(Node::from(
            &serde_json::from_value(value).unwrap(),
        ))),
        "Pod" => Pod::from_kubernetes(&serde_json::from_value(value).unwrap())
            .map_or(removed(Kind::Pod), |pod| {
                Change::Applied(Object::Pod(Box::new(pod)))
            }),
        "Service" => Service::from_kubernetes(&serde_json::from_value(value).unwrap())
            .map_or(removed(Kind::Service), |service| {
                Change::Applied(Object::Service(Box::new(service)))
            }),
        "EndpointSlice" => EndpointSlice::from_kubernetes(&serde_json::from_value(value).unwrap())
            .map_or(removed(Kind::EndpointSlice), |slice| {
                Change::Applied(Object::EndpointSlice(Box::new(slice)))
            }),
        routing if Kind::ROUTING.iter().any(|kind| kind.name() == routing) => {
            let kind = Kind::ROUTING
                .into_iter()
                .find(|kind| kind.name() == routing)
                .unwrap();
            Change::Applied(Object::Routing(Box::new(
                Routing::read(kind, &serde_json::from_value(value).unwrap()).unwrap(),
            )))
        }
        "Gateway" => Change::Applied(Object::Gateway(Box::new(Gateway::from(
            &serde_json::from_value(value).unwrap(),
        )))),
        "GatewayClass" => Change::Applied(Object::GatewayClass(Box::new(GatewayClass::from(
            &serde_json::from_value(value).unwrap(),
        )))),
        "ConfigMap" => Change::Applied(Object::MeshConfig(Box::new(MeshConfig::from(
            &serde_json::from_value(value).unwrap(),
        )))),
        "AuthorizationPolicy" => Change::Applied(Object::AuthorizationPolicy(Box::new(
            AuthorizationPolicy::from(&serde_json::from_value(value).unwrap()),
        ))),
        _ => Change::Applied(Object::PeerAuthentication(Box::new(
            PeerAuthentication::from(&serde_json::from_value(value).unwrap()),
        ))),
    }
}

fn pod(name: &str, app: &str, node: &str) -> Change {
    object(json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"podIP": "10.0.0.1"},
    }))
}

fn service(name: &str, selector: Value) -> Change {
    let spec =
        json!({"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    object(
        json!({"kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
    )
}

fn slice(name: &str, service: &str, pod: &str) -> Change {
    object(json!({
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod}},
            {"addresses": ["203.0.113.1"]},
        ],
    }))
}

fn policy(kind: &str, namespace: &str, name: &str, generation: i64, spec: Value) -> Change {
    object(json!({
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "generation": generation},
        "spec": spec,
    }))
}

/// Two pods on two nodes, of apps a and b; nothing dirty.
fn shop() -> Index {
    let mut index = Index::new(Mesh::default());
    for change in [
        pod("a-1", "a", "node-a"),
        pod("b-1", "b", "node-b"),
        service("a", json!({"app": "a"})),
        service("hand", Value::Null),
    ] {
        index.apply(change);
    }
    index.recompute();
    index
}

/// What a change recomputes, by name without the usual beginnings.
fn recomputed(index: &mut Index, change: Change) -> Vec<String> {
    index.apply(change);
    let mut names: Vec<String> = index
        .recompute()
        .into_iter()
        // A workload is told to waypoints too, under the same name.
        .filter(|update| update.kind != ResourceType::Workload)
        .map(|update| {
            let name = update
                .name
                .replace("Kubernetes//Pod/shop/", "pod ")
                .replace(".shop.svc.cluster.local", "");
            name.replace("Kubernetes/discovery.k8s.io/EndpointSlice/shop/", "slice ")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_change_recomputes_what_depends_on_it_and_nothing_else() {
    let mut index = shop();
    let index = &mut index;
    assert_eq!(
        recomputed(index, pod("a-1", "a", "node-a")),
        [] as [&str; 0],
        "the same again"
    );
    assert_eq!(recomputed(index, pod("a-1", "a", "node-b")), ["pod a-1"]);
    let node = |zone: &str| {
        object(
            json!({"kind": "Node", "metadata": {"name": "node-b", "labels": {"topology.kubernetes.io/zone": zone}}}),
        )
    };
    assert_eq!(recomputed(index, node("z")), ["pod a-1", "pod b-1"]);
    assert_eq!(recomputed(index, node("z")), [] as [&str; 0]);
    assert_eq!(
        recomputed(index, Change::Removed(Kind::Node, Key::new("", "node-b"))),
        ["pod a-1", "pod b-1"]
    );
    assert_eq!(
        recomputed(index, service("a", json!({"app": "b"}))),
        ["pod a-1", "pod b-1", "shop/a"]
    );
    assert_eq!(
        recomputed(index, service("a", json!({"app": "none"}))),
        ["pod b-1", "shop/a"]
    );
    let namespace =
        json!({"kind": "Namespace", "metadata": {"name": "shop", "annotations": {"x": "y"}}});
    assert_eq!(recomputed(index, object(namespace)), [] as [&str; 0]);
    let annotations = json!({"networking.istio.io/traffic-distribution": "PreferClose"});
    let namespace =
        json!({"kind": "Namespace", "metadata": {"name": "shop", "annotations": annotations}});
    assert_eq!(
        recomputed(index, object(namespace)),
        ["shop/a", "shop/hand"]
    );
}

#[test]
fn a_slice_concerns_pods_only_where_there_is_no_selector() {
    let mut index = shop();
    let index = &mut index;
    assert_eq!(
        recomputed(index, slice("s", "a", "a-1")),
        ["slice s/203.0.113.1"]
    );
    assert_eq!(
        recomputed(index, slice("h", "hand", "b-1")),
        ["pod b-1", "slice h/203.0.113.1"]
    );
    let bare = |change: &Change| matches!(change, Change::Applied(Object::EndpointSlice(slice)) if slice.addresses.len() == 1);
    assert!(bare(&slice("h", "hand", "b-1")));
    assert_eq!(
        recomputed(
            index,
            Change::Removed(Kind::EndpointSlice, Key::new("shop", "h"))
        ),
        ["pod b-1", "slice h/203.0.113.1"]
    );
    assert_eq!(
        recomputed(index, service("hand", Value::Null)),
        [] as [&str; 0]
    );
}

#[test]
fn a_policy_concerns_the_pods_it_selects() {
    let mut index = shop();
    let index = &mut index;
    let authorization = |namespace: &str, app: &str| {
        policy(
            "AuthorizationPolicy",
            namespace,
            "p",
            1,
            json!({"selector": {"matchLabels": {"app": app}}}),
        )
    };
    assert_eq!(
        recomputed(index, authorization("shop", "a")),
        ["pod a-1", "shop/p"]
    );
    assert_eq!(
        recomputed(index, authorization("shop", "b")),
        ["pod a-1", "pod b-1", "shop/p"]
    );
    assert_eq!(recomputed(index, authorization("other", "b")), ["other/p"]);
    assert_eq!(
        recomputed(index, authorization("istio-system", "b")),
        ["istio-system/p", "pod b-1"]
    );
    let everywhere = policy(
        "AuthorizationPolicy",
        "shop",
        "q",
        1,
        json!({"action": "DENY"}),
    );
    assert_eq!(
        recomputed(index, everywhere),
        ["shop/q"],
        "found by its scope"
    );
}

#[test]
fn a_peer_authentication_concerns_whom_it_reaches() {
    let mut index = shop();
    let index = &mut index;
    let strict = || json!({"mtls": {"mode": "STRICT"}});
    let own = json!({"selector": {"matchLabels": {"app": "a"}}, "portLevelMtls": {"80": {"mode": "PERMISSIVE"}}});
    let fixed = "istio-system/istio_converted_static_strict";
    let converted = "shop/converted_peer_authentication_web";
    assert_eq!(
        recomputed(index, policy("PeerAuthentication", "shop", "web", 1, own)),
        [fixed, "pod a-1", converted]
    );
    let all = recomputed(
        index,
        policy("PeerAuthentication", "shop", "all", 1, strict()),
    );
    assert_eq!(
        all,
        [
            fixed,
            "pod a-1",
            "pod b-1",
            "shop/converted_peer_authentication_all",
            converted
        ]
    );
    let root = recomputed(
        index,
        policy("PeerAuthentication", "istio-system", "mesh", 1, strict()),
    );
    assert!(
        root.contains(&"pod b-1".to_owned()) && root.contains(&converted.to_owned()),
        "{root:?}"
    );
    assert_eq!(
        recomputed(
            index,
            policy("PeerAuthentication", "istio-system", "mesh", 2, strict())
        ),
        [] as [&str; 0]
    );
}

fn in_force(index: &mut Index, change: Change) -> (Option<usize>, Wish) {
    index.apply(change);
    let rules = index
        .policies
        .get(&Key::new("shop", "p"))
        .and_then(|policy| policy.authorization.as_ref());
    let rules = rules.map(|authorization| authorization.rules.len());
    (rules, index.take_wishes().pop().unwrap())
}

#[test]
fn the_last_good_version_stays_in_force() {
    let mut index = shop();
    let index = &mut index;
    let with = |generation, port: &str| {
        let rules = json!([{"to": [{"operation": {"ports": [port]}}]}]);
        policy(
            "AuthorizationPolicy",
            "shop",
            "p",
            generation,
            json!({"rules": rules}),
        )
    };
    assert_eq!(
        in_force(index, with(1, "bad")).0,
        Some(0),
        "nothing better is known"
    );
    let (rules, wish) = in_force(index, with(2, "80"));
    assert_eq!((rules, wish.verdict), (Some(1), Verdict::accepted()));
    for _ in 0..2 {
        let (rules, wish) = in_force(index, with(3, "worse"));
        assert_eq!(rules, Some(1));
        assert!(!wish.verdict.accepted);
        assert_eq!(wish.source.generation, 3);
        assert!(
            wish.verdict.message.contains("generation 2"),
            "{}",
            wish.verdict.message
        );
    }
    assert_eq!(
        in_force(index, with(4, "90")).1.verdict,
        Verdict::accepted()
    );
}

#[test]
fn the_last_good_peer_authentication_stays_in_force() {
    let mut index = shop();
    let index = &mut index;
    let with = |generation, mode: &str| {
        policy(
            "PeerAuthentication",
            "shop",
            "p",
            generation,
            json!({"mtls": {"mode": mode}}),
        )
    };
    index.apply(with(1, "PERMISSIVE"));
    index.recompute();
    assert_eq!(recomputed(index, with(2, "nonsense")), [] as [&str; 0]);
    let wish = index.take_wishes().pop().unwrap();
    assert!(
        !wish.verdict.accepted && wish.verdict.message.contains("generation 1"),
        "{}",
        wish.verdict.message
    );
    assert!(!recomputed(index, with(3, "STRICT")).is_empty());
}

#[test]
fn what_is_gone_is_gone_from_every_relation() {
    let mut index = shop();
    for (kind, name) in [
        (Kind::Pod, "a-1"),
        (Kind::Pod, "b-1"),
        (Kind::Service, "a"),
        (Kind::Service, "hand"),
    ] {
        index.apply(Change::Removed(kind, Key::new("shop", name)));
    }
    assert!(
        index
            .recompute()
            .iter()
            .all(|update| update.resource.is_none())
    );
    assert!(
        index.pods_on_node.is_empty()
            && index.slices_of_pod.is_empty()
            && index.slices_of_service.is_empty()
    );
    assert!(
        Kind::ALL
            .into_iter()
            .all(|kind| index.keys(kind).is_empty())
    );
}
