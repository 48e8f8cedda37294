//! Balancers against their definitions: counted shares, the documented tables of priorities and
//! localities, the promises of consistent hashing, and Envoy's own ring.

mod hashing;
mod priorities;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::model::cluster::Warmup;
use crate::model::endpoint::{Address, Endpoint, Locality};
use crate::model::rare::Rare;

/// Everybody is idle, and nobody avoided, unless said otherwise.
#[derive(Default)]
struct Calm {
    active: HashMap<usize, u32>,
    shares: HashMap<usize, f64>,
    avoided: Vec<usize>,
}

impl Present for Calm {
    fn active(&self, index: usize) -> u32 {
        self.active.get(&index).copied().unwrap_or(0)
    }

    fn share(&self, index: usize) -> f64 {
        self.shares.get(&index).copied().unwrap_or(1.0)
    }

    fn avoid(&self, index: usize) -> bool {
        self.avoided.contains(&index)
    }
}

fn endpoint(number: usize, weight: u32, health: Health) -> Arc<Endpoint> {
    let address = SocketAddr::new([10, 0, (number >> 8) as u8, number as u8].into(), 80);
    Arc::new(Endpoint {
        address: Address::Socket(address),
        hostname: "".into(),
        weight,
        health,
        workload: None,
        transport_match: Rare::default(),
        lb: Rare::default(),
    })
}

/// One locality for each: its priority, its weight, and the weights of its endpoints, unhealthy
/// where zero.
fn set(localities: &[(u32, u32, &[u32])]) -> EndpointSet {
    let mut number = 0;
    let localities = localities.iter().map(|(priority, weight, endpoints)| {
        let endpoints = endpoints.iter().map(|weight| {
            number += 1;
            match weight {
                0 => endpoint(number, 1, Health::Unhealthy),
                weight => endpoint(number, *weight, Health::Healthy),
            }
        });
        Locality {
            name: "".into(),
            priority: *priority,
            weight: *weight,
            endpoints: endpoints.collect(),
        }
    });
    EndpointSet {
        localities: localities.collect(),
        drops: Vec::new(),
        overprovisioning: 140,
    }
}

fn balancer(kind: BalancerKind) -> Balancer {
    Balancer { kind, warmup: None }
}

const LEAST: BalancerKind = BalancerKind::LeastRequest {
    choices: 2,
    active_bias: 1.0,
};
const RING: BalancerKind = BalancerKind::RingHash {
    minimum: 1024,
    maximum: 8 << 20,
    by_hostname: false,
};
const MAGLEV: BalancerKind = BalancerKind::Maglev {
    size: 65_537,
    by_hostname: false,
};

fn policy(weighted: bool, panic_threshold: f64) -> LocalityPolicy {
    LocalityPolicy {
        weighted,
        panic_threshold,
        hash_balance_percent: None,
    }
}

struct World {
    table: Table,
    random: StdRng,
    calm: Calm,
}

impl World {
    fn new(set: &EndpointSet, balancer: &Balancer, policy: &LocalityPolicy) -> Self {
        let mut random = StdRng::seed_from_u64(7);
        let health: Vec<_> = set
            .localities
            .iter()
            .flat_map(|locality| locality.endpoints.iter().map(|endpoint| endpoint.health))
            .collect();
        let standing = |index: usize| Standing::of(health[index], false);
        Self {
            table: Table::new(set, balancer, policy, standing, &mut random),
            random,
            calm: Calm::default(),
        }
    }

    fn pick(&mut self, hash: Option<u64>) -> Option<usize> {
        let ask = Ask {
            hash,
            ..Ask::default()
        };
        self.table.pick(&ask, &self.calm, &mut self.random)
    }

    /// How often each endpoint is picked.
    fn count(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = Vec::new();
        for _ in 0..picks {
            let index = self.pick(None).expect("an endpoint");
            if counts.len() <= index {
                counts.resize(index + 1, 0);
            }
            counts[index] += 1;
        }
        counts
    }
}

/// Within four standard deviations of a share of so many draws.
#[track_caller]
fn about(count: usize, share: f64, draws: usize) {
    let expected = share * draws as f64;
    let deviation = (draws as f64 * share * (1.0 - share)).sqrt();
    let off = (count as f64 - expected).abs();
    assert!(
        off <= 4.0 * deviation + 1.0,
        "{count} of {draws}, expected {expected}"
    );
}

#[test]
fn turns_are_taken_in_order_and_by_weight_exactly() {
    let mut world = World::new(
        &set(&[(0, 1, &[1, 1, 1])]),
        &balancer(BalancerKind::RoundRobin),
        &policy(false, 50.0),
    );
    let first = world.pick(None).unwrap();
    assert_eq!(world.pick(None), Some((first + 1) % 3));
    assert_eq!(world.count(300), [100, 100, 100]);
    let mut world = World::new(
        &set(&[(0, 1, &[1, 2, 5])]),
        &balancer(BalancerKind::RoundRobin),
        &policy(false, 50.0),
    );
    let counts = world.count(8000);
    for (count, expected) in counts.iter().zip([1000, 2000, 5000]) {
        assert!(count.abs_diff(expected) <= 1, "{counts:?}");
    }
}

