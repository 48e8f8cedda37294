//! What a cluster's endpoints are spared: limits at a time, and pauses after failures.

use std::borrow::Cow;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::common::matcher::v3::MatchPredicate;
use envoy_types::pb::envoy::config::common::matcher::v3::match_predicate::Rule;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;

use crate::head::values_match;
use crate::intake::error::{At as _, Refused, each};
use crate::intake::served::Notes;
use crate::intake::{plain, text};
use crate::model::cluster::{Breakers, Outlier, Percent, Statuses};
use crate::unserved;

/// Envoy's limits where a cluster says nothing of them: connections, waiting requests, requests.
const LIMIT: u32 = 1024;
/// The same for retries.
const RETRIES: u32 = 3;
/// A budget's share, in percent, unless said.
const BUDGET: f64 = 20.0;

pub(super) fn breakers(
    breakers: Option<pb::CircuitBreakers>,
    notes: &mut Notes,
) -> Result<Breakers, Refused> {
    let pb::CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = breakers.unwrap_or_default();
    unserved!(notes, "CircuitBreakers": per_host_thresholds);
    let mut default = None;
    each("thresholds", thresholds, |thresholds| {
        if thresholds.priority == RoutingPriority::Default as i32 {
            // The last one counts, as in Envoy.
            default = Some(limits(thresholds, notes)?);
        } else {
            let reason = "every request has the default priority";
            notes.count("Thresholds.priority", reason);
        }
        Ok(())
    })?;
    match default {
        Some(default) => Ok(default),
        None => limits(pb::circuit_breakers::Thresholds::default(), notes),
    }
}

fn limits(
    thresholds: pb::circuit_breakers::Thresholds,
    notes: &mut Notes,
) -> Result<Breakers, Refused> {
    let pb::circuit_breakers::Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = thresholds;
    unserved!(notes, "Thresholds": track_remaining, max_connection_pools);
    let retry_budget = match retry_budget {
        None => None,
        Some(pb::circuit_breakers::thresholds::RetryBudget {
            budget_percent,
            budget_interval,
            min_retry_concurrency,
        }) => {
            unserved!(notes, "Thresholds": budget_interval);
            let share = budget_percent.map_or(BUDGET, |percent| percent.value);
            if !(0.0..=100.0).contains(&share) {
                let reason = format!("{share} is no percentage");
                return Err(Refused::new(reason).under("retry_budget.budget_percent"));
            }
            let least = plain::number(min_retry_concurrency).unwrap_or(RETRIES);
            Some((Percent(share), least))
        }
    };
    Ok(Breakers {
        connections: plain::number(max_connections).unwrap_or(LIMIT),
        pending: plain::number(max_pending_requests).unwrap_or(LIMIT),
        requests: plain::number(max_requests).unwrap_or(LIMIT),
        retries: plain::number(max_retries).unwrap_or(RETRIES),
        retry_budget,
    })
}

pub(super) fn outlier(
    outlier: pb::OutlierDetection,
    notes: &mut Notes,
) -> Result<Outlier, Refused> {
    let pb::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = outlier;
    let some = |value| plain::number(value).unwrap_or(0);
    let enforcing_local_origin_success_rate = some(enforcing_local_origin_success_rate);
    let enforcing_failure_percentage_local_origin = some(enforcing_failure_percentage_local_origin);
    let detect_degraded_hosts = plain::on(detect_degraded_hosts);
    unserved!(notes, "OutlierDetection":
        enforcing_local_origin_success_rate, enforcing_failure_percentage_local_origin,
        max_ejection_time_jitter, successful_active_health_check_uneject_host, monitors,
        detect_degraded_hosts);
    let seconds = Duration::from_secs;
    let interval = plain::maybe_duration(interval, "interval")?;
    let base = plain::maybe_duration(base_ejection_time, "base_ejection_time")?;
    let base = base.unwrap_or(seconds(30));
    let longest = plain::maybe_duration(max_ejection_time, "max_ejection_time")?;
    let percent = |value, otherwise| plain::number(value).unwrap_or(otherwise).min(100);
    let count = |value, otherwise| plain::number(value).unwrap_or(otherwise);
    Ok(Outlier {
        consecutive_5xx: count(consecutive_5xx, 5),
        enforcing_consecutive_5xx: percent(enforcing_consecutive_5xx, 100),
        consecutive_gateway_failure: count(consecutive_gateway_failure, 5),
        enforcing_consecutive_gateway_failure: percent(enforcing_consecutive_gateway_failure, 0),
        split_external_local: split_external_local_origin_errors,
        consecutive_local_origin_failure: count(consecutive_local_origin_failure, 5),
        enforcing_consecutive_local_origin_failure: percent(
            enforcing_consecutive_local_origin_failure,
            100,
        ),
        interval: interval.filter(|it| !it.is_zero()).unwrap_or(seconds(10)),
        base_ejection_time: base,
        max_ejection_time: longest.unwrap_or(seconds(300)).max(base),
        max_ejection_percent: percent(max_ejection_percent, 10),
        always_eject_one: plain::on(always_eject_one_host),
        enforcing_success_rate: percent(enforcing_success_rate, 100),
        success_rate_minimum_hosts: count(success_rate_minimum_hosts, 5),
        success_rate_request_volume: count(success_rate_request_volume, 100),
        success_rate_stdev_factor: count(success_rate_stdev_factor, 1900),
        enforcing_failure_percentage: percent(enforcing_failure_percentage, 0),
        failure_percentage_threshold: percent(failure_percentage_threshold, 85),
        failure_percentage_minimum_hosts: count(failure_percentage_minimum_hosts, 5),
        failure_percentage_request_volume: count(failure_percentage_request_volume, 50),
        errors: None,
    })
}

