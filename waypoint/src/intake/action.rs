//! How a route forwards → [`model::route::Forward`](crate::model::route::Forward).

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf as google;
use http::StatusCode;

use super::error::{At as _, Refused, each, each_keyed, need};
use super::format;
use super::headers::{self, Lists};
use super::overrides;
use super::route::Scope;
use super::served::Notes;
use super::{hash, plain, rate_limit, text};
use crate::model::endpoint::Labels;
use crate::model::rare::Rare;
use crate::model::route::{
    Destination, Forward, HostRewrite, Mirror, PathRewrite, StreamLimits, Weighted,
};
use crate::unserved;

/// Envoy's limit to a whole request where a route gives none.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A cluster's name must be there.
fn cluster(name: String, field: &str) -> Result<std::sync::Arc<str>, Refused> {
    match name.is_empty() {
        true => Err(Refused::new("must not be empty").under(field)),
        false => Ok(name.into()),
    }
}

/// Forwarding.
///
/// # Errors
/// It goes nowhere, or asks for something that would change where it goes.
pub(super) fn forward(
    action: route::RouteAction,
    scope: &Scope,
    notes: &mut Notes,
) -> Result<Forward, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let route::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = action;
    unserved!(notes, "RouteAction":
        path_rewrite_policy, path_rewrite, flush_timeout, early_data_policy,
        retry_policy_typed_config, priority, cors,
        internal_redirect_policy, internal_redirect_action, max_internal_redirects, hedge_policy);
    let stream = stream_limits(max_stream_duration).at("max_stream_duration")?;
    let old_offset = plain::maybe_duration(grpc_timeout_offset, "grpc_timeout_offset")?;
    let old_max = plain::maybe_duration(max_grpc_timeout, "max_grpc_timeout")?;
    let mirrors = mirrors(request_mirror_policies, notes)?;
    Ok(Forward {
        to: destination(need(cluster_specifier, "cluster")?, scope, notes)?,
        not_found: not_found(cluster_not_found_response_code)?,
        path: path(prefix_rewrite, regex_rewrite)?,
        host: host(host_rewrite_specifier, notes)?,
        append_forwarded_host: append_x_forwarded_host,
        timeout: plain::limit_or(timeout, TIMEOUT, "timeout")?,
        idle_timeout: plain::maybe_duration(idle_timeout, "idle_timeout")?,
        max_grpc_timeout: old_max,
        limits: rate_limit::on_routes(rate_limits, notes)?.into(),
        host_limits: plain::on(include_vh_rate_limits),
        grpc_timeout_offset: old_offset.unwrap_or_default(),
        stream,
        retry: match retry_policy {
            None => None,
            Some(policy) => Some(scope.alike.retry(policy, notes).at("retry_policy")?),
        },
        hash: hash::policies(hash_policy)?.into(),
        mirrors: match mirrors.is_empty() {
            true => scope.mirrors.clone().into(),
            false => mirrors.into(),
        },
        upgrades: each("upgrade_configs", upgrade_configs, |one| {
            upgrade(one, notes)
        })?
        .into(),
        endpoint_metadata: match metadata_match {
            None => Rare::default(),
            Some(metadata) => subset(metadata, notes).at("metadata_match")?.into(),
        },
    })
}

fn stream_limits(
    limits: Option<route::route_action::MaxStreamDuration>,
) -> Result<Option<StreamLimits>, Refused> {
    let Some(limits) = limits else {
        return Ok(None);
    };
    let route::route_action::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = limits;
    let offset = plain::maybe_duration(grpc_timeout_header_offset, "grpc_timeout_header_offset")?;
    Ok(Some(StreamLimits {
        most: plain::maybe_duration(max_stream_duration, "max_stream_duration")?,
        grpc_most: plain::maybe_duration(grpc_timeout_header_max, "grpc_timeout_header_max")?,
        grpc_offset: offset.unwrap_or_default(),
    }))
}

