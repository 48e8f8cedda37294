//! Envoy's HTTP filters → [`model::http::HttpFilter`](crate::model::http::HttpFilter), in their
//! order. A filter that isn't known is refused: it may be the one that keeps somebody out.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
use envoy_types::pb::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as state;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::Any;

use super::error::{At as _, Refused, each, need};
use super::filter_state;
use super::served::Notes;
use super::{authz, extension, jwt, plain, rate_limit, rbac, session, stats, text, typed, wasm};
use crate::model::http::{AbortWith, Cors, Fault, HttpFilter};
use crate::model::text::Fraction;
use crate::model::wasm::Plugin;
use crate::unserved;

/// What a filter became.
enum Compiled {
    /// A filter of the engine.
    Filter(HttpFilter),
    /// Nothing: what it does is done elsewhere, or not at all.
    Nothing,
    /// The router, which ends the list.
    Router,
}

/// The filters of a chain, without the router, which must be the last.
///
/// # Errors
/// One can't be compiled, isn't served, or there is no router at the end.
pub(super) fn chain(
    filters: Vec<hcm::HttpFilter>,
    notes: &mut Notes,
) -> Result<Vec<HttpFilter>, Refused> {
    let mut chain = Vec::with_capacity(filters.len());
    let mut routed = false;
    for (index, filter) in filters.into_iter().enumerate() {
        if routed {
            let reason = "the router is the last filter";
            return Err(Refused::new(reason)).item(index).at("http_filters");
        }
        let name = filter.name.clone();
        match one(filter, notes).key(&name).at("http_filters")? {
            Compiled::Filter(filter) => chain.push(filter),
            Compiled::Nothing => {}
            Compiled::Router => routed = true,
        }
    }
    match routed {
        true => Ok(chain),
        false => Err(Refused::new("the last filter must be the router").under("http_filters")),
    }
}

fn one(filter: hcm::HttpFilter, notes: &mut Notes) -> Result<Compiled, Refused> {
    use hcm::http_filter::ConfigType;

    let hcm::HttpFilter {
        name,
        is_optional,
        disabled,
        config_type,
    } = filter;
    if disabled {
        notes.count(
            format!("HttpFilter.disabled of {name}"),
            "the filter is off, also for routes that would switch it on",
        );
        return Ok(Compiled::Nothing);
    }
    let config = match need(config_type, "typed_config")? {
        ConfigType::TypedConfig(config) => config,
        ConfigType::ConfigDiscovery(source) => {
            let discovered = extension::discovered(&name, source, notes);
            let discovered = discovered.at("config_discovery")?;
            return Ok(Compiled::Filter(HttpFilter::Discovered(Arc::new(
                discovered,
            ))));
        }
    };
    let compiled = typed_one(&config, notes).at("typed_config")?;
    match compiled {
        Some(compiled) => Ok(compiled),
        None => {
            let kind = typed::open(&config).at("typed_config")?.name;
            if is_optional {
                notes.count(kind, "a filter that isn't served, and is optional");
                return Ok(Compiled::Nothing);
            }
            let reason = format!(
                "the filter {kind} is not served, and without it requests could pass or go where \
                 they must not"
            );
            Err(Refused::new(reason).under("typed_config"))
        }
    }
}

/// A filter by itself; none where it isn't served, or is none that stands by itself.
pub(super) fn alone(config: &Any, notes: &mut Notes) -> Result<Option<HttpFilter>, Refused> {
    Ok(match typed_one(config, notes)? {
        Some(Compiled::Filter(filter)) => Some(filter),
        Some(Compiled::Nothing | Compiled::Router) | None => None,
    })
}

