//! What a cluster costs on the heap: bytes for each pod and each service that control knows, and how much
//! more it takes while they are taken in. The program's memory grows by it.
#![expect(clippy::unwrap_used, reason = "a test ends where its data is wrong")]

#[path = "../../waypoint/tests/memory/counting.rs"]
mod counting;

use control::index::Index;
use control::objects::{Change, EndpointSlice, Namespace, Node, Object, Pod, Service};
use control::resource::ResourceType;
use control::translate::Mesh;
use control::xds::store::Store;
use counting::{Cost, cost};
use serde_json::{Value, json};

const NAMESPACES: usize = 10;
const NODES: usize = 20;
const SERVICES: usize = 200;
const PODS: usize = 2_000;

fn namespace(service: usize) -> String {
    format!("team-{}", service % NAMESPACES)
}

fn address(pod: usize) -> String {
    format!("10.128.{}.{}", pod / 250, pod % 250)
}

fn places() -> Vec<Value> {
    let namespaces = (0..NAMESPACES).map(|number| {
        json!({"kind": "Namespace", "metadata": {"name": namespace(number), "labels": {"istio.io/dataplane-mode": "ambient"}}})
    });
    let nodes = (0..NODES).map(|number| {
        let labels = json!({"topology.kubernetes.io/region": "north", "topology.kubernetes.io/zone": format!("north-{}", number % 3)});
        json!({"kind": "Node", "metadata": {"name": format!("node-{number}"), "labels": labels}})
    });
    namespaces.chain(nodes).collect()
}

fn service(number: usize) -> Value {
    json!({
        "kind": "Service",
        "metadata": {"name": format!("service-{number}"), "namespace": namespace(number)},
        "spec": {
            "clusterIP": format!("10.96.{}.{}", number / 250, number % 250),
            "clusterIPs": [format!("10.96.{}.{}", number / 250, number % 250)],
            "selector": {"app": format!("service-{number}")},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "metrics", "port": 9090}],
        },
    })
}

/// Replicas of a Deployment, as a cluster's controllers make them.
fn pod(number: usize) -> Value {
    let service = number % SERVICES;
    let (app, hash) = (format!("service-{service}"), "7d9c6b5f48");
    let labels = json!({
        "app": app, "version": "v1", "pod-template-hash": hash,
        "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop", "helm.sh/chart": "shop-1.2.3",
    });
    json!({
        "kind": "Pod",
        "metadata": {
            "name": format!("{app}-{hash}-{number:05}"), "namespace": namespace(service),
            "generateName": format!("{app}-{hash}-"),
            "uid": format!("a3bb189e-8bf9-3888-9912-{number:012}"),
            "labels": labels,
            "annotations": {"ambient.istio.io/redirection": "enabled"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": format!("{app}-{hash}"), "uid": "b"}],
        },
        "spec": {
            "nodeName": format!("node-{}", number % NODES), "serviceAccountName": app,
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": address(number), "podIPs": [{"ip": address(number)}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn slice(service: usize) -> Value {
    let endpoints = (service..PODS).step_by(SERVICES).map(|number| {
        json!({
            "addresses": [address(number)], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": namespace(service), "name": pod(number)["metadata"]["name"]},
        })
    });
    let endpoints: Vec<Value> = endpoints.collect();
    json!({
        "kind": "EndpointSlice",
        "metadata": {"name": format!("service-{service}-x7k2p"), "namespace": namespace(service),
            "labels": {"kubernetes.io/service-name": format!("service-{service}")}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}],
        "endpoints": endpoints,
    })
}

/// As the watch converts what the API server sends.
fn read(value: &Value) -> Object {
    let value = value.clone();
    match value["kind"].as_str().unwrap() {
        "Namespace" => Object::Namespace(Namespace::from(&serde_json::from_value(value).unwrap())),
        "Node" => Object::Node(Node::from(&serde_json::from_value(value).unwrap())),
        "Service" => Object::Service(Box::new(
            Service::from_kubernetes(&serde_json::from_value(value).unwrap()).unwrap(),
        )),
        "Pod" => Object::Pod(Box::new(
            Pod::from_kubernetes(&serde_json::from_value(value).unwrap()).unwrap(),
        )),
        _ => Object::EndpointSlice(Box::new(
            EndpointSlice::from_kubernetes(&serde_json::from_value(value).unwrap()).unwrap(),
        )),
    }
}

#[test]
fn a_large_cluster_costs_little() {
    // All of it is made before anything is counted.
    let places = places();
    let services: Vec<Value> = (0..SERVICES).map(service).collect();
    let pods: Vec<Value> = (0..PODS).map(pod).collect();
    let slices: Vec<Value> = (0..SERVICES).map(slice).collect();
    let (mut index, mut store) = (Index::new(Mesh::default()), Store::default());
    let mut bring = |objects: &[Value]| {
        cost(|| {
            for object in objects {
                index.apply(Change::Applied(read(object)));
            }
            let updates = index.recompute();
            store.apply(updates);
        })
    };
    bring(&places);
    let of_services = bring(&services);
    let of_pods = bring(&pods);
    let of_slices = bring(&slices);
    // The API server's watch broke, and everything is listed again.
    let again = bring(&pods);
    let addresses = store.collection(ResourceType::Address).unwrap();
    assert_eq!(addresses.iter().len(), SERVICES + PODS);
    let each = |cost: Cost, count: usize| cost.kept / count;
    let service = each(of_services, SERVICES);
    let pod = each(of_pods, PODS);
    let endpoint = each(of_slices, PODS);
    println!("a service {service}, a pod {pod}, its place in a slice {endpoint} bytes");
    println!("while they are taken in: services {of_services:?}, pods {of_pods:?}");
    assert!(service < 2_500, "a service costs {service} bytes");
    assert!(pod < 1_300, "a pod costs {pod} bytes");
    assert!(endpoint < 180, "a pod in a slice costs {endpoint} bytes");
    assert_eq!(again.kept, 0, "the same objects again cost nothing");
    assert!(of_pods.passing / PODS < 1_000, "{of_pods:?}");
}
