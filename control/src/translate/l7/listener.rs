//! The listeners of a waypoint: where tunnels end, where it is decided, where tunnels begin.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as value;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as http_state;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::google::protobuf::Any;
use std::collections::BTreeMap;

use super::api::{
    any, core, format_string, hcm, http_filter, list, listener, nested, network_filter, number,
    object, route, seconds, socket_address, truth, typed_struct, yes,
};
use super::chain;
use super::logging::{Which, logs};
use super::matching::{self, ByAddress};
use super::view::{Found, Place, Protocol, View};
use super::{tls, tunnel};

/// All of them.
pub(super) fn listeners(view: &View<'_>) -> Vec<listener::Listener> {
    vec![
        connect_terminate(view),
        main_internal(view),
        tunnel::connect_originate(view),
        tunnel::inner_connect_originate(view),
        tunnel::outer_connect_originate(view),
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
        access_log: logs(view, None, &Which::Refused),
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
            &Place::Address(std::net::Ipv4Addr::UNSPECIFIED.into()),
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
        access_log: logs(view, None, &Which::Flag("NR")),
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
        let served = service
            .ports
            .iter()
            .filter(|port| service.found != Found::ByRequest || super::cluster::can_forward(port));
        for port in served {
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
            any(&TlsInspector {
                initial_read_buffer_size: number(512),
                ..Default::default()
            }),
            &others,
        ));
    }
    listener::Listener {
        name: "main_internal".to_owned(),
        listener_filters: filters,
        filter_chains: chains,
        filter_chain_matcher: Some(by_address.finish()),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        access_log: logs(view, None, &Which::Flag("NR")),
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

pub(super) fn listener_filter(name: &str, config: Any, except: &[u16]) -> listener::ListenerFilter {
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

pub(super) fn internal() -> Option<listener::listener::ListenerSpecifier> {
    Some(listener::listener::ListenerSpecifier::InternalListener(
        Default::default(),
    ))
}
