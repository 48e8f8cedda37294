//! Envoy's `Cluster` → where hosts come from, how one is chosen, how it is reached and what it is
//! spared. What a cluster limits and how it balances is in `cluster/balance`, its HTTP in
//! `cluster/http`, its transport in `cluster/transport`.

mod balance;
mod discovery;
mod http;
mod outlier;
mod transport;
mod typed_balancer;

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct};

use super::endpoint::string;
use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{plain, typed};
use crate::model::cluster::{Cluster, Keepalive, Outlier, ServiceRef, TransportMatch};
use crate::unserved;

/// How long connecting may take, unless said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The network filter of Istio's sidecars, for which there is nothing to do towards an endpoint.
const METADATA_EXCHANGE: &str = "istio.metadata_exchange";

/// The cluster of this name.
///
/// # Errors
/// It can't be read, or something of it would weaken security or send requests elsewhere if it were
/// passed over.
#[expect(clippy::too_many_lines, reason = "one line a field")]
pub fn cluster(name: &str, bytes: &[u8], notes: &mut Notes) -> Result<Cluster, Refused> {
    #[expect(deprecated, reason = "every field is decided about; istiod sends some")]
    let pb::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name: inside,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = typed::decode(bytes, notes)?;
    if inside != name {
        return Err(Refused::new(format!("is {inside:?} inside")).under("name"));
    }
    unserved!(notes, "Cluster":
        transport_socket_matcher, stats_matcher, per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout, health_checks, dns_jitter,
        dns_failure_refresh_rate, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
        typed_dns_resolver_config, wait_for_warm_on_init, cleanup_interval, upstream_bind_config,
        lb_subset_config, ignore_health_on_host_removal, lrs_server,
        lrs_report_endpoint_metrics, track_timeout_budgets, upstream_config, track_cluster_stats,
        preconnect_policy, queuing_policies);
    for filter in filters {
        if filter.name != METADATA_EXCHANGE {
            let reason = "bytes go to endpoints as they are";
            notes.count(format!("Cluster.filters ({})", filter.name), reason);
        }
    }
    let older = http::Older {
        upstream: upstream_http_protocol_options,
        common: common_http_protocol_options,
        http1: http_protocol_options,
        http2: http2_protocol_options,
        downstream: protocol_selection
            == pb::cluster::ClusterProtocolSelection::UseDownstreamProtocol as i32,
        max_requests: plain::number(max_requests_per_connection),
    };
    let options = typed_extension_protocol_options;
    let (http, auto, errors) = http::upstream(options, older, notes).at("HttpProtocolOptions")?;
    let mut transport = transport::transport(transport_socket, notes).at("transport_socket")?;
    auto.apply(&mut transport);
    let mut transport_matches = each(
        "transport_socket_matches",
        transport_socket_matches,
        |matched| transport_match(matched, notes),
    )?;
    for matched in &mut transport_matches {
        auto.apply(&mut matched.transport);
    }
    let dns = discovery::DnsOptions {
        refresh: plain::maybe_duration(dns_refresh_rate, "dns_refresh_rate")?,
        respect_ttl: respect_dns_ttl,
        family: dns_lookup_family,
    };
    let (lb_config, original) = balance::split(lb_config);
    let discovery = discovery::discovery(
        name,
        cluster_discovery_type,
        discovery::Parts {
            eds: eds_cluster_config,
            assignment: load_assignment,
            original,
            dns,
        },
        notes,
    )?;
    let mut common = common_lb_config.unwrap_or_default();
    let (lb_policy, lb_config) = match load_balancing_policy {
        None => (lb_policy, lb_config),
        Some(list) => typed_balancer::policy(list, &mut common, notes)?,
    };
    let (locality, by_hostname) = balance::locality(common, notes).at("common_lb_config")?;
    let pb::UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    } = upstream_connection_options.unwrap_or_default();
    unserved!(notes, "UpstreamConnectionOptions":
        set_local_interface_name_on_upstream_connections, happy_eyeballs_config);
    let stat_name = Some(alt_stat_name).filter(|name| !name.is_empty());
    let outlier = outlier_detection
        .map(|outlier| outlier::outlier(outlier, notes))
        .transpose()
        .at("outlier_detection")?
        .map(|outlier| Outlier { errors, ..outlier });
    let connect_timeout = plain::maybe_duration(connect_timeout, "connect_timeout")?;
    Ok(Cluster {
        name: name.into(),
        stat_name: stat_name.as_deref().unwrap_or(name).into(),
        discovery,
        balancer: balance::balancer(lb_policy, lb_config, by_hostname, notes)?,
        locality,
        connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        breakers: outlier::breakers(circuit_breakers, notes).at("circuit_breakers")?,
        outlier,
        transport,
        transport_matches,
        http,
        keepalive: tcp_keepalive.map(keepalive),
        close_on_unhealthy: close_connections_on_host_health_failure,
        connection_per_downstream: connection_pool_per_downstream_connection,
        services: services(metadata),
    })
}

fn transport_match(
    message: pb::cluster::TransportSocketMatch,
    notes: &mut Notes,
) -> Result<TransportMatch, Refused> {
    let pb::cluster::TransportSocketMatch {
        name: _,
        r#match,
        transport_socket,
    } = message;
    let criteria = r#match.unwrap_or_default();
    let metadata = super::endpoint::strings(Some(&criteria));
    if metadata.len() != criteria.fields.len() {
        let reason = "only texts, numbers and truth values are compared";
        return Err(Refused::new(reason).under("match"));
    }
    let socket = need(transport_socket, "transport_socket")?;
    Ok(TransportMatch {
        metadata,
        transport: transport::transport(Some(socket), notes).at("transport_socket")?,
    })
}

fn keepalive(message: core::TcpKeepalive) -> Keepalive {
    let core::TcpKeepalive {
        keepalive_probes,
        keepalive_time,
        keepalive_interval,
    } = message;
    Keepalive {
        probes: plain::number(keepalive_probes),
        idle: plain::number(keepalive_time),
        interval: plain::number(keepalive_interval),
    }
}

/// The services that istiod says a cluster stands for.
fn services(metadata: Option<core::Metadata>) -> Vec<ServiceRef> {
    let core::Metadata {
        filter_metadata,
        typed_filter_metadata: _,
    } = metadata.unwrap_or_default();
    let istio = filter_metadata.get("istio");
    let services = istio.and_then(|istio| istio.fields.get("services"));
    let Some(Kind::ListValue(services)) = services.and_then(|value| value.kind.as_ref()) else {
        return Vec::new();
    };
    let service = |of: &Struct| {
        let text = |field| string(of, field).unwrap_or_default().into();
        ServiceRef {
            host: text("host"),
            name: text("name"),
            namespace: text("namespace"),
        }
    };
    let services = services.values.iter();
    services
        .filter_map(|value| match &value.kind {
            Some(Kind::StructValue(of)) => Some(service(of)),
            _ => None,
        })
        .collect()
}

/// Extensions by the type of their configuration; those that nobody knows are counted.
fn extension(mut options: HashMap<String, Any>, known: &str, notes: &mut Notes) -> Option<Any> {
    let found = options.remove(known);
    for (name, _) in options {
        notes.count(
            format!("Cluster.typed_extension_protocol_options ({name})"),
            "upstream connections speak HTTP or pass bytes on",
        );
    }
    found
}

#[cfg(test)]
mod tests;
