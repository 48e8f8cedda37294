//! Which endpoint takes a request: a pure function of the endpoints, their standing, what the
//! request asks and a random number. Built once per version of the endpoints (or of their standing);
//! a pick allocates nothing. Sockets, clocks and other threads are unknown here.
//!
//! As in Envoy (docs: *load balancing*): a priority is chosen by how healthy each is, in it a
//! locality where localities are weighted, and in that an endpoint by the cluster's policy.
//! `priority` is the first step, [`Group`] the second, `picker` the third.

mod edf;
mod hashing;
mod picker;
mod priority;
#[cfg(test)]
mod tests;

use rand::Rng;

use crate::model::cluster::{Balancer, BalancerKind, LocalityPolicy};
use crate::model::endpoint::{EndpointSet, Health};
use edf::Edf;
use picker::{Member, Picker};
use priority::{Counts, Loads};

/// Most priorities that a cluster may have; further ones are not used.
const MOST_PRIORITIES: usize = 32;

/// The overprovisioning factor where the endpoints don't say one, in percent.
const OVERPROVISIONING: u32 = 140;

/// How an endpoint stands at present, from its own health and what outlier detection found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is used.
    Healthy,
    /// It is used as far as healthy ones don't suffice.
    Degraded,
    /// It is used only in panic.
    Out,
}

impl Standing {
    /// How an endpoint stands whose control plane says this, and that is ejected or not.
    pub(super) fn of(health: Health, ejected: bool) -> Self {
        match health {
            _ if ejected => Self::Out,
            Health::Healthy => Self::Healthy,
            Health::Degraded => Self::Degraded,
            Health::Unhealthy | Health::Draining => Self::Out,
        }
    }
}

/// What a request asks of the balancer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask {
    /// The hash of its hash policies.
    pub(super) hash: Option<u64>,
    /// How many picks may be refused before one is taken anyway.
    pub(super) retries: u32,
    /// Priorities that are not used, as bits.
    pub(super) excluded: u32,
}

/// What a pick looks at besides.
pub(super) trait Present {
    /// How many requests an endpoint has at present.
    fn active(&self, index: usize) -> u32;
    /// Which part of its share an endpoint gets at present, above zero and at most one: less while it
    /// warms up.
    fn share(&self, index: usize) -> f64;
    /// Another endpoint is preferred to this one.
    fn avoid(&self, index: usize) -> bool;
}

/// The balancer of a cluster's present endpoints. Endpoints are numbered in the order in which they
/// stand in the set, locality by locality.
#[derive(Debug)]
pub(super) struct Table {
    levels: Vec<Level>,
    loads: Loads,
    counts: Vec<Counts>,
    overprovisioning: u32,
    panic_threshold: f64,
}

/// One priority.
#[derive(Debug)]
struct Level {
    healthy: Option<Group>,
    degraded: Option<Group>,
    /// Every endpoint, for panic.
    all: Option<Group>,
}

/// Endpoints of one priority and standing.
#[derive(Debug)]
enum Group {
    /// All together.
    Flat(Picker),
    /// A locality first, by weight.
    Localities(Edf, Vec<Picker>),
}

impl Table {
    /// Prepares the endpoints. `standing` tells how the endpoint of a number stands.
    pub(super) fn new(
        set: &EndpointSet,
        balancer: &Balancer,
        policy: &LocalityPolicy,
        standing: impl Fn(usize) -> Standing,
        random: &mut impl Rng,
    ) -> Self {
        let places = places(set, standing);
        let priorities = places.iter().map(|place| place.priority + 1).max();
        let mut counts = vec![Counts::default(); priorities.unwrap_or(0)];
        for place in &places {
            for (_, standing) in &place.members {
                counts[place.priority].add(*standing);
            }
        }
        let overprovisioning = match set.overprovisioning {
            0 => OVERPROVISIONING,
            factor => factor,
        };
        let loads = Loads::of(&counts, overprovisioning, policy.panic_threshold, 0);
        let levels = (0..counts.len())
            .map(|priority| {
                let mut group = |wanted: &[Standing]| {
                    Group::new(
                        &places,
                        priority,
                        wanted,
                        balancer,
                        policy,
                        overprovisioning,
                        random,
                    )
                };
                Level {
                    healthy: group(&[Standing::Healthy]),
                    degraded: group(&[Standing::Degraded]),
                    // Without a threshold there is no panic, and without panic no use for it.
                    all: match counts[priority].out > 0 && policy.panic_threshold > 0.0 {
                        true => group(&[Standing::Healthy, Standing::Degraded, Standing::Out]),
                        false => None,
                    },
                }
            })
            .collect();
        Self {
            levels,
            loads,
            counts,
            overprovisioning,
            panic_threshold: policy.panic_threshold,
        }
    }

