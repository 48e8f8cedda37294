//! Where a cluster's hosts come from.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::clusters::dns::v3 as dns_cluster;
use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3 as forward;
use envoy_types::pb::envoy::extensions::common::dynamic_forward_proxy::v3 as cache;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata;

use crate::intake::endpoint::assignment;
use crate::intake::error::{At as _, Refused, need};
use crate::intake::served::Notes;
use crate::intake::{plain, typed};
use crate::model::cluster::{Discovery, Dns, DnsFamily};
use crate::model::endpoint::EndpointSet;
use crate::unserved;

/// How often names are resolved, unless said.
const REFRESH: Duration = Duration::from_secs(5);
/// The header that says where requests go, unless said.
const ORIGINAL_DST_HEADER: &str = "x-envoy-original-dst-host";

/// What a cluster says of its hosts.
pub(super) struct Parts {
    pub(super) eds: Option<pb::cluster::EdsClusterConfig>,
    pub(super) assignment: Option<endpoint::ClusterLoadAssignment>,
    pub(super) original: Option<pb::cluster::OriginalDstLbConfig>,
    pub(super) dns: DnsOptions,
}

/// What a cluster says of resolution.
pub(super) struct DnsOptions {
    pub(super) refresh: Option<Duration>,
    pub(super) respect_ttl: bool,
    pub(super) family: i32,
}

pub(super) fn discovery(
    name: &str,
    kind: Option<ClusterDiscoveryType>,
    parts: Parts,
    notes: &mut Notes,
) -> Result<Discovery, Refused> {
    let Parts {
        eds,
        assignment,
        original,
        dns,
    } = parts;
    let hosts = |notes: &mut Notes| -> Result<Arc<EndpointSet>, Refused> {
        let assignment = assignment.clone().unwrap_or_default();
        let set = self::assignment(assignment, notes).at("load_assignment")?;
        Ok(Arc::new(set))
    };
    let kind = match kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind)
            .map_err(|_| Refused::new(format!("{kind} is no way of discovery")).under("type"))?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return self::custom(custom, hosts, notes).at("cluster_type");
        }
    };
    match kind {
        DiscoveryType::Static => {
            if let Some(listener) = assignment.as_ref().and_then(internal) {
                return Ok(Discovery::Internal(listener.into()));
            }
            hosts(notes).map(Discovery::Static)
        }
        DiscoveryType::Eds => {
            let pb::cluster::EdsClusterConfig {
                eds_config: _,
                service_name,
            } = eds.unwrap_or_default();
            let under = Some(service_name).filter(|under| !under.is_empty());
            Ok(Discovery::Subscribed(
                under.as_deref().unwrap_or(name).into(),
            ))
        }
        DiscoveryType::StrictDns => Ok(Discovery::StrictDns(dns.with(hosts(notes)?)?)),
        DiscoveryType::LogicalDns => {
            let set = hosts(notes)?;
            one(&set).at("load_assignment")?;
            Ok(Discovery::LogicalDns(dns.with(set)?))
        }
        DiscoveryType::OriginalDst => self::original(original).at("original_dst_lb_config"),
    }
}

/// The internal listener to which a cluster leads: istiod's graph within the proxy.
fn internal(assignment: &endpoint::ClusterLoadAssignment) -> Option<&str> {
    use core::address::Address::EnvoyInternalAddress;
    use core::envoy_internal_address::AddressNameSpecifier::ServerListenerName;
    use endpoint::lb_endpoint::HostIdentifier::Endpoint;
    let [locality] = assignment.endpoints.as_slice() else {
        return None;
    };
    let [only] = locality.lb_endpoints.as_slice() else {
        return None;
    };
    let Some(Endpoint(only)) = &only.host_identifier else {
        return None;
    };
    let Some(EnvoyInternalAddress(internal)) = &only.address.as_ref()?.address else {
        return None;
    };
    let Some(ServerListenerName(listener)) = &internal.address_name_specifier else {
        return None;
    };
    internal.endpoint_id.is_empty().then_some(listener)
}

fn original(config: Option<pb::cluster::OriginalDstLbConfig>) -> Result<Discovery, Refused> {
    let pb::cluster::OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = config.unwrap_or_default();
    let header = match (use_http_header, http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(plain::header_name(ORIGINAL_DST_HEADER)?),
        (true, name) => Some(plain::header_name(name).at("http_header_name")?),
    };
    let mut path = Vec::new();
    if let Some(metadata::MetadataKey { key, path: rest }) = metadata_key {
        path.push(key.into());
        for segment in rest {
            use metadata::metadata_key::path_segment::Segment;
            match segment.segment {
                Some(Segment::Key(key)) => path.push(key.into()),
                _ => {
                    let reason = "metadata is found by names";
                    return Err(Refused::new(reason).under("metadata_key.path"));
                }
            }
        }
    }
    let port = upstream_port_override.map(|port| plain::port(port.value));
    Ok(Discovery::OriginalDestination {
        port: port.transpose().at("upstream_port_override")?,
        header,
        metadata: path,
    })
}

