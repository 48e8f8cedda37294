//! Workloads that are reached only through their waypoints, and who those are: nothing goes round
//! a waypoint that the configuration leaves no way round. Pure.
//!
//! The control plane says for a workload and for each service separately whether calls to it pass a
//! waypoint, and for a service whether ingress gateways' calls do too. Calls to a service arrive as
//! calls to the pod's own address, so a destination can't tell them apart. It therefore requires the
//! waypoint where every way leads through one: the workload has a waypoint, and so has each service
//! that it backs, for ingress gateways as well. Where one way leads round by configuration, as it
//! does with a waypoint for services only, a policy that allows only the waypoint's identity does
//! the same, and is an L4 policy like any other.

use crate::identity::Identity;
use crate::policy::{Inbound, Reason};
use crate::workload::{GatewayAddress, GatewayTarget, Service, Workload};

use super::World;

impl World {
    /// Refuses a connection that goes round the waypoint of a workload that requires one.
    pub(super) fn comes_through(&self, to: &Workload, connection: &Inbound) -> Result<(), Reason> {
        let Some(own) = &to.waypoint else {
            return Ok(());
        };
        let mut waypoints = vec![own];
        for key in to.services.keys() {
            // A service that endpoints name, but that is not here, can't be called either.
            if let Some(service) = self.service(key) {
                let before = waypoints.len();
                waypoints.extend(of_service(service));
                if waypoints.len() == before || !service.ingress_use_waypoint {
                    return Ok(());
                }
            }
        }
        let (mut known, mut through) = (false, false);
        for waypoint in waypoints {
            self.identities(waypoint, &mut |identity| {
                known = true;
                through |= connection.source.identity.as_ref() == Some(identity);
            });
        }
        let waypoint = || own.to_string();
        match (through, known) {
            (true, _) => Ok(()),
            (false, false) => Err(Reason::WaypointUnknown(waypoint())),
            (false, true) => Err(Reason::RoundWaypoint(waypoint())),
        }
    }

    /// Shows the identities that the pods of a waypoint have, those that are not ready too: what
    /// they sent before is still on its way.
    fn identities(&self, waypoint: &GatewayAddress, show: &mut dyn FnMut(&Identity)) {
        let mut behind = |key| {
            for endpoint in self.endpoints(key) {
                if !endpoint.workload.stands_for_many() {
                    show(&endpoint.workload.identity);
                }
            }
        };
        let workload = match &waypoint.target {
            GatewayTarget::Hostname(key) => {
                behind(key);
                self.workload_named(key)
            }
            GatewayTarget::Address(at) => {
                let services = self.vips.get(&at.network, at.ip);
                services.into_iter().flatten().for_each(behind);
                self.workload_at(&at.network, at.ip)
            }
        };
        if let Some(workload) = workload {
            show(&workload.identity);
        }
    }
}

/// The waypoints that calls to a service pass.
fn of_service(service: &Service) -> impl Iterator<Item = &GatewayAddress> {
    let weighted = service.weighted_waypoints.iter().map(|one| &one.gateway);
    weighted.chain(service.waypoint.as_ref())
}
