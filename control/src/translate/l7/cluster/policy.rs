//! A DestinationRule's traffic policy onto a cluster. (istio/istio, `core/cluster_traffic_policy.go`)

use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use prost::Message;

use super::super::api::{UInt64Value, cluster, core, number, parsed, percent, said};
use super::super::locality;
use super::super::view::{Rule, View};
use super::{OPTIONS, as_the_caller, by_weight, explicit_h2, set_options};
use crate::objects::Kind;
use crate::objects::destination_rule::{
    ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy,
};

use cluster::cluster::{LbConfig, LbPolicy};

/// What holds for a port of a subset: a part that the subset's port names, else the subset, else the
/// rule's port, else the rule. Within a port's settings nothing is inherited.
pub(in crate::translate::l7) fn policy_for(rule: &Rule, port: u16, subset: &str) -> TrafficPolicy {
    let general = rule.spec.traffic_policy.clone().unwrap_or_default();
    let of_subset = rule
        .spec
        .subsets
        .iter()
        .find(|known| known.name == subset && !subset.is_empty());
    let mut policy = at_port(&general, port);
    if let Some(special) = of_subset.and_then(|subset| subset.traffic_policy.as_ref()) {
        policy.load_balancer = special.load_balancer.clone().or(policy.load_balancer);
        policy.connection_pool = special.connection_pool.clone().or(policy.connection_pool);
        policy.outlier_detection = special
            .outlier_detection
            .clone()
            .or(policy.outlier_detection);
        policy.tls = special.tls.clone().or(policy.tls);
        policy.proxy_protocol = special.proxy_protocol.clone().or(policy.proxy_protocol);
        policy.retry_budget = special.retry_budget.clone().or(policy.retry_budget);
        if special.port_level_settings.iter().any(|at| is(at, port)) {
            policy = TrafficPolicy {
                proxy_protocol: policy.proxy_protocol,
                retry_budget: policy.retry_budget,
                ..at_port(special, port)
            };
        }
    }
    policy
}

/// Whether anything is said for a subset.
pub(super) fn says(rule: &Rule, subset: &str) -> bool {
    let mut subsets = rule.spec.subsets.iter();
    let special = subsets.find(|known| known.name == subset && !subset.is_empty());
    rule.spec.traffic_policy.is_some()
        || special.is_some_and(|special| special.traffic_policy.is_some())
}

fn is(at: &crate::objects::destination_rule::PortPolicy, port: u16) -> bool {
    at.port
        .is_some_and(|selector| selector.number == u32::from(port))
}

fn at_port(policy: &TrafficPolicy, port: u16) -> TrafficPolicy {
    let special = policy.port_level_settings.iter().find(|at| is(at, port));
    let mut made = TrafficPolicy {
        port_level_settings: Vec::new(),
        ..policy.clone()
    };
    if let Some(special) = special {
        made.load_balancer.clone_from(&special.load_balancer);
        made.connection_pool.clone_from(&special.connection_pool);
        made.outlier_detection
            .clone_from(&special.outlier_detection);
        made.tls.clone_from(&special.tls);
    }
    made
}

/// Writes it onto the cluster.
pub(super) fn apply(
    view: &View<'_>,
    rule: Option<&Rule>,
    policy: Option<&TrafficPolicy>,
    made: &mut cluster::Cluster,
) {
    let (Some(rule), Some(policy)) = (rule, policy) else {
        return;
    };
    pool(policy, made);
    if let Some((sni, san)) = policy.tls.as_ref().and_then(super::super::tls::by_host) {
        by_host(made, sni, san);
    }
    if let Some(detection) = &policy.outlier_detection {
        outliers(detection, made);
    }
    let by_place = policy
        .load_balancer
        .as_ref()
        .and_then(|balancer| balancer.locality_lb_setting.as_ref());
    if by_place
        .is_some_and(|setting| locality::is_weighted(setting, policy.outlier_detection.is_some()))
    {
        by_weight(made);
    }
    if let Some(balancer) = &policy.load_balancer
        && let Err(problem) = balance(balancer, made)
    {
        view.problem(Kind::DestinationRule, &rule.key, problem);
    }
}

