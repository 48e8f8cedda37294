//! From the file's entries to the messages that xDS would have brought, and through the same
//! parsers to the model. Only what text allows beyond the messages is checked here.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::format::{self, Document};
use super::{EntryError, Snapshot};
use crate::policy::Authorization;
use crate::proto::{security, workload as proto};
use crate::workload::{Resource, Service, Workload};

/// Takes a whole document, or says what is wrong with each bad entry.
pub(super) fn snapshot(document: Document) -> Result<Snapshot, Vec<EntryError>> {
    let mut errors = Vec::new();
    let mut resources = Vec::new();
    let workloads = section("workloads", document.workloads, &mut errors, |entry| {
        let parsed = Workload::try_from(workload(entry)?).map_err(|e| e.to_string())?;
        Ok((parsed.uid.to_string(), parsed))
    });
    let services = section("services", document.services, &mut errors, |entry| {
        let parsed = Service::try_from(service(entry)?).map_err(|e| e.to_string())?;
        Ok((parsed.key.to_string(), parsed))
    });
    let policies = section("policies", document.policies, &mut errors, |entry| {
        let parsed = Authorization::try_from(policy(entry)?).map_err(|e| e.to_string())?;
        Ok((parsed.name.to_string(), parsed))
    });
    resources.extend(
        workloads
            .into_iter()
            .map(|w| Resource::Workload(Box::new(w))),
    );
    resources.extend(services.into_iter().map(|s| Resource::Service(Box::new(s))));
    if errors.is_empty() {
        Ok(Snapshot {
            resources,
            policies,
        })
    } else {
        Err(errors)
    }
}

fn section<E, T>(
    section: &str,
    entries: Vec<E>,
    errors: &mut Vec<EntryError>,
    parse: impl Fn(E) -> Result<(String, T), String>,
) -> Vec<T> {
    let mut names = HashSet::new();
    let mut parsed = Vec::with_capacity(entries.len());
    for (i, entry) in entries.into_iter().enumerate() {
        let outcome = parse(entry).and_then(|(name, value)| {
            let twice = format!("{name} is there twice");
            names.insert(name).then_some(value).ok_or(twice)
        });
        match outcome {
            Ok(value) => parsed.push(value),
            Err(reason) => {
                let entry = format!("{section}[{i}]");
                errors.push(EntryError { entry, reason });
            }
        }
    }
    parsed
}

fn workload(w: format::Workload) -> Result<proto::Workload, String> {
    let name = format!("workload {}", w.uid);
    let in_field = |field: &'static str| {
        let name = name.clone();
        move |reason: String| format!("{name}: {field}: {reason}")
    };
    Ok(proto::Workload {
        addresses: w.addresses.iter().map(bytes).collect(),
        tunnel_protocol: match w.tunnel_protocol {
            format::TunnelProtocol::None => proto::TunnelProtocol::None,
            format::TunnelProtocol::Hbone => proto::TunnelProtocol::Hbone,
        }
        .into(),
        waypoint: w
            .waypoint
            .map(gateway)
            .transpose()
            .map_err(in_field("waypoint"))?,
        network_gateway: w
            .network_gateway
            .map(gateway)
            .transpose()
            .map_err(in_field("networkGateway"))?,
        workload_type: match w.workload_type {
            format::WorkloadType::Deployment => proto::WorkloadType::Deployment,
            format::WorkloadType::Cronjob => proto::WorkloadType::Cronjob,
            format::WorkloadType::Pod => proto::WorkloadType::Pod,
            format::WorkloadType::Job => proto::WorkloadType::Job,
        }
        .into(),
        services: w
            .services
            .into_iter()
            .map(|(key, ports)| {
                (
                    key,
                    proto::PortList {
                        ports: ports.iter().map(port).collect(),
                    },
                )
            })
            .collect(),
        status: match w.status {
            format::Status::Healthy => proto::WorkloadStatus::Healthy,
            format::Status::Unhealthy => proto::WorkloadStatus::Unhealthy,
        }
        .into(),
        locality: Some(proto::Locality {
            region: w.locality.region,
            zone: w.locality.zone,
            subzone: w.locality.subzone,
        }),
        network_mode: match w.network_mode {
            format::NetworkMode::Standard => proto::NetworkMode::Standard,
            format::NetworkMode::HostNetwork => proto::NetworkMode::HostNetwork,
        }
        .into(),
        uid: w.uid,
        name: w.name,
        namespace: w.namespace,
        hostname: w.hostname,
        network: w.network,
        trust_domain: w.trust_domain,
        service_account: w.service_account,
        node: w.node,
        canonical_name: w.canonical_name,
        canonical_revision: w.canonical_revision,
        workload_name: w.workload_name,
        native_tunnel: w.native_tunnel,
        authorization_policies: w.authorization_policies,
        cluster_id: w.cluster_id,
        capacity: w.capacity,
        application_tunnel: None,
        extensions: Vec::new(),
    })
}

