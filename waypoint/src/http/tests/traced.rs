//! Spans of attempts, and what a route says of tracing: as the backend is told and as a collector gets
//! them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::sync::mpsc;

use super::lifecycle::retry;
use super::world::{World, answer, backend, run, text};
use crate::http::testing::{all, chain, cluster, forward};
use crate::model::cluster::UpstreamProtocol;
use crate::model::format::{Format, Operator, Part};
use crate::model::log::{RouteTracing, Tag, TraceProtocol, TraceProvider, Tracing};
use crate::model::route::{Forward, RetryOn, Route, RouteAction};
use crate::model::text::{Fraction, HeaderKey};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn tag(name: &str, value: Format) -> Tag {
    Tag {
        name: name.into(),
        value,
        otherwise: "".into(),
    }
}

/// A tag that says this where its value is empty.
fn or(tag: Tag, otherwise: &str) -> Tag {
    Tag {
        otherwise: otherwise.into(),
        ..tag
    }
}

/// The value of a request's header.
fn of_header(name: &'static str) -> Format {
    let operator = Operator::Request {
        key: HeaderKey::Name(HeaderName::from_static(name)),
        otherwise: None,
    };
    Format {
        parts: vec![Part::Value {
            operator,
            limit: None,
        }],
    }
}

/// Nothing is sampled by the chain; its tags are `place` and `who`.
fn tracing() -> Tracing {
    Tracing {
        provider: Some(Arc::new(TraceProvider {
            protocol: TraceProtocol::OtlpHttp,
            cluster: "collector".into(),
            service: "waypoint".into(),
            authority: "collector.local".into(),
            path: "".into(),
            timeout: Duration::from_secs(5),
            batch: 3,
        })),
        random: Fraction::NEVER,
        client: Fraction::NEVER,
        overall: Fraction::ALWAYS,
        tags: vec![
            tag("place", Format::literal("chain")),
            tag("who", Format::literal("chain")),
        ],
        path_limit: 256,
        upstream_spans: true,
        propagates: true,
    }
}

/// A route whose requests are tried again, and traced like this.
fn route(tracing: RouteTracing) -> Arc<Route> {
    let on = RetryOn {
        retriable_status_codes: true,
        ..RetryOn::default()
    };
    let to = RouteAction::Forward(Box::new(Forward {
        retry: Some(retry(on, 2)),
        ..forward()
    }));
    let mut route = Arc::into_inner(all(to)).unwrap();
    route.tracing = Some(Box::new(tracing));
    Arc::new(route)
}

/// What a collector got of one span.
fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Option<Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    let value = |pair: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        pair.value
            .as_ref()
            .map_or_else(String::new, |v| text(&v.value))
    };
    pairs.map(|pair| (pair.key.as_str(), value(pair))).collect()
}

#[test]
fn each_attempt_has_its_span_below_the_requests() {
    run(async {
        let told = Rc::new(RefCell::new(Vec::new()));
        let heard = told.clone();
        let address = backend(move |request| {
            let parent = request.headers()["b3"].to_str().unwrap().to_owned();
            heard.borrow_mut().push(parent);
            let first = heard.borrow().len() == 1;
            async move {
                let mut answer = answer("traced");
                if first {
                    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                answer
            }
        })
        .await;
        let (got, mut spans) = mpsc::unbounded_channel();
        let collector = backend(move |request| {
            let got = got.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                got.send(ExportTraceServiceRequest::decode(body).unwrap())
                    .unwrap();
                answer("")
            }
        })
        .await;
        let clusters = move || {
            vec![
                cluster("backend", UpstreamProtocol::Http1, &[address]),
                cluster("collector", UpstreamProtocol::Http1, &[collector]),
            ]
        };
        // The route samples what the chain doesn't, and has a tag of its own in place of the chain's.
        let sampled = route(RouteTracing {
            random: Fraction::ALWAYS,
            client: Fraction::ALWAYS,
            overall: Fraction::ALWAYS,
            tags: vec![
                or(tag("who", of_header("x-who")), "nobody"),
                or(tag("tenant", of_header("x-tenant")), "none"),
                tag("left-out", of_header("x-tenant")),
            ],
        });
        let mut chain = chain(vec![sampled]);
        chain.tracing = Some(Arc::new(tracing()));
        let world = World::with(chain, clusters).await;
        let mut client = world.client().await;
        let request = Request::get("/").header("host", "a").header("x-who", "ann");
        let request = request.header("b3", format!("{TRACE}-b7ad6b7169203331"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answered = client.send_request(request).await.unwrap();
        assert_eq!(text(answered).await, "traced");

        let mut all: Vec<Span> = Vec::new();
        while all.len() < 3 {
            let message = spans.recv().await.unwrap();
            let scopes = message
                .resource_spans
                .into_iter()
                .flat_map(|of| of.scope_spans);
            all.extend(scopes.flat_map(|scope| scope.spans));
        }
        // The backend was told of each attempt's own span.
        let of = |span: &Span| u64::from_be_bytes(span.span_id.as_slice().try_into().unwrap());
        let expected: Vec<String> = all[..2]
            .iter()
            .map(|span| format!("{TRACE}-{:016x}-1-{:016x}", of(span), of(&all[2])))
            .collect();
        assert_eq!(*told.borrow(), expected);
        let [first, second, server] = all.as_slice() else {
            panic!("not three spans: {all:?}");
        };
        let ids = |span: &Span| (span.kind, span.name.clone(), span.parent_span_id.clone());
        let egress = "router backend egress".to_owned();
        assert_eq!(ids(first), (3, egress.clone(), server.span_id.clone()));
        assert_eq!(ids(second), (3, egress, server.span_id.clone()));
        let caller = 0xb7ad_6b71_6920_3331_u64.to_be_bytes().to_vec();
        assert_eq!(ids(server), (2, "GET a".to_owned(), caller));
        let (first_tags, second_tags) = (attributes(first), attributes(second));
        assert_eq!(first_tags["http.status_code"], "503");
        assert_eq!(first_tags["error"], "true");
        assert!(!first_tags.contains_key("retry.count"));
        assert_eq!(second_tags["http.status_code"], "200");
        assert_eq!(second_tags["retry.count"], "1");
        assert_eq!(second_tags["upstream_address"], address.to_string());
        for tags in [first_tags, second_tags, attributes(server)] {
            assert_eq!((&*tags["who"], &*tags["place"]), ("ann", "chain"));
            assert_eq!(
                (tags.get("tenant").map(String::as_str), tags.get("left-out")),
                (Some("none"), None)
            );
        }
    });
}
