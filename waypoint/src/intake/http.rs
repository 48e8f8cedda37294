//! Envoy's `HttpConnectionManager` → [`model::http::HttpChain`](crate::model::http::HttpChain).

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as envoy;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use super::error::{At as _, Refused, each, need};
use super::route::Scope;
use super::served::Notes;
use super::{client, filters, log, plain, protocol, route, tracing, typed};
use crate::model::http::{
    ClientCertDetails, Codec, EscapedSlashes, Forwarded, HttpChain, HttpFilter, HttpLimits,
    PathNormalisation, RequestId, Routes, ServerHeader, StripPort,
};
use crate::unserved;

/// Envoy's limits where none are given.
const IDLE: Duration = Duration::from_secs(3600);
const STREAM_IDLE: Duration = Duration::from_secs(300);
const DRAIN: Duration = Duration::from_secs(5);
const HEADERS: u32 = 100;
const HEADER_KB: u32 = 60;

/// The largest that Envoy lets request headers be, in KiB.
const MOST_HEADER_KB: u32 = 8192;

/// HTTP on a chain.
///
/// # Errors
/// Something of it is bad, or weakens security where it is passed over.
#[expect(
    clippy::too_many_lines,
    reason = "one field after another, so that none is forgotten"
)]
pub(super) fn chain(
    manager: envoy::HttpConnectionManager,
    notes: &mut Notes,
) -> Result<HttpChain, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let envoy::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = manager;
    let add_user_agent = plain::on(add_user_agent);
    unserved!(notes, "HttpConnectionManager":
        add_user_agent, http1_safe_max_connection_duration, http3_protocol_options,
        stream_flush_timeout, drain_timeout_jitter, delayed_close_timeout,
        access_log_flush_interval, flush_access_log_on_new_request, access_log_options,
        early_header_mutation_extensions, internal_address_config, forward_client_cert_matcher,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6, local_reply_config,
        stream_error_on_invalid_http_message, path_normalization_options, proxy_status_config,
        typed_header_validation_config, append_local_overload,
        add_proxy_protocol_connection_state, forward_proto_config);
    let mut forwarded = Forwarded {
        use_remote_address: plain::on(use_remote_address),
        trusted_hops: xff_num_trusted_hops,
        skip_append: skip_xff_append,
        append_port: append_x_forwarded_port,
        client_cert: client::certificate(forward_client_cert_details)?,
        client_cert_details: match set_current_client_cert_details {
            None => ClientCertDetails::default(),
            Some(details) => {
                client::certificate_details(details, notes).at("set_current_client_cert_details")?
            }
        },
        scheme: client::scheme(scheme_header_transformation, notes)?,
    };
    client::address(original_ip_detection_extensions, &mut forwarded, notes)
        .at("original_ip_detection_extensions")?;
    if let Some(extension) = request_id_extension {
        request_ids(extension, notes).at("request_id_extension")?;
    }
    let upstream_spans = tracing::wants_upstream_spans(&http_filters);
    let filters = filters::chain(http_filters, notes)?;
    let tracing = tracing.map(|tracing| tracing::of(tracing, upstream_spans, notes));
    let tracing = tracing.transpose();
    let common = common_http_protocol_options.unwrap_or_default();
    let limits = limits(common, max_request_headers_kb, notes)?;
    Ok(HttpChain {
        stat_prefix: stat_prefix.into(),
        codec: codec(codec_type)?,
        routes: routes(route_specifier, &filters, notes)?,
        filters,
        access_logs: log::logs(access_log, notes)?,
        tracing: tracing.at("tracing")?.map(Arc::new),
        upgrades: upgrades(upgrade_configs)?,
        server: server(server_name, server_header_transformation)?,
        forwarded,
        paths: PathNormalisation {
            normalize: plain::on(normalize_path),
            merge_slashes,
            escaped_slashes: escaped_slashes(path_with_escaped_slashes_action)?,
        },
        limits: HttpLimits {
            stream_idle: plain::limit_or(stream_idle_timeout, STREAM_IDLE, "stream_idle_timeout")?,
            request: plain::limit(request_timeout, "request_timeout")?,
            request_headers: plain::limit(request_headers_timeout, "request_headers_timeout")?,
            drain: plain::maybe_duration(drain_timeout, "drain_timeout")?.unwrap_or(DRAIN),
            ..limits
        },
        http1: match http_protocol_options {
            None => crate::model::http::Http1Options::default(),
            Some(options) => protocol::http1(options, notes).at("http_protocol_options")?,
        },
        http2: match http2_protocol_options {
            None => crate::model::http::Http2Options::default(),
            Some(options) => protocol::http2(options, notes).at("http2_protocol_options")?,
        },
        request_id: RequestId {
            generate: plain::on_or(generate_request_id, true),
            keep_external: preserve_external_request_id,
            in_response: always_set_request_id_in_response,
        },
        proxy_100_continue,
        strip_port: match strip_port_mode {
            Some(envoy::http_connection_manager::StripPortMode::StripAnyHostPort(true)) => {
                StripPort::Any
            }
            _ if strip_matching_host_port => StripPort::Matching,
            _ => StripPort::No,
        },
        strip_trailing_dot: strip_trailing_host_dot,
        via: Some(via).filter(|via| !via.is_empty()).map(Into::into),
    })
}

