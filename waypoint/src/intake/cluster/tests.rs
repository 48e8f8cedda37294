//! Clusters as istiod and people write them, by way of their JSON.

use serde_json::{Value, json};

use super::*;
use crate::model::cluster::{BalancerKind, Discovery, DnsFamily, Transport, UpstreamProtocol};
use crate::model::tls::SecretRef;
use crate::source::json::Descriptors;

const TYPE: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

fn read(mut json: Value) -> Result<(Cluster, Vec<String>), String> {
    json["@type"] = TYPE.into();
    let name = json["name"].as_str().unwrap_or_default().to_owned();
    let any = Descriptors::get().any(json).unwrap();
    let mut notes = Notes::default();
    let cluster = cluster(&name, &any.value, &mut notes).map_err(|refused| refused.to_string())?;
    let counted = notes.iter().map(|(name, ..)| name.to_owned()).collect();
    Ok((cluster, counted))
}

fn good(json: Value) -> Cluster {
    read(json).unwrap().0
}

fn bad(json: Value) -> String {
    read(json).unwrap_err()
}

/// Every cluster of a file that the real istiod sent, but for the one that names files of a sidecar.
fn istiod(text: &str) -> Vec<(Cluster, Vec<String>)> {
    let _held = Descriptors::get();
    let file: Value = serde_json::from_str(text).unwrap();
    let resources = file["resources"].as_array().unwrap().iter();
    resources
        .filter(|resource| resource["@type"] == TYPE)
        .filter_map(|resource| match read(resource.clone()) {
            Ok(read) => Some(read),
            Err(refused) => {
                let name = resource["name"].as_str().unwrap();
                assert!(name.contains("|tls-mutual.traffic."), "{name}: {refused}");
                assert!(refused.contains("credentialName"), "{name}: {refused}");
                None
            }
        })
        .collect()
}

fn tls(json: Value) -> Value {
    let mut json = json;
    json["@type"] =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext".into();
    json!({"name": "tls", "typed_config": json})
}

#[test]
fn everything_that_istiod_sends_is_served_and_hardly_anything_counted() {
    let files = [
        include_str!("../../../tests/fixtures/istiod/bookinfo.json"),
        include_str!("../../../tests/fixtures/istiod/everything.json"),
        include_str!("../../../tests/fixtures/istiod/external.json"),
        include_str!("../../../tests/fixtures/istiod/gatewayapi.json"),
        include_str!("../../../tests/fixtures/istiod/policy.json"),
        include_str!("../../../tests/fixtures/istiod/protocols.json"),
        include_str!("../../../tests/fixtures/istiod/routing.json"),
        include_str!("../../../tests/fixtures/istiod/telemetry.json"),
        include_str!("../../../tests/fixtures/istiod/traffic.json"),
    ];
    let clusters: Vec<_> = files.into_iter().flat_map(istiod).collect();
    assert!(clusters.len() > 150, "{}", clusters.len());
    let counted: Vec<_> = clusters.iter().flat_map(|(_, counted)| counted).collect();
    assert_eq!(counted, [""; 0]);
}

#[test]
fn istiods_cluster_of_a_subset() {
    let clusters = istiod(include_str!("../../../tests/fixtures/istiod/bookinfo.json"));
    let name = "inbound-vip|9080|http/v1|reviews.bookinfo.svc.cluster.local";
    let mut clusters = clusters.into_iter().map(|(cluster, _)| cluster);
    let cluster = clusters.find(|cluster| &*cluster.name == name).unwrap();
    assert_eq!(&*cluster.stat_name, format!("{name};"));
    let Discovery::Subscribed(under) = &cluster.discovery else {
        panic!("{:?}", cluster.discovery);
    };
    assert_eq!(&**under, name);
    assert!(matches!(cluster.transport, Transport::Plain));
    assert_eq!(cluster.breakers.connections, u32::MAX);
    assert_eq!(
        &*cluster.services[0].host,
        "reviews.bookinfo.svc.cluster.local"
    );
    assert_eq!(cluster.connect_timeout, Duration::from_secs(10));
}