/// None where the filter isn't served.
fn typed_one(config: &Any, notes: &mut Notes) -> Result<Option<Compiled>, Refused> {
    let kind = typed::open(config)?.name;
    let filter = match kind.as_str() {
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => {
            HttpFilter::Jwt(Arc::new(jwt::filter(typed::unpack_whole(config)?, notes)?))
        }
        "envoy.extensions.filters.http.rbac.v3.RBAC" => {
            HttpFilter::Rbac(Arc::new(rbac::http(typed::unpack_whole(config)?, notes)?))
        }
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" => {
            let filter = authz::filter(typed::unpack_whole(config)?, notes)?;
            HttpFilter::ExtAuthz(Arc::new(filter))
        }
        "envoy.extensions.filters.http.wasm.v3.Wasm" => {
            let plugin = wasm::filter(config, notes)?;
            HttpFilter::Plugin(Arc::new(Plugin::new(plugin)))
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            HttpFilter::RateLimit(Arc::new(rate_limit::of(config, notes)?))
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            HttpFilter::Fault(Arc::new(fault(typed::unpack(config, notes)?, notes)?))
        }
        "envoy.extensions.filters.http.cors.v3.Cors" => HttpFilter::Cors,
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSession" => {
            let session = session::of(typed::unpack(config, notes)?, notes)?;
            HttpFilter::Session(session.map(Arc::new))
        }
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" => {
            let grpc_stats::FilterConfig {
                emit_filter_state: _,
                enable_upstream_stats: _,
                replace_dots_in_grpc_service_name: _,
                per_method_stat_specifier: _,
            } = typed::unpack(config, notes)?;
            HttpFilter::GrpcStats
        }
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb" => {
            let GrpcWeb {} = typed::unpack(config, notes)?;
            HttpFilter::GrpcWeb
        }
        "stats.PluginConfig" => HttpFilter::Stats(Arc::new(stats::of(config, notes)?)),
        "io.istio.http.peer_metadata.Config" => HttpFilter::PeerMetadata,
        "envoy.extensions.filters.http.set_filter_state.v3.Config" => {
            let state::Config {
                on_request_headers,
                clear_route_cache,
            } = typed::unpack_whole(config)?;
            unserved!(notes, "set_filter_state.Config": clear_route_cache);
            filter_state::known(on_request_headers, notes).at("on_request_headers")?;
            return Ok(Some(Compiled::Nothing));
        }
        "envoy.extensions.filters.http.router.v3.Router" => {
            router(typed::unpack(config, notes)?, notes)?;
            return Ok(Some(Compiled::Router));
        }
        // The cluster resolves the host by itself.
        "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig" => {
            return Ok(Some(Compiled::Nothing));
        }
        "envoy.extensions.filters.http.compressor.v3.Compressor"
        | "envoy.extensions.filters.http.decompressor.v3.Decompressor"
        | "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
        | "envoy.extensions.filters.http.buffer.v3.Buffer" => {
            notes.count(kind, "requests pass as they are");
            return Ok(Some(Compiled::Nothing));
        }
        _ => return Ok(None),
    };
    Ok(Some(Compiled::Filter(filter)))
}

fn router(router: router::Router, notes: &mut Notes) -> Result<(), Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let router::Router {
        dynamic_stats,
        start_child_span: _,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = router;
    unserved!(notes, "Router":
        dynamic_stats, upstream_log, upstream_log_options,
        suppress_envoy_headers, strict_check_headers, respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats, reject_connect_request_early_data);
    for filter in upstream_http_filters {
        let codec = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
        let known = match &filter.config_type {
            Some(hcm::http_filter::ConfigType::TypedConfig(config)) => typed::name(config) == codec,
            _ => false,
        };
        if !known {
            let reason = format!("{:?}: no filters stand behind the router", filter.name);
            return Err(Refused::new(reason).under("upstream_http_filters"));
        }
    }
    Ok(())
}

