//! The listeners of a waypoint: where tunnels end, where it is decided, where tunnels begin.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as value;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as http_state;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as network_state;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
use envoy_types::pb::google::protobuf::Any;
use std::collections::BTreeMap;

use super::api::{
    any, core, format_string, hcm, http_filter, list, listener, nested, network_filter, number,
    object, route, seconds, socket_address, transport_socket, truth, typed_struct, yes,
};
use super::chain;
use super::logging::{Which, logs};
use super::matching::{self, ByAddress};
use super::tls;
use super::view::{Protocol, View};

/// All of them.
pub(super) fn listeners(view: &View<'_>) -> Vec<listener::Listener> {
    vec![
        connect_terminate(view),
        main_internal(view),
        connect_originate(view),
        inner_connect_originate(view),
        outer_connect_originate(view),
    ]
}

fn connect_terminate(view: &View<'_>) -> listener::Listener {
    use listener::listener::{ConnectionBalanceConfig, connection_balance_config};
    let upgrade = route::route_action::UpgradeConfig {
        upgrade_type: "CONNECT".to_owned(),
        connect_config: Some(route::route_action::upgrade_config::ConnectConfig::default()),
        ..Default::default()
    };
    let to_main = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::ConnectMatcher(
                Default::default(),
            )),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(
                "main_internal".to_owned(),
            )),
            upgrade_configs: vec![upgrade],
            ..Default::default()
        })),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "default".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![to_main],
        ..Default::default()
    };
    let discovery = object([
        ("shared_with_upstream", yes()),
        (
            "downstream_discovery",
            list(vec![nested(object([(
                "workload_discovery",
                nested(Default::default()),
            )]))]),
        ),
    ]);
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "connect_terminate".to_owned(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(
            route::RouteConfiguration {
                name: "default".to_owned(),
                virtual_hosts: vec![host],
                ..Default::default()
            },
        )),
        http_filters: vec![
            http_filter(
                "waypoint_downstream_peer_metadata",
                typed_struct("io.istio.http.peer_metadata.Config", discovery),
            ),
            http_filter("connect_authority", connect_authority()),
            http_filter("envoy.filters.http.router", any(&Router::default())),
        ],
        http2_protocol_options: Some(core::Http2ProtocolOptions {
            max_concurrent_streams: number(100),
            allow_connect: true,
            connection_keepalive: Some(core::KeepaliveSettings {
                interval: seconds(10),
                timeout: seconds(20),
                ..Default::default()
            }),
            ..Default::default()
        }),
        server_name: "istio-envoy".to_owned(),
        access_log: logs(view, &Which::Refused),
        use_remote_address: truth(false),
        forward_client_cert_details:
            hcm::http_connection_manager::ForwardClientCertDetails::AppendForward.into(),
        set_current_client_cert_details: Some(
            hcm::http_connection_manager::SetCurrentClientCertDetails {
                subject: truth(true),
                dns: true,
                uri: true,
                ..Default::default()
            },
        ),
        upgrade_configs: vec![hcm::http_connection_manager::UpgradeConfig {
            upgrade_type: "CONNECT".to_owned(),
            ..Default::default()
        }],
        stream_idle_timeout: seconds(0),
        ..Default::default()
    };
    listener::Listener {
        name: "connect_terminate".to_owned(),
        address: Some(socket_address(
            std::net::Ipv4Addr::UNSPECIFIED.into(),
            15008,
        )),
        filter_chains: vec![listener::FilterChain {
            name: "default".to_owned(),
            filters: vec![network_filter(
                "envoy.filters.network.http_connection_manager",
                any(&manager),
            )],
            transport_socket: Some(tls::terminate(view)),
            ..Default::default()
        }],
        // Few long connections with many streams each: they have to be spread evenly.
        connection_balance_config: Some(ConnectionBalanceConfig {
            balance_type: Some(connection_balance_config::BalanceType::ExactBalance(
                Default::default(),
            )),
        }),
        access_log: logs(view, &Which::Flag("NR")),
        ..Default::default()
    }
}

