//! The way into another network. Addresses mean nothing there, so that nothing of it is ever called
//! directly: a call to a service goes to the network's gateway, which is asked for the service by
//! name, and inside that tunnel another one leads to an endpoint that the gateway chooses, or to its
//! waypoint (Istio's ztunnel, `build_request_through_gateway`).

use std::sync::Arc;

use rand::Rng;

use super::waypoint::alone;
use super::{Call, Hop, Purpose, Route, RouteError, expected, hop_to, reachable};
use crate::address::{Network, OrigDst};
use crate::identity::Identity;
use crate::workload::{GatewayAddress, Service, Workload};
use crate::world::World;

/// What is at the far end of a tunnel within a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// The network behind the gateway.
    pub network: Network,
    /// Identities of which the far end must prove one: it is whichever endpoint of the service the
    /// gateway chooses there.
    pub expect: Vec<Identity>,
}

impl World {
    /// The gateway through which this endpoint of a service, in another network, is reached.
    pub(super) fn beyond(
        &self,
        call: Call<'_>,
        service: &Service,
        endpoint: &Workload,
        gateway: &GatewayAddress,
        rng: &mut impl Rng,
    ) -> Result<Hop, RouteError> {
        let network = || endpoint.network.as_str().to_owned();
        let mut expect = service.subject_alt_names.clone();
        if !endpoint.stands_for_many() {
            expect = expected(expect, endpoint);
        }
        if expect.is_empty() {
            return Err(RouteError::Unproven {
                service: service.key.clone(),
                network: network(),
            });
        }
        let (service, workload, near) = self.behind(call, gateway);
        let port = gateway.hbone_port;
        // The gateway itself is called at an address of its own, whichever network that counts as.
        let hop = match (service, workload) {
            (Some(service), _) => {
                let suits = |workload: &Workload| reachable(service, workload);
                self.choose(call.from, service, port, Purpose::Call, suits, rng)
                    .and_then(|(endpoint, target)| hop_to(service, endpoint, target, near))
            }
            (None, Some(workload)) => alone(workload, port, near),
            (None, None) => {
                return Err(RouteError::UnknownGateway {
                    gateway: gateway.to_string(),
                    network: network(),
                });
            }
        };
        let hop = hop.map_err(|cause| RouteError::Gateway {
            network: network(),
            cause: Box::new(cause),
        })?;
        let beyond = Some(Beyond {
            network: endpoint.network.clone(),
            expect,
        });
        Ok(Hop { beyond, ..hop })
    }
}

/// The gateway, and whoever is behind it, is asked for the service: what the caller wanted, in words
/// that mean the same in both networks.
pub(super) fn through_gateway(hop: Hop, to: OrigDst, service: Arc<Service>) -> Route {
    Route::Hbone {
        next_hop: hop.address,
        authority: format!("{}:{}", service.key.hostname, to.port()),
        expect: expected(hop.sans, &hop.workload),
        destination: hop.workload,
        service: Some(service),
        via_waypoint: false,
        beyond: hop.beyond,
    }
}

/// Without a service there is nothing that a gateway could be asked for.
pub(super) fn no_service(workload: &Workload) -> RouteError {
    RouteError::NoService {
        to: workload.uid.to_string(),
        network: workload.network.as_str().to_owned(),
    }
}
