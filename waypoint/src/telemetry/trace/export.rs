//! Finished spans on their way to a collector: kept in a bounded queue for each collector, sent in
//! batches. A collector that is slow or away costs spans, which are counted, and nothing else.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Span, otlp, zipkin};
use crate::model::log::{TraceProtocol, TraceProvider, Tracing};
use crate::route::headers::render;
use crate::telemetry::exchange::{Attempt, Exchange};

/// The most spans that wait for a collector.
const MOST_WAITING: usize = 4096;

/// The most collectors at a time; the one that was added first is forgotten.
const MOST_COLLECTORS: usize = 64;

/// A batch that isn't full is sent after this.
const PAUSE: Duration = Duration::from_secs(1);

/// Spans of a batch where the configuration doesn't say.
const USUAL_BATCH: usize = 512;

/// Who carries a request to a collector's cluster.
pub trait Caller {
    /// Sends a request to a cluster and waits for the answer: its status, and `grpc-status` of its
    /// trailers or head. An error says in words why there was none.
    fn call(
        &self,
        cluster: &str,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> impl Future<Output = Result<(StatusCode, Option<u32>), String>>;
}

/// A span that is over, with what is told of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finished {
    pub(super) span: Span,
    /// It is of an attempt, and not of the request.
    pub(super) upstream: bool,
    pub(super) name: String,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    pub(super) failed: bool,
    pub(super) attributes: Vec<(String, Attribute)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    Text(String),
    Number(i64),
}

/// The spans of all workers.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Spans {
    queues: Mutex<Vec<Queue>>,
    ready: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    provider: Arc<TraceProvider>,
    waiting: VecDeque<Finished>,
}

impl Spans {
    /// A traced request is over.
    pub(in crate::telemetry) fn finish(&self, tracing: &Tracing, span: &Span, exchange: &Exchange) {
        if let Some(provider) = tracing.provider.as_ref().filter(|_| span.sampled) {
            self.add(provider, Finished::of(tracing, span, exchange));
        }
    }

    /// A traced attempt of a request is over, with this status where it was answered.
    pub(in crate::telemetry) fn attempted(
        &self,
        tracing: &Tracing,
        attempt: &Attempt,
        status: Option<StatusCode>,
        exchange: &Exchange,
    ) {
        let sampled = attempt.span.sampled;
        if let Some(provider) = tracing.provider.as_ref().filter(|_| sampled) {
            self.add(
                provider,
                Finished::of_attempt(tracing, attempt, status, exchange),
            );
        }
    }

    fn add(&self, provider: &Arc<TraceProvider>, finished: Finished) {
        let batch = batch(provider);
        let mut queues = self.queues.lock();
        let known = queues
            .iter()
            .position(|queue| same(&queue.provider, provider));
        let at = known.unwrap_or_else(|| {
            if queues.len() >= MOST_COLLECTORS {
                let lost = queues.remove(0).waiting.len();
                self.drop_spans(lost);
            }
            queues.push(Queue {
                provider: Arc::clone(provider),
                waiting: VecDeque::new(),
            });
            queues.len() - 1
        });
        let waiting = &mut queues[at].waiting;
        if waiting.len() >= MOST_WAITING {
            self.drop_spans(1);
            return;
        }
        waiting.push_back(finished);
        // The first wakes whoever sends, and so does one that fills a batch.
        if waiting.len() == 1 || waiting.len() == batch {
            self.ready.notify_one();
        }
    }

    /// How many spans were dropped.
    pub(in crate::telemetry) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sends batches, for as long as it is polled.
    pub(in crate::telemetry) async fn export(&self, caller: impl Caller) {
        let mut last_failed = false;
        loop {
            self.ready.notified().await;
            // Either a batch is full or a while has passed: both send what is there.
            let _ = tokio::time::timeout(PAUSE, self.ready.notified()).await;
            while let Some((provider, spans)) = self.take() {
                let count = spans.len();
                match send(&caller, &provider, &spans).await {
                    Ok(()) => last_failed = false,
                    Err(error) => {
                        self.drop_spans(count);
                        if !last_failed {
                            let cluster = &provider.cluster;
                            tracing::warn!(%cluster, %error, "spans can't be sent: the collector is away, or speaks another protocol; they are dropped and counted");
                        }
                        last_failed = true;
                    }
                }
            }
        }
    }

    /// The next batch of any collector.
    fn take(&self) -> Option<(Arc<TraceProvider>, Vec<Finished>)> {
        let mut queues = self.queues.lock();
        let queue = queues.iter_mut().find(|queue| !queue.waiting.is_empty())?;
        let size = batch(&queue.provider).min(queue.waiting.len());
        let spans = queue.waiting.drain(..size).collect();
        Some((Arc::clone(&queue.provider), spans))
    }

