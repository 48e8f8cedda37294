//! Where an outbound connection goes: straight to a pod, to an endpoint of a service, through a
//! waypoint, through the gateway of another network, or on to where it wanted to go. The order of the questions is that of Istio's ztunnel
//! (`src/proxy/outbound.rs`, `build_request`), except that nothing is let through because data is
//! missing: no endpoint, no waypoint, no address are errors.

mod error;
mod network;
mod waypoint;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use error::why_none;
use waypoint::{draw_waypoint, through_waypoint};

use super::World;
use crate::address::OrigDst;
use crate::balance::{self, Endpoint};
use crate::identity::Identity;
use crate::workload::{HBONE_PORT, Health, HealthPolicy, Mode, Service, TunnelProtocol, Workload};

pub use error::{NoEndpoint, RouteError};
pub use network::Beyond;

/// Where an outbound connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Through an HBONE tunnel.
    Hbone {
        /// Where to connect: the HBONE port of the pod, the waypoint, or another network's gateway.
        next_hop: SocketAddr,
        /// What to ask for in CONNECT: the endpoint's `ip:port`, or what the caller wanted if a
        /// waypoint is next, or the service's `host:port` if a gateway is.
        authority: String,
        /// Identities of which the next hop must prove one.
        expect: Vec<Identity>,
        /// The workload at the other end of the tunnel; the waypoint's or gateway's, if one is next.
        destination: Arc<Workload>,
        /// The service that was called, if one was.
        service: Option<Arc<Service>>,
        /// Whether the next hop is a waypoint.
        via_waypoint: bool,
        /// What is at the end of another tunnel inside this one, for the same authority, if the
        /// next hop is the gateway of another network.
        beyond: Option<Beyond>,
    },
    /// As plain TCP.
    Plain {
        /// Where to connect.
        to: SocketAddr,
        /// The workload there, if it is known.
        destination: Option<Arc<Workload>>,
        /// The service that was called, if one was.
        service: Option<Arc<Service>>,
    },
}

/// One endpoint of a service, ready to be called.
struct Hop {
    workload: Arc<Workload>,
    address: SocketAddr,
    sans: Vec<Identity>,
    /// Where this is only the gateway.
    beyond: Option<Beyond>,
}

/// A connection that wants to go somewhere.
#[derive(Clone, Copy)]
struct Call<'a> {
    from: &'a Workload,
    to: OrigDst,
    /// How many streams a next hop carries.
    streams: &'a dyn Fn(SocketAddr) -> usize,
}

/// How strictly ports are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// An application's call.
    Call,
    /// A waypoint's tunnel: an application tunnel behind it needs no declared port.
    Waypoint,
}

impl World {
    /// Finds where a connection from `from` to `to` goes.
    ///
    /// # Errors
    /// [`RouteError`] if it can't go there now. Nothing that should be protected ever goes plain
    /// because of that.
    pub fn route(
        &self,
        from: &Workload,
        to: OrigDst,
        rng: &mut impl Rng,
    ) -> Result<Route, RouteError> {
        self.route_by_load(from, to, &|_| 0, rng)
    }

    /// As [`World::route`], where it is known how many streams each next hop carries: of two pods
    /// of a waypoint that were drawn, the one with fewer takes the connection. Connections to a
    /// waypoint live long (one of them carries a client's whole HTTP connection), so that drawing
    /// alone leaves its pods uneven for hours, and a new pod idle.
    ///
    /// # Errors
    /// See [`World::route`].
    pub fn route_by_load(
        &self,
        from: &Workload,
        to: OrigDst,
        streams: &dyn Fn(SocketAddr) -> usize,
        rng: &mut impl Rng,
    ) -> Result<Route, RouteError> {
        if !self.synced().workloads {
            return Err(RouteError::NotSynced);
        }
        let call = Call { from, to, streams };
        if let Some(service) = self.service_at(&from.network, to.ip(), &from.namespace) {
            return self.to_service(call, service, rng);
        }
        if let Some(workload) = self.workload_at(&from.network, to.ip()) {
            return self.to_workload(call, workload, rng);
        }
        Ok(Route::Plain {
            to: to.get(),
            destination: None,
            service: None,
        })
    }

    fn to_service(
        &self,
        call: Call<'_>,
        service: &Arc<Service>,
        rng: &mut impl Rng,
    ) -> Result<Route, RouteError> {
        let Call { from, to, .. } = call;
        if let Some(waypoint) = draw_waypoint(service, rng)
            && !self.is_behind(from, waypoint)
        {
            let hop = self.waypoint(call, waypoint, &service.key, rng)?;
            return through_waypoint(hop, to, Some(service.clone()));
        }
        if service.load_balancing.mode == Mode::Passthrough {
            return Ok(Route::Plain {
                to: to.get(),
                destination: None,
                service: Some(service.clone()),
            });
        }
        let hop = self.endpoint(call, to.ip(), service, to.port(), Purpose::Call, rng)?;
        Ok(match hop.beyond {
            Some(_) => network::through_gateway(hop, to, service.clone()),
            None => straight(hop, Some(service.clone())),
        })
    }

