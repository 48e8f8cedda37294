//! A cluster's balancer by extension (`load_balancing_policy`) → what the older fields say of the
//! same: the first policy of the list that is known counts, as in Envoy, and none of them refuses the
//! cluster.

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::extensions::load_balancing_policies as policies;
use envoy_types::pb::google::protobuf::Any;
use pb::cluster::common_lb_config as common;
use pb::cluster::{CommonLbConfig, LbConfig, LbPolicy};
use policies::common::v3 as shared;

use crate::intake::error::{At as _, Refused, need};
use crate::intake::served::Notes;
use crate::intake::typed;
use crate::unserved;

/// How deep policies may stand inside each other.
const DEPTH: usize = 4;

/// A balancer as the older fields have it: `lb_policy` and `lb_config`.
type Older = (i32, Option<LbConfig>);

/// The balancer, and in `common` how localities share and hosts are hashed, which policies say of
/// themselves.
///
/// # Errors
/// No policy of the list is known, or one can't be read.
pub(super) fn policy(
    list: pb::LoadBalancingPolicy,
    common: &mut CommonLbConfig,
    notes: &mut Notes,
) -> Result<Older, Refused> {
    // What the cluster's own field says of it counts for `lb_policy` only.
    common.locality_config_specifier = None;
    common.consistent_hashing_lb_config = None;
    first(list, common, 0, notes).at("load_balancing_policy")
}

fn first(
    list: pb::LoadBalancingPolicy,
    common: &mut CommonLbConfig,
    depth: usize,
    notes: &mut Notes,
) -> Result<Older, Refused> {
    if depth >= DEPTH {
        return Err(Refused::new(format!("policies are more than {DEPTH} deep")));
    }
    let mut unknown = Vec::new();
    for (index, policy) in list.policies.into_iter().enumerate() {
        let pb::load_balancing_policy::Policy {
            typed_extension_config,
        } = policy;
        let one = || {
            let extension = need(typed_extension_config, "typed_extension_config")?;
            let config = need(
                extension.typed_config,
                "typed_extension_config.typed_config",
            )?;
            match one(&config, common, depth, notes) {
                Ok(Some(older)) => Ok(Some(older)),
                Ok(None) => {
                    unknown.push(typed::name(&config).to_owned());
                    Ok(None)
                }
                Err(refused) => Err(refused.under("typed_extension_config.typed_config")),
            }
        };
        if let Some(older) = one().item(index).at("policies")? {
            return Ok(older);
        }
    }
    let reason = format!("none of these is served: {}", unknown.join(", "));
    Err(Refused::new(reason).under("policies"))
}

