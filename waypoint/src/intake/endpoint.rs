//! Envoy's `ClusterLoadAssignment` → the endpoints of a cluster. Endpoints that istiod describes as
//! internal addresses of `connect_originate` are tunnels: where they end stands in their metadata.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use mesh::workload::HBONE_PORT;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{plain, text, typed};
use crate::model::endpoint::{Address, Endpoint, EndpointSet, Health, Locality, WorkloadRef};
use crate::unserved;

/// Where istiod says what a tunnelled endpoint is.
const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
/// istiod's own metadata: who an endpoint is.
const ISTIO: &str = "istio";
/// Metadata that chooses a transport.
const TRANSPORT: &str = "envoy.transport_socket_match";
/// Metadata of load balancing.
const LB: &str = "envoy.lb";
/// How far healthy endpoints may stand in for unhealthy ones, in percent, unless said.
const OVERPROVISIONING: u32 = 140;

/// The endpoints of the cluster that subscribed to `name`.
///
/// # Errors
/// They can't be read, or can't be served without sending requests elsewhere.
pub fn endpoints(name: &str, bytes: &[u8], notes: &mut Notes) -> Result<EndpointSet, Refused> {
    let message: pb::ClusterLoadAssignment = typed::decode(bytes, notes)?;
    if message.cluster_name != name {
        let reason = format!("is {:?} inside", message.cluster_name);
        return Err(Refused::new(reason).under("cluster_name"));
    }
    assignment(message, notes)
}

/// The endpoints that an assignment has.
///
/// # Errors
/// See [`endpoints`].
pub fn assignment(
    message: pb::ClusterLoadAssignment,
    notes: &mut Notes,
) -> Result<EndpointSet, Refused> {
    let pb::ClusterLoadAssignment {
        cluster_name: _,
        endpoints,
        named_endpoints,
        policy,
    } = message;
    unserved!(notes, "ClusterLoadAssignment": named_endpoints);
    let pb::cluster_load_assignment::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = policy.unwrap_or_default();
    unserved!(notes, "ClusterLoadAssignment": endpoint_stale_after, weighted_priority_health);
    let drops = each("policy.drop_overloads", drop_overloads, |overload| {
        let pb::cluster_load_assignment::policy::DropOverload {
            category,
            drop_percentage,
        } = overload;
        let share = text::fraction(need(drop_percentage, "drop_percentage")?)?;
        Ok((category.into(), share))
    })?;
    let mut localities = each("endpoints", endpoints, |endpoints| {
        locality(endpoints, notes)
    })?;
    localities.sort_by_key(|locality| locality.priority);
    Ok(EndpointSet {
        localities,
        drops,
        overprovisioning: plain::number(overprovisioning_factor).unwrap_or(OVERPROVISIONING),
    })
}

fn locality(message: pb::LocalityLbEndpoints, notes: &mut Notes) -> Result<Locality, Refused> {
    let pb::LocalityLbEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = message;
    unserved!(notes, "LocalityLbEndpoints": metadata, proximity, lb_config);
    let core::Locality {
        region,
        zone,
        sub_zone,
    } = locality.unwrap_or_default();
    let endpoints = each("lb_endpoints", lb_endpoints, |it| {
        endpoint(it, notes).map(Arc::new)
    })?;
    Ok(Locality {
        name: format!("{region}/{zone}/{sub_zone}").into(),
        priority,
        weight: plain::number(load_balancing_weight).unwrap_or(0),
        endpoints,
    })
}

fn endpoint(message: pb::LbEndpoint, notes: &mut Notes) -> Result<Endpoint, Refused> {
    let pb::LbEndpoint {
        health_status,
        metadata,
        load_balancing_weight,
        host_identifier,
    } = message;
    let pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint {
        address,
        health_check_config,
        hostname,
        additional_addresses,
        observability_name,
    }) = need(host_identifier, "endpoint")?
    else {
        let reason = "endpoints stand in their localities";
        return Err(Refused::new(reason).under("endpoint_name"));
    };
    unserved!(notes, "Endpoint": health_check_config, additional_addresses, observability_name);
    let core::Metadata {
        filter_metadata,
        typed_filter_metadata: _,
    } = metadata.unwrap_or_default();
    let address = need(address.and_then(|address| address.address), "address")?;
    let address = self::address(address, &filter_metadata).at("endpoint.address")?;
    let workload = filter_metadata
        .get(ISTIO)
        .and_then(|istio| string(istio, "workload"))
        .map(|text| Box::new(workload(text)));
    Ok(Endpoint {
        address,
        hostname: hostname.into(),
        weight: plain::number(load_balancing_weight).unwrap_or(1).max(1),
        health: health(health_status),
        workload,
        transport_match: strings(filter_metadata.get(TRANSPORT)).into(),
        lb: strings(filter_metadata.get(LB)).into(),
    })
}