    fn to_workload(
        &self,
        call: Call<'_>,
        workload: &Arc<Workload>,
        rng: &mut impl Rng,
    ) -> Result<Route, RouteError> {
        let Call { from, to, .. } = call;
        if let Some(waypoint) = &workload.waypoint
            && !self.is_behind(from, waypoint)
        {
            let hop = self.waypoint(call, waypoint, &workload.uid, rng)?;
            return through_waypoint(hop, to, None);
        }
        let hop = Hop {
            workload: workload.clone(),
            address: to.get(),
            sans: Vec::new(),
            beyond: None,
        };
        Ok(straight(hop, None))
    }

    fn endpoint(
        &self,
        call: Call<'_>,
        near: IpAddr,
        service: &Arc<Service>,
        port: u16,
        purpose: Purpose,
        rng: &mut impl Rng,
    ) -> Result<Hop, RouteError> {
        let from = call.from;
        let suits = |workload: &Workload| match workload.network == from.network {
            true => reachable(service, workload),
            false => workload.network_gateway.is_some(),
        };
        let (endpoint, target) = self.choose(from, service, port, purpose, suits, rng)?;
        let workload = &endpoint.workload;
        match &workload.network_gateway {
            Some(gateway) if workload.network != from.network => {
                self.beyond(call, service, workload, gateway, rng)
            }
            _ => hop_to(service, endpoint, target, near),
        }
    }

    /// An endpoint of a service that `suits`, and its port.
    fn choose(
        &self,
        from: &Workload,
        service: &Service,
        port: u16,
        purpose: Purpose,
        suits: impl Fn(&Workload) -> bool,
        rng: &mut impl Rng,
    ) -> Result<(&Endpoint, u16), RouteError> {
        let declared = service.target_port(port);
        if declared.is_none() && purpose == Purpose::Call {
            let service = service.key.clone();
            return Err(RouteError::NoSuchPort { service, port });
        }
        let rules = &service.load_balancing;
        let candidates = self
            .services
            .get(&service.key)
            .map(|entry| entry.endpoints.candidates());
        let usable = |endpoint: &Endpoint| {
            (endpoint.workload.health == Health::Healthy || rules.health == HealthPolicy::AllowAll)
                && target_port(endpoint, declared, port, purpose).is_some()
                && suits(&endpoint.workload)
        };
        let chosen = candidates
            .and_then(|candidates| balance::choose(candidates, from, rules, usable, rng))
            .and_then(|endpoint| Some((endpoint, target_port(endpoint, declared, port, purpose)?)));
        chosen.ok_or_else(|| why_none(from, service, port, self.endpoints(&service.key)))
    }
}

/// An endpoint of a service at an address of its own.
fn hop_to(
    service: &Service,
    endpoint: &Endpoint,
    target: u16,
    near: IpAddr,
) -> Result<Hop, RouteError> {
    let accepted = |ip: IpAddr| service.ip_families.accepts(ip);
    let ip = address(&endpoint.workload, accepted, near)?;
    Ok(Hop {
        workload: endpoint.workload.clone(),
        address: SocketAddr::new(ip, target),
        sans: service.subject_alt_names.clone(),
        beyond: None,
    })
}

/// The port to call on an endpoint: its own, else the service's.
fn target_port(
    endpoint: &Endpoint,
    declared: Option<u16>,
    port: u16,
    purpose: Purpose,
) -> Option<u16> {
    let own = endpoint
        .ports
        .iter()
        .find(|mapping| mapping.service_port == port);
    let own = own
        .map(|mapping| mapping.target_port)
        .filter(|port| *port != 0);
    let declared = declared.filter(|port| *port != 0);
    let undeclared = (purpose == Purpose::Waypoint
        && endpoint.workload.application_tunnel.is_some())
    .then_some(port);
    own.or(declared).or(undeclared)
}

fn reachable(service: &Service, workload: &Workload) -> bool {
    let accepted = |ip: &IpAddr| service.ip_families.accepts(*ip);
    workload.addresses.iter().any(accepted)
}

/// The workload's address to call: the very one that was called if it is one of its own, else one
/// of the caller's family, else any that the service accepts.
fn address(
    workload: &Workload,
    accepted: impl Fn(IpAddr) -> bool,
    near: IpAddr,
) -> Result<IpAddr, RouteError> {
    let addresses = &workload.addresses;
    if addresses.contains(&near) {
        return Ok(near);
    }
    let accepted = || addresses.iter().copied().filter(|ip| accepted(*ip));
    accepted()
        .find(|ip| ip.is_ipv4() == near.is_ipv4())
        .or_else(|| accepted().next())
        .ok_or_else(|| match workload.hostname {
            Some(_) => RouteError::OnlyHostname(workload.uid.to_string()),
            None => RouteError::NoAddress(workload.uid.to_string()),
        })
}

fn straight(hop: Hop, service: Option<Arc<Service>>) -> Route {
    match hop.workload.tunnel {
        TunnelProtocol::None => Route::Plain {
            to: hop.address,
            destination: Some(hop.workload),
            service,
        },
        TunnelProtocol::Hbone => Route::Hbone {
            next_hop: SocketAddr::new(hop.address.ip(), HBONE_PORT),
            authority: hop.address.to_string(),
            expect: expected(hop.sans, &hop.workload),
            destination: hop.workload,
            service,
            via_waypoint: false,
            beyond: None,
        },
    }
}

fn expected(mut sans: Vec<Identity>, workload: &Workload) -> Vec<Identity> {
    if !sans.contains(&workload.identity) {
        sans.push(workload.identity.clone());
    }
    sans
}

#[cfg(test)]
mod tests;
