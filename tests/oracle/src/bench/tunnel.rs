//! The graph of a waypoint as istiod sends it, for one service: HBONE in, the service's filter chain,
//! HBONE out. Without the filters of Istio's own build of Envoy, which Envoy's release doesn't have.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use super::identity::{CALLER, Folder, WAYPOINT, file};
use super::setup::{filters, manager, route};
use crate::resources::{LISTEN, Resources};

/// The service's address, which nobody has: the waypoint takes it from the tunnel's authority.
pub(super) const VIP: &str = "10.96.0.10";
/// Port of the service.
pub(super) const SERVICE: u16 = 9080;
/// HBONE's port.
pub(super) const HBONE: u16 = 15008;

const CHAIN: &str = "inbound-vip|9080|http|reviews.bookinfo.svc.cluster.local";
const TYPES: &str = "type.googleapis.com/envoy";

/// The graph, with one pod at `pod` behind it, whose HBONE listener is on the same address.
pub(super) fn resources(pod: SocketAddr, identities: &Folder) -> Result<Resources> {
    Ok(Resources {
        listeners: vec![connect_terminate(), main_internal(), connect_originate()],
        clusters: vec![to_main_internal(), service(pod), originate()],
        others: secrets(identities)?,
    })
}

fn secrets(identities: &Folder) -> Result<Vec<Value>> {
    let text = |ending| identities.text(&file(WAYPOINT, ending));
    let kind = format!("{TYPES}.extensions.transport_sockets.tls.v3.Secret");
    Ok(vec![
        json!({"@type": kind, "name": "default", "tls_certificate": {
            "certificate_chain": {"inline_string": text("pem")?},
            "private_key": {"inline_string": text("key")?},
        }}),
        json!({"@type": kind, "name": "ROOTCA", "validation_context": {
            "trusted_ca": {"inline_string": identities.text("root.pem")?},
        }}),
    ])
}

fn connect_terminate() -> Value {
    let state = |key: &str, value: &str, factory: Option<&str>| {
        let mut state = json!({
            "object_key": key,
            "format_string": {"text_format_source": {"inline_string": value}},
            "shared_with_upstream": "ONCE",
        });
        if let Some(factory) = factory {
            state["factory_key"] = factory.into();
        }
        state
    };
    let filters = json!([
        {"name": "connect_authority", "typed_config": {
            "@type": format!("{TYPES}.extensions.filters.http.set_filter_state.v3.Config"),
            "on_request_headers": [
                state("envoy.filters.listener.original_dst.local_ip", "%REQ(:AUTHORITY)%", None),
                state("envoy.filters.listener.original_dst.remote_ip", "%DOWNSTREAM_REMOTE_ADDRESS%", None),
                state("io.istio.peer_principal", "%DOWNSTREAM_PEER_URI_SAN%", Some("envoy.string")),
                state("io.istio.local_principal", "%DOWNSTREAM_LOCAL_URI_SAN%", Some("envoy.string")),
            ],
        }},
        {"name": "envoy.filters.http.router", "typed_config": {
            "@type": format!("{TYPES}.extensions.filters.http.router.v3.Router"),
        }},
    ]);
    let manager = json!({
        "@type": format!("{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "connect_terminate",
        "route_config": {"name": "default", "virtual_hosts": [{
            "name": "default", "domains": ["*"],
            "routes": [{"match": {"connect_matcher": {}}, "route": {
                "cluster": "main_internal",
                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
            }}],
        }]},
        "http_filters": filters,
        "http2_protocol_options": {"max_concurrent_streams": 100, "allow_connect": true},
        "server_name": "istio-envoy",
        "use_remote_address": false,
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "stream_idle_timeout": "0s",
    });
    let mut context = tls("DownstreamTlsContext", &["spiffe://cluster.local/"]);
    context["require_client_certificate"] = true.into();
    json!({
        "name": "connect_terminate",
        "address": {"socket_address": {"address": LISTEN, "port_value": HBONE}},
        "filter_chains": [{
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            "transport_socket": {"name": "tls", "typed_config": context},
            "name": "default",
        }],
    })
}

fn main_internal() -> Value {
    let principal = json!({"filter_state": {
        "key": "io.istio.peer_principal", "string_match": {"exact": CALLER},
    }});
    let action = json!({"action": {"name": CHAIN, "typed_config": {
        "@type": "type.googleapis.com/google.protobuf.StringValue", "value": CHAIN,
    }}});
    let network = format!("{TYPES}.extensions.matching.common_inputs.network.v3");
    let ports = json!({"matcher_tree": {
        "input": {"name": "port", "typed_config": {"@type": format!("{network}.DestinationPortInput")}},
        "exact_match_map": {"map": {SERVICE.to_string(): action}},
    }});
    json!({
        "name": "main_internal",
        "internal_listener": {},
        "traffic_direction": "INBOUND",
        "listener_filters": [original_dst()],
        "filter_chains": [{"name": CHAIN, "filters": [manager(
            CHAIN,
            &json!([{"name": "inbound|http|9080", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": route(CHAIN)}]}]),
            filters(&principal),
            None,
        )]}],
        "filter_chain_matcher": {"matcher_tree": {
            "input": {"name": "ip", "typed_config": {"@type": format!("{network}.DestinationIPInput")}},
            "custom_match": {"name": "ip", "typed_config": {
                "@type": "type.googleapis.com/xds.type.matcher.v3.IPMatcher",
                "range_matchers": [{
                    "ranges": [{"address_prefix": VIP, "prefix_len": 32}],
                    "on_match": {"matcher": ports},
                }],
            }},
        }},
    })
}

fn connect_originate() -> Value {
    json!({
        "name": "connect_originate",
        "internal_listener": {},
        "listener_filters": [original_dst()],
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": format!("{TYPES}.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "connect_originate",
            "cluster": "connect_originate",
            "tunneling_config": {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"},
        }}]}],
    })
}