    fn drop_spans(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

async fn send(
    caller: &impl Caller,
    provider: &TraceProvider,
    spans: &[Finished],
) -> Result<(), String> {
    let request = match provider.protocol {
        TraceProtocol::OtlpGrpc => otlp::grpc(provider, spans),
        TraceProtocol::OtlpHttp => otlp::http(provider, spans),
        TraceProtocol::Zipkin => zipkin::request(provider, spans),
    };
    let request = request.map_err(|error| format!("the collector's address is no URL: {error}"))?;
    let answer = caller
        .call(&provider.cluster, request, provider.timeout)
        .await?;
    match answer {
        (status, None | Some(0)) if status.is_success() => Ok(()),
        (status, grpc) => Err(format!(
            "the collector answered {status}, grpc-status {grpc:?}"
        )),
    }
}

impl Finished {
    fn of(tracing: &Tracing, span: &Span, exchange: &Exchange) -> Self {
        let start = exchange.marks.started;
        let took = exchange.marks.end.map(|end| end - exchange.marks.start);
        let status = exchange.status.map_or(0, |status| status.as_u16());
        let operation = exchange
            .route
            .as_ref()
            .and_then(|route| route.operation.as_deref());
        let name = match operation {
            Some(operation) => operation.to_owned(),
            None => format!("{} {}", exchange.method, exchange.authority.as_str()),
        };
        Self {
            span: span.clone(),
            upstream: false,
            name,
            start,
            end: start + took.unwrap_or_default(),
            failed: status == 0 || status >= 500,
            attributes: attributes(tracing, exchange, status),
        }
    }

    fn of_attempt(
        tracing: &Tracing,
        attempt: &Attempt,
        status: Option<StatusCode>,
        exchange: &Exchange,
    ) -> Self {
        let status = status.map_or(0, |status| status.as_u16());
        let failed = status == 0 || status >= 500;
        let mut attributes = Attributes::default();
        attributes.text("component", "proxy");
        if let Some(version) = exchange.upstream_protocol.filter(|_| status > 0) {
            attributes.text("http.protocol", super::super::values::protocol(version));
        }
        attributes.text("http.status_code", &status.to_string());
        attributes.upstream(exchange);
        if let Some(remote) = exchange.upstream.remote {
            attributes.text("peer.address", &remote.to_string());
        }
        if attempt.number > 1 {
            attributes.text("retry.count", &(attempt.number - 1).to_string());
        }
        if failed {
            attributes.text("error", "true");
        }
        attributes.tags(tracing, exchange);
        let cluster = exchange.upstream.cluster.as_ref();
        let cluster = cluster.map_or("", |cluster| &*cluster.name);
        Self {
            span: attempt.span.clone(),
            upstream: true,
            name: format!("router {cluster} egress"),
            start: attempt.started,
            end: attempt.started + attempt.start.elapsed(),
            failed,
            attributes: attributes.0,
        }
    }
}

/// What is told of a span.
#[derive(Default)]
struct Attributes(Vec<(String, Attribute)>);

impl Attributes {
    /// What is empty is left out.
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0
                .push((name.to_owned(), Attribute::Text(value.to_owned())));
        }
    }

    fn upstream(&mut self, exchange: &Exchange) {
        if let Some(cluster) = &exchange.upstream.cluster {
            self.text("upstream_cluster", &cluster.name);
            self.text("upstream_cluster.name", &cluster.stat_name);
        }
        if let Some(remote) = exchange.upstream.remote {
            self.text("upstream_address", &remote.to_string());
        }
    }

    /// The chain's tags, and the route's, which count before those of the same name.
    fn tags(&mut self, tracing: &Tracing, exchange: &Exchange) {
        let own = exchange.route_tags();
        let others = tracing.tags.iter();
        let others = others.filter(|tag| own.iter().all(|own| own.name != tag.name));
        for tag in own.iter().chain(others) {
            let mut value = String::new();
            render(&tag.value, exchange, "", &mut value);
            let value = if value.is_empty() {
                &tag.otherwise
            } else {
                &*value
            };
            self.text(&tag.name, value);
        }
    }
}

/// What Envoy tells of a request, under its names.
fn attributes(tracing: &Tracing, exchange: &Exchange, status: u16) -> Vec<(String, Attribute)> {
    let mut all = Attributes(Vec::with_capacity(20));
    let mut text = |name: &str, value: &str| all.text(name, value);
    let path = match &exchange.original_path {
        Some(path) => path.as_str(),
        None => exchange.path.as_str(),
    };
    let path = &path[..path.floor_char_boundary(tracing.path_limit)];
    let host = exchange.authority.as_str();
    let kept = |name: HeaderName| {
        exchange
            .request
            .get(&name)
            .and_then(|value| value.to_str().ok())
    };
    text("component", "proxy");
    text("http.method", exchange.method.as_str());
    text("http.url", &format!("{}://{host}{path}", exchange.scheme));
    text(
        "http.protocol",
        super::super::values::protocol(exchange.protocol),
    );
    text("http.status_code", &status.to_string());
    text("response_flags", &exchange.flags.to_string());
    text("peer.address", &exchange.client.ip().to_string());
    text(
        "user_agent",
        kept(http::header::USER_AGENT).unwrap_or_default(),
    );
    text(
        "guid:x-request-id",
        kept(HeaderName::from_static("x-request-id")).unwrap_or_default(),
    );
    all.upstream(exchange);
    let mut text = |name: &str, value: &str| all.text(name, value);
    if let Some(status) = exchange.grpc_status.filter(|_| exchange.is_grpc) {
        text("grpc.status_code", &status.to_string());
    }
    if status >= 500 {
        text("error", "true");
    }
    all.tags(tracing, exchange);
    let mut all = all.0;
    for (name, size) in [
        ("request_size", exchange.received),
        ("response_size", exchange.sent),
    ] {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        all.push((name.to_owned(), Attribute::Number(size)));
    }
    all
}

fn batch(provider: &TraceProvider) -> usize {
    match provider.batch {
        0 => USUAL_BATCH,
        batch => batch.min(MOST_WAITING),
    }
}

/// Whether two configurations mean the same collector.
fn same(one: &Arc<TraceProvider>, other: &Arc<TraceProvider>) -> bool {
    Arc::ptr_eq(one, other)
        || (one.protocol == other.protocol
            && one.cluster == other.cluster
            && one.service == other.service
            && one.authority == other.authority
            && one.path == other.path
            && one.timeout == other.timeout
            && one.batch == other.batch)
}

#[cfg(test)]
mod tests;
