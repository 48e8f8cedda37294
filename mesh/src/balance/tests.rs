//! Choices: fair by capacity, near where asked for, never an endpoint that won't do.

use std::collections::HashMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::proto::workload as proto;

/// A workload at `region/zone/subzone/node`.
fn at(name: &str, place: &str, capacity: u32) -> Arc<Workload> {
    let mut parts = place.split('/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let message = proto::Workload {
        uid: name.to_owned(),
        namespace: "default".to_owned(),
        locality: Some(proto::Locality {
            region: part(),
            zone: part(),
            subzone: part(),
        }),
        node: part(),
        capacity: Some(capacity),
        ..proto::Workload::default()
    };
    Arc::new(Workload::try_from(message).unwrap())
}

fn endpoints(of: &[(&str, &str, u32)]) -> Vec<Endpoint> {
    let endpoint = |(name, place, capacity): &(&str, &str, u32)| Endpoint {
        workload: at(name, place, *capacity),
        ports: Vec::new(),
    };
    of.iter().map(endpoint).collect()
}

fn rules(mode: Mode, preference: &[Scope]) -> LoadBalancing {
    LoadBalancing {
        mode,
        preference: preference.to_vec(),
        ..LoadBalancing::default()
    }
}

/// How often each endpoint is chosen in `n` draws.
fn draws(
    n: usize,
    endpoints: &[Endpoint],
    rules: &LoadBalancing,
    usable: impl Fn(&Endpoint) -> bool,
) -> HashMap<String, usize> {
    let caller = at("caller", "r1/z1/s1/n1", 1);
    let mut rng = StdRng::seed_from_u64(7);
    let mut counts = HashMap::new();
    for _ in 0..n {
        let candidates = Candidates {
            endpoints,
            most_capacity: endpoints
                .iter()
                .map(|e| e.workload.capacity)
                .max()
                .unwrap_or(0),
        };
        if let Some(chosen) = choose(candidates, &caller, rules, &usable, &mut rng) {
            *counts.entry(chosen.workload.uid.to_string()).or_default() += 1;
        }
    }
    counts
}

fn chosen(of: &[(&str, &str, u32)], rules: &LoadBalancing) -> Vec<String> {
    let mut names: Vec<_> = draws(200, &endpoints(of), rules, |_| true)
        .into_keys()
        .collect();
    names.sort();
    names
}

#[test]
fn nobody_to_choose() {
    assert!(chosen(&[], &LoadBalancing::default()).is_empty());
    assert!(
        chosen(&[("a", "", 0)], &LoadBalancing::default()).is_empty(),
        "no capacity"
    );
}

/// The quick draws and the full pass must not differ in what they prefer: few endpoints take only
/// the pass, many usable ones only draws, many unusable ones both.
#[test]
fn shares_follow_capacity() {
    let few = endpoints(&[("a", "", 1), ("b", "", 3)]);
    let unusable = (0..60).map(|i| (format!("x{i}"), 3));
    let mut many = few.clone();
    many.extend(unusable.map(|(name, capacity)| Endpoint {
        workload: at(&name, "", capacity),
        ports: Vec::new(),
    }));
    for (case, endpoints) in [("few", few), ("many", many)] {
        let usable = |e: &Endpoint| !e.workload.uid.as_str().starts_with('x');
        let counts = draws(20_000, &endpoints, &LoadBalancing::default(), usable);
        let share = counts["b"] as f64 / 20_000.0;
        assert!(
            (share - 0.75).abs() < 0.02,
            "{case}: b has {share}, not 3 of 4"
        );
        assert_eq!(counts.len(), 2, "{case}: an unusable endpoint was chosen");
    }
}

#[test]
fn many_endpoints_are_all_chosen() {
    let names: Vec<String> = (0..100).map(|i| format!("e{i}")).collect();
    let of: Vec<_> = names.iter().map(|name| (&**name, "", 1)).collect();
    let counts = draws(20_000, &endpoints(&of), &LoadBalancing::default(), |_| true);
    assert_eq!(counts.len(), 100);
    assert!(
        counts.values().all(|n| (120..290).contains(n)),
        "far from 200 each: {counts:?}"
    );
}

