//! How a cluster's endpoints are chosen.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::cluster as pb;
use envoy_types::pb::envoy::config::core::v3 as core;

use crate::intake::error::{At as _, Refused};
use crate::intake::plain;
use crate::intake::served::Notes;
use crate::model::cluster::{Balancer, BalancerKind, LocalityPolicy, Warmup};
use crate::unserved;

/// Below this share of healthy endpoints health is ignored, in percent, unless said.
const PANIC_THRESHOLD: f64 = 50.0;
/// How many endpoints are compared, unless said.
const CHOICES: u32 = 2;
/// Points of a ring, unless said.
const RING: (u64, u64) = (1024, 8 << 20);
/// Entries of a table, unless said: a prime.
const TABLE: u64 = 65_537;
/// The largest table; Envoy's own limit.
const LARGEST_TABLE: u64 = 5_000_011;
/// The smallest share of an endpoint that warms up, in percent, unless said.
const WARMUP_MINIMUM: f64 = 10.0;

/// What a cluster says of balancing, apart from what says where hosts come from.
pub(super) fn split(
    config: Option<pb::LbConfig>,
) -> (Option<pb::LbConfig>, Option<pb::OriginalDstLbConfig>) {
    match config {
        Some(pb::LbConfig::OriginalDstLbConfig(original)) => (None, Some(original)),
        other => (other, None),
    }
}

pub(super) fn balancer(
    policy: i32,
    config: Option<pb::LbConfig>,
    by_hostname: bool,
    notes: &mut Notes,
) -> Result<Balancer, Refused> {
    use pb::LbPolicy as Policy;
    let policy = Policy::try_from(policy)
        .map_err(|_| Refused::new(format!("{policy} is no balancer")).under("lb_policy"))?;
    let (kind, warmup) = match (policy, config) {
        (Policy::RoundRobin, config) => {
            let warmup = match config {
                Some(pb::LbConfig::RoundRobinLbConfig(pb::RoundRobinLbConfig {
                    slow_start_config,
                })) => slow_start_config,
                _ => None,
            };
            (BalancerKind::RoundRobin, warmup)
        }
        (Policy::LeastRequest, config) => {
            let pb::LeastRequestLbConfig {
                choice_count,
                active_request_bias,
                slow_start_config,
            } = match config {
                Some(pb::LbConfig::LeastRequestLbConfig(config)) => config,
                _ => pb::LeastRequestLbConfig::default(),
            };
            let kind = BalancerKind::LeastRequest {
                choices: plain::number(choice_count).unwrap_or(CHOICES).max(2),
                active_bias: double(active_request_bias, 1.0).at("active_request_bias")?,
            };
            (kind, slow_start_config)
        }
        (Policy::RingHash, config) => {
            let pb::RingHashLbConfig {
                minimum_ring_size,
                hash_function,
                maximum_ring_size,
            } = match config {
                Some(pb::LbConfig::RingHashLbConfig(config)) => config,
                _ => pb::RingHashLbConfig::default(),
            };
            unserved!(notes, "RingHashLbConfig": hash_function);
            let maximum = maximum_ring_size
                .map_or(RING.1, |size| size.value)
                .min(RING.1);
            let minimum = minimum_ring_size.map_or(RING.0, |size| size.value);
            if minimum > maximum {
                let reason = format!("the smallest ring, {minimum}, is larger than the largest");
                return Err(Refused::new(reason).under("ring_hash_lb_config.minimum_ring_size"));
            }
            let kind = BalancerKind::RingHash {
                minimum,
                maximum,
                by_hostname,
            };
            (kind, None)
        }
        (Policy::Maglev, config) => {
            let size = match config {
                Some(pb::LbConfig::MaglevLbConfig(pb::MaglevLbConfig { table_size })) => table_size,
                _ => None,
            };
            let size = size.map_or(TABLE, |size| size.value);
            if size > LARGEST_TABLE || !is_prime(size) {
                let reason = format!("{size} is no prime up to {LARGEST_TABLE}");
                return Err(Refused::new(reason).under("maglev_lb_config.table_size"));
            }
            (BalancerKind::Maglev { size, by_hostname }, None)
        }
        (Policy::Random, _) => (BalancerKind::Random, None),
        (Policy::ClusterProvided, _) => (BalancerKind::Provided, None),
        (Policy::LoadBalancingPolicyConfig, _) => {
            let reason = "balancers are chosen by lb_policy";
            return Err(Refused::new(reason).under("lb_policy"));
        }
    };
    let warmup = warmup
        .map(self::warmup)
        .transpose()
        .at("slow_start_config")?;
    Ok(Balancer {
        kind,
        warmup: warmup.flatten(),
    })
}

fn warmup(config: pb::SlowStartConfig) -> Result<Option<Warmup>, Refused> {
    let pb::SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    } = config;
    let window = plain::limit(slow_start_window, "slow_start_window")?;
    let aggression = double(aggression, 1.0).at("aggression")?;
    let minimum = min_weight_percent.map_or(WARMUP_MINIMUM, |percent| percent.value);
    Ok(window.map(|window: Duration| Warmup {
        window,
        aggression,
        minimum_percent: minimum.clamp(0.0, 100.0),
    }))
}

/// How localities share, and whether consistent balancers place hosts by their names.
pub(super) fn locality(
    config: crate::intake::cluster::pb::cluster::CommonLbConfig,
    notes: &mut Notes,
) -> Result<(LocalityPolicy, bool), Refused> {
    use pb::common_lb_config::LocalityConfigSpecifier as Specifier;
    let pb::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = config;
    unserved!(notes, "CommonLbConfig":
        update_merge_window, ignore_new_hosts_until_first_hc, close_connections_on_host_set_change,
        override_host_status);
    let weighted = match locality_config_specifier {
        Some(Specifier::LocalityWeightedLbConfig(
            pb::common_lb_config::LocalityWeightedLbConfig {},
        )) => true,
        None => false,
        Some(Specifier::ZoneAwareLbConfig(zone_aware)) => {
            let zone_aware_lb_config = Some(zone_aware);
            unserved!(notes, "CommonLbConfig": zone_aware_lb_config);
            false
        }
    };
    let pb::common_lb_config::ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
    } = consistent_hashing_lb_config.unwrap_or_default();
    let panic = healthy_panic_threshold.map_or(PANIC_THRESHOLD, |percent| percent.value);
    let policy = LocalityPolicy {
        weighted,
        panic_threshold: panic.clamp(0.0, 100.0),
        hash_balance_percent: plain::number(hash_balance_factor).filter(|factor| *factor > 0),
    };
    Ok((policy, use_hostname_for_hashing))
}

/// A number that Envoy could change at run time, and we don't.
fn double(value: Option<core::RuntimeDouble>, otherwise: f64) -> Result<f64, Refused> {
    let value = value.map_or(otherwise, |value| value.default_value);
    match value.is_finite() && value >= 0.0 {
        true => Ok(value),
        false => Err(Refused::new(format!("{value} is no number from 0"))),
    }
}

fn is_prime(number: u64) -> bool {
    let divides = |divisor: u64| number.is_multiple_of(divisor);
    number > 1
        && !(2..)
            .take_while(|divisor| divisor * divisor <= number)
            .any(divides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<_> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(TABLE) && is_prime(LARGEST_TABLE));
    }
}
