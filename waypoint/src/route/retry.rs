//! Whether a request is tried again: the route's conditions, what the client adds by header, and
//! what became of the attempt. As Envoy's retry state decides; how many retries a cluster takes at
//! a time (budgets) is the upstream's to say.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use crate::head::{Head, has_envoys, header_matches, joined};
use crate::model::route::{Retry, RetryOn};

/// Headers by which a client says how it wants to be retried; never passed on.
const ASKED: [HeaderName; 5] = [
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
];
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Envoy's first pause, where the route has none: random up to this.
const BACKOFF: Duration = Duration::from_millis(25);

/// What became of an attempt.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// The upstream answered.
    Answer(StatusCode, &'a HeaderMap),
    /// It did not. `sent` where any of the request had gone out.
    Reset {
        /// How.
        kind: Reset,
        /// Something of the request was sent.
        sent: bool,
    },
}

/// How an attempt ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// No connection could be made, in time or at all.
    Connect,
    /// The peer refused the stream without looking at it (`REFUSED_STREAM`, or GOAWAY before it).
    Refused,
    /// The peer reset the stream, or the connection ended.
    Remote,
    /// We gave up: the attempt's own time was over.
    Local,
    /// A limit of the cluster was reached. Never tried again.
    Overflow,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The outcome stands.
    No,
    /// The outcome stands, though it would have been tried again: response flag `URX`.
    LimitReached,
    /// It is tried again after [`State::pause`], if the cluster's budget has room.
    Again,
}

/// The retries of one request.
#[derive(Debug, Clone)]
pub struct State {
    policy: Option<Arc<Retry>>,
    on: RetryOn,
    left: u32,
    statuses: Vec<StatusCode>,
    headers: Vec<HeaderName>,
    next: Duration,
    most: Duration,
}

impl State {
    /// The retries that a route and the client's headers ask for; nothing where neither does.
    /// `policy` is the route's, or else its host's.
    #[must_use]
    pub fn new(policy: Option<&Arc<Retry>>, head: &Head<'_>) -> Option<Self> {
        let [on, grpc_on, retries, statuses, names] = &ASKED;
        let envoys = has_envoys(head.headers);
        let asks = envoys && (head.headers.contains_key(on) || head.headers.contains_key(grpc_on));
        if !asks && policy.is_none_or(|policy| policy.on == RetryOn::default()) {
            return None;
        }
        let list = |name: &HeaderName| joined(head.headers, name).unwrap_or_default();
        let mut state = Self {
            on: policy.map(|policy| policy.on).unwrap_or_default(),
            left: policy.map_or(1, |policy| policy.retries),
            statuses: Vec::new(),
            headers: Vec::new(),
            next: policy.map_or(BACKOFF, |policy| policy.backoff_base),
            most: policy.map_or(BACKOFF * 10, |policy| policy.backoff_max),
            policy: policy.cloned(),
        };
        if asks {
            parse(&mut state.on, &list(on), &list(grpc_on));
        }
        if let Some(policy) = policy {
            let only = &policy.request_headers;
            if !only.is_empty() && !only.iter().any(|test| head.matches(test)) {
                state.on = RetryOn::default();
            }
        }
        if !envoys {
            return Some(state);
        }
        if state.on != RetryOn::default()
            && let Ok(asked) = list(retries).trim().parse()
        {
            state.left = asked;
        }
        let codes = list(statuses);
        let codes = codes.split(',').filter_map(|code| code.trim().parse().ok());
        state.statuses = codes
            .filter_map(|code: u16| StatusCode::from_u16(code).ok())
            .collect();
        let names = list(names);
        let names = names.split(',').map(str::trim);
        state.headers = names.filter_map(|name| name.parse().ok()).collect();
        Some(state)
    }

    /// Takes the headers away by which a client says how it wants to be retried.
    pub fn strip(headers: &mut HeaderMap) {
        if has_envoys(headers) {
            for name in &ASKED {
                headers.remove(name);
            }
        }
    }

