//! Routes as compiled: which request goes where, and what is changed on the way. Envoy's
//! `RouteConfiguration`, in which VirtualServices and HTTPRoutes arrive. Long because a route is one
//! table of what can be said of a request, and it is read as one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use regex::Regex;

use super::authz::AuthzOverride;
use super::endpoint::Labels;
use super::format::Format;
use super::http::{Cors, Fault};
use super::jwt::Requirement;
use super::log::RouteTracing;
use super::policy::{MetadataMatch, PathTemplate, Rbac};
use super::rare::{Rare, Silent};
use super::rate_limit::{Limit, RateLimit};
use super::text::{Fraction, HeaderKey, HeaderMatch, TextMatch};

/// A table of virtual hosts.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Its name.
    pub name: Arc<str>,
    /// The hosts in order.
    pub hosts: Vec<Arc<VirtualHost>>,
    /// Hosts by exact domain, lower case.
    pub exact: HashMap<Box<str>, usize>,
    /// Hosts by domain with a wildcard in front (`*.foo`, stored `.foo`), longest first.
    pub suffixes: Vec<(Box<str>, usize)>,
    /// Hosts by domain with a wildcard behind (`foo.*`, stored `foo.`), longest first.
    pub prefixes: Vec<(Box<str>, usize)>,
    /// The host of `*`.
    pub any: Option<usize>,
    /// The port of `:authority` doesn't count.
    pub ignore_port: bool,
    /// Changes to every request and answer.
    pub headers: Rare<HeaderChanges>,
    /// Headers that only the mesh may set; removed from requests that come from outside.
    pub internal_only: Vec<HeaderName>,
    /// The most specific change to a header wins rather than the most general.
    pub most_specific_wins: bool,
}

/// A virtual host.
#[derive(Debug, Default)]
pub struct VirtualHost {
    /// Its name.
    pub name: Box<str>,
    /// Its routes; the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
    /// Changes to its requests and answers.
    pub headers: Rare<HeaderChanges>,
    /// Retries of routes that say nothing of them.
    pub retry: Option<Arc<Retry>>,
    /// Plain HTTP is answered with a redirect to https.
    pub require_tls: bool,
    /// The attempt is counted in `x-envoy-attempt-count` of the request.
    pub attempt_count_in_request: bool,
    /// The same in the answer.
    pub attempt_count_in_response: bool,
    /// What filters do differently here.
    pub filters: Rare<FilterOverrides>,
    /// What rate limits are told of its requests.
    pub limits: Rare<Vec<Limit>>,
}

/// A route.
#[derive(Debug)]
pub struct Route {
    /// Its name, for logs; empty where it has none.
    pub name: Box<str>,
    /// Which requests.
    pub matches: RouteMatch,
    /// What is done with them.
    pub action: RouteAction,
    /// Changes to requests and answers.
    pub headers: Rare<HeaderChanges>,
    /// What filters do differently here.
    pub filters: Rare<FilterOverrides>,
    /// The operation's name in traces.
    pub operation: Option<Box<str>>,
    /// How its requests are traced, where the route has its own way.
    pub tracing: Option<Box<RouteTracing>>,
}

/// Which requests a route is for: all conditions hold.
#[derive(Debug, Clone, Default)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Rare<Vec<QueryMatch>>,
    /// Only gRPC.
    pub grpc: bool,
    /// Only this share.
    pub fraction: Option<Fraction>,
    /// Values that earlier filters wrote down.
    pub metadata: Rare<Vec<MetadataMatch>>,
    /// Who calls.
    pub caller: Rare<Vec<CallerMatch>>,
}

/// A condition on the caller.
#[derive(Debug, Clone)]
pub enum CallerMatch {
    /// Its identity: the URI of its certificate.
    Principal(TextMatch),
    /// A label of its workload, where the control plane told of it.
    Label(Box<str>, TextMatch),
}

/// A condition on the path without query.
#[derive(Debug, Clone, Default)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// A text: exact, prefix or expression; a prefix is one of characters.
    Text(TextMatch),
    /// A prefix of whole segments; without its slash at the end. Case is ignored where `true`.
    Segments(Box<str>, bool),
    /// By segments with wildcards.
    Template(PathTemplate),
    /// A CONNECT request.
    Connect,
}

/// A condition on a query parameter, after percent-decoding.
#[derive(Debug, Clone)]
pub struct QueryMatch {
    /// Its name.
    pub name: Box<str>,
    /// What its first value must be; there at all where none.
    pub value: Option<TextMatch>,
    /// Whether the test is of presence, and which.
    pub present: Option<bool>,
}

/// What is done with a request.
#[derive(Debug)]
pub enum RouteAction {
    /// It goes to a cluster.
    Forward(Box<Forward>),
    /// It is answered with another address.
    Redirect(Box<Redirect>),
    /// It is answered here.
    Direct {
        /// With this status.
        status: StatusCode,
        /// And this body.
        body: Bytes,
    },
}

