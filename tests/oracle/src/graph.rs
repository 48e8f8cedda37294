//! The graph of a waypoint as istiod sends it: HBONE in, a filter chain for each port of a service,
//! HBONE out. Without the filters of Istio's own build of Envoy, which Envoy's release doesn't have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::identity::{Folder, WAYPOINT, file};
use crate::resources::{LISTEN, Resources};

/// The service's address, which nobody has: the waypoint takes it from the tunnel's authority. It
/// is a loopback address, so that what tables say of destinations holds in a tunnel too.
pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 96, 0, 10));
/// HBONE's port.
pub const HBONE: u16 = 15008;

const TYPES: &str = "type.googleapis.com/envoy";

/// The chain of one port of the service.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Also the name of the cluster that it leads to, in istiod's graph.
    pub name: String,
    /// The port.
    pub port: u16,
    /// A list of network filters.
    pub filters: Value,
}

/// The graph of a service at `vip` with these chains in the middle. The clusters that they lead to
/// come beside it, and so do [`secrets`] where no agent of Istio's has them.
#[must_use]
pub fn resources(vip: IpAddr, chains: Vec<Chain>) -> Resources {
    Resources {
        listeners: vec![
            connect_terminate(&[]),
            main_internal(vip, chains),
            connect_originate(),
        ],
        clusters: vec![to_main_internal(), originate()],
        ..Resources::default()
    }
}

/// Ordinary resources in the graph: each listener becomes the chain of its port.
///
/// # Errors
/// When a listener has no port, or more than one chain.
pub(crate) fn around(ordinary: Resources, identities: &Folder) -> Result<Resources> {
    let chain = |listener: Value| {
        let name = listener["name"].as_str().context("a listener's name")?;
        let port = listener["address"]["socket_address"]["port_value"].as_u64();
        let [chain] = listener["filter_chains"].as_array().map_or(&[][..], |c| c) else {
            bail!("{name}: not one filter chain");
        };
        let port = u16::try_from(port.context("a listener's port")?)?;
        Ok(Chain {
            name: format!("inbound-vip|{port}|http|{name}"),
            port,
            filters: chain["filters"].clone(),
        })
    };
    let chains: Result<Vec<Chain>> = ordinary.listeners.into_iter().map(chain).collect();
    let mut all = resources(VIP, chains?);
    all.listeners[0] = connect_terminate(&ordinary.tunnel_logs);
    all.clusters.extend(ordinary.clusters);
    all.others = secrets(identities)?;
    Ok(all)
}

/// The secrets that Istio's agent hands to its proxy, here by resources.
pub(crate) fn secrets(identities: &Folder) -> Result<Vec<Value>> {
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

fn connect_terminate(logs: &[Value]) -> Value {
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
        "access_log": logs,
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

fn main_internal(vip: IpAddr, chains: Vec<Chain>) -> Value {
    let network = format!("{TYPES}.extensions.matching.common_inputs.network.v3");
    let mut ports = Map::new();
    let mut compiled = Vec::new();
    for Chain {
        name,
        port,
        filters,
    } in chains
    {
        let action = json!({"name": name, "typed_config": {
            "@type": "type.googleapis.com/google.protobuf.StringValue", "value": name,
        }});
        ports.insert(port.to_string(), json!({"action": action}));
        compiled.push(json!({"name": name, "filters": filters}));
    }
    let ports = json!({"matcher_tree": {
        "input": {"name": "port", "typed_config": {"@type": format!("{network}.DestinationPortInput")}},
        "exact_match_map": {"map": ports},
    }});
    json!({
        "name": "main_internal",
        "internal_listener": {},
        "traffic_direction": "INBOUND",
        "listener_filters": [original_dst()],
        "filter_chains": compiled,
        "filter_chain_matcher": {"matcher_tree": {
            "input": {"name": "ip", "typed_config": {"@type": format!("{network}.DestinationIPInput")}},
            "custom_match": {"name": "ip", "typed_config": {
                "@type": "type.googleapis.com/xds.type.matcher.v3.IPMatcher",
                "range_matchers": [{
                    "ranges": [{"address_prefix": vip.to_string(), "prefix_len": 32}],
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

/// The cluster of a service whose one pod speaks HBONE.
#[must_use]
pub fn service(name: &str, pod: SocketAddr) -> Value {
    let pod = pod.to_string();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": unlimited(),
        "transport_socket": internal(&["envoy.filters.listener.original_dst", "istio"]),
        "common_lb_config": {"healthy_panic_threshold": {}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"locality": {}, "lb_endpoints": [{
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
    // Istio's agent hands them out, not the control plane.
    let sds = json!({"api_config_source": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
    }, "resource_api_version": "V3"});
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
