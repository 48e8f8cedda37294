//! Envoy's `ext_authz`, for requests and for connections → [`model::authz`](crate::model::authz). Nothing is passed over that
//! decides who is asked, about which requests, and what holds where nobody answers.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, StatusCode};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as envoy;
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3 as network;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{metadata, plain, text};
use crate::model::authz::{AuthzOverride, Buffer, ExtAuthz, HttpService, Service};
use crate::model::text::{Fraction, TextMatch};
use crate::unserved;

/// Envoy's limit to a question.
const TIMEOUT: Duration = Duration::from_millis(200);

/// The most that is kept of a body for a question, in bytes: requests wait in memory meanwhile.
const MOST: u32 = 4 << 20;

/// The filter.
///
/// # Errors
/// It has no service, or something that isn't served.
pub(super) fn filter(filter: envoy::ExtAuthz, notes: &mut Notes) -> Result<ExtAuthz, Refused> {
    let envoy::ExtAuthz {
        transport_api_version: _,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix: _,
        bootstrap_metadata_labels_key,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        charge_cluster_response_stats: _,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata,
        emit_filter_state_stats,
        max_denied_response_body_bytes,
        enforce_response_header_limits,
        shadow_mode,
        emit_client_span,
        services,
    } = filter;
    unserved!(notes, "ExtAuthz":
        validate_mutations, typed_metadata_context_namespaces, route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces, deny_at_disable, include_peer_certificate,
        bootstrap_metadata_labels_key, encode_raw_headers, decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion, filter_metadata, emit_filter_state_stats,
        max_denied_response_body_bytes, enforce_response_header_limits, shadow_mode,
        emit_client_span);
    let Asked {
        service,
        cluster,
        authority,
        timeout,
        allowed,
    } = match need(services, "grpc_service")? {
        envoy::ext_authz::Services::GrpcService(service) => {
            grpc(service, notes).at("grpc_service")?
        }
        envoy::ext_authz::Services::HttpService(service) => {
            http(service, notes).at("http_service")?
        }
    };
    let enabled = filter_enabled.map(text::runtime_fraction).transpose();
    let only = filter_enabled_metadata.map(metadata::matcher).transpose();
    let status = status_on_error.map_or(0, |status| status.code);
    Ok(ExtAuthz {
        service,
        cluster,
        authority,
        timeout,
        fail_open: failure_mode_allow,
        fail_open_header: failure_mode_allow_header_add,
        status_on_error: match u32::try_from(status) {
            Ok(0) => StatusCode::FORBIDDEN,
            Ok(status) => plain::status(status, 200, 599).at("status_on_error.code")?,
            Err(_) => {
                let reason = format!("{status} is no status");
                return Err(Refused::new(reason).under("status_on_error.code"));
            }
        },
        body: with_request_body
            .map(buffer)
            .transpose()
            .at("with_request_body")?,
        clear_route_cache,
        enabled: enabled.at("filter_enabled")?.unwrap_or(Fraction::ALWAYS),
        enabled_metadata: only.at("filter_enabled_metadata")?,
        allowed: match allowed_headers {
            None => allowed,
            Some(list) => Some(names(list).at("allowed_headers")?),
        },
        disallowed: maybe(disallowed_headers, "disallowed_headers")?,
        metadata_of: metadata_context_namespaces
            .into_iter()
            .map(Into::into)
            .collect(),
        tls_session: include_tls_session,
    })
}

