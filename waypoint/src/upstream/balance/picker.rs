//! One endpoint out of several of the same rank, by the cluster's policy.

use rand::Rng;

use super::Present;
use super::edf::Edf;
use super::hashing::{Bounded, maglev, ring};
use crate::model::cluster::{Balancer, BalancerKind, LocalityPolicy};
use crate::model::endpoint::Endpoint;

/// An endpoint as a picker sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// Its number.
    pub(super) index: usize,
    /// Its share among its neighbours.
    pub(super) weight: f64,
    /// What it is, for hashing.
    pub(super) endpoint: &'a Endpoint,
}

/// The endpoints, prepared for the policy.
#[derive(Debug)]
pub(super) struct Picker {
    /// Their numbers.
    indices: Box<[usize]>,
    policy: Policy,
}

#[derive(Debug)]
enum Policy {
    /// In turn, all alike.
    Turns(usize),
    /// In turn, by weight.
    WeightedTurns(Edf),
    Random,
    /// The least busy of so many at random.
    Least(u32),
    /// In turn by weight, the less the busier, this strongly.
    WeightedLeast(Edf, f64),
    /// By the first point that is not below the hash.
    Ring(Box<[(u64, u32)]>, Option<Bounded>),
    /// By the place of the hash.
    Maglev(Box<[u32]>, Option<Bounded>),
}

impl Picker {
    /// Prepares at least one endpoint.
    pub(super) fn new(
        members: Vec<Member<'_>>,
        balancer: &Balancer,
        locality: &LocalityPolicy,
        random: &mut impl Rng,
    ) -> Self {
        let weights: Vec<f64> = members.iter().map(|member| member.weight).collect();
        let alike = balancer.warmup.is_none() && weights.iter().all(|weight| *weight == weights[0]);
        let bounded = || {
            let percent = locality.hash_balance_percent?;
            Some(Bounded::new(percent, &weights))
        };
        let policy = match balancer.kind {
            BalancerKind::Random => Policy::Random,
            BalancerKind::RingHash {
                minimum,
                maximum,
                by_hostname,
            } => Policy::Ring(ring(&members, minimum, maximum, by_hostname), bounded()),
            BalancerKind::Maglev { size, by_hostname } => {
                Policy::Maglev(maglev(&members, size, by_hostname), bounded())
            }
            BalancerKind::LeastRequest { choices, .. } if alike => Policy::Least(choices.max(2)),
            BalancerKind::LeastRequest { active_bias, .. } => {
                Policy::WeightedLeast(Edf::new(&weights, random), active_bias)
            }
            BalancerKind::RoundRobin | BalancerKind::Provided if alike => {
                Policy::Turns(random.random_range(0..members.len()))
            }
            BalancerKind::RoundRobin | BalancerKind::Provided => {
                Policy::WeightedTurns(Edf::new(&weights, random))
            }
        };
        let indices = members.iter().map(|member| member.index).collect();
        Self { indices, policy }
    }

    /// Picks one: the same for the same hash and attempt, where the policy hashes.
    pub(super) fn pick(
        &mut self,
        hash: u64,
        attempt: u32,
        present: &impl Present,
        random: &mut impl Rng,
    ) -> Option<usize> {
        let indices = &self.indices;
        let count = indices.len();
        let position = match &mut self.policy {
            Policy::Turns(next) => {
                *next = (*next + 1) % count;
                *next
            }
            Policy::WeightedTurns(edf) => {
                edf.pick(|entry, weight| weight * present.share(indices[entry]))?
            }
            Policy::Random => random.random_range(0..count),
            Policy::Least(choices) => {
                let mut best = random.random_range(0..count);
                for _ in 1..*choices {
                    let other = random.random_range(0..count);
                    if present.active(indices[other]) < present.active(indices[best]) {
                        best = other;
                    }
                }
                best
            }
            Policy::WeightedLeast(edf, bias) => edf.pick(|entry, weight| {
                let active = f64::from(present.active(indices[entry])) + 1.0;
                // The exponent is one unless somebody asked for another: a power costs more than
                // all the rest.
                let active = match *bias == 1.0 {
                    true => active,
                    false => active.powf(*bias),
                };
                weight * present.share(indices[entry]) / active
            })?,
            Policy::Ring(points, bounded) => {
                let first = points.partition_point(|(point, _)| *point < hash);
                let at = |step: usize| points[(first + step) % points.len()].1 as usize;
                let step = attempt as usize;
                match bounded {
                    None => at(step),
                    Some(bounded) => {
                        bounded.first((step..points.len() + step).map(at), indices, present)
                    }
                }
            }
            Policy::Maglev(table, bounded) => {
                // As Envoy: another attempt looks elsewhere in the table.
                let hash = match attempt {
                    0 => hash,
                    attempt => hash ^ (u64::MAX - u64::from(attempt) + 1),
                };
                let place = (hash % table.len() as u64) as usize;
                let at = |step: usize| table[(place + step) % table.len()] as usize;
                match bounded {
                    None => at(0),
                    Some(bounded) => bounded.first((0..table.len()).map(at), indices, present),
                }
            }
        };
        Some(indices[position])
    }
}