fn service(s: format::Service) -> Result<proto::Service, String> {
    let name = format!("service {}/{}", s.namespace, s.hostname);
    let mut addresses = Vec::with_capacity(s.addresses.len());
    for (i, text) in s.addresses.iter().enumerate() {
        addresses.push(
            network_address(text).map_err(|reason| format!("{name}: addresses[{i}]: {reason}"))?,
        );
    }
    let waypoint = s.waypoint.map(gateway).transpose();
    Ok(proto::Service {
        addresses,
        ports: s.ports.iter().map(port).collect(),
        waypoint: waypoint.map_err(|reason| format!("{name}: waypoint: {reason}"))?,
        load_balancing: s.load_balancing.map(load_balancing),
        ip_families: match s.ip_families {
            format::IpFamilies::Automatic => proto::IpFamilies::Automatic,
            format::IpFamilies::Ipv4Only => proto::IpFamilies::Ipv4Only,
            format::IpFamilies::Ipv6Only => proto::IpFamilies::Ipv6Only,
            format::IpFamilies::Dual => proto::IpFamilies::Dual,
        }
        .into(),
        visibility: match s.visibility {
            format::Visibility::Public => proto::service::Visibility::Public,
            format::Visibility::Namespace => proto::service::Visibility::Namespace,
        }
        .into(),
        name: s.name,
        namespace: s.namespace,
        hostname: s.hostname,
        subject_alt_names: s.subject_alt_names,
        canonical: s.canonical,
        ingress_use_waypoint: s.ingress_use_waypoint,
        weighted_waypoints: Vec::new(),
        extensions: Vec::new(),
    })
}

fn load_balancing(rules: format::LoadBalancing) -> proto::LoadBalancing {
    use proto::load_balancing::{HealthPolicy, Mode, Scope};
    let place = |place: &format::Place| match place {
        format::Place::Region => Scope::Region,
        format::Place::Zone => Scope::Zone,
        format::Place::Subzone => Scope::Subzone,
        format::Place::Node => Scope::Node,
        format::Place::Cluster => Scope::Cluster,
        format::Place::Network => Scope::Network,
    };
    proto::LoadBalancing {
        routing_preference: rules
            .routing_preference
            .iter()
            .map(|p| place(p).into())
            .collect(),
        mode: match rules.mode {
            format::Mode::UnspecifiedMode => Mode::UnspecifiedMode,
            format::Mode::Strict => Mode::Strict,
            format::Mode::Failover => Mode::Failover,
            format::Mode::Passthrough => Mode::Passthrough,
        }
        .into(),
        health_policy: match rules.health_policy {
            format::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            format::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        }
        .into(),
    }
}

fn port(port: &format::Port) -> proto::Port {
    proto::Port {
        service_port: port.service_port.into(),
        target_port: port.target_port.into(),
        app_protocol: match port.app_protocol {
            format::AppProtocol::Unknown => proto::AppProtocol::Unknown,
            format::AppProtocol::Http11 => proto::AppProtocol::Http11,
            format::AppProtocol::Http2 => proto::AppProtocol::Http2,
            format::AppProtocol::Grpc => proto::AppProtocol::Grpc,
            format::AppProtocol::Tcp => proto::AppProtocol::Tcp,
            format::AppProtocol::Tls => proto::AppProtocol::Tls,
        }
        .into(),
    }
}

fn gateway(gateway: format::Gateway) -> Result<proto::GatewayAddress, String> {
    use proto::gateway_address::Destination;
    let destination = match (gateway.hostname, gateway.address) {
        (Some(name), None) => {
            let (namespace, hostname) = name
                .split_once('/')
                .ok_or_else(|| format!("hostname {name:?}: expected namespace/hostname"))?;
            Destination::Hostname(proto::NamespacedHostname {
                namespace: namespace.to_owned(),
                hostname: hostname.to_owned(),
            })
        }
        (None, Some(text)) => Destination::Address(network_address(&text)?),
        _ => return Err("set either hostname or address".to_owned()),
    };
    Ok(proto::GatewayAddress {
        destination: Some(destination),
        hbone_mtls_port: gateway.hbone_mtls_port.into(),
    })
}

