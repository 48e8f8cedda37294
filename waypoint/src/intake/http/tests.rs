//! What an HTTP connection manager becomes, field by field, and which are refused.

use envoy::http_connection_manager as hcm;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3::XffConfig;
use envoy_types::pb::google::protobuf as google;
use http::HeaderValue;
use prost::{Message, Name};

use super::*;
use crate::model::http::ClientCert;

type Change = fn(&mut envoy::HttpConnectionManager);

fn any<T: Message + Name>(message: &T) -> google::Any {
    google::Any {
        type_url: T::type_url(),
        value: message.encode_to_vec(),
    }
}

fn compile(change: Change) -> Result<(HttpChain, Vec<String>), String> {
    let mut manager = envoy::HttpConnectionManager {
        stat_prefix: "s".into(),
        http_filters: vec![envoy::HttpFilter {
            name: "router".into(),
            config_type: Some(envoy::http_filter::ConfigType::TypedConfig(any(
                &Router::default(),
            ))),
            ..Default::default()
        }],
        route_specifier: Some(hcm::RouteSpecifier::RouteConfig(
            RouteConfiguration::default(),
        )),
        ..Default::default()
    };
    change(&mut manager);
    let mut notes = Notes::default();
    let chain = chain(manager, &mut notes).map_err(|refused| refused.to_string())?;
    Ok((
        chain,
        notes.iter().map(|(name, ..)| name.to_owned()).collect(),
    ))
}

fn of(change: Change) -> HttpChain {
    compile(change).unwrap().0
}

fn seconds(seconds: i64) -> Option<google::Duration> {
    Some(google::Duration { seconds, nanos: 0 })
}

#[test]
fn without_more_it_is_as_envoys_defaults() {
    let (chain, counted) = compile(|_| {}).unwrap();
    assert!(counted.is_empty());
    assert_eq!(chain.codec, Codec::Auto);
    assert_eq!(
        chain.server,
        ServerHeader::Overwrite(HeaderValue::from_static("envoy"))
    );
    assert_eq!(chain.forwarded, Forwarded::default());
    assert_eq!(chain.paths, PathNormalisation::default());
    let limits = HttpLimits {
        idle: Some(Duration::from_secs(3600)),
        stream_idle: Some(Duration::from_secs(300)),
        drain: Duration::from_secs(5),
        max_header_bytes: 61_440,
        max_headers: 100,
        ..HttpLimits::default()
    };
    assert_eq!(chain.limits, limits);
    assert_eq!(chain.strip_port, StripPort::No);
    assert!(chain.request_id.generate && !chain.request_id.keep_external);
    assert!(chain.upgrades.is_empty() && chain.tracing.is_none() && chain.via.is_none());
}

#[test]
fn limits_are_kept_and_zero_is_none() {
    let chain = of(|manager| {
        manager.stream_idle_timeout = seconds(0);
        manager.request_timeout = seconds(1);
        manager.request_headers_timeout = seconds(2);
        manager.drain_timeout = seconds(3);
        manager.max_request_headers_kb = Some(google::UInt32Value { value: 8 });
        manager.common_http_protocol_options = Some(core::HttpProtocolOptions {
            idle_timeout: seconds(0),
            max_connection_duration: seconds(4),
            max_stream_duration: seconds(5),
            max_headers_count: Some(google::UInt32Value { value: 6 }),
            max_requests_per_connection: Some(google::UInt32Value { value: 7 }),
            ..Default::default()
        });
    });
    let limits = HttpLimits {
        idle: None,
        stream_idle: None,
        request: Some(Duration::from_secs(1)),
        request_headers: Some(Duration::from_secs(2)),
        max_duration: Some(Duration::from_secs(4)),
        max_stream_duration: Some(Duration::from_secs(5)),
        drain: Duration::from_secs(3),
        max_requests: Some(7),
        max_header_bytes: 8192,
        max_headers: 6,
    };
    assert_eq!(chain.limits, limits);
}

