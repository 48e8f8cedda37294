//! Every policy that is served becomes the balancer that the older fields make.

use serde_json::{Value, json};

use super::*;
use crate::model::cluster::{Balancer, BalancerKind};
use crate::source::json::Descriptors;

fn extension(name: &str, mut config: Value) -> Value {
    config["@type"] =
        format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}").into();
    json!({"typed_extension_config": {"name": name, "typed_config": config}})
}

fn compile(policies: Value) -> Result<(Balancer, bool, Option<u32>), String> {
    let list = Descriptors::get()
        .message(json!({"policies": policies}))
        .unwrap();
    let mut common = CommonLbConfig::default();
    let notes = &mut Notes::default();
    let compiled = || {
        let (kind, config) = policy(list, &mut common, notes)?;
        let (locality, by_hostname) = super::super::balance::locality(common, notes)?;
        let balancer = super::super::balance::balancer(kind, config, by_hostname, notes)?;
        Ok((balancer, locality.weighted, locality.hash_balance_percent))
    };
    compiled().map_err(|refused: Refused| refused.to_string())
}

#[test]
fn each_policy_is_the_balancer_of_its_name() {
    let weighted = json!({"locality_weighted_lb_config": {}});
    let (balancer, localities, _) = compile(json!([extension(
        "round_robin.v3.RoundRobin",
        json!({"slow_start_config": {"slow_start_window": "30s"}, "locality_lb_config": weighted}),
    )]))
    .unwrap();
    assert!(matches!(balancer.kind, BalancerKind::RoundRobin));
    assert!(balancer.warmup.is_some() && localities);
    let (balancer, localities, _) = compile(json!([extension(
        "least_request.v3.LeastRequest",
        json!({"choice_count": 5}),
    )]))
    .unwrap();
    assert!(matches!(
        balancer.kind,
        BalancerKind::LeastRequest { choices: 5, .. }
    ));
    assert!(!localities);
    let (balancer, ..) = compile(json!([extension("random.v3.Random", json!({}))])).unwrap();
    assert!(matches!(balancer.kind, BalancerKind::Random));
    let hashing = json!({"use_hostname_for_hashing": true, "hash_balance_factor": 150});
    let (balancer, _, balance) = compile(json!([extension(
        "ring_hash.v3.RingHash",
        json!({"minimum_ring_size": 7, "consistent_hashing_lb_config": hashing}),
    )]))
    .unwrap();
    let ring = |kind| {
        matches!(
            kind,
            BalancerKind::RingHash {
                minimum: 7,
                by_hostname: true,
                ..
            }
        )
    };
    assert!(ring(balancer.kind));
    assert_eq!(balance, Some(150));
    let maglev = extension("maglev.v3.Maglev", json!({"table_size": 11}));
    let (balancer, ..) = compile(json!([maglev])).unwrap();
    assert!(matches!(
        balancer.kind,
        BalancerKind::Maglev { size: 11, .. }
    ));
}

#[test]
fn localities_by_weight_hold_another_policy() {
    let inner = json!({"policies": [extension("random.v3.Random", json!({}))]});
    let outer = extension(
        "wrr_locality.v3.WrrLocality",
        json!({"endpoint_picking_policy": inner}),
    );
    let (balancer, localities, _) = compile(json!([outer])).unwrap();
    assert!(matches!(balancer.kind, BalancerKind::Random) && localities);
}

#[test]
fn the_first_that_is_known_counts_and_one_must_be() {
    let unknown = extension("subset.v3.Subset", json!({}));
    let known = extension("random.v3.Random", json!({}));
    let (balancer, ..) = compile(json!([unknown, known])).unwrap();
    assert!(matches!(balancer.kind, BalancerKind::Random));
    let refused = compile(json!([unknown])).unwrap_err();
    assert!(
        refused.contains("none of these is served: envoy.extensions"),
        "{refused}"
    );
    assert!(
        compile(json!([]))
            .unwrap_err()
            .starts_with("load_balancing_policy.policies")
    );
    let bad = extension("maglev.v3.Maglev", json!({"table_size": 12}));
    assert!(compile(json!([bad])).unwrap_err().contains("no prime"));
}
