//! The filters that ask a service: about requests, and about connections.

use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as ext_authz;
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3 as network;
use ext_authz::ext_authz::Services;
use matcher::string_matcher::MatchPattern;

use super::super::super::api::{core, duration, matcher, percent, string};
use super::super::super::view::outbound;
use crate::objects::mesh_config::{Body, Common, Http, Provider};

/// Under which a rule that matched is found.
const MATCHED: &str = "istio_ext_authz_shadow_effective_policy_id";
/// Where the provider says nothing, as in istiod.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// About connections; only gRPC has words for those.
pub(super) fn about_connections(name: &str, common: &Common) -> network::ExtAuthz {
    network::ExtAuthz {
        stat_prefix: "tcp.".to_owned(),
        grpc_service: Some(over_grpc(common)),
        failure_mode_allow: common.fail_open,
        transport_api_version: core::ApiVersion::V3.into(),
        filter_enabled_metadata: Some(where_matched("envoy.filters.network.rbac", name)),
        ..Default::default()
    }
}

/// About requests.
pub(super) fn about_requests(name: &str, provider: &Provider) -> ext_authz::ExtAuthz {
    let common = provider.common();
    let status = common.status_on_error.parse().ok();
    let mut filter = ext_authz::ExtAuthz {
        transport_api_version: core::ApiVersion::V3.into(),
        failure_mode_allow: common.fail_open,
        clear_route_cache: common.clear_route_cache,
        status_on_error: status.map(|code| percent::HttpStatus { code }),
        with_request_body: common.include_request_body_in_check.map(body),
        filter_enabled_metadata: Some(where_matched("envoy.filters.http.rbac", name)),
        ..Default::default()
    };
    match provider {
        Provider::Grpc(_) => {
            filter.services = Some(Services::GrpcService(over_grpc(common)));
        }
        Provider::Http(http) => {
            let (shown, of_old) = (
                &http.include_request_headers_in_check,
                &http.include_headers_in_check,
            );
            filter.allowed_headers = headers(shown).or_else(|| headers(of_old));
            filter.services = Some(Services::HttpService(over_http(http)));
        }
    }
    filter
}

fn cluster(common: &Common) -> String {
    outbound(common.port, "", common.host())
}

fn timeout(common: &Common) -> std::time::Duration {
    common.timeout.map_or(TIMEOUT, |timeout| timeout.0)
}

fn over_grpc(common: &Common) -> core::GrpcService {
    core::GrpcService {
        timeout: Some(duration(timeout(common))),
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
            core::grpc_service::EnvoyGrpc {
                cluster_name: cluster(common),
                authority: common.host().to_owned(),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn over_http(http: &Http) -> ext_authz::HttpService {
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
            timeout: Some(duration(timeout(&http.common))),
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster(
                &http.common,
            ))),
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
fn where_matched(rules: &str, name: &str) -> matcher::MetadataMatcher {
    let prefix = MatchPattern::Prefix(format!("istio-ext-authz-{name}"));
    matcher::MetadataMatcher {
        filter: rules.to_owned(),
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
