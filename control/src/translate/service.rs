//! Service → `istio.workload.Service`.

use mesh::proto::workload::load_balancing::{HealthPolicy, Mode, Scope};
use mesh::proto::workload::service::Visibility;
use mesh::proto::workload::{
    GatewayAddress, IpFamilies, LoadBalancing, NetworkAddress, Port, Service as WireService,
};

use super::protocol::app_protocol;
use super::{Mesh, entry, octets};
use crate::objects::service::{EntryOf, Families, TargetPort};
use crate::objects::service_entry::Resolution;
use crate::objects::{Namespace, Service};

/// What of the cluster a service is made from.
#[derive(Clone, Debug, Default)]
pub struct Context<'a> {
    /// The namespace it is in, when it is known yet.
    pub namespace: Option<&'a Namespace>,
    /// Where what is sent to it has to go, if it has a waypoint.
    pub waypoint: Option<GatewayAddress>,
    /// Whether ingress gateways go there too.
    pub ingress_use_waypoint: bool,
    /// Whether its host name stands for another in other namespaces: Kubernetes' own service, which
    /// nobody can shadow, or an older entry.
    pub shadowed: bool,
}

/// The service as node proxies learn it.
#[must_use]
pub fn service(mesh: &Mesh, service: &Service, context: &Context<'_>) -> WireService {
    let single = service.addresses.iter().map(|address| NetworkAddress {
        network: mesh.network.clone(),
        address: octets(*address),
        length: None,
    });
    let entry = service.entry.as_ref();
    let blocks = entry
        .into_iter()
        .flat_map(|of| entry::blocks(mesh, &of.entry));
    let ports = service.ports.iter().map(|port| Port {
        service_port: u32::from(port.port),
        // Zero says that it has a name: each workload carries its own number.
        target_port: match &port.target {
            TargetPort::Number(number) | TargetPort::NameOr(_, number) => u32::from(*number),
            TargetPort::Name(_) => 0,
        },
        app_protocol: app_protocol(port).into(),
    });
    WireService {
        name: entry.map_or(&service.key, |of| &of.object).name.to_string(),
        namespace: service.key.namespace.to_string(),
        hostname: mesh.host_of(&service.key),
        addresses: single.chain(blocks).collect(),
        ports: ports.collect(),
        load_balancing: load_balancing(service, context.namespace),
        ip_families: match service.families {
            Families::Unknown => IpFamilies::Automatic,
            Families::V4 => IpFamilies::Ipv4Only,
            Families::V6 => IpFamilies::Ipv6Only,
            Families::Dual => IpFamilies::Dual,
        }
        .into(),
        canonical: !context.shadowed,
        subject_alt_names: entry
            .map(|of| of.entry.spec.subject_alt_names.clone())
            .unwrap_or_default(),
        visibility: entry
            .map_or(Visibility::Public, |of| entry::visibility(&of.entry))
            .into(),
        waypoint: context.waypoint.clone(),
        ingress_use_waypoint: context.ingress_use_waypoint,
        ..WireService::default()
    }
}

/// `internalTrafficPolicy: Local` is a hard limit; a traffic distribution is a preference.
fn load_balancing(service: &Service, namespace: Option<&Namespace>) -> Option<LoadBalancing> {
    let passes = |of: &EntryOf| of.entry.spec.resolution == Resolution::None;
    if service.entry.as_ref().is_some_and(passes) {
        return Some(LoadBalancing {
            routing_preference: Vec::new(),
            mode: Mode::Passthrough.into(),
            health_policy: HealthPolicy::AllowAll.into(),
        });
    }
    let nearest_zone = [Scope::Network, Scope::Region, Scope::Zone].as_slice();
    let nearest_node = [
        Scope::Network,
        Scope::Region,
        Scope::Zone,
        Scope::Subzone,
        Scope::Node,
    ]
    .as_slice();
    let (mode, scopes) = if service.local {
        (Mode::Strict, [Scope::Node].as_slice())
    } else {
        match distribution(service, namespace) {
            Distribution::Any => (Mode::UnspecifiedMode, [].as_slice()),
            Distribution::Zone => (Mode::Failover, nearest_zone),
            Distribution::Node => (Mode::Failover, nearest_node),
        }
    };
    let health = if service.publish_not_ready {
        HealthPolicy::AllowAll
    } else {
        HealthPolicy::OnlyHealthy
    };
    if mode == Mode::UnspecifiedMode && health == HealthPolicy::OnlyHealthy {
        return None;
    }
    Some(LoadBalancing {
        routing_preference: scopes.iter().map(|scope| i32::from(*scope)).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}

#[derive(Clone, Copy)]
enum Distribution {
    Any,
    Zone,
    Node,
}

/// The field decides; then the service's annotation; then its namespace's.
fn distribution(service: &Service, namespace: Option<&Namespace>) -> Distribution {
    match service.distribution.as_deref() {
        Some("PreferSameZone" | "PreferClose") => return Distribution::Zone,
        Some("PreferSameNode") => return Distribution::Node,
        _ => {}
    }
    let inherited = || namespace.and_then(|namespace| namespace.traffic_distribution.as_deref());
    let own = service
        .distribution_annotation
        .as_deref()
        .filter(|text| !text.is_empty());
    match own
        .or_else(inherited)
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("preferclose" | "prefersamezone") => Distribution::Zone,
        Some("prefersamenode") => Distribution::Node,
        _ => Distribution::Any,
    }
}

#[cfg(test)]
mod tests;
