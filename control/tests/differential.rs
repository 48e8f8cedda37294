//! What the real istiod sent for a cluster's objects, against what control makes of the same.
//!
//! `differential/NAME-objects.json` are objects as the API server had them,
//! `differential/NAME-istiod.json` is what istiod (master of 2026-08-27, with
//! AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY=true) told a node proxy of them, as `wds-diff fetch`
//! recorded it. Differences that are meant are in `accepted-differences.yaml`, each with its reason.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is the report.

use control::difference::{Accepted, Snapshot, compare};
use control::index::Index;
use control::objects::{
    AuthorizationPolicy, Change, EndpointSlice, Gateway, GatewayClass, Namespace, Node, Object,
    PeerAuthentication, Pod, Service,
};
use control::translate::Mesh;
use control::xds::store::Store;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn parse<K: DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap()
}

fn object(value: &Value) -> Option<Object> {
    let kind = value["kind"].as_str().unwrap();
    match kind {
        "Namespace" => Some(Object::Namespace(Namespace::from(&parse(value)))),
        "Node" => Some(Object::Node(Node::from(&parse(value)))),
        "Pod" => Pod::from_kubernetes(&parse(value)).map(|pod| Object::Pod(Box::new(pod))),
        "Service" => Service::from_kubernetes(&parse(value))
            .map(|service| Object::Service(Box::new(service))),
        "EndpointSlice" => EndpointSlice::from_kubernetes(&parse(value))
            .map(|slice| Object::EndpointSlice(Box::new(slice))),
        "AuthorizationPolicy" => Some(Object::AuthorizationPolicy(Box::new(
            AuthorizationPolicy::from(&parse(value)),
        ))),
        "Gateway" => Some(Object::Gateway(Box::new(Gateway::from(&parse(value))))),
        "GatewayClass" => Some(Object::GatewayClass(Box::new(GatewayClass::from(&parse(
            value,
        ))))),
        "PeerAuthentication" => Some(Object::PeerAuthentication(Box::new(
            PeerAuthentication::from(&parse(value)),
        ))),
        other => panic!("{other} is not watched"),
    }
}

fn differs(objects: &str, istiod: &str, expected_accepted: usize) {
    let objects: Value = serde_json::from_str(objects).unwrap();
    let istiod: Snapshot = serde_json::from_str(istiod).unwrap();
    let accepted: Vec<Accepted> =
        serde_yaml_ng::from_str(include_str!("accepted-differences.yaml")).unwrap();
    let mut index = Index::new(Mesh::default());
    for object in objects["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(object)
    {
        index.apply(Change::Applied(object));
    }
    let mut store = Store::default();
    store.apply(index.recompute());
    let comparison = compare(&istiod, &Snapshot::of(&store).unwrap(), &accepted);
    assert_eq!(comparison.unexpected, []);
    assert_eq!(comparison.accepted, expected_accepted);
    assert!(istiod.resources.len() > 30, "the recording is not empty");
}

#[test]
fn a_cluster_with_every_kind_of_object_is_told_as_istiod_tells_it() {
    differs(
        include_str!("differential/mixed-objects.json"),
        include_str!("differential/mixed-istiod.json"),
        5,
    );
}

#[test]
fn a_strict_mesh_with_exceptions_is_told_as_istiod_tells_it() {
    differs(
        include_str!("differential/strict-objects.json"),
        include_str!("differential/strict-istiod.json"),
        8,
    );
}
