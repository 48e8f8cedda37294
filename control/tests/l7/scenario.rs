//! One scenario: its objects into an index, and both sides' resources in one form.

use std::path::PathBuf;
use std::sync::Arc;

use control::index::Index;
use control::objects::{
    AuthorizationPolicy, Change, Gateway, Key, Kind, Namespace, Object, PeerAuthentication, Pod,
    Routing, Service, mesh_config,
};
use control::resource::ResourceType;
use control::translate::Mesh;
use serde::Deserialize;
use serde_json::{Value, json};
use waypoint::source::json::Descriptors;

use super::form::{Resources, add_json as add};

/// The scenarios that are made of objects that control reads.
pub(crate) const NAMES: &[&str] = &[
    "bookinfo",
    "protocols",
    "routing",
    "traffic",
    "policy",
    "jwt",
    "gatewayapi",
    "external",
    "workloads",
    "everything",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../waypoint/tests/fixtures/istiod")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

/// What istiod sent.
pub(crate) fn istiods(name: &str) -> Resources {
    use base64::Engine;
    let dump: Value = serde_json::from_str(&read(&format!("{name}.pb.json"))).unwrap();
    let descriptors = Descriptors::get();
    let words = self::dump(name);
    let mut resources = Resources::new();
    for resource in dump.as_array().unwrap() {
        let url = resource["type_url"].as_str().unwrap();
        if url.contains("envoy.config.") && !url.ends_with("TypedExtensionConfig") {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(resource["value"].as_str().unwrap())
                .unwrap();
            let told = descriptors.json(url, &bytes).ok();
            // A filter that the descriptors do not know (mongo_proxy): as it was recorded in words.
            let recorded = || {
                let same = |one: &&Value| one["@type"] == url && one["name"] == resource["name"];
                words.iter().find(same).unwrap().clone()
            };
            add(&mut resources, told.unwrap_or_else(recorded));
        }
    }
    resources
}

fn dump(name: &str) -> Vec<Value> {
    let dump: Value = serde_json::from_str(&read(&format!("{name}.json"))).unwrap();
    dump["resources"].as_array().unwrap().clone()
}

/// What control makes of the same objects.
pub(crate) fn ours(name: &str) -> Resources {
    let mut index = Index::new(Mesh {
        trust_domain_aliases: vec!["old.local".to_owned()],
        providers: Arc::new(mesh_config::read(&read("mesh.yaml")).unwrap().providers),
        ..Mesh::default()
    });
    for object in objects(name) {
        index.apply(Change::Applied(object));
    }
    index.recompute();
    let (updates, _) = index.take_l7();
    let descriptors = Descriptors::get();
    let mut resources = Resources::new();
    let waypoint = Key::new(name, "waypoint");
    let (_, updates) = updates
        .into_iter()
        .find(|(seat, _)| seat.waypoint == waypoint)
        .unwrap();
    for update in updates {
        let resource = update.resource.unwrap();
        assert_ne!(update.kind, ResourceType::Workload);
        add(
            &mut resources,
            descriptors
                .json(update.kind.url(), &resource.value)
                .unwrap(),
        );
    }
    resources
}

/// The endpoints of ServiceEntries and WorkloadEntries, as both tell waypoints of them: istiod's, ours.
pub(crate) fn entries(name: &str) -> (Vec<Value>, Vec<Value>) {
    let of_entry = |resource: &Value| text(&resource["uid"]).contains("Entry/");
    let mut index = Index::new(Mesh::default());
    for object in objects(name) {
        index.apply(Change::Applied(object));
    }
    let descriptors = Descriptors::get();
    let updates = index.recompute().into_iter();
    let ours = updates.filter(|update| update.kind == ResourceType::Workload);
    let ours = ours.filter_map(|update| {
        let value = update.resource?.value;
        Some(
            descriptors
                .json(ResourceType::Workload.url(), &value)
                .unwrap(),
        )
    });
    let sorted = |resources: &mut dyn Iterator<Item = Value>| {
        let mut all: Vec<Value> = resources.filter(|one| of_entry(one)).collect();
        all.sort_by_key(|resource| resource["uid"].to_string());
        all
    };
    (
        sorted(&mut dump(name).into_iter()),
        sorted(&mut ours.into_iter()),
    )
}

fn documents(name: &str) -> Vec<Value> {
    let traffic = match name {
        "workloads" => "workload",
        "everything" => "all",
        _ => "service",
    };
    let text = [read("common.yaml"), read(&format!("{name}.yaml"))].join("\n---\n");
    let text = text
        .replace("NAMESPACE", name)
        .replace("WAYPOINT_FOR", traffic);
    let mut all = split(&text);
    if name != "policy" {
        // All scenarios were in one cluster: what is in the root namespace concerns each.
        let root = split(&read("policy.yaml")).into_iter();
        all.extend(root.filter(|document| document["metadata"]["namespace"] == "istio-system"));
    }
    all
}

fn split(text: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

fn objects(name: &str) -> Vec<Object> {
    let (documents, dump) = (documents(name), dump(name));
    let mut objects: Vec<Object> = dump
        .iter()
        .filter_map(|resource| pod(resource, &documents))
        .collect();
    for mut document in documents {
        let kind = document["kind"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "Namespace" => objects.push(Object::Namespace(Namespace::from(&parse(&document)))),
            "Gateway" => {
                let host = format!("waypoint.{name}.svc.cluster.local");
                document["status"] = json!({"addresses": [{"type": "Hostname", "value": host}]});
                objects.push(Object::Gateway(Box::new(Gateway::from(&parse(&document)))));
            }
            "Service" => {
                let (service, namespace) = (
                    text(&document["metadata"]["name"]),
                    text(&document["metadata"]["namespace"]),
                );
                if document["spec"]["clusterIP"] != "None" {
                    let host = format!("{service}.{namespace}.svc.cluster.local");
                    document["spec"]["clusterIPs"] = json!(addresses(&dump, &host));
                }
                objects.extend(
                    Service::from_kubernetes(&parse(&document))
                        .map(|service| Object::Service(Box::new(service))),
                );
            }
            "AuthorizationPolicy" => objects.push(Object::AuthorizationPolicy(Box::new(
                AuthorizationPolicy::from(&parse(&document)),
            ))),
            "PeerAuthentication" => objects.push(Object::PeerAuthentication(Box::new(
                PeerAuthentication::from(&parse(&document)),
            ))),
            other => {
                if other == "ServiceEntry" {
                    document["status"] = given(&dump, &document);
                }
                let routing = Kind::ROUTING.into_iter().find(|kind| kind.name() == other);
                let read = routing.and_then(|kind| Routing::read(kind, &parse(&document)));
                objects.extend(read.map(|routing| Object::Routing(Box::new(routing))));
            }
        }
    }
    objects
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The pod of a workload that istiod told of, with the labels of its Deployment.
fn pod(workload: &Value, documents: &[Value]) -> Option<Object> {
    use base64::Engine;
    let of_pod = workload["uid"]
        .as_str()
        .is_some_and(|uid| uid.contains("//Pod/"));
    if !of_pod {
        return None;
    }
    let of = documents.iter().find(|document| {
        document["kind"] == "Deployment"
            && document["metadata"]["name"] == workload["workload_name"]
    });
    let name = text(&workload["name"]);
    let ips = workload["addresses"].as_array()?.iter().map(|address| {
        let octets = base64::engine::general_purpose::STANDARD
            .decode(address.as_str().unwrap())
            .unwrap();
        let ip: std::net::IpAddr = match <[u8; 4]>::try_from(octets.as_slice()) {
            Ok(four) => four.into(),
            Err(_) => <[u8; 16]>::try_from(octets.as_slice()).unwrap().into(),
        };
        json!({"ip": ip.to_string()})
    });
    let template = of.map_or(Value::Null, |deployment| {
        deployment["spec"]["template"].clone()
    });
    let mut labels = template["metadata"]["labels"].clone();
    if labels.is_null() {
        labels = json!({"gateway.networking.k8s.io/gateway-name": workload["workload_name"]});
    }
    let captured = workload["tunnel_protocol"] == "HBONE";
    let annotations = if captured {
        json!({"ambient.istio.io/redirection": "enabled"})
    } else {
        json!({})
    };
    let ready = if workload["status"] == "UNHEALTHY" {
        "False"
    } else {
        "True"
    };
    let containers = if template["spec"]["containers"].is_array() {
        template["spec"]["containers"].clone()
    } else {
        json!([])
    };
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": workload["workload_name"], "uid": "u", "controller": true}]);
    let object = json!({
        "metadata": {"name": name, "namespace": workload["namespace"], "labels": labels, "annotations": annotations, "generateName": "x-", "ownerReferences": owner},
        "spec": {"containers": containers, "serviceAccountName": workload["service_account"]},
        "status": {"podIPs": ips.collect::<Vec<_>>(), "conditions": [{"type": "Ready", "status": ready}]},
    });
    Pod::from_kubernetes(&parse(&object)).map(|pod| Object::Pod(Box::new(pod)))
}

/// The addresses that istiod's own controller gave to an entry's hosts.
fn given(dump: &[Value], entry: &Value) -> Value {
    let hosts = entry["spec"]["hosts"].as_array().unwrap().iter().map(text);
    let given = hosts.flat_map(|host| {
        let one = |address| json!({"host": host, "value": address});
        addresses(dump, &host)
            .into_iter()
            .map(one)
            .collect::<Vec<_>>()
    });
    json!({"addresses": given.collect::<Vec<_>>()})
}

/// The virtual addresses of a service, by the chains that they lead to.
fn addresses(dump: &[Value], host: &str) -> Vec<String> {
    let main = dump
        .iter()
        .find(|resource| {
            resource["name"] == "main_internal" && resource.get("filter_chains").is_some()
        })
        .unwrap();
    let ranges =
        main.pointer("/filter_chain_matcher/matcher_tree/custom_match/typed_config/range_matchers");
    let of_host = ranges
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|range| {
            range["on_match"]
                .to_string()
                .contains(&format!("|{host}\""))
        });
    let addresses = of_host
        .and_then(|range| range["ranges"].as_array())
        .into_iter()
        .flatten();
    addresses
        .map(|range| text(&range["address_prefix"]))
        .collect()
}
