//! Local rate limits as compiled: buckets of tokens in this process, of which requests take some.
//! Envoy's `local_ratelimit`.

use http::StatusCode;

use super::route::HeaderSet;
use super::text::{Fraction, HeaderKey, HeaderMatch};
use crate::rate_limit::{Bucket, Buckets};

/// One filter, or what it is on a route.
#[derive(Debug)]
pub struct RateLimit {
    /// The tokens of all requests; without a bucket they aren't limited.
    pub bucket: Option<Bucket>,
    /// Tokens of some requests, by what is said of them.
    pub descriptors: Option<Box<Descriptors>>,
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
            descriptors: None,
            enabled: Fraction::NEVER,
            enforced: Fraction::NEVER,
            status: StatusCode::TOO_MANY_REQUESTS,
            exhausted: false,
            answer: Vec::new(),
            passed: Vec::new(),
        }
    }
}

/// Buckets for requests by their descriptors.
#[derive(Debug)]
pub struct Descriptors {
    /// The filter's own; where it has none, those of the route.
    pub own: Vec<Limit>,
    /// Which of the route's.
    pub stage: u32,
    /// Whether the host's count beside the route's.
    pub host: HostLimits,
    /// Those whose tokens come slowest are first.
    pub buckets: Vec<Described>,
    /// A request with a bucket of its own takes a token of all requests too.
    pub always_common: bool,
}

/// Whether what a host says of descriptors counts where the route says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostLimits {
    /// Only where the route says nothing.
    Otherwise,
    /// Always.
    Too,
    /// Never.
    No,
}

/// A descriptor and its tokens.
#[derive(Debug)]
pub struct Described {
    /// Keys and values in order; every value has its own tokens where none stands here.
    pub entries: Vec<(Box<str>, Option<Box<str>>)>,
    /// The tokens.
    pub buckets: Buckets,
}

/// How a descriptor is made of a request: an entry for each action, and none at all where one of them
/// finds nothing.
#[derive(Debug, Clone)]
pub struct Limit {
    /// The filters that it is for.
    pub stage: u32,
    /// The actions in order.
    pub actions: Vec<Action>,
}

/// One entry of a descriptor.
#[derive(Debug, Clone)]
pub enum Action {
    /// The first value of a header.
    Header {
        /// Which.
        header: HeaderKey,
        /// The entry's key.
        key: Box<str>,
        /// Where it isn't there, only the entry is left out.
        optional: bool,
    },
    /// The first value of a query parameter.
    Query {
        /// Which.
        name: Box<str>,
        /// The entry's key.
        key: Box<str>,
        /// Where it isn't there, only the entry is left out.
        optional: bool,
    },
    /// The client's address.
    RemoteAddress,
    /// The client's network.
    MaskedRemoteAddress {
        /// Its length in IPv4.
        v4: u8,
        /// Its length in IPv6.
        v6: u8,
    },
    /// These words.
    Generic {
        /// The entry's key.
        key: Box<str>,
        /// Its value.
        value: Box<str>,
    },
    /// These words, where headers match, or where they don't.
    HeaderMatch {
        /// The entry's key.
        key: Box<str>,
        /// Its value.
        value: Box<str>,
        /// They have to match.
        expected: bool,
        /// All of them.
        headers: Vec<HeaderMatch>,
    },
    /// The cluster that the request goes to.
    DestinationCluster,
}
