//! What tracing becomes: shares, tags, and the collectors that are served.

use envoy_types::pb::envoy::r#type::v3 as kind;
use envoy_types::pb::google::protobuf as google;
use prost::{Message, Name};
use tags::custom_tag::{Header, Metadata, Type};

use super::*;
use crate::model::format::Part;

fn compile(tracing: hcm::Tracing) -> Result<(Tracing, Vec<String>), String> {
    let mut notes = Notes::default();
    let compiled = of(tracing, false, &mut notes).map_err(|refused| refused.to_string())?;
    let counted = notes.iter().map(|(name, ..)| name.to_owned());
    Ok((compiled, counted.collect()))
}

fn to<T: Message + Name>(config: &T) -> hcm::Tracing {
    hcm::Tracing {
        provider: Some(trace::tracing::Http {
            name: "p".into(),
            config_type: Some(trace::tracing::http::ConfigType::TypedConfig(google::Any {
                type_url: T::type_url(),
                value: config.encode_to_vec(),
            })),
        }),
        ..Default::default()
    }
}

fn grpc(cluster: &str) -> core::GrpcService {
    core::GrpcService {
        timeout: Some(google::Duration {
            seconds: 3,
            nanos: 0,
        }),
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
            core::grpc_service::EnvoyGrpc {
                cluster_name: cluster.into(),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn http_service(uri: &str) -> core::HttpService {
    core::HttpService {
        http_uri: Some(core::HttpUri {
            uri: uri.into(),
            timeout: None,
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster("c".into())),
        }),
        ..Default::default()
    }
}

#[test]
fn shares_are_all_where_none_is_given() {
    let (all, _) = compile(hcm::Tracing::default()).unwrap();
    assert_eq!(
        (all.random, all.client, all.overall),
        (Fraction::ALWAYS, Fraction::ALWAYS, Fraction::ALWAYS)
    );
    assert_eq!(all.path_limit, 256);
    let half = hcm::Tracing {
        random_sampling: Some(kind::Percent { value: 0.5 }),
        ..Default::default()
    };
    assert_eq!(compile(half).unwrap().0.random, Fraction(5_000));
    let bad = hcm::Tracing {
        overall_sampling: Some(kind::Percent { value: 101.0 }),
        ..Default::default()
    };
    let refused = compile(bad).unwrap_err();
    assert!(refused.starts_with("overall_sampling: 101"), "{refused}");
}

#[test]
fn collectors_are_reached_through_clusters() {
    let otlp = trace::OpenTelemetryConfig {
        grpc_service: Some(grpc("c")),
        service_name: "s".into(),
        max_cache_size: Some(google::UInt32Value { value: 7 }),
        ..Default::default()
    };
    let provider = compile(to(&otlp)).unwrap().0.provider.unwrap();
    assert_eq!(provider.protocol, TraceProtocol::OtlpGrpc);
    assert_eq!(
        (&*provider.cluster, &*provider.authority, &*provider.service),
        ("c", "c", "s")
    );
    assert_eq!(
        (provider.timeout, provider.batch),
        (Duration::from_secs(3), 7)
    );
    let otlp = trace::OpenTelemetryConfig {
        http_service: Some(http_service("http://collector.example:4318/v1/traces")),
        ..Default::default()
    };
    let provider = compile(to(&otlp)).unwrap().0.provider.unwrap();
    assert_eq!(provider.protocol, TraceProtocol::OtlpHttp);
    assert_eq!(
        (&*provider.authority, &*provider.path),
        ("collector.example:4318", "/v1/traces")
    );
    let zipkin = trace::ZipkinConfig {
        collector_cluster: "z".into(),
        collector_endpoint: "/api/v2/spans".into(),
        collector_endpoint_version: 1,
        ..Default::default()
    };
    let provider = compile(to(&zipkin)).unwrap().0.provider.unwrap();
    assert_eq!(provider.protocol, TraceProtocol::Zipkin);
    assert_eq!(
        (&*provider.cluster, &*provider.path),
        ("z", "/api/v2/spans")
    );
}

#[test]
fn half_a_collector_is_refused_and_another_kind_counted() {
    let both = trace::OpenTelemetryConfig {
        grpc_service: Some(grpc("c")),
        http_service: Some(http_service("http://a/")),
        ..Default::default()
    };
    let nowhere = trace::OpenTelemetryConfig {
        grpc_service: Some(grpc("")),
        ..Default::default()
    };
    let zipkin = trace::ZipkinConfig {
        collector_cluster: "z".into(),
        ..Default::default()
    };
    for (tracing, told) in [
        (
            to(&both),
            "provider.typed_config.http_service: spans go to one",
        ),
        (
            to(&nowhere),
            "provider.typed_config.grpc_service.envoy_grpc.cluster_name: must not",
        ),
        (
            to(&zipkin),
            "provider.typed_config.collector_endpoint: must not",
        ),
    ] {
        let refused = compile(tracing).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
    let (compiled, counted) = compile(to(&trace::XRayConfig::default())).unwrap();
    assert!(compiled.provider.is_none());
    assert_eq!(counted, ["envoy.config.trace.v3.XRayConfig"]);
    let none = compile(to(&trace::OpenTelemetryConfig::default())).unwrap();
    assert!(none.0.provider.is_none() && none.1.is_empty());
}

#[test]
fn tags_are_texts_headers_metadata_and_formats() {
    let tag = |tag: &str, kind| tags::CustomTag {
        tag: tag.into(),
        r#type: Some(kind),
    };
    let header = |default_value: &str| {
        Type::RequestHeader(Header {
            name: "X-Tenant".into(),
            default_value: default_value.into(),
        })
    };
    let claim = |kind| {
        use metadata::metadata_key::{PathSegment, path_segment::Segment};

        Type::Metadata(Metadata {
            kind: Some(metadata::MetadataKind { kind: Some(kind) }),
            metadata_key: Some(metadata::MetadataKey {
                key: "f".into(),
                path: vec![PathSegment {
                    segment: Some(Segment::Key("k".into())),
                }],
            }),
            default_value: String::new(),
        })
    };
    let tracing = hcm::Tracing {
        custom_tags: vec![
            tag(
                "literal",
                Type::Literal(tags::custom_tag::Literal { value: "v".into() }),
            ),
            tag("header", header("none")),
            tag(
                "claim",
                claim(metadata::metadata_kind::Kind::Request(Default::default())),
            ),
            tag(
                "route",
                claim(metadata::metadata_kind::Kind::Route(Default::default())),
            ),
            tag("format", Type::Value("%PROTOCOL%".into())),
        ],
        ..Default::default()
    };
    let (compiled, counted) = compile(tracing).unwrap();
    let names: Vec<_> = compiled.tags.iter().map(|tag| &*tag.name).collect();
    assert_eq!(names, ["literal", "header", "claim", "format"]);
    assert_eq!(compiled.tags[0].value.as_literal(), Some("v"));
    let path = vec!["f".into(), "k".into()];
    let claim = Part::Value {
        operator: Operator::DynamicMetadata { path },
        limit: None,
    };
    assert_eq!(compiled.tags[2].value.parts, [claim]);
    assert_eq!(&*compiled.tags[1].otherwise, "none");
    assert_eq!(counted, ["CustomTag.metadata of a route"]);
    for (bad, told) in [
        (tag("", header("")), "custom_tags[0].tag: must not"),
        (
            tag("a", Type::Value("%x%".into())),
            "custom_tags[0].value: \"%x%\"",
        ),
        (
            tags::CustomTag {
                tag: "a".into(),
                r#type: None,
            },
            "custom_tags[0].value: must be",
        ),
    ] {
        let tracing = hcm::Tracing {
            custom_tags: vec![bad],
            ..Default::default()
        };
        let refused = compile(tracing).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn a_route_has_shares_and_tags_of_its_own() {
    let share = |numerator| kind::FractionalPercent {
        numerator,
        denominator: 0,
    };
    let literal = |name: &str| tags::CustomTag {
        tag: name.to_owned(),
        r#type: Some(Type::Literal(tags::custom_tag::Literal {
            value: "v".to_owned(),
        })),
    };
    let own = route::Tracing {
        client_sampling: Some(share(0)),
        random_sampling: Some(share(25)),
        custom_tags: vec![literal("a")],
        ..Default::default()
    };
    let compiled = on_route(own, &mut Notes::default()).unwrap();
    let shares = [compiled.client, compiled.random, compiled.overall];
    let expected = [Fraction::NEVER, Fraction(250_000), Fraction::ALWAYS];
    assert_eq!(shares, expected);
    assert_eq!(&*compiled.tags[0].name, "a");
    let bad = route::Tracing {
        custom_tags: vec![literal("")],
        ..Default::default()
    };
    let refused = on_route(bad, &mut Notes::default())
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("custom_tags[0].tag: must not"),
        "{refused}"
    );
}

#[test]
fn attempts_have_spans_where_the_manager_or_else_the_router_wants_them() {
    #[expect(deprecated, reason = "it is still said")]
    let router = |start_child_span| router::Router {
        start_child_span,
        ..Default::default()
    };
    let filters = |start_child_span| {
        let config = google::Any {
            type_url: router::Router::type_url(),
            value: router(start_child_span).encode_to_vec(),
        };
        [envoy::HttpFilter {
            config_type: Some(envoy::http_filter::ConfigType::TypedConfig(config)),
            ..Default::default()
        }]
    };
    assert!(wants_upstream_spans(&filters(true)));
    assert!(!wants_upstream_spans(&filters(false)));
    for (said, by_router, expected) in [
        (None, false, false),
        (None, true, true),
        (Some(true), false, true),
        (Some(false), true, false),
    ] {
        let tracing = hcm::Tracing {
            spawn_upstream_span: said.map(|value| google::BoolValue { value }),
            ..Default::default()
        };
        let compiled = of(tracing, by_router, &mut Notes::default()).unwrap();
        assert_eq!(compiled.upstream_spans, expected, "{said:?} {by_router}");
    }
}

#[test]
fn who_is_behind_is_told_of_traces_unless_that_is_turned_off() {
    for no_context_propagation in [false, true] {
        let tracing = hcm::Tracing {
            no_context_propagation,
            ..Default::default()
        };
        let compiled = of(tracing, false, &mut Notes::default()).unwrap();
        assert_eq!(compiled.propagates, !no_context_propagation);
    }
}
