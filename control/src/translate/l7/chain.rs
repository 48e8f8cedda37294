//! The filter chains of `main_internal`: for each port of each service, and for pods themselves.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as value;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as state;

use super::api::{any, format_string, listener, network_filter};
use super::matching::{Then, by_protocol, chain};
use super::view::{Protocol, Target, TargetPort, View, inbound};
use super::{http, tcp};

/// The chains of a service's port, and which of them a connection gets.
pub(super) fn of_port(
    view: &View<'_>,
    service: &Target,
    port: &TargetPort,
) -> (Then, Vec<listener::FilterChain>) {
    let (for_http, for_tcp) = (
        inbound(port.number, "http", &service.host),
        inbound(port.number, "tcp", &service.host),
    );
    let http = || named(&for_http, vec![http::manager(view, service, port)]);
    let tcp = || named(&for_tcp, tcp::filters(view, service, port));
    match port.protocol {
        Protocol::Http | Protocol::Http2 => (chain(&for_http), vec![http()]),
        Protocol::Tcp | Protocol::Tls => (chain(&for_tcp), vec![tcp()]),
        Protocol::Sniffed => (by_protocol(&for_http, &for_tcp), vec![tcp(), http()]),
    }
}

/// The chains for pods by their own addresses: no route, but the waypoint's own policies.
pub(super) fn direct(view: &View<'_>) -> [listener::FilterChain; 2] {
    let mut tcp = vec![keep_authority()];
    tcp.extend(tcp::direct(view));
    [
        named("direct-tcp", tcp),
        named("direct-http", vec![keep_authority(), http::direct(view)]),
    ]
}

fn named(name: &str, filters: Vec<listener::Filter>) -> listener::FilterChain {
    listener::FilterChain {
        name: name.to_owned(),
        filters,
        ..Default::default()
    }
}

/// The next tunnel goes where this one was meant to.
fn keep_authority() -> listener::Filter {
    let key = "envoy.filters.listener.original_dst.local_ip";
    let again = value::FilterStateValue {
        key: Some(value::filter_state_value::Key::ObjectKey(key.to_owned())),
        value: Some(value::filter_state_value::Value::FormatString(
            format_string(&format!("%FILTER_STATE({key}:PLAIN)%")),
        )),
        shared_with_upstream: value::filter_state_value::SharedWithUpstream::Once.into(),
        ..Default::default()
    };
    let config = state::Config {
        on_new_connection: vec![again],
        ..Default::default()
    };
    network_filter("connect_authority", any(&config))
}
