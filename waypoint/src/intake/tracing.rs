//! Tracing of an HTTP connection manager → [`model::log::Tracing`](crate::model::log::Tracing). A
//! provider that isn't served is counted: trace headers are passed on then, and no spans are made.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::trace::v3 as trace;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as envoy;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata;
use envoy_types::pb::envoy::r#type::tracing::v3 as tags;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{format, plain, text, typed};
use crate::model::format::{Format, Operator};
use crate::model::log::{RouteTracing, Tag, TraceProtocol, TraceProvider, Tracing};
use crate::model::text::Fraction;
use crate::unserved;

/// Envoy's limits: the longest path tag in bytes, spans kept for an export, and our time for one.
const PATH: u32 = 256;
const BATCH: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Tracing of a chain.
///
/// # Errors
/// A share, tag or provider of it is bad.
pub(super) fn of(
    tracing: hcm::Tracing,
    upstream_spans: bool,
    notes: &mut Notes,
) -> Result<Tracing, Refused> {
    let hcm::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = tracing;
    unserved!(notes, "Tracing": verbose, operation, upstream_operation);
    let share = |share: Option<_>, field: &str| match share {
        None => Ok(Fraction::ALWAYS),
        Some(share) => text::percent(share).at(field),
    };
    let tags = each("custom_tags", custom_tags, |one| tag(one, notes))?;
    Ok(Tracing {
        provider: match provider {
            None => None,
            Some(provider) => self::provider(provider, notes)
                .at("provider")?
                .map(Arc::new),
        },
        random: share(random_sampling, "random_sampling")?,
        client: share(client_sampling, "client_sampling")?,
        overall: share(overall_sampling, "overall_sampling")?,
        tags: tags.into_iter().flatten().collect(),
        path_limit: plain::number(max_path_tag_length).unwrap_or(PATH) as usize,
        upstream_spans: plain::on_or(spawn_upstream_span, upstream_spans),
        propagates: !no_context_propagation,
    })
}

/// Tracing of a route.
///
/// # Errors
/// A share or tag of it is bad.
pub(super) fn on_route(
    tracing: route::Tracing,
    notes: &mut Notes,
) -> Result<RouteTracing, Refused> {
    let route::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        custom_tags,
        operation,
        upstream_operation,
    } = tracing;
    unserved!(notes, "Tracing": operation, upstream_operation);
    let share = |share: Option<_>, field: &str| match share {
        None => Ok(Fraction::ALWAYS),
        Some(share) => text::fraction(share).at(field),
    };
    let tags = each("custom_tags", custom_tags, |one| tag(one, notes))?;
    Ok(RouteTracing {
        random: share(random_sampling, "random_sampling")?,
        client: share(client_sampling, "client_sampling")?,
        overall: share(overall_sampling, "overall_sampling")?,
        tags: tags.into_iter().flatten().collect(),
    })
}

/// Whether the router among these filters wants spans of attempts: the older way to say so.
#[expect(deprecated, reason = "it is still said")]
pub(super) fn wants_upstream_spans(filters: &[envoy::HttpFilter]) -> bool {
    filters.iter().any(|filter| {
        let Some(envoy::http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
            return false;
        };
        // What else is wrong with it is told where filters are compiled.
        typed::name(config) == "envoy.extensions.filters.http.router.v3.Router"
            && typed::unpack::<router::Router>(config, &mut Notes::default())
                .is_ok_and(|router| router.start_child_span)
    })
}

