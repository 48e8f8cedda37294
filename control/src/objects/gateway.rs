//! Gateways and their classes, gateway.networking.k8s.io/v1: what a waypoint is asked for with.

use std::net::IpAddr;

use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use super::authorization_policy::{source, spec_noting};
use super::{Labels, PolicySource};

/// The class of waypoints.
pub const WAYPOINT_CLASS: &str = "istio-waypoint";
/// The controller that waypoint classes name.
pub const CONTROLLER: &str = "istio.io/mesh-controller";
/// Which destinations a waypoint serves.
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// The form of Istio 1.18: the waypoint of the pods that run as this service account.
pub const FOR_SERVICE_ACCOUNT: &str = "istio.io/for-service-account";
/// The port of HBONE.
pub const HBONE_PORT: u16 = 15008;

/// A Gateway, of any class.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Where it came from, and its conditions.
    pub source: PolicySource,
    /// `metadata.uid`, for owner references.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// `spec`, or why it can't be read.
    pub spec: Result<GatewaySpec, String>,
    /// `status.addresses`.
    pub addresses: Vec<Address>,
    /// `status.listeners`, to tell whether it must be written.
    pub listeners_status: Vec<Value>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Fields of `spec` that nobody reads.
    pub passed_over: Vec<String>,
}

/// Where a Gateway is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A name.
    Hostname(String),
    /// An address.
    Ip(IpAddr),
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// Its class.
    pub gateway_class_name: String,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Where it shall be reached: then somebody else runs it.
    pub addresses: Vec<Value>,
    /// What its workload shall carry.
    pub infrastructure: Option<Infrastructure>,
}

/// `spec.listeners[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// `HBONE` for a waypoint.
    pub protocol: String,
    /// Who may attach to it.
    pub allowed_routes: Option<AllowedRoutes>,
}

/// `spec.listeners[].allowedRoutes`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: Option<RouteNamespaces>,
}

/// `spec.listeners[].allowedRoutes.namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// `All`, `Same` or `Selector`; `Same` unless said.
    pub from: Option<String>,
    /// Labels of the namespaces, for `Selector`.
    pub selector: Option<LabelSelector>,
}

/// Kubernetes' label selector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be so.
    pub match_labels: Labels,
    /// Further requirements.
    pub match_expressions: Vec<LabelRequirement>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Its values.
    pub values: Vec<String>,
}

/// `spec.infrastructure`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Infrastructure {
    /// Labels of everything that is made.
    pub labels: Labels,
    /// Annotations of everything that is made.
    pub annotations: Labels,
    /// A ConfigMap with overlays.
    pub parameters_ref: Option<ParametersRef>,
}

/// `spec.infrastructure.parametersRef`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ParametersRef {
    /// Empty for a ConfigMap.
    pub group: String,
    /// `ConfigMap`.
    pub kind: String,
    /// Its name, in the Gateway's namespace.
    pub name: String,
}

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayClass {
    /// Where it came from, and its conditions.
    pub source: PolicySource,
    /// `spec.controllerName`.
    pub controller: String,
    /// Which destinations its waypoints serve, where they do not say.
    pub waypoint_for: Option<String>,
}

impl LabelSelector {
    /// Whether it selects these labels. An operator that does not exist selects nothing.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        super::selects(&self.match_labels, labels)
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

impl Gateway {
    /// Its class; empty when its specification can't be read.
    #[must_use]
    pub fn class(&self) -> &str {
        self.spec
            .as_ref()
            .map_or("", |spec| &spec.gateway_class_name)
    }

    /// The service account whose pods it is for, in the form of Istio 1.18.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        let account = self.annotations.get(FOR_SERVICE_ACCOUNT)?;
        (!account.is_empty()).then_some(account)
    }
}

impl From<&DynamicObject> for Gateway {
    fn from(object: &DynamicObject) -> Self {
        let list = |path| object.data.pointer(path).and_then(Value::as_array);
        let mut passed_over = Vec::new();
        Self {
            source: source(object),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            annotations: object.metadata.annotations.clone().unwrap_or_default(),
            spec: spec_noting(object, &mut passed_over),
            addresses: list("/status/addresses")
                .into_iter()
                .flatten()
                .filter_map(address)
                .collect(),
            listeners_status: list("/status/listeners").cloned().unwrap_or_default(),
            terminating: object.metadata.deletion_timestamp.is_some(),
            passed_over,
        }
    }
}

fn address(address: &Value) -> Option<Address> {
    let value = address.get("value")?.as_str()?;
    match address.get("type").and_then(Value::as_str) {
        Some("Hostname") => Some(Address::Hostname(value.to_owned())),
        Some("IPAddress") | None => value.parse().ok().map(Address::Ip),
        Some(_) => None,
    }
}

impl From<&DynamicObject> for GatewayClass {
    fn from(object: &DynamicObject) -> Self {
        let controller = object
            .data
            .pointer("/spec/controllerName")
            .and_then(Value::as_str);
        let labels = object.metadata.labels.as_ref();
        Self {
            source: source(object),
            controller: controller.unwrap_or_default().to_owned(),
            waypoint_for: labels.and_then(|labels| labels.get(WAYPOINT_FOR)).cloned(),
        }
    }
}
