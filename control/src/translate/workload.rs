//! Pod, or bare address of an EndpointSlice → `istio.workload.Workload`.

use mesh::proto::workload::{
    GatewayAddress, Locality, NetworkMode, Port, PortList, TunnelProtocol, Workload,
    WorkloadStatus, WorkloadType,
};

use super::{Mesh, octets};
use crate::objects::endpoint_slice::BareEndpoint;
use crate::objects::pod::{OwnerKind, Tunnel};
use crate::objects::{EndpointSlice, Key, Labels, Node, Pod, Service, workload_entry};

/// Labels that name the canonical service, strongest first; then the workload's name.
pub(crate) const CANONICAL_NAME: [&str; 3] = [
    "service.istio.io/canonical-name",
    "app.kubernetes.io/name",
    "app",
];
/// Labels that name the canonical revision, strongest first; then `latest`.
pub(crate) const CANONICAL_REVISION: [&str; 3] = [
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
];

/// What of the cluster a pod's workload is made from.
pub struct Context<'a> {
    /// Its node, when it is known yet.
    pub node: Option<&'a Node>,
    /// The services that it is an endpoint of.
    pub services: Vec<&'a Service>,
    /// Where what is sent to its own addresses has to go, if it has a waypoint.
    pub waypoint: Option<GatewayAddress>,
    /// The policies that select it, as `namespace/name`.
    pub policies: Vec<String>,
}

/// The names under which a pod's workload appears in telemetry: canonical name and revision.
#[must_use]
pub fn canonical(pod: &Pod) -> (&str, &str) {
    let name = label(&pod.labels, &CANONICAL_NAME).unwrap_or(&pod.owner.name);
    (
        name,
        label(&pod.labels, &CANONICAL_REVISION).unwrap_or("latest"),
    )
}

/// The UID of a pod, or of a WorkloadEntry, in the workload protocol.
#[must_use]
pub fn pod_uid(mesh: &Mesh, pod: &Key) -> String {
    match workload_entry::name_of(pod) {
        Some(entry) => format!(
            "{}/networking.istio.io/WorkloadEntry/{}/{entry}",
            mesh.cluster, pod.namespace
        ),
        None => format!("{}//Pod/{}/{}", mesh.cluster, pod.namespace, pod.name),
    }
}

/// The pod as node proxies learn it; `None` while it has no address.
#[must_use]
pub fn pod(mesh: &Mesh, pod: &Pod, context: &Context<'_>) -> Option<Workload> {
    if pod.addresses.is_empty() {
        return None;
    }
    let services = context.services.iter().map(|service| {
        let hostname = mesh.host_of(&service.key);
        (
            format!("{}/{hostname}", service.key.namespace),
            pod_ports(pod, service),
        )
    });
    let revision = label(&pod.labels, &CANONICAL_REVISION).unwrap_or("latest");
    let entry = pod.entry.as_deref();
    let network = entry
        .map(|entry| &entry.network)
        .filter(|network| !network.is_empty());
    Some(Workload {
        uid: pod_uid(mesh, &pod.key),
        name: workload_entry::name_of(&pod.key)
            .unwrap_or(&pod.key.name)
            .to_owned(),
        namespace: pod.key.namespace.to_string(),
        addresses: pod
            .addresses
            .iter()
            .map(|address| octets(*address))
            .collect(),
        network: network.unwrap_or(&mesh.network).clone(),
        tunnel_protocol: match pod.tunnel {
            Tunnel::None => TunnelProtocol::None,
            Tunnel::Captured | Tunnel::Native => TunnelProtocol::Hbone,
        }
        .into(),
        native_tunnel: pod.tunnel == Tunnel::Native,
        trust_domain: mesh.wire_trust_domain(),
        service_account: pod.service_account.to_string(),
        node: pod.node.to_string(),
        canonical_name: label(&pod.labels, &CANONICAL_NAME)
            .unwrap_or(&pod.owner.name)
            .to_owned(),
        canonical_revision: revision.to_owned(),
        waypoint: context.waypoint.clone(),
        // istiod always says POD here, for old node proxies; the protocol has the real kinds, and
        // the baggage header is better for them. On the list of accepted differences.
        workload_type: match pod.owner.kind {
            OwnerKind::Deployment => WorkloadType::Deployment,
            OwnerKind::CronJob => WorkloadType::Cronjob,
            OwnerKind::Pod => WorkloadType::Pod,
            OwnerKind::Job => WorkloadType::Job,
        }
        .into(),
        workload_name: pod.owner.name.to_string(),
        authorization_policies: context.policies.clone(),
        status: if pod.ready {
            WorkloadStatus::Healthy
        } else {
            WorkloadStatus::Unhealthy
        }
        .into(),
        cluster_id: mesh.cluster.clone(),
        services: services.collect(),
        locality: match entry {
            Some(entry) => locality(&entry.place),
            None => context.node.and_then(|node| {
                locality(&(node.region.clone(), node.zone.clone(), node.subzone.clone()))
            }),
        },
        capacity: entry.map(|entry| entry.weight).filter(|weight| *weight > 0),
        network_mode: if pod.host_network {
            NetworkMode::HostNetwork
        } else {
            NetworkMode::Standard
        }
        .into(),
        ..Workload::default()
    })
}