fn not_found(code: i32) -> Result<StatusCode, Refused> {
    use route::route_action::ClusterNotFoundResponseCode as Code;

    match Code::try_from(code) {
        Ok(Code::ServiceUnavailable) => Ok(StatusCode::SERVICE_UNAVAILABLE),
        Ok(Code::NotFound) => Ok(StatusCode::NOT_FOUND),
        Ok(Code::InternalServerError) => Ok(StatusCode::INTERNAL_SERVER_ERROR),
        Err(_) => {
            let reason = format!("{code} is none of Envoy's");
            Err(Refused::new(reason).under("cluster_not_found_response_code"))
        }
    }
}

fn destination(
    to: route::route_action::ClusterSpecifier,
    scope: &Scope,
    notes: &mut Notes,
) -> Result<Destination, Refused> {
    use route::route_action::ClusterSpecifier;

    match to {
        ClusterSpecifier::Cluster(name) => {
            let cluster = cluster(name, "cluster")?;
            Ok(Destination::Cluster(scope.alike.name(cluster)))
        }
        ClusterSpecifier::ClusterHeader(name) => Ok(Destination::Header(
            plain::header_name(&name).at("cluster_header")?,
        )),
        ClusterSpecifier::WeightedClusters(clusters) => {
            weighted(clusters, scope, notes).at("weighted_clusters")
        }
        ClusterSpecifier::ClusterSpecifierPlugin(_)
        | ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            let reason = "clusters are chosen by no extension";
            Err(Refused::new(reason).under("cluster_specifier_plugin"))
        }
    }
}

fn weighted(
    clusters: route::WeightedCluster,
    scope: &Scope,
    notes: &mut Notes,
) -> Result<Destination, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let route::WeightedCluster {
        clusters,
        total_weight,
        runtime_key_prefix,
        random_value_specifier,
    } = clusters;
    unserved!(notes, "WeightedCluster": total_weight, runtime_key_prefix, random_value_specifier);
    let clusters = each("clusters", clusters, |one| one_weighted(one, scope, notes))?;
    let weights = clusters.iter().map(|one| one.weight);
    let total = weights.fold(0_u64, |total, weight| total + u64::from(weight));
    match u32::try_from(total) {
        Ok(0) => Err(Refused::new("the weights add up to nothing").under("clusters")),
        Ok(total) => Ok(Destination::Weighted { clusters, total }),
        Err(_) => Err(Refused::new("the weights add up to too much").under("clusters")),
    }
}

fn one_weighted(
    one: route::weighted_cluster::ClusterWeight,
    scope: &Scope,
    notes: &mut Notes,
) -> Result<Weighted, Refused> {
    use route::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral;

    let route::weighted_cluster::ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = one;
    unserved!(notes, "ClusterWeight": cluster_header, metadata_match);
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    Ok(Weighted {
        cluster: scope.alike.name(cluster(name, "name")?),
        weight: plain::number(weight).unwrap_or(0),
        headers: headers::changes(lists, notes)?.into(),
        host: host_rewrite_specifier.map(|HostRewriteLiteral(host)| host.into()),
        filters: overrides::of(typed_per_filter_config, scope, notes)?.into(),
    })
}

fn path(
    prefix: String,
    regex: Option<envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute>,
) -> Result<PathRewrite, Refused> {
    match (prefix.is_empty(), regex) {
        (true, None) => Ok(PathRewrite::Keep),
        (false, None) => Ok(PathRewrite::Prefix(prefix.into())),
        (true, Some(regex)) => {
            let (regex, by) = text::substitution(regex).at("regex_rewrite")?;
            Ok(PathRewrite::Regex(regex, by))
        }
        (false, Some(_)) => {
            let reason = "the path is rewritten by a prefix or by an expression, not by both";
            Err(Refused::new(reason).under("regex_rewrite"))
        }
    }
}