#[test]
fn istiods_graph_within_the_proxy() {
    let clusters = istiod(include_str!("../../../tests/fixtures/istiod/bookinfo.json"));
    let find = |name: &str| {
        let mut clusters = clusters.iter().map(|(cluster, _)| cluster);
        clusters.find(|cluster| &*cluster.name == name).unwrap()
    };
    for (name, listener) in [
        ("main_internal", "main_internal"),
        ("encap", "connect_originate"),
        ("inner_connect_originate", "outer_connect_originate"),
    ] {
        let Discovery::Internal(to) = &find(name).discovery else {
            panic!("{name}: {:?}", find(name).discovery);
        };
        assert_eq!(&**to, listener);
    }
    let originate = find("connect_originate");
    let Discovery::OriginalDestination {
        port,
        header,
        metadata,
    } = &originate.discovery
    else {
        panic!("{:?}", originate.discovery);
    };
    assert_eq!((*port, header), (Some(15008), &None));
    let path: Vec<_> = metadata.iter().map(|part| &**part).collect();
    assert_eq!(path, ["envoy.filters.listener.original_dst", "waypoint"]);
    let Transport::Tls(tls) = &originate.transport else {
        panic!("{:?}", originate.transport);
    };
    assert_eq!(tls.certificate, Some(SecretRef::Workload));
    assert_eq!(originate.http.protocol, UpstreamProtocol::Http2);
    assert_eq!(originate.balancer.kind, BalancerKind::Provided);
}

#[test]
fn rules_of_a_destination() {
    let clusters = istiod(include_str!("../../../tests/fixtures/istiod/traffic.json"));
    let of = |service: &str| {
        let mut clusters = clusters.iter().map(|(cluster, _)| cluster);
        let host = format!("http|{service}.traffic.svc.cluster.local");
        clusters
            .find(|cluster| cluster.name.ends_with(&host))
            .unwrap()
    };
    let kinds: Vec<_> = clusters
        .iter()
        .map(|(cluster, _)| &cluster.balancer.kind)
        .collect();
    let has = |test: fn(&BalancerKind) -> bool| kinds.iter().any(|kind| test(kind));
    assert!(has(|kind| *kind == BalancerKind::RoundRobin));
    assert!(has(|kind| matches!(
        kind,
        BalancerKind::LeastRequest { choices: 2, .. }
    )));
    assert!(has(|kind| matches!(
        kind,
        BalancerKind::RingHash { minimum: 2048, .. }
    )));
    assert!(has(|kind| matches!(
        kind,
        BalancerKind::Maglev { size: 65_537, .. }
    )));
    let outlier = of("outliers").outlier.as_ref().unwrap();
    assert_eq!(outlier.interval, Duration::from_secs(5));
    assert_eq!(outlier.base_ejection_time, Duration::from_secs(120));
    assert_eq!(outlier.max_ejection_percent, 60);
    let with_warmup = clusters.iter().find_map(|(cluster, _)| {
        let warmup = cluster.balancer.warmup.as_ref()?;
        (cluster.balancer.kind == BalancerKind::RoundRobin).then_some(warmup)
    });
    let warmup = with_warmup.unwrap();
    assert_eq!(warmup.window, Duration::from_secs(60));
    assert!((warmup.aggression - 1.5).abs() < 1e-9);
    assert!((warmup.minimum_percent - 20.0).abs() < 1e-9);
}

#[test]
fn hosts_outside_of_the_mesh() {
    let clusters = istiod(include_str!("../../../tests/fixtures/istiod/external.json"));
    let clusters: Vec<_> = clusters.iter().map(|(cluster, _)| cluster).collect();
    let dns = clusters
        .iter()
        .find_map(|cluster| match &cluster.discovery {
            Discovery::StrictDns(dns) => Some(dns),
            _ => None,
        });
    let dns = dns.unwrap();
    assert_eq!(
        (dns.refresh, dns.respect_ttl),
        (Duration::from_secs(60), true)
    );
    assert_eq!(dns.family, DnsFamily::V4Only);
    let originates = clusters
        .iter()
        .find_map(|cluster| match &cluster.transport {
            Transport::Tls(tls) if tls.auto_san => Some(tls),
            _ => None,
        });
    assert!(
        originates.unwrap().auto_sni,
        "names are those of the request"
    );
    assert!(
        clusters
            .iter()
            .any(|it| matches!(it.discovery, Discovery::LogicalDns(_)))
    );
    assert!(
        clusters
            .iter()
            .any(|it| matches!(it.discovery, Discovery::DynamicForwardProxy { port: None }))
    );
}