fn custom(
    custom: pb::cluster::CustomClusterType,
    hosts: impl FnOnce(&mut Notes) -> Result<Arc<EndpointSet>, Refused>,
    notes: &mut Notes,
) -> Result<Discovery, Refused> {
    let pb::cluster::CustomClusterType {
        name: _,
        typed_config,
    } = custom;
    let config = need(typed_config, "typed_config")?;
    match typed::name(&config) {
        "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig" => {
            use forward::cluster_config::ClusterImplementationSpecifier as Way;
            // What `allow_insecure_cluster_options` allows is done by the transport or not at all.
            let forward::ClusterConfig {
                allow_insecure_cluster_options: _,
                allow_coalesced_connections,
                cluster_implementation_specifier,
            } = typed::unpack(&config, notes).at("typed_config")?;
            unserved!(notes, "ClusterConfig": allow_coalesced_connections);
            match cluster_implementation_specifier {
                Some(Way::DnsCacheConfig(config)) => {
                    cached(config, notes).at("typed_config.dns_cache_config")?;
                }
                sub_clusters_config => {
                    unserved!(notes, "ClusterConfig": sub_clusters_config);
                }
            }
            Ok(Discovery::DynamicForwardProxy { port: None })
        }
        "envoy.extensions.clusters.dns.v3.DnsCluster" => {
            let dns_cluster::DnsCluster {
                dns_refresh_rate,
                dns_failure_refresh_rate: _,
                respect_dns_ttl,
                dns_jitter: _,
                typed_dns_resolver_config: _,
                dns_lookup_family,
                all_addresses_in_single_endpoint,
                dns_min_refresh_rate: _,
            } = typed::unpack(&config, notes).at("typed_config")?;
            let dns = DnsOptions {
                refresh: plain::maybe_duration(dns_refresh_rate, "dns_refresh_rate")?,
                respect_ttl: respect_dns_ttl,
                // The families of this message are those of clusters but for the first, "not
                // said", which means the same as automatic.
                family: (dns_lookup_family - 1).max(0),
            };
            let set = hosts(notes)?;
            if all_addresses_in_single_endpoint {
                one(&set)?;
                return Ok(Discovery::LogicalDns(dns.with(set)?));
            }
            Ok(Discovery::StrictDns(dns.with(set)?))
        }
        other => {
            let reason = format!("{other} is no way of discovery that is served");
            Err(Refused::new(reason).under("typed_config"))
        }
    }
}

/// A cache of resolved hosts: each request's host is resolved when it is asked for.
fn cached(config: cache::DnsCacheConfig, notes: &mut Notes) -> Result<(), Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let cache::DnsCacheConfig {
        name: _,
        dns_lookup_family: _,
        dns_refresh_rate: _,
        dns_min_refresh_rate,
        host_ttl,
        max_hosts,
        disable_dns_refresh_on_failure,
        dns_failure_refresh_rate: _,
        dns_cache_circuit_breaker,
        use_tcp_for_dns_lookups: _,
        dns_resolution_config: _,
        typed_dns_resolver_config: _,
        preresolve_hostnames,
        dns_query_timeout: _,
        key_value_config,
        resolved_address_filter,
    } = config;
    unserved!(notes, "DnsCacheConfig":
        dns_min_refresh_rate, host_ttl, max_hosts, disable_dns_refresh_on_failure,
        dns_cache_circuit_breaker, preresolve_hostnames, key_value_config, resolved_address_filter);
    Ok(())
}

impl DnsOptions {
    fn with(self, set: Arc<EndpointSet>) -> Result<Dns, Refused> {
        use pb::cluster::DnsLookupFamily as Family;
        let family = match Family::try_from(self.family) {
            Ok(Family::Auto) => DnsFamily::Auto,
            Ok(Family::V4Only) => DnsFamily::V4Only,
            Ok(Family::V6Only) => DnsFamily::V6Only,
            Ok(Family::V4Preferred) => DnsFamily::V4Preferred,
            Ok(Family::All) => DnsFamily::All,
            Err(_) => {
                let reason = format!("{} is no family of addresses", self.family);
                return Err(Refused::new(reason).under("dns_lookup_family"));
            }
        };
        Ok(Dns {
            set,
            refresh: self.refresh.filter(|it| !it.is_zero()).unwrap_or(REFRESH),
            respect_ttl: self.respect_ttl,
            family,
        })
    }
}

/// A cluster of one host name has exactly one.
fn one(set: &EndpointSet) -> Result<(), Refused> {
    match set.localities.iter().map(|it| it.endpoints.len()).sum() {
        1 => Ok(()),
        hosts => {
            let reason = format!("a cluster of this type has one host name, not {hosts}");
            Err(Refused::new(reason))
        }
    }
}
