//! What a refused chain does instead, and how much of it can be kept.

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message as _, Name as _};
use serde_json::json;

use super::*;
use crate::model::http::Routes;
use crate::source::json::Descriptors;

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

fn http(manager: serde_json::Value) -> envoy::FilterChain {
    let mut manager = manager;
    manager["@type"] = HCM.into();
    let filter = json!({"name": "hcm", "typed_config": manager});
    let chain = json!({"name": "c", "filters": [filter]});
    Descriptors::get().message(chain).unwrap()
}

fn answered(manager: serde_json::Value) -> Arc<HttpChain> {
    match chain(http(manager)).kind {
        ChainKind::Http(http) => {
            assert!(matches!(http.filters[0], HttpFilter::Refused));
            http
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn http_is_answered_under_the_services_name() {
    let stats = "type.googleapis.com/stats.PluginConfig";
    let lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
    let http = answered(json!({
        "stat_prefix": "reviews",
        "http_filters": [
            {"name": "lua", "typed_config": {"@type": lua}},
            {"name": "stats", "typed_config": {"@type": stats}},
            {"name": "router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "reviews"}}]}]},
        "access_log": [{"name": "log", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"}}],
    }));
    assert_eq!(&*http.stat_prefix, "reviews");
    assert!(matches!(
        http.filters[..],
        [HttpFilter::Refused, HttpFilter::Stats(_)]
    ));
    assert_eq!(http.access_logs.len(), 1);
    let Routes::Inline(table) = &http.routes else {
        panic!("{:?}", http.routes);
    };
    assert_eq!(table.hosts.len(), 1);
}

#[test]
fn routes_that_are_bad_themselves_are_left_out() {
    let http = answered(json!({
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "reviews"}}]}]},
    }));
    let Routes::Inline(table) = &http.routes else {
        panic!("{:?}", http.routes);
    };
    assert!(table.hosts.is_empty());
}

#[test]
fn what_is_no_http_or_whose_tls_is_bad_is_closed() {
    let tcp = envoy::FilterChain {
        filters: vec![envoy::Filter {
            name: "tcp".into(),
            config_type: Some(envoy::filter::ConfigType::TypedConfig(Any {
                type_url: TcpProxy::type_url(),
                value: TcpProxy::default().encode_to_vec(),
            })),
        }],
        ..Default::default()
    };
    assert!(matches!(chain(tcp).kind, ChainKind::Closed));
    let mut http = http(json!({}));
    http.transport_socket = Some(Default::default());
    assert!(matches!(chain(http).kind, ChainKind::Closed));
}
