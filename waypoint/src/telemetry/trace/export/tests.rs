//! Batches to a collector that answers, one that doesn't, and one that never comes back.

use std::cell::RefCell;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::*;
use crate::model::text::Fraction;
use crate::telemetry::testing::exchange;

fn tracing(protocol: TraceProtocol) -> Tracing {
    Tracing {
        provider: Some(Arc::new(TraceProvider {
            protocol,
            cluster: "collector".into(),
            service: "waypoint.bookinfo".into(),
            authority: "collector.local".into(),
            path: "".into(),
            timeout: Duration::from_secs(1),
            batch: 2,
        })),
        random: Fraction::ALWAYS,
        client: Fraction::ALWAYS,
        overall: Fraction::ALWAYS,
        tags: Vec::new(),
        path_limit: 256,
        upstream_spans: false,
        propagates: true,
    }
}

fn span(sampled: bool) -> Span {
    let mut headers = http::HeaderMap::new();
    let flag = u8::from(sampled);
    let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flag:02x}");
    headers.insert("traceparent", parent.parse().unwrap());
    Span::start(
        &tracing(TraceProtocol::OtlpGrpc),
        &headers,
        &mut rand::rng(),
    )
}

/// Keeps what it is given and answers so; ends the export after so many calls.
struct Collector<'c> {
    got: &'c RefCell<Vec<Request<Bytes>>>,
    answer: Result<(StatusCode, Option<u32>), String>,
    enough: Notify,
    after: usize,
}

impl Caller for &Collector<'_> {
    async fn call(
        &self,
        cluster: &str,
        request: Request<Bytes>,
        _: Duration,
    ) -> Result<(StatusCode, Option<u32>), String> {
        assert_eq!(cluster, "collector");
        self.got.borrow_mut().push(request);
        if self.got.borrow().len() == self.after {
            self.enough.notify_one();
        }
        self.answer.clone()
    }
}

/// Exports until the collector was called so often.
fn exported(
    spans: &Spans,
    answer: Result<(StatusCode, Option<u32>), String>,
    after: usize,
) -> Vec<Request<Bytes>> {
    let got = RefCell::default();
    let collector = Collector {
        got: &got,
        answer,
        enough: Notify::new(),
        after,
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = spans.export(&collector) => {}
            // Only looked at once the export waits again.
            () = collector.enough.notified() => {}
        }
    });
    got.into_inner()
}

#[test]
fn otlp_over_grpc() {
    let (spans, of) = (Spans::default(), span(true));
    let tracing = tracing(TraceProtocol::OtlpGrpc);
    for _ in 0..3 {
        spans.finish(&tracing, &of, &exchange());
    }
    spans.finish(&tracing, &span(false), &exchange());
    let got = exported(&spans, Ok((StatusCode::OK, Some(0))), 2);
    assert_eq!(got.len(), 2, "a full batch and the rest");
    let (head, body) = got.into_iter().next().unwrap().into_parts();
    let uri = "http://collector.local/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(head.uri, uri);
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(body[0], 0);
    assert_eq!(
        usize::try_from(u32::from_be_bytes(body[1..5].try_into().unwrap())).unwrap(),
        body.len() - 5
    );
    let message = ExportTraceServiceRequest::decode(&body[5..]).unwrap();
    let resource = &message.resource_spans[0];
    let sent = &resource.scope_spans[0].spans;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].trace_id, of.trace.to_be_bytes());
    assert_eq!(
        sent[0].parent_span_id,
        0xb7ad_6b71_6920_3331_u64.to_be_bytes()
    );
    assert_eq!(sent[0].name, "GET reviews:9080");
    assert_eq!(
        sent[0].end_time_unix_nano - sent[0].start_time_unix_nano,
        12_000_000
    );
    let names: Vec<&str> = sent[0]
        .attributes
        .iter()
        .map(|pair| pair.key.as_str())
        .collect();
    for name in [
        "http.url",
        "http.status_code",
        "upstream_cluster",
        "response_size",
    ] {
        assert!(names.contains(&name), "{name} isn't in {names:?}");
    }
    assert_eq!(spans.dropped(), 0);
}

#[test]
fn zipkin_and_otlp_over_http() {
    let (spans, of) = (Spans::default(), span(true));
    spans.finish(&tracing(TraceProtocol::Zipkin), &of, &exchange());
    spans.finish(&tracing(TraceProtocol::OtlpHttp), &of, &exchange());
    let got = exported(&spans, Ok((StatusCode::ACCEPTED, None)), 2);
    let json: serde_json::Value = serde_json::from_slice(got[0].body()).unwrap();
    assert_eq!(got[0].uri(), "http://collector.local/api/v2/spans");
    assert_eq!(json[0]["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(json[0]["parentId"], "b7ad6b7169203331");
    assert_eq!(json[0]["duration"], 12_000);
    assert_eq!(json[0]["localEndpoint"]["serviceName"], "waypoint.bookinfo");
    assert_eq!(json[0]["tags"]["http.method"], "GET");
    assert_eq!(got[1].uri(), "http://collector.local/v1/traces");
    assert!(ExportTraceServiceRequest::decode(got[1].body().clone()).is_ok());
}

#[test]
fn a_collector_that_is_away_costs_spans() {
    for answer in [
        Err("connection refused".to_owned()),
        Ok((StatusCode::SERVICE_UNAVAILABLE, None)),
        Ok((StatusCode::OK, Some(14))),
    ] {
        let spans = Spans::default();
        for _ in 0..4 {
            spans.finish(&tracing(TraceProtocol::OtlpGrpc), &span(true), &exchange());
        }
        exported(&spans, answer, 2);
        assert!(spans.dropped() >= 2, "{}", spans.dropped());
        assert!(spans.take().is_none());
    }
}

#[test]
fn what_waits_is_bounded() {
    let (spans, tracing, of) = (
        Spans::default(),
        tracing(TraceProtocol::OtlpGrpc),
        span(true),
    );
    let exchange = exchange();
    for _ in 0..MOST_WAITING + 3 {
        spans.finish(&tracing, &of, &exchange);
    }
    assert_eq!(spans.dropped(), 3);
}
