//! Whether a pod belongs into the mesh: Istio's labels, read the way istio-cni reads them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::pods::{Info, Uid};

/// The label of a namespace or pod that says how its traffic is carried.
const MODE: &str = "istio.io/dataplane-mode";
/// The annotation that tells the control plane, and through it every peer, that a pod is captured.
pub(super) const REDIRECTION: &str = "ambient.istio.io/redirection";
/// What that annotation says then.
pub(super) const ENABLED: &str = "enabled";
/// The annotation that Istio's injector leaves on a pod with a sidecar, which captures for itself.
const SIDECAR: &str = "sidecar.istio.io/status";

/// A pod as far as enrolment looks at it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct View {
    /// Its unique identifier.
    pub(super) uid: Uid,
    /// Who it is.
    pub(super) info: Info,
    /// What its own label says.
    mode: Option<String>,
    /// True if it has no network namespace of its own, has ended, or carries a sidecar.
    unfit: bool,
    /// True if it is marked as captured.
    pub(super) marked: bool,
}

impl View {
    /// Looks at a pod; none if it is not yet fully formed.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let spec = pod.spec.as_ref()?;
        let label = |name| {
            metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(name))
                .cloned()
        };
        let annotation = |name| {
            metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(name))
        };
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let finished = matches!(phase, Some("Succeeded" | "Failed"));
        Some(Self {
            uid: Uid::new(metadata.uid.as_deref()?),
            info: Info {
                name: metadata.name.clone()?,
                namespace: metadata.namespace.clone()?,
                service_account: spec
                    .service_account_name
                    .clone()
                    .unwrap_or_else(|| "default".to_owned()),
            },
            mode: label(MODE),
            unfit: spec.host_network == Some(true) || finished || annotation(SIDECAR).is_some(),
            marked: annotation(REDIRECTION).is_some_and(|value| value == ENABLED),
        })
    }

    /// True if the pod belongs into the mesh, given what its namespace's label says.
    pub(super) fn enrolled(&self, namespace_mode: Option<&str>) -> bool {
        let mode = self.mode.as_deref().or(namespace_mode);
        !self.unfit && mode == Some("ambient")
    }
}

/// What a namespace's labels say.
pub(super) fn namespace_mode(labels: Option<&BTreeMap<String, String>>) -> Option<String> {
    labels?.get(MODE).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(labels: serde_json::Value, more: serde_json::Value) -> View {
        let mut pod = serde_json::json!({
            "metadata": {"uid": "u1", "name": "sleep", "namespace": "default", "labels": labels},
            "spec": {"containers": [], "serviceAccountName": "sleep"},
            "status": {"phase": "Running"},
        });
        for (part, fields) in more.as_object().unwrap() {
            for (name, value) in fields.as_object().unwrap() {
                pod[part][name] = value.clone();
            }
        }
        View::of(&serde_json::from_value(pod).unwrap()).unwrap()
    }

    #[test]
    fn labels_decide_and_the_pods_own_comes_first() {
        let none = serde_json::json!({});
        let mode = |value: &str| serde_json::json!({"istio.io/dataplane-mode": value});
        let table = [
            (none.clone(), None, false),
            (none.clone(), Some("ambient"), true),
            (none.clone(), Some("sidecar"), false),
            (none, Some(""), false),
            (mode("none"), Some("ambient"), false),
            (mode("ambient"), None, true),
            (mode("ambient"), Some("none"), true),
            (mode("Ambient"), Some("ambient"), false),
        ];
        for (labels, namespace, expected) in table {
            let view = pod(labels.clone(), serde_json::json!({}));
            assert_eq!(
                view.enrolled(namespace),
                expected,
                "{labels} in {namespace:?}"
            );
        }
    }

    #[test]
    fn pods_without_a_live_namespace_of_their_own_stay_out() {
        for more in [
            serde_json::json!({"spec": {"hostNetwork": true}}),
            serde_json::json!({"status": {"phase": "Succeeded"}}),
            serde_json::json!({"status": {"phase": "Failed"}}),
            serde_json::json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}}),
        ] {
            assert!(
                !pod(serde_json::json!({}), more.clone()).enrolled(Some("ambient")),
                "{more}"
            );
        }
        let pending = serde_json::json!({"status": {"phase": "Pending"}});
        assert!(pod(serde_json::json!({}), pending).enrolled(Some("ambient")));
    }

    #[test]
    fn the_mark_is_seen_only_with_its_value() {
        let marked = |value: &str| {
            let annotations = serde_json::json!({"metadata": {"annotations": {"ambient.istio.io/redirection": value}}});
            pod(serde_json::json!({}), annotations).marked
        };
        assert!(marked("enabled"));
        assert!(!marked("disabled"));
    }
}
