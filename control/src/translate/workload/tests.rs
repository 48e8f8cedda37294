//! Pods and bare addresses → workloads, field by field.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::objects::pod::Owner;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn a_pod() -> Pod {
    Pod {
        key: Key::new("shop", "web-1"),
        uid: "u".into(),
        labels: Arc::default(),
        tunnel: Tunnel::None,
        addresses: vec!["10.0.0.1".parse().unwrap()],
        node: "node-a".into(),
        service_account: "web".into(),
        host_network: false,
        ready: true,
        owner: Owner {
            name: "web".into(),
            kind: OwnerKind::Deployment,
        },
        ports: vec![("http".to_owned(), 8080)],
        entry: None,
    }
}

fn nothing() -> Context<'static> {
    Context {
        node: None,
        services: Vec::new(),
        waypoint: None,
        policies: Vec::new(),
    }
}

fn of(found: &Pod) -> Workload {
    pod(&Mesh::default(), found, &nothing()).unwrap()
}

fn a_service(ports: serde_json::Value) -> Service {
    let object =
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"ports": ports}});
    Service::from_kubernetes(&serde_json::from_value(object).unwrap()).unwrap()
}

fn numbers(list: &PortList) -> Vec<(u32, u32)> {
    list.ports
        .iter()
        .map(|port| (port.service_port, port.target_port))
        .collect()
}

#[test]
fn names_places_and_identity() {
    let found = of(&a_pod());
    assert_eq!(found.uid, "Kubernetes//Pod/shop/web-1");
    assert_eq!(
        (found.name.as_str(), found.namespace.as_str()),
        ("web-1", "shop")
    );
    assert_eq!(
        (found.service_account.as_str(), found.node.as_str()),
        ("web", "node-a")
    );
    assert_eq!(
        (
            found.cluster_id.as_str(),
            found.network.as_str(),
            found.trust_domain.as_str()
        ),
        ("Kubernetes", "", "")
    );
    assert_eq!(found.addresses, [vec![10, 0, 0, 1]]);
    let elsewhere = Mesh {
        cluster: "c2".to_owned(),
        network: "n2".to_owned(),
        trust_domain: "example.org".to_owned(),
        ..Mesh::default()
    };
    let found = pod(&elsewhere, &a_pod(), &nothing()).unwrap();
    assert_eq!(found.uid, "c2//Pod/shop/web-1");
    assert_eq!(
        (
            found.cluster_id.as_str(),
            found.network.as_str(),
            found.trust_domain.as_str()
        ),
        ("c2", "n2", "example.org")
    );
}

#[test]
fn both_addresses_of_a_dual_stack_pod() {
    let found = Pod {
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        ..a_pod()
    };
    assert_eq!(
        of(&found)
            .addresses
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>(),
        [4, 16]
    );
}

#[test]
fn a_pod_without_an_address_is_no_workload_yet() {
    assert_eq!(
        pod(
            &Mesh::default(),
            &Pod {
                addresses: Vec::new(),
                ..a_pod()
            },
            &nothing()
        ),
        None
    );
}

#[test]
fn tunnel_status_and_network_mode() {
    assert_eq!(of(&a_pod()).tunnel_protocol(), TunnelProtocol::None);
    let captured = of(&Pod {
        tunnel: Tunnel::Captured,
        ..a_pod()
    });
    assert_eq!(
        (captured.tunnel_protocol(), captured.native_tunnel),
        (TunnelProtocol::Hbone, false)
    );
    let native = of(&Pod {
        tunnel: Tunnel::Native,
        ..a_pod()
    });
    assert_eq!(
        (native.tunnel_protocol(), native.native_tunnel),
        (TunnelProtocol::Hbone, true)
    );
    assert_eq!(of(&a_pod()).status(), WorkloadStatus::Healthy);
    assert_eq!(
        of(&Pod {
            ready: false,
            ..a_pod()
        })
        .status(),
        WorkloadStatus::Unhealthy
    );
    assert_eq!(of(&a_pod()).network_mode(), NetworkMode::Standard);
    assert_eq!(
        of(&Pod {
            host_network: true,
            ..a_pod()
        })
        .network_mode(),
        NetworkMode::HostNetwork
    );
}

#[test]
fn canonical_names_fall_back_in_order() {
    let canonical = |pairs: &[(&str, &str)]| {
        let found = of(&Pod {
            labels: Arc::new(labels(pairs)),
            ..a_pod()
        });
        (found.canonical_name, found.canonical_revision)
    };
    let pair = |name: &str, revision: &str| (name.to_owned(), revision.to_owned());
    assert_eq!(canonical(&[]), pair("web", "latest"));
    assert_eq!(
        canonical(&[("app", "a"), ("version", "v1")]),
        pair("a", "v1")
    );
    let recommended = [
        ("app", "a"),
        ("app.kubernetes.io/name", "b"),
        ("version", "v1"),
        ("app.kubernetes.io/version", "2"),
    ];
    assert_eq!(canonical(&recommended), pair("b", "2"));
    let explicit = [
        ("app.kubernetes.io/name", "b"),
        ("service.istio.io/canonical-name", "c"),
        ("app.kubernetes.io/version", "2"),
        ("service.istio.io/canonical-revision", "3"),
    ];
    assert_eq!(canonical(&explicit), pair("c", "3"));
}

