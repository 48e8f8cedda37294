//! Resources of both sides in one form: JSON by Envoy's descriptors, orders that mean nothing sorted.
#![allow(clippy::unwrap_used, dead_code)] // Helpers of tests: a panic is the report. Each user needs a part.

use std::collections::BTreeMap;

use serde_json::Value;
use waypoint::source::json::Descriptors;

/// Answers by kind and name, in one form.
pub(crate) type Resources = BTreeMap<String, Value>;

/// Adds an encoded resource.
pub(crate) fn add(resources: &mut Resources, url: &str, bytes: &[u8]) {
    add_json(resources, Descriptors::get().json(url, bytes).unwrap());
}

/// Adds a resource in words, with its `@type`.
pub(crate) fn add_json(resources: &mut Resources, mut resource: Value) {
    let kind = resource["@type"].as_str().unwrap().rsplit('.').next();
    let kind = kind.unwrap().to_owned();
    let name = resource.get("name").or(resource.get("cluster_name"));
    let name = name.and_then(Value::as_str).unwrap().to_owned();
    if matches!(
        kind.as_str(),
        "Cluster" | "ClusterLoadAssignment" | "Listener"
    ) {
        normalise(&mut resource);
        resources.insert(format!("{kind} {name}"), resource);
    }
}

/// Orders that mean nothing are sorted; what is empty is left out.
fn normalise(value: &mut Value) {
    match value {
        Value::Array(all) => {
            all.iter_mut().for_each(normalise);
            let has =
                |field: &str| !all.is_empty() && all.iter().all(|entry| entry.get(field).is_some());
            if has("filters") {
                all.sort_by_key(|chain| chain["name"].to_string());
            } else if has("endpoint") || has("address_prefix") || has("ranges") {
                all.sort_by_key(ToString::to_string);
            }
        }
        Value::Object(fields) => {
            fields.values_mut().for_each(normalise);
            fields.retain(|_, value| !value.is_null());
        }
        _ => {}
    }
}
