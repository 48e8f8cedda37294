//! What this proxy knows, in the JSON shape that `istioctl ztunnel-config` reads
//! (istioctl/pkg/writer/ztunnel/configdump/api.go). Keys of certificates are never in it.

use std::collections::BTreeMap;

use mesh::certificate::{Certificate, Held};
use mesh::identity::Identity;
use mesh::policy::{Action, Authorization, Match, Scope as PolicyScope, StringMatch};
use mesh::workload::{
    ApplicationProtocol, GatewayAddress, Health, HealthPolicy, IpFamilies, Mode, PortMapping,
    Scope, Service, TunnelProtocol, Visibility, Workload,
};
use mesh::world::World;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::connections::Shown;
use crate::pod::Shared;

/// Everything.
pub(super) fn everything(shared: &Shared) -> Value {
    let connections = shared.connections.show();
    let world = shared.world.read();
    let mut workloads: Vec<_> = world.workloads().collect();
    workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
    let mut services: Vec<_> = world.services().collect();
    services.sort_by(|a, b| a.key.cmp(&b.key));
    let mut policies: Vec<_> = world.policies().iter().collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    json!({
        "workloads": workloads.into_iter().map(|workload| self::workload(workload)).collect::<Vec<_>>(),
        "services": services.into_iter().map(|service| self::service(&world, service)).collect::<Vec<_>>(),
        "policies": policies.into_iter().map(|policy| self::policy(policy)).collect::<Vec<_>>(),
        "certificates": shared.certificates.held().iter().map(certificate).collect::<Vec<_>>(),
        "workloadState": open(&connections),
    })
}

fn workload(workload: &Workload) -> Value {
    json!({
        "uid": workload.uid.as_str(),
        "workloadIps": workload.addresses,
        "waypoint": workload.waypoint.as_ref().map(gateway),
        "networkGateway": workload.network_gateway.as_ref().map(gateway),
        "protocol": match workload.tunnel { TunnelProtocol::Hbone => "HBONE", TunnelProtocol::None => "TCP" },
        "name": &*workload.name,
        "namespace": &*workload.namespace,
        "trustDomain": workload.identity.trust_domain(),
        "serviceAccount": workload.identity.service_account(),
        "workloadName": &*workload.workload_name,
        "workloadType": workload.kind_name(),
        "canonicalName": &*workload.canonical_name,
        "canonicalRevision": &*workload.canonical_revision,
        "clusterId": &*workload.cluster,
        "locality": {
            "region": &*workload.locality.region,
            "zone": &*workload.locality.zone,
            "subzone": &*workload.locality.subzone,
        },
        "node": &*workload.node,
        "network": workload.network.as_str(),
        "status": match workload.health { Health::Healthy => "Healthy", Health::Unhealthy => "Unhealthy" },
        "hostname": workload.hostname.as_deref().unwrap_or_default(),
        "capacity": workload.capacity,
        "applicationTunnel": workload.application_tunnel.map(|tunnel| json!({
            "protocol": match tunnel.protocol { ApplicationProtocol::Proxy => "PROXY", ApplicationProtocol::None => "NONE" },
            "port": tunnel.port,
        })),
        "authorizationPolicies": workload.policies.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
    })
}

fn gateway(gateway: &GatewayAddress) -> Value {
    json!({"destination": gateway.target.to_string(), "hboneMtlsPort": gateway.hbone_port})
}

fn service(world: &World, service: &Service) -> Value {
    let endpoints: serde_json::Map<String, Value> = world
        .endpoints(&service.key)
        .iter()
        .map(|endpoint| {
            let workload = &endpoint.workload;
            let address = workload
                .addresses
                .first()
                .map(|ip| format!("{}/{ip}", workload.network));
            let shown = json!({
                "workloadUid": workload.uid.as_str(),
                "service": service.key.to_string(),
                "address": address,
                "port": ports(&endpoint.ports),
            });
            (workload.uid.to_string(), shown)
        })
        .collect();
    let (single, blocks): (Vec<_>, Vec<_>) = service
        .vips
        .iter()
        .partition(|vip| vip.block.prefix_len() == vip.block.max_prefix_len());
    json!({
        "name": &*service.name,
        "namespace": &*service.key.namespace,
        "hostname": &*service.key.hostname,
        "vips": single.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "cidrVips": blocks.iter()
            .map(|vip| json!({"cidr": vip.block.to_string(), "network": vip.network.as_str()}))
            .collect::<Vec<_>>(),
        "ports": ports(&service.ports),
        "loadBalancer": balance(service),
        "waypoint": service.waypoint.as_ref().map(gateway),
        "endpoints": endpoints,
        "subjectAltNames": service.subject_alt_names.iter().map(Identity::as_str).collect::<Vec<_>>(),
        "ipFamilies": match service.ip_families {
            IpFamilies::Automatic => "",
            IpFamilies::Ipv4Only => "IPv4",
            IpFamilies::Ipv6Only => "IPv6",
            IpFamilies::Dual => "Dual",
        },
        "canonical": service.canonical,
        "visibility": match service.visibility { Visibility::Public => "Public", Visibility::Namespace => "Namespace" },
    })
}

fn ports(ports: &[PortMapping]) -> BTreeMap<String, u16> {
    ports
        .iter()
        .map(|port| (port.service_port.to_string(), port.target_port))
        .collect()
}

