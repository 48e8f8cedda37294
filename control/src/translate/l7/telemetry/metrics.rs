//! `metrics` → the configuration of Istio's statistics filter.

use std::collections::BTreeMap;

use prost::Message;

use super::super::api::{Any, Duration, duration};
use super::super::view::View;
use super::{At, applicable, expression, names, problem};
use crate::objects::mesh_config::PROMETHEUS;
use crate::objects::telemetry::{MetricSelector, MetricsOverride, TagOperation, TagOverride};

/// Metrics as the API calls them, and as they are called where they are read.
const METRICS: [(&str, &str); 10] = [
    ("GRPC_REQUEST_MESSAGES", "request_messages_total"),
    ("GRPC_RESPONSE_MESSAGES", "response_messages_total"),
    ("REQUEST_COUNT", "requests_total"),
    ("REQUEST_DURATION", "request_duration_milliseconds"),
    ("REQUEST_SIZE", "request_bytes"),
    ("RESPONSE_SIZE", "response_bytes"),
    ("TCP_CLOSED_CONNECTIONS", "tcp_connections_closed_total"),
    ("TCP_OPENED_CONNECTIONS", "tcp_connections_opened_total"),
    ("TCP_RECEIVED_BYTES", "tcp_received_bytes_total"),
    ("TCP_SENT_BYTES", "tcp_sent_bytes_total"),
];

/// `stats.PluginConfig` (istio/api, `envoy/extensions/stats/config.proto`), as far as it is for
/// waypoints.
#[derive(Clone, PartialEq, Message)]
struct PluginConfig {
    #[prost(bool, tag = "6")]
    disable_host_header_fallback: bool,
    #[prost(message, optional, tag = "7")]
    tcp_reporting_duration: Option<Duration>,
    #[prost(message, repeated, tag = "8")]
    metrics: Vec<MetricConfig>,
    /// 1: SERVER_GATEWAY.
    #[prost(int32, tag = "10")]
    reporter: i32,
}

#[derive(Clone, PartialEq, Message)]
struct MetricConfig {
    #[prost(btree_map = "string, string", tag = "1")]
    dimensions: BTreeMap<String, String>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    tags_to_remove: Vec<String>,
    #[prost(bool, tag = "5")]
    drop: bool,
}

/// What is different of a metric.
#[derive(Default)]
struct Changed<'a> {
    disabled: Option<bool>,
    tags: BTreeMap<&'a str, &'a TagOverride>,
}

/// Istio's statistics, as a gateway before a server tells them; `None` where nothing is counted.
pub(in super::super) fn statistics(view: &View<'_>, at: At<'_>) -> Option<Any> {
    let all = applicable(view, at);
    let all = all
        .iter()
        .flat_map(|(key, one)| one.metrics.iter().map(move |metrics| (*key, metrics)));
    let in_scope = all
        .clone()
        .filter_map(|(_, one)| names(&one.providers))
        .next_back();
    let default = view.mesh.defaults.providers.metrics.iter();
    let mut parent: Vec<&str> = default.map(String::as_str).collect();
    let counted = in_scope.unwrap_or_else(|| parent.clone());
    let counted = counted.contains(&PROMETHEUS);
    let (mut interval, mut nothing) = (None, false);
    let mut changed: BTreeMap<&str, Changed<'_>> = BTreeMap::new();
    for (key, metrics) in all {
        let named = names(&metrics.providers);
        let others = named.iter().flatten().filter(|name| **name != PROMETHEUS);
        for other in others {
            problem(
                view,
                key,
                format!(
                    "metrics.providers: {other:?} is not served: metrics are for \"prometheus\" alone"
                ),
            );
        }
        parent = named.unwrap_or(parent);
        if !parent.contains(&PROMETHEUS) {
            continue;
        }
        interval = metrics.reporting_interval.or(interval);
        for one in &metrics.overrides {
            for (label, why) in unfollowed(one) {
                let what = format!(
                    "metrics.overrides.tagOverrides[{label}].value: {why}; the label stays as it is"
                );
                problem(view, key, what);
            }
            if !one.r#match.mode.here() {
                continue;
            }
            if is_all(&one.r#match) && one.disabled == Some(true) {
                nothing = true;
                continue;
            }
            nothing = false;
            for name in matched(&one.r#match) {
                if METRICS.iter().all(|(known, _)| *known != name) {
                    problem(
                        view,
                        key,
                        format!("metrics.overrides.match: there is no metric {name:?}"),
                    );
                }
                let metric = changed.entry(name).or_default();
                metric.disabled = one.disabled.or(metric.disabled);
                metric.tags.extend(
                    one.tag_overrides
                        .iter()
                        .map(|(name, tag)| (name.as_str(), tag)),
                );
            }
        }
    }
    (counted && !nothing).then(|| {
        let config = PluginConfig {
            disable_host_header_fallback: true,
            tcp_reporting_duration: interval.map(|interval| duration(interval.0)),
            metrics: changed.into_iter().map(config).collect(),
            reporter: 1,
        };
        Any {
            type_url: "type.googleapis.com/stats.PluginConfig".to_owned(),
            value: config.encode_to_vec(),
        }
    })
}

/// Labels whose values a waypoint can't make, and why.
fn unfollowed(of: &MetricsOverride) -> Vec<(&str, String)> {
    let set = of.tag_overrides.iter();
    let set = set.filter(|(_, tag)| tag.operation == TagOperation::Upsert);
    set.filter_map(|(name, tag)| Some((name.as_str(), expression::check(&tag.value).err()?)))
        .collect()
}

fn config((name, changed): (&str, Changed<'_>)) -> MetricConfig {
    let known = METRICS.iter().find(|(of_api, _)| *of_api == name);
    let (removed, set): (Vec<_>, Vec<_>) = changed
        .tags
        .into_iter()
        .partition(|(_, tag)| tag.operation == TagOperation::Remove);
    MetricConfig {
        dimensions: set
            .into_iter()
            .map(|(name, tag)| (name.to_owned(), tag.value.clone()))
            .collect(),
        name: known.map_or(name, |(_, read)| read).to_owned(),
        tags_to_remove: removed
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect(),
        drop: changed.disabled == Some(true),
    }
}

fn is_all(of: &MetricSelector) -> bool {
    of.custom_metric.is_none()
        && of
            .metric
            .as_deref()
            .is_none_or(|metric| metric == "ALL_METRICS")
}

fn matched(of: &MetricSelector) -> Vec<&str> {
    match (&of.custom_metric, &of.metric) {
        (Some(custom), _) => vec![custom],
        (None, Some(metric)) if metric != "ALL_METRICS" => vec![metric],
        _ => METRICS.map(|(name, _)| name).to_vec(),
    }
}