/// None where the policy isn't known.
fn one(
    config: &Any,
    common: &mut CommonLbConfig,
    depth: usize,
    notes: &mut Notes,
) -> Result<Option<Older>, Refused> {
    let kind = typed::name(config);
    let kind = kind.strip_prefix("envoy.extensions.load_balancing_policies.");
    let older = match kind.unwrap_or_default() {
        "round_robin.v3.RoundRobin" => {
            let policies::round_robin::v3::RoundRobin {
                slow_start_config,
                locality_lb_config,
            } = typed::unpack(config, notes)?;
            localities(locality_lb_config, common, notes)?;
            let config = pb::cluster::RoundRobinLbConfig {
                slow_start_config: slow_start_config.map(slow_start),
            };
            (
                LbPolicy::RoundRobin,
                Some(LbConfig::RoundRobinLbConfig(config)),
            )
        }
        "least_request.v3.LeastRequest" => {
            #[expect(deprecated, reason = "every field is decided about")]
            let policies::least_request::v3::LeastRequest {
                choice_count,
                active_request_bias,
                slow_start_config,
                locality_lb_config,
                enable_full_scan,
                selection_method,
            } = typed::unpack(config, notes)?;
            unserved!(notes, "LeastRequest": enable_full_scan, selection_method);
            localities(locality_lb_config, common, notes)?;
            let config = pb::cluster::LeastRequestLbConfig {
                choice_count,
                active_request_bias,
                slow_start_config: slow_start_config.map(slow_start),
            };
            (
                LbPolicy::LeastRequest,
                Some(LbConfig::LeastRequestLbConfig(config)),
            )
        }
        "random.v3.Random" => {
            let policies::random::v3::Random { locality_lb_config } = typed::unpack(config, notes)?;
            localities(locality_lb_config, common, notes)?;
            (LbPolicy::Random, None)
        }
        "ring_hash.v3.RingHash" => {
            #[expect(
                deprecated,
                reason = "control planes of earlier versions send the old form"
            )]
            let policies::ring_hash::v3::RingHash {
                hash_function,
                minimum_ring_size,
                maximum_ring_size,
                use_hostname_for_hashing,
                hash_balance_factor,
                consistent_hashing_lb_config,
                locality_weighted_lb_config,
            } = typed::unpack(config, notes)?;
            let hashing =
                consistent_hashing_lb_config.unwrap_or_else(|| shared::ConsistentHashingLbConfig {
                    use_hostname_for_hashing,
                    hash_balance_factor,
                    ..Default::default()
                });
            consistent(hashing, common, notes)?;
            weighted(locality_weighted_lb_config.is_some(), common);
            let murmur = policies::ring_hash::v3::ring_hash::HashFunction::MurmurHash2;
            let config = pb::cluster::RingHashLbConfig {
                minimum_ring_size,
                hash_function: i32::from(hash_function == murmur as i32),
                maximum_ring_size,
            };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
        }
        "maglev.v3.Maglev" => {
            let policies::maglev::v3::Maglev {
                table_size,
                consistent_hashing_lb_config,
                locality_weighted_lb_config,
            } = typed::unpack(config, notes)?;
            let hashing = consistent_hashing_lb_config.unwrap_or_default();
            consistent(hashing, common, notes)?;
            weighted(locality_weighted_lb_config.is_some(), common);
            let config = pb::cluster::MaglevLbConfig { table_size };
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config)))
        }
        "wrr_locality.v3.WrrLocality" => {
            let policies::wrr_locality::v3::WrrLocality {
                endpoint_picking_policy,
            } = typed::unpack(config, notes)?;
            let field = "endpoint_picking_policy";
            let inner = first(
                need(endpoint_picking_policy, field)?,
                common,
                depth + 1,
                notes,
            );
            let inner = inner.at(field)?;
            weighted(true, common);
            return Ok(Some(inner));
        }
        "cluster_provided.v3.ClusterProvided" => (LbPolicy::ClusterProvided, None),
        _ => return Ok(None),
    };
    Ok(Some((older.0 as i32, older.1)))
}

fn slow_start(config: shared::SlowStartConfig) -> pb::cluster::SlowStartConfig {
    let shared::SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    } = config;
    pb::cluster::SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    }
}

fn localities(
    config: Option<shared::LocalityLbConfig>,
    common: &mut CommonLbConfig,
    notes: &mut Notes,
) -> Result<(), Refused> {
    use shared::locality_lb_config::LocalityConfigSpecifier as Specifier;

    match config.and_then(|config| config.locality_config_specifier) {
        None => {}
        Some(Specifier::LocalityWeightedLbConfig(_)) => weighted(true, common),
        Some(Specifier::ZoneAwareLbConfig(zone_aware)) => {
            let zone_aware_lb_config = Some(zone_aware);
            unserved!(notes, "CommonLbConfig": zone_aware_lb_config);
        }
    }
    Ok(())
}

fn weighted(weighted: bool, common: &mut CommonLbConfig) {
    if weighted {
        let config = common::LocalityWeightedLbConfig {};
        let specifier = common::LocalityConfigSpecifier::LocalityWeightedLbConfig(config);
        common.locality_config_specifier = Some(specifier);
    }
}

fn consistent(
    config: shared::ConsistentHashingLbConfig,
    common: &mut CommonLbConfig,
    notes: &mut Notes,
) -> Result<(), Refused> {
    let shared::ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
        hash_policy,
    } = config;
    unserved!(notes, "ConsistentHashingLbConfig": hash_policy);
    common.consistent_hashing_lb_config = Some(common::ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
    });
    Ok(())
}

#[cfg(test)]
mod tests;