/// A bare address as node proxies learn it. Nothing is known of who answers there, so it is taken
/// as shared with others, like a host's address: never a target of HBONE, never a source.
#[must_use]
pub fn bare_endpoint(
    mesh: &Mesh,
    slice: &EndpointSlice,
    endpoint: &BareEndpoint,
    service: &Service,
) -> Workload {
    let hostname = mesh.hostname(&service.key.name, &service.key.namespace);
    let ports = slice.ports.iter().filter_map(|(name, target)| {
        let port = service.ports.iter().find(|port| port.name == *name)?;
        Some(Port {
            service_port: u32::from(port.port),
            target_port: u32::from(*target),
            app_protocol: 0,
        })
    });
    let services = [(
        format!("{}/{hostname}", service.key.namespace),
        PortList {
            ports: ports.collect(),
        },
    )];
    Workload {
        uid: format!(
            "{}/discovery.k8s.io/EndpointSlice/{}/{}/{}",
            mesh.cluster, slice.key.namespace, slice.key.name, endpoint.address
        ),
        name: slice.key.name.to_string(),
        namespace: slice.key.namespace.to_string(),
        addresses: vec![octets(endpoint.address)],
        network: mesh.network.clone(),
        trust_domain: mesh.wire_trust_domain(),
        services: services.into_iter().collect(),
        status: if endpoint.ready {
            WorkloadStatus::Healthy
        } else {
            WorkloadStatus::Unhealthy
        }
        .into(),
        cluster_id: mesh.cluster.clone(),
        network_mode: NetworkMode::HostNetwork.into(),
        ..Workload::default()
    }
}

/// The pod's own numbers of a service's ports. A port whose name the pod does not have is left
/// out: the pod is no endpoint for that port.
fn pod_ports(pod: &Pod, service: &Service) -> PortList {
    let ports = service.ports.iter().filter_map(|port| {
        Some(Port {
            service_port: u32::from(port.port),
            target_port: u32::from(port.target.of(pod)?),
            app_protocol: 0,
        })
    });
    PortList {
        ports: ports.collect(),
    }
}

pub(crate) fn label<'a>(labels: &'a Labels, names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| labels.get(*name))
        .map(String::as_str)
}

fn locality((region, zone, subzone): &(String, String, String)) -> Option<Locality> {
    let known = !(region.is_empty() && zone.is_empty() && subzone.is_empty());
    known.then(|| Locality {
        region: region.clone(),
        zone: zone.clone(),
        subzone: subzone.clone(),
    })
}

#[cfg(test)]
mod tests;
