//! Which endpoint of a service takes a connection. Pure: a function of the endpoints, the caller's
//! place, the service's rules and a random number. Nothing is allocated.
//!
//! Semantics are Istio's (`istio.workload.LoadBalancing`): endpoints are drawn at random, weighed
//! by capacity. FAILOVER takes those that share the longest run of the preferred places with the
//! caller, STRICT only those that share them all. A draw takes constant time where most endpoints
//! will do, otherwise one pass.

use std::sync::Arc;

use rand::Rng;

use crate::workload::{LoadBalancing, Mode, PortMapping, Scope, Workload};

/// Draws made before all endpoints are looked at. With half of the endpoints unusable, one in
/// about 250 connections goes on to the full pass.
const QUICK_DRAWS: usize = 8;

/// One workload that backs a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// The ports it serves the service on.
    pub ports: Vec<PortMapping>,
}

/// The endpoints of a service to choose among.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a> {
    /// All of them, in any order.
    pub endpoints: &'a [Endpoint],
    /// No endpoint has more capacity than this.
    pub most_capacity: u32,
}

/// Chooses an endpoint for a connection from `caller`, or none if no usable endpoint satisfies
/// the rules. An endpoint with a capacity of 0 is never chosen.
pub fn choose<'a>(
    candidates: Candidates<'a>,
    caller: &Workload,
    rules: &LoadBalancing,
    usable: impl Fn(&Endpoint) -> bool,
    rng: &mut impl Rng,
) -> Option<&'a Endpoint> {
    let endpoints = candidates.endpoints;
    let preference = match rules.mode {
        Mode::Strict | Mode::Failover => &*rules.preference,
        Mode::Any | Mode::Passthrough => &[],
    };
    if endpoints.len() > QUICK_DRAWS {
        // Each draw accepts an endpoint with a chance proportional to its capacity, so the first
        // one accepted is distributed as if all suitable ones had been weighed.
        for _ in 0..QUICK_DRAWS {
            let endpoint = &endpoints[rng.random_range(0..endpoints.len())];
            let capacity = endpoint.workload.capacity;
            if rng.random_range(0..candidates.most_capacity.max(1)) < capacity
                && shared(preference, caller, &endpoint.workload) == preference.len()
                && usable(endpoint)
            {
                return Some(endpoint);
            }
        }
    }
    let least = match rules.mode {
        Mode::Strict => preference.len(),
        _ => 0,
    };
    look_at_all(endpoints, caller, preference, least, usable, rng)
}

/// One pass that keeps the best rank seen so far and a fair draw among those of that rank.
fn look_at_all<'a>(
    endpoints: &'a [Endpoint],
    caller: &Workload,
    preference: &[Scope],
    least: usize,
    usable: impl Fn(&Endpoint) -> bool,
    rng: &mut impl Rng,
) -> Option<&'a Endpoint> {
    let (mut best, mut total, mut chosen) = (least, 0_u64, None);
    for endpoint in endpoints {
        let capacity = u64::from(endpoint.workload.capacity);
        let rank = shared(preference, caller, &endpoint.workload);
        if capacity == 0 || rank < best || !usable(endpoint) {
            continue;
        }
        if rank > best {
            (best, total) = (rank, 0);
        }
        total += capacity;
        if rng.random_range(0..total) < capacity {
            chosen = Some(endpoint);
        }
    }
    chosen
}

/// How many of the preferred places the two share, counted from the most important one.
fn shared(preference: &[Scope], caller: &Workload, endpoint: &Workload) -> usize {
    let same = |scope: &&Scope| match scope {
        Scope::Region => caller.locality.region == endpoint.locality.region,
        Scope::Zone => caller.locality.zone == endpoint.locality.zone,
        Scope::Subzone => caller.locality.subzone == endpoint.locality.subzone,
        Scope::Node => caller.node == endpoint.node,
        Scope::Cluster => caller.cluster == endpoint.cluster,
        Scope::Network => caller.network == endpoint.network,
    };
    preference.iter().take_while(same).count()
}

#[cfg(test)]
mod tests;