#[test]
fn an_ordinary_cluster_has_envoys_defaults() {
    let cluster = good(json!({"name": "a"}));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.balancer.kind, BalancerKind::RoundRobin);
    assert_eq!(cluster.breakers.requests, 1024);
    assert_eq!(cluster.breakers.retries, 3);
    assert_eq!(cluster.http.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.http.idle, Some(Duration::from_secs(3600)));
    assert!((cluster.locality.panic_threshold - 50.0).abs() < 1e-9);
    let older = good(json!({"name": "a", "http2_protocol_options": {}}));
    assert_eq!(older.http.protocol, UpstreamProtocol::Http2);
}

#[test]
fn transports_within_transports() {
    let proxy = json!({
        "name": "proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            "config": {"version": "V2"},
            "transport_socket": tls(json!({"sni": "a.example.com"})),
        },
    });
    let cluster = good(json!({
        "name": "a",
        "transport_socket": proxy,
        "transport_socket_matches": [
            {"name": "tls", "match": {"tlsMode": "istio"}, "transport_socket": tls(json!({}))},
        ],
    }));
    let Transport::ProxyProtocol(2, inner) = &cluster.transport else {
        panic!("{:?}", cluster.transport);
    };
    assert!(matches!(&**inner, Transport::Tls(tls) if tls.sni.as_deref() == Some("a.example.com")));
    let matched = &cluster.transport_matches[0];
    assert_eq!(matched.metadata, [("tlsMode".into(), "istio".into())]);
    assert!(matches!(matched.transport, Transport::Tls(_)));
}

#[test]
fn what_would_send_requests_elsewhere_is_refused_by_name() {
    let table = [
        (
            json!({"name": "a", "lb_subset_config": {}}),
            "lb_subset_config",
        ),
        (
            json!({"name": "a", "load_balancing_policy": {}}),
            "load_balancing_policy",
        ),
        (
            json!({"name": "a", "connect_timeout": "-1s"}),
            "connect_timeout",
        ),
        (
            json!({"name": "a", "lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 100}}),
            "maglev_lb_config.table_size",
        ),
        (
            json!({"name": "a", "type": "LOGICAL_DNS"}),
            "load_assignment",
        ),
        (
            json!({"name": "a", "cluster_type": {"name": "b", "typed_config": {
                "@type": "type.googleapis.com/google.protobuf.Duration",
                "value": "1s",
            }}}),
            "google.protobuf.Duration is no way of discovery",
        ),
        (
            json!({"name": "a", "transport_socket": {"name": "b", "typed_config": {
                "@type": "type.googleapis.com/google.protobuf.Duration",
                "value": "1s",
            }}}),
            "no transport that is served",
        ),
        (
            json!({"name": "a", "transport_socket_matches": [{"name": "b", "match": {"c": []}}]}),
            "transport_socket_matches[0].match",
        ),
    ];
    for (json, wrong) in table {
        let told = bad(json.clone());
        assert!(told.contains(wrong), "{json}: {told}");
    }
    let any = Descriptors::get()
        .any(json!({"@type": TYPE, "name": "a"}))
        .unwrap();
    let other = cluster("b", &any.value, &mut Notes::default()).unwrap_err();
    assert_eq!(other.to_string(), "name: is \"a\" inside");
}

#[test]
fn what_changes_little_is_counted() {
    let (_, counted) = read(json!({
        "name": "a",
        "health_checks": [{"timeout": "1s", "interval": "1s"}],
        "filters": [{"name": "istio.metadata_exchange"}, {"name": "b"}],
        "circuit_breakers": {"thresholds": [{"priority": "HIGH"}, {"track_remaining": true}]},
    }))
    .unwrap();
    assert_eq!(
        counted,
        [
            "Cluster.filters (b)",
            "Cluster.health_checks",
            "Thresholds.priority",
            "Thresholds.track_remaining",
        ]
    );
}
