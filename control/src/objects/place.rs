//! Namespaces and nodes: what a pod or service inherits from the place where it is.

use super::Labels;
use k8s_openapi::api::core::v1;

/// Istio's older way to ask for a traffic distribution, on a Service or Namespace.
pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// What services inherit from their namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The traffic distribution for services that name none.
    pub traffic_distribution: Option<String>,
    /// Its labels: they may choose a waypoint, or be chosen by one.
    pub labels: Labels,
    /// Whether it is being deleted: nothing can be created in it any more.
    pub terminating: bool,
}

impl From<&v1::Namespace> for Namespace {
    fn from(namespace: &v1::Namespace) -> Self {
        let annotations = namespace.metadata.annotations.as_ref();
        Self {
            name: namespace.metadata.name.clone().unwrap_or_default(),
            traffic_distribution: annotations
                .and_then(|a| a.get(TRAFFIC_DISTRIBUTION))
                .cloned(),
            labels: namespace.metadata.labels.clone().unwrap_or_default(),
            terminating: namespace.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// What pods inherit from their node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Label `topology.kubernetes.io/region`.
    pub region: String,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: String,
    /// Label `topology.istio.io/subzone`.
    pub subzone: String,
}

impl From<&v1::Node> for Node {
    fn from(node: &v1::Node) -> Self {
        let label = |name: &str| {
            node.metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(name))
                .cloned()
                .unwrap_or_default()
        };
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            region: label("topology.kubernetes.io/region"),
            zone: label("topology.kubernetes.io/zone"),
            subzone: label("topology.istio.io/subzone"),
        }
    }
}