fn health(status: i32) -> Health {
    use core::HealthStatus as Status;
    match Status::try_from(status) {
        Ok(Status::Unknown | Status::Healthy) => Health::Healthy,
        Ok(Status::Degraded) => Health::Degraded,
        Ok(Status::Draining) => Health::Draining,
        Ok(Status::Unhealthy | Status::Timeout) | Err(_) => Health::Unhealthy,
    }
}

/// How an endpoint of this address and metadata is reached.
fn address(
    address: core::address::Address,
    metadata: &HashMap<String, Struct>,
) -> Result<Address, Refused> {
    use core::address::Address as Pb;
    match address {
        Pb::SocketAddress(socket) => self::socket(socket).at("socket_address"),
        Pb::Pipe(_) => Err(Refused::new("pipes aren't served").under("pipe")),
        Pb::EnvoyInternalAddress(internal) => {
            tunnel(internal, metadata).at("envoy_internal_address")
        }
    }
}

fn socket(socket: core::SocketAddress) -> Result<Address, Refused> {
    use core::socket_address::PortSpecifier;
    let core::SocketAddress {
        protocol,
        address,
        resolver_name: _,
        ipv4_compat: _,
        network_namespace_filepath: _,
        port_specifier,
    } = socket;
    if protocol != core::socket_address::Protocol::Tcp as i32 {
        return Err(Refused::new("only TCP is served").under("protocol"));
    }
    let Some(PortSpecifier::PortValue(port)) = port_specifier else {
        return Err(Refused::new("ports have numbers").under("port_value"));
    };
    let port = plain::port(port).at("port_value")?;
    match address.parse() {
        Ok(ip) => Ok(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) if address.is_empty() => Err(Refused::new("must be set").under("address")),
        Err(_) => Ok(Address::Name(address.into(), port)),
    }
}

/// istiod's tunnels: the listener's name says which kind, the metadata where it ends.
fn tunnel(
    internal: core::EnvoyInternalAddress,
    metadata: &HashMap<String, Struct>,
) -> Result<Address, Refused> {
    use core::envoy_internal_address::AddressNameSpecifier::ServerListenerName;
    let core::EnvoyInternalAddress {
        endpoint_id,
        address_name_specifier,
    } = internal;
    let ServerListenerName(listener) = need(address_name_specifier, "server_listener_name")?;
    let destination = metadata.get(ORIGINAL_DST);
    let local = destination.and_then(|destination| string(destination, "local"));
    let local = local.unwrap_or(&endpoint_id);
    let to: SocketAddr = local.parse().map_err(|_| {
        let reason = format!("{local:?} is no address that a tunnel could lead to");
        Refused::new(reason).under("endpoint_id")
    })?;
    let with_port = |to: SocketAddr| SocketAddr::new(to.ip(), HBONE_PORT);
    match listener.as_str() {
        "connect_originate" => {
            let waypoint = destination.and_then(|destination| string(destination, "waypoint"));
            let via = match waypoint {
                None => with_port(to),
                Some(waypoint) => waypoint.parse().map(with_port).map_err(|_| {
                    Refused::new(format!("the waypoint {waypoint:?} is no address"))
                })?,
            };
            Ok(Address::Tunnel { to, via })
        }
        "inner_connect_originate" => {
            let istio = metadata.get(ISTIO);
            let double = istio.and_then(|istio| match &istio.fields.get("double_hbone")?.kind {
                Some(Kind::StructValue(double)) => string(double, "hbone_target_address"),
                _ => None,
            });
            let target = need(double, "metadata.istio.double_hbone.hbone_target_address")?;
            Ok(Address::DoubleTunnel {
                to: target.into(),
                via: with_port(to),
            })
        }
        other => {
            let reason = format!("{other:?} is no listener that takes tunnelled endpoints");
            Err(Refused::new(reason).under("server_listener_name"))
        }
    }
}

/// istiod's `name;namespace;canonical name;canonical revision;cluster`.
fn workload(text: &str) -> WorkloadRef {
    let mut parts = text.split(';').map(Box::<str>::from);
    let mut next = || parts.next().unwrap_or_default();
    WorkloadRef {
        name: next(),
        namespace: next(),
        canonical_name: next(),
        canonical_revision: next(),
        cluster: next(),
    }
}

/// A text field of a struct.
#[must_use]
pub(super) fn string<'a>(of: &'a Struct, field: &str) -> Option<&'a str> {
    match &of.fields.get(field)?.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

/// The fields of a struct that have one value, in the order of their names.
#[must_use]
pub(super) fn strings(of: Option<&Struct>) -> Vec<(Box<str>, Box<str>)> {
    let fields = of.into_iter().flat_map(|of| &of.fields);
    let mut pairs: Vec<_> = fields
        .filter_map(|(key, Value { kind })| {
            let value: Box<str> = match kind {
                Some(Kind::StringValue(text)) => text.as_str().into(),
                Some(Kind::BoolValue(truth)) => truth.to_string().into(),
                Some(Kind::NumberValue(number)) => number.to_string().into(),
                _ => return None,
            };
            Some((key.as_str().into(), value))
        })
        .collect();
    pairs.sort();
    pairs
}

#[cfg(test)]
mod tests;