fn tag(tag: tags::CustomTag, notes: &mut Notes) -> Result<Option<Tag>, Refused> {
    use tags::custom_tag::{Environment, Header, Literal, Metadata, Type};

    let tags::CustomTag { tag, r#type } = tag;
    if tag.is_empty() {
        return Err(Refused::new("must not be empty").under("tag"));
    }
    let mut otherwise = String::new();
    let value = match need(r#type, "value")? {
        Type::Literal(Literal { value }) => Format::literal(&value),
        Type::Environment(Environment {
            name,
            default_value,
        }) => Format::literal(&std::env::var(name).unwrap_or(default_value)),
        Type::RequestHeader(Header {
            name,
            default_value,
        }) => {
            otherwise = default_value;
            format::of_header(text::header_key(&name).at("request_header.name")?)
        }
        Type::Metadata(Metadata {
            kind,
            metadata_key,
            default_value,
        }) => {
            otherwise = default_value;
            let path = path(need(metadata_key, "metadata.metadata_key")?);
            match kind.and_then(|kind| kind.kind) {
                None | Some(metadata::metadata_kind::Kind::Request(_)) => {
                    format::of(Operator::DynamicMetadata { path })
                }
                Some(metadata::metadata_kind::Kind::Cluster(_)) => {
                    format::of(Operator::ClusterMetadata { path })
                }
                Some(metadata::metadata_kind::Kind::Host(_)) => {
                    format::of(Operator::UpstreamMetadata { path })
                }
                Some(metadata::metadata_kind::Kind::Route(_)) => {
                    notes.count("CustomTag.metadata of a route", "the tag is left out");
                    return Ok(None);
                }
            }
        }
        Type::Value(value) => format::parse(&value, notes).at("value")?,
    };
    Ok(Some(Tag {
        name: tag.into(),
        value,
        otherwise: otherwise.into(),
    }))
}

fn path(key: metadata::MetadataKey) -> Vec<Box<str>> {
    use metadata::metadata_key::path_segment::Segment;

    let metadata::MetadataKey { key, path } = key;
    let segments = path.into_iter().filter_map(|part| match part.segment? {
        Segment::Key(key) => Some(key),
        Segment::Index(index) => Some(index.to_string()),
    });
    std::iter::once(key)
        .chain(segments)
        .map(Into::into)
        .collect()
}

fn provider(
    provider: trace::tracing::Http,
    notes: &mut Notes,
) -> Result<Option<TraceProvider>, Refused> {
    let trace::tracing::Http {
        name: _,
        config_type,
    } = provider;
    let trace::tracing::http::ConfigType::TypedConfig(config) = need(config_type, "typed_config")?;
    match typed::name(&config) {
        "envoy.config.trace.v3.OpenTelemetryConfig" => {
            let message = typed::unpack(&config, notes).at("typed_config")?;
            open_telemetry(message, notes).at("typed_config")
        }
        "envoy.config.trace.v3.ZipkinConfig" => {
            let message = typed::unpack(&config, notes).at("typed_config")?;
            zipkin(message, notes).at("typed_config").map(Some)
        }
        other => {
            notes.count(other, "spans go to OpenTelemetry or Zipkin collectors");
            Ok(None)
        }
    }
}

fn open_telemetry(
    config: trace::OpenTelemetryConfig,
    notes: &mut Notes,
) -> Result<Option<TraceProvider>, Refused> {
    let trace::OpenTelemetryConfig {
        grpc_service,
        http_service,
        exporter,
        service_name,
        resource_detectors,
        sampler,
        max_cache_size,
        set_telemetry_sdk_resource_attributes: _,
        set_service_name_resource_attribute: _,
        set_instrumentation_scope: _,
    } = config;
    unserved!(notes, "OpenTelemetryConfig": exporter, resource_detectors, sampler);
    let collector = match (grpc_service, http_service) {
        (Some(service), None) => grpc(service, notes).at("grpc_service")?,
        (None, Some(service)) => http(service, notes).at("http_service")?,
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let reason = "spans go to one collector";
            return Err(Refused::new(reason).under("http_service"));
        }
    };
    let service = match service_name.as_str() {
        "" => "unknown_service:envoy",
        name => name,
    };
    Ok(Some(TraceProvider {
        service: service.into(),
        batch: plain::number(max_cache_size)
            .map_or(BATCH, |size| size as usize)
            .max(1),
        ..collector
    }))
}

