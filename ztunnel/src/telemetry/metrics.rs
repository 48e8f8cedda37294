//! Counters, and the port that shows them as OpenMetrics. Counters move when a connection opens and
//! when it ends, never for a chunk of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use mesh::tls::TlsRefusal;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::labels::{Flag, Labels, Reporter};
use crate::http::{Request, Response, serve, text};

/// Different label sets that connection metrics keep in all. Past it, connections are counted only
/// in `culvert_untracked_connections_total`: a bound on memory, not on truth.
const MOST_LABEL_SETS: usize = 20_000;
/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every counter of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    opened: Family<Labels, Counter>,
    closed: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
    received: Family<Labels, Counter>,
    label_sets: AtomicUsize,
    untracked: Counter,
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
        let istio = registry.sub_registry_with_prefix("istio");
        let tcp = istio.sub_registry_with_prefix("tcp");
        tcp.register(
            "connections_opened",
            "Connections opened",
            inner.opened.clone(),
        );
        tcp.register(
            "connections_closed",
            "Connections closed",
            inner.closed.clone(),
        );
        tcp.register(
            "sent_bytes",
            "Bytes from the client to the server",
            inner.sent.clone(),
        );
        tcp.register(
            "received_bytes",
            "Bytes from the server to the client",
            inner.received.clone(),
        );
        let own = registry.sub_registry_with_prefix("culvert");
        own.register("connections", "Connections open now", inner.open.clone());
        own.register(
            "untracked_connections",
            "Connections past the bound on label sets",
            inner.untracked.clone(),
        );
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

    /// A connection opened.
    pub fn opened(&self, reporter: Reporter, labels: &Labels) {
        self.0.open.get_or_create(&Direction { reporter }).inc();
        if self.tracked(&self.0.opened, labels) {
            self.0.opened.get_or_create(labels).inc();
        }
    }

    /// A connection ended so, after so many bytes from the client (`sent`) and to it (`received`).
    pub fn closed(
        &self,
        reporter: Reporter,
        labels: &Labels,
        flag: Flag,
        sent: u64,
        received: u64,
    ) {
        self.0.open.get_or_create(&Direction { reporter }).dec();
        let labels = &labels.ended(flag);
        if self.tracked(&self.0.closed, labels) {
            self.0.closed.get_or_create(labels).inc();
            self.0.sent.get_or_create(labels).inc_by(sent);
            self.0.received.get_or_create(labels).inc_by(received);
        }
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

    /// True if `family` has, or may have, a place for this label set.
    fn tracked(&self, family: &Family<Labels, Counter>, labels: &Labels) -> bool {
        if family.get(labels).is_some() {
            return true;
        }
        let allowed = self.0.label_sets.fetch_add(1, Ordering::Relaxed) < MOST_LABEL_SETS;
        if !allowed {
            self.0.label_sets.fetch_sub(1, Ordering::Relaxed);
            self.0.untracked.inc();
        }
        allowed
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
