//! VirtualService, networking.istio.io: how a host's requests are routed.
//! (istio/api, `networking/v1alpha3/virtual_service.proto`)

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Labels;
use super::duration::Duration;

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// For which hosts; empty for one that others delegate to.
    pub hosts: Vec<String>,
    /// For which gateways; none means `mesh`.
    pub gateways: Vec<String>,
    /// HTTP routes, in order.
    pub http: Vec<HttpRoute>,
    /// TLS routes, by SNI.
    pub tls: Vec<TlsRoute>,
    /// TCP routes.
    pub tcp: Vec<TcpRoute>,
    /// In which namespaces it is seen; none means everywhere.
    pub export_to: Vec<String>,
}

/// `http[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// For logs.
    pub name: String,
    /// Any of these; none matches everything.
    pub r#match: Vec<HttpMatch>,
    /// Where to, by weight.
    pub route: Vec<HttpDestination>,
    /// Answer with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Answer at once.
    pub direct_response: Option<DirectResponse>,
    /// Another VirtualService decides.
    pub delegate: Option<Delegate>,
    /// Change path or host.
    pub rewrite: Option<HttpRewrite>,
    /// For the whole request.
    pub timeout: Option<Duration>,
    /// Tries.
    pub retries: Option<HttpRetry>,
    /// Faults.
    pub fault: Option<Fault>,
    /// A copy goes here.
    pub mirror: Option<Destination>,
    /// Copies go here.
    pub mirrors: Vec<Mirror>,
    /// How many are copied, in percent.
    pub mirror_percent: Option<u32>,
    /// The same, finer.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin requests.
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes.
    pub headers: Option<Headers>,
}

/// `http[].match[]`: all fields must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// For logs.
    pub name: String,
    /// The path with its query.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The host.
    pub authority: Option<StringMatch>,
    /// Headers.
    pub headers: BTreeMap<String, StringMatch>,
    /// The service's port.
    pub port: Option<u32>,
    /// Labels of the caller.
    pub source_labels: Labels,
    /// Gateways of this match only.
    pub gateways: Vec<String>,
    /// Query parameters.
    pub query_params: BTreeMap<String, StringMatch>,
    /// `uri` without regard to case.
    pub ignore_uri_case: bool,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// The caller's namespace.
    pub source_namespace: String,
    /// For metrics.
    pub stat_prefix: String,
}

/// A text must be, begin with, or match; none of them: it must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StringMatch {
    /// Equal.
    pub exact: Option<String>,
    /// Beginning.
    pub prefix: Option<String>,
    /// RE2.
    pub regex: Option<String>,
}

/// `http[].route[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Destination,
    /// The share.
    pub weight: u32,
    /// Header changes of this destination.
    pub headers: Option<Headers>,
}

/// A service, or a subset of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// The service.
    pub host: String,
    /// A subset that a DestinationRule defines.
    pub subset: String,
    /// A port; none: the service's only one, or the one that was called.
    pub port: Option<PortSelector>,
}

/// `port: {number: …}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    /// The number.
    pub number: u32,
}

/// `headers`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// Of the request.
    pub request: Option<HeaderOperations>,
    /// Of the response.
    pub response: Option<HeaderOperations>,
}

/// What is done to headers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HeaderOperations {
    /// In place of what is there.
    pub set: BTreeMap<String, String>,
    /// Beside what is there.
    pub add: BTreeMap<String, String>,
    /// Away.
    pub remove: Vec<String>,
}

/// `redirect`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    /// The path.
    pub uri: String,
    /// The path's beginning is replaced (Gateway API only).
    #[serde(skip)]
    pub prefix_rewrite: String,
    /// The host.
    pub authority: String,
    /// The port.
    pub port: Option<u32>,
    /// `FROM_PROTOCOL_DEFAULT` or `FROM_REQUEST_PORT`.
    pub derive_port: Option<String>,
    /// The scheme.
    pub scheme: String,
    /// 301, 302, 303, 307 or 308; 0 means 301.
    pub redirect_code: u32,
}

/// `directResponse`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DirectResponse {
    /// The status.
    pub status: u32,
    /// The body.
    pub body: Option<Body>,
}

/// `directResponse.body`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Body {
    /// As text.
    pub string: Option<String>,
    /// As base64.
    pub bytes: Option<String>,
}

/// `delegate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; empty for the root's.
    pub namespace: String,
}

/// `rewrite`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// The path, or its matched beginning.
    pub uri: String,
    /// The host.
    pub authority: String,
    /// The path by pattern.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `rewrite.uriRegexRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegexRewrite {
    /// RE2.
    pub r#match: String,
    /// With `\1`.
    pub rewrite: String,
}

/// `retries`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// Further tries; 0 is none at all.
    pub attempts: i32,
    /// For each try.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's words, and status codes.
    pub retry_on: String,
    /// Other localities too.
    pub retry_remote_localities: Option<bool>,
    /// Not the same endpoint again.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// The first pause.
    pub backoff: Option<Duration>,
}

/// `fault`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// Waiting.
    pub delay: Option<FaultDelay>,
    /// Refusing.
    pub abort: Option<FaultAbort>,
}

/// `fault.delay`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    /// How long.
    pub fixed_delay: Option<Duration>,
    /// How many.
    pub percentage: Option<Percent>,
    /// The same, coarser.
    pub percent: u32,
}

/// `fault.abort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    /// With this status.
    pub http_status: Option<u32>,
    /// With this gRPC status, by name.
    pub grpc_status: Option<String>,
    /// How many.
    pub percentage: Option<Percent>,
}

/// `{value: 12.5}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Percent {
    /// Of a hundred.
    pub value: f64,
}

/// `mirrors[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Mirror {
    /// Where to.
    pub destination: Option<Destination>,
    /// How many; none means all.
    pub percentage: Option<Percent>,
}

/// `corsPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Who may.
    pub allow_origins: Vec<StringMatch>,
    /// The same, in the older form.
    pub allow_origin: Vec<String>,
    /// With what.
    pub allow_methods: Vec<String>,
    /// With which headers.
    pub allow_headers: Vec<String>,
    /// Who may read which headers.
    pub expose_headers: Vec<String>,
    /// How long that holds.
    pub max_age: Option<Duration>,
    /// With cookies.
    pub allow_credentials: Option<bool>,
    /// `FORWARD` or `IGNORE`.
    pub unmatched_preflights: Option<String>,
}

/// `tls[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TlsRoute {
    /// Any of these.
    pub r#match: Vec<L4Match>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// `tcp[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TcpRoute {
    /// Any of these; none matches everything.
    pub r#match: Vec<L4Match>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// `tcp[].match[]` and `tls[].match[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// Names of the server, for TLS.
    pub sni_hosts: Vec<String>,
    /// Destination addresses.
    pub destination_subnets: Vec<String>,
    /// The service's port.
    pub port: Option<u32>,
    /// Labels of the caller.
    pub source_labels: Labels,
    /// Gateways of this match only.
    pub gateways: Vec<String>,
    /// The caller's namespace.
    pub source_namespace: String,
}

/// `tcp[].route[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// The share.
    pub weight: u32,
}
