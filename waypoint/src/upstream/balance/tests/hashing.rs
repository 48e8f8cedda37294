//! Consistent hashing: Envoy's own ring, the shares of weights, bounds, and what little moves.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::upstream::balance::hashing;

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
    one.lb = vec![("hash_key".into(), "shard-7".into())].into();
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
}
