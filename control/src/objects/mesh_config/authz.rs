//! Services that decide about requests and connections: `envoyExtAuthzHttp` and `envoyExtAuthzGrpc`
//! among the mesh configuration's providers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::duration::Duration;

/// A service that decides about requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// Asked over HTTP.
    Http(Http),
    /// Asked over gRPC.
    Grpc(Grpc),
}

/// `envoyExtAuthzHttp`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http {
    /// What both kinds say.
    #[serde(flatten)]
    pub common: Common,
    /// Stands before the path that is asked for.
    pub path_prefix: String,
    /// Headers of the request that it is shown; `*` at an end stands for anything.
    pub include_request_headers_in_check: Vec<String>,
    /// The same in an older form, where there is none in the newer.
    pub include_headers_in_check: Vec<String>,
    /// Headers that are added for it.
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// Its headers that an allowed request goes on with.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Its headers that the caller gets with the refusal.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Its headers that the caller gets with the answer.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// `envoyExtAuthzGrpc`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Grpc {
    /// What both kinds say.
    #[serde(flatten)]
    pub common: Common,
}

/// What both kinds of provider say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Common {
    /// Its host name, after `NAMESPACE/` or alone.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// How long it may take; none: ten minutes.
    pub timeout: Option<Duration>,
    /// A service that does not answer allows.
    pub fail_open: bool,
    /// The route is chosen anew with what it added.
    pub clear_route_cache: bool,
    /// The status when it does not answer; none: 403.
    pub status_on_error: String,
    /// How much of the body it is shown.
    pub include_request_body_in_check: Option<Body>,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Body {
    /// At most this much.
    pub max_request_bytes: u32,
    /// A longer one is shown in part, rather than refused.
    pub allow_partial_message: bool,
    /// As bytes rather than as text.
    pub pack_as_bytes: bool,
}

impl Provider {
    /// What both kinds say.
    #[must_use]
    pub fn common(&self) -> &Common {
        match self {
            Self::Http(http) => &http.common,
            Self::Grpc(grpc) => &grpc.common,
        }
    }
}

impl Common {
    /// The service's host name.
    #[must_use]
    pub fn host(&self) -> &str {
        let service = self.service.as_str();
        service.split_once('/').map_or(service, |(_, host)| host)
    }
}

impl Provider {
    /// Says what is wrong, by its field.
    pub(super) fn check(&self) -> Result<(), String> {
        let common = self.common();
        if common.host().is_empty() {
            return Err("service: none is named".to_owned());
        }
        if common.port == 0 {
            return Err("port: none is named".to_owned());
        }
        let status = &common.status_on_error;
        if !status.is_empty() && !matches!(status.parse(), Ok(200..=599u16)) {
            return Err(format!("statusOnError: {status:?} is no HTTP status"));
        }
        if let Some(body) = common.include_request_body_in_check
            && body.max_request_bytes == 0
        {
            return Err("includeRequestBodyInCheck.maxRequestBytes: must be above 0".to_owned());
        }
        let Self::Http(http) = self else {
            return Ok(());
        };
        let prefix = &http.path_prefix;
        if !prefix.is_empty() && !prefix.starts_with('/') {
            return Err(format!("pathPrefix: {prefix:?} must begin with a slash"));
        }
        let lists = [
            (
                "includeRequestHeadersInCheck",
                &http.include_request_headers_in_check,
            ),
            ("includeHeadersInCheck", &http.include_headers_in_check),
            (
                "headersToUpstreamOnAllow",
                &http.headers_to_upstream_on_allow,
            ),
            (
                "headersToDownstreamOnDeny",
                &http.headers_to_downstream_on_deny,
            ),
            (
                "headersToDownstreamOnAllow",
                &http.headers_to_downstream_on_allow,
            ),
        ];
        let all = |(_, names): &(&str, &Vec<String>)| names.iter().any(|name| name == "*");
        match lists.into_iter().find(all) {
            Some((field, _)) => Err(format!(
                "{field}: \"*\" alone names all headers; a name must stand beside it"
            )),
            None => Ok(()),
        }
    }
}