fn pool(policy: &TrafficPolicy, made: &mut cluster::Cluster) {
    let ConnectionPool { tcp, http } = policy.connection_pool.clone().unwrap_or_default();
    let (tcp, asked) = (tcp.unwrap_or_default(), http.is_some());
    let http = http.unwrap_or_default();
    if let Some(threshold) = made
        .circuit_breakers
        .as_mut()
        .and_then(|breakers| breakers.thresholds.first_mut())
    {
        threshold.max_requests = said(http.http2_max_requests).or(threshold.max_requests);
        threshold.max_pending_requests =
            said(http.http1_max_pending_requests).or(threshold.max_pending_requests);
        threshold.max_retries = said(http.max_retries).or(threshold.max_retries);
        threshold.max_connections = said(tcp.max_connections).or(threshold.max_connections);
        threshold.retry_budget = policy.retry_budget.as_ref().map(|budget| {
            cluster::circuit_breakers::thresholds::RetryBudget {
                budget_percent: Some(percent::Percent {
                    value: budget.percent.unwrap_or(20.0),
                }),
                min_retry_concurrency: number(if budget.min_retry_concurrency > 0 {
                    budget.min_retry_concurrency
                } else {
                    3
                }),
                ..Default::default()
            }
        });
    }
    made.connect_timeout = parsed(tcp.connect_timeout).or(made.connect_timeout);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        let whole = |value: Option<crate::objects::duration::Duration>| {
            value.and_then(|value| said(u32::try_from(value.0.as_secs()).unwrap_or(u32::MAX)))
        };
        made.upstream_connection_options = Some(cluster::UpstreamConnectionOptions {
            tcp_keepalive: Some(core::TcpKeepalive {
                keepalive_probes: said(keepalive.probes),
                keepalive_time: whole(keepalive.time),
                keepalive_interval: whole(keepalive.interval),
            }),
            ..Default::default()
        });
    }
    let upgraded =
        asked && !http.use_client_protocol && http.h2_upgrade_policy.as_deref() == Some("UPGRADE");
    if upgraded {
        set_options(made, &explicit_h2(core::Http2ProtocolOptions::default()));
    } else if http.use_client_protocol {
        set_options(made, &as_the_caller());
    }
    let idle = http.idle_timeout.or(tcp.idle_timeout);
    let common = core::HttpProtocolOptions {
        idle_timeout: parsed(idle),
        max_requests_per_connection: said(http.max_requests_per_connection),
        max_connection_duration: parsed(tcp.max_connection_duration),
        ..Default::default()
    };
    let streams = said(http.max_concurrent_streams);
    let keepalive = http.http2_keep_alive.as_ref();
    let nothing = common == core::HttpProtocolOptions::default();
    if nothing && streams.is_none() && keepalive.is_none() {
        return;
    }
    let known = made.typed_extension_protocol_options.get(OPTIONS);
    let mut options = known
        .and_then(|any| upstream::HttpProtocolOptions::decode(any.value.as_slice()).ok())
        .unwrap_or_else(explicit_h1);
    options.common_http_protocol_options = Some(common);
    if let Some(h2) = told_h2(&mut options) {
        h2.max_concurrent_streams = streams;
        h2.connection_keepalive = keepalive.map(|keepalive| core::KeepaliveSettings {
            interval: parsed(keepalive.interval),
            timeout: parsed(keepalive.timeout),
            ..Default::default()
        });
    }
    set_options(made, &options);
}

/// What is said of HTTP/2, where it is what is spoken.
fn told_h2(options: &mut upstream::HttpProtocolOptions) -> Option<&mut core::Http2ProtocolOptions> {
    use upstream::http_protocol_options::{
        UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    };
    let Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) =
        &mut options.upstream_protocol_options
    else {
        return None;
    };
    match &mut explicit.protocol_config {
        Some(ProtocolConfig::Http2ProtocolOptions(h2)) => Some(h2),
        _ => None,
    }
}

/// The name to ask for, and to check, is the request's host.
fn by_host(made: &mut cluster::Cluster, auto_sni: bool, auto_san_validation: bool) {
    let known = made.typed_extension_protocol_options.get(OPTIONS);
    let known =
        known.and_then(|any| upstream::HttpProtocolOptions::decode(any.value.as_slice()).ok());
    let mut options = known.unwrap_or_else(explicit_h1);
    options.upstream_http_protocol_options = Some(core::UpstreamHttpProtocolOptions {
        auto_sni,
        auto_san_validation,
        ..core::UpstreamHttpProtocolOptions::default()
    });
    set_options(made, &options);
}

/// Envoy wants to be told a version as soon as it is told anything.
fn explicit_h1() -> upstream::HttpProtocolOptions {
    use upstream::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    };
    upstream::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::HttpProtocolOptions(Default::default())),
            },
        )),
        ..Default::default()
    }
}