/// The filter of connections.
///
/// # Errors
/// It has no service, or something that isn't served.
pub(super) fn network(filter: network::ExtAuthz, notes: &mut Notes) -> Result<ExtAuthz, Refused> {
    let network::ExtAuthz {
        stat_prefix: _,
        grpc_service,
        failure_mode_allow,
        include_peer_certificate,
        transport_api_version: _,
        filter_enabled_metadata,
        bootstrap_metadata_labels_key,
        include_tls_session,
        send_tls_alert_on_denial,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        shadow_mode,
    } = filter;
    unserved!(notes, "ExtAuthz":
        include_peer_certificate, bootstrap_metadata_labels_key,
        typed_metadata_context_namespaces, shadow_mode);
    unserved!(notes, "network.ExtAuthz": send_tls_alert_on_denial);
    let service = need(grpc_service, "grpc_service")?;
    let asked = grpc(service, notes).at("grpc_service")?;
    let only = filter_enabled_metadata.map(metadata::matcher).transpose();
    Ok(ExtAuthz {
        service: asked.service,
        cluster: asked.cluster,
        authority: asked.authority,
        timeout: asked.timeout,
        fail_open: failure_mode_allow,
        fail_open_header: false,
        status_on_error: StatusCode::FORBIDDEN,
        body: None,
        clear_route_cache: false,
        enabled: Fraction::ALWAYS,
        enabled_metadata: only.at("filter_enabled_metadata")?,
        allowed: None,
        disallowed: Vec::new(),
        metadata_of: metadata_context_namespaces
            .into_iter()
            .map(Into::into)
            .collect(),
        tls_session: include_tls_session,
    })
}

/// What is different on a route; none where the filter is off there.
///
/// # Errors
/// It names another service, or a limit that is none.
pub(super) fn on_route(
    route: envoy::ExtAuthzPerRoute,
    notes: &mut Notes,
) -> Result<Option<AuthzOverride>, Refused> {
    use envoy::ext_authz_per_route::Override;

    let settings = match need(route.r#override, "disabled")? {
        Override::Disabled(true) => return Ok(None),
        Override::Disabled(false) => {
            return Err(Refused::new("must be true").under("disabled"));
        }
        Override::CheckSettings(settings) => settings,
    };
    let envoy::CheckSettings {
        context_extensions,
        disable_request_body_buffering,
        with_request_body,
        emit_client_span,
        service_override,
    } = settings;
    let refuse = |notes: &mut Notes| {
        unserved!(notes, "CheckSettings": emit_client_span, service_override);
        Ok::<_, Refused>(())
    };
    refuse(notes).at("check_settings")?;
    let context = context_extensions.into_iter();
    let mut context: Vec<_> = context
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    context.sort();
    Ok(Some(AuthzOverride {
        context,
        body: match (disable_request_body_buffering, with_request_body) {
            (true, _) => Some(None),
            (false, None) => None,
            (false, Some(body)) => Some(Some(buffer(body).at("check_settings.with_request_body")?)),
        },
    }))
}

/// Who is asked, and how.
struct Asked {
    service: Service,
    cluster: Arc<str>,
    authority: Box<str>,
    timeout: Duration,
    /// Headers that the service itself asks for, in an older form.
    allowed: Option<Vec<TextMatch>>,
}

fn grpc(service: core::GrpcService, notes: &mut Notes) -> Result<Asked, Refused> {
    use core::grpc_service::TargetSpecifier;

    let core::GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = service;
    unserved!(notes, "ext_authz.GrpcService": retry_policy);
    let TargetSpecifier::EnvoyGrpc(core::grpc_service::EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length: _,
        skip_envoy_headers: _,
    }) = need(target_specifier, "envoy_grpc")?
    else {
        let reason = "a service is reached through a cluster";
        return Err(Refused::new(reason).under("google_grpc"));
    };
    unserved!(notes, "ext_authz.GrpcService": retry_policy);
    let authority = match authority.is_empty() {
        true => cluster_name.clone(),
        false => authority,
    };
    Ok(Asked {
        service: Service::Grpc(added(initial_metadata, "initial_metadata")?),
        cluster: cluster(cluster_name, "envoy_grpc.cluster_name")?,
        authority: authority.into(),
        timeout: plain::limit(timeout, "timeout")?.unwrap_or(TIMEOUT),
        allowed: None,
    })
}