/// What a tunnel says of itself becomes state of the connection inside.
fn connect_authority() -> Any {
    let state = |key: &str, from: &str, hashable: bool| value::FilterStateValue {
        key: Some(value::filter_state_value::Key::ObjectKey(key.to_owned())),
        value: Some(value::filter_state_value::Value::FormatString(
            format_string(from),
        )),
        shared_with_upstream: value::filter_state_value::SharedWithUpstream::Once.into(),
        factory_key: if hashable {
            "istio.hashable_string".to_owned()
        } else {
            String::new()
        },
        ..Default::default()
    };
    any(&http_state::Config {
        on_request_headers: vec![
            state(
                "envoy.filters.listener.original_dst.local_ip",
                "%REQ(:AUTHORITY)%",
                false,
            ),
            state("io.istio.connect_authority", "%REQ(:AUTHORITY)%", true),
            state(
                "envoy.filters.listener.original_dst.remote_ip",
                "%DOWNSTREAM_REMOTE_ADDRESS%",
                false,
            ),
            state("io.istio.peer_principal", "%DOWNSTREAM_PEER_URI_SAN%", true),
            state(
                "io.istio.local_principal",
                "%DOWNSTREAM_LOCAL_URI_SAN%",
                true,
            ),
        ],
        ..Default::default()
    })
}

fn main_internal(view: &View<'_>) -> listener::Listener {
    let mut by_address = ByAddress::default();
    let mut chains = Vec::new();
    // What is spoken on each number, over all services; two kinds on one number need a look.
    let mut spoken: BTreeMap<u16, Protocol> = BTreeMap::new();
    for service in &view.services {
        let mut ports = Vec::new();
        for port in &service.ports {
            let (then, made) = chain::of_port(view, service, port);
            ports.push((port.number, then));
            chains.extend(made);
            spoken
                .entry(port.number)
                .and_modify(|known| {
                    if known.http() != port.protocol.http() || known.tcp() != port.protocol.tcp() {
                        *known = Protocol::Sniffed;
                    }
                })
                .or_insert(port.protocol);
        }
        if !ports.is_empty() {
            let mut addresses = service.addresses.clone();
            addresses.sort_by_key(ToString::to_string);
            by_address.add(addresses, matching::by_port(ports));
        }
    }
    chains.extend(chain::direct(view));
    by_address.add(
        view.pods.iter().copied(),
        matching::by_protocol("direct-http", "direct-tcp"),
    );
    let mut filters = vec![
        listener_filter(
            "envoy.filters.listener.original_dst",
            any(&OriginalDst::default()),
            &[],
        ),
        listener_filter(
            "envoy.filters.listener.http_inspector",
            any(&HttpInspector::default()),
            &not_inspected(view, &spoken),
        ),
    ];
    let tls: Vec<u16> = spoken
        .iter()
        .filter(|(_, spoken)| **spoken == Protocol::Tls)
        .map(|(port, _)| *port)
        .collect();
    if !tls.is_empty() {
        let others: Vec<u16> = spoken
            .keys()
            .copied()
            .filter(|port| !tls.contains(port))
            .collect();
        filters.push(listener_filter(
            "envoy.filters.listener.tls_inspector",
            any(&TlsInspector::default()),
            &others,
        ));
    }
    listener::Listener {
        name: "main_internal".to_owned(),
        listener_filters: filters,
        filter_chains: chains,
        filter_chain_matcher: Some(by_address.finish()),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        access_log: logs(view, &Which::Flag("NR")),
        listener_specifier: internal(),
        ..Default::default()
    }
}

/// Ports on which the first bytes are not waited for: a server may be the first to speak.
fn not_inspected(view: &View<'_>, spoken: &BTreeMap<u16, Protocol>) -> Vec<u16> {
    if !view.pods.is_empty() {
        // Pods take connections on any port.
        return Vec::new();
    }
    let known = spoken
        .iter()
        .filter(|(_, spoken)| **spoken != Protocol::Sniffed);
    known.map(|(port, _)| *port).collect()
}

fn listener_filter(name: &str, config: Any, except: &[u16]) -> listener::ListenerFilter {
    use listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let port = |port: &u16| listener::ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(
            super::api::percent::Int32Range {
                start: i32::from(*port),
                end: i32::from(*port) + 1,
            },
        )),
    };
    let disabled = match except {
        [] => None,
        [one] => Some(port(one)),
        several => Some(listener::ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: several.iter().map(port).collect(),
            })),
        }),
    };
    listener::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: disabled,
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
    }
}

fn internal() -> Option<listener::listener::ListenerSpecifier> {
    Some(listener::listener::ListenerSpecifier::InternalListener(
        Default::default(),
    ))
}

