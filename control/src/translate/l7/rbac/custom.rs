//! CUSTOM: a service decides about the requests that a policy's rules match. The rules are shadow
//! rules, which decide nothing; the filter behind them asks where one of them matched.
//! (istio/istio, `pilot/pkg/security/authz/builder/extauthz.go`)

use std::collections::BTreeMap;

use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as ext_authz;
use ext_authz::ext_authz::Services;
use matcher::string_matcher::MatchPattern;

use super::super::api::{any, core, duration, hcm, http_filter, matcher, percent, rbac, string};
use super::super::view::{Target, View, outbound};
use super::{Built, attached, http_rules, of_rules};
use crate::objects::authorization_policy::{AuthorizationPolicy, Spec};
use crate::objects::mesh_config::{Body, Common, Http, Provider};

use rbac::rbac::Action;

/// What the shadow rules write down, and the filter reads.
const RESULTS: &str = "istio_ext_authz_";
/// Under which a rule that matched is found.
const MATCHED: &str = "istio_ext_authz_shadow_effective_policy_id";
/// Where the provider says nothing, as in istiod.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// The rules and the filter of each provider that is asked here.
pub(in super::super) fn filters(view: &View<'_>, service: Option<&Target>) -> Vec<hcm::HttpFilter> {
    let mut by_provider: BTreeMap<&str, (&Provider, rbac::Rbac)> = BTreeMap::new();
    for policy in attached(view, service) {
        let (Ok(spec), Some((name, provider))) = (&policy.spec, provider(view, policy)) else {
            continue;
        };
        let key = &policy.source.key;
        let (_, rules) = by_provider.entry(name).or_insert_with(|| {
            let rules = rbac::Rbac {
                action: Action::Deny.into(),
                ..Default::default()
            };
            (provider, rules)
        });
        rules
            .policies
            .extend(of_rules(view, key, spec, Action::Deny, false, |rule| {
                format!(
                    "istio-ext-authz-{name}-ns[{}]-policy[{}]-rule[{rule}]",
                    key.namespace, key.name
                )
            }));
    }
    let filters = by_provider.into_iter().map(|(name, (provider, rules))| {
        let rules = http_rules(Built {
            prefix: RESULTS.to_owned(),
            rules: None,
            shadow: Some(rules),
        });
        let asks = http_filter("envoy.filters.http.ext_authz", any(&asks(name, provider)));
        [rules, asks]
    });
    filters.flatten().collect()
}

/// The services that policies ask here, by host name and port.
pub(in super::super) fn asked(view: &View<'_>) -> Vec<(String, u16)> {
    let policies = view.policies.authorization.iter();
    let mut asked: Vec<(String, u16)> = policies
        .filter_map(|(policy, _)| provider(view, policy))
        .map(|(_, provider)| (provider.common().host().to_owned(), provider.common().port))
        .collect();
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// The provider that a policy asks, where it is known and its service is there.
pub(super) fn provider<'a>(
    view: &'a View<'_>,
    policy: &'a AuthorizationPolicy,
) -> Option<(&'a str, &'a Provider)> {
    let name = policy.spec.as_ref().ok()?.asks()?;
    let provider = view.mesh.providers.get(name)?;
    is_there(view, provider.common()).then_some((name, provider))
}

fn is_there(view: &View<'_>, common: &Common) -> bool {
    let target = (view.lookup)(common.host());
    target.is_some_and(|target| target.ports.iter().any(|port| port.number == common.port))
}

/// Why nobody can be asked.
pub(super) fn problem(view: &View<'_>, spec: &Spec, tcp: bool) -> String {
    let name = spec.asks().unwrap_or_default();
    let why = match view.mesh.providers.get(name).map(Provider::common) {
        _ if tcp => "on opaque connections nobody is asked".to_owned(),
        None => format!(
            "the mesh configuration (ConfigMap {}/istio) has no such extension provider for authorization",
            view.mesh.root_namespace
        ),
        Some(common) => format!(
            "no service {} with port {} is known",
            common.host(),
            common.port
        ),
    };
    format!("action CUSTOM, provider {name:?}: {why}; it denies everything there")
}

