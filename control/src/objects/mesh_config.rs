//! The mesh's configuration in Istio's form (key `mesh` of the ConfigMap `istio`), as far as control
//! uses it: the services that AuthorizationPolicies with action CUSTOM ask. What else it holds is for
//! istiod, and is control's own flags here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;

use super::Key;
use super::duration::Duration;

/// The ConfigMap's name, in the namespace of the installation.
pub const NAME: &str = "istio";
/// Its key.
const MESH: &str = "mesh";

/// Services that decide about requests, by the names that policies use.
pub type Providers = BTreeMap<String, Provider>;

/// The configuration as read.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// The ConfigMap.
    pub key: Key,
    /// What it says of providers, or why it can't be read.
    pub providers: Result<Providers, String>,
}

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mesh {
    #[serde(default)]
    extension_providers: Vec<Extension>,
}

/// One of `extensionProviders`; those of other kinds (tracing, logs) are left alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extension {
    name: String,
    envoy_ext_authz_http: Option<Http>,
    envoy_ext_authz_grpc: Option<Grpc>,
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

impl From<&ConfigMap> for MeshConfig {
    fn from(map: &ConfigMap) -> Self {
        let text = map.data.as_ref().and_then(|data| data.get(MESH));
        Self {
            key: Key::of(&map.metadata),
            providers: text.map_or_else(|| Ok(Providers::new()), |text| providers(text)),
        }
    }
}

/// The providers in a mesh configuration.
///
/// # Errors
/// When it is no YAML of that form, or a provider is not complete.
pub fn providers(text: &str) -> Result<Providers, String> {
    let mesh: Option<Mesh> = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let mut providers = Providers::new();
    for extension in mesh
        .map(|mesh| mesh.extension_providers)
        .unwrap_or_default()
    {
        let Extension {
            name,
            envoy_ext_authz_http,
            envoy_ext_authz_grpc,
        } = extension;
        let http = envoy_ext_authz_http.map(Provider::Http);
        if let Some(provider) = http.or_else(|| envoy_ext_authz_grpc.map(Provider::Grpc)) {
            let common = provider.common();
            if name.is_empty() || common.host().is_empty() || common.port == 0 {
                return Err(format!(
                    "extensionProviders: {name:?} needs a name, a service and a port"
                ));
            }
            let status = &common.status_on_error;
            if !status.is_empty() && !matches!(status.parse(), Ok(100..=599u16)) {
                return Err(format!(
                    "extensionProviders: {name}: statusOnError {status:?} is no HTTP status"
                ));
            }
            providers.insert(name, provider);
        }
    }
    Ok(providers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_of_other_kinds_are_left_alone_and_wrong_ones_are_named() {
        let text = "extensionProviders:\n- {name: otel, opentelemetry: {service: o, port: 1}}\n- name: ask\n  envoyExtAuthzGrpc: {service: shop/ask.shop.svc.cluster.local, port: 9000, timeout: 1s}\n";
        let read = providers(text).unwrap();
        let common = read["ask"].common();
        assert_eq!(read.len(), 1);
        assert_eq!(
            (common.host(), common.port),
            ("ask.shop.svc.cluster.local", 9000)
        );
        assert_eq!(providers(""), Ok(Providers::new()));
        for (wrong, said) in [
            ("[", "sequence"),
            (
                "extensionProviders: [{name: a, envoyExtAuthzHttp: {port: 1}}]",
                "\"a\"",
            ),
            (
                "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: s, port: 1, statusOnError: \"9\"}}]",
                "statusOnError",
            ),
        ] {
            let error = providers(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
