//! The messages as named fields in one form, so that two of them can be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use mesh::proto::security::{Authorization, Match};
use mesh::proto::workload::{NetworkAddress, Port, Service, Workload};
use serde_json::{Value, json};

pub(super) fn workload(workload: &Workload) -> Value {
    let services = workload
        .services
        .iter()
        .map(|(name, list)| (name.clone(), ports(&list.ports)));
    json!({
        "name": workload.name,
        "namespace": workload.namespace,
        "addresses": workload.addresses.iter().map(|octets| ip(octets)).collect::<Vec<_>>(),
        "hostname": workload.hostname,
        "network": workload.network,
        "tunnel_protocol": workload.tunnel_protocol().as_str_name(),
        "native_tunnel": workload.native_tunnel,
        "trust_domain": workload.trust_domain,
        "service_account": workload.service_account,
        "waypoint": text(&workload.waypoint),
        "network_gateway": text(&workload.network_gateway),
        "node": workload.node,
        "canonical_name": workload.canonical_name,
        "canonical_revision": workload.canonical_revision,
        "workload_type": workload.workload_type().as_str_name(),
        "workload_name": workload.workload_name,
        "application_tunnel": text(&workload.application_tunnel),
        "services": services.collect::<serde_json::Map<_, _>>(),
        "authorization_policies": sorted(workload.authorization_policies.iter().map(|name| json!(name))),
        "status": workload.status().as_str_name(),
        "cluster_id": workload.cluster_id,
        "locality": text(&workload.locality),
        "network_mode": workload.network_mode().as_str_name(),
        "extensions": text(&workload.extensions),
        "capacity": workload.capacity,
    })
}

pub(super) fn service(service: &Service) -> Value {
    json!({
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "addresses": service.addresses.iter().map(network_address).collect::<Vec<_>>(),
        "ports": ports(&service.ports),
        "subject_alt_names": service.subject_alt_names,
        "waypoint": text(&service.waypoint),
        "load_balancing": text(&service.load_balancing),
        "ip_families": service.ip_families().as_str_name(),
        "extensions": text(&service.extensions),
        "canonical": service.canonical,
        "ingress_use_waypoint": service.ingress_use_waypoint,
        "weighted_waypoints": text(&service.weighted_waypoints),
        "visibility": service.visibility().as_str_name(),
    })
}

/// Rules, clauses and matches are sets: their order means nothing, nor does a repetition.
pub(super) fn policy(policy: &Authorization) -> Value {
    let clause = |matches: &[Match]| sorted(matches.iter().map(one_match));
    let rules = policy
        .rules
        .iter()
        .map(|rule| sorted(rule.clauses.iter().map(|c| clause(&c.matches))));
    json!({
        "name": policy.name,
        "namespace": policy.namespace,
        "scope": policy.scope().as_str_name(),
        "action": policy.action().as_str_name(),
        "dry_run": policy.dry_run,
        "rules": sorted(rules),
        "extensions": text(&policy.extensions),
    })
}

fn one_match(found: &Match) -> Value {
    let mut sorted_match = found.clone();
    sorted_match.destination_ports.sort_unstable();
    sorted_match.not_destination_ports.sort_unstable();
    text(&sorted_match)
}

fn sorted(values: impl Iterator<Item = Value>) -> Value {
    let unique: BTreeMap<String, Value> = values.map(|value| (value.to_string(), value)).collect();
    unique.into_values().collect()
}

fn ports(ports: &[Port]) -> Value {
    let each = ports.iter().map(|port| {
        json!(format!(
            "{}->{} {}",
            port.service_port,
            port.target_port,
            port.app_protocol().as_str_name()
        ))
    });
    sorted(each)
}

fn network_address(address: &NetworkAddress) -> String {
    let length = address
        .length
        .map(|length| format!("/{length}"))
        .unwrap_or_default();
    format!("{}/{}{length}", address.network, ip(&address.address))
}

fn text(value: &impl fmt::Debug) -> Value {
    json!(format!("{value:?}"))
}

fn ip(octets: &[u8]) -> String {
    let address: Option<IpAddr> = match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    };
    address.map_or_else(|| format!("{octets:?}"), |address| address.to_string())
}