#[test]
fn the_less_busy_of_two_is_taken() {
    let mut world = World::new(
        &set(&[(0, 1, &[1, 1, 1, 1])]),
        &balancer(LEAST),
        &policy(false, 50.0),
    );
    for count in world.count(8000) {
        about(count, 0.25, 8000);
    }
    // Endpoint 0 is busy: it is taken only where both draws are of it.
    world.calm.active = [(0, 10)].into();
    let counts = world.count(16_000);
    about(counts[0], 1.0 / 16.0, 16_000);
    about(counts[1], 5.0 / 16.0, 16_000);
}

#[test]
fn weights_count_the_less_the_busier_an_endpoint_is() {
    let mut world = World::new(
        &set(&[(0, 1, &[1, 3])]),
        &balancer(LEAST),
        &policy(false, 50.0),
    );
    let counts = world.count(4000);
    assert!(counts[0].abs_diff(1000) <= 1, "{counts:?}");
    // 3 / (2 + 1) is as much as 1 / (0 + 1).
    world.calm.active = [(1, 2)].into();
    let counts = world.count(4000);
    assert!(counts[0].abs_diff(2000) <= 2, "{counts:?}");
}

#[test]
fn an_endpoint_that_warms_up_gets_its_part_of_the_share() {
    let mut warming = balancer(BalancerKind::RoundRobin);
    warming.warmup = Some(Warmup {
        window: std::time::Duration::from_secs(30),
        aggression: 1.0,
        minimum_percent: 10.0,
    });
    let mut world = World::new(&set(&[(0, 1, &[1, 1])]), &warming, &policy(false, 50.0));
    world.calm.shares = [(1, 0.25)].into();
    let counts = world.count(5000);
    assert!(counts[1].abs_diff(1000) <= 2, "{counts:?}");
}

#[test]
fn an_avoided_endpoint_is_taken_only_where_there_is_no_other() {
    let kinds = [
        BalancerKind::RoundRobin,
        LEAST,
        BalancerKind::Random,
        RING,
        MAGLEV,
    ];
    for kind in kinds {
        let mut world = World::new(
            &set(&[(0, 1, &[1, 1])]),
            &balancer(kind.clone()),
            &policy(false, 50.0),
        );
        world.calm.avoided = vec![0];
        let ask = Ask {
            hash: Some(42),
            retries: 64,
            excluded: 0,
        };
        let picked = world.table.pick(&ask, &world.calm, &mut world.random);
        assert_eq!(picked, Some(1), "{kind:?}");
        world.calm.avoided = vec![0, 1];
        assert!(
            world
                .table
                .pick(&ask, &world.calm, &mut world.random)
                .is_some()
        );
    }
}

#[test]
fn localities_share_by_weight_and_give_away_what_they_cannot_take() {
    let turns = balancer(BalancerKind::RoundRobin);
    let even = set(&[(0, 1, &[1, 1]), (0, 2, &[1, 1])]);
    let mut world = World::new(&even, &turns, &policy(true, 50.0));
    let counts = world.count(3000);
    assert!((counts[0] + counts[1]).abs_diff(1000) <= 1, "{counts:?}");
    // Envoy's documentation: half of Y (weight 2) is gone, so its weight is 2 × 70 %.
    let half = set(&[(0, 1, &[1, 1]), (0, 2, &[1, 0])]);
    let mut world = World::new(&half, &turns, &policy(true, 50.0));
    let counts = world.count(2400);
    assert!((counts[0] + counts[1]).abs_diff(1000) <= 2, "{counts:?}");
    // Where localities have no weights, all endpoints are alike.
    let mut world = World::new(&half, &turns, &policy(false, 50.0));
    assert_eq!(world.count(300), [100, 100, 100]);
}

#[test]
fn a_locality_without_weight_gets_nothing() {
    let sets = set(&[(0, 0, &[1, 1]), (0, 1, &[1])]);
    let mut world = World::new(&sets, &balancer(LEAST), &policy(true, 50.0));
    assert_eq!(world.count(100), [0, 0, 100]);
}

proptest! {
    /// Whatever the endpoints: only those that may be used are picked, as long as there is one.
    #[test]
    fn only_usable_endpoints_are_picked(
        localities in prop::collection::vec(
            (0_u32..3, 0_u32..4, prop::collection::vec(0_u32..4, 0..5)), 0..4),
        kind in prop::sample::select(vec![
            BalancerKind::RoundRobin, LEAST, BalancerKind::Random, RING,
            BalancerKind::Maglev { size: 251, by_hostname: false },
        ]),
        hash in any::<Option<u64>>(),
    ) {
        let description: Vec<_> = localities
            .iter()
            .map(|(priority, weight, endpoints)| (*priority, *weight, &endpoints[..]))
            .collect();
        let sets = set(&description);
        let health: Vec<_> = sets.localities.iter()
            .flat_map(|one| one.endpoints.iter().map(|endpoint| endpoint.health))
            .collect();
        let usable = health.contains(&Health::Healthy);
        let mut world = World::new(&sets, &balancer(kind), &policy(false, 0.0));
        for _ in 0..20 {
            let picked = world.pick(hash);
            prop_assert_eq!(picked.is_some(), usable);
            if let Some(index) = picked {
                prop_assert_eq!(health[index], Health::Healthy);
            }
        }
    }
}
