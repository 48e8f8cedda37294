//! Clusters whose endpoints are found by DNS: by the names that a ServiceEntry lists, or by the one
//! that each request asks for. (istio/istio, `buildCluster` and `buildDFPCluster`)

#![allow(deprecated)] // Fields that istiod sends; their successors are an extension that older waypoints do not know.

use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3 as forward;
use envoy_types::pb::envoy::extensions::common::dynamic_forward_proxy::v3 as cache;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as filter;
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

use super::super::api::{Duration, any, cluster, core, hcm, http_filter, number, seconds};
use super::super::endpoint;
use super::super::locality::Wanted;
use super::super::view::{Families, Protocol, Target, TargetPort, View};

use cluster::cluster::{DiscoveryType, DnsLookupFamily};

/// Queries on one socket, before it is made anew with another port.
const QUERIES_PER_SOCKET: u32 = 100;

/// The names that are listed, or where none is, the host itself.
pub(super) fn listed(
    view: &View<'_>,
    service: &Target,
    port: &TargetPort,
    first: bool,
    made: &mut cluster::Cluster,
) {
    let kind = if first {
        DiscoveryType::LogicalDns
    } else {
        DiscoveryType::StrictDns
    };
    let mut backends = (view.backends)(service, port);
    let mut wanted = None;
    if let Some((_, _, subset, _)) = super::super::view::parts(&made.name) {
        let rule = view.rule_of(service);
        wanted = Wanted::of(rule.as_ref(), service, port.number, subset);
        let labels = super::super::view::subset_labels(rule.as_ref(), subset).unwrap_or_default();
        backends.retain(|backend| {
            let has = |(key, value)| backend.labels.get(key) == Some(value);
            labels.iter().all(has)
        });
    }
    made.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::Type(kind.into()));
    made.eds_cluster_config = None;
    made.load_assignment = Some(endpoint::of(
        view,
        &made.name,
        backends,
        wanted.as_ref(),
        true,
    ));
    made.dns_lookup_family = family(view).into();
    made.dns_refresh_rate = seconds(60);
    made.respect_dns_ttl = true;
    // Many waypoints shall not ask at the same moment.
    made.dns_jitter = Some(Duration {
        seconds: 0,
        nanos: 100_000_000,
    });
    made.typed_dns_resolver_config = Some(core::TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any(&CaresDnsResolverConfig {
            udp_max_queries: number(QUERIES_PER_SOCKET),
            ..Default::default()
        })),
    });
}

/// The name that the request asks for.
pub(super) fn by_request(view: &View<'_>, service: &Target, made: &mut cluster::Cluster) {
    let config = forward::ClusterConfig {
        cluster_implementation_specifier: Some(
            forward::cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(names(
                view, service,
            )),
        ),
        ..Default::default()
    };
    made.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::ClusterType(
        cluster::cluster::CustomClusterType {
            name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
            typed_config: Some(any(&config)),
        },
    ));
    made.lb_policy = cluster::cluster::LbPolicy::ClusterProvided.into();
    made.eds_cluster_config = None;
    made.common_lb_config = None;
}

/// Only a request that names its host can be sent there.
pub(in crate::translate::l7) fn can_forward(port: &TargetPort) -> bool {
    port.protocol == Protocol::Http
}

/// The filter that resolves the request's host, in front of such a cluster.
pub(in crate::translate::l7) fn resolving(view: &View<'_>, service: &Target) -> hcm::HttpFilter {
    let config = filter::FilterConfig {
        implementation_specifier: Some(
            filter::filter_config::ImplementationSpecifier::DnsCacheConfig(names(view, service)),
        ),
        ..Default::default()
    };
    http_filter("envoy.filters.http.dynamic_forward_proxy", any(&config))
}

/// The names that were resolved, shared by the filter and its cluster.
fn names(view: &View<'_>, service: &Target) -> cache::DnsCacheConfig {
    cache::DnsCacheConfig {
        name: format!("{}_dfp_dns_cache", service.host),
        dns_lookup_family: family(view).into(),
        ..Default::default()
    }
}

fn family(view: &View<'_>) -> DnsLookupFamily {
    match view.families {
        Families::Unknown | Families::V4 => DnsLookupFamily::V4Only,
        Families::V6 => DnsLookupFamily::V6Only,
        Families::Dual => DnsLookupFamily::All,
    }
}