#[test]
fn what_is_said_of_the_client_is_kept() {
    let chain = of(|manager| {
        manager.use_remote_address = Some(google::BoolValue { value: true });
        manager.xff_num_trusted_hops = 2;
        manager.skip_xff_append = true;
        manager.append_x_forwarded_port = true;
        manager.forward_client_cert_details = hcm::ForwardClientCertDetails::SanitizeSet as i32;
        manager.set_current_client_cert_details = Some(hcm::SetCurrentClientCertDetails {
            subject: Some(google::BoolValue { value: true }),
            uri: true,
            ..Default::default()
        });
        manager.scheme_header_transformation = Some(core::SchemeHeaderTransformation {
            transformation: Some(
                core::scheme_header_transformation::Transformation::SchemeToOverwrite(
                    "https".into(),
                ),
            ),
            ..Default::default()
        });
    });
    let forwarded = Forwarded {
        use_remote_address: true,
        trusted_hops: 2,
        skip_append: true,
        append_port: true,
        client_cert: ClientCert::SanitizeSet,
        client_cert_details: ClientCertDetails {
            subject: true,
            uri: true,
            ..ClientCertDetails::default()
        },
        scheme: Some("https".into()),
    };
    assert_eq!(chain.forwarded, forwarded);
    let by_extension = of(|manager| {
        manager.original_ip_detection_extensions = vec![core::TypedExtensionConfig {
            name: "xff".into(),
            typed_config: Some(any(&XffConfig {
                xff_num_trusted_hops: 3,
                ..Default::default()
            })),
        }];
    });
    assert_eq!(by_extension.forwarded.trusted_hops, 3);
}

#[test]
fn paths_hosts_and_protocols_are_kept() {
    let chain = of(|manager| {
        manager.codec_type = hcm::CodecType::Http2 as i32;
        manager.normalize_path = Some(google::BoolValue { value: true });
        manager.merge_slashes = true;
        manager.path_with_escaped_slashes_action =
            hcm::PathWithEscapedSlashesAction::UnescapeAndRedirect as i32;
        manager.strip_port_mode = Some(hcm::StripPortMode::StripAnyHostPort(true));
        manager.strip_trailing_host_dot = true;
        manager.via = "v".into();
        manager.server_name = "n".into();
        manager.server_header_transformation = 1;
        manager.http_protocol_options = Some(core::Http1ProtocolOptions {
            accept_http_10: true,
            allow_chunked_length: true,
            ..Default::default()
        });
        manager.http2_protocol_options = Some(core::Http2ProtocolOptions {
            max_concurrent_streams: Some(google::UInt32Value { value: 9 }),
            allow_connect: true,
            connection_keepalive: Some(core::KeepaliveSettings {
                interval: seconds(10),
                timeout: seconds(20),
                ..Default::default()
            }),
            ..Default::default()
        });
    });
    assert_eq!(chain.codec, Codec::Http2);
    let paths = PathNormalisation {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndRedirect,
    };
    assert_eq!(chain.paths, paths);
    assert_eq!(chain.strip_port, StripPort::Any);
    assert!(chain.strip_trailing_dot && chain.via.as_deref() == Some("v"));
    assert_eq!(
        chain.server,
        ServerHeader::AppendIfAbsent(HeaderValue::from_static("n"))
    );
    assert!(
        chain.http1.accept_http10 && chain.http1.allow_chunked_length && !chain.http1.keep_case
    );
    assert_eq!(chain.http2.max_streams, Some(9));
    let pings = (Duration::from_secs(10), Duration::from_secs(20));
    assert!(chain.http2.allow_connect && chain.http2.keepalive == Some(pings));
}