fn grpc(service: core::GrpcService, notes: &mut Notes) -> Result<TraceProvider, Refused> {
    use core::grpc_service::TargetSpecifier;

    let core::GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = service;
    unserved!(notes, "GrpcService": initial_metadata, retry_policy);
    let TargetSpecifier::EnvoyGrpc(core::grpc_service::EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length: _,
        skip_envoy_headers: _,
    }) = need(target_specifier, "envoy_grpc")?
    else {
        let reason = "a collector is reached through a cluster";
        return Err(Refused::new(reason).under("google_grpc"));
    };
    unserved!(notes, "GrpcService": retry_policy);
    if cluster_name.is_empty() {
        return Err(Refused::new("must not be empty").under("envoy_grpc.cluster_name"));
    }
    let authority = match authority.is_empty() {
        true => cluster_name.clone(),
        false => authority,
    };
    Ok(TraceProvider {
        protocol: TraceProtocol::OtlpGrpc,
        cluster: cluster_name.into(),
        service: "".into(),
        authority: authority.into(),
        path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export".into(),
        timeout: plain::limit(timeout, "timeout")?.unwrap_or(TIMEOUT),
        batch: BATCH,
    })
}

fn http(service: core::HttpService, notes: &mut Notes) -> Result<TraceProvider, Refused> {
    let core::HttpService {
        http_uri,
        request_headers_to_add,
        formatters: _,
    } = service;
    unserved!(notes, "HttpService": request_headers_to_add);
    let core::HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = need(http_uri, "http_uri")?;
    let core::http_uri::HttpUpstreamType::Cluster(cluster) =
        need(http_upstream_type, "http_uri.cluster")?;
    let parsed: ::http::Uri = uri
        .parse()
        .map_err(|_| Refused::new(format!("{uri:?} is no URI")).under("http_uri.uri"))?;
    let authority = parsed.authority().map(::http::uri::Authority::as_str);
    Ok(TraceProvider {
        protocol: TraceProtocol::OtlpHttp,
        authority: authority.unwrap_or(&cluster).into(),
        path: parsed.path().into(),
        cluster: cluster.into(),
        service: "".into(),
        timeout: plain::limit(timeout, "http_uri.timeout")?.unwrap_or(TIMEOUT),
        batch: BATCH,
    })
}

fn zipkin(config: trace::ZipkinConfig, notes: &mut Notes) -> Result<TraceProvider, Refused> {
    use trace::zipkin_config::CollectorEndpointVersion as Version;

    #[expect(deprecated, reason = "every field is decided about")]
    let trace::ZipkinConfig {
        collector_cluster,
        collector_endpoint,
        trace_id_128bit: _,
        shared_span_context: _,
        collector_endpoint_version,
        collector_hostname,
        split_spans_for_request: _,
        trace_context_option: _,
        collector_service,
        timestamp_trace_ids: _,
    } = config;
    if collector_endpoint_version == Version::HttpProto as i32 {
        notes.count(
            "ZipkinConfig.collector_endpoint_version HTTP_PROTO",
            "spans are JSON",
        );
    }
    if let Some(service) = collector_service {
        let collector = http(service, notes).at("collector_service")?;
        return Ok(TraceProvider {
            protocol: TraceProtocol::Zipkin,
            ..collector
        });
    }
    for (text, field) in [
        (&collector_cluster, "collector_cluster"),
        (&collector_endpoint, "collector_endpoint"),
    ] {
        if text.is_empty() {
            return Err(Refused::new("must not be empty").under(field));
        }
    }
    let authority = match collector_hostname.is_empty() {
        true => collector_cluster.clone(),
        false => collector_hostname,
    };
    Ok(TraceProvider {
        protocol: TraceProtocol::Zipkin,
        cluster: collector_cluster.into(),
        service: "".into(),
        authority: authority.into(),
        path: collector_endpoint.into(),
        timeout: TIMEOUT,
        batch: BATCH,
    })
}

#[cfg(test)]
mod tests;
