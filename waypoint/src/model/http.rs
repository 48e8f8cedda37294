//! What is done with HTTP on a filter chain, as compiled. Envoy's `HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::authz::ExtAuthz;
use super::jwt::JwtAuthn;
use super::log::{AccessLog, Tracing};
use super::policy::Rbac;
use super::rate_limit::RateLimit;
use super::route::{RouteTable, StatefulSession};
use super::text::{Fraction, HeaderMatch, TextMatch};
use super::wasm::Plugin;

/// HTTP on one filter chain.
#[derive(Debug)]
pub struct HttpChain {
    /// The name of its statistics.
    pub stat_prefix: Box<str>,
    /// Which protocol it speaks.
    pub codec: Codec,
    /// Its filters, in order; the router is understood at the end.
    pub filters: Vec<HttpFilter>,
    /// Where requests go.
    pub routes: Routes,
    /// What is written of requests.
    pub access_logs: Vec<AccessLog>,
    /// How they are traced; not at all where none.
    pub tracing: Option<Arc<Tracing>>,
    /// Upgrades allowed, by lower-case name (`websocket`, `connect`).
    pub upgrades: Vec<Box<str>>,
    /// The `server` header.
    pub server: ServerHeader,
    /// `x-forwarded-for` and the like.
    pub forwarded: Forwarded,
    /// How paths are normalised before anything looks at them.
    pub paths: PathNormalisation,
    /// Time limits.
    pub limits: HttpLimits,
    /// HTTP/1.
    pub http1: Http1Options,
    /// HTTP/2.
    pub http2: Http2Options,
    /// `x-request-id`.
    pub request_id: RequestId,
    /// `Expect: 100-continue` is passed on, rather than answered here.
    pub proxy_100_continue: bool,
    /// The port of the host is removed before routing.
    pub strip_port: StripPort,
    /// A dot at the end of the host is removed before routing.
    pub strip_trailing_dot: bool,
    /// The trailing `via` header; none: not added.
    pub via: Option<Box<str>>,
}

/// Which protocol a chain speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Found out by the first bytes, or ALPN.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where a chain's routes are.
#[derive(Debug)]
pub enum Routes {
    /// In the chain.
    Inline(Arc<RouteTable>),
    /// In a table by name, subscribed to (RDS).
    Named(Arc<str>),
}

/// A filter.
#[derive(Debug)]
pub enum HttpFilter {
    /// Tokens are checked.
    Jwt(Arc<JwtAuthn>),
    /// A service outside decides.
    ExtAuthz(Arc<ExtAuthz>),
    /// A plugin sees the request, and its answer.
    Plugin(Arc<Plugin>),
    /// What it is comes separately, and may change while the chain stays.
    Discovered(Arc<Discovered>),
    /// Requests take tokens, and are answered where there are none.
    RateLimit(Arc<RateLimit>),
    /// Policy decides.
    Rbac(Arc<Rbac>),
    /// Faults are put in, where the route asks for it.
    Fault(Arc<Fault>),
    /// CORS, where the route asks for it.
    Cors,
    /// Sticky sessions, by default none.
    Session(Option<Arc<StatefulSession>>),
    /// gRPC-Web becomes gRPC, and its answers the other way round.
    GrpcWeb,
    /// gRPC is counted.
    GrpcStats,
    /// Istio's request metrics are kept (`istio.stats`).
    Stats(Arc<StatsFilter>),
    /// Who the peers are is found out for telemetry.
    PeerMetadata,
    /// Every request is answered with an error: the chain's configuration can't be served.
    Refused,
}

/// A filter that comes separately (ECDS).
#[derive(Debug)]
pub struct Discovered {
    /// The name that it is subscribed to under.
    pub name: Arc<str>,
    /// The types that it may be of.
    pub kinds: Vec<Box<str>>,
    /// What is in force until it has come, and where it never does; none: requests are answered with
    /// an error.
    pub default: Option<HttpFilter>,
    /// It isn't waited for.
    pub at_once: bool,
}

/// A filter that came separately.
#[derive(Debug)]
pub struct Extension {
    /// Its type.
    pub kind: Box<str>,
    /// The filter.
    pub filter: HttpFilter,
}

/// Istio's request metrics, as Telemetry objects tune them.
#[derive(Debug, Default)]
pub struct StatsFilter {
    /// Metrics that are off, by name (`requests_total`, …); `*` all.
    pub dropped: Vec<Box<str>>,
    /// Changes to labels: the metric (empty: all), the label, its value; none removes it.
    pub labels: Vec<(Box<str>, Box<str>, Option<super::format::Format>)>,
    /// The reporter label is the gateway's: `waypoint`.
    pub reporter_waypoint: bool,
}

/// Faults that are put in.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    /// A pause.
    pub delay: Option<(Duration, Fraction)>,
    /// An answer.
    pub abort: Option<(AbortWith, Fraction)>,
    /// Only for such requests; all of them.
    pub headers: Vec<HeaderMatch>,
    /// Only for requests to this cluster.
    pub upstream: Option<Box<str>>,
    /// No more than so many at a time.
    pub max_active: Option<u32>,
}

