//! How often, when and where a request is tried again. (istio/istio, `core/route/retry`)

use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::super::api::{any, duration, number, parsed, route};
use crate::objects::virtual_service::HttpRetry;

/// Istio's usual reasons to try again.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// How often and when a request is tried again; `None` where it is not.
pub(super) fn retries(said: Option<&HttpRetry>, sticky: bool) -> Option<route::RetryPolicy> {
    let previous_hosts = || route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(
            route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate {},
            )),
        ),
    };
    let mut policy = route::RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: number(2),
        retry_host_predicate: if sticky {
            Vec::new()
        } else {
            vec![previous_hosts()]
        },
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    };
    let Some(said) = said else {
        return Some(policy);
    };
    policy.num_retries = number(
        u32::try_from(said.attempts)
            .ok()
            .filter(|attempts| *attempts > 0)?,
    );
    if !said.retry_on.is_empty() {
        let parts = said
            .retry_on
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let (codes, words): (Vec<&str>, Vec<&str>) =
            parts.partition(|part| part.parse::<u32>().is_ok());
        policy.retriable_status_codes = codes.iter().filter_map(|code| code.parse().ok()).collect();
        policy.retry_on = words.join(",");
        if !codes.is_empty() && !words.contains(&"retriable-status-codes") {
            policy.retry_on.push_str(",retriable-status-codes");
        }
    }
    policy.per_try_timeout = parsed(said.per_try_timeout);
    if let Some(elsewhere) = said.retry_ignore_previous_hosts {
        policy.retry_host_predicate = if elsewhere {
            vec![previous_hosts()]
        } else {
            Vec::new()
        };
    }
    if said.retry_remote_localities == Some(true) {
        let config = PreviousPrioritiesConfig {
            update_frequency: 2,
        };
        policy.retry_priority = Some(route::retry_policy::RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(
                route::retry_policy::retry_priority::ConfigType::TypedConfig(any(&config)),
            ),
        });
    }
    policy.retry_back_off = said.backoff.map(|first| route::retry_policy::RetryBackOff {
        base_interval: Some(duration(first.0)),
        ..Default::default()
    });
    Some(policy)
}
