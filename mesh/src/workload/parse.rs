//! From `istio.workload` messages to the model. Whatever passes here is complete and consistent;
//! what doesn't is refused with the resource, the field and the likely cause. The rules are those
//! of Istio's ztunnel where it has any, except that nothing is dropped or truncated in silence.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::refusal::{Invalid, Refusal, block, ip, known, port, refuse, required};
use super::{
    AppProtocol, ApplicationProtocol, ApplicationTunnel, GatewayAddress, GatewayTarget, HBONE_PORT,
    Health, HealthPolicy, IpFamilies, LoadBalancing, Locality, Mode, NetworkMode, PortMapping,
    Scope, Service, ServiceKey, TunnelProtocol, Uid, Vip, Visibility, WeightedGateway, Workload,
    WorkloadKind, labels,
};
use crate::address::{Network, NetworkIp};
use crate::identity::{Identity, TrustDomain};
use crate::policy::PolicyName;
use crate::proto::workload as proto;

/// What an empty trust domain on the wire stands for (istiod leaves out exactly this one).
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// What an empty service account on the wire stands for.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// What an `istio.workload.Address` turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A workload.
    Workload(Box<Workload>),
    /// A service.
    Service(Box<Service>),
}

/// Parses one resource of type `istio.workload.Address`.
///
/// # Errors
/// [`Invalid`] names the first field that can't be understood.
pub fn address(message: proto::Address) -> Result<Resource, Invalid> {
    match message.r#type {
        Some(proto::address::Type::Workload(workload)) => {
            Workload::try_from(workload).map(|workload| Resource::Workload(Box::new(workload)))
        }
        Some(proto::address::Type::Service(service)) => {
            Service::try_from(service).map(|service| Resource::Service(Box::new(service)))
        }
        None => Err(Invalid {
            resource: "address".to_owned(),
            field: "type".to_owned(),
            reason: "neither a workload nor a service: the control plane is probably newer than \
                     this proxy"
                .to_owned(),
        }),
    }
}

impl TryFrom<proto::Workload> for Workload {
    type Error = Invalid;

    fn try_from(message: proto::Workload) -> Result<Self, Invalid> {
        let name = if message.uid.is_empty() {
            format!(
                "workload {}/{} without uid",
                message.namespace, message.name
            )
        } else {
            format!("workload {}", message.uid)
        };
        workload(message).map_err(|refusal| refusal.of(name))
    }
}

impl TryFrom<proto::Service> for Service {
    type Error = Invalid;

    fn try_from(message: proto::Service) -> Result<Self, Invalid> {
        let name = format!("service {}/{}", message.namespace, message.hostname);
        service(message).map_err(|refusal| refusal.of(name))
    }
}

