//! Pods as Kubernetes writes them, and what is read of each.

use serde_json::{Value, json};

use super::*;

fn pod(meta: Value, spec: Value, status: Value) -> Option<Pod> {
    let mut object = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": []}, "status": status});
    for (target, source) in [("metadata", meta), ("spec", spec)] {
        for (key, value) in source.as_object().unwrap() {
            object[target][key] = value.clone();
        }
    }
    // As a watch reads it, and as Kubernetes' own type does.
    let whole = serde_json::from_value(object.clone()).unwrap();
    let read: lean::Lean = serde_json::from_value(object).unwrap();
    let pod = Pod::from_kubernetes(&read.0);
    assert_eq!(pod, Pod::from_kubernetes(&whole));
    pod
}

fn owned(kind: &str, owner: &str, labels: Value) -> Owner {
    let owner =
        json!([{"apiVersion": "v1", "kind": kind, "name": owner, "uid": "u", "controller": true}]);
    pod(
        json!({"ownerReferences": owner, "generateName": "p-", "labels": labels}),
        json!({}),
        json!({}),
    )
    .unwrap()
    .owner
}

#[test]
fn the_owner_names_the_workload() {
    let hash = || json!({"pod-template-hash": "abc12"});
    let rollout = json!({"rollouts-pod-template-hash": "abc12"});
    let cases = [
        (
            owned("ReplicaSet", "web-v1-abc12", hash()),
            "web-v1",
            OwnerKind::Deployment,
        ),
        (
            owned("ReplicaSet", "web-v1-abc12", rollout),
            "web-v1",
            OwnerKind::Deployment,
        ),
        (
            owned("ReplicaSet", "bare", json!({})),
            "bare",
            OwnerKind::Deployment,
        ),
        (
            owned("ReplicaSet", "other-zzz", hash()),
            "other-zzz",
            OwnerKind::Deployment,
        ),
        (
            owned(
                "ReplicationController",
                "dc-1",
                json!({"deploymentconfig": "dc"}),
            ),
            "dc",
            OwnerKind::Deployment,
        ),
        (
            owned("StatefulSet", "db", json!({})),
            "db",
            OwnerKind::Deployment,
        ),
        (
            owned("DaemonSet", "agent", json!({})),
            "agent",
            OwnerKind::Deployment,
        ),
        (
            owned("Job", "nightly-28000000", json!({})),
            "nightly",
            OwnerKind::CronJob,
        ),
        (
            owned("Job", "nightly-2800", json!({})),
            "nightly-2800",
            OwnerKind::Job,
        ),
        (owned("Job", "once", json!({})), "once", OwnerKind::Job),
        (
            owned(
                "Job",
                "once",
                json!({"service.istio.io/workload-name": "named"}),
            ),
            "named",
            OwnerKind::Job,
        ),
        (
            pod(json!({}), json!({}), json!({})).unwrap().owner,
            "p",
            OwnerKind::Pod,
        ),
    ];
    for (owner, name, kind) in cases {
        assert_eq!((&*owner.name, owner.kind), (name, kind));
    }
}

#[test]
fn hbone_needs_the_annotation_or_a_native_tunnel() {
    let tunnel = |meta| pod(meta, json!({}), json!({})).unwrap().tunnel;
    assert_eq!(tunnel(json!({})), Tunnel::None);
    assert_eq!(
        tunnel(json!({"labels": {"istio.io/dataplane-mode": "ambient"}})),
        Tunnel::None
    );
    assert_eq!(
        tunnel(json!({"annotations": {REDIRECTION: "enabled"}})),
        Tunnel::Captured
    );
    assert_eq!(
        tunnel(json!({"annotations": {REDIRECTION: "disabled"}})),
        Tunnel::None
    );
    assert_eq!(
        tunnel(json!({"labels": {"networking.istio.io/tunnel": "http"}})),
        Tunnel::Native
    );
}

#[test]
fn readiness_is_the_condition_and_ends_with_deletion() {
    let ready = json!({"conditions": [{"type": "Initialized", "status": "False"}, {"type": "Ready", "status": "True"}]});
    let not = json!({"conditions": [{"type": "Ready", "status": "False"}]});
    assert!(pod(json!({}), json!({}), ready.clone()).unwrap().ready);
    assert!(!pod(json!({}), json!({}), not).unwrap().ready);
    assert!(!pod(json!({}), json!({}), json!({})).unwrap().ready);
    assert!(
        !pod(
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            json!({}),
            ready
        )
        .unwrap()
        .ready
    );
}

#[test]
fn addresses_are_all_of_them_or_none() {
    let addresses = |status| pod(json!({}), json!({}), status).unwrap().addresses;
    let both: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(
        addresses(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})),
        both
    );
    assert_eq!(addresses(json!({"podIP": "10.0.0.1"})), both[..1]);
    assert_eq!(
        addresses(json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "garbage"}]})),
        [] as [IpAddr; 0]
    );
    assert_eq!(addresses(json!({})), [] as [IpAddr; 0]);
}

#[test]
fn a_pod_that_ended_is_none() {
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(pod(json!({}), json!({}), json!({"phase": phase})), None);
    }
    for phase in ["Pending", "Running", "Unknown"] {
        assert!(pod(json!({}), json!({}), json!({"phase": phase})).is_some());
    }
}

#[test]
fn named_ports_are_tcp_ports_of_containers_and_sidecars() {
    let port = |name: &str, number: u16, protocol: &str| json!({"name": name, "containerPort": number, "protocol": protocol});
    let spec = json!({
        "containers": [{"name": "c", "ports": [port("web", 80, "TCP"), port("dns", 53, "UDP"), {"name": "plain", "containerPort": 81}]}],
        "initContainers": [
            {"name": "sidecar", "restartPolicy": "Always", "ports": [port("admin", 15000, "TCP")]},
            {"name": "setup", "ports": [port("setup", 1, "TCP")]},
        ],
    });
    let pod = pod(json!({}), spec, json!({})).unwrap();
    assert_eq!(
        [pod.port("web"), pod.port("plain"), pod.port("admin")],
        [Some(80), Some(81), Some(15000)]
    );
    assert_eq!(
        [pod.port("dns"), pod.port("setup"), pod.port("none")],
        [None, None, None]
    );
}
