//! Spans as Zipkin's JSON of version 2.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::{Map, Value, json};

use super::export::{Attribute, Finished};
use crate::model::log::TraceProvider;

/// The path of a collector's API.
const SPANS: &str = "/api/v2/spans";

/// The request that carries some spans.
pub(super) fn request(
    provider: &TraceProvider,
    spans: &[Finished],
) -> http::Result<Request<Bytes>> {
    let path = match &*provider.path {
        "" => SPANS,
        path => path,
    };
    let body: Vec<Value> = spans.iter().map(|of| span(provider, of)).collect();
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{path}", provider.authority))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Value::Array(body).to_string().into())
}

fn span(provider: &TraceProvider, of: &Finished) -> Value {
    let tag = |(name, value): &(String, Attribute)| {
        let value = match value {
            Attribute::Text(text) => text.clone(),
            Attribute::Number(number) => number.to_string(),
        };
        (name.clone(), Value::String(value))
    };
    let tags: Map<String, Value> = of.attributes.iter().map(tag).collect();
    let start = of.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let took = of.end.duration_since(of.start).unwrap_or_default();
    let mut span = json!({
        "traceId": format!("{:032x}", of.span.trace),
        "id": format!("{:016x}", of.span.id),
        "name": of.name,
        "kind": if of.upstream { "CLIENT" } else { "SERVER" },
        "timestamp": start.as_micros() as u64,
        // Zipkin takes no span for one that took no time.
        "duration": (took.as_micros() as u64).max(1),
        "localEndpoint": {"serviceName": &*provider.service},
        "tags": tags,
    });
    if let Some(parent) = of.span.parent {
        span["parentId"] = format!("{parent:016x}").into();
    }
    span
}
