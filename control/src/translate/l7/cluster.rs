//! The clusters of a waypoint: its own services' ports and subsets, those that its routes name
//! elsewhere, and the fixed ones of the tunnels. (istio/istio, `core/cluster_waypoint.go`)

mod by_name;
mod fixed;
mod policy;

use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3 as proxy_protocol;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use std::collections::BTreeSet;

use super::api::{
    any, cluster, core, list, metadata, nested, number, object, percent, seconds, text,
    transport_socket,
};
use super::tunnel::internal_transport;
use super::view::{Found, Protocol, Rule, Target, TargetPort, View, inbound, outbound};
use super::{rbac, route, telemetry, tls};
use crate::objects::destination_rule::TrafficPolicy;

pub(super) use by_name::{can_forward, resolving};
pub(super) use policy::policy_for;

const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";

/// All of them.
pub(super) fn clusters(view: &View<'_>) -> Vec<cluster::Cluster> {
    let mut all = vec![
        fixed::to_listener("main_internal", "main_internal"),
        fixed::to_listener("encap", "connect_originate"),
    ];
    for service in &view.services {
        let rule = view.rule_of(service);
        for port in &service.ports {
            own(view, service, port, rule.as_ref(), &mut all);
        }
    }
    elsewhere(view, &mut all);
    all.push(fixed::connect_originate(view));
    all.push(fixed::inner_connect_originate(view));
    all.push(fixed::outer_connect_originate(view));
    all
}

fn own(
    view: &View<'_>,
    service: &Target,
    port: &TargetPort,
    rule: Option<&Rule>,
    all: &mut Vec<cluster::Cluster>,
) {
    if service.found == Found::ByRequest && !by_name::can_forward(port) {
        return;
    }
    let kinds = [("tcp", port.protocol.tcp()), ("http", port.protocol.http())];
    let subsets = rule.map_or(&[][..], |rule| &rule.spec.subsets);
    let names = std::iter::once("").chain(subsets.iter().map(|subset| subset.name.as_str()));
    for subset in names {
        let rule = rule.filter(|rule| policy::says(rule, subset));
        let policy = rule.map(|rule| policy_for(rule, port.number, subset));
        for (kind, _) in kinds.iter().filter(|(_, spoken)| *spoken) {
            let kind = if subset.is_empty() {
                (*kind).to_owned()
            } else {
                format!("{kind}/{subset}")
            };
            let name = inbound(port.number, &kind, &service.host);
            let mut made = of_service(view, service, port, &name, &kind, rule);
            let socket = socket(view, rule, policy.as_ref(), port);
            made.transport_socket = Some(internal_transport(
                "internal_upstream",
                socket,
                &[ORIGINAL_DST, "istio"],
            ));
            policy::apply(view, rule, policy.as_ref(), &mut made);
            all.push(made);
        }
    }
}

/// What routes send to that this waypoint does not serve: to the pods directly.
fn elsewhere(view: &View<'_>, all: &mut Vec<cluster::Cluster>) {
    let mut seen = BTreeSet::new();
    let hosted: Vec<_> = view
        .services
        .iter()
        .flat_map(|service| view.routes_of(service))
        .collect();
    let routed = hosted.into_iter().flat_map(route::destinations);
    let routed = routed
        .map(|to| to.host.clone())
        .filter(|host| !view.owns(host));
    // Whoever decides, or is told of spans, is reached directly, also where this waypoint serves it.
    let asked = rbac::asked(view).into_iter().map(|(host, _)| host);
    for host in routed.chain(asked).chain(telemetry::tracers(view)) {
        if !seen.insert(host.clone()) {
            continue;
        }
        let Some(target) = (view.lookup)(&host) else {
            continue;
        };
        let rule = view.rule_of(&target);
        let subsets = rule.as_ref().map_or(&[][..], |rule| &rule.spec.subsets);
        for port in &target.ports {
            for subset in
                std::iter::once("").chain(subsets.iter().map(|subset| subset.name.as_str()))
            {
                let policy = rule
                    .as_ref()
                    .map(|rule| policy_for(rule, port.number, subset));
                let name = outbound(port.number, subset, &target.host);
                let mut made = of_service(view, &target, port, &name, subset, rule.as_ref());
                let plain = socket(view, rule.as_ref(), policy.as_ref(), port);
                let tunnel = internal_transport(
                    "internal_upstream",
                    transport_socket("raw_buffer", any(&RawBuffer {})),
                    &[ORIGINAL_DST, "istio"],
                );
                made.transport_socket_matches = vec![
                    socket_match("hbone", Some(("tunnel", "http")), tunnel),
                    socket_match("tlsMode-disabled", None, plain),
                ];
                policy::apply(view, rule.as_ref(), policy.as_ref(), &mut made);
                all.push(made);
            }
        }
    }
}

/// Endpoints' places have shares.
fn by_weight(made: &mut cluster::Cluster) {
    made.common_lb_config
        .get_or_insert_default()
        .locality_config_specifier = Some(
        cluster::cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            Default::default(),
        ),
    );
}

fn socket_match(
    name: &str,
    when: Option<(&str, &str)>,
    socket: core::TransportSocket,
) -> cluster::cluster::TransportSocketMatch {
    cluster::cluster::TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(
            when.map(|(key, value)| object([(key, text(value))]))
                .unwrap_or_default(),
        ),
        transport_socket: Some(socket),
    }
}