#[test]
fn the_owner_is_passed_on() {
    let kinds = [
        (OwnerKind::Deployment, WorkloadType::Deployment),
        (OwnerKind::CronJob, WorkloadType::Cronjob),
        (OwnerKind::Job, WorkloadType::Job),
        (OwnerKind::Pod, WorkloadType::Pod),
    ];
    for (kind, expected) in kinds {
        let found = of(&Pod {
            owner: Owner {
                name: "o".into(),
                kind,
            },
            ..a_pod()
        });
        assert_eq!(
            (found.workload_name.as_str(), found.workload_type()),
            ("o", expected)
        );
    }
}

#[test]
fn the_nodes_locality() {
    let node = Node {
        name: "node-a".to_owned(),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        subzone: String::new(),
    };
    let context = Context {
        node: Some(&node),
        ..nothing()
    };
    let found = pod(&Mesh::default(), &a_pod(), &context)
        .unwrap()
        .locality
        .unwrap();
    assert_eq!(
        (
            found.region.as_str(),
            found.zone.as_str(),
            found.subzone.as_str()
        ),
        ("r", "z", "")
    );
    let bare = Node {
        name: "node-a".to_owned(),
        ..Node::default()
    };
    assert_eq!(
        pod(
            &Mesh::default(),
            &a_pod(),
            &Context {
                node: Some(&bare),
                ..nothing()
            }
        )
        .unwrap()
        .locality,
        None
    );
}

#[test]
fn a_named_target_port_is_the_pods_own_number_or_left_out() {
    let service = a_service(json!([
        {"name": "a", "port": 80, "targetPort": "http"},
        {"name": "b", "port": 81, "targetPort": "absent"},
        {"name": "c", "port": 82, "targetPort": 9000},
    ]));
    let context = Context {
        services: vec![&service],
        waypoint: None,
        policies: vec!["shop/p".to_owned()],
        node: None,
    };
    let found = pod(&Mesh::default(), &a_pod(), &context).unwrap();
    assert_eq!(
        numbers(&found.services["shop/web.shop.svc.cluster.local"]),
        [(80, 8080), (82, 9000)]
    );
    assert_eq!(found.authorization_policies, ["shop/p"]);
}

#[test]
fn a_bare_address_joins_its_service_by_port_name() {
    let object = json!({
        "metadata": {"name": "s-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "a", "port": 8888}, {"name": "unknown", "port": 1}, {"name": "a", "port": 5, "protocol": "UDP"}],
        "endpoints": [
            {"addresses": ["203.0.113.5"]},
            {"addresses": ["203.0.113.6"], "conditions": {"ready": false}},
            {"addresses": ["203.0.113.5"]},
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "web-1"}},
        ],
    });
    let slice = EndpointSlice::from_kubernetes(&serde_json::from_value(object).unwrap()).unwrap();
    assert_eq!(slice.pods, [Key::new("shop", "web-1")]);
    assert_eq!(slice.addresses.len(), 2);
    let service = a_service(json!([{"name": "a", "port": 80, "targetPort": 8080}]));
    let made: Vec<Workload> = slice
        .addresses
        .iter()
        .map(|endpoint| bare_endpoint(&Mesh::default(), &slice, endpoint, &service))
        .collect();
    assert_eq!(
        made[0].uid,
        "Kubernetes/discovery.k8s.io/EndpointSlice/shop/s-1/203.0.113.5"
    );
    assert_eq!(
        numbers(&made[0].services["shop/web.shop.svc.cluster.local"]),
        [(80, 8888)]
    );
    assert_eq!(made[0].network_mode(), NetworkMode::HostNetwork);
    assert_eq!(
        (made[0].status(), made[1].status()),
        (WorkloadStatus::Healthy, WorkloadStatus::Unhealthy)
    );
    assert_eq!(
        (made[0].tunnel_protocol(), made[0].service_account.as_str()),
        (TunnelProtocol::None, "")
    );
}

#[test]
fn slices_of_no_service_or_of_names_are_left_out() {
    let slice = |labels: serde_json::Value, kind: &str| {
        let object = json!({"metadata": {"name": "s", "namespace": "n", "labels": labels}, "addressType": kind, "endpoints": []});
        EndpointSlice::from_kubernetes(&serde_json::from_value(object).unwrap())
    };
    assert_eq!(slice(json!({}), "IPv4"), None);
    assert_eq!(
        slice(json!({"kubernetes.io/service-name": "x"}), "FQDN"),
        None
    );
    assert!(slice(json!({"kubernetes.io/service-name": "x"}), "IPv6").is_some());
}
