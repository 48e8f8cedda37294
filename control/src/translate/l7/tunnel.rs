//! The listeners in which tunnels begin, and the way to an internal listener.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as value;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as network_state;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;

use super::api::{any, core, format_string, listener, network_filter, transport_socket, truth};
use super::listener::{internal, listener_filter};
use super::logging::{Which, logs};
use super::view::View;

pub(super) fn connect_originate(view: &View<'_>) -> listener::Listener {
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
pub(super) fn inner_connect_originate(view: &View<'_>) -> listener::Listener {
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

pub(super) fn outer_connect_originate(view: &View<'_>) -> listener::Listener {
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
        access_log: logs(view, None, &Which::Flag("UF")),
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
        access_log: logs(view, None, &Which::Flag("NR")),
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