fn balance(service: &Service) -> Value {
    let rules = &service.load_balancing;
    let scope = |scope: &Scope| match scope {
        Scope::Region => "Region",
        Scope::Zone => "Zone",
        Scope::Subzone => "Subzone",
        Scope::Node => "Node",
        Scope::Cluster => "Cluster",
        Scope::Network => "Network",
    };
    json!({
        "mode": match rules.mode {
            Mode::Any => "Standard",
            Mode::Strict => "Strict",
            Mode::Failover => "Failover",
            Mode::Passthrough => "Passthrough",
        },
        "routingPreferences": rules.preference.iter().map(scope).collect::<Vec<_>>(),
        "healthPolicy": match rules.health {
            HealthPolicy::OnlyHealthy => "OnlyHealthy",
            HealthPolicy::AllowAll => "AllowAll",
        },
    })
}

fn policy(policy: &Authorization) -> Value {
    let rule = |rule: &mesh::policy::Rule| {
        let clause = |clause: &mesh::policy::Clause| {
            clause.matches.iter().map(one_match).collect::<Vec<_>>()
        };
        rule.clauses.iter().map(clause).collect::<Vec<_>>()
    };
    let (namespace, name) = policy
        .name
        .as_str()
        .split_once('/')
        .unwrap_or(("", policy.name.as_str()));
    json!({
        "name": name,
        "namespace": namespace,
        "scope": match policy.scope {
            PolicyScope::Global => "Global",
            PolicyScope::Namespace => "Namespace",
            PolicyScope::Selector => "WorkloadSelector",
        },
        "action": match policy.action { Action::Allow => "Allow", Action::Deny => "Deny" },
        "dryRun": policy.dry_run,
        "rules": policy.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn one_match(found: &Match) -> Value {
    let texts = |texts: &[StringMatch]| {
        let text = |text: &StringMatch| match text {
            StringMatch::Exact(text) => json!({"Exact": &**text}),
            StringMatch::Prefix(text) => json!({"Prefix": &**text}),
            StringMatch::Suffix(text) => json!({"Suffix": &**text}),
            StringMatch::Presence => json!({"Presence": {}}),
        };
        json!(texts.iter().map(text).collect::<Vec<_>>())
    };
    let accounts = |accounts: &[mesh::policy::ServiceAccount]| {
        let account = |account: &mesh::policy::ServiceAccount| json!({"namespace": &*account.namespace, "serviceAccount": &*account.name});
        json!(accounts.iter().map(account).collect::<Vec<_>>())
    };
    let fields = [
        ("namespaces", texts(&found.namespaces)),
        ("notNamespaces", texts(&found.not_namespaces)),
        ("principals", texts(&found.principals)),
        ("notPrincipals", texts(&found.not_principals)),
        ("serviceAccounts", accounts(&found.service_accounts)),
        ("notServiceAccounts", accounts(&found.not_service_accounts)),
        ("sourceIps", json!(found.source_ips)),
        ("notSourceIps", json!(found.not_source_ips)),
        ("destinationIps", json!(found.destination_ips)),
        ("notDestinationIps", json!(found.not_destination_ips)),
        ("destinationPorts", json!(found.destination_ports)),
        ("notDestinationPorts", json!(found.not_destination_ports)),
    ];
    let set = |value: &Value| value.as_array().is_some_and(|values| !values.is_empty());
    fields
        .into_iter()
        .filter(|(_, value)| set(value))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn certificate((identity, held): &(Identity, Held)) -> Value {
    let (state, chain, roots) = match held {
        Held::Requested => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        Held::Failed(error) => (format!("Unavailable: {error}"), Vec::new(), Vec::new()),
        Held::Certificate(certificate) => (
            "Available".to_owned(),
            chain(certificate),
            roots(certificate),
        ),
    };
    json!({"identity": identity.as_str(), "state": state, "certChain": chain, "rootCerts": roots})
}

fn chain(certificate: &Certificate) -> Vec<Value> {
    certificate
        .chain()
        .iter()
        .filter_map(|der| shown(der))
        .collect()
}

fn roots(certificate: &Certificate) -> Vec<Value> {
    certificate
        .roots()
        .iter()
        .filter_map(|der| shown(der))
        .collect()
}

/// A certificate's public part.
fn shown(der: &[u8]) -> Option<Value> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let moment = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds)
            .ok()?
            .format(&Rfc3339)
            .ok()
    };
    let validity = parsed.validity();
    Some(json!({
        "serialNumber": parsed.serial.to_string(),
        "validFrom": moment(validity.not_before.timestamp())?,
        "expirationTime": moment(validity.not_after.timestamp())?,
    }))
}

/// Open inbound connections by the workload they go to.
fn open(connections: &[Shown]) -> BTreeMap<String, Value> {
    let mut by_workload: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for shown in connections {
        let source = &shown.connection.source;
        let entry = by_workload
            .entry(shown.to.uid.to_string())
            .or_insert_with(|| {
                let info = json!({
                    "name": &*shown.to.name,
                    "namespace": &*shown.to.namespace,
                    "trustDomain": shown.to.identity.trust_domain(),
                    "serviceAccount": shown.to.identity.service_account(),
                });
                (info, Vec::new())
            });
        entry.1.push(json!({
            "src": source.ip.to_string(),
            "srcIdentity": source.identity.as_ref().map(Identity::as_str),
            "originalDst": shown.connection.destination.to_string(),
            "actualDst": shown.connection.destination.to_string(),
            "protocol": if source.identity.is_some() { "HBONE" } else { "TCP" },
        }));
    }
    let state = |(info, inbound): (Value, Vec<Value>)| json!({"state": "Up", "info": info, "connections": {"inbound": inbound, "outbound": []}});
    by_workload
        .into_iter()
        .map(|(uid, entry)| (uid, state(entry)))
        .collect()
}

#[cfg(test)]
mod tests;