#[test]
fn failover_takes_the_nearest_there_are() {
    let failover = rules(
        Mode::Failover,
        &[Scope::Region, Scope::Zone, Scope::Subzone],
    );
    let here = ("here", "r1/z1/s1", 1);
    let zone = ("zone", "r1/z1/s2", 1);
    let region = ("region", "r1/z2/s1", 1);
    let away = ("away", "r2/z1/s1", 1);
    assert_eq!(chosen(&[away, region, zone, here], &failover), ["here"]);
    assert_eq!(chosen(&[away, region, zone], &failover), ["zone"]);
    assert_eq!(chosen(&[away, region], &failover), ["region"]);
    assert_eq!(
        chosen(&[away], &failover),
        ["away"],
        "same zone and subzone of another region"
    );
    let spent = ("here", "r1/z1/s1", 0);
    assert_eq!(
        chosen(&[spent, region], &failover),
        ["region"],
        "no capacity left nearby"
    );
}

#[test]
fn strict_takes_only_full_matches() {
    let strict = rules(Mode::Strict, &[Scope::Region, Scope::Zone]);
    let here = ("here", "r1/z1/s9", 1);
    let near = ("near", "r1/z2/s1", 1);
    assert_eq!(chosen(&[near, here], &strict), ["here"]);
    assert!(chosen(&[near], &strict).is_empty());
}

#[test]
fn a_preference_without_a_mode_says_nothing() {
    let any = rules(Mode::Any, &[Scope::Region]);
    assert_eq!(chosen(&[("a", "r1", 1), ("b", "r2", 1)], &any), ["a", "b"]);
}

#[test]
fn each_scope_compares_its_own_place() {
    let strict = |scope| rules(Mode::Strict, &[scope]);
    for (scope, near, far) in [
        (Scope::Region, "r1/x/x/x", "x/z1/s1/n1"),
        (Scope::Zone, "x/z1/x/x", "r1/x/s1/n1"),
        (Scope::Subzone, "x/x/s1/x", "r1/z1/x/n1"),
        (Scope::Node, "x/x/x/n1", "r1/z1/s1/x"),
    ] {
        let found = chosen(&[("near", near, 1), ("far", far, 1)], &strict(scope));
        assert_eq!(found, ["near"], "{scope:?}");
    }
    let with = |set: fn(&mut Workload)| {
        let mut workload = (*at("far", "r1/z1/s1/n1", 1)).clone();
        set(&mut workload);
        let far = Endpoint {
            workload: Arc::new(workload),
            ports: Vec::new(),
        };
        let mut both = endpoints(&[("near", "r1/z1/s1/n1", 1)]);
        both.push(far);
        both
    };
    let far_cluster = with(|w| w.cluster = "other".into());
    let far_network = with(|w| w.network = crate::address::Network::new("other"));
    for (scope, both) in [(Scope::Cluster, far_cluster), (Scope::Network, far_network)] {
        let counts = draws(100, &both, &strict(scope), |_| true);
        assert_eq!(
            counts.into_keys().collect::<Vec<_>>(),
            ["near"],
            "{scope:?}"
        );
    }
}

proptest! {
    /// Whatever is chosen is usable, has capacity, and no usable endpoint is nearer; if nothing is
    /// chosen, nothing would do.
    #[test]
    fn the_choice_is_among_the_best(
        places in prop::collection::vec((0..3_u8, 0..3_u8, 0..4_u32, any::<bool>()), 0..40),
        mode in prop::sample::select(vec![Mode::Any, Mode::Strict, Mode::Failover]),
        seed in any::<u64>(),
    ) {
        let caller = at("caller", "r1/z1", 1);
        let all: Vec<_> = places.iter().enumerate().map(|(i, (region, zone, capacity, usable))| {
            let name = format!("{i}{}", if *usable { "" } else { "x" });
            let workload = at(&name, &format!("r{region}/z{zone}"), *capacity);
            Endpoint { workload, ports: Vec::new() }
        }).collect();
        let rules = rules(mode, &[Scope::Region, Scope::Zone]);
        let usable = |e: &Endpoint| !e.workload.uid.as_str().ends_with('x');
        let rank = |e: &Endpoint| match (&*e.workload.locality.region, &*e.workload.locality.zone) {
            ("r1", "z1") => 2,
            ("r1", _) => 1,
            _ => 0,
        };
        let good = |e: &&Endpoint| usable(e) && e.workload.capacity > 0;
        let best = all.iter().filter(good).map(rank).max();
        let expected = match (mode, best) {
            (_, None) => None,
            (Mode::Any, _) => Some(0),
            (Mode::Strict, Some(best)) => (best == 2).then_some(2),
            (_, Some(best)) => Some(best),
        };
        let candidates = Candidates { endpoints: &all, most_capacity: 3 };
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = choose(candidates, &caller, &rules, usable, &mut rng);
        prop_assert_eq!(chosen.is_some(), expected.is_some());
        if let (Some(chosen), Some(expected)) = (chosen, expected) {
            prop_assert!(good(&chosen) && rank(chosen) >= expected);
        }
    }
}