#[test]
fn routes_come_with_it_or_by_name() {
    assert!(matches!(of(|_| {}).routes, Routes::Inline(_)));
    let by_name = of(|manager| {
        manager.route_specifier = Some(hcm::RouteSpecifier::Rds(envoy::Rds {
            route_config_name: "r".into(),
            ..Default::default()
        }));
    });
    assert!(matches!(by_name.routes, Routes::Named(name) if &*name == "r"));
}

#[test]
fn upgrades_that_are_off_are_left_out() {
    let chain = of(|manager| {
        let upgrade = |name: &str, enabled| hcm::UpgradeConfig {
            upgrade_type: name.into(),
            enabled: Some(google::BoolValue { value: enabled }),
            ..Default::default()
        };
        manager.upgrade_configs = vec![upgrade("WebSocket", true), upgrade("h2c", false)];
    });
    assert_eq!(chain.upgrades, ["websocket".into()]);
}

#[test]
fn what_would_let_in_other_requests_is_refused() {
    let cases: [(Change, &str); 14] = [
        (|manager| manager.codec_type = 3, "codec_type: HTTP/1 and"),
        (
            |manager| manager.route_specifier = None,
            "route_config: must be set",
        ),
        (
            |manager| manager.route_specifier = Some(hcm::RouteSpecifier::Rds(Default::default())),
            "rds.route_config_name: must not",
        ),
        (
            |manager| {
                let scoped = hcm::RouteSpecifier::ScopedRoutes(Default::default());
                manager.route_specifier = Some(scoped);
            },
            "scoped_routes: a chain",
        ),
        (
            |manager| {
                manager.upgrade_configs = vec![hcm::UpgradeConfig {
                    upgrade_type: "x".into(),
                    filters: vec![Default::default()],
                    enabled: None,
                }];
            },
            "upgrade_configs[0].filters: an upgrade",
        ),
        (
            |manager| manager.server_name = "a\n".into(),
            "server_name: ",
        ),
        (
            |manager| manager.server_header_transformation = 9,
            "server_header_transformation: 9",
        ),
        (
            |manager| manager.forward_client_cert_details = 9,
            "forward_client_cert_details: 9",
        ),
        (
            |manager| manager.path_with_escaped_slashes_action = 9,
            "path_with_escaped_slashes_action: 9",
        ),
        (
            |manager| manager.max_request_headers_kb = Some(google::UInt32Value { value: 0 }),
            "max_request_headers_kb: 0 isn't",
        ),
        (
            |manager| {
                manager.common_http_protocol_options = Some(core::HttpProtocolOptions {
                    headers_with_underscores_action: 1,
                    ..Default::default()
                });
            },
            "headers_with_underscores_action: is not served",
        ),
        (
            |manager| {
                manager.http2_protocol_options = Some(core::Http2ProtocolOptions {
                    connection_keepalive: Some(Default::default()),
                    ..Default::default()
                });
            },
            "http2_protocol_options.connection_keepalive.timeout: must be set",
        ),
        (
            |manager| manager.path_normalization_options = Some(Default::default()),
            "path_normalization_options: is not served",
        ),
        (
            |manager| manager.stream_idle_timeout = seconds(-1),
            "stream_idle_timeout: a duration",
        ),
    ];
    for (change, told) in cases {
        let refused = compile(change).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn the_case_of_header_names_is_kept_where_asked_for() {
    use super::core::http1_protocol_options::{HeaderKeyFormat, header_key_format};
    use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;

    let (chain, counted) = compile(|manager| {
        let formatter = core::TypedExtensionConfig {
            name: "preserve_case".into(),
            typed_config: Some(any(&PreserveCaseFormatterConfig::default())),
        };
        manager.http_protocol_options = Some(core::Http1ProtocolOptions {
            header_key_format: Some(HeaderKeyFormat {
                header_format: Some(header_key_format::HeaderFormat::StatefulFormatter(
                    formatter,
                )),
            }),
            ..Default::default()
        });
    })
    .unwrap();
    assert!(chain.http1.keep_case && counted.is_empty());
}