/// An answer in place of the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortWith {
    /// An HTTP status.
    Http(http::StatusCode),
    /// A gRPC status.
    Grpc(u32),
}

/// CORS.
#[derive(Debug, Clone)]
pub struct Cors {
    /// Origins that may call.
    pub origins: Vec<TextMatch>,
    /// `access-control-allow-methods`
    pub methods: Box<str>,
    /// `access-control-allow-headers`
    pub headers: Box<str>,
    /// `access-control-expose-headers`
    pub expose: Box<str>,
    /// `access-control-max-age`
    pub max_age: Box<str>,
    /// `access-control-allow-credentials`
    pub credentials: bool,
    /// `access-control-allow-private-network`
    pub private_network: bool,
    /// The share in force.
    pub enabled: Fraction,
    /// A preflight of another origin goes to the upstream, rather than being answered here.
    pub forward_unmatched: bool,
}

/// What becomes of the `server` header of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerHeader {
    /// Ours, whatever it was.
    Overwrite(HeaderValue),
    /// Ours, where there is none.
    AppendIfAbsent(HeaderValue),
    /// The upstream's.
    PassThrough,
}

impl ServerHeader {
    /// What an answer of our own says.
    #[must_use]
    pub fn ours(&self) -> Option<&HeaderValue> {
        match self {
            Self::Overwrite(name) | Self::AppendIfAbsent(name) => Some(name),
            Self::PassThrough => None,
        }
    }
}

/// Who the client is, and what is said of it to the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// The connection's peer is the client and is appended to `x-forwarded-for`; otherwise the
    /// header is believed and left alone.
    pub use_remote_address: bool,
    /// How many proxies in front are trusted.
    pub trusted_hops: u32,
    /// Nothing is appended to `x-forwarded-for`.
    pub skip_append: bool,
    /// The client's port is appended too.
    pub append_port: bool,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ClientCert,
    /// What it says of the client: subject, certificate, chain, DNS names, URIs.
    pub client_cert_details: ClientCertDetails,
    /// The scheme the upstream is told, where the connection doesn't tell.
    pub scheme: Option<Box<str>>,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCert {
    /// Removed.
    #[default]
    Sanitize,
    /// Passed on if the connection has a verified client.
    ForwardOnly,
    /// Ours is appended.
    AppendForward,
    /// Replaced by ours.
    SanitizeSet,
    /// Passed on always.
    AlwaysForwardOnly,
}

/// What `x-forwarded-client-cert` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are a set")]
#[expect(
    missing_docs,
    reason = "each is documented by Envoy under the same name"
)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

/// How paths are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathNormalisation {
    /// `.` and `..` are resolved, per RFC 3986.
    pub normalize: bool,
    /// Neighbouring slashes become one.
    pub merge_slashes: bool,
    /// `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of escaped slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// The request is answered with 400.
    Reject,
    /// They become slashes and the client is redirected.
    UnescapeAndRedirect,
    /// They become slashes.
    UnescapeAndForward,
}

/// Limits of HTTP connections and requests. None: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HttpLimits {
    /// A connection without requests.
    pub idle: Option<Duration>,
    /// A stream on which nothing moves.
    pub stream_idle: Option<Duration>,
    /// Until the request has arrived as a whole.
    pub request: Option<Duration>,
    /// Until the request's headers have arrived.
    pub request_headers: Option<Duration>,
    /// A connection as a whole.
    pub max_duration: Option<Duration>,
    /// A stream as a whole.
    pub max_stream_duration: Option<Duration>,
    /// From the announcement that a connection ends to its end.
    pub drain: Duration,
    /// Requests a connection.
    pub max_requests: Option<u32>,
    /// Request headers, in bytes.
    pub max_header_bytes: u32,
    /// Request headers, in number.
    pub max_headers: u32,
}

/// HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Http1Options {
    /// HTTP/1.0 and requests without a host are accepted.
    pub accept_http10: bool,
    /// The case of header names is kept.
    pub keep_case: bool,
    /// A request with both a length and chunks is accepted (the length is removed).
    pub allow_chunked_length: bool,
}

/// HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Http2Options {
    /// Streams at a time; none: ours.
    pub max_streams: Option<u32>,
    /// The window of a stream, in bytes; none: ours.
    pub stream_window: Option<u32>,
    /// The window of a connection, in bytes; none: ours.
    pub connection_window: Option<u32>,
    /// Extended CONNECT is accepted.
    pub allow_connect: bool,
    /// PINGs: the pause and how long an answer may take.
    pub keepalive: Option<(Duration, Duration)>,
}

/// `x-request-id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// One is made where there is none.
    pub generate: bool,
    /// One that comes from outside is kept.
    pub keep_external: bool,
    /// It is said in the answer.
    pub in_response: bool,
}

/// Whether the port of the host is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StripPort {
    /// It stays.
    #[default]
    No,
    /// If it is the listener's.
    Matching,
    /// Always.
    Any,
}
