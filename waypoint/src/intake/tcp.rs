//! Envoy's `tcp_proxy` → [`model::listener::TcpChain`](crate::model::listener::TcpChain).

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as envoy;
use envoy_types::pb::envoy::r#type::v3 as kind;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{format, log, plain};
use crate::model::format::Format;
use crate::model::listener::TcpChain;
use crate::unserved;

/// Envoy's limit to a connection on which nothing moves.
const IDLE: Duration = Duration::from_secs(3600);

/// Bytes passed on.
///
/// # Errors
/// It goes nowhere, or by a way that isn't served.
pub(super) fn chain(proxy: envoy::TcpProxy, notes: &mut Notes) -> Result<TcpChain, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let envoy::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = proxy;
    unserved!(notes, "TcpProxy":
        on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, backoff_options,
        max_downstream_connection_duration_jitter_percentage, access_log_flush_interval,
        flush_access_log_on_connected, access_log_options, proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes,
        check_drain_close);
    let (clusters, total) = clusters(need(cluster_specifier, "cluster")?, notes)?;
    let max_duration = max_downstream_connection_duration;
    let attempts = plain::number(max_connect_attempts).unwrap_or(1);
    if attempts == 0 {
        let reason = "must be more than none";
        return Err(Refused::new(reason).under("max_connect_attempts"));
    }
    Ok(TcpChain {
        stat_prefix: stat_prefix.into(),
        clusters,
        total,
        access_logs: log::logs(access_log, notes)?,
        idle: plain::limit_or(idle_timeout, IDLE, "idle_timeout")?,
        max_duration: plain::limit(max_duration, "max_downstream_connection_duration")?,
        connect_attempts: attempts,
        hash_source: hash(hash_policy)?,
        tunnel: match tunneling_config {
            None => None,
            Some(tunnel) => Some(self::tunnel(tunnel, notes).at("tunneling_config")?),
        },
    })
}

type Clusters = (Vec<(Arc<str>, u32)>, u32);

fn clusters(
    to: envoy::tcp_proxy::ClusterSpecifier,
    notes: &mut Notes,
) -> Result<Clusters, Refused> {
    use envoy::tcp_proxy::weighted_cluster::ClusterWeight;
    use envoy::tcp_proxy::{ClusterSpecifier, WeightedCluster};

    let named = |name: String, field: &str| match name.is_empty() {
        true => Err(Refused::new("must not be empty").under(field)),
        false => Ok(Arc::from(name)),
    };
    match to {
        ClusterSpecifier::Cluster(name) => Ok((vec![(named(name, "cluster")?, 1)], 1)),
        ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }) => {
            let field = "weighted_clusters";
            let clusters = each("clusters", clusters, |one| {
                let ClusterWeight {
                    name,
                    weight,
                    metadata_match,
                } = one;
                unserved!(notes, "ClusterWeight": metadata_match);
                match weight {
                    0 => Err(Refused::new("must be more than nothing").under("weight")),
                    weight => Ok((named(name, "name")?, weight)),
                }
            });
            let clusters: Vec<(Arc<str>, u32)> = clusters.at(field)?;
            let weights = clusters.iter().map(|(_, weight)| u64::from(*weight));
            match u32::try_from(weights.sum::<u64>()) {
                Ok(0) => Err(Refused::new("has no clusters").under(field)),
                Ok(total) => Ok((clusters, total)),
                Err(_) => Err(Refused::new("the weights add up to too much").under(field)),
            }
        }
    }
}

/// Whether the source's address is hashed.
fn hash(policies: Vec<kind::HashPolicy>) -> Result<bool, Refused> {
    use kind::hash_policy::PolicySpecifier;

    let policies = each("hash_policy", policies, |policy| {
        match need(policy.policy_specifier, "source_ip")? {
            PolicySpecifier::SourceIp(_) => Ok(()),
            PolicySpecifier::FilterState(state) => {
                let reason = format!("{:?} is written down by nobody", state.key);
                Err(Refused::new(reason).under("filter_state.key"))
            }
        }
    })?;
    Ok(!policies.is_empty())
}

/// The authority of the CONNECT that a connection goes through.
fn tunnel(tunnel: envoy::tcp_proxy::TunnelingConfig, notes: &mut Notes) -> Result<Format, Refused> {
    let envoy::tcp_proxy::TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters: _,
    } = tunnel;
    unserved!(notes, "TunnelingConfig":
        use_post, headers_to_add, propagate_response_headers, post_path,
        propagate_response_trailers, request_id_extension, request_id_header,
        request_id_metadata_key);
    if hostname.is_empty() {
        return Err(Refused::new("must not be empty").under("hostname"));
    }
    format::parse(&hostname, notes).at("hostname")
}
