//! Priorities, degraded endpoints and panic, by the tables of Envoy's documentation.

use super::*;

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
