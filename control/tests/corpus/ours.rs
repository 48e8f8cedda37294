//! What control makes of a set.

use std::collections::BTreeSet;
use std::sync::Arc;

use control::index::Index;
use control::objects::{
    AuthorizationPolicy, Change, Gateway, Key, Kind, Namespace, Node, Object, PeerAuthentication,
    Pod, Routing, Service, mesh_config,
};
use control::resource::ResourceType;
use control::translate::Mesh;
use serde_json::{Value, json};

use super::form::{Resources, add};
use super::sets::{NAMESPACE, Set};

/// The waypoint's clusters, endpoints and listeners.
pub(crate) fn resources(set: &Set) -> Resources {
    let mesh = mesh_config::read(&set.mesh()).unwrap();
    let mut index = Index::new(Mesh {
        providers: Arc::new(mesh.providers),
        tracers: Arc::new(mesh.tracers),
        loggers: Arc::new(mesh.loggers),
        defaults: Arc::new(mesh.defaults),
        ..Mesh::default()
    });
    for object in set.objects() {
        if let Some(object) = read(object) {
            index.apply(Change::Applied(object));
        }
    }
    index.recompute();
    let (updates, _) = index.take_l7();
    let mut resources = Resources::new();
    let waypoint = Key::new(NAMESPACE, "waypoint");
    let (_, updates) = updates
        .into_iter()
        .find(|(seat, _)| seat.waypoint == waypoint)
        .unwrap();
    for update in updates {
        let resource = update.resource.unwrap();
        assert_ne!(update.kind, ResourceType::Workload);
        add(&mut resources, update.kind.url(), &resource.value);
    }
    resources
}

fn read(mut object: Value) -> Option<Object> {
    fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        serde_json::from_value(value.clone()).unwrap()
    }
    let kind = object["kind"].as_str().unwrap().to_owned();
    Some(match kind.as_str() {
        "Namespace" => Object::Namespace(Namespace::from(&parse(&object))),
        "Node" => Object::Node(Node::from(&parse::<k8s_openapi::api::core::v1::Node>(
            &object,
        ))),
        "Pod" => Object::Pod(Box::new(Pod::from_kubernetes(&parse(&object))?)),
        "Service" => {
            if object["spec"]["clusterIP"].is_string() {
                let address = object["spec"]["clusterIP"].clone();
                object["spec"]["clusterIPs"] = json!([address]);
            }
            Object::Service(Box::new(Service::from_kubernetes(&parse(&object))?))
        }
        "Gateway" => Object::Gateway(Box::new(Gateway::from(&parse(&object)))),
        "AuthorizationPolicy" => {
            Object::AuthorizationPolicy(Box::new(AuthorizationPolicy::from(&parse(&object))))
        }
        "PeerAuthentication" => {
            Object::PeerAuthentication(Box::new(PeerAuthentication::from(&parse(&object))))
        }
        other => {
            let kind = Kind::ROUTING
                .into_iter()
                .find(|kind| kind.name() == other)?;
            Object::Routing(Box::new(Routing::read(kind, &parse(&object))?))
        }
    })
}

/// The fields of a set's objects that control passes over, by kind.
pub(crate) fn passed_over(set: &Set) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for object in set.objects() {
        if let Some(Object::Routing(routing)) = read(object) {
            let kind = routing.kind.name();
            let fields = routing.passed_over.iter();
            all.extend(fields.map(|field| format!("{kind} {field}")));
        }
    }
    all
}
