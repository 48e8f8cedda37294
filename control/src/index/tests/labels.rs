//! Labels of callers: told to waypoints only while a route asks for them.

use mesh::proto::workload::Workload as Wire;
use mesh::workload::Workload;
use prost::Message;
use serde_json::{Value, json};

use super::super::*;
use super::{object, shop};

fn route(name: &str, labels: Value) -> Change {
    let found = json!([{"sourceLabels": labels}]);
    object(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": ["a"], "http": [{"match": found, "route": [{"destination": {"host": "a"}}]}]},
    }))
}

/// The labels of each pod that waypoints are told anew.
fn told(index: &mut Index) -> Vec<(String, Vec<(String, String)>)> {
    let updates = index.recompute().into_iter();
    let mut all: Vec<_> = updates
        .filter(|update| update.kind == ResourceType::Workload)
        .map(|update| {
            let wire = Wire::decode(update.resource.unwrap().value.as_ref()).unwrap();
            let workload = Workload::try_from(wire).unwrap();
            let labels = workload.labels.into_iter().flat_map(|labels| *labels);
            let labels = labels.map(|(name, text)| (name.to_string(), text.to_string()));
            (workload.name.to_string(), labels.collect())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn what_routes_ask_of_callers_is_told_of_every_pod_and_taken_back() {
    let mut index = shop();
    let app = |pod: &str, app: &str| (pod.to_owned(), vec![("app".to_owned(), app.to_owned())]);
    let none = |pod: &str| (pod.to_owned(), Vec::new());
    index.apply(route("one", json!({"app": "a", "missing": "x"})));
    assert_eq!(told(&mut index), [app("a-1", "a"), app("b-1", "b")]);
    index.apply(route("two", json!({"app": "b"})));
    assert_eq!(told(&mut index), [], "nobody asks for anything new");
    index.apply(Change::Removed(
        Kind::VirtualService,
        Key::new("shop", "two"),
    ));
    assert_eq!(told(&mut index), []);
    index.apply(route("one", json!({})));
    assert_eq!(told(&mut index), [none("a-1"), none("b-1")]);
}