/// Faults.
///
/// # Errors
/// A pause, status or share of it is none, or it is asked for by headers.
pub(super) fn fault(fault: fault::HttpFault, notes: &mut Notes) -> Result<Fault, Refused> {
    let fault::HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime: _,
        abort_percent_runtime: _,
        delay_duration_runtime: _,
        abort_http_status_runtime: _,
        max_active_faults_runtime: _,
        response_rate_limit_percent_runtime: _,
        abort_grpc_status_runtime: _,
        disable_downstream_cluster_stats: _,
        filter_metadata: _,
    } = fault;
    unserved!(notes, "HTTPFault": downstream_nodes, response_rate_limit);
    Ok(Fault {
        delay: delay.map(self::delay).transpose().at("delay")?,
        abort: match abort {
            None => None,
            Some(abort) => Some(self::abort(abort, notes).at("abort")?),
        },
        headers: each("headers", headers, text::header)?,
        upstream: Some(upstream_cluster)
            .filter(|name| !name.is_empty())
            .map(Into::into),
        max_active: plain::number(max_active_faults),
    })
}

fn delay(delay: common_fault::FaultDelay) -> Result<(std::time::Duration, Fraction), Refused> {
    use common_fault::fault_delay::FaultDelaySecifier;

    let common_fault::FaultDelay {
        percentage,
        fault_delay_secifier,
    } = delay;
    let pause = match need(fault_delay_secifier, "fixed_delay")? {
        FaultDelaySecifier::FixedDelay(pause) => plain::duration(pause).at("fixed_delay")?,
        FaultDelaySecifier::HeaderDelay(_) => {
            let reason = "callers don't choose their faults";
            return Err(Refused::new(reason).under("header_delay"));
        }
    };
    if pause.is_zero() {
        return Err(Refused::new("must be more than nothing").under("fixed_delay"));
    }
    Ok((
        pause,
        text::fraction(percentage.unwrap_or_default()).at("percentage")?,
    ))
}

fn abort(abort: fault::FaultAbort, notes: &mut Notes) -> Result<(AbortWith, Fraction), Refused> {
    use fault::fault_abort::ErrorType;

    let fault::FaultAbort {
        percentage,
        response_body,
        error_type,
    } = abort;
    unserved!(notes, "FaultAbort": response_body);
    let with = match need(error_type, "http_status")? {
        ErrorType::HttpStatus(status) => {
            AbortWith::Http(plain::status(status, 200, 599).at("http_status")?)
        }
        ErrorType::GrpcStatus(status) => AbortWith::Grpc(status),
        ErrorType::HeaderAbort(_) => {
            let reason = "callers don't choose their faults";
            return Err(Refused::new(reason).under("header_abort"));
        }
    };
    Ok((
        with,
        text::fraction(percentage.unwrap_or_default()).at("percentage")?,
    ))
}

/// CORS of a route.
///
/// # Errors
/// An origin's matcher is none.
pub(super) fn cors(policy: cors::CorsPolicy, notes: &mut Notes) -> Result<Cors, Refused> {
    let cors::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = policy;
    unserved!(notes, "CorsPolicy": shadow_enabled);
    let value = |text: String, field: &str| match http::HeaderValue::from_str(&text) {
        Ok(_) => Ok(text.into_boxed_str()),
        Err(_) => Err(Refused::new(format!("{text:?} can't stand in a header")).under(field)),
    };
    let enabled = filter_enabled.map(text::runtime_fraction).transpose();
    Ok(Cors {
        origins: each(
            "allow_origin_string_match",
            allow_origin_string_match,
            text::string,
        )?,
        methods: value(allow_methods, "allow_methods")?,
        headers: value(allow_headers, "allow_headers")?,
        expose: value(expose_headers, "expose_headers")?,
        max_age: value(max_age, "max_age")?,
        credentials: plain::on(allow_credentials),
        private_network: plain::on(allow_private_network_access),
        enabled: enabled.at("filter_enabled")?.unwrap_or(Fraction::ALWAYS),
        forward_unmatched: plain::on_or(forward_not_matching_preflights, true),
    })
}

#[cfg(test)]
mod tests;
