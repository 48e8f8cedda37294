//! Counters, and the port that shows them as OpenMetrics. Counters move when a connection opens and
//! when it ends, never for a chunk of bytes.

use std::sync::Arc;

use http::StatusCode;
use mesh::tls::TlsRefusal;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::labels::{Labels, Reporter};
use super::traffic::{Counts, Traffic};
use mesh::pages::{Request, Response, serve, text};

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every counter of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

/// A connection that is counted as open.
#[derive(Debug)]
pub struct Opened {
    reporter: Reporter,
    counts: Option<Arc<Counts>>,
}

#[derive(Debug, Default)]
struct Inner {
    traffic: Traffic,
    open: Family<Direction, Gauge>,
    tls_refusals: Family<Refusal, Counter>,
    held: Gauge,
    closed_by_policy: Counter,
    pods: Family<PodState, Gauge>,
    capture_failures: Counter,
    repairs: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Direction {
    reporter: Reporter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Refusal {
    reporter: Reporter,
    reason: RefusalName,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct RefusalName(TlsRefusal);

impl EncodeLabelValue for RefusalName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PodState {
    state: &'static str,
}

impl Metrics {
    /// Counters at zero, and a registry that shows them.
    #[must_use]
    pub fn new() -> (Self, Registry) {
        let inner = Inner::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(inner.traffic.clone()));
        let own = registry.sub_registry_with_prefix("culvert");
        own.register("connections", "Connections open now", inner.open.clone());
        own.register(
            "tls_refusals",
            "TLS handshakes that failed, by reason",
            inner.tls_refusals.clone(),
        );
        own.register(
            "held_connections",
            "Connections that wait for workload or policy data",
            inner.held.clone(),
        );
        own.register(
            "policy_closed_connections",
            "Open connections that a change of policy closed",
            inner.closed_by_policy.clone(),
        );
        own.register(
            "pods",
            "Pods of this node, captured or waiting to be",
            inner.pods.clone(),
        );
        own.register(
            "capture_failures",
            "Attempts to capture a pod that failed",
            inner.capture_failures.clone(),
        );
        own.register(
            "capture_repairs",
            "Parts of capture that had been removed and were put back",
            inner.repairs.clone(),
        );
        (Self(Arc::new(inner)), registry)
    }

    /// A connection opened: where its end is to be counted.
    #[must_use]
    pub fn opened(&self, reporter: Reporter, labels: Labels) -> Opened {
        self.0.open.get_or_create(&Direction { reporter }).inc();
        let counts = self.0.traffic.of(labels);
        if let Some(counts) = &counts {
            counts.opened();
        }
        Opened { reporter, counts }
    }

    /// A connection ended well, after so many bytes from the client (`sent`) and to it.
    pub fn closed(&self, opened: Opened, sent: u64, received: u64) {
        self.ended(&opened);
        if let Some(counts) = opened.counts {
            counts.closed(sent, received);
        }
    }

    /// A connection failed; its labels say how.
    pub fn failed(&self, opened: Opened, labels: Labels, sent: u64, received: u64) {
        self.ended(&opened);
        if let Some(counts) = self.0.traffic.of(labels) {
            counts.closed(sent, received);
        }
    }

    fn ended(&self, opened: &Opened) {
        let reporter = opened.reporter;
        self.0.open.get_or_create(&Direction { reporter }).dec();
    }

    /// A TLS handshake failed.
    pub fn tls_refused(&self, reporter: Reporter, reason: TlsRefusal) {
        self.0
            .tls_refusals
            .get_or_create(&Refusal {
                reporter,
                reason: RefusalName(reason),
            })
            .inc();
    }

    /// A connection begins (+1) or ends (−1) to wait for data.
    pub fn held(&self, change: i64) {
        self.0.held.inc_by(change);
    }

    /// A change of policy closed an open connection.
    pub fn closed_by_policy(&self) {
        self.0.closed_by_policy.inc();
    }

    /// How many pods are captured, and how many should be but are not.
    pub fn pods(&self, captured: usize, waiting: usize) {
        for (state, count) in [("captured", captured), ("waiting", waiting)] {
            self.0
                .pods
                .get_or_create(&PodState { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A pod could not be captured.
    pub fn capture_failed(&self) {
        self.0.capture_failures.inc();
    }

    /// Parts of capture were put back.
    pub fn repaired(&self, parts: usize) {
        self.0.repairs.inc_by(parts as u64);
    }
}

/// Shows `registry` at `/metrics` on `listener`.
pub async fn show(registry: Registry, listener: TcpListener) {
    let registry = Arc::new(registry);
    serve(listener, move |request| {
        std::future::ready(answer(&registry, &request))
    })
    .await;
}

fn answer(registry: &Registry, request: &Request) -> Response {
    let plain = "text/plain; charset=utf-8";
    if !matches!(request.uri().path(), "/metrics" | "/stats/prometheus") {
        return text(StatusCode::NOT_FOUND, plain, "only /metrics is here\n");
    }
    let mut page = String::new();
    match prometheus_client::encoding::text::encode(&mut page, registry) {
        Ok(()) => text(StatusCode::OK, OPEN_METRICS, page),
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            plain,
            "cannot write the metrics\n",
        ),
    }
}

#[cfg(test)]
mod tests;