    /// Picks an endpoint; none where none may be used.
    pub(super) fn pick(
        &mut self,
        ask: &Ask,
        present: &impl Present,
        random: &mut impl Rng,
    ) -> Option<usize> {
        let hash = ask.hash.unwrap_or_else(|| random.random());
        let mut loads = self.loads;
        if ask.excluded != 0 {
            let of = |excluded| {
                Loads::of(
                    &self.counts,
                    self.overprovisioning,
                    self.panic_threshold,
                    excluded,
                )
            };
            loads = of(ask.excluded);
            // Every priority was tried: they all count again.
            if loads.is_empty() {
                loads = of(0);
            }
        }
        // What chooses the priority is independent of what chooses within it, or part of a ring
        // would never be reached.
        let (priority, standing) = match ask.hash {
            Some(hash) => loads.choose(hash)?,
            None => loads.choose(random.random())?,
        };
        let level = &mut self.levels[priority];
        let group = match standing {
            _ if loads.panics(priority) => level.all.as_mut().or(level.healthy.as_mut()),
            Standing::Degraded => level.degraded.as_mut(),
            _ => level.healthy.as_mut(),
        }?;
        let mut picked = None;
        for attempt in 0..=ask.retries {
            picked = group.pick(hash, attempt, present, random);
            if picked.is_none_or(|index| !present.avoid(index)) {
                break;
            }
        }
        picked
    }
}

impl Group {
    fn new(
        places: &[Place<'_>],
        priority: usize,
        wanted: &[Standing],
        balancer: &Balancer,
        policy: &LocalityPolicy,
        overprovisioning: u32,
        random: &mut impl Rng,
    ) -> Option<Self> {
        let mut of_places = Vec::new();
        for place in places.iter().filter(|place| place.priority == priority) {
            let members: Vec<_> = place
                .members
                .iter()
                .filter(|(_, standing)| wanted.contains(standing))
                .map(|(member, _)| *member)
                .collect();
            if members.is_empty() {
                continue;
            }
            // A locality gives away what its endpoints can't take, as a priority does.
            let usable = members.len() as f64 / place.members.len() as f64;
            let usable = (usable * f64::from(overprovisioning) / 100.0).min(1.0);
            of_places.push((f64::from(place.weight) * usable, members));
        }
        let weighted = policy.weighted && of_places.iter().any(|(weight, _)| *weight > 0.0);
        if weighted {
            of_places.retain(|(weight, _)| *weight > 0.0);
        }
        if of_places.is_empty() {
            return None;
        }
        let hashed = matches!(
            balancer.kind,
            BalancerKind::RingHash { .. } | BalancerKind::Maglev { .. }
        );
        if weighted && !hashed {
            let (weights, members): (Vec<_>, Vec<_>) = of_places.into_iter().unzip();
            let pickers = members
                .into_iter()
                .map(|members| Picker::new(members, balancer, policy, random))
                .collect();
            return Some(Self::Localities(Edf::new(&weights, random), pickers));
        }
        let mut members = Vec::new();
        for (weight, mut of_place) in of_places {
            if weighted {
                // What a hash sees is the endpoint's part of its locality's part.
                let sum: f64 = of_place.iter().map(|member| member.weight).sum();
                for member in &mut of_place {
                    member.weight *= weight / sum;
                }
            }
            members.append(&mut of_place);
        }
        Some(Self::Flat(Picker::new(members, balancer, policy, random)))
    }

    fn pick(
        &mut self,
        hash: u64,
        attempt: u32,
        present: &impl Present,
        random: &mut impl Rng,
    ) -> Option<usize> {
        match self {
            Self::Flat(picker) => picker.pick(hash, attempt, present, random),
            Self::Localities(edf, pickers) => {
                let place = edf.pick(|_, weight| weight)?;
                pickers[place].pick(hash, attempt, present, random)
            }
        }
    }
}

/// A locality as the balancer sees it.
struct Place<'a> {
    priority: usize,
    weight: u32,
    members: Vec<(Member<'a>, Standing)>,
}

fn places(set: &EndpointSet, standing: impl Fn(usize) -> Standing) -> Vec<Place<'_>> {
    let mut number = 0;
    let mut places = Vec::with_capacity(set.localities.len());
    for locality in &set.localities {
        let members = locality.endpoints.iter().map(|endpoint| {
            let index = number;
            number += 1;
            let member = Member {
                index,
                weight: f64::from(endpoint.weight.max(1)),
                endpoint,
            };
            (member, standing(index))
        });
        let members: Vec<_> = members.collect();
        let priority = locality.priority as usize;
        if priority < MOST_PRIORITIES && !members.is_empty() {
            places.push(Place {
                priority,
                weight: locality.weight,
                members,
            });
        }
    }
    places
}
