//! Envoy's retry policies → [`model::route::Retry`](crate::model::route::Retry).

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use http::StatusCode;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{plain, text, typed};
use crate::model::route::{Retry, RetryOn};
use crate::unserved;

/// Envoy's first pause, and how much longer the longest is where none is given.
const BASE: Duration = Duration::from_millis(25);
const LONGEST: u32 = 10;

/// A retry policy.
///
/// # Errors
/// A status, pause or matcher of it is none.
pub(super) fn policy(policy: route::RetryPolicy, notes: &mut Notes) -> Result<Retry, Refused> {
    let route::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = policy;
    unserved!(notes, "RetryPolicy":
        retry_options_predicates, rate_limited_retry_back_off, refresh_cluster_on_retry);
    let mut statuses = each("retriable_status_codes", retriable_status_codes, |status| {
        plain::status(status, 100, 599)
    })?;
    let on = conditions(&retry_on, &mut statuses, notes);
    let (backoff_base, backoff_max) = backoff(retry_back_off).at("retry_back_off")?;
    let attempts = host_selection_retry_max_attempts;
    let host_attempts = u32::try_from(attempts).map_err(|_| {
        let reason = format!("{attempts} is no number of attempts");
        Refused::new(reason).under("host_selection_retry_max_attempts")
    })?;
    let mut avoid_previous_hosts = false;
    for predicate in retry_host_predicate {
        avoid_previous_hosts |= previous_hosts(&predicate, notes);
    }
    Ok(Retry {
        on,
        retries: plain::number(num_retries).unwrap_or(1),
        per_try_timeout: plain::limit(per_try_timeout, "per_try_timeout")?,
        per_try_idle_timeout: plain::limit(per_try_idle_timeout, "per_try_idle_timeout")?,
        statuses,
        headers: each("retriable_headers", retriable_headers, text::header)?,
        request_headers: each(
            "retriable_request_headers",
            retriable_request_headers,
            text::header,
        )?,
        avoid_previous_hosts,
        host_attempts: host_attempts.max(1),
        previous_priorities: match retry_priority {
            None => None,
            Some(priority) => previous_priorities(priority, notes).at("retry_priority")?,
        },
        backoff_base,
        backoff_max,
    })
}

/// Conditions by their names, separated by commas. A number is a status that may be retried.
fn conditions(names: &str, statuses: &mut Vec<StatusCode>, notes: &mut Notes) -> RetryOn {
    let mut on = RetryOn::default();
    for name in names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let condition = match name {
            "5xx" => &mut on.server_error,
            "gateway-error" => &mut on.gateway_error,
            "reset" => &mut on.reset,
            "reset-before-request" => &mut on.reset_before_request,
            "connect-failure" => &mut on.connect_failure,
            "envoy-ratelimited" => &mut on.envoy_ratelimited,
            "retriable-4xx" => &mut on.retriable_4xx,
            "refused-stream" => &mut on.refused_stream,
            "retriable-status-codes" => &mut on.retriable_status_codes,
            "retriable-headers" => &mut on.retriable_headers,
            "http3-post-connect-failure" => &mut on.http3_post_connect_failure,
            "cancelled" => &mut on.grpc_cancelled,
            "deadline-exceeded" => &mut on.grpc_deadline_exceeded,
            "internal" => &mut on.grpc_internal,
            "resource-exhausted" => &mut on.grpc_resource_exhausted,
            "unavailable" => &mut on.grpc_unavailable,
            _ => match name
                .parse()
                .ok()
                .and_then(|number| plain::status(number, 100, 599).ok())
            {
                Some(status) => {
                    statuses.push(status);
                    &mut on.retriable_status_codes
                }
                None => {
                    notes.count(
                        format!("RetryPolicy.retry_on {name:?}"),
                        "Envoy has no such condition and passes it over too",
                    );
                    continue;
                }
            },
        };
        *condition = true;
    }
    on
}

fn backoff(
    backoff: Option<route::retry_policy::RetryBackOff>,
) -> Result<(Duration, Duration), Refused> {
    let Some(route::retry_policy::RetryBackOff {
        base_interval,
        max_interval,
    }) = backoff
    else {
        return Ok((BASE, BASE * LONGEST));
    };
    let base = plain::duration(need(base_interval, "base_interval")?).at("base_interval")?;
    if base.is_zero() {
        return Err(Refused::new("must be more than nothing").under("base_interval"));
    }
    let base = base.max(Duration::from_millis(1));
    match plain::maybe_duration(max_interval, "max_interval")? {
        None => Ok((base, base.saturating_mul(LONGEST))),
        Some(longest) if longest >= base => Ok((base, longest)),
        Some(_) => {
            let reason = "the longest pause is shorter than the first";
            Err(Refused::new(reason).under("max_interval"))
        }
    }
}

fn previous_hosts(predicate: &route::retry_policy::RetryHostPredicate, notes: &mut Notes) -> bool {
    use route::retry_policy::retry_host_predicate::ConfigType::TypedConfig;

    let route::retry_policy::RetryHostPredicate { name, config_type } = predicate;
    let kind = match config_type {
        Some(TypedConfig(config)) => typed::name(config),
        None => name.as_str(),
    };
    match kind {
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        | "envoy.retry_host_predicates.previous_hosts" => true,
        other => {
            notes.count(other, "hosts are only avoided because they were tried");
            false
        }
    }
}

fn previous_priorities(
    priority: route::retry_policy::RetryPriority,
    notes: &mut Notes,
) -> Result<Option<u32>, Refused> {
    let route::retry_policy::RetryPriority {
        name: _,
        config_type,
    } = priority;
    let route::retry_policy::retry_priority::ConfigType::TypedConfig(config) =
        need(config_type, "typed_config")?;
    let known = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    if typed::name(&config) != known {
        notes.count(
            typed::name(&config),
            "priorities are changed by attempts only",
        );
        return Ok(None);
    }
    let PreviousPrioritiesConfig { update_frequency } =
        typed::unpack(&config, notes).at("typed_config")?;
    match u32::try_from(update_frequency) {
        Ok(frequency) if frequency > 0 => Ok(Some(frequency)),
        _ => {
            let reason = format!("{update_frequency} is no number of attempts");
            Err(Refused::new(reason).under("typed_config.update_frequency"))
        }
    }
}

#[cfg(test)]
mod tests;