fn outliers(detection: &OutlierDetection, made: &mut cluster::Cluster) {
    let enforced =
        |errors: Option<u32>| errors.and_then(|errors| number(if errors > 0 { 100 } else { 0 }));
    let mut out = cluster::OutlierDetection {
        enforcing_success_rate: number(0),
        consecutive_5xx: detection.consecutive_5xx_errors.and_then(number),
        enforcing_consecutive_5xx: enforced(detection.consecutive_5xx_errors),
        consecutive_gateway_failure: detection.consecutive_gateway_errors.and_then(number),
        enforcing_consecutive_gateway_failure: enforced(detection.consecutive_gateway_errors),
        interval: parsed(detection.interval),
        base_ejection_time: parsed(detection.base_ejection_time),
        max_ejection_percent: said(detection.max_ejection_percent),
        ..Default::default()
    };
    if detection.split_external_local_origin_errors {
        out.split_external_local_origin_errors = true;
        out.enforcing_local_origin_success_rate = number(0);
        if let Some(failures) = detection
            .consecutive_local_origin_failures
            .filter(|failures| *failures > 0)
        {
            out.consecutive_local_origin_failure = number(failures);
            out.enforcing_consecutive_local_origin_failure = number(100);
        }
    }
    made.outlier_detection = Some(out);
    made.common_lb_config
        .get_or_insert_default()
        .healthy_panic_threshold = Some(percent::Percent {
        value: f64::from(detection.min_health_percent.max(0)),
    });
}

fn balance(balancer: &LoadBalancer, made: &mut cluster::Cluster) -> Result<(), String> {
    let warmup = slow_start(balancer);
    match balancer.simple.as_deref() {
        Some("RANDOM") => made.lb_policy = LbPolicy::Random.into(),
        Some("ROUND_ROBIN") => {
            made.lb_policy = LbPolicy::RoundRobin.into();
            made.lb_config = warmup.map(|slow_start_config| {
                LbConfig::RoundRobinLbConfig(cluster::cluster::RoundRobinLbConfig {
                    slow_start_config: Some(slow_start_config),
                })
            });
        }
        Some("PASSTHROUGH") => {
            made.lb_policy = LbPolicy::ClusterProvided.into();
            made.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::Type(
                cluster::cluster::DiscoveryType::OriginalDst.into(),
            ));
            made.eds_cluster_config = None;
        }
        None | Some("UNSPECIFIED" | "LEAST_CONN" | "LEAST_REQUEST") => {
            made.lb_config = warmup.map(|slow_start_config| {
                LbConfig::LeastRequestLbConfig(cluster::cluster::LeastRequestLbConfig {
                    slow_start_config: Some(slow_start_config),
                    ..Default::default()
                })
            });
        }
        Some(other) => {
            return Err(format!(
                "loadBalancer.simple is {other:?}: it must be LEAST_REQUEST, RANDOM, ROUND_ROBIN or PASSTHROUGH"
            ));
        }
    }
    let Some(hash) = &balancer.consistent_hash else {
        return Ok(());
    };
    let size = |value: u64| Some(UInt64Value { value });
    if let Some(maglev) = hash.maglev {
        made.lb_policy = LbPolicy::Maglev.into();
        made.lb_config = maglev.table_size.filter(|table| *table > 0).map(|table| {
            LbConfig::MaglevLbConfig(cluster::cluster::MaglevLbConfig {
                table_size: size(table),
            })
        });
    } else {
        made.lb_policy = LbPolicy::RingHash.into();
        let minimum = match hash.ring_hash {
            Some(ring) => ring.minimum_ring_size.filter(|ring| *ring > 0),
            None => Some(
                hash.minimum_ring_size
                    .filter(|ring| *ring > 0)
                    .unwrap_or(1024),
            ),
        };
        made.lb_config = minimum.map(|minimum| {
            LbConfig::RingHashLbConfig(cluster::cluster::RingHashLbConfig {
                minimum_ring_size: size(minimum),
                ..Default::default()
            })
        });
    }
    Ok(())
}

fn slow_start(balancer: &LoadBalancer) -> Option<cluster::cluster::SlowStartConfig> {
    if let Some(warmup) = &balancer.warmup {
        return Some(cluster::cluster::SlowStartConfig {
            slow_start_window: parsed(warmup.duration),
            // A key that nobody sets; Envoy asks for one.
            aggression: Some(core::RuntimeDouble {
                default_value: warmup.aggression.unwrap_or(1.0),
                runtime_key: "(".to_owned(),
            }),
            min_weight_percent: Some(percent::Percent {
                value: warmup.minimum_percent.unwrap_or(10.0),
            }),
        });
    }
    balancer
        .warmup_duration_secs
        .map(|window| cluster::cluster::SlowStartConfig {
            slow_start_window: parsed(Some(window)),
            ..Default::default()
        })
}
