//! Istio's metrics of requests and connections, under the names and labels of its dashboards. A
//! label set is written out once for each way that traffic takes (chain, source, endpoint, status)
//! and worker; after that a request only finds its handles again: no lock, no allocation.

mod cache;
mod labels;

use std::sync::Arc;

use super::exchange::{Connection, Exchange, Upstream};
use super::metrics::{Counter, Family, Histogram};
use crate::connection::Downstream;
use crate::model::endpoint::WorkloadRef;
use crate::model::http::StatsFilter;
use crate::model::snapshot::Current;
use crate::route::headers::{Values, render};

pub(super) use cache::Cache;

/// The families, which all workers share.
#[derive(Debug)]
pub(super) struct Families {
    requests: Family<Counter>,
    duration: Family<Histogram>,
    request_bytes: Family<Histogram>,
    response_bytes: Family<Histogram>,
    request_messages: Family<Counter>,
    response_messages: Family<Counter>,
    opened: Family<Counter>,
    closed: Family<Counter>,
    sent: Family<Counter>,
    received: Family<Counter>,
}

/// The series that one kind of request moves; none of a metric that is off.
#[derive(Debug, Default)]
pub(super) struct Handles {
    requests: Option<Arc<Counter>>,
    duration: Option<Arc<Histogram>>,
    request_bytes: Option<Arc<Histogram>>,
    response_bytes: Option<Arc<Histogram>>,
    request_messages: Option<Arc<Counter>>,
    response_messages: Option<Arc<Counter>>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::new("istio_requests_total", "Requests"),
            duration: Family::new(
                "istio_request_duration_milliseconds",
                "How long requests took, in milliseconds",
            ),
            request_bytes: Family::new("istio_request_bytes", "Bodies of requests, in bytes"),
            response_bytes: Family::new("istio_response_bytes", "Bodies of answers, in bytes"),
            request_messages: Family::new(
                "istio_request_messages_total",
                "gRPC messages of clients",
            ),
            response_messages: Family::new(
                "istio_response_messages_total",
                "gRPC messages to clients",
            ),
            opened: Family::new("istio_tcp_connections_opened_total", "Connections opened"),
            closed: Family::new("istio_tcp_connections_closed_total", "Connections closed"),
            sent: Family::new("istio_tcp_sent_bytes_total", "Bytes to clients"),
            received: Family::new("istio_tcp_received_bytes_total", "Bytes from clients"),
        }
    }
}

impl Families {
    /// Appends all series.
    pub(super) fn encode(&self, out: &mut String) {
        self.requests.encode(out);
        self.duration.encode(out);
        self.request_bytes.encode(out);
        self.response_bytes.encode(out);
        self.request_messages.encode(out);
        self.response_messages.encode(out);
        self.opened.encode(out);
        self.closed.encode(out);
        self.sent.encode(out);
        self.received.encode(out);
    }

    /// How often a label set was refused because its family was full.
    pub(super) fn refused(&self) -> u64 {
        let counters = [&self.requests, &self.opened, &self.closed, &self.sent];
        let counters = counters.map(Family::refused).iter().sum::<u64>();
        counters + self.duration.refused()
    }

    /// The series of an exchange, by label sets that are written out here.
    fn resolve(&self, filter: &StatsFilter, exchange: &Exchange, peers: &Current) -> Handles {
        let labels = labels::of_exchange(filter, exchange, peers);
        let text = |metric: &str| labels.text(filter, metric, exchange);
        let on = |metric: &str| !is_dropped(filter, metric);
        let shared: Arc<str> = text("");
        // One text for all metrics, unless one has labels of its own.
        let of = |metric: &str| match has_own(filter, metric) {
            true => text(metric),
            false => Arc::clone(&shared),
        };
        let counter = |family: &Family<Counter>, metric: &str| {
            on(metric).then(|| family.of(&of(metric))).flatten()
        };
        let histogram = |family: &Family<Histogram>, metric: &str| {
            on(metric).then(|| family.of(&of(metric))).flatten()
        };
        let messages = |family: &Family<Counter>, metric: &str| {
            exchange.is_grpc.then(|| counter(family, metric)).flatten()
        };
        Handles {
            requests: counter(&self.requests, "requests_total"),
            duration: histogram(&self.duration, "request_duration_milliseconds"),
            request_bytes: histogram(&self.request_bytes, "request_bytes"),
            response_bytes: histogram(&self.response_bytes, "response_bytes"),
            request_messages: messages(&self.request_messages, "request_messages_total"),
            response_messages: messages(&self.response_messages, "response_messages_total"),
        }
    }

