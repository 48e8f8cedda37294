//! Telemetry, telemetry.istio.io: what waypoints count, trace and log.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::authorization_policy::Selector;
use super::duration::Duration;
use super::request_authentication::{TargetRef, Targets};

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// Which workloads: then it is for sidecars, and refused.
    pub selector: Option<Selector>,
    /// Which waypoint or service (the older, single form).
    pub target_ref: Option<TargetRef>,
    /// Which waypoints or services.
    pub target_refs: Vec<TargetRef>,
    /// Whether and where requests are logged.
    pub access_logging: Vec<AccessLogging>,
    /// What is counted.
    pub metrics: Vec<Metrics>,
    /// What is traced.
    pub tracing: Vec<Tracing>,
}

/// One of the mesh configuration's providers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProviderRef {
    /// Its name.
    pub name: String,
}

/// On which side of a connection; a waypoint is a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// Both.
    #[default]
    ClientAndServer,
    /// The caller's.
    Client,
    /// The called one's.
    Server,
}

/// `match` of `accessLogging` and `tracing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Side {
    /// Which side.
    pub mode: Mode,
}

/// `spec.accessLogging[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccessLogging {
    /// On which side.
    pub r#match: Side,
    /// Where to; none: as before.
    pub providers: Vec<ProviderRef>,
    /// Not.
    pub disabled: Option<bool>,
    /// Which requests.
    pub filter: Option<Filter>,
}

/// `spec.accessLogging[].filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// In CEL.
    pub expression: String,
}

/// `spec.metrics[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Where to; none: as before.
    pub providers: Vec<ProviderRef>,
    /// What is different from the default.
    pub overrides: Vec<MetricsOverride>,
    /// How often open connections are counted anew.
    pub reporting_interval: Option<Duration>,
}

/// `spec.metrics[].overrides[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsOverride {
    /// Which metrics.
    pub r#match: MetricSelector,
    /// Not counted.
    pub disabled: Option<bool>,
    /// Labels by their names.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// `spec.metrics[].overrides[].match`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSelector {
    /// One of Istio's, or all.
    pub metric: Option<String>,
    /// Another.
    pub custom_metric: Option<String>,
    /// On which side.
    pub mode: Mode,
}

/// `spec.metrics[].overrides[].tagOverrides`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TagOverride {
    /// What is done.
    pub operation: TagOperation,
    /// The value, in CEL.
    pub value: String,
}

/// What is done with a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    /// Added, or given another value.
    #[default]
    Upsert,
    /// Removed.
    Remove,
}

/// `spec.tracing[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// On which side.
    pub r#match: Side,
    /// Where to; none: as before. The first counts.
    pub providers: Vec<ProviderRef>,
    /// How many of a hundred requests.
    pub random_sampling_percentage: Option<f64>,
    /// None is told of.
    pub disable_span_reporting: Option<bool>,
    /// What else a span says.
    pub custom_tags: Option<BTreeMap<String, CustomTag>>,
    /// The request's id says whether it is traced.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Istio's own tags.
    pub enable_istio_tags: Option<bool>,
    /// Trace headers are not passed on.
    pub disable_context_propagation: Option<bool>,
}

/// `spec.tracing[].customTags`: one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CustomTag {
    /// Always this.
    pub literal: Option<Literal>,
    /// A variable of the waypoint's environment.
    pub environment: Option<Named>,
    /// A header of the request.
    pub header: Option<Named>,
    /// Of Envoy's operators.
    pub formatter: Option<Literal>,
}

/// A value as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Literal {
    /// The value.
    pub value: String,
}

/// A value by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Where there is none.
    pub default_value: String,
}

impl Mode {
    /// Whether a waypoint, which is a server, is meant.
    #[must_use]
    pub fn here(self) -> bool {
        self != Self::Client
    }
}

impl Telemetry {
    /// Says what nobody here would take: workloads by their labels are for sidecars.
    pub(super) fn check(self) -> Result<Self, String> {
        let labels = self.selector.as_ref().map(|one| &one.match_labels);
        if labels.is_some_and(|labels| !labels.is_empty()) {
            return Err(
                "selector: a Telemetry for workloads by their labels is for sidecars, of which there \
                 are none; targetRefs name a waypoint or a service"
                    .to_owned(),
            );
        }
        Ok(self)
    }

    /// To whom it is attached; no target: to a namespace.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let single = self
            .target_ref
            .iter()
            .filter(|_| self.target_refs.is_empty());
        Targets {
            refs: self.target_refs.iter().chain(single).cloned().collect(),
            selector: None,
        }
    }

    /// Whether it is for all of its namespace.
    #[must_use]
    pub fn is_general(&self) -> bool {
        self.target_ref.is_none() && self.target_refs.is_empty()
    }
}
