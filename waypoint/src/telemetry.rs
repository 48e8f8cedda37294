//! What is told of traffic: Istio's metrics, access logs, traces. The flow fills an [`Exchange`]
//! and hands it over at the end; nothing here can hold up or change a request except the trace
//! headers. Each worker thread has a [`Worker`] of its own, so that nothing is locked on the way of
//! a request; [`Telemetry`] is what they share.

mod exchange;
mod flags;
mod plan;
pub mod trace;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;

use crate::model::http::HttpChain;
use crate::model::listener::{Chain, TcpChain};

pub use exchange::{Connection, Exchange, Kept, Marks, Text, Upstream};
pub use flags::Flags;

use plan::Plans;

/// What all workers share. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    connections: AtomicU64,
}

/// One worker thread's part. Not shared, and never locked.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    plans: RefCell<Plans>,
}

impl Telemetry {
    /// A worker's part; each thread makes its own.
    #[must_use]
    pub fn worker(&self) -> Worker {
        Worker {
            shared: Arc::clone(&self.shared),
            plans: RefCell::default(),
        }
    }

    /// Appends all metrics in Prometheus' text format.
    pub fn encode(&self, out: &mut String) {
        let mut counter = |name: &str, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed);
            out.push_str(&format!("# TYPE {name} counter\n{name} {value}\n"));
        };
        counter("envoy_http_downstream_rq_total", &self.shared.requests);
        counter(
            "envoy_listener_downstream_cx_total",
            &self.shared.connections,
        );
    }
}

impl Worker {
    /// A request's head is there: what logs will want of it is kept, and its trace begins or goes
    /// on. Once, before filters and routing.
    pub fn begin(&self, chain: &Arc<HttpChain>, exchange: &mut Exchange, headers: &HeaderMap) {
        let plan = self.plans.borrow_mut().of(chain);
        exchange.request.keep(&plan.request, headers);
        if let Some(tracing) = &chain.tracing {
            let span = trace::Span::start(tracing, headers, &mut rand::rng());
            exchange.span = Some(Box::new(span));
        }
    }

    /// An attempt's headers are about to go out: the upstream is told of the trace.
    pub fn inject(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        if let Some(span) = &exchange.span {
            trace::inject(span, headers);
        }
    }

    /// The answer's head goes to the client, changed as it will be: what logs will want of it is
    /// kept, `grpc-status` among it.
    pub fn answered(&self, chain: &Arc<HttpChain>, exchange: &mut Exchange, headers: &HeaderMap) {
        let plan = self.plans.borrow_mut().of(chain);
        exchange.response.keep(&plan.response, headers);
        note_grpc_status(exchange, headers);
    }

    /// The answer's trailers go to the client.
    pub fn trailed(&self, chain: &Arc<HttpChain>, exchange: &mut Exchange, trailers: &HeaderMap) {
        let plan = self.plans.borrow_mut().of(chain);
        exchange.trailers.keep(&plan.trailers, trailers);
        note_grpc_status(exchange, trailers);
    }

    /// The request is over, however it ended. `marks.end` is set.
    pub fn finish(&self, chain: &Arc<HttpChain>, exchange: &Exchange) {
        let _ = (chain, exchange);
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// An opaque connection was opened to its upstream.
    pub fn opened(&self, chain: &Chain, connection: &Connection) {
        let _ = (chain, connection);
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// An opaque connection moved bytes since the last report (both since then, not in total), so
    /// that long ones are seen before they end.
    pub fn moved(&self, chain: &Chain, connection: &Connection, received: u64, sent: u64) {
        let _ = (chain, connection, received, sent);
    }

    /// An opaque connection is over, or was denied. `end` is set.
    pub fn closed(&self, chain: &Chain, tcp: Option<&TcpChain>, connection: &Connection) {
        let _ = (chain, tcp, connection);
    }
}

/// Trailers count before the head, and come after it.
fn note_grpc_status(exchange: &mut Exchange, headers: &HeaderMap) {
    if let Some(value) = headers.get("grpc-status") {
        let status = value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok());
        exchange.grpc_status = status.or(exchange.grpc_status);
    }
}