fn connect_originate(view: &View<'_>) -> listener::Listener {
    let tunnel = tcp_proxy::tcp_proxy::TunnelingConfig {
        hostname: "%DOWNSTREAM_LOCAL_ADDRESS%".to_owned(),
        ..Default::default()
    };
    let mut listener = originate(view, "connect_originate", tunnel, Vec::new());
    listener.listener_filters = vec![listener_filter(
        "envoy.filters.listener.original_dst",
        any(&OriginalDst::default()),
        &[],
    )];
    listener
}

/// A tunnel inside a tunnel: to a service of another network, through its gateway.
fn inner_connect_originate(view: &View<'_>) -> listener::Listener {
    let state = |key: &str, from: &str, hashable: bool| value::FilterStateValue {
        key: Some(value::filter_state_value::Key::ObjectKey(key.to_owned())),
        value: Some(value::filter_state_value::Value::FormatString(
            format_string(from),
        )),
        shared_with_upstream: value::filter_state_value::SharedWithUpstream::Transitive.into(),
        factory_key: if hashable {
            "istio.hashable_string".to_owned()
        } else {
            String::new()
        },
        ..Default::default()
    };
    let endpoint = network_state::Config {
        on_new_connection: vec![
            state(
                "envoy.filters.listener.original_dst.local_ip",
                "%DYNAMIC_METADATA(envoy.filters.listener.original_dst:local)%",
                false,
            ),
            state(
                "istio.double_hbone.hbone_target_address",
                "%DYNAMIC_METADATA(istio:double_hbone:hbone_target_address)%",
                true,
            ),
        ],
        ..Default::default()
    };
    let before = vec![network_filter(
        "propagate_endpoint_metadata",
        any(&endpoint),
    )];
    let tunnel = target_address("x-forwarded-network", &view.mesh.network);
    originate(view, "inner_connect_originate", tunnel, before)
}

fn outer_connect_originate(view: &View<'_>) -> listener::Listener {
    let tunnel = target_address("x-istio-source", "waypoint");
    let mut listener = originate(view, "outer_connect_originate", tunnel, Vec::new());
    listener.listener_filters = vec![listener_filter(
        "envoy.filters.listener.original_dst",
        any(&OriginalDst::default()),
        &[],
    )];
    listener
}

fn target_address(header: &str, value: &str) -> tcp_proxy::tcp_proxy::TunnelingConfig {
    tcp_proxy::tcp_proxy::TunnelingConfig {
        hostname: "%FILTER_STATE(istio.double_hbone.hbone_target_address:PLAIN)%".to_owned(),
        headers_to_add: vec![core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: header.to_owned(),
                value: value.to_owned(),
                ..Default::default()
            }),
            append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd
                .into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn originate(
    view: &View<'_>,
    name: &str,
    tunnel: tcp_proxy::tcp_proxy::TunnelingConfig,
    mut filters: Vec<listener::Filter>,
) -> listener::Listener {
    let proxy = tcp_proxy::TcpProxy {
        stat_prefix: name.to_owned(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(
            name.to_owned(),
        )),
        access_log: logs(view, &Which::Flag("UF")),
        tunneling_config: Some(tunnel),
        ..Default::default()
    };
    filters.push(network_filter(
        "envoy.filters.network.tcp_proxy",
        any(&proxy),
    ));
    listener::Listener {
        name: name.to_owned(),
        filter_chains: vec![listener::FilterChain {
            filters,
            ..Default::default()
        }],
        use_original_dst: truth(false),
        access_log: logs(view, &Which::Flag("NR")),
        listener_specifier: internal(),
        ..Default::default()
    }
}

/// Transport to an internal listener.
pub(super) fn internal_transport(
    name: &str,
    inside: core::TransportSocket,
    passed_on: &[&str],
) -> core::TransportSocket {
    use envoy_types::pb::envoy::extensions::transport_sockets::internal_upstream::v3 as internal;
    use envoy_types::pb::envoy::r#type::metadata::v3 as metadata;
    let passthrough =
        passed_on.iter().map(
            |name| internal::internal_upstream_transport::MetadataValueSource {
                kind: Some(metadata::MetadataKind {
                    kind: Some(metadata::metadata_kind::Kind::Host(Default::default())),
                }),
                name: (*name).to_owned(),
            },
        );
    let transport = internal::InternalUpstreamTransport {
        passthrough_metadata: passthrough.collect(),
        transport_socket: Some(inside),
    };
    transport_socket(name, any(&transport))
}
