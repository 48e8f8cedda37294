//! A ConfigMap's overlays onto what is made: `kubectl patch --type=strategic`, for the kinds that
//! are made here. Names and owners can't be changed by one.
//!
//! (istio/istio, `pilot/pkg/config/kube/gatewaycommon/deploymentcontroller.go`, `applyOverlay`)

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Which key of the ConfigMap is for which kind, and whether the kind is made only with it.
const KEYS: [(&str, &str, bool); 5] = [
    ("ServiceAccount", "serviceAccount", false),
    ("Deployment", "deployment", false),
    ("Service", "service", false),
    ("HorizontalPodAutoscaler", "horizontalPodAutoscaler", true),
    ("PodDisruptionBudget", "podDisruptionBudget", true),
];

/// What is wrong with a ConfigMap of overlays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// A key that is no overlay.
    #[error(
        "key {0:?} is no overlay: it must be serviceAccount, deployment, service, horizontalPodAutoscaler or podDisruptionBudget"
    )]
    UnknownKey(String),
    /// Not YAML, or not an object.
    #[error("{key} is no YAML object: {reason}")]
    Malformed {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// It would make another object of it.
    #[error("{key} changes metadata.{field}, which is decided by the Gateway")]
    Identity {
        /// The key.
        key: String,
        /// The field.
        field: String,
    },
}

/// The manifests with the overlays on them; without the kinds that no overlay asks for.
pub fn overlaid(
    manifests: Vec<Value>,
    overlays: &BTreeMap<String, String>,
) -> Result<Vec<Value>, OverlayError> {
    if let Some(unknown) = overlays
        .keys()
        .find(|key| KEYS.iter().all(|(_, known, _)| known != key))
    {
        return Err(OverlayError::UnknownKey(unknown.clone()));
    }
    let mut all = Vec::with_capacity(manifests.len());
    for mut manifest in manifests {
        let kind = manifest["kind"].as_str().unwrap_or_default();
        let Some((_, key, only_if_asked)) = KEYS.iter().find(|(known, _, _)| *known == kind) else {
            continue;
        };
        match overlays.get(*key) {
            Some(text) => {
                apply(key, &mut manifest, text)?;
                all.push(manifest);
            }
            None if *only_if_asked => {}
            None => all.push(manifest),
        }
    }
    Ok(all)
}

fn apply(key: &str, manifest: &mut Value, text: &str) -> Result<(), OverlayError> {
    let malformed = |reason: String| OverlayError::Malformed {
        key: key.to_owned(),
        reason,
    };
    let patch: Value =
        serde_yaml_ng::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let patch = match patch {
        Value::Null => return Ok(()),
        Value::Object(patch) => patch,
        _ => return Err(malformed("it is a list or a scalar".to_owned())),
    };
    for field in [
        "name",
        "namespace",
        "uid",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ] {
        let said = patch
            .get("metadata")
            .and_then(|metadata| metadata.get(field));
        if said.is_some_and(|said| *said != manifest["metadata"][field]) {
            return Err(OverlayError::Identity {
                key: key.to_owned(),
                field: field.to_owned(),
            });
        }
    }
    merge(manifest, Value::Object(patch), "");
    Ok(())
}

/// `field` is where the value stands: it decides by which key the entries of a list are told apart.
fn merge(into: &mut Value, patch: Value, field: &str) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => merge_object(into, patch),
        (Value::Array(into), Value::Array(patch)) if merge_key(field).is_some() => {
            let key = merge_key(field).unwrap_or_default();
            merge_list(into, patch, key);
        }
        (into, patch) => *into = patch,
    }
}

fn merge_object(into: &mut Map<String, Value>, mut patch: Map<String, Value>) {
    if patch
        .remove("$patch")
        .is_some_and(|directive| directive == "replace")
    {
        *into = patch;
        return;
    }
    for (name, value) in patch {
        if value.is_null() {
            into.remove(&name);
            continue;
        }
        let known = into.entry(name.clone()).or_insert(Value::Null);
        merge(known, value, &name);
    }
}

