//! AuthorizationPolicy, security.istio.io/v1: the custom resource's shape, read leniently.
//!
//! The object is watched as JSON and parsed one by one, so that a policy that does not parse is
//! refused by its name and takes nothing else with it. What a source or operation holds beyond
//! the fields below is kept by name: at L4 it can't be enforced, and nobody may think it is.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use super::{Key, Labels, PolicySource, passed_over};

/// Set to true: decisions are logged, not enforced.
const DRY_RUN: &str = "istio.io/dry-run";

/// A policy as read: its specification, or why it can't be read.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// Where it came from.
    pub source: PolicySource,
    /// Its specification.
    pub spec: Result<Spec, String>,
    /// Logged only.
    pub dry_run: Result<bool, String>,
    /// Its fields that nobody reads.
    pub passed_over: Vec<String>,
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Which workloads; none: all of the namespace, or of the mesh from the root namespace.
    pub selector: Option<Selector>,
    /// Attached to a waypoint instead (the older, single form).
    pub target_ref: Option<Value>,
    /// Attached to waypoints instead.
    pub target_refs: Vec<Value>,
    /// When it applies: any of these.
    pub rules: Vec<Rule>,
    /// ALLOW unless said.
    pub action: Option<String>,
    /// Whom CUSTOM asks.
    pub provider: Option<Provider>,
}

/// `spec.provider`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Provider {
    /// One of the mesh configuration's extension providers.
    pub name: String,
}

/// `spec.selector`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that a workload must have, all of them.
    pub match_labels: Labels,
}

/// `spec.rules[]`: `from`, `to` and `when` must all hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Any of these sources.
    pub from: Vec<From>,
    /// Any of these operations.
    pub to: Vec<To>,
    /// All of these conditions.
    pub when: Vec<Condition>,
}

/// `spec.rules[].from[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct From {
    /// The source.
    pub source: Option<Source>,
}

/// `spec.rules[].from[].source`: different fields must all hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// `trust-domain/ns/NAMESPACE/sa/ACCOUNT`, with `*`.
    pub principals: Vec<String>,
    /// The opposite.
    pub not_principals: Vec<String>,
    /// Namespaces, with `*`.
    pub namespaces: Vec<String>,
    /// The opposite.
    pub not_namespaces: Vec<String>,
    /// `ACCOUNT` of the policy's namespace, or `NAMESPACE/ACCOUNT`.
    pub service_accounts: Vec<String>,
    /// The opposite.
    pub not_service_accounts: Vec<String>,
    /// Addresses or CIDR blocks of the peer.
    pub ip_blocks: Vec<String>,
    /// The opposite.
    pub not_ip_blocks: Vec<String>,
    /// Anything else (`requestPrincipals`, `remoteIpBlocks`, …): not enforceable at L4.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `spec.rules[].to[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct To {
    /// The operation.
    pub operation: Option<Operation>,
}

/// `spec.rules[].to[].operation`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Destination ports.
    pub ports: Vec<String>,
    /// The opposite.
    pub not_ports: Vec<String>,
    /// Anything else (`methods`, `paths`, `hosts`, …): not enforceable at L4.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `spec.rules[].when[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// The attribute.
    pub key: String,
    /// Any of these.
    pub values: Vec<String>,
    /// None of these.
    pub not_values: Vec<String>,
}

impl Spec {
    /// The name of the provider that decides, where another does.
    #[must_use]
    pub fn asks(&self) -> Option<&str> {
        let custom = self.action.as_deref() == Some("CUSTOM");
        let name = self.provider.as_ref().map_or("", |provider| &provider.name);
        custom.then_some(name)
    }

    /// Whether it is meant for waypoints, and so not for node proxies.
    #[must_use]
    pub fn has_targets(&self) -> bool {
        self.target_ref.is_some() || !self.target_refs.is_empty()
    }
}

impl std::convert::From<&DynamicObject> for AuthorizationPolicy {
    fn from(object: &DynamicObject) -> Self {
        let mut passed_over = Vec::new();
        Self {
            source: source(object),
            spec: spec_noting(object, &mut passed_over),
            dry_run: dry_run(object),
            passed_over,
        }
    }
}

/// A YAML `spec:` with nothing under it is an empty specification: allow nothing. Says which of its fields
/// nobody reads.
pub(super) fn spec_noting<T: serde::de::DeserializeOwned + Default>(
    object: &DynamicObject,
    passed_over: &mut Vec<String>,
) -> Result<T, String> {
    match object.data.get("spec") {
        None | Some(Value::Null) => Ok(T::default()),
        Some(spec) => passed_over::read(spec, passed_over),
    }
}

pub(super) fn source(object: &DynamicObject) -> PolicySource {
    let meta = &object.metadata;
    let conditions = object
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned();
    PolicySource {
        key: Key::of(meta),
        generation: meta.generation.unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        created: meta
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_second())
            .unwrap_or_default(),
        conditions: conditions.unwrap_or_default(),
    }
}

fn dry_run(object: &DynamicObject) -> Result<bool, String> {
    let value = object
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DRY_RUN));
    match value.map(String::as_str) {
        None | Some("") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(format!(
            "annotation {DRY_RUN} is {other:?}: it must be true or false"
        )),
    }
}
