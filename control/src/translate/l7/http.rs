//! The HTTP connection manager of a chain: its filters in Istio's order, and its routes.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata;
use envoy_types::pb::envoy::r#type::tracing::v3 as tracing;
use prost::Message;

use super::api::{
    Any, any, core, hcm, http_filter, list, listener, nested, network_filter, object, percent,
    route, seconds, truth, typed_struct,
};
use super::logging::{Which, logs};
use super::view::{Found, Protocol, Target, TargetPort, View};
use super::{cluster, jwt, rbac, route as routes};

/// For a service's port.
pub(super) fn manager(view: &View<'_>, service: &Target, port: &TargetPort) -> listener::Filter {
    let config = routes::of_port(view, service, port);
    build(view, Some(service), port.number, port.protocol, config)
}

/// For pods themselves.
pub(super) fn direct(view: &View<'_>) -> listener::Filter {
    build(view, None, 0, Protocol::Http, routes::direct())
}

fn build(
    view: &View<'_>,
    service: Option<&Target>,
    port: u16,
    protocol: Protocol,
    routes: route::RouteConfiguration,
) -> listener::Filter {
    let mut filters = rbac::custom(view, service);
    filters.extend(jwt::filter(view, service));
    filters.extend(rbac::http(view, service));
    let [statistics, fault, cors, rest @ ..] = common();
    filters.extend([statistics, fault, cors]);
    let by_request = service.filter(|service| service.found == Found::ByRequest);
    filters.extend(by_request.map(|service| cluster::resolving(view, service)));
    filters.extend(rest);
    let uuid = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: truth(true),
        ..Default::default()
    };
    let manager = hcm::HttpConnectionManager {
        stat_prefix: format!("inbound_0.0.0.0_{port};"),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(
            routes,
        )),
        http_filters: filters,
        tracing: Some(tracing(view)),
        http2_protocol_options: (protocol == Protocol::Http2)
            .then(core::Http2ProtocolOptions::default),
        server_name: "istio-envoy".to_owned(),
        access_log: logs(view, &Which::All),
        use_remote_address: truth(false),
        proxy_100_continue: true,
        upgrade_configs: vec![hcm::http_connection_manager::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        stream_idle_timeout: seconds(0),
        normalize_path: truth(true),
        request_id_extension: Some(hcm::RequestIdExtension {
            typed_config: Some(any(&uuid)),
        }),
        path_with_escaped_slashes_action:
            hcm::http_connection_manager::PathWithEscapedSlashesAction::KeepUnchanged.into(),
        ..Default::default()
    };
    network_filter(
        "envoy.filters.network.http_connection_manager",
        any(&manager),
    )
}

fn common() -> [hcm::HttpFilter; 6] {
    let grpc = grpc_stats::FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(
            grpc_stats::filter_config::PerMethodStatSpecifier::StatsForAllMethods(
                envoy_types::pb::google::protobuf::BoolValue { value: false },
            ),
        ),
        ..Default::default()
    };
    let discovery = object([(
        "upstream_discovery",
        list(vec![nested(object([(
            "workload_discovery",
            nested(Default::default()),
        )]))]),
    )]);
    [
        http_filter("envoy.filters.http.grpc_stats", any(&grpc)),
        http_filter("envoy.filters.http.fault", any(&HttpFault::default())),
        http_filter("envoy.filters.http.cors", any(&Cors::default())),
        http_filter(
            "waypoint_upstream_peer_metadata",
            typed_struct("io.istio.http.peer_metadata.Config", discovery),
        ),
        http_filter("istio.stats", statistics()),
        http_filter("envoy.filters.http.router", any(&Router::default())),
    ]
}

/// `stats.PluginConfig` (istio/api, `envoy/extensions/stats/config.proto`), the two fields that a
/// waypoint needs.
#[derive(Clone, PartialEq, Message)]
struct PluginConfig {
    #[prost(bool, tag = "6")]
    disable_host_header_fallback: bool,
    /// 1: SERVER_GATEWAY.
    #[prost(int32, tag = "10")]
    reporter: i32,
}

/// Istio's statistics, as a gateway before a server tells them.
pub(super) fn statistics() -> Any {
    let config = PluginConfig {
        disable_host_header_fallback: true,
        reporter: 1,
    };
    Any {
        type_url: "type.googleapis.com/stats.PluginConfig".to_owned(),
        value: config.encode_to_vec(),
    }
}

/// What a span would say; which spans are kept is the mesh's default, one in a hundred.
fn tracing(view: &View<'_>) -> hcm::http_connection_manager::Tracing {
    use tracing::custom_tag::{Literal, Metadata, Type};
    let tag = |name: &str, kind: Type| tracing::CustomTag {
        tag: name.to_owned(),
        r#type: Some(kind),
    };
    let dry_run = |action: &str, what: &str, key: &str| {
        let key = format!("istio_dry_run_{action}_shadow_{key}");
        tag(
            &format!("istio.authorization.dry_run.{action}_policy.{what}"),
            Type::Metadata(Metadata {
                kind: Some(metadata::MetadataKind {
                    kind: Some(metadata::metadata_kind::Kind::Request(Default::default())),
                }),
                metadata_key: Some(metadata::MetadataKey {
                    key: "envoy.filters.http.rbac".to_owned(),
                    path: vec![metadata::metadata_key::PathSegment {
                        segment: Some(metadata::metadata_key::path_segment::Segment::Key(key)),
                    }],
                }),
                ..Default::default()
            }),
        )
    };
    let literal = |name: &str, value: &str| {
        tag(
            name,
            Type::Literal(Literal {
                value: value.to_owned(),
            }),
        )
    };
    let peer = |side: &str, name: &str, field: &str| {
        let from = if side == "source" {
            "downstream"
        } else {
            "upstream"
        };
        tag(
            &format!("istio.{side}_{name}"),
            Type::Value(format!("%FILTER_STATE({from}_peer_obj:FIELD:{field})%")),
        )
    };
    let mut tags = Vec::new();
    for action in ["allow", "deny"] {
        tags.push(dry_run(action, "name", "effective_policy_id"));
        tags.push(dry_run(action, "result", "engine_result"));
    }
    tags.push(literal("istio.canonical_revision", "latest"));
    tags.push(literal("istio.canonical_service", &view.deployment));
    tags.push(literal("istio.cluster_id", &view.mesh.cluster));
    for side in ["destination", "source"] {
        if side == "source" {
            tags.push(literal("istio.mesh_id", &view.mesh.trust_domain));
            tags.push(literal("istio.namespace", view.namespace()));
        }
        for (name, field) in [
            ("app", "app"),
            ("app_version", "version"),
            ("canonical_revision", "revision"),
            ("canonical_service", "service"),
            ("cluster_id", "cluster"),
            ("instance_name", "name"),
            ("namespace", "namespace"),
            ("workload", "workload"),
            ("workload_type", "type"),
        ] {
            tags.push(peer(side, name, field));
        }
    }
    let share = |value: f64| Some(percent::Percent { value });
    hcm::http_connection_manager::Tracing {
        client_sampling: share(100.0),
        random_sampling: share(1.0),
        overall_sampling: share(100.0),
        custom_tags: tags,
        ..Default::default()
    }
}
