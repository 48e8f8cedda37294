//! The clusters that every waypoint has: to its own listeners, and the ends of tunnels.

use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;

use super::super::api::{
    any, cluster, core, endpoint, internal_address, number, seconds, tls as envoy_tls,
    transport_socket,
};
use super::super::tls;
use super::super::tunnel::internal_transport;
use super::super::view::View;
use super::{ORIGINAL_DST, as_the_caller, breakers, connect, explicit_h2, idle, set_options};

fn fixed(name: &str, kind: cluster::cluster::DiscoveryType) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        alt_stat_name: format!("{name};"),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(kind.into())),
        circuit_breakers: Some(breakers()),
        ..Default::default()
    }
}

/// A cluster of one endpoint: an internal listener.
pub(super) fn to_listener(name: &str, listener: &str) -> cluster::Cluster {
    let mut made = fixed(name, cluster::cluster::DiscoveryType::Static);
    made.load_assignment = Some(endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![endpoint::LbEndpoint {
                host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
                    endpoint::Endpoint {
                        address: Some(internal_address(listener, "")),
                        ..Default::default()
                    },
                )),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    });
    made.transport_socket = Some(internal_transport(
        "internal_upstream",
        transport_socket("raw_buffer", any(&RawBuffer {})),
        &[],
    ));
    set_options(&mut made, &idle(as_the_caller(), 300, false));
    made
}

fn tunnel_socket(prefixes: &[String]) -> core::TransportSocket {
    let context = envoy_tls::UpstreamTlsContext {
        common_tls_context: Some(tls::tunnel(prefixes)),
        ..Default::default()
    };
    transport_socket("tls", any(&context))
}

fn original_dst(name: &str, socket: core::TransportSocket) -> cluster::Cluster {
    let mut made = fixed(name, cluster::cluster::DiscoveryType::OriginalDst);
    made.connect_timeout = seconds(10);
    made.lb_policy = cluster::cluster::LbPolicy::ClusterProvided.into();
    made.cleanup_interval = seconds(60);
    made.transport_socket = Some(socket);
    made
}

pub(super) fn connect_originate(view: &View<'_>) -> cluster::Cluster {
    let mut prefixes = tls::mesh_prefixes(view);
    let own = format!("{}ns/{}/sa/", prefixes[0], view.namespace());
    prefixes.push(own);
    let mut made = original_dst("connect_originate", tunnel_socket(&prefixes));
    let waypoint = matcher_key("waypoint");
    made.lb_config = Some(cluster::cluster::LbConfig::OriginalDstLbConfig(
        cluster::cluster::OriginalDstLbConfig {
            upstream_port_override: number(15008),
            metadata_key: Some(waypoint),
            ..Default::default()
        },
    ));
    set_options(&mut made, &idle(explicit_h2(connect()), 3600, false));
    made
}

fn matcher_key(name: &str) -> envoy_types::pb::envoy::r#type::metadata::v3::MetadataKey {
    use envoy_types::pb::envoy::r#type::metadata::v3::{
        MetadataKey,
        metadata_key::{PathSegment, path_segment::Segment},
    };
    MetadataKey {
        key: ORIGINAL_DST.to_owned(),
        path: vec![PathSegment {
            segment: Some(Segment::Key(name.to_owned())),
        }],
    }
}

pub(super) fn inner_connect_originate(view: &View<'_>) -> cluster::Cluster {
    let mut made = to_listener("inner_connect_originate", "outer_connect_originate");
    made.transport_socket = Some(internal_transport(
        "internal_upstream_with_tls",
        tunnel_socket(&tls::mesh_prefixes(view)),
        &[],
    ));
    set_options(&mut made, &idle(explicit_h2(connect()), 3600, true));
    made
}

pub(super) fn outer_connect_originate(view: &View<'_>) -> cluster::Cluster {
    let mut made = original_dst(
        "outer_connect_originate",
        tunnel_socket(&tls::mesh_prefixes(view)),
    );
    made.lb_config = Some(cluster::cluster::LbConfig::OriginalDstLbConfig(
        cluster::cluster::OriginalDstLbConfig {
            upstream_port_override: number(15008),
            ..Default::default()
        },
    ));
    set_options(&mut made, &idle(explicit_h2(connect()), 3600, true));
    made
}