fn merge_list(into: &mut Vec<Value>, patch: Vec<Value>, key: &str) {
    if patch
        .iter()
        .any(|entry| entry.get("$patch").is_some_and(|patch| patch == "replace"))
    {
        into.clear();
    }
    for entry in patch {
        let directive = entry.get("$patch").and_then(Value::as_str);
        let same = into
            .iter()
            .position(|known| known.get(key).is_some() && known.get(key) == entry.get(key));
        match (directive, same) {
            (Some("delete"), Some(at)) => {
                into.remove(at);
            }
            (Some("delete" | "replace"), _) => {}
            (_, Some(at)) => merge(&mut into[at], entry, ""),
            (_, None) => into.push(entry),
        }
    }
}

/// The merge keys of the Kubernetes API (`patchMergeKey`); other lists are replaced as a whole.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" | "secrets" => {
            Some("name")
        }
        // A container's ports have containerPort, a service's have port: both have names here.
        "ports" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "hostAliases" => Some("ip"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "w"}, "spec": {"template": {"spec": {
            "containers": [{"name": "istio-proxy", "image": "i", "args": ["a"], "env": [{"name": "A", "value": "1"}]}],
            "volumes": [{"name": "v"}],
        }}}})
    }

    fn with(overlay: &str) -> Result<Value, OverlayError> {
        let overlays = BTreeMap::from([("deployment".to_owned(), overlay.to_owned())]);
        overlaid(vec![deployment()], &overlays).map(|mut all| all.remove(0))
    }

    #[test]
    fn lists_are_merged_by_their_keys_and_others_replaced() {
        let found = with(
            "spec:\n  replicas: 3\n  template:\n    spec:\n      containers:\n      - name: istio-proxy\n        args: [b, c]\n        env: [{name: B, value: '2'}]\n        resources: {requests: {cpu: 1}}\n      - name: more\n      tolerations: [{operator: Exists}]\n",
        )
        .unwrap();
        let spec = &found["spec"]["template"]["spec"];
        assert_eq!(found["spec"]["replicas"], 3);
        assert_eq!(spec["containers"][0]["image"], "i");
        assert_eq!(spec["containers"][0]["args"], json!(["b", "c"]));
        assert_eq!(spec["containers"][0]["env"].as_array().unwrap().len(), 2);
        assert_eq!(spec["containers"][1]["name"], "more");
        assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    }

    #[test]
    fn null_and_delete_take_away() {
        let found = with("spec:\n  template:\n    spec:\n      containers:\n      - {name: istio-proxy, image: null}\n      volumes: [{name: v, $patch: delete}]\n").unwrap();
        let spec = &found["spec"]["template"]["spec"];
        assert_eq!(spec["containers"][0].get("image"), None);
        assert_eq!(spec["volumes"], json!([]));
    }

    #[test]
    fn only_what_is_asked_for_is_made() {
        let all = || {
            let kinds = ["Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"];
            kinds
                .map(|kind| json!({"kind": kind, "metadata": {}, "spec": {"maxReplicas": 1}}))
                .to_vec()
        };
        assert_eq!(overlaid(all(), &BTreeMap::new()).unwrap().len(), 1);
        let asked = BTreeMap::from([(
            "horizontalPodAutoscaler".to_owned(),
            "spec: {maxReplicas: 5}".to_owned(),
        )]);
        let made = overlaid(all(), &asked).unwrap();
        assert_eq!(made.len(), 2);
        assert_eq!(made[1]["spec"]["maxReplicas"], 5);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            with("metadata: {name: other}").unwrap_err().to_string(),
            "deployment changes metadata.name, which is decided by the Gateway"
        );
        assert!(matches!(with("[1]"), Err(OverlayError::Malformed { .. })));
        assert!(matches!(with("a: [b"), Err(OverlayError::Malformed { .. })));
        let unknown = BTreeMap::from([("deploymnet".to_owned(), String::new())]);
        assert!(
            overlaid(vec![], &unknown)
                .unwrap_err()
                .to_string()
                .contains("deploymnet")
        );
    }
}