fn host(
    rewrite: Option<route::route_action::HostRewriteSpecifier>,
    notes: &mut Notes,
) -> Result<HostRewrite, Refused> {
    use route::route_action::HostRewriteSpecifier as Specifier;

    Ok(match rewrite {
        None => HostRewrite::Keep,
        Some(Specifier::HostRewriteLiteral(host)) => {
            HostRewrite::Literal(authority(host, "host_rewrite_literal")?)
        }
        Some(Specifier::AutoHostRewrite(google::BoolValue { value: true })) => {
            HostRewrite::Endpoint
        }
        Some(Specifier::AutoHostRewrite(google::BoolValue { value: false })) => HostRewrite::Keep,
        Some(Specifier::HostRewriteHeader(name)) => {
            HostRewrite::Header(plain::header_name(&name).at("host_rewrite_header")?)
        }
        Some(Specifier::HostRewritePathRegex(regex)) => {
            let (regex, by) = text::substitution(regex).at("host_rewrite_path_regex")?;
            HostRewrite::PathRegex(regex, by)
        }
        Some(Specifier::HostRewrite(host)) => {
            let host = format::parse(&host, notes).at("host_rewrite")?;
            match host.as_literal() {
                Some(host) => HostRewrite::Literal(authority(host.to_owned(), "host_rewrite")?),
                None => {
                    let reason = "hosts are rewritten to what stands here, not by operators";
                    return Err(Refused::new(reason).under("host_rewrite"));
                }
            }
        }
    })
}

/// A host that is written into requests or answers.
///
/// # Errors
/// It is none.
pub(super) fn authority(host: String, field: &str) -> Result<Box<str>, Refused> {
    match http::HeaderValue::from_str(&host) {
        Ok(_) if !host.contains(' ') => Ok(host.into()),
        _ => Err(Refused::new(format!("{host:?} is no host")).under(field)),
    }
}

fn upgrade(
    upgrade: route::route_action::UpgradeConfig,
    notes: &mut Notes,
) -> Result<(Box<str>, bool), Refused> {
    let route::route_action::UpgradeConfig {
        upgrade_type,
        enabled,
        connect_config,
    } = upgrade;
    unserved!(notes, "UpgradeConfig": connect_config);
    if upgrade_type.is_empty() {
        return Err(Refused::new("must not be empty").under("upgrade_type"));
    }
    let name = upgrade_type.to_ascii_lowercase().into_boxed_str();
    Ok((name, plain::on_or(enabled, true)))
}

/// Mirrors of a route, host or table.
///
/// # Errors
/// One has no cluster, or a bad share.
pub(super) fn mirrors(
    policies: Vec<route::route_action::RequestMirrorPolicy>,
    notes: &mut Notes,
) -> Result<Vec<Mirror>, Refused> {
    each("request_mirror_policies", policies, |policy| {
        let route::route_action::RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction,
            trace_sampled,
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = policy;
        unserved!(notes, "RequestMirrorPolicy":
            cluster_header, trace_sampled, request_headers_mutations, host_rewrite_literal);
        let fraction = runtime_fraction.map(text::runtime_fraction).transpose();
        Ok(Mirror {
            cluster: self::cluster(cluster, "cluster")?,
            fraction: fraction
                .at("runtime_fraction")?
                .unwrap_or(crate::model::text::Fraction::ALWAYS),
            shadow_suffix: !disable_shadow_host_suffix_append,
        })
    })
}

/// The endpoint's metadata that a route asks for, which stands under `envoy.lb`.
fn subset(metadata: core::Metadata, notes: &mut Notes) -> Result<Labels, Refused> {
    let core::Metadata {
        mut filter_metadata,
        typed_filter_metadata,
    } = metadata;
    unserved!(notes, "Metadata": typed_filter_metadata);
    let google::Struct { fields } = filter_metadata.remove("envoy.lb").unwrap_or_default();
    each_keyed("", fields, |key, value| match value.kind {
        Some(google::value::Kind::StringValue(text)) => Ok((key.into(), text.into())),
        _ => Err(Refused::new("only texts are compared")),
    })
}

#[cfg(test)]
mod tests;
