//! What a CONNECT asks for, against what this pod is: only the pod itself can be asked for, by one
//! of its addresses or by a service that it backs.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::address::canonical;
use mesh::hbone::Destination;
use mesh::workload::{Service, Workload};
use mesh::world::World;

/// Ports of this proxy in the pod, which no tunnel may lead to.
const OWN_PORTS: [u16; 3] = [15001, 15006, 15008];

/// Why a request is not for this pod; answered with 400.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refused {
    /// It asks for another address.
    #[error(
        "{0} is not an address of workload {1}: the client's data is stale, or it claims another pod's address"
    )]
    OtherAddress(SocketAddr, String),
    /// It asks for a name that this pod does not stand behind.
    #[error("workload {1} backs no service {0}")]
    OtherService(String, String),
    /// It asks for this proxy.
    #[error("port {0} of the pod is the proxy's own")]
    OwnPort(u16),
}

/// The application's address that a request is for. `at` is the pod's address that the tunnel came
/// to.
pub(super) fn resolve(
    world: &World,
    own: &Workload,
    asked: &Destination,
    at: SocketAddr,
) -> Result<SocketAddr, Refused> {
    let to = match asked {
        Destination::Address(address) => canonical(*address),
        Destination::Name { name, port } => {
            let target = by_name(world, own, name, *port);
            let port = target
                .ok_or_else(|| Refused::OtherService(asked.to_string(), own.uid.to_string()))?;
            SocketAddr::new(at.ip(), port)
        }
    };
    if !own.owns(to.ip()) {
        return Err(Refused::OtherAddress(to, own.uid.to_string()));
    }
    if OWN_PORTS.contains(&to.port()) {
        return Err(Refused::OwnPort(to.port()));
    }
    Ok(to)
}

/// The pod's port behind a port of a service by host name.
fn by_name(world: &World, own: &Workload, name: &str, port: u16) -> Option<u16> {
    let service = world.service_named(name, &own.namespace)?;
    let ports = own.services.get(&service.key)?;
    let mapping = ports.iter().find(|mapping| mapping.service_port == port);
    let own_port = mapping
        .map(|mapping| mapping.target_port)
        .filter(|port| *port != 0);
    own_port.or_else(|| service.target_port(port).filter(|port| *port != 0))
}

/// The service that a connection to a port of this pod most likely called, for telemetry.
pub(super) fn service(world: &World, own: &Workload, port: u16) -> Option<Arc<Service>> {
    let serves = own
        .services
        .iter()
        .find(|(_, ports)| ports.iter().any(|mapping| mapping.target_port == port));
    serves.and_then(|(key, _)| world.service(key)).cloned()
}

#[cfg(test)]
mod tests;