fn codec(kind: i32) -> Result<Codec, Refused> {
    use envoy::http_connection_manager::CodecType;

    match CodecType::try_from(kind) {
        Ok(CodecType::Auto) => Ok(Codec::Auto),
        Ok(CodecType::Http1) => Ok(Codec::Http1),
        Ok(CodecType::Http2) => Ok(Codec::Http2),
        Ok(CodecType::Http3) | Err(_) => {
            let reason = "HTTP/1 and HTTP/2 are spoken";
            Err(Refused::new(reason).under("codec_type"))
        }
    }
}

fn routes(
    specifier: Option<envoy::http_connection_manager::RouteSpecifier>,
    filters: &[HttpFilter],
    notes: &mut Notes,
) -> Result<Routes, Refused> {
    use envoy::http_connection_manager::RouteSpecifier;

    match need(specifier, "route_config")? {
        RouteSpecifier::RouteConfig(table) => {
            let named = filters.iter().filter_map(|filter| match filter {
                HttpFilter::Jwt(jwt) => Some(jwt.named.clone()),
                _ => None,
            });
            let scope = Scope {
                requirements: named.flatten().collect(),
                ..Scope::default()
            };
            let table = route::table(table, scope, notes).at("route_config")?;
            Ok(Routes::Inline(Arc::new(table)))
        }
        RouteSpecifier::Rds(envoy::Rds {
            config_source: _,
            route_config_name,
        }) => match route_config_name.is_empty() {
            true => Err(Refused::new("must not be empty").under("rds.route_config_name")),
            false => Ok(Routes::Named(route_config_name.into())),
        },
        RouteSpecifier::ScopedRoutes(_) => {
            let reason = "a chain has one route table";
            Err(Refused::new(reason).under("scoped_routes"))
        }
    }
}

/// Upgrades that are on, by name.
fn upgrades(
    configs: Vec<envoy::http_connection_manager::UpgradeConfig>,
) -> Result<Vec<Box<str>>, Refused> {
    let names = each("upgrade_configs", configs, |upgrade| {
        let envoy::http_connection_manager::UpgradeConfig {
            upgrade_type,
            filters,
            enabled,
        } = upgrade;
        if !filters.is_empty() {
            let reason = "an upgrade goes through the same filters as every request";
            return Err(Refused::new(reason).under("filters"));
        }
        if upgrade_type.is_empty() {
            return Err(Refused::new("must not be empty").under("upgrade_type"));
        }
        let name = upgrade_type.to_ascii_lowercase().into_boxed_str();
        Ok(Some(name).filter(|_| plain::on_or(enabled, true)))
    })?;
    Ok(names.into_iter().flatten().collect())
}