    /// A connection was opened.
    pub(super) fn opened(&self, connection: &Connection, peers: &Current) {
        if let Some(series) = self.opened.of(&labels::of_connection(connection, peers)) {
            series.add(1);
        }
    }

    /// A connection moved bytes.
    pub(super) fn moved(&self, connection: &Connection, peers: &Current, received: u64, sent: u64) {
        let labels = labels::of_connection(connection, peers);
        for (family, more) in [(&self.received, received), (&self.sent, sent)] {
            if let Some(series) = family.of(&labels) {
                series.add(more);
            }
        }
    }

    /// A connection is over.
    pub(super) fn closed(&self, connection: &Connection, peers: &Current) {
        if let Some(series) = self.closed.of(&labels::of_connection(connection, peers)) {
            series.add(1);
        }
    }
}

impl Handles {
    /// Counts an exchange that is over.
    pub(super) fn count(&self, exchange: &Exchange) {
        let add = |counter: &Option<Arc<Counter>>, more: u64| {
            if let Some(counter) = counter {
                counter.add(more);
            }
        };
        let observe = |histogram: &Option<Arc<Histogram>>, value: u64| {
            if let Some(histogram) = histogram {
                histogram.observe(value);
            }
        };
        add(&self.requests, 1);
        if let Some(end) = exchange.marks.end {
            let took = end.saturating_duration_since(exchange.marks.start);
            observe(
                &self.duration,
                took.as_millis().try_into().unwrap_or(u64::MAX),
            );
        }
        observe(&self.request_bytes, exchange.received);
        observe(&self.response_bytes, exchange.sent);
        add(&self.request_messages, exchange.messages_received);
        add(&self.response_messages, exchange.messages_sent);
    }
}

/// Whether a metric is off. Names stand with or without `istio_` in front.
fn is_dropped(filter: &StatsFilter, metric: &str) -> bool {
    filter.dropped.iter().any(|name| is_named(name, metric))
}

/// Whether a metric has labels that others haven't.
fn has_own(filter: &StatsFilter, metric: &str) -> bool {
    let mut changes = filter.labels.iter();
    changes.any(|(name, ..)| !name.is_empty() && is_named(name, metric))
}

fn is_named(name: &str, metric: &str) -> bool {
    let name = name.strip_prefix("istio_").unwrap_or(name);
    name == "*" || name == metric
}

/// The workload at the far end: what its endpoint says of it, or else who has its address.
fn destination(upstream: &Upstream, peers: &Current) -> Option<WorkloadRef> {
    let said = upstream
        .endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.workload.as_deref().cloned());
    said.or_else(|| {
        let workload = peers.peer(upstream.remote?.ip())?;
        Some(WorkloadRef {
            name: workload.workload_name.as_ref().into(),
            namespace: workload.namespace.as_ref().into(),
            canonical_name: workload.canonical_name.as_ref().into(),
            canonical_revision: workload.canonical_revision.as_ref().into(),
            cluster: workload.cluster.as_ref().into(),
        })
    })
}

/// How the client's bytes came, in Istio's words.
fn security(downstream: &Downstream) -> &'static str {
    match downstream.peer.is_some() {
        true => "mutual_tls",
        false => "none",
    }
}

/// The labels whose values differ from request to request, as text: part of what a cache compares.
fn changing(filter: &StatsFilter, values: &dyn Values, out: &mut String) {
    let formats = filter
        .labels
        .iter()
        .filter_map(|(_, _, value)| value.as_ref());
    for format in formats.filter(|format| format.as_literal().is_none()) {
        render(format, values, "unknown", out);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests;
