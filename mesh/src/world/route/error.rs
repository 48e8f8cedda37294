//! Why an outbound connection goes nowhere, in words that name the likely cause.

use std::fmt;

use crate::balance::Endpoint;
use crate::workload::{Service, ServiceKey, Workload};

/// Why an outbound connection goes nowhere; the text names the likely cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Destinations aren't known yet. Hold the connection, don't let it through.
    #[error(
        "no workloads received yet: the control plane hasn't answered since this proxy started"
    )]
    NotSynced,
    /// The service has no such port.
    #[error("service {service} has no port {port}")]
    NoSuchPort {
        /// The service.
        service: ServiceKey,
        /// The port that was called.
        port: u16,
    },
    /// The service has nobody to take the call.
    #[error("service {service} has no endpoint for port {port}: {reason}")]
    NoEndpoint {
        /// The service.
        service: ServiceKey,
        /// The port that was called.
        port: u16,
        /// What is wrong with the endpoints there are.
        reason: NoEndpoint,
    },
    /// The workload has only a host name.
    #[error("workload {0} has no address, only a host name, which this proxy doesn't resolve yet")]
    OnlyHostname(String),
    /// The workload can't be reached at all.
    #[error("workload {0} has neither an address nor a host name")]
    NoAddress(String),
    /// A workload of another network was addressed by itself, or through its waypoint there.
    #[error(
        "{to} is in the network {network:?}: only services are reached there, through its gateway, not single workloads"
    )]
    NoService {
        /// The workload, or its waypoint.
        to: String,
        /// Its network.
        network: String,
    },
    /// The gateway of another network is named, but not known.
    #[error(
        "gateway {gateway} of the network {network:?} is unknown: it was removed, or is on its way"
    )]
    UnknownGateway {
        /// The gateway.
        gateway: String,
        /// The network it leads into.
        network: String,
    },
    /// The gateway of another network is known, but can't be reached.
    #[error("gateway of the network {network:?}: {cause}")]
    Gateway {
        /// The network it leads into.
        network: String,
        /// Why not.
        cause: Box<RouteError>,
    },
    /// Nobody could be told from somebody else at the far end.
    #[error(
        "service {service} has endpoints in the network {network:?} but no subject_alt_names: nobody there could prove to be one of them"
    )]
    Unproven {
        /// The service.
        service: ServiceKey,
        /// The other network.
        network: String,
    },
    /// The waypoint is named, but not known.
    #[error("waypoint {waypoint} of {of} is unknown: it was removed, or is on its way")]
    UnknownWaypoint {
        /// The waypoint.
        waypoint: String,
        /// The service or workload it is for.
        of: String,
    },
    /// The waypoint is known, but can't be reached.
    #[error("waypoint of {of}: {cause}")]
    Waypoint {
        /// The service or workload it is for.
        of: String,
        /// Why not.
        cause: Box<RouteError>,
    },
}

/// Why none of a service's endpoints will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEndpoint {
    /// There are none.
    None,
    /// None of this many is healthy, in a place the service allows, and serves the port.
    Unsuitable(usize),
    /// They are all in other networks, and no gateway leads there.
    OtherNetwork(usize),
}

/// Why none of these endpoints takes the call.
pub(super) fn why_none(
    from: &Workload,
    service: &Service,
    port: u16,
    endpoints: &[Endpoint],
) -> RouteError {
    let here = |endpoint: &&Endpoint| endpoint.workload.network == from.network;
    let leads_there = |e: &Endpoint| here(&e) || e.workload.network_gateway.is_some();
    let named = |e: &&Endpoint| e.workload.addresses.is_empty() && e.workload.hostname.is_some();
    let reason = match endpoints.len() {
        0 => NoEndpoint::None,
        all if !endpoints.iter().any(leads_there) => NoEndpoint::OtherNetwork(all),
        all => match endpoints.iter().filter(here).find(named) {
            Some(endpoint) => return RouteError::OnlyHostname(endpoint.workload.uid.to_string()),
            None => NoEndpoint::Unsuitable(all),
        },
    };
    let service = service.key.clone();
    RouteError::NoEndpoint {
        service,
        port,
        reason,
    }
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("it has none"),
            Self::Unsuitable(all) => write!(
                f,
                "none of its {all} is healthy, serves the port, and is where the service allows"
            ),
            Self::OtherNetwork(all) => write!(
                f,
                "all {all} are in other networks, and the control plane names no gateway into those"
            ),
        }
    }
}