fn original_dst() -> Value {
    json!({"name": "envoy.filters.listener.original_dst", "typed_config": {
        "@type": format!("{TYPES}.extensions.filters.listener.original_dst.v3.OriginalDst"),
    }})
}

fn to_main_internal() -> Value {
    json!({
        "name": "main_internal",
        "type": "STATIC",
        "circuit_breakers": unlimited(),
        "transport_socket": internal(&[]),
        "load_assignment": {"cluster_name": "main_internal", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": "main_internal"}}}},
        ]}]},
    })
}

fn service(pod: SocketAddr) -> Value {
    let pod = pod.to_string();
    json!({
        "name": CHAIN,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": unlimited(),
        "transport_socket": internal(&["envoy.filters.listener.original_dst", "istio"]),
        "common_lb_config": {"healthy_panic_threshold": {}},
        "load_assignment": {"cluster_name": CHAIN, "endpoints": [{"locality": {}, "lb_endpoints": [{
            "endpoint": {"address": {"envoy_internal_address": {
                "server_listener_name": "connect_originate", "endpoint_id": pod,
            }}},
            "health_status": "HEALTHY",
            "metadata": {"filter_metadata": {
                "envoy.filters.listener.original_dst": {"local": pod},
                "istio": {"workload": "reviews-v1;bookinfo;reviews;v1;Kubernetes"},
            }},
            "load_balancing_weight": 1,
        }]}]},
    })
}

fn originate() -> Value {
    let trusted = [
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/bookinfo/sa/",
    ];
    json!({
        "name": "connect_originate",
        "type": "ORIGINAL_DST",
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": unlimited(),
        "cleanup_interval": "60s",
        "transport_socket": {"name": "tls", "typed_config": tls("UpstreamTlsContext", &trusted)},
        "original_dst_lb_config": {
            "upstream_port_override": HBONE,
            "metadata_key": {
                "key": "envoy.filters.listener.original_dst", "path": [{"key": "waypoint"}],
            },
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions"),
                "common_http_protocol_options": {"idle_timeout": "3600s"},
                "explicit_http_config": {"http2_protocol_options": {"allow_connect": true}},
            },
        },
    })
}

fn internal(metadata: &[&str]) -> Value {
    let metadata: Vec<Value> = metadata
        .iter()
        .map(|name| json!({"kind": {"host": {}}, "name": name}))
        .collect();
    json!({"name": "internal_upstream", "typed_config": {
        "@type": format!("{TYPES}.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"),
        "passthrough_metadata": metadata,
        "transport_socket": {"name": "raw_buffer", "typed_config": {
            "@type": format!("{TYPES}.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
        }},
    }})
}

fn tls(context: &str, trusted: &[&str]) -> Value {
    let sds = json!({"ads": {}, "resource_api_version": "V3"});
    let names: Vec<Value> = trusted
        .iter()
        .map(|prefix| json!({"san_type": "URI", "matcher": {"prefix": prefix}}))
        .collect();
    json!({
        "@type": format!("{TYPES}.extensions.transport_sockets.tls.v3.{context}"),
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": sds}],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": names},
                "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": sds},
            },
        },
    })
}

fn unlimited() -> Value {
    let most = u32::MAX;
    json!({"thresholds": [{
        "max_connections": most, "max_pending_requests": most,
        "max_requests": most, "max_retries": most,
    }]})
}
