//! What is told of traffic: Istio's metrics, access logs, traces. The flow fills an [`Exchange`]
//! and hands it over at the end; nothing here can hold up or change a request except the trace
//! headers. Each worker thread has a [`Worker`] of its own, so that metrics need no lock on the way
//! of a request; [`Telemetry`] is what they share.

mod access_log;
mod connections;
mod envoy;
mod exchange;
mod flags;
mod istio;
mod metrics;
mod plan;
#[cfg(test)]
mod testing;
pub mod trace;
mod values;
mod writer;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};

use crate::model::http::HttpChain;
use crate::model::listener::{Chain, TcpChain};
use crate::model::log::AccessLog;
use crate::model::snapshot::Current;

pub use connections::Connections;
pub use exchange::{Connection, Exchange, Kept, Marks, Text, Upstream};
pub use flags::Flags;

use plan::Plans;
use trace::export::Spans;
use writer::Writers;

/// The longest line of an access log that keeps its buffer.
const USUAL_LINE: usize = 4096;

/// What all workers share. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    istio: istio::Families,
    envoy: envoy::Families,
    writers: Writers,
    spans: Spans,
    peers: Current,
    connections: Arc<Connections>,
}

/// One worker thread's part. Not shared between threads.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    plans: RefCell<Plans>,
    series: RefCell<istio::Cache>,
    clusters: RefCell<envoy::Clusters>,
    line: RefCell<String>,
}

impl Telemetry {
    /// Telemetry that finds out by these who is behind an address.
    #[must_use]
    pub fn new(peers: Current) -> Self {
        Self {
            shared: Arc::new(Shared {
                peers,
                ..Shared::default()
            }),
        }
    }

    /// Where connections of clients are counted.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.shared.connections)
    }

    /// A worker's part; each thread makes its own.
    #[must_use]
    pub fn worker(&self) -> Worker {
        Worker {
            shared: Arc::clone(&self.shared),
            plans: RefCell::default(),
            series: RefCell::default(),
            clusters: RefCell::default(),
            line: RefCell::default(),
        }
    }

    /// Appends all metrics in Prometheus' text format.
    pub fn encode(&self, out: &mut String) {
        let shared = &self.shared;
        shared.istio.encode(out);
        shared.envoy.encode(out);
        let version = env!("CARGO_PKG_VERSION");
        out.push_str(&format!(
            "# HELP istio_build What runs here\n# TYPE istio_build gauge\n\
             istio_build{{component=\"proxy\",tag=\"culvert-{version}\"}} 1\n"
        ));
        shared.connections.encode(out);
        for (name, help, value) in [
            (
                "culvert_access_log_dropped_total",
                "Lines of access logs that nobody wrote",
                shared.writers.dropped(),
            ),
            (
                "culvert_spans_dropped_total",
                "Spans that no collector got",
                shared.spans.dropped(),
            ),
            (
                "culvert_metrics_refused_total",
                "Label sets that a full metric refused",
                shared.istio.refused(),
            ),
        ] {
            out.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n"
            ));
        }
    }

    /// Has access logs opened again, after somebody moved the files away.
    pub fn reopen(&self) {
        self.shared.writers.reopen();
    }

    /// Waits until all access logs are written, but not longer than this. Holds the thread up: only
    /// for the end of the process.
    pub fn flush(&self, patience: Duration) {
        self.shared.writers.flush(patience);
    }
}

impl Worker {
    /// Carries the spans of all workers to their collectors, for as long as it is polled. On one
    /// thread only.
    pub async fn export(&self, caller: impl trace::export::Caller) {
        self.shared.spans.export(caller).await;
    }

    /// A connection came to nothing in its handshake.
    pub fn without_handshake(&self, late: bool) {
        self.shared.connections.without_handshake(late);
    }

    /// A request's head is there, with its `x-request-id`: what logs will want of it is kept, and
    /// its trace begins or goes on. Once, before filters and routing.
    pub fn begin(&self, chain: &Arc<HttpChain>, exchange: &mut Exchange, headers: &HeaderMap) {
        let plan = self.plans.borrow_mut().of(chain, &self.shared);
        exchange.request.keep(&plan.wanted.request, headers);
        // Without a collector the headers of a trace pass as they came: a span that nobody gets
        // would only tear a hole into it.
        let tracing = chain.tracing.as_deref();
        if let Some(tracing) = tracing.filter(|tracing| tracing.provider.is_some()) {
            let span = trace::Span::start(tracing, headers, &mut rand::rng());
            exchange.span = Some(Box::new(span));
        }
    }

    /// The request's route is known: it may say itself how it is traced.
    pub fn routed(&self, exchange: &mut Exchange, headers: &HeaderMap) {
        let route = exchange.route.as_ref();
        let tracing = route.and_then(|route| route.tracing.as_deref());
        let (Some(tracing), Some(span)) = (tracing, &mut exchange.span) else {
            return;
        };
        span.on_route(tracing, headers, &mut rand::rng());
        let wanted = plan::Wanted::of_tags(&tracing.tags);
        exchange.request.keep(&wanted.request, headers);
    }

    /// The request's headers are about to go out: the upstream is told of the trace.
    pub fn inject(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        if let Some(span) = &exchange.span {
            trace::inject(span, headers);
        }
    }

