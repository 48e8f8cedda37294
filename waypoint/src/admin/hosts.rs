//! Endpoints and how they fare, in the shapes of Envoy's `/clusters`; and the listeners' addresses.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Admin;
use crate::model::endpoint::{Address, Endpoint, Health, Locality};
use crate::model::listener::ListenerKind;
use crate::model::snapshot::{ClusterEntry, Snapshot};
use crate::upstream::Fare;

/// The listener's name that istiod gives endpoints behind tunnels.
const TUNNEL: &str = "connect_originate";
/// The same for those that lead through another network's gateway.
const BEYOND: &str = "inner_connect_originate";

/// As `?format=json` has it: Envoy's `admin.v3.Clusters`.
pub(super) fn as_json(admin: &Admin) -> Value {
    let snapshot = admin.current.snapshot();
    let mut statuses = Vec::new();
    for entry in by_name(&snapshot) {
        let mut hosts = Vec::new();
        each(entry, |locality, endpoint| {
            let fare = admin.upstream.fare(entry.id, &endpoint.address);
            let stats: Vec<Value> = counts(fare)
                .into_iter()
                .map(|(name, value, kind)| json!({"name": name, "value": value.to_string(), "type": kind}))
                .collect();
            let mut parts = locality.name.splitn(3, '/');
            let mut part = || parts.next().unwrap_or_default();
            hosts.push(json!({
                "address": address(&endpoint.address),
                "stats": stats,
                "health_status": {
                    "eds_health_status": health(endpoint.health),
                    "failed_outlier_check": fare.is_some_and(|fare| fare.ejected),
                },
                "weight": endpoint.weight,
                "hostname": endpoint.hostname,
                "priority": locality.priority,
                "locality": {"region": part(), "zone": part(), "sub_zone": part()},
            }));
        });
        statuses.push(json!({
            "name": entry.cluster.name,
            "added_via_api": true,
            "host_statuses": hosts,
        }));
    }
    json!({ "cluster_statuses": statuses })
}

/// As people read it: `cluster::address::name::value`.
pub(super) fn as_text(admin: &Admin) -> String {
    let snapshot = admin.current.snapshot();
    let mut out = String::new();
    for entry in by_name(&snapshot) {
        let name = &entry.cluster.name;
        let load = admin.upstream.load(entry.id);
        for (what, value) in [
            ("cx_active", load.connections),
            ("rq_pending", load.pending),
            ("rq_active", load.requests),
            ("rq_retry_active", load.retries),
        ] {
            let _ = writeln!(out, "{name}::{what}::{value}");
        }
        each(entry, |locality, endpoint| {
            let host = shown(&endpoint.address);
            let fare = admin.upstream.fare(entry.id, &endpoint.address);
            for (what, value, _) in counts(fare) {
                let _ = writeln!(out, "{name}::{host}::{what}::{value}");
            }
            let ejected = fare.is_some_and(|fare| fare.ejected);
            let flags = match (ejected, endpoint.health) {
                (true, _) => "/failed_outlier_check",
                (false, Health::Healthy) => "healthy",
                (false, other) => health(other),
            };
            let _ = writeln!(out, "{name}::{host}::health_flags::{flags}");
            let _ = writeln!(out, "{name}::{host}::weight::{}", endpoint.weight);
            let _ = writeln!(out, "{name}::{host}::zone::{}", locality.name);
        });
    }
    out
}

/// `name::address`, a line each.
pub(super) fn listeners(admin: &Admin) -> String {
    let lines = sockets(admin).into_iter();
    lines
        .map(|(name, address)| format!("{name}::{address}\n"))
        .collect()
}

/// As `?format=json` has it: Envoy's `admin.v3.Listeners`.
pub(super) fn listeners_as_json(admin: &Admin) -> Value {
    let statuses = sockets(admin).into_iter();
    let statuses: Vec<_> = statuses
        .map(|(name, address)| json!({"name": name, "local_address": socket_address(address)}))
        .collect();
    json!({ "listener_statuses": statuses })
}

/// Where connections are accepted, by listener.
fn sockets(admin: &Admin) -> Vec<(Arc<str>, SocketAddr)> {
    let snapshot = admin.current.snapshot();
    let mut sockets = Vec::new();
    for listener in snapshot.listeners.values() {
        let addresses = match &listener.kind {
            ListenerKind::Socket(socket) => socket.addresses.as_slice(),
            ListenerKind::Tunnel(tunnel) => tunnel.addresses.as_slice(),
            ListenerKind::Internal(_) => &[],
        };
        let of = |address: &SocketAddr| (listener.name.clone(), *address);
        sockets.extend(addresses.iter().map(of));
    }
    sockets.sort_unstable();
    sockets
}

fn by_name(snapshot: &Snapshot) -> Vec<&ClusterEntry> {
    let mut entries: Vec<&ClusterEntry> =
        snapshot.clusters.values().map(|entry| &**entry).collect();
    entries.sort_unstable_by(|left, right| left.cluster.name.cmp(&right.cluster.name));
    entries
}

fn each(entry: &ClusterEntry, mut with: impl FnMut(&Locality, &Arc<Endpoint>)) {
    let set = entry.endpoints.load();
    for locality in &set.localities {
        for endpoint in &locality.endpoints {
            with(locality, endpoint);
        }
    }
}

fn counts(fare: Option<Fare>) -> Vec<(&'static str, u64, &'static str)> {
    let Some(fare) = fare else {
        return Vec::new();
    };
    vec![
        ("cx_active", fare.open.into(), "GAUGE"),
        ("cx_connect_fail", fare.connect_failures, "COUNTER"),
        ("cx_total", fare.connections, "COUNTER"),
        ("rq_active", fare.active.into(), "GAUGE"),
        ("rq_error", fare.errors, "COUNTER"),
        (
            "rq_success",
            fare.requests.saturating_sub(fare.errors),
            "COUNTER",
        ),
        ("rq_timeout", fare.timeouts, "COUNTER"),
        ("rq_total", fare.requests, "COUNTER"),
    ]
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    }
}

fn shown(address: &Address) -> String {
    match address {
        Address::Socket(socket) => socket.to_string(),
        Address::Name(host, port) => format!("{host}:{port}"),
        Address::Tunnel { to, .. } => format!("envoy://{TUNNEL}/{to}"),
        Address::DoubleTunnel { via, .. } => format!("envoy://{BEYOND}/{via}"),
    }
}

/// In Envoy's `core.v3.Address`.
fn address(address: &Address) -> Value {
    let tunnel = |listener: &str, to: SocketAddr| json!({"envoy_internal_address": {"server_listener_name": listener, "endpoint_id": to.to_string()}});
    match address {
        Address::Socket(socket) => socket_address(*socket),
        Address::Name(host, port) => {
            json!({"socket_address": {"address": host, "port_value": port}})
        }
        Address::Tunnel { to, .. } => tunnel(TUNNEL, *to),
        Address::DoubleTunnel { via, .. } => tunnel(BEYOND, *via),
    }
}

fn socket_address(socket: SocketAddr) -> Value {
    json!({"socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}})
}