    /// Whether the request is tried again. Counts it if so.
    pub fn decide(&mut self, outcome: Outcome<'_>) -> Decision {
        let wanted = match outcome {
            Outcome::Answer(status, headers) => self.wants_answer(status, headers),
            Outcome::Reset { kind, sent } => self.wants_reset(kind, sent),
        };
        match (wanted, self.left) {
            (false, _) => Decision::No,
            (true, 0) => Decision::LimitReached,
            (true, _) => {
                self.left -= 1;
                Decision::Again
            }
        }
    }

    /// Whether any answer could be tried again, so that answers must be looked at.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// The pause before the next attempt: random up to a bound that doubles each time.
    pub fn pause(&mut self, random: u64) -> Duration {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (bound, most) = (millis(self.next).max(1), millis(self.most).max(1));
        self.next = Duration::from_millis(match bound < most / 2 {
            true => bound * 2,
            false => most,
        });
        Duration::from_millis(random % bound)
    }

    fn wants_answer(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        // Another proxy's limit stands behind such an answer.
        if headers.contains_key(RATE_LIMITED) {
            return self.on.envoy_ratelimited;
        }
        let among = |known: &[StatusCode]| known.contains(&status);
        let policy = self.policy.as_deref();
        let (on, statuses) = (self.on, policy.map_or(&[][..], |policy| &policy.statuses));
        (on.server_error && status.is_server_error())
            || (on.gateway_error && matches!(status.as_u16(), 502..=504))
            || (on.retriable_4xx && status == StatusCode::CONFLICT)
            || (on.retriable_status_codes && (among(statuses) || among(&self.statuses)))
            || (on.retriable_headers && self.wants_headers(headers))
            || self.wants_grpc(headers)
    }

    fn wants_headers(&self, headers: &HeaderMap) -> bool {
        let tests = self
            .policy
            .as_deref()
            .map_or(&[][..], |policy| &policy.headers);
        let by_test = tests.iter().any(|test| header_matches(test, headers));
        by_test || self.headers.iter().any(|name| headers.contains_key(name))
    }

    /// By the status of an answer that is only trailers; one after a body comes too late.
    fn wants_grpc(&self, headers: &HeaderMap) -> bool {
        let on = self.on;
        match headers.get(GRPC_STATUS).map(|value| value.as_bytes()) {
            Some(b"1") => on.grpc_cancelled,
            Some(b"4") => on.grpc_deadline_exceeded,
            Some(b"8") => on.grpc_resource_exhausted,
            Some(b"13") => on.grpc_internal,
            Some(b"14") => on.grpc_unavailable,
            _ => false,
        }
    }

    fn wants_reset(&self, kind: Reset, sent: bool) -> bool {
        let on = self.on;
        kind != Reset::Overflow
            && (on.reset
                || on.server_error
                || on.gateway_error
                || (on.reset_before_request && !sent)
                || (on.refused_stream && kind == Reset::Refused)
                || (on.connect_failure && kind == Reset::Connect))
    }
}

/// Adds the conditions of `x-envoy-retry-on` and `x-envoy-retry-grpc-on`; unknown ones are left
/// out. The names are also those of a route's `retry_on`.
pub fn parse(on: &mut RetryOn, http: &str, grpc: &str) {
    for name in http.split(',').map(str::trim) {
        match name {
            "5xx" => on.server_error = true,
            "gateway-error" => on.gateway_error = true,
            "reset" => on.reset = true,
            "reset-before-request" => on.reset_before_request = true,
            "connect-failure" => on.connect_failure = true,
            "envoy-ratelimited" => on.envoy_ratelimited = true,
            "retriable-4xx" => on.retriable_4xx = true,
            "refused-stream" => on.refused_stream = true,
            "retriable-status-codes" => on.retriable_status_codes = true,
            "retriable-headers" => on.retriable_headers = true,
            "http3-post-connect-failure" => on.http3_post_connect_failure = true,
            _ => {}
        }
    }
    for name in grpc.split(',').map(str::trim) {
        match name {
            "cancelled" => on.grpc_cancelled = true,
            "deadline-exceeded" => on.grpc_deadline_exceeded = true,
            "internal" => on.grpc_internal = true,
            "resource-exhausted" => on.grpc_resource_exhausted = true,
            "unavailable" => on.grpc_unavailable = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
