//! Time limits, by route and by header.

use http::StatusCode;

use super::*;
use crate::model::rare::Rare;
use crate::model::route::{Destination, HostRewrite, PathRewrite, Retry, RetryOn};

fn ms(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

fn forward(timeout: Option<Duration>, max_grpc: Option<Duration>) -> Forward {
    Forward {
        to: Destination::Cluster("c".into()),
        not_found: StatusCode::SERVICE_UNAVAILABLE,
        path: PathRewrite::Keep,
        host: HostRewrite::Keep,
        append_forwarded_host: false,
        timeout,
        idle_timeout: None,
        max_grpc_timeout: max_grpc,
        limits: Rare::default(),
        host_limits: false,
        grpc_timeout_offset: Duration::from_millis(10),
        stream: None,
        retry: None,
        hash: Rare::default(),
        mirrors: Rare::default(),
        upgrades: Rare::default(),
        endpoint_metadata: Rare::default(),
    }
}

fn retry(per_try: Option<Duration>) -> Retry {
    Retry {
        on: RetryOn::default(),
        retries: 1,
        per_try_timeout: per_try,
        per_try_idle_timeout: None,
        statuses: Vec::new(),
        headers: Vec::new(),
        request_headers: Vec::new(),
        avoid_previous_hosts: false,
        host_attempts: 1,
        previous_priorities: None,
        backoff_base: Duration::from_millis(25),
        backoff_max: Duration::from_millis(250),
    }
}

fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
    let pairs = lines.iter();
    pairs
        .map(|(name, value)| (name.clone(), value.parse().unwrap()))
        .collect()
}

#[test]
fn limits_by_route_and_by_the_client() {
    let asks_total = &[(UPSTREAM_TIMEOUT, "700")][..];
    let asks_try = &[(PER_TRY_TIMEOUT, "300")][..];
    let nonsense = &[(UPSTREAM_TIMEOUT, "soon"), (PER_TRY_TIMEOUT, "-1")][..];
    let endless = &[(UPSTREAM_TIMEOUT, "0")][..];
    // Route's limit, its limit a try, headers; then: in total, a try, what the upstream is told.
    for (route, per_try, lines, total, one, told) in [
        (None, None, &[][..], None, None, None),
        (ms(1000), None, &[], ms(1000), None, Some("1000")),
        (ms(1000), ms(200), &[], ms(1000), ms(200), Some("200")),
        (ms(1000), ms(1000), &[], ms(1000), None, Some("1000")),
        (None, ms(200), &[], None, ms(200), Some("200")),
        (ms(1000), ms(200), asks_total, ms(700), ms(200), Some("200")),
        (ms(1000), None, asks_try, ms(1000), ms(300), Some("300")),
        (ms(200), None, asks_try, ms(200), None, Some("200")),
        (ms(1000), None, nonsense, ms(1000), None, Some("1000")),
        (ms(1000), ms(2000), endless, None, ms(2000), Some("2000")),
    ] {
        let mut headers = headers(lines);
        let limits = effective(
            &forward(route, None),
            Some(&retry(per_try)),
            &mut headers,
            false,
        );
        assert_eq!(
            (limits.total, limits.per_try),
            (total, one),
            "{route:?} {lines:?}"
        );
        let expected = headers
            .get(EXPECTED_TIMEOUT)
            .map(|value| value.to_str().unwrap());
        assert_eq!(expected, told, "{route:?} {lines:?}");
        assert!(!headers.contains_key(UPSTREAM_TIMEOUT) && !headers.contains_key(PER_TRY_TIMEOUT));
    }
}

