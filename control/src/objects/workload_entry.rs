//! WorkloadEntry, networking.istio.io/v1: an endpoint that Kubernetes does not run, such as a virtual
//! machine. Services and ServiceEntries select it by its labels as they select pods, so it is kept as
//! one, under a name that no pod can have.

use std::net::IpAddr;
use std::sync::Arc;

use kube::core::DynamicObject;

use super::pod::{Owner, OwnerKind, tunnel};
use super::service_entry::Endpoint;
use super::{Key, Labels, Pod, authorization_policy};

/// Stands before the name, in the index alone.
const MARK: &str = "WorkloadEntry/";

/// What an entry says that a pod does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// The name to resolve, where it has no address.
    pub host: String,
    /// The network that it is in; empty: the mesh's own.
    pub network: String,
    /// Region, zone, subzone.
    pub place: (String, String, String),
    /// Its share; 0: 1.
    pub weight: u32,
}

/// Under which name the index keeps an entry.
#[must_use]
pub fn kept_as(key: &Key) -> Key {
    Key::new(key.namespace.clone(), format!("{MARK}{}", key.name))
}

/// The entry's own name, where the index keeps an entry under this one.
#[must_use]
pub fn name_of(kept: &Key) -> Option<&str> {
    kept.name.strip_prefix(MARK)
}

/// Reads an entry, or says what in it is wrong.
///
/// # Errors
/// What is wrong, by its field.
pub fn read(object: &DynamicObject, passed_over: &mut Vec<String>) -> Result<Pod, String> {
    let spec: Endpoint = authorization_policy::spec_noting(object, passed_over)?;
    let key = Key::of(&object.metadata);
    let address: Option<IpAddr> = spec.address.parse().ok();
    let name = !spec.address.is_empty()
        && spec
            .address
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if address.is_none() && !name {
        return Err(format!(
            "address: {:?} is neither an address nor a name in DNS",
            spec.address
        ));
    }
    let mut ports = Vec::new();
    for (name, number) in &spec.ports {
        match u16::try_from(*number) {
            Ok(number) if number > 0 => ports.push((name.clone(), number)),
            _ => return Err(format!("ports: {name} {number} is no port")),
        }
    }
    // Labels may stand in both places; the specification's are stronger.
    let mut labels: Labels = object.metadata.labels.clone().unwrap_or_default();
    labels.extend(spec.labels.clone());
    let annotations = object.metadata.annotations.clone().unwrap_or_default();
    Ok(Pod {
        uid: Box::default(),
        tunnel: tunnel(&labels, &annotations),
        addresses: address.into_iter().collect(),
        node: Arc::default(),
        service_account: spec.service_account.as_str().into(),
        host_network: false,
        // Nobody says that it is not.
        ready: true,
        owner: Owner {
            name: key.name.clone(),
            kind: OwnerKind::Pod,
        },
        ports,
        entry: Some(Box::new(Entry {
            host: if address.is_none() {
                spec.address.clone()
            } else {
                String::new()
            },
            network: spec.network.clone(),
            place: spec.place(),
            weight: spec.weight,
        })),
        key: kept_as(&key),
        labels: Arc::new(labels),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read_spec(spec: Value) -> Result<Pod, String> {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "vm", "namespace": "n", "labels": {"app": "meta", "only": "here"}},
            "spec": spec,
        });
        read(&serde_json::from_value(object).unwrap(), &mut Vec::new())
    }

    #[test]
    fn what_is_wrong_is_said_by_field() {
        for (spec, field) in [
            (json!({}), "address"),
            (json!({"address": "unix:///run/socket"}), "address"),
            (
                json!({"address": "1.1.1.1", "ports": {"http": 70000}}),
                "ports",
            ),
            (json!({"address": "1.1.1.1", "ports": {"http": 0}}), "ports"),
        ] {
            let problem = read_spec(spec.clone()).unwrap_err();
            assert!(problem.starts_with(field), "{spec}: {problem}");
        }
    }

    #[test]
    fn labels_of_the_specification_are_stronger() {
        let read = read_spec(json!({"address": "vm.test", "labels": {"app": "spec"}, "locality": "r/z", "weight": 3, "ports": {"http": 8080}})).unwrap();
        assert_eq!(
            (read.labels["app"].as_str(), read.labels["only"].as_str()),
            ("spec", "here")
        );
        assert_eq!(
            (read.port("http"), name_of(&read.key)),
            (Some(8080), Some("vm"))
        );
        let entry = read.entry.unwrap();
        assert_eq!((entry.host.as_str(), entry.weight), ("vm.test", 3));
        assert_eq!(entry.place, ("r".into(), "z".into(), String::new()));
    }
}
