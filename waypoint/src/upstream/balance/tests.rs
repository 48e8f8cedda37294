//! Balancers against their definitions: counted shares, the documented tables of priorities and
//! localities, the promises of consistent hashing, and Envoy's own ring.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::model::cluster::Warmup;
use crate::model::endpoint::{Address, Endpoint, Locality};

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
        transport_match: Vec::new(),
        lb: Vec::new(),
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

/// How many requests of 100 each priority gets, from Envoy's documentation of priority levels with
/// an overprovisioning factor of 140: healthy percent of each priority, then traffic percent.
#[test]
fn priorities_share_as_envoy_documents() {
    let table: &[(&[u32], &[u8])] = &[
        (&[100, 100], &[100, 0]),
        (&[72, 72], &[100, 0]),
        (&[71, 71], &[99, 1]),
        (&[50, 50], &[70, 30]),
        (&[25, 100], &[35, 65]),
        (&[25, 25], &[50, 50]),
        (&[100, 100, 100], &[100, 0, 0]),
        (&[72, 72, 100], &[100, 0, 0]),
        (&[71, 71, 100], &[99, 1, 0]),
        (&[50, 50, 100], &[70, 30, 0]),
        (&[50, 25, 100], &[70, 30, 0]),
        (&[25, 25, 100], &[35, 35, 30]),
        (&[25, 25, 20], &[36, 35, 28]),
    ];
    for (healthy, shares) in table {
        let counts: Vec<_> = healthy
            .iter()
            .map(|healthy| Counts {
                healthy: *healthy,
                degraded: 0,
                out: 100 - healthy,
            })
            .collect();
        // Without panic, which the table leaves out.
        let loads = Loads::of(&counts, 140, 0.0, 0);
        let mut got = vec![0_u8; healthy.len()];
        for point in 0..100 {
            got[loads.choose(point).unwrap().0] += 1;
        }
        let far = got
            .iter()
            .zip(*shares)
            .any(|(got, wanted)| got.abs_diff(*wanted) > 1);
        assert!(!far, "{healthy:?}: {got:?} rather than {shares:?}");
    }
}

#[test]
fn degraded_endpoints_take_what_healthy_ones_of_any_priority_cannot() {
    // Envoy's documentation of degraded endpoints: 5 % healthy and 95 % degraded of one priority.
    let counts = [Counts {
        healthy: 5,
        degraded: 95,
        out: 0,
    }];
    let loads = Loads::of(&counts, 140, 50.0, 0);
    let healthy = (0..100).filter(|p| loads.choose(*p) == Some((0, Standing::Healthy)));
    assert_eq!(healthy.count(), 7);
}

#[test]
fn too_few_healthy_endpoints_mean_panic_unless_that_is_turned_off() {
    let sick = set(&[(0, 1, &[1, 0, 0, 0])]);
    let turns = balancer(BalancerKind::RoundRobin);
    let mut world = World::new(&sick, &turns, &policy(false, 50.0));
    assert_eq!(world.count(400), [100, 100, 100, 100]);
    let mut world = World::new(&sick, &turns, &policy(false, 0.0));
    assert_eq!(world.count(400), [400]);
    let dead = set(&[(0, 1, &[0, 0])]);
    assert_eq!(
        World::new(&dead, &turns, &policy(false, 0.0)).pick(None),
        None
    );
    assert!(
        World::new(&dead, &turns, &policy(false, 1.0))
            .pick(None)
            .is_some()
    );
    assert_eq!(
        World::new(&set(&[]), &turns, &policy(false, 50.0)).pick(None),
        None
    );
}

#[test]
fn panic_in_one_priority_is_averted_by_the_health_of_another() {
    // 25 % healthy here, all healthy there: Envoy never panics while the sum is 100 %.
    let sets = set(&[(0, 1, &[1, 0, 0, 0]), (1, 1, &[1, 1])]);
    let mut world = World::new(
        &sets,
        &balancer(BalancerKind::RoundRobin),
        &policy(false, 50.0),
    );
    let counts = world.count(10_000);
    about(counts[0], 0.35, 10_000);
    assert_eq!((counts[1], counts[2], counts[3]), (0, 0, 0));
}

