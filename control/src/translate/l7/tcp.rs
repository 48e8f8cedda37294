//! The filters of an opaque connection: metadata, policies, statistics, and where it goes.

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;

use super::api::{any, listener, network_filter, object, parsed, text, typed_struct, yes};
use super::logging::{Which, logs};
use super::route::destination;
use super::view::{Hosted, Rule, Target, TargetPort, View, inbound};
use super::{rbac, telemetry};
use crate::objects::Kind;
use crate::objects::virtual_service::{L4Match, RouteDestination};

/// For a service's port.
pub(super) fn filters(
    view: &View<'_>,
    service: &Target,
    port: &TargetPort,
) -> Vec<listener::Filter> {
    let name = inbound(port.number, "tcp", &service.host);
    let routes = routes(view, service, port);
    // The connection's own limits are of one rule: that of the first destination.
    let first = routes
        .first()
        .and_then(|route| (view.lookup)(&route.destination.host));
    let rule = view.rule_of(first.as_ref().unwrap_or(service));
    let pool = rule
        .as_ref()
        .and_then(|rule| {
            rule.spec
                .traffic_policy
                .as_ref()?
                .connection_pool
                .as_ref()?
                .tcp
                .clone()
        })
        .unwrap_or_default();
    let mut proxy = proxy(view, Some(service), &name);
    let by_source = rule.as_ref().and_then(|rule| {
        let policy = rule.spec.traffic_policy.as_ref()?;
        policy
            .load_balancer
            .as_ref()?
            .consistent_hash
            .as_ref()?
            .use_source_ip
    });
    if by_source == Some(true) {
        use super::api::percent::{HashPolicy, hash_policy};
        let source = hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {});
        proxy.hash_policy = vec![HashPolicy {
            policy_specifier: Some(source),
        }];
    }
    proxy.tunneling_config = rule.as_ref().and_then(|rule| tunnel(view, rule));
    proxy.idle_timeout = parsed(pool.idle_timeout);
    proxy.max_downstream_connection_duration = parsed(pool.max_connection_duration);
    match routes.as_slice() {
        [] => {}
        [one] => {
            let cluster = destination(view, &one.destination, port.number);
            proxy.cluster_specifier =
                Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(cluster));
        }
        several => {
            let weighted = several
                .iter()
                .filter(|route| route.weight > 0)
                .map(
                    |route| tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight {
                        name: destination(view, &route.destination, port.number),
                        weight: route.weight,
                        ..Default::default()
                    },
                );
            let clusters = tcp_proxy::tcp_proxy::WeightedCluster {
                clusters: weighted.collect(),
            };
            proxy.cluster_specifier = Some(
                tcp_proxy::tcp_proxy::ClusterSpecifier::WeightedClusters(clusters),
            );
        }
    }
    around(view, Some(service), &proxy)
}

/// For pods themselves.
pub(super) fn direct(view: &View<'_>) -> Vec<listener::Filter> {
    around(view, None, &proxy(view, None, "encap"))
}

fn proxy(view: &View<'_>, service: Option<&Target>, cluster: &str) -> tcp_proxy::TcpProxy {
    tcp_proxy::TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(
            cluster.to_owned(),
        )),
        access_log: logs(view, service, &Which::All),
        ..Default::default()
    }
}

fn around(
    view: &View<'_>,
    service: Option<&Target>,
    proxy: &tcp_proxy::TcpProxy,
) -> Vec<listener::Filter> {
    let exchange = object([
        ("enable_discovery", yes()),
        ("protocol", text("istio-peer-exchange")),
    ]);
    let exchange = typed_struct(
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        exchange,
    );
    let mut filters = vec![network_filter("istio.metadata_exchange", exchange)];
    filters.extend(rbac::network(view, service));
    let statistics = telemetry::statistics(view, service);
    filters.extend(statistics.map(|config| network_filter("istio.stats", config)));
    filters.push(network_filter(
        "envoy.filters.network.tcp_proxy",
        any(proxy),
    ));
    filters
}

/// Through a proxy's CONNECT, where the rule says so. POST is for proxies that no waypoint speaks to.
fn tunnel(view: &View<'_>, rule: &Rule) -> Option<tcp_proxy::tcp_proxy::TunnelingConfig> {
    let tunnel = rule.spec.traffic_policy.as_ref()?.tunnel.as_ref()?;
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT") {
        let problem = format!(
            "tunnel.protocol is {:?}: a waypoint opens tunnels by CONNECT; this one is left out",
            tunnel.protocol
        );
        view.problem(Kind::DestinationRule, &rule.key, problem);
        return None;
    }
    let host = &tunnel.target_host;
    let hostname = if host.contains(':') {
        format!("[{host}]:{}", tunnel.target_port)
    } else {
        format!("{host}:{}", tunnel.target_port)
    };
    Some(tcp_proxy::tcp_proxy::TunnelingConfig {
        hostname,
        ..Default::default()
    })
}

/// TLS routes before TCP routes; server names can't be told apart, so that a TLS route counts only
/// where its one name is the service's own.
fn routes(view: &View<'_>, service: &Target, port: &TargetPort) -> Vec<RouteDestination> {
    let all = view.routes_of(service);
    let here = |hosted: &Hosted, found: &L4Match| {
        if !found.source_labels.is_empty() || !found.source_namespace.is_empty() {
            let problem = "match.sourceLabels and sourceNamespace are of no use for tcp and tls: a \
                           waypoint decides there before it knows the caller; the match is left out";
            view.problem(hosted.kind, &hosted.key, problem);
        }
        found
            .port
            .is_none_or(|number| number == u32::from(port.number))
            && (found.gateways.is_empty() || found.gateways.iter().any(|name| name == "mesh"))
            && found.source_labels.is_empty()
            && found.source_namespace.is_empty()
    };
    let tls = |hosted: &&Hosted| {
        hosted
            .spec
            .tls
            .iter()
            .find(|rule| {
                rule.r#match.is_empty()
                    || rule.r#match.iter().any(|found| {
                        found.sni_hosts == [service.host.as_str()] && here(hosted, found)
                    })
            })
            .map(|rule| rule.route.clone())
    };
    let tcp = |hosted: &&Hosted| {
        let rules = &mut hosted.spec.tcp.iter();
        rules
            .find(|rule| {
                rule.r#match.is_empty() || rule.r#match.iter().any(|found| here(hosted, found))
            })
            .map(|rule| rule.route.clone())
    };
    all.iter()
        .find_map(tls)
        .or_else(|| all.iter().find_map(tcp))
        .unwrap_or_default()
}