fn http(service: envoy::HttpService, notes: &mut Notes) -> Result<Asked, Refused> {
    let envoy::HttpService {
        server_uri,
        path_prefix,
        path_override,
        authorization_request,
        authorization_response,
        retry_policy,
    } = service;
    unserved!(notes, "ext_authz.HttpService": path_override, retry_policy);
    let core::HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = need(server_uri, "server_uri")?;
    let core::http_uri::HttpUpstreamType::Cluster(name) =
        need(http_upstream_type, "server_uri.cluster")?;
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        let reason = format!("{path_prefix:?} must begin with a slash");
        return Err(Refused::new(reason).under("path_prefix"));
    }
    let parsed: ::http::Uri = uri
        .parse()
        .map_err(|_| Refused::new(format!("{uri:?} is no URI")).under("server_uri.uri"))?;
    #[expect(
        deprecated,
        reason = "control planes of earlier versions send the old form"
    )]
    let envoy::AuthorizationRequest {
        allowed_headers,
        headers_to_add,
    } = authorization_request.unwrap_or_default();
    let envoy::AuthorizationResponse {
        allowed_upstream_headers,
        allowed_upstream_headers_to_append,
        allowed_client_headers,
        allowed_client_headers_on_success,
        dynamic_metadata_from_headers,
    } = authorization_response.unwrap_or_default();
    let of = |list, field: &str| maybe(list, field).at("authorization_response");
    let allowed = allowed_headers.map(names).transpose();
    Ok(Asked {
        service: Service::Http(Box::new(HttpService {
            path_prefix: path_prefix.into(),
            add: added(headers_to_add, "authorization_request.headers_to_add")?,
            upstream: of(allowed_upstream_headers, "allowed_upstream_headers")?,
            upstream_append: of(
                allowed_upstream_headers_to_append,
                "allowed_upstream_headers_to_append",
            )?,
            client: of(allowed_client_headers, "allowed_client_headers")?,
            client_on_success: of(
                allowed_client_headers_on_success,
                "allowed_client_headers_on_success",
            )?,
            metadata: of(
                dynamic_metadata_from_headers,
                "dynamic_metadata_from_headers",
            )?,
        })),
        authority: parsed
            .authority()
            .map_or(&*name, ::http::uri::Authority::as_str)
            .into(),
        cluster: cluster(name, "server_uri.cluster")?,
        timeout: plain::limit(timeout, "server_uri.timeout")?.unwrap_or(TIMEOUT),
        allowed: allowed.at("authorization_request.allowed_headers")?,
    })
}

fn cluster(name: String, field: &str) -> Result<Arc<str>, Refused> {
    match name.is_empty() {
        true => Err(Refused::new("must not be empty").under(field)),
        false => Ok(name.into()),
    }
}

fn buffer(body: envoy::BufferSettings) -> Result<Buffer, Refused> {
    let envoy::BufferSettings {
        max_request_bytes,
        allow_partial_message,
        pack_as_bytes,
    } = body;
    if !(1..=MOST).contains(&max_request_bytes) {
        let reason = format!("{max_request_bytes} isn't between 1 and {MOST}");
        return Err(Refused::new(reason).under("max_request_bytes"));
    }
    Ok(Buffer {
        most: max_request_bytes as usize,
        partial: allow_partial_message,
        as_bytes: pack_as_bytes,
    })
}

fn maybe(list: Option<matcher::ListStringMatcher>, field: &str) -> Result<Vec<TextMatch>, Refused> {
    list.map_or_else(|| Ok(Vec::new()), names).at(field)
}

fn names(list: matcher::ListStringMatcher) -> Result<Vec<TextMatch>, Refused> {
    each("patterns", list.patterns, text::string)
}

fn added(
    list: Vec<core::HeaderValue>,
    field: &str,
) -> Result<Vec<(HeaderName, HeaderValue)>, Refused> {
    each(field, list, |one| {
        let core::HeaderValue {
            key,
            value,
            raw_value,
        } = one;
        let bytes = match raw_value.is_empty() {
            true => value.into_bytes(),
            false => raw_value,
        };
        let value = HeaderValue::from_bytes(&bytes)
            .map_err(|_| Refused::new("can't stand in a header").under("value"))?;
        Ok((plain::header_name(&key).at("key")?, value))
    })
}

#[cfg(test)]
mod tests;
