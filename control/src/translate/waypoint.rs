//! Which waypoint serves whom, and how it is named on the wire.
//!
//! As istiod does it (`pilot/pkg/serviceregistry/ambient/waypoints.go`): an object's own label
//! counts, then its namespace's; a waypoint without an address, one that does not let the namespace
//! in, or one that is for other traffic serves nobody. Beside it stands the form of Istio 1.18,
//! which istiod has given up: a Gateway with `istio.io/for-service-account` serves the pods of that
//! account, and each service all of whose pods run as it. A label is the stronger of the two.

use mesh::proto::workload::gateway_address::Destination;
use mesh::proto::workload::{GatewayAddress, NamespacedHostname, NetworkAddress};

use super::{Mesh, octets};
use crate::objects::gateway::{Address, HBONE_PORT, LabelSelector, WAYPOINT_FOR};
use crate::objects::{Gateway, GatewayClass, Key, Labels};

/// A Gateway as those who attach to it see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Waypoint {
    /// The Gateway.
    pub key: Key,
    /// Where its HBONE port is.
    pub address: GatewayAddress,
    /// Whose traffic it takes.
    pub traffic: Traffic,
    /// From which namespaces it takes it.
    pub allowed: Allowed,
    /// The service account whose pods it is for, in the form of Istio 1.18.
    pub service_account: Option<String>,
}

/// Whose traffic a waypoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// What is sent to services.
    Service,
    /// What is sent to pods by their own addresses.
    Workload,
    /// Both.
    All,
    /// Nobody's.
    None,
}

/// From which namespaces a waypoint may be used.
#[derive(Clone, Debug, PartialEq)]
pub enum Allowed {
    /// Its own.
    Same,
    /// Any.
    All,
    /// Those with such labels.
    Selector(LabelSelector),
}

impl Traffic {
    /// Whether it takes what is sent to services.
    #[must_use]
    pub fn services(self) -> bool {
        matches!(self, Self::Service | Self::All)
    }

    /// Whether it takes what is sent to pods.
    #[must_use]
    pub fn workloads(self) -> bool {
        matches!(self, Self::Workload | Self::All)
    }
}

impl Waypoint {
    /// The Gateway as a waypoint; `None` before it has an address.
    #[must_use]
    pub fn of(mesh: &Mesh, gateway: &Gateway, class: Option<&GatewayClass>) -> Option<Self> {
        let spec = gateway.spec.as_ref().ok()?;
        let service_account = gateway.service_account().map(str::to_owned);
        let said = gateway.labels.get(WAYPOINT_FOR);
        let said = said.or_else(|| class.and_then(|class| class.waypoint_for.as_ref()));
        let traffic = match said.map(String::as_str) {
            None if service_account.is_some() => Traffic::All,
            None | Some("service") => Traffic::Service,
            Some("workload") => Traffic::Workload,
            Some("all") => Traffic::All,
            Some(_) => Traffic::None,
        };
        let listener = spec
            .listeners
            .iter()
            .find(|listener| listener.protocol == "HBONE" && listener.port == HBONE_PORT);
        let namespaces = listener
            .and_then(|listener| listener.allowed_routes.as_ref())
            .and_then(|routes| routes.namespaces.as_ref());
        let allowed = match namespaces.and_then(|from| from.from.as_deref()) {
            Some("All") => Allowed::All,
            Some("Selector") => Allowed::Selector(
                namespaces
                    .and_then(|from| from.selector.clone())
                    .unwrap_or_default(),
            ),
            _ => Allowed::Same,
        };
        Some(Self {
            key: gateway.source.key.clone(),
            address: address(mesh, gateway)?,
            traffic,
            allowed,
            service_account,
        })
    }

    /// Whether objects of this namespace, with these labels, may use it.
    #[must_use]
    pub fn admits(&self, namespace: &str, labels: &Labels) -> bool {
        match &self.allowed {
            Allowed::Same => *self.key.namespace == *namespace,
            Allowed::All => true,
            Allowed::Selector(selector) => selector.matches(labels),
        }
    }
}

/// A name is preferred: it is the service's own key, and addresses can be given to others.
fn address(mesh: &Mesh, gateway: &Gateway) -> Option<GatewayAddress> {
    let hostname = gateway.addresses.iter().find_map(|address| match address {
        Address::Hostname(name) => Some(Destination::Hostname(NamespacedHostname {
            namespace: gateway.source.key.namespace.to_string(),
            hostname: name.clone(),
        })),
        Address::Ip(_) => None,
    });
    let ip = || {
        gateway.addresses.iter().find_map(|address| match address {
            Address::Ip(ip) => Some(Destination::Address(NetworkAddress {
                network: mesh.network.clone(),
                address: octets(*ip),
                length: None,
            })),
            Address::Hostname(_) => None,
        })
    };
    Some(GatewayAddress {
        destination: Some(hostname.or_else(ip)?),
        hbone_mtls_port: u32::from(HBONE_PORT),
    })
}