#[test]
fn grpc_asks_by_its_own_header_up_to_a_bound() {
    for (max, asked, total, told) in [
        (None, Some("50m"), ms(1000), Some("50m")),
        (ms(0), Some("50m"), ms(40), Some("40m")),
        (ms(0), None, None, None),
        (ms(100), Some("50m"), ms(40), Some("40m")),
        (ms(100), Some("1S"), ms(100), Some("100m")),
        (ms(100), None, ms(100), Some("100m")),
        (ms(100), Some("5m"), ms(5), Some("5m")),
        (ms(100), Some("junk"), ms(100), Some("100m")),
    ] {
        let lines = asked.map(|asked| (GRPC_TIMEOUT, asked));
        let mut headers = headers(&lines.into_iter().collect::<Vec<_>>());
        let limits = effective(&forward(ms(1000), max), None, &mut headers, true);
        assert_eq!(limits.total, total, "{max:?} {asked:?}");
        let now = headers
            .get(GRPC_TIMEOUT)
            .map(|value| value.to_str().unwrap());
        assert_eq!(now, told, "{max:?} {asked:?}");
    }
}

#[test]
fn a_stream_ends_when_its_grpc_timeout_does() {
    let limits = |most, grpc_most| StreamLimits {
        most,
        grpc_most,
        grpc_offset: Duration::from_millis(10),
    };
    for (stream, asked, whole, told) in [
        // As istiod has it on routes of its own.
        (limits(ms(0), ms(0)), None, ms(0), None),
        (limits(ms(0), ms(0)), Some("50m"), ms(40), Some("40m")),
        (limits(ms(0), ms(0)), Some("junk"), ms(0), Some("junk")),
        (limits(ms(0), ms(0)), Some("0m"), Some(AT_ONCE), Some("0m")),
        (limits(ms(300), ms(100)), Some("1S"), ms(90), Some("90m")),
        (
            limits(ms(300), ms(100)),
            Some("junk"),
            ms(300),
            Some("300m"),
        ),
        (limits(ms(300), None), Some("1S"), ms(300), Some("300m")),
        (limits(None, None), Some("1S"), None, Some("1S")),
    ] {
        let lines = asked.map(|asked| (GRPC_TIMEOUT, asked));
        let mut headers = headers(&lines.into_iter().collect::<Vec<_>>());
        let mut forward = forward(ms(1000), ms(0));
        forward.stream = Some(stream);
        let found = effective(&forward, None, &mut headers, true);
        assert_eq!(
            (found.total, found.whole),
            (None, whole),
            "{stream:?} {asked:?}"
        );
        let now = headers
            .get(GRPC_TIMEOUT)
            .map(|value| value.to_str().unwrap());
        assert_eq!(now, told, "{stream:?} {asked:?}");
    }
}

#[test]
fn a_later_attempt_is_told_what_is_left() {
    let limits = Timeouts {
        total: ms(1000),
        per_try: ms(400),
        ..Timeouts::default()
    };
    for (elapsed, left) in [(0, "400"), (700, "300"), (1000, "1"), (2000, "1")] {
        let mut headers = HeaderMap::new();
        tell(&limits, Duration::from_millis(elapsed), &mut headers, false);
        assert_eq!(headers[EXPECTED_TIMEOUT], left, "after {elapsed} ms");
    }
}

#[test]
fn grpc_timeouts_are_read_and_written() {
    for (text, millis) in [
        ("1H", Some(3_600_000)),
        ("2M", Some(120_000)),
        ("3S", Some(3000)),
        ("4m", Some(4)),
        ("1u", Some(1)),
        ("1001u", Some(2)),
        ("1n", Some(1)),
        ("99999999m", Some(99_999_999)),
        ("100000000m", None),
        ("m", None),
        ("", None),
        ("1", None),
        ("+1m", None),
        ("1x", None),
    ] {
        let value = HeaderValue::from_str(text).unwrap();
        assert_eq!(
            grpc_timeout(&value),
            millis.map(Duration::from_millis),
            "{text:?}"
        );
    }
    for (millis, text) in [
        (5, "5m"),
        (2_000, "2000m"),
        (99_999_999, "99999999m"),
        (200_000_000, "200000S"),
        (100_000_000, "100000S"),
        (99_999_999_999, "99999999S"),
        (u64::MAX, "99999999H"),
    ] {
        assert_eq!(to_grpc_timeout(millis), text);
    }
}
