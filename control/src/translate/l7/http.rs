//! The HTTP connection manager of a chain: its filters in Istio's order, and its routes.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
use envoy_types::pb::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use super::api::{
    any, core, hcm, http_filter, list, listener, nested, network_filter, object, route, seconds,
    truth, typed_struct,
};
use super::logging::{Which, logs};
use super::view::{Found, Protocol, Target, TargetPort, View};
use super::{cluster, jwt, rbac, route as routes, telemetry};

/// For a service's port.
pub(super) fn manager(view: &View<'_>, service: &Target, port: &TargetPort) -> listener::Filter {
    let config = routes::of_port(view, service, port);
    build(view, Some((service, port)), config)
}

/// For pods themselves.
pub(super) fn direct(view: &View<'_>) -> listener::Filter {
    build(view, None, routes::direct())
}

fn build(
    view: &View<'_>,
    of: Option<(&Target, &TargetPort)>,
    routes: route::RouteConfiguration,
) -> listener::Filter {
    let service = of.map(|(service, _)| service);
    let (port, http2, grpc_web) = of.map_or((0, false, false), |(_, port)| {
        let http2 = port.protocol == Protocol::Http2;
        (port.number, http2, port.grpc_web)
    });
    let mut filters = rbac::custom(view, service);
    filters.extend(jwt::filter(view, service));
    filters.extend(rbac::http(view, service));
    if grpc_web {
        let web = any(&GrpcWeb::default());
        filters.push(http_filter("envoy.filters.http.grpc_web", web));
    }
    let [grpc, fault, cors, rest @ ..] = common();
    filters.extend([grpc, fault, cors]);
    let by_request = service.filter(|service| service.found == Found::ByRequest);
    filters.extend(by_request.map(|service| cluster::resolving(view, service)));
    let [metadata, router] = rest;
    filters.push(metadata);
    let statistics = telemetry::statistics(view, service);
    filters.extend(statistics.map(|config| http_filter("istio.stats", config)));
    filters.push(router);
    let traced = telemetry::traced(view, service);
    let uuid = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: truth(traced.by_request_id),
        ..Default::default()
    };
    let manager = hcm::HttpConnectionManager {
        stat_prefix: format!("inbound_0.0.0.0_{port};"),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(
            routes,
        )),
        http_filters: filters,
        tracing: traced.config,
        http2_protocol_options: http2.then(core::Http2ProtocolOptions::default),
        server_name: "istio-envoy".to_owned(),
        access_log: logs(view, service, &Which::All),
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

fn common() -> [hcm::HttpFilter; 5] {
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
        http_filter("envoy.filters.http.router", any(&Router::default())),
    ]
}