fn asks(name: &str, provider: &Provider) -> ext_authz::ExtAuthz {
    let common = provider.common();
    let cluster = outbound(common.port, "", common.host());
    let timeout = common.timeout.map_or(TIMEOUT, |timeout| timeout.0);
    let status = common.status_on_error.parse().ok();
    let mut filter = ext_authz::ExtAuthz {
        transport_api_version: core::ApiVersion::V3.into(),
        failure_mode_allow: common.fail_open,
        clear_route_cache: common.clear_route_cache,
        status_on_error: status.map(|code| percent::HttpStatus { code }),
        with_request_body: common.include_request_body_in_check.map(body),
        filter_enabled_metadata: Some(where_matched(name)),
        ..Default::default()
    };
    match provider {
        Provider::Grpc(_) => {
            filter.services = Some(Services::GrpcService(core::GrpcService {
                timeout: Some(duration(timeout)),
                target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
                    core::grpc_service::EnvoyGrpc {
                        cluster_name: cluster,
                        authority: common.host().to_owned(),
                        ..Default::default()
                    },
                )),
                ..Default::default()
            }));
        }
        Provider::Http(http) => {
            let shown = [
                http.include_request_headers_in_check.as_slice(),
                &http.include_headers_in_check,
            ];
            filter.allowed_headers = headers(&shown.concat());
            filter.services = Some(Services::HttpService(over_http(http, cluster, timeout)));
        }
    }
    filter
}

fn over_http(http: &Http, cluster: String, timeout: std::time::Duration) -> ext_authz::HttpService {
    let added = http.include_additional_headers_in_check.iter();
    let added: Vec<core::HeaderValue> = added
        .map(|(key, value)| core::HeaderValue {
            key: key.clone(),
            value: value.clone(),
            ..Default::default()
        })
        .collect();
    let answer = ext_authz::AuthorizationResponse {
        allowed_upstream_headers: headers(&http.headers_to_upstream_on_allow),
        allowed_client_headers: headers(&http.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: headers(&http.headers_to_downstream_on_allow),
        ..Default::default()
    };
    ext_authz::HttpService {
        server_uri: Some(core::HttpUri {
            uri: format!("http://{}", http.common.host()),
            timeout: Some(duration(timeout)),
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster)),
        }),
        path_prefix: http.path_prefix.clone(),
        authorization_request: (!added.is_empty()).then(|| ext_authz::AuthorizationRequest {
            headers_to_add: added,
            ..Default::default()
        }),
        authorization_response: (answer != ext_authz::AuthorizationResponse::default())
            .then_some(answer),
        ..Default::default()
    }
}

fn body(body: Body) -> ext_authz::BufferSettings {
    ext_authz::BufferSettings {
        max_request_bytes: body.max_request_bytes,
        allow_partial_message: body.allow_partial_message,
        pack_as_bytes: body.pack_as_bytes,
    }
}

/// Names of headers; `*` at an end stands for anything.
fn headers(names: &[String]) -> Option<matcher::ListStringMatcher> {
    let patterns = names.iter().map(|name| {
        let pattern = if let Some(end) = name.strip_prefix('*') {
            MatchPattern::Suffix(end.to_owned())
        } else if let Some(beginning) = name.strip_suffix('*') {
            MatchPattern::Prefix(beginning.to_owned())
        } else {
            MatchPattern::Exact(name.clone())
        };
        string(pattern, true)
    });
    let patterns: Vec<_> = patterns.collect();
    (!patterns.is_empty()).then_some(matcher::ListStringMatcher { patterns })
}

/// Asked only where one of this provider's rules matched.
fn where_matched(name: &str) -> matcher::MetadataMatcher {
    let prefix = MatchPattern::Prefix(format!("istio-ext-authz-{name}"));
    matcher::MetadataMatcher {
        filter: "envoy.filters.http.rbac".to_owned(),
        path: vec![matcher::metadata_matcher::PathSegment {
            segment: Some(matcher::metadata_matcher::path_segment::Segment::Key(
                MATCHED.to_owned(),
            )),
        }],
        value: Some(matcher::ValueMatcher {
            match_pattern: Some(matcher::value_matcher::MatchPattern::StringMatch(string(
                prefix, false,
            ))),
        }),
        ..Default::default()
    }
}