#[test]
fn an_excluded_priority_gets_nothing_unless_all_are() {
    let sets = set(&[(0, 1, &[1]), (1, 1, &[1])]);
    let mut world = World::new(
        &sets,
        &balancer(BalancerKind::RoundRobin),
        &policy(false, 50.0),
    );
    let mut pick = |excluded| {
        let ask = Ask {
            excluded,
            ..Ask::default()
        };
        world.table.pick(&ask, &world.calm, &mut world.random)
    };
    assert_eq!((pick(0), pick(1), pick(3)), (Some(0), Some(1), Some(0)));
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

#[test]
fn a_ring_is_the_one_that_envoy_makes() {
    // xxHash64 of "10.0.0.1:80_0" and so on, in order: what Envoy hashes.
    let sets = set(&[(0, 1, &[1, 1])]);
    let kind = BalancerKind::RingHash {
        minimum: 4,
        maximum: 100,
        by_hostname: false,
    };
    let mut world = World::new(&sets, &balancer(kind), &policy(false, 50.0));
    let mut points = Vec::new();
    for (index, host) in ["10.0.0.1:80", "10.0.0.2:80"].iter().enumerate() {
        for number in 0..2 {
            let key = format!("{host}_{number}");
            points.push((xxhash_rust::xxh64::xxh64(key.as_bytes(), 0), index));
        }
    }
    points.sort_unstable();
    for (point, index) in &points {
        assert_eq!(world.pick(Some(*point)), Some(*index));
        let after = points
            .iter()
            .find(|(other, _)| other > point)
            .unwrap_or(&points[0]);
        assert_eq!(world.pick(Some(point.wrapping_add(1))), Some(after.1));
    }
}

#[test]
fn a_hash_key_or_host_name_takes_the_place_of_the_address() {
    let mut one = (*endpoint(1, 1, Health::Healthy)).clone();
    assert_eq!(hashing::hash_key(&one, true), "10.0.0.1:80");
    one.hostname = "pod-0".into();
    assert_eq!(hashing::hash_key(&one, true), "pod-0");
    assert_eq!(hashing::hash_key(&one, false), "10.0.0.1:80");
    one.lb = vec![("hash_key".into(), "shard-7".into())];
    assert_eq!(hashing::hash_key(&one, true), "shard-7");
    one.lb.clear();
    one.address = Address::Tunnel {
        to: "10.0.0.1:80".parse().unwrap(),
        via: "10.0.0.1:15008".parse().unwrap(),
    };
    let key = hashing::hash_key(&one, false);
    assert_eq!(key, "envoy://connect_originate/10.0.0.1:80");
}

#[test]
fn hashes_are_spread_by_weight() {
    for kind in [RING, MAGLEV] {
        let sets = set(&[(0, 1, &[1, 3])]);
        let mut world = World::new(&sets, &balancer(kind.clone()), &policy(false, 50.0));
        let mut random = StdRng::seed_from_u64(3);
        let picks = 20_000;
        let first = (0..picks).filter(|_| world.pick(Some(Rng::random(&mut random))) == Some(0));
        let share = first.count() as f64 / f64::from(picks);
        // A ring of 1,024 points is uneven by a few percent, by its nature.
        assert!((0.20..0.30).contains(&share), "{kind:?}: {share}");
    }
}

#[test]
fn no_endpoint_has_more_than_its_bound_of_the_load() {
    for kind in [RING, MAGLEV] {
        let mut bounded = policy(false, 50.0);
        bounded.hash_balance_percent = Some(120);
        let sets = set(&[(0, 1, &[1, 1, 1, 1])]);
        let mut world = World::new(&sets, &balancer(kind), &bounded);
        // Every request has the same hash, and none ends.
        for _ in 0..100 {
            let index = world.pick(Some(99)).unwrap();
            *world.calm.active.entry(index).or_default() += 1;
        }
        let most = world.calm.active.values().max().copied();
        assert!(most <= Some(31), "{:?}", world.calm.active);
    }
}

proptest! {
    /// A hash stays with its endpoint while others come and go, but for the share they had.
    #[test]
    fn an_endpoint_that_leaves_moves_little_more_than_its_own_hashes(
        count in 3_usize..12, leaves in 0_usize..12, maglev in any::<bool>(),
    ) {
        let leaves = leaves % count;
        let kind = if maglev { MAGLEV } else { RING };
        let weights = vec![1; count];
        let all = set(&[(0, 1, &weights)]);
        let mut fewer = set(&[(0, 1, &weights)]);
        fewer.localities[0].endpoints.remove(leaves);
        let name = |set: &EndpointSet, index: usize| {
            set.localities[0].endpoints[index].address.clone()
        };
        let mut before = World::new(&all, &balancer(kind.clone()), &policy(false, 50.0));
        let mut after = World::new(&fewer, &balancer(kind), &policy(false, 50.0));
        let mut random = StdRng::seed_from_u64(11);
        let mut moved = 0;
        let hashes = 2000;
        for _ in 0..hashes {
            let hash = Rng::random(&mut random);
            let was = before.pick(Some(hash)).unwrap();
            let is = after.pick(Some(hash)).unwrap();
            if was != leaves && name(&all, was) != name(&fewer, is) {
                moved += 1;
            }
        }
        // A ring keeps its size, so those that stay get further points, which take some hashes from
        // each other; Maglev trades as much for its evenness.
        let most = hashes / count;
        prop_assert!(moved <= most, "{moved} of {hashes} moved");
    }

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
