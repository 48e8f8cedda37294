//! Local rate limits as compiled: a bucket of tokens in this process, of which each request takes one.
//! Envoy's `local_ratelimit`.

use http::StatusCode;

use super::route::HeaderSet;
use super::text::Fraction;
use crate::rate_limit::Bucket;

/// One filter, or what it is on a route.
#[derive(Debug)]
pub struct RateLimit {
    /// The tokens; without a bucket nothing is limited.
    pub bucket: Option<Bucket>,
    /// The share of requests that take a token.
    pub enabled: Fraction,
    /// The share of those without a token that are answered.
    pub enforced: Fraction,
    /// With this status.
    pub status: StatusCode,
    /// gRPC hears that something is exhausted, rather than that nobody is there.
    pub exhausted: bool,
    /// Headers of that answer.
    pub answer: Vec<HeaderSet>,
    /// Headers of requests without a token that pass all the same.
    pub passed: Vec<HeaderSet>,
}

impl RateLimit {
    /// One that limits nothing.
    #[must_use]
    pub fn off() -> Self {
        Self {
            bucket: None,
            enabled: Fraction::NEVER,
            enforced: Fraction::NEVER,
            status: StatusCode::TOO_MANY_REQUESTS,
            exhausted: false,
            answer: Vec::new(),
            passed: Vec::new(),
        }
    }
}
