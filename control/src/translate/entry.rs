//! The endpoints of a ServiceEntry → `istio.workload.Workload`, and what of an entry goes into its
//! services. (istio/istio, `serviceEntryWorkloadBuilder` in `pilot/pkg/serviceregistry/ambient`)

use std::net::IpAddr;

use mesh::proto::workload::service::Visibility;
use mesh::proto::workload::{
    GatewayAddress, Locality, NetworkAddress, Port, PortList, TunnelProtocol, Workload,
    WorkloadStatus, WorkloadType,
};

use super::workload::{CANONICAL_NAME, CANONICAL_REVISION, label};
use super::{Mesh, octets};
use crate::objects::pod::Tunnel;
use crate::objects::service::EntryOf;
use crate::objects::service_entry::{Endpoint, ServiceEntry};

/// What of the cluster an entry's workloads are made from.
#[derive(Default)]
pub struct Context {
    /// The hosts that the entry stands for: those that no older entry of its namespace claims.
    pub hosts: Vec<String>,
    /// The policies that select it, as `namespace/name`.
    pub policies: Vec<String>,
    /// By endpoint: the waypoint of what is sent to its own address.
    pub waypoints: Vec<Option<GatewayAddress>>,
}

/// Its workloads: one for each endpoint, or where names are resolved and there is none, one for each
/// host.
#[must_use]
pub fn workloads(mesh: &Mesh, of: &EntryOf, context: &Context) -> Vec<Workload> {
    let spec = &of.entry.spec;
    if context.hosts.is_empty() {
        return Vec::new();
    }
    if spec.endpoints.is_empty() {
        if !spec.resolution.by_name() || spec.workload_selector.is_some() {
            return Vec::new();
        }
        let named = |host: &String| Endpoint {
            address: host.clone(),
            ..Endpoint::default()
        };
        let made = context.hosts.iter().map(|host| {
            workload(
                mesh,
                of,
                &named(host),
                std::slice::from_ref(host),
                context,
                None,
            )
        });
        return made.collect();
    }
    let waypoints = context
        .waypoints
        .iter()
        .cloned()
        .chain(std::iter::repeat(None));
    let made = spec
        .endpoints
        .iter()
        .zip(waypoints)
        .map(|(endpoint, waypoint)| {
            workload(mesh, of, endpoint, &context.hosts, context, waypoint)
        });
    made.collect()
}

fn workload(
    mesh: &Mesh,
    of: &EntryOf,
    endpoint: &Endpoint,
    hosts: &[String],
    context: &Context,
    waypoint: Option<GatewayAddress>,
) -> Workload {
    let (entry, object) = (&of.entry, &of.object);
    let address: Option<IpAddr> = endpoint.address.parse().ok();
    let ports = entry.spec.ports.iter().map(|port| Port {
        service_port: port.number,
        target_port: u32::from(endpoint.port(port)),
        app_protocol: 0,
    });
    let ports = PortList {
        ports: ports.collect(),
    };
    let services = hosts
        .iter()
        .map(|host| (format!("{}/{host}", object.namespace), ports.clone()));
    let (region, zone, subzone) = endpoint.place();
    Workload {
        uid: format!(
            "{}/networking.istio.io/ServiceEntry/{}/{}/{}",
            mesh.cluster, object.namespace, object.name, endpoint.address
        ),
        name: object.name.to_string(),
        namespace: object.namespace.to_string(),
        addresses: address.map(octets).into_iter().collect(),
        hostname: if address.is_some() {
            String::new()
        } else {
            endpoint.address.clone()
        },
        network: if endpoint.network.is_empty() {
            mesh.network.clone()
        } else {
            endpoint.network.clone()
        },
        tunnel_protocol: match entry.tunnel {
            Tunnel::None => TunnelProtocol::None,
            Tunnel::Captured | Tunnel::Native => TunnelProtocol::Hbone,
        }
        .into(),
        native_tunnel: entry.tunnel == Tunnel::Native,
        trust_domain: mesh.wire_trust_domain(),
        service_account: endpoint.service_account.clone(),
        canonical_name: label(&entry.labels, &CANONICAL_NAME)
            .unwrap_or(&object.name)
            .to_owned(),
        canonical_revision: label(&entry.labels, &CANONICAL_REVISION)
            .unwrap_or("latest")
            .to_owned(),
        workload_type: WorkloadType::Pod.into(),
        workload_name: object.name.to_string(),
        authorization_policies: context.policies.clone(),
        waypoint,
        status: WorkloadStatus::Healthy.into(),
        cluster_id: mesh.cluster.clone(),
        services: services.collect(),
        locality: (!endpoint.locality.is_empty()).then_some(Locality {
            region,
            zone,
            subzone,
        }),
        capacity: (endpoint.weight > 0).then_some(endpoint.weight),
        ..Workload::default()
    }
}

/// The blocks among its addresses; single ones are the service's.
pub(super) fn blocks(mesh: &Mesh, entry: &ServiceEntry) -> impl Iterator<Item = NetworkAddress> {
    let blocks = entry
        .spec
        .blocks()
        .filter(|block| block.prefix_len() < block.max_prefix_len());
    blocks.map(|block| NetworkAddress {
        network: mesh.network.clone(),
        address: octets(block.network()),
        length: Some(u32::from(block.prefix_len())),
    })
}

/// An entry that is exported to nobody else is known in its own namespace only. What is exported to
/// some namespaces is told to all: the protocol has no word for it. istiod tells all of every entry.
pub(super) fn visibility(entry: &ServiceEntry) -> Visibility {
    let to = &entry.spec.export_to;
    if !to.is_empty() && to.iter().all(|to| matches!(to.as_str(), "." | "~")) {
        Visibility::Namespace
    } else {
        Visibility::Public
    }
}
