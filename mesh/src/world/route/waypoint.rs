//! The way through a waypoint: which one, where it is, and who doesn't take it. A waypoint that
//! can't be found or reached is an error, never a way around it: its policies would not be applied.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use super::network::{no_service, through_gateway};
use super::{Call, Hop, Purpose, Route, RouteError, address, expected};
use crate::address::OrigDst;
use crate::workload::{GatewayAddress, GatewayTarget, Service, ServiceKey, Workload};
use crate::world::World;

impl World {
    /// Whether `from` is the waypoint itself, whose own calls must not come back to it.
    pub(super) fn is_behind(&self, from: &Workload, waypoint: &GatewayAddress) -> bool {
        match &waypoint.target {
            GatewayTarget::Hostname(key) => {
                from.services.contains_key(key)
                    || (from.hostname.as_ref() == Some(&key.hostname)
                        && from.namespace == key.namespace)
            }
            GatewayTarget::Address(at) => {
                (from.network == at.network && from.owns(at.ip))
                    || self
                        .service_at(&at.network, at.ip, &from.namespace)
                        .is_some_and(|service| from.services.contains_key(&service.key))
            }
        }
    }

    pub(super) fn waypoint(
        &self,
        call: Call<'_>,
        waypoint: &GatewayAddress,
        of: &impl fmt::Display,
        rng: &mut impl Rng,
    ) -> Result<Hop, RouteError> {
        let Call { from, streams, .. } = call;
        let port = waypoint.hbone_port;
        let (service, workload, near) = self.behind(call, waypoint);
        let hop = if let Some(service) = service {
            let mut draw = || self.endpoint(call, near, service, port, Purpose::Waypoint, rng);
            let (one, other) = (draw(), draw());
            match (&one, other) {
                (Ok(one), Ok(other)) if streams(other.address) < streams(one.address) => Ok(other),
                _ => one,
            }
        } else if let Some(workload) = workload {
            match workload.network == from.network {
                true => alone(workload, port, near),
                false => Err(no_service(workload)),
            }
        } else {
            return Err(RouteError::UnknownWaypoint {
                waypoint: waypoint.to_string(),
                of: of.to_string(),
            });
        };
        hop.map_err(|cause| RouteError::Waypoint {
            of: of.to_string(),
            cause: Box::new(cause),
        })
    }

    /// The service or the workload that a waypoint, or a gateway, is, and the address that its own
    /// should be like: by host name the caller's family counts, by address the waypoint's.
    pub(super) fn behind(
        &self,
        call: Call<'_>,
        gateway: &GatewayAddress,
    ) -> (Option<&Arc<Service>>, Option<&Arc<Workload>>, IpAddr) {
        let Call { from, to, .. } = call;
        match &gateway.target {
            GatewayTarget::Hostname(key) => (self.service(key), self.workload_named(key), to.ip()),
            GatewayTarget::Address(at) => (
                self.service_at(&at.network, at.ip, &from.namespace),
                self.workload_at(&at.network, at.ip),
                at.ip,
            ),
        }
    }

    pub(in crate::world) fn workload_named(&self, key: &ServiceKey) -> Option<&Arc<Workload>> {
        let uids = self.by_hostname.get(&key.hostname)?;
        let mut workloads = uids.iter().filter_map(|uid| self.workloads.get(uid));
        workloads.find(|workload| workload.namespace == key.namespace)
    }
}

/// A waypoint of the service: by weight where there are weights, else the only one.
pub(super) fn draw_waypoint<'a>(
    service: &'a Service,
    rng: &mut impl Rng,
) -> Option<&'a GatewayAddress> {
    let total: u64 = service
        .weighted_waypoints
        .iter()
        .map(|w| u64::from(w.weight))
        .sum();
    if total == 0 {
        return service.waypoint.as_ref();
    }
    let mut left = rng.random_range(0..total);
    for weighted in &service.weighted_waypoints {
        let weight = u64::from(weighted.weight);
        if left < weight {
            return Some(&weighted.gateway);
        }
        left -= weight;
    }
    None
}

/// A waypoint or gateway that is a workload by itself.
pub(super) fn alone(workload: &Arc<Workload>, port: u16, near: IpAddr) -> Result<Hop, RouteError> {
    let ip = address(workload, |_| true, near)?;
    Ok(Hop {
        workload: workload.clone(),
        address: SocketAddr::new(ip, port),
        sans: Vec::new(),
        beyond: None,
    })
}

/// The waypoint is asked for what the caller wanted, not for an endpoint: choosing is its job. The
/// gateway before one in another network finds it by the service.
pub(super) fn through_waypoint(
    hop: Hop,
    to: OrigDst,
    service: Option<Arc<Service>>,
) -> Result<Route, RouteError> {
    match (&hop.beyond, service) {
        (Some(_), Some(service)) => Ok(through_gateway(hop, to, service)),
        (Some(_), None) => Err(no_service(&hop.workload)),
        (None, service) => Ok(Route::Hbone {
            next_hop: hop.address,
            authority: to.to_string(),
            expect: expected(hop.sans, &hop.workload),
            destination: hop.workload,
            service,
            via_waypoint: true,
            beyond: None,
        }),
    }
}
