//! Spans as OTLP has them, over gRPC (one message, framed by hand: a whole client for one call
//! would be more code than the frame) or over HTTP.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message;

use super::export::{Attribute, Finished};
use crate::model::log::TraceProvider;

/// The method of a collector's gRPC service.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The path of a collector's HTTP service.
const TRACES: &str = "/v1/traces";

/// The call of gRPC that carries some spans.
pub(super) fn grpc(provider: &TraceProvider, spans: &[Finished]) -> http::Result<Request<Bytes>> {
    let body = crate::grpc::framed(&message(provider, spans).encode_to_vec());
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{EXPORT}", provider.authority))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(body.unwrap_or_default())
}

/// The request of HTTP that carries some spans.
pub(super) fn http(provider: &TraceProvider, spans: &[Finished]) -> http::Result<Request<Bytes>> {
    let path = match &*provider.path {
        "" => TRACES,
        path => path,
    };
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{path}", provider.authority))
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(message(provider, spans).encode_to_vec().into())
}

fn message(provider: &TraceProvider, spans: &[Finished]) -> ExportTraceServiceRequest {
    let service = Attribute::Text(provider.service.to_string());
    let resource = Resource {
        attributes: vec![pair("service.name", &service)],
        ..Resource::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![proto::ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![proto::ScopeSpans {
                spans: spans.iter().map(span).collect(),
                ..proto::ScopeSpans::default()
            }],
            ..proto::ResourceSpans::default()
        }],
    }
}

fn span(of: &Finished) -> proto::Span {
    let parent = of.span.parent.map(u64::to_be_bytes);
    let state = of.span.state.as_ref().and_then(|state| state.to_str().ok());
    let code = match of.failed {
        true => proto::status::StatusCode::Error,
        false => proto::status::StatusCode::Unset,
    };
    proto::Span {
        trace_id: of.span.trace.to_be_bytes().to_vec(),
        span_id: of.span.id.to_be_bytes().to_vec(),
        parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        trace_state: state.unwrap_or_default().to_owned(),
        // Sampled, as W3C's flag has it.
        flags: 1,
        name: of.name.clone(),
        kind: match of.upstream {
            true => proto::span::SpanKind::Client.into(),
            false => proto::span::SpanKind::Server.into(),
        },
        start_time_unix_nano: nanos(of.start),
        end_time_unix_nano: nanos(of.end),
        attributes: of
            .attributes
            .iter()
            .map(|(name, value)| pair(name, value))
            .collect(),
        status: Some(proto::Status {
            message: String::new(),
            code: code.into(),
        }),
        ..proto::Span::default()
    }
}

fn pair(name: &str, value: &Attribute) -> KeyValue {
    let value = match value {
        Attribute::Text(text) => any_value::Value::StringValue(text.clone()),
        Attribute::Number(number) => any_value::Value::IntValue(*number),
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
