//! How long a request may take: the route's limits, what the client asks for by header, and
//! `grpc-timeout`. As the router filter of Envoy computes it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::head::has_envoys;
use crate::model::route::{Forward, StreamLimits};

/// The client's limit for all attempts together, in milliseconds.
pub const UPSTREAM_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
/// The client's limit for one attempt, in milliseconds.
pub const PER_TRY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
/// What the upstream is told of its limit, in milliseconds.
pub const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// gRPC's own header.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A limit that is over when it begins: zero would be none.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// The limits of a request. None: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the answer, over all attempts.
    pub total: Option<Duration>,
    /// One attempt.
    pub per_try: Option<Duration>,
    /// One attempt without anything moving.
    pub per_try_idle: Option<Duration>,
    /// The stream without anything moving; where none, the connection manager's.
    pub idle: Option<Duration>,
    /// The whole stream, whatever happens; zero: without end, and none: as the chain says.
    pub whole: Option<Duration>,
}

/// The limits of a request. Takes the client's own headers away and tells the upstream what is
/// left, as Envoy does.
pub fn effective(
    forward: &Forward,
    retry: Option<&crate::model::route::Retry>,
    headers: &mut HeaderMap,
    is_grpc: bool,
) -> Timeouts {
    let whole = forward.stream.and_then(|limits| whole(&limits, headers));
    let by_grpc = forward.max_grpc_timeout.filter(|_| is_grpc);
    let mut total = match by_grpc {
        _ if forward.stream.is_some() => None,
        None => forward.timeout,
        Some(most) => {
            let asked = headers.get(GRPC_TIMEOUT).and_then(grpc_timeout);
            let offset = forward.grpc_timeout_offset;
            let asked = asked.map(|asked| match offset < asked {
                true => asked - offset,
                false => asked,
            });
            let most = some(most);
            match some(asked.unwrap_or_default()) {
                Some(asked) => Some(most.map_or(asked, |most| most.min(asked))),
                None => most,
            }
        }
    };
    let mut per_try = retry.and_then(|retry| retry.per_try_timeout);
    if has_envoys(headers) {
        if let Some(asked) = headers.remove(UPSTREAM_TIMEOUT).as_ref().and_then(millis) {
            total = some(asked);
        }
        if let Some(asked) = headers.remove(PER_TRY_TIMEOUT).as_ref().and_then(millis) {
            per_try = some(asked);
        }
    }
    if let (Some(one), Some(all)) = (per_try, total)
        && one >= all
    {
        per_try = None;
    }
    let timeouts = Timeouts {
        total,
        per_try,
        per_try_idle: retry.and_then(|retry| retry.per_try_idle_timeout),
        idle: forward.idle_timeout,
        whole,
    };
    let grpc = by_grpc.is_some() && forward.stream.is_none();
    tell(&timeouts, Duration::ZERO, headers, grpc);
    timeouts
}

/// How long the stream may take as a whole, which its `grpc-timeout` then says too.
fn whole(limits: &StreamLimits, headers: &mut HeaderMap) -> Option<Duration> {
    let asked = headers.get(GRPC_TIMEOUT);
    let there = asked.is_some();
    let limit = match (asked.and_then(grpc_timeout), limits.grpc_most) {
        (Some(asked), Some(most)) => {
            let asked = some(most).map_or(asked, |most| most.min(asked));
            asked.saturating_sub(limits.grpc_offset).max(AT_ONCE)
        }
        _ => limits.most?,
    };
    if there && !limit.is_zero() {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        headers.insert(GRPC_TIMEOUT, to_grpc_timeout(millis));
    }
    Some(limit)
}

/// Tells the upstream how long it has, after so much has passed: again before each retry.
/// `grpc` where the route bounds `grpc-timeout` and the request is gRPC.
pub fn tell(timeouts: &Timeouts, elapsed: Duration, headers: &mut HeaderMap, grpc: bool) {
    let Some(expected) = timeouts.per_try.or(timeouts.total) else {
        return;
    };
    let expected = match timeouts.total {
        None => expected,
        Some(total) if elapsed >= total => Duration::from_millis(1),
        Some(total) => expected.min(total - elapsed),
    };
    let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
    headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
    if grpc {
        headers.insert(GRPC_TIMEOUT, to_grpc_timeout(millis));
    }
}

/// `grpc-timeout`: up to eight digits and a unit. Rounded up to milliseconds; none where malformed.
#[must_use]
pub fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let fits = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = fits.then(|| digits.parse().ok())??;
    Some(Duration::from_millis(match unit {
        "H" => number * 60 * 60 * 1000,
        "M" => number * 60 * 1000,
        "S" => number * 1000,
        "m" => number,
        "u" => number.div_ceil(1000),
        "n" => number.div_ceil(1_000_000),
        _ => return None,
    }))
}

/// The same, written: milliseconds as long as they fit in eight digits, then larger units.
#[must_use]
pub fn to_grpc_timeout(millis: u64) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    let (number, unit) = match millis {
        ..=MOST => (millis, 'm'),
        _ if millis / 1000 <= MOST => (millis / 1000, 'S'),
        _ if millis / 60_000 <= MOST => (millis / 60_000, 'M'),
        _ => ((millis / 3_600_000).min(MOST), 'H'),
    };
    HeaderValue::try_from(format!("{number}{unit}"))
        .unwrap_or_else(|_| HeaderValue::from_static("99999999H"))
}

fn millis(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    text.parse().ok().map(Duration::from_millis)
}

/// Zero means no limit wherever Envoy reads one.
fn some(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests;
