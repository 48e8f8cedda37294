//! What retry policies become.

use envoy_types::pb::google::protobuf as google;
use prost::{Message as _, Name as _};

use super::*;

fn compile(policy: route::RetryPolicy) -> Result<(Retry, Vec<String>), String> {
    let mut notes = Notes::default();
    let compiled = super::policy(policy, &mut notes).map_err(|refused| refused.to_string())?;
    let counted = notes.iter().map(|(name, ..)| name.to_owned());
    Ok((compiled, counted.collect()))
}

fn on(names: &str) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: names.into(),
        ..Default::default()
    }
}

fn millis(millis: i32) -> Option<google::Duration> {
    Some(google::Duration {
        seconds: 0,
        nanos: millis * 1_000_000,
    })
}

#[test]
fn without_more_it_is_as_envoys_defaults() {
    let (retry, counted) = compile(on("")).unwrap();
    assert_eq!(retry.on, RetryOn::default());
    assert_eq!((retry.retries, retry.host_attempts), (1, 1));
    assert_eq!(retry.backoff_base, Duration::from_millis(25));
    assert_eq!(retry.backoff_max, Duration::from_millis(250));
    assert!(!retry.avoid_previous_hosts && retry.previous_priorities.is_none());
    assert!(counted.is_empty());
}

#[test]
fn each_condition_is_known_by_its_name() {
    let names = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    let mut seen = Vec::new();
    for name in names {
        let (retry, counted) = compile(on(name)).unwrap();
        assert_eq!(
            format!("{:?}", retry.on).matches("true").count(),
            1,
            "{name}"
        );
        assert!(!seen.contains(&retry.on) && counted.is_empty(), "{name}");
        seen.push(retry.on);
    }
    let (retry, _) = compile(on(&names.join(","))).unwrap();
    assert!(!format!("{:?}", retry.on).contains("false"));
}

#[test]
fn a_number_is_a_status_and_an_unknown_name_is_counted() {
    let (retry, counted) = compile(on("503, odd,connect-failure")).unwrap();
    assert_eq!(retry.statuses, [StatusCode::SERVICE_UNAVAILABLE]);
    assert!(retry.on.retriable_status_codes && retry.on.connect_failure);
    assert_eq!(counted, ["RetryPolicy.retry_on \"odd\""]);
}

#[test]
fn tried_hosts_and_priorities_are_avoided_where_it_says_so() {
    use route::retry_policy::{self, retry_priority};

    let config = PreviousPrioritiesConfig {
        update_frequency: 2,
    };
    let predicate = |name: &str| retry_policy::RetryHostPredicate {
        name: name.into(),
        config_type: None,
    };
    let policy = route::RetryPolicy {
        retry_host_predicate: vec![
            predicate("envoy.retry_host_predicates.previous_hosts"),
            predicate("envoy.retry_host_predicates.omit_canary_hosts"),
        ],
        host_selection_retry_max_attempts: 5,
        retry_priority: Some(retry_policy::RetryPriority {
            name: String::new(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(google::Any {
                type_url: PreviousPrioritiesConfig::type_url(),
                value: config.encode_to_vec(),
            })),
        }),
        ..on("5xx")
    };
    let (retry, counted) = compile(policy).unwrap();
    assert!(retry.avoid_previous_hosts);
    assert_eq!(
        (retry.host_attempts, retry.previous_priorities),
        (5, Some(2))
    );
    assert_eq!(counted, ["envoy.retry_host_predicates.omit_canary_hosts"]);
}

#[test]
fn pauses_are_at_least_a_millisecond_and_end_ten_times_longer() {
    let with = |base_interval, max_interval| route::RetryPolicy {
        retry_back_off: Some(route::retry_policy::RetryBackOff {
            base_interval,
            max_interval,
        }),
        ..on("5xx")
    };
    let micro = Some(google::Duration {
        seconds: 0,
        nanos: 1000,
    });
    let (retry, _) = compile(with(micro, None)).unwrap();
    assert_eq!(retry.backoff_base, Duration::from_millis(1));
    let (retry, _) = compile(with(millis(50), None)).unwrap();
    assert_eq!(retry.backoff_max, Duration::from_millis(500));
    for (policy, told) in [
        (
            with(None, None),
            "retry_back_off.base_interval: must be set",
        ),
        (
            with(millis(0), None),
            "retry_back_off.base_interval: must be more",
        ),
        (
            with(millis(-1), None),
            "retry_back_off.base_interval: a duration",
        ),
        (
            with(millis(9), millis(5)),
            "retry_back_off.max_interval: the longest",
        ),
    ] {
        let refused = compile(policy).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn numbers_that_are_none_are_refused() {
    for (policy, told) in [
        (
            route::RetryPolicy {
                retriable_status_codes: vec![99],
                ..on("")
            },
            "retriable_status_codes[0]: 99 isn't",
        ),
        (
            route::RetryPolicy {
                host_selection_retry_max_attempts: -1,
                ..on("")
            },
            "host_selection_retry_max_attempts: -1",
        ),
        (
            route::RetryPolicy {
                retriable_headers: vec![Default::default()],
                ..on("")
            },
            "retriable_headers[0].name: \"\"",
        ),
    ] {
        let refused = compile(policy).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}