/// `ip`, `ip/prefix`, `network/ip` or `network/ip/prefix`.
fn network_address(text: &str) -> Result<proto::NetworkAddress, String> {
    let parse = |text: &str| match text.parse::<IpAddr>() {
        Ok(ip) => Some((ip, None)),
        Err(_) => {
            let block = text.parse::<IpNet>().ok()?;
            Some((block.addr(), Some(u32::from(block.prefix_len()))))
        }
    };
    let in_network = || {
        let (network, rest) = text.split_once('/')?;
        parse(rest).map(|found| (network, found))
    };
    let (network, (ip, length)) = parse(text)
        .map(|found| ("", found))
        .or_else(in_network)
        .ok_or_else(|| format!("{text:?} is no address: expected network/ip"))?;
    Ok(proto::NetworkAddress {
        network: network.to_owned(),
        address: bytes(&ip),
        length,
    })
}

fn policy(p: format::Policy) -> Result<security::Authorization, String> {
    let name = format!("policy {}/{}", p.namespace, p.name);
    let mut rules = Vec::with_capacity(p.rules.len());
    for (r, rule) in p.rules.into_iter().enumerate() {
        let mut clauses = Vec::with_capacity(rule.clauses.len());
        for (c, clause) in rule.clauses.into_iter().enumerate() {
            let mut matches = Vec::with_capacity(clause.matches.len());
            for (m, entry) in clause.matches.into_iter().enumerate() {
                let place =
                    |reason| format!("{name}: rules[{r}].clauses[{c}].matches[{m}].{reason}");
                matches.push(one_match(entry).map_err(place)?);
            }
            clauses.push(security::Clause { matches });
        }
        rules.push(security::Rule { clauses });
    }
    Ok(security::Authorization {
        rules,
        name: p.name,
        namespace: p.namespace,
        scope: match p.scope {
            format::PolicyScope::Global => security::Scope::Global,
            format::PolicyScope::Namespace => security::Scope::Namespace,
            format::PolicyScope::WorkloadSelector => security::Scope::WorkloadSelector,
        }
        .into(),
        action: match p.action {
            format::Action::Allow => security::Action::Allow,
            format::Action::Deny => security::Action::Deny,
        }
        .into(),
        dry_run: p.dry_run,
        extensions: Vec::new(),
    })
}

fn one_match(m: format::Match) -> Result<security::Match, String> {
    Ok(security::Match {
        namespaces: texts(m.namespaces),
        not_namespaces: texts(m.not_namespaces),
        principals: texts(m.principals),
        not_principals: texts(m.not_principals),
        service_accounts: accounts(m.service_accounts),
        not_service_accounts: accounts(m.not_service_accounts),
        source_ips: blocks("sourceIps", &m.source_ips)?,
        not_source_ips: blocks("notSourceIps", &m.not_source_ips)?,
        destination_ips: blocks("destinationIps", &m.destination_ips)?,
        not_destination_ips: blocks("notDestinationIps", &m.not_destination_ips)?,
        destination_ports: m.destination_ports.into_iter().map(u32::from).collect(),
        not_destination_ports: m.not_destination_ports.into_iter().map(u32::from).collect(),
        extensions: Vec::new(),
    })
}

/// The notation of `AuthorizationPolicy`: `abc`, `abc*`, `*abc`, `*`.
fn texts(values: Vec<String>) -> Vec<security::StringMatch> {
    use security::string_match::MatchType;
    let compare = |value: String| {
        let kind = if value == "*" {
            MatchType::Presence(())
        } else if let Some(suffix) = value.strip_prefix('*') {
            MatchType::Suffix(suffix.to_owned())
        } else if let Some(prefix) = value.strip_suffix('*') {
            MatchType::Prefix(prefix.to_owned())
        } else {
            MatchType::Exact(value)
        };
        security::StringMatch {
            match_type: Some(kind),
        }
    };
    values.into_iter().map(compare).collect()
}

fn accounts(values: Vec<format::ServiceAccount>) -> Vec<security::ServiceAccountMatch> {
    values
        .into_iter()
        .map(|account| security::ServiceAccountMatch {
            namespace: account.namespace,
            service_account: account.service_account,
        })
        .collect()
}

fn blocks(field: &str, values: &[String]) -> Result<Vec<security::Address>, String> {
    let block = |(i, text): (usize, &String)| {
        let block = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| format!("{field}[{i}]: {text:?} is neither an address nor a block"))?;
        Ok(security::Address {
            address: bytes(&block.addr()),
            length: block.prefix_len().into(),
        })
    };
    values.iter().enumerate().map(block).collect()
}

fn bytes(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
