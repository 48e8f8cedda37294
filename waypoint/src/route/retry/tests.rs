//! Which outcomes are tried again under which condition, how often, and after what pause.

use http::{HeaderValue, Method};

use super::*;
use crate::model::text::{HeaderKey, HeaderMatch, HeaderTest, TextMatch};

const ALL: [&str; 15] = [
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
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn policy(on: &str) -> Retry {
    let mut conditions = RetryOn::default();
    parse(&mut conditions, on, on);
    Retry {
        on: conditions,
        retries: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
        headers: vec![test("x-again", "yes")],
        request_headers: Vec::new(),
        avoid_previous_hosts: true,
        host_attempts: 5,
        previous_priorities: None,
        backoff_base: Duration::from_millis(25),
        backoff_max: Duration::from_millis(250),
    }
}

fn test(name: &'static str, value: &str) -> HeaderMatch {
    HeaderMatch {
        key: HeaderKey::Name(HeaderName::from_static(name)),
        test: HeaderTest::Text(TextMatch::exact(value)),
        invert: false,
        missing_as_empty: false,
    }
}

fn state(policy: Option<Retry>, asks: &[(&'static str, &'static str)]) -> Option<State> {
    let headers: HeaderMap = asks
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect();
    let head = Head {
        method: &Method::GET,
        scheme: "http",
        authority: "a",
        path: "/",
        headers: &headers,
    };
    State::new(policy.map(Arc::new).as_ref(), &head)
}

/// The conditions under which an outcome is tried again.
fn under(outcome: Outcome<'_>) -> Vec<&'static str> {
    let again = |on: &&&str| {
        let mut state = state(Some(policy(on)), &[]).unwrap();
        state.decide(outcome) == Decision::Again
    };
    ALL.iter().filter(again).copied().collect()
}

#[test]
fn answers() {
    let with = |name: &'static str, value: &'static str| {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    };
    for (status, headers, expected) in [
        (200, HeaderMap::new(), &[][..]),
        (404, HeaderMap::new(), &[]),
        (409, HeaderMap::new(), &["retriable-4xx"]),
        (500, HeaderMap::new(), &["5xx"]),
        (502, HeaderMap::new(), &["5xx", "gateway-error"]),
        (
            503,
            HeaderMap::new(),
            &["5xx", "gateway-error", "retriable-status-codes"],
        ),
        (504, HeaderMap::new(), &["5xx", "gateway-error"]),
        (505, HeaderMap::new(), &["5xx"]),
        (
            503,
            with("x-envoy-ratelimited", "true"),
            &["envoy-ratelimited"],
        ),
        (200, with("x-again", "yes"), &["retriable-headers"]),
        (200, with("x-again", "no"), &[]),
        (200, with("grpc-status", "1"), &["cancelled"]),
        (200, with("grpc-status", "4"), &["deadline-exceeded"]),
        (200, with("grpc-status", "8"), &["resource-exhausted"]),
        (200, with("grpc-status", "13"), &["internal"]),
        (200, with("grpc-status", "14"), &["unavailable"]),
        (200, with("grpc-status", "0"), &[]),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            under(Outcome::Answer(status, &headers)),
            expected,
            "{status} {headers:?}"
        );
    }
}

#[test]
fn resets() {
    let any = ["5xx", "gateway-error", "reset"];
    let before = ["5xx", "gateway-error", "reset", "reset-before-request"];
    let connect = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
    ];
    let refused = ["5xx", "gateway-error", "reset", "refused-stream"];
    for (kind, sent, expected) in [
        (Reset::Remote, true, &any[..]),
        (Reset::Remote, false, &before),
        (Reset::Local, true, &any),
        (Reset::Connect, false, &connect),
        (Reset::Refused, true, &refused),
        (Reset::Overflow, false, &[]),
    ] {
        assert_eq!(
            under(Outcome::Reset { kind, sent }),
            expected,
            "{kind:?} {sent}"
        );
    }
}

#[test]
fn only_so_often() {
    let failed = Outcome::Reset {
        kind: Reset::Remote,
        sent: true,
    };
    let decisions =
        |mut state: State| -> Vec<Decision> { (0..4).map(|_| state.decide(failed)).collect() };
    let (again, limit) = (Decision::Again, Decision::LimitReached);
    let by_route = state(Some(policy("reset")), &[]).unwrap();
    assert_eq!(decisions(by_route), [again, again, limit, limit]);
    let asked = state(Some(policy("reset")), &[("x-envoy-max-retries", "1")]).unwrap();
    assert_eq!(decisions(asked), [again, limit, limit, limit]);
    let client = state(None, &[("x-envoy-retry-on", "bogus, reset")]).unwrap();
    assert_eq!(decisions(client), [again, limit, limit, limit]);
    assert!(state(Some(policy("")), &[]).is_none());
    assert!(state(None, &[("x-envoy-max-retries", "3")]).is_none());
}

#[test]
fn clients_add_conditions() {
    let ok = HeaderMap::new();
    let teapot = Outcome::Answer(StatusCode::IM_A_TEAPOT, &ok);
    let mut asked = state(
        None,
        &[
            ("x-envoy-retry-on", "retriable-status-codes"),
            ("x-envoy-retriable-status-codes", "400, 418,x"),
        ],
    )
    .unwrap();
    assert_eq!(asked.decide(teapot), Decision::Again);
    let mut asked = state(None, &[("x-envoy-retry-grpc-on", "unavailable")]).unwrap();
    assert_eq!(asked.decide(teapot), Decision::No);
    let mut headers = HeaderMap::new();
    for name in &ASKED {
        headers.insert(name, HeaderValue::from_static("1"));
    }
    State::strip(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn a_route_may_retry_only_some_requests() {
    let mut only = policy("5xx");
    only.request_headers = vec![test("x-idempotent", "1")];
    let ok = HeaderMap::new();
    let failed = Outcome::Answer(StatusCode::BAD_GATEWAY, &ok);
    let mut other = state(Some(only.clone()), &[]).unwrap();
    assert_eq!(other.decide(failed), Decision::No);
    let mut fitting = state(Some(only), &[("x-idempotent", "1")]).unwrap();
    assert_eq!(fitting.decide(failed), Decision::Again);
}

#[test]
fn pauses_are_random_below_a_bound_that_doubles() {
    let mut state = state(Some(policy("5xx")), &[]).unwrap();
    let bounds: Vec<u64> = (0..6)
        .map(|_| {
            let next = u64::try_from(state.next.as_millis()).unwrap();
            let pause = state.pause(next - 1);
            assert_eq!(pause, Duration::from_millis(next - 1));
            next
        })
        .collect();
    assert_eq!(bounds, [25, 50, 100, 200, 250, 250]);
    assert_eq!(state.pause(250), Duration::ZERO);
}