/// How long a stream may take from its first byte to its last, whatever happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// At most so long; zero: without end, and none: as the chain says.
    pub most: Option<Duration>,
    /// `grpc-timeout` counts instead where it is there, up to so much; zero: up to anything.
    pub grpc_most: Option<Duration>,
    /// Subtracted from `grpc-timeout` before it is used.
    pub grpc_offset: Duration,
}

/// How a request is forwarded.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub to: Destination,
    /// The status where the cluster doesn't exist.
    pub not_found: StatusCode,
    /// What becomes of the path.
    pub path: PathRewrite,
    /// What becomes of `:authority`.
    pub host: HostRewrite,
    /// The replaced host is kept in `x-forwarded-host`.
    pub append_forwarded_host: bool,
    /// From the end of the request to the end of the answer; none: no limit.
    pub timeout: Option<Duration>,
    /// Nothing may move for so long; none: the connection's own limit.
    pub idle_timeout: Option<Duration>,
    /// The upper bound to `grpc-timeout`; zero: as asked.
    pub max_grpc_timeout: Option<Duration>,
    /// Subtracted from `grpc-timeout` before it is used.
    pub grpc_timeout_offset: Duration,
    /// How long the stream may take as a whole; where it is said, `timeout` isn't looked at.
    pub stream: Option<StreamLimits>,
    /// When it is tried again.
    pub retry: Option<Arc<Retry>>,
    /// What a consistent balancer hashes; the first that yields a value and is terminal ends it.
    pub hash: Rare<Vec<HashPolicy>>,
    /// Copies that go elsewhere.
    pub mirrors: Rare<Vec<Mirror>>,
    /// Upgrades allowed (`true`) or forbidden on this route, by lower-case name.
    pub upgrades: Rare<Vec<(Box<str>, bool)>>,
    /// Values that the chosen endpoint's metadata must have (subsets by metadata).
    pub endpoint_metadata: Rare<Labels>,
    /// What rate limits are told of its requests.
    pub limits: Rare<Vec<Limit>>,
    /// What the host says of that counts too.
    pub host_limits: bool,
}

/// Where a request goes.
#[derive(Debug)]
pub enum Destination {
    /// To this cluster.
    Cluster(Arc<str>),
    /// To one of several, by weight.
    Weighted {
        /// The clusters.
        clusters: Vec<Weighted>,
        /// The sum of their weights, more than none.
        total: u32,
    },
    /// To the cluster named in this header.
    Header(HeaderName),
}

/// One of several clusters.
#[derive(Debug)]
pub struct Weighted {
    /// The cluster.
    pub cluster: Arc<str>,
    /// Its share.
    pub weight: u32,
    /// Changes to its requests and answers.
    pub headers: Rare<HeaderChanges>,
    /// A new host for its requests, where the route has none.
    pub host: Option<Box<str>>,
    /// What filters do differently for it.
    pub filters: Rare<FilterOverrides>,
}

/// What becomes of the path.
#[derive(Debug, Default)]
pub enum PathRewrite {
    /// It stays.
    #[default]
    Keep,
    /// The matched prefix, or the whole matched path, is replaced.
    Prefix(Box<str>),
    /// What the expression matches is replaced; `\1` stands for its first group.
    Regex(Box<Regex>, Box<str>),
}

/// What becomes of `:authority`.
#[derive(Debug, Default)]
pub enum HostRewrite {
    /// It stays.
    #[default]
    Keep,
    /// This.
    Literal(Box<str>),
    /// The host name of the endpoint.
    Endpoint,
    /// The value of this header, where it is there.
    Header(HeaderName),
    /// The path with what the expression matches replaced.
    PathRegex(Box<Regex>, Box<str>),
}

/// An answer with another address.
#[derive(Debug)]
pub struct Redirect {
    /// The status.
    pub status: StatusCode,
    /// The scheme; the request's where none.
    pub scheme: Option<Box<str>>,
    /// The host; the request's where none.
    pub host: Option<Box<str>>,
    /// The port; where none the request's, or none at all if the scheme changes.
    pub port: Option<u16>,
    /// The path.
    pub path: RedirectPath,
    /// The query is left out.
    pub strip_query: bool,
}

/// The path of a redirect.
#[derive(Debug)]
pub enum RedirectPath {
    /// The request's.
    Keep,
    /// This one, which may have a query of its own.
    Full(Box<str>),
    /// The request's with the matched prefix replaced.
    Prefix(Box<str>),
    /// The request's with what the expression matches replaced.
    Regex(Box<Regex>, Box<str>),
}

/// When a request is tried again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The conditions.
    pub on: RetryOn,
    /// How often, after the first attempt.
    pub retries: u32,
    /// How long one attempt may take.
    pub per_try_timeout: Option<Duration>,
    /// How long nothing may move in an attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses that `retriable-status-codes` means.
    pub statuses: Vec<StatusCode>,
    /// Answers that `retriable-headers` means; any of them.
    pub headers: Vec<HeaderMatch>,
    /// Only such requests; any of them, all where none.
    pub request_headers: Vec<HeaderMatch>,
    /// Endpoints that were tried are avoided.
    pub avoid_previous_hosts: bool,
    /// How often another endpoint is looked for.
    pub host_attempts: u32,
    /// After so many attempts with a priority the next one is used.
    pub previous_priorities: Option<u32>,
    /// The first pause is random up to this, each further up to twice as much.
    pub backoff_base: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