fn server(name: String, transformation: i32) -> Result<ServerHeader, Refused> {
    use envoy::http_connection_manager::ServerHeaderTransformation as Transformation;

    let name = match name.is_empty() {
        true => "envoy".to_owned(),
        false => name,
    };
    let name = http::HeaderValue::from_str(&name).map_err(|_| {
        let reason = format!("{name:?} can't stand in a header");
        Refused::new(reason).under("server_name")
    })?;
    match Transformation::try_from(transformation) {
        Ok(Transformation::Overwrite) => Ok(ServerHeader::Overwrite(name)),
        Ok(Transformation::AppendIfAbsent) => Ok(ServerHeader::AppendIfAbsent(name)),
        Ok(Transformation::PassThrough) => Ok(ServerHeader::PassThrough),
        Err(_) => {
            let reason = format!("{transformation} is none of Envoy's");
            Err(Refused::new(reason).under("server_header_transformation"))
        }
    }
}

fn request_ids(extension: envoy::RequestIdExtension, notes: &mut Notes) -> Result<(), Refused> {
    let Some(config) = extension.typed_config else {
        return Ok(());
    };
    if typed::name(&config) != "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
        notes.count(typed::name(&config), "request identifiers are UUIDs");
        return Ok(());
    }
    let UuidRequestIdConfig {
        pack_trace_reason: _,
        use_request_id_for_trace_sampling: _,
    } = typed::unpack(&config, notes).at("typed_config")?;
    Ok(())
}

fn escaped_slashes(action: i32) -> Result<EscapedSlashes, Refused> {
    use envoy::http_connection_manager::PathWithEscapedSlashesAction as Action;

    match Action::try_from(action) {
        Ok(Action::ImplementationSpecificDefault | Action::KeepUnchanged) => {
            Ok(EscapedSlashes::Keep)
        }
        Ok(Action::RejectRequest) => Ok(EscapedSlashes::Reject),
        Ok(Action::UnescapeAndRedirect) => Ok(EscapedSlashes::UnescapeAndRedirect),
        Ok(Action::UnescapeAndForward) => Ok(EscapedSlashes::UnescapeAndForward),
        Err(_) => {
            let reason = format!("{action} is none of Envoy's");
            Err(Refused::new(reason).under("path_with_escaped_slashes_action"))
        }
    }
}

fn limits(
    options: core::HttpProtocolOptions,
    header_kb: Option<envoy_types::pb::google::protobuf::UInt32Value>,
    notes: &mut Notes,
) -> Result<HttpLimits, Refused> {
    let field = "common_http_protocol_options";
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = options;
    unserved!(notes, "HttpProtocolOptions":
        max_connection_duration_jitter, max_response_headers_kb, headers_with_underscores_action);
    let header_kb = plain::number(header_kb).unwrap_or(HEADER_KB);
    if !(1..=MOST_HEADER_KB).contains(&header_kb) {
        let reason = format!("{header_kb} isn't between 1 and {MOST_HEADER_KB}");
        return Err(Refused::new(reason).under("max_request_headers_kb"));
    }
    let requests = plain::number(max_requests_per_connection);
    Ok(HttpLimits {
        idle: plain::limit_or(idle_timeout, IDLE, "idle_timeout").at(field)?,
        max_duration: plain::limit(max_connection_duration, "max_connection_duration").at(field)?,
        max_stream_duration: plain::limit(max_stream_duration, "max_stream_duration").at(field)?,
        max_requests: requests.filter(|requests| *requests > 0),
        max_header_bytes: header_kb * 1024,
        max_headers: plain::number(max_headers_count).unwrap_or(HEADERS),
        ..HttpLimits::default()
    })
}

#[cfg(test)]
mod tests;