    /// So are an attempt's, which may have a span of its own.
    pub fn attempt(&self, chain: &HttpChain, exchange: &mut Exchange, headers: &mut HeaderMap) {
        let Some(span) = &exchange.span else {
            return;
        };
        let tracing = chain.tracing.as_deref();
        if !span.sampled || tracing.is_none_or(|tracing| !tracing.upstream_spans) {
            return;
        }
        let attempt = exchange::Attempt {
            span: span.child(&mut rand::rng()),
            started: SystemTime::now(),
            start: Instant::now(),
            number: exchange.upstream.attempts,
        };
        trace::inject(&attempt.span, headers);
        exchange.attempt = Some(Box::new(attempt));
    }

    /// An attempt is over and another one will follow; its status, where it was answered.
    pub fn attempted(
        &self,
        chain: &HttpChain,
        exchange: &mut Exchange,
        status: Option<StatusCode>,
    ) {
        if let (Some(attempt), Some(tracing)) = (exchange.attempt.take(), &chain.tracing) {
            let spans = &self.shared.spans;
            spans.attempted(tracing, &attempt, status, exchange);
        }
    }

    /// The answer's head goes to the client, changed as it will be: what logs will want of it is
    /// kept, `grpc-status` among it.
    pub fn answered(&self, chain: &Arc<HttpChain>, exchange: &mut Exchange, headers: &HeaderMap) {
        let plan = self.plans.borrow_mut().of(chain, &self.shared);
        exchange.response.keep(&plan.wanted.response, headers);
        if !exchange.route_tags().is_empty() {
            let wanted = plan::Wanted::of_tags(exchange.route_tags());
            exchange.response.keep(&wanted.response, headers);
        }
        note_grpc_status(exchange, headers);
    }

    /// The answer's trailers go to the client.
    pub fn trailed(&self, chain: &Arc<HttpChain>, exchange: &mut Exchange, trailers: &HeaderMap) {
        let plan = self.plans.borrow_mut().of(chain, &self.shared);
        exchange.trailers.keep(&plan.wanted.trailers, trailers);
        note_grpc_status(exchange, trailers);
    }

    /// The request is over, however it ended. `marks.end` is set.
    pub fn finish(&self, chain: &Arc<HttpChain>, exchange: &Exchange) {
        let shared = &*self.shared;
        let plan = self.plans.borrow_mut().of(chain, shared);
        plan.requests.count(exchange);
        if let Some(cluster) = exchange.upstream.cluster.as_ref()
            && exchange.upstream.attempts > 0
        {
            let requests = self.clusters.borrow_mut().of(cluster, &shared.envoy);
            requests.count(exchange);
        }
        if let Some(stats) = &plan.stats {
            let mut series = self.series.borrow_mut();
            let handles = series.of(&shared.istio, stats, exchange, &shared.peers);
            handles.count(exchange);
        }
        for (log, writer) in chain.access_logs.iter().zip(&plan.writers) {
            self.log(log, writer, exchange);
        }
        if let (Some(tracing), Some(span)) = (&chain.tracing, &exchange.span) {
            if let Some(attempt) = &exchange.attempt {
                let answered = exchange.marks.response_start.is_some();
                let status = exchange.status.filter(|_| answered);
                shared.spans.attempted(tracing, attempt, status, exchange);
            }
            shared.spans.finish(tracing, span, exchange);
        }
    }

    /// An opaque connection was opened to its upstream.
    pub fn opened(&self, chain: &Chain, connection: &Connection) {
        if chain.stats {
            self.shared.istio.opened(connection, &self.shared.peers);
        }
    }

    /// An opaque connection moved bytes since the last report (both since then, not in total), so
    /// that long ones are seen before they end. What is left is reported before it is closed.
    pub fn moved(&self, chain: &Chain, connection: &Connection, received: u64, sent: u64) {
        if chain.stats && received + sent > 0 {
            let (istio, peers) = (&self.shared.istio, &self.shared.peers);
            istio.moved(connection, peers, received, sent);
        }
    }

    /// An opaque connection is over, or was denied. `end` is set.
    pub fn closed(&self, chain: &Chain, tcp: Option<&TcpChain>, connection: &Connection) {
        if chain.stats {
            self.shared.istio.closed(connection, &self.shared.peers);
        }
        if let Some(tcp) = tcp {
            self.shared.envoy.connected(&tcp.stat_prefix);
            self.log_connection(&tcp.access_logs, connection);
        }
    }

    /// Writes a connection down where no chain does: one that no chain took.
    pub fn log_connection(&self, logs: &[AccessLog], connection: &Connection) {
        for log in logs {
            self.log(log, &self.shared.writers.of(&log.to), connection);
        }
    }

    /// Keeps the headers of a request that these logs want.
    pub fn keep(&self, logs: &[AccessLog], exchange: &mut Exchange, headers: &HeaderMap) {
        exchange.request.keep(&plan::request_headers(logs), headers);
    }

    /// Writes a request down where no chain does: a tunnel's CONNECT. `marks.end` is set.
    pub fn log_exchange(&self, logs: &[AccessLog], exchange: &Exchange) {
        for log in logs {
            self.log(log, &self.shared.writers.of(&log.to), exchange);
        }
    }

    fn log(&self, log: &AccessLog, writer: &writer::Writer, of: &impl access_log::Logged) {
        let mut line = self.line.borrow_mut();
        access_log::line(log, of, &mut rand::rng(), &mut line);
        if !line.is_empty() {
            writer.append(&line);
        }
        line.clear();
        line.shrink_to(USUAL_LINE);
    }
}

/// Trailers count before the head, and come after it.
fn note_grpc_status(exchange: &mut Exchange, headers: &HeaderMap) {
    if let Some(value) = headers.get(crate::grpc::STATUS) {
        let status = value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok());
        exchange.grpc_status = status.or(exchange.grpc_status);
    }
}

#[cfg(test)]
mod tests;