fn of_service(
    view: &View<'_>,
    service: &Target,
    port: &TargetPort,
    name: &str,
    subset: &str,
    rule: Option<&Rule>,
) -> cluster::Cluster {
    let about = object([
        ("host", text(service.host.clone())),
        ("name", text(service.key.name.to_string())),
        ("namespace", text(service.key.namespace.to_string())),
    ]);
    let mut istio = object([("services", list(vec![nested(about)]))]);
    if !subset.is_empty() {
        istio.fields.insert("subset".to_owned(), text(subset));
    }
    if let Some(rule) = rule {
        let config = format!(
            "/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}",
            rule.key.namespace, rule.key.name
        );
        istio.fields.insert("config".to_owned(), text(config));
    }
    let mut made = cluster::Cluster {
        name: name.to_owned(),
        alt_stat_name: format!("{name};"),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds.into(),
        )),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(core::ConfigSource {
                config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
                    Default::default(),
                )),
                initial_fetch_timeout: seconds(0),
                resource_api_version: core::ApiVersion::V3.into(),
                ..Default::default()
            }),
            service_name: name.to_owned(),
        }),
        connect_timeout: seconds(10),
        lb_policy: cluster::cluster::LbPolicy::LeastRequest.into(),
        circuit_breakers: Some(breakers()),
        metadata: Some(metadata([("istio".to_owned(), istio)])),
        // With a handful of pods, half of them being out must not bring all of them back.
        common_lb_config: Some(cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(percent::Percent { value: 0.0 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    if service.near.is_some() {
        by_weight(&mut made);
    }
    match service.found {
        Found::ByCaller => by_caller(&mut made),
        Found::Known if service.headless => by_caller(&mut made),
        Found::Known => {}
        Found::ByName { first } => by_name::listed(view, service, port, first, &mut made),
        Found::ByRequest => by_name::by_request(view, service, &mut made),
    }
    match port.protocol {
        Protocol::Http2 => set_options(
            &mut made,
            &explicit_h2(core::Http2ProtocolOptions::default()),
        ),
        Protocol::Sniffed => set_options(&mut made, &as_the_caller()),
        Protocol::Http | Protocol::Tcp | Protocol::Tls => {}
    }
    made
}

/// To where the caller wanted to go.
fn by_caller(made: &mut cluster::Cluster) {
    made.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::Type(
        cluster::cluster::DiscoveryType::OriginalDst.into(),
    ));
    made.lb_policy = cluster::cluster::LbPolicy::ClusterProvided.into();
    made.eds_cluster_config = None;
}

/// Plain bytes, TLS, or either behind the PROXY protocol.
fn socket(
    view: &View<'_>,
    rule: Option<&Rule>,
    policy: Option<&TrafficPolicy>,
    port: &TargetPort,
) -> core::TransportSocket {
    let wanted = rule.zip(policy.and_then(|policy| policy.tls.as_ref()));
    let h2 = port.protocol == Protocol::Http2;
    let secured = wanted.and_then(|(rule, wanted)| tls::upstream(view, rule, wanted, h2));
    let socket = secured.unwrap_or_else(|| transport_socket("raw_buffer", any(&RawBuffer {})));
    let Some(proxy) = policy.and_then(|policy| policy.proxy_protocol.as_ref()) else {
        return socket;
    };
    let version = if proxy.version == "V2" {
        core::proxy_protocol_config::Version::V2
    } else {
        core::proxy_protocol_config::Version::V1
    };
    let transport = proxy_protocol::ProxyProtocolUpstreamTransport {
        config: Some(core::ProxyProtocolConfig {
            version: version.into(),
            ..Default::default()
        }),
        transport_socket: Some(socket),
        ..Default::default()
    };
    transport_socket(
        "envoy.transport_sockets.upstream_proxy_protocol",
        any(&transport),
    )
}

fn breakers() -> cluster::CircuitBreakers {
    let unlimited = number(u32::MAX);
    cluster::CircuitBreakers {
        thresholds: vec![cluster::circuit_breakers::Thresholds {
            max_connections: unlimited,
            max_pending_requests: unlimited,
            max_requests: unlimited,
            max_retries: unlimited,
            ..Default::default()
        }],
        ..Default::default()
    }
}

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn set_options(made: &mut cluster::Cluster, options: &upstream::HttpProtocolOptions) {
    made.typed_extension_protocol_options
        .insert(OPTIONS.to_owned(), any(options));
}

/// The caller's version of HTTP.
fn as_the_caller() -> upstream::HttpProtocolOptions {
    use upstream::http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig};
    upstream::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig {
                http_protocol_options: Some(Default::default()),
                http2_protocol_options: Some(Default::default()),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn explicit_h2(options: core::Http2ProtocolOptions) -> upstream::HttpProtocolOptions {
    use upstream::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    };
    upstream::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(options)),
            },
        )),
        ..Default::default()
    }
}

fn idle(
    mut options: upstream::HttpProtocolOptions,
    after: i64,
    once: bool,
) -> upstream::HttpProtocolOptions {
    options.common_http_protocol_options = Some(core::HttpProtocolOptions {
        idle_timeout: seconds(after),
        max_requests_per_connection: if once { number(1) } else { None },
        ..Default::default()
    });
    options
}

fn connect() -> core::Http2ProtocolOptions {
    let allow_connect = true;
    core::Http2ProtocolOptions {
        allow_connect,
        ..Default::default()
    }
}