fn workload(m: proto::Workload) -> Result<Workload, Refusal> {
    let uid = Uid::new(required("uid", &m.uid)?);
    let trust_domain = or_default(&m.trust_domain, DEFAULT_TRUST_DOMAIN);
    let trust_domain = TrustDomain::new(trust_domain).map_err(|e| refuse("trust_domain", e))?;
    let account = or_default(&m.service_account, DEFAULT_SERVICE_ACCOUNT);
    let namespace = required("namespace", &m.namespace)?;
    let identity = Identity::new(&trust_domain, namespace, account)
        .map_err(|e| refuse("namespace and service_account", e))?;
    let mut addresses = Vec::with_capacity(m.addresses.len());
    for (i, bytes) in m.addresses.iter().enumerate() {
        let ip = ip(bytes).map_err(|e| refuse(format!("addresses[{i}]"), e))?;
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    let mut services = BTreeMap::new();
    for (key, list) in &m.services {
        let field = || format!("services[{key:?}]");
        let (namespace, hostname) = key
            .split_once('/')
            .filter(|(namespace, hostname)| !namespace.is_empty() && !hostname.is_empty())
            .ok_or_else(|| refuse(field(), "expected a key namespace/hostname"))?;
        let ports = ports(&list.ports).map_err(|e| e.within(field()))?;
        services.insert(ServiceKey::new(namespace, hostname), ports);
    }
    let mut policies = Vec::with_capacity(m.authorization_policies.len());
    for (i, name) in m.authorization_policies.iter().enumerate() {
        let name = name
            .parse::<PolicyName>()
            .map_err(|e| refuse(format!("authorization_policies[{i}]"), e))?;
        policies.push(name);
    }
    Ok(Workload {
        identity,
        addresses,
        services,
        policies,
        hostname: Some(m.hostname).filter(|h| !h.is_empty()).map(Into::into),
        network: Network::new(&m.network),
        tunnel: tunnel(m.tunnel_protocol)?,
        waypoint: gateway("waypoint", m.waypoint)?,
        network_gateway: gateway("network_gateway", m.network_gateway)?,
        kind: kind(m.workload_type)?,
        native_tunnel: m.native_tunnel,
        application_tunnel: application_tunnel(m.application_tunnel)?,
        health: match known("status", m.status)? {
            proto::WorkloadStatus::Healthy => Health::Healthy,
            proto::WorkloadStatus::Unhealthy => Health::Unhealthy,
        },
        locality: locality(m.locality.unwrap_or_default()),
        network_mode: match known("network_mode", m.network_mode)? {
            proto::NetworkMode::Standard => NetworkMode::Standard,
            proto::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
        },
        capacity: m.capacity.unwrap_or(1),
        labels: labels::read(m.extensions)?,
        uid,
        namespace: m.namespace.into(),
        name: m.name.into(),
        node: m.node.into(),
        canonical_name: m.canonical_name.into(),
        canonical_revision: m.canonical_revision.into(),
        workload_name: m.workload_name.into(),
        cluster: m.cluster_id.into(),
    })
}

fn service(m: proto::Service) -> Result<Service, Refusal> {
    let namespace = required("namespace", &m.namespace)?;
    let key = ServiceKey::new(namespace, required("hostname", &m.hostname)?);
    let mut vips = Vec::with_capacity(m.addresses.len());
    for (i, address) in m.addresses.iter().enumerate() {
        vips.push(vip(address).map_err(|e| refuse(format!("addresses[{i}]"), e))?);
    }
    let mut weighted_waypoints = Vec::with_capacity(m.weighted_waypoints.len());
    for (i, weighted) in m.weighted_waypoints.into_iter().enumerate() {
        let field = format!("weighted_waypoints[{i}].destination");
        let gateway = gateway(&field, weighted.destination)?
            .ok_or_else(|| refuse(field, "missing: a weight needs a waypoint"))?;
        let weight = weighted.weight;
        weighted_waypoints.push(WeightedGateway { gateway, weight });
    }
    Ok(Service {
        key,
        vips,
        weighted_waypoints,
        ports: ports(&m.ports)?,
        // Names that are no mesh identity are for TLS to the outside and prove nothing here;
        // leaving them out only makes the check stricter.
        subject_alt_names: m
            .subject_alt_names
            .iter()
            .filter_map(|san| san.parse().ok())
            .collect(),
        waypoint: gateway("waypoint", m.waypoint)?,
        load_balancing: load_balancing(m.load_balancing)?,
        ip_families: match known("ip_families", m.ip_families)? {
            proto::IpFamilies::Automatic => IpFamilies::Automatic,
            proto::IpFamilies::Ipv4Only => IpFamilies::Ipv4Only,
            proto::IpFamilies::Ipv6Only => IpFamilies::Ipv6Only,
            proto::IpFamilies::Dual => IpFamilies::Dual,
        },
        canonical: m.canonical,
        ingress_use_waypoint: m.ingress_use_waypoint,
        visibility: match known("visibility", m.visibility)? {
            proto::service::Visibility::Public => Visibility::Public,
            proto::service::Visibility::Namespace => Visibility::Namespace,
        },
        name: m.name.into(),
    })
}

fn tunnel(value: i32) -> Result<TunnelProtocol, Refusal> {
    Ok(match known("tunnel_protocol", value)? {
        proto::TunnelProtocol::Hbone => TunnelProtocol::Hbone,
        // A sidecar's own mutual TLS can't be spoken from outside it: plain, as in Istio.
        proto::TunnelProtocol::None | proto::TunnelProtocol::LegacyIstioMtls => {
            TunnelProtocol::None
        }
    })
}

fn kind(value: i32) -> Result<WorkloadKind, Refusal> {
    Ok(match known("workload_type", value)? {
        proto::WorkloadType::Deployment => WorkloadKind::Deployment,
        proto::WorkloadType::Cronjob => WorkloadKind::CronJob,
        proto::WorkloadType::Pod => WorkloadKind::Pod,
        proto::WorkloadType::Job => WorkloadKind::Job,
    })
}

fn application_tunnel(
    message: Option<proto::ApplicationTunnel>,
) -> Result<Option<ApplicationTunnel>, Refusal> {
    let Some(message) = message else {
        return Ok(None);
    };
    let protocol = match known("application_tunnel.protocol", message.protocol)? {
        proto::application_tunnel::Protocol::None => ApplicationProtocol::None,
        proto::application_tunnel::Protocol::Proxy => ApplicationProtocol::Proxy,
    };
    let port = port("application_tunnel.port", message.port)?;
    let port = Some(port).filter(|port| *port != 0);
    Ok(Some(ApplicationTunnel { protocol, port }))
}

fn locality(message: proto::Locality) -> Locality {
    Locality {
        region: message.region.into(),
        zone: message.zone.into(),
        subzone: message.subzone.into(),
    }
}

fn load_balancing(message: Option<proto::LoadBalancing>) -> Result<LoadBalancing, Refusal> {
    use proto::load_balancing as lb;
    let message = message.unwrap_or_default();
    let mut preference = Vec::with_capacity(message.routing_preference.len());
    for (i, scope) in message.routing_preference.iter().enumerate() {
        let field = format!("load_balancing.routing_preference[{i}]");
        preference.push(match known(&field, *scope)? {
            lb::Scope::UnspecifiedScope => return Err(refuse(field, "no scope is named")),
            lb::Scope::Region => Scope::Region,
            lb::Scope::Zone => Scope::Zone,
            lb::Scope::Subzone => Scope::Subzone,
            lb::Scope::Node => Scope::Node,
            lb::Scope::Cluster => Scope::Cluster,
            lb::Scope::Network => Scope::Network,
        });
    }
    let mode = match known("load_balancing.mode", message.mode)? {
        lb::Mode::UnspecifiedMode => Mode::Any,
        lb::Mode::Strict => Mode::Strict,
        lb::Mode::Failover => Mode::Failover,
        lb::Mode::Passthrough => Mode::Passthrough,
    };
    let health = match known("load_balancing.health_policy", message.health_policy)? {
        lb::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
        lb::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
    };
    Ok(LoadBalancing {
        preference,
        mode,
        health,
    })
}

fn gateway(
    field: &str,
    message: Option<proto::GatewayAddress>,
) -> Result<Option<GatewayAddress>, Refusal> {
    use proto::gateway_address::Destination;
    let Some(message) = message else {
        return Ok(None);
    };
    let target = match message.destination {
        Some(Destination::Hostname(name)) => {
            if name.hostname.is_empty() {
                return Err(refuse(format!("{field}.hostname"), "empty"));
            }
            GatewayTarget::Hostname(ServiceKey::new(&name.namespace, &name.hostname))
        }
        Some(Destination::Address(address)) => {
            let ip = ip(&address.address).map_err(|e| refuse(format!("{field}.address"), e))?;
            GatewayTarget::Address(NetworkIp::new(Network::new(&address.network), ip))
        }
        None => return Err(refuse(field, "neither a hostname nor an address")),
    };
    let hbone_port = match port(&format!("{field}.hbone_mtls_port"), message.hbone_mtls_port)? {
        0 => HBONE_PORT,
        port => port,
    };
    Ok(Some(GatewayAddress { target, hbone_port }))
}

fn ports(list: &[proto::Port]) -> Result<Vec<PortMapping>, Refusal> {
    let mut ports: Vec<PortMapping> = Vec::with_capacity(list.len());
    for (i, message) in list.iter().enumerate() {
        let field = format!("ports[{i}].service_port");
        let service_port = port(&field, message.service_port)?;
        if service_port == 0 {
            return Err(refuse(field, "0 is no port that can be called"));
        }
        let target_port = port(&format!("ports[{i}].target_port"), message.target_port)?;
        // A port listed twice: the later one counts, as in Istio's map.
        ports.retain(|earlier| earlier.service_port != service_port);
        ports.push(PortMapping {
            service_port,
            target_port,
            app_protocol: app_protocol(message.app_protocol),
        });
    }
    Ok(ports)
}

/// A hint only, so an unknown one is as good as none.
fn app_protocol(value: i32) -> AppProtocol {
    match proto::AppProtocol::try_from(value) {
        Ok(proto::AppProtocol::Unknown) | Err(_) => AppProtocol::Unknown,
        Ok(proto::AppProtocol::Http11) => AppProtocol::Http11,
        Ok(proto::AppProtocol::Http2) => AppProtocol::Http2,
        Ok(proto::AppProtocol::Grpc) => AppProtocol::Grpc,
        Ok(proto::AppProtocol::Tcp) => AppProtocol::Tcp,
        Ok(proto::AppProtocol::Tls) => AppProtocol::Tls,
    }
}

fn vip(message: &proto::NetworkAddress) -> Result<Vip, String> {
    let block = match message.length {
        None => IpNet::from(ip(&message.address)?),
        Some(length) => block(&message.address, length)?,
    };
    let network = Network::new(&message.network);
    Ok(Vip { network, block })
}

fn or_default<'a>(value: &'a str, default: &'a str) -> &'a str {
    if value.is_empty() { default } else { value }
}