/// Conditions of a retry, as Envoy names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is documented by Envoy under the same name"
)]
#[expect(clippy::struct_excessive_bools, reason = "they are a set")]
pub struct RetryOn {
    pub server_error: bool,
    pub gateway_error: bool,
    pub reset: bool,
    pub reset_before_request: bool,
    pub connect_failure: bool,
    pub envoy_ratelimited: bool,
    pub retriable_4xx: bool,
    pub refused_stream: bool,
    pub retriable_status_codes: bool,
    pub retriable_headers: bool,
    pub http3_post_connect_failure: bool,
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

/// What a consistent balancer hashes.
#[derive(Debug, Clone)]
pub struct HashPolicy {
    /// The value.
    pub of: HashOf,
    /// Later policies don't count once this one has a value.
    pub terminal: bool,
}

/// A value that is hashed.
#[derive(Debug, Clone)]
pub enum HashOf {
    /// A header, with what an expression matches replaced, where given.
    Header(HeaderKey, Option<(Box<Regex>, Box<str>)>),
    /// A cookie; made where it isn't there, if it has a lifetime (zero: of the session).
    Cookie {
        /// Its name.
        name: Box<str>,
        /// Its lifetime.
        ttl: Option<Duration>,
        /// Its path; empty: none.
        path: Box<str>,
        /// Further attributes.
        attributes: Vec<(Box<str>, Box<str>)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Box<str>),
}

/// A copy of requests.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where it goes.
    pub cluster: Arc<str>,
    /// The share.
    pub fraction: Fraction,
    /// `-shadow` is appended to the host.
    pub shadow_suffix: bool,
}

/// Changes to headers: first what is removed, then what is set.
#[derive(Debug, Clone, Default)]
pub struct HeaderChanges {
    /// Removed from requests.
    pub request_remove: Vec<HeaderName>,
    /// Set in requests.
    pub request_set: Vec<HeaderSet>,
    /// Removed from answers.
    pub response_remove: Vec<HeaderName>,
    /// Set in answers.
    pub response_set: Vec<HeaderSet>,
}

/// A header that is set.
#[derive(Debug, Clone)]
pub struct HeaderSet {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: Format,
    /// How.
    pub action: SetAction,
    /// It is set even to nothing.
    pub keep_empty: bool,
}

/// How a header is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetAction {
    /// Added to values that are there.
    Append,
    /// Only where there is none.
    AddIfAbsent,
    /// In place of values that are there.
    Overwrite,
    /// In place of values that are there, and not at all where there are none.
    OverwriteIfExists,
}

/// What filters do differently on a route, host or weighted cluster.
#[derive(Debug, Clone, Default)]
pub struct FilterOverrides {
    /// Faults.
    pub fault: Option<Arc<Fault>>,
    /// CORS.
    pub cors: Option<Arc<Cors>>,
    /// Policy; `Some(None)` means that there is none here.
    pub rbac: Option<Option<Arc<Rbac>>>,
    /// Tokens; `Some(None)` means that none is needed.
    pub jwt: Option<Option<Arc<Requirement>>>,
    /// Local rate limits.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// External authorisation; `Some(None)` means that nobody is asked.
    pub authz: Option<Option<Arc<AuthzOverride>>>,
    /// Sticky sessions.
    pub session: Option<Arc<StatefulSession>>,
}

/// A sticky session: the answer carries the endpoint, and later requests go there.
#[derive(Debug, Clone)]
pub struct StatefulSession {
    /// Where it is kept.
    pub place: SessionPlace,
    /// Without that endpoint the request fails, rather than going elsewhere.
    pub strict: bool,
}

/// Where a session is kept.
#[derive(Debug, Clone)]
pub enum SessionPlace {
    /// In a cookie.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// Its lifetime; zero: of the session.
        ttl: Duration,
        /// Its path.
        path: Box<str>,
    },
    /// In a header.
    Header(HeaderName),
}

impl Silent for HeaderChanges {
    const SILENT: &'static Self = &Self {
        request_remove: Vec::new(),
        request_set: Vec::new(),
        response_remove: Vec::new(),
        response_set: Vec::new(),
    };

    fn is_silent(&self) -> bool {
        let removes = !self.request_remove.is_empty() || !self.response_remove.is_empty();
        !removes && self.request_set.is_empty() && self.response_set.is_empty()
    }
}

impl Silent for FilterOverrides {
    const SILENT: &'static Self = &Self {
        fault: None,
        cors: None,
        rbac: None,
        jwt: None,
        rate_limit: None,
        authz: None,
        session: None,
    };

    fn is_silent(&self) -> bool {
        let Self {
            fault,
            cors,
            rbac,
            jwt,
            rate_limit,
            authz,
            session,
        } = self;
        let policy = rbac.is_some() || jwt.is_some() || authz.is_some();
        let limited = rate_limit.is_some();
        !policy && !limited && fault.is_none() && cors.is_none() && session.is_none()
    }
}
