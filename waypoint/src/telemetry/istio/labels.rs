//! The label sets of Istio's metrics, written out. What isn't known is `unknown`, as Istio has it.

use std::sync::Arc;

use super::{destination, is_named, security};
use crate::connection::Downstream;
use crate::model::cluster::ServiceRef;
use crate::model::http::StatsFilter;
use crate::model::snapshot::Current;
use crate::route::headers::{Values, render};
use crate::telemetry::exchange::{Connection, Exchange, Upstream};
use crate::telemetry::flags::Flags;
use crate::telemetry::metrics::label;

/// A label set: names and values, in order.
pub(super) struct Labels(Vec<(&'static str, String)>);

/// The labels of an exchange.
pub(super) fn of_exchange(filter: &StatsFilter, exchange: &Exchange, peers: &Current) -> Labels {
    let reporter = match filter.reporter_waypoint {
        true => "waypoint",
        false => "destination",
    };
    let protocol = if exchange.is_grpc { "grpc" } else { "http" };
    let mut labels = ends(
        &exchange.downstream,
        &exchange.upstream,
        peers,
        reporter,
        protocol,
    );
    let status = exchange.status.map_or(0, |status| status.as_u16());
    let grpc = exchange.call_status();
    labels.push("response_code", &status.to_string());
    labels.push(
        "grpc_response_status",
        &grpc.map(|status| status.to_string()).unwrap_or_default(),
    );
    labels.finish(exchange.flags, &exchange.downstream);
    labels
}

/// The label set of a connection, as text.
pub(super) fn of_connection(connection: &Connection, peers: &Current) -> Arc<str> {
    let (downstream, upstream) = (&connection.downstream, &connection.upstream);
    let mut labels = ends(downstream, upstream, peers, "waypoint", "tcp");
    labels.finish(connection.flags, downstream);
    let mut text = String::with_capacity(1024);
    for (name, value) in &labels.0 {
        label(&mut text, name, value);
    }
    text.into()
}

/// Who talks to whom.
fn ends(
    downstream: &Downstream,
    upstream: &Upstream,
    peers: &Current,
    reporter: &str,
    protocol: &str,
) -> Labels {
    let mut labels = Labels(Vec::with_capacity(28));
    let source = downstream.workload.as_deref();
    let from =
        |field: fn(&mesh::workload::Workload) -> &Arc<str>| source.map_or("", |of| &**field(of));
    let to = destination(upstream, peers).unwrap_or_default();
    let nobody = ServiceRef::default();
    let cluster = upstream.cluster.as_ref();
    let service = cluster
        .and_then(|cluster| cluster.services.first())
        .unwrap_or(&nobody);
    let own = downstream
        .own
        .as_ref()
        .map(mesh::identity::Identity::as_str);
    for (name, value) in [
        ("reporter", reporter),
        ("source_workload", from(|of| &of.workload_name)),
        ("source_canonical_service", from(|of| &of.canonical_name)),
        (
            "source_canonical_revision",
            from(|of| &of.canonical_revision),
        ),
        ("source_workload_namespace", from(|of| &of.namespace)),
        (
            "source_principal",
            downstream.principal().unwrap_or_default(),
        ),
        ("source_app", from(|of| &of.canonical_name)),
        ("source_version", from(|of| &of.canonical_revision)),
        ("source_cluster", from(|of| &of.cluster)),
        ("destination_workload", &to.name),
        ("destination_workload_namespace", &to.namespace),
        ("destination_principal", own.unwrap_or_default()),
        ("destination_app", &to.canonical_name),
        ("destination_version", &to.canonical_revision),
        ("destination_service", &service.host),
        ("destination_canonical_service", &to.canonical_name),
        ("destination_canonical_revision", &to.canonical_revision),
        ("destination_service_name", &service.name),
        ("destination_service_namespace", &service.namespace),
        ("destination_cluster", &to.cluster),
        ("request_protocol", protocol),
    ] {
        labels.push(name, if value.is_empty() { "unknown" } else { value });
    }
    labels
}

impl Labels {
    fn push(&mut self, name: &'static str, value: &str) {
        self.0.push((name, value.to_owned()));
    }

    fn finish(&mut self, flags: Flags, downstream: &Downstream) {
        self.push("response_flags", &flags.to_string());
        self.push("connection_security_policy", security(downstream));
    }

    /// The label set of a metric as text, with the changes that are configured for it.
    pub(super) fn text(&self, filter: &StatsFilter, metric: &str, values: &dyn Values) -> Arc<str> {
        let change = |name: &str| {
            let mut changes = filter.labels.iter().rev();
            changes.find(|(of, label, _)| is_for(of, metric) && **label == *name)
        };
        let mut text = String::with_capacity(1024);
        let mut value = String::new();
        for (name, own) in &self.0 {
            match change(name) {
                None => label(&mut text, name, own),
                Some((_, _, None)) => {}
                Some((_, _, Some(format))) => {
                    value.clear();
                    render(format, values, "unknown", &mut value);
                    label(&mut text, name, &value);
                }
            }
        }
        for (at, (of, name, format)) in filter.labels.iter().enumerate() {
            let known = self.0.iter().any(|(own, _)| **own == **name);
            let mut later = filter.labels[at + 1..].iter();
            let again = later.any(|(of, label, _)| is_for(of, metric) && label == name);
            if let (Some(format), true, false, false) = (format, is_for(of, metric), known, again) {
                value.clear();
                render(format, values, "unknown", &mut value);
                label(&mut text, name, &value);
            }
        }
        text.into()
    }
}

/// Whether a change is for a metric: one of none is for all.
fn is_for(of: &str, metric: &str) -> bool {
    of.is_empty() || (!metric.is_empty() && is_named(of, metric))
}