/// The statuses that count as errors: the matcher's answer about each, since it may look at nothing
/// else.
///
/// # Errors
/// It looks at something else.
pub(super) fn errors(matcher: &MatchPredicate) -> Result<Statuses, Refused> {
    let mut errors = Statuses::default();
    for status in 100..600 {
        if holds(matcher, status)? {
            errors.insert(status);
        }
    }
    Ok(errors)
}

fn holds(matcher: &MatchPredicate, status: u16) -> Result<bool, Refused> {
    let all = |rules: &[MatchPredicate]| -> Result<Vec<bool>, Refused> {
        rules.iter().map(|rule| holds(rule, status)).collect()
    };
    match &matcher.rule {
        None => Err(Refused::new("must be set").under("rule")),
        Some(Rule::OrMatch(set)) => Ok(all(&set.rules).at("or_match")?.contains(&true)),
        Some(Rule::AndMatch(set)) => Ok(!all(&set.rules).at("and_match")?.contains(&false)),
        Some(Rule::NotMatch(rule)) => Ok(!holds(rule, status).at("not_match")?),
        Some(Rule::AnyMatch(any)) => Ok(*any),
        Some(Rule::HttpResponseHeadersMatch(set)) => {
            let value = status.to_string();
            for test in &set.headers {
                if test.name != ":status" {
                    let reason =
                        format!("{}: of an answer only the status is looked at", test.name);
                    return Err(Refused::new(reason).under("http_response_headers_match"));
                }
                // Its name is no header's, which changes nothing about the test of its value.
                let test = HeaderMatcher {
                    name: "status".to_owned(),
                    ..test.clone()
                };
                let test = text::header(test).at("http_response_headers_match")?;
                if !values_match(&test, std::iter::once(Cow::Borrowed(&*value))) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Some(_) => Err(Refused::new(
            "of an answer only the status is looked at (http_response_headers_match)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::json::Descriptors;

    fn errors_of(matcher: serde_json::Value) -> Result<Statuses, Refused> {
        let mut matcher = matcher;
        matcher["@type"] =
            "type.googleapis.com/envoy.config.common.matcher.v3.MatchPredicate".into();
        let any = Descriptors::get().any(matcher).unwrap();
        errors(&prost::Message::decode(&*any.value).unwrap())
    }

    #[test]
    fn a_matcher_becomes_the_statuses_that_it_holds_for() {
        let status = |test| json!({"http_response_headers_match": {"headers": [test]}});
        let exact =
            |code: &str| status(json!({"name": ":status", "string_match": {"exact": code}}));
        let server = status(json!({"name": ":status", "range_match": {"start": 500, "end": 600}}));
        let of = |matcher| {
            let errors = errors_of(matcher).unwrap();
            let all = (0..700_u16).filter(|status| errors.contains(*status));
            all.collect::<Vec<_>>()
        };
        assert_eq!(
            of(json!({"or_match": {"rules": [exact("429"), exact("503")]}})),
            [429, 503]
        );
        let but = json!({"and_match": {"rules": [server, {"not_match": exact("501")}]}});
        assert_eq!(of(but).len(), 99);
        assert_eq!(of(json!({"any_match": true})).len(), 500);
        let other = status(json!({"name": "x-failed", "present_match": true}));
        assert!(
            errors_of(other)
                .unwrap_err()
                .to_string()
                .contains("x-failed")
        );
        let request = json!({"http_request_headers_match": {"headers": []}});
        assert!(errors_of(request).is_err());
    }
}
