//! HTTPRoute, GRPCRoute, TCPRoute and TLSRoute, gateway.networking.k8s.io: routes that name their
//! parents. The four have one shape, of which each uses a part.

use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use super::authorization_policy::spec_noting;

/// `spec`, and which parents the status speaks of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayRoute {
    /// `spec.parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames`.
    pub hostnames: Vec<String>,
    /// `spec.rules`.
    pub rules: Vec<RouteRule>,
    /// `status.parents`, other controllers' among them.
    pub status: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    parent_refs: Vec<ParentRef>,
    hostnames: Vec<String>,
    rules: Vec<RouteRule>,
}

/// `parentRefs[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// Empty for Service; `networking.istio.io` for ServiceEntry.
    pub group: Option<String>,
    /// `Service`, `ServiceEntry`, or `Gateway`.
    pub kind: Option<String>,
    /// Its namespace; none: the route's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// A listener.
    pub section_name: Option<String>,
    /// Only this port.
    pub port: Option<u32>,
}

/// `rules[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// For logs.
    pub name: Option<String>,
    /// Any of these; none matches everything.
    pub matches: Vec<RouteMatch>,
    /// What is done on the way.
    pub filters: Vec<Filter>,
    /// Where to.
    pub backend_refs: Vec<BackendRef>,
    /// How long.
    pub timeouts: Option<Timeouts>,
    /// Tries.
    pub retry: Option<Retry>,
}

/// `rules[].matches[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteMatch {
    /// The path.
    pub path: Option<ValueMatch>,
    /// Headers.
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    pub query_params: Vec<ValueMatch>,
    /// The method: a word for HTTP, service and method for gRPC.
    pub method: Option<Value>,
}

/// A value that must match, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ValueMatch {
    /// `Exact`, `PathPrefix` or `RegularExpression`.
    pub r#type: Option<String>,
    /// Of which header or parameter.
    pub name: String,
    /// The value; a path is `/` unless said.
    pub value: Option<String>,
}

/// `filters[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// Which of them.
    pub r#type: String,
    /// Request headers.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Response headers.
    pub response_header_modifier: Option<HeaderModifier>,
    /// A copy goes there.
    pub request_mirror: Option<RequestMirror>,
    /// Answer with a redirect.
    pub request_redirect: Option<RequestRedirect>,
    /// Change path or host.
    pub url_rewrite: Option<UrlRewrite>,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
}

/// `requestHeaderModifier`, `responseHeaderModifier`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// In place of what is there.
    pub set: Vec<Header>,
    /// Beside what is there.
    pub add: Vec<Header>,
    /// Away.
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `requestMirror`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMirror {
    /// Where to.
    pub backend_ref: BackendRef,
    /// How many of a hundred.
    pub percent: Option<f64>,
    /// How many, exactly.
    pub fraction: Option<Fraction>,
}

/// `{numerator, denominator}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fraction {
    /// Above.
    pub numerator: f64,
    /// Below; 100 unless said.
    pub denominator: Option<f64>,
}

/// `requestRedirect`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRedirect {
    /// The scheme.
    pub scheme: Option<String>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u32>,
    /// 302 unless said.
    pub status_code: Option<u32>,
}

/// `urlRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// What becomes of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathModifier {
    /// Which of the two; the other is not there.
    pub r#type: String,
    /// All of it.
    pub replace_full_path: Option<String>,
    /// Its matched beginning.
    pub replace_prefix_match: Option<String>,
}

/// `cors`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// Who may.
    pub allow_origins: Vec<String>,
    /// With cookies.
    pub allow_credentials: Option<bool>,
    /// With what.
    pub allow_methods: Vec<String>,
    /// With which headers.
    pub allow_headers: Vec<String>,
    /// Who may read which headers.
    pub expose_headers: Vec<String>,
    /// How long that holds, in seconds.
    pub max_age: Option<u64>,
}

/// `backendRefs[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BackendRef {
    /// Empty for Service.
    pub group: Option<String>,
    /// `Service` unless said.
    pub kind: Option<String>,
    /// Its namespace; none: the route's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: Option<u32>,
    /// The share; 1 unless said.
    pub weight: Option<u32>,
    /// What is done on the way to this one.
    pub filters: Vec<Filter>,
}

/// `timeouts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// For the whole request.
    pub request: Option<super::duration::Duration>,
    /// For each try.
    pub backend_request: Option<super::duration::Duration>,
}

/// `retry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// On which statuses.
    pub codes: Vec<u32>,
    /// Further tries.
    pub attempts: Option<i32>,
    /// The first pause.
    pub backoff: Option<super::duration::Duration>,
}

impl ParentRef {
    /// Whether it is a service: then the route is one of the mesh.
    #[must_use]
    pub fn is_service(&self) -> bool {
        matches!(self.group.as_deref(), Some("" | "core"))
            && self.kind.as_deref() == Some("Service")
    }
}

impl GatewayRoute {
    pub(super) fn read(
        object: &DynamicObject,
        passed_over: &mut Vec<String>,
    ) -> Result<Self, String> {
        let Spec {
            parent_refs,
            hostnames,
            rules,
        } = spec_noting(object, passed_over)?;
        let status = object
            .data
            .pointer("/status/parents")
            .and_then(Value::as_array)
            .cloned();
        Ok(Self {
            parents: parent_refs,
            hostnames,
            rules,
            status: status.unwrap_or_default(),
        })
    }
}
