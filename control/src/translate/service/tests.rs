//! Services as Kubernetes writes them → what node proxies learn, field by field.

use mesh::proto::workload::AppProtocol;
use serde_json::{Value, json};

use super::*;

fn translate(spec: Value, annotations: Value, namespace: Option<&str>) -> Option<WireService> {
    let object = json!({"metadata": {"name": "web", "namespace": "shop", "annotations": annotations}, "spec": spec});
    let parsed = Service::from_kubernetes(&serde_json::from_value(object).unwrap())?;
    let namespace = Namespace {
        name: "shop".to_owned(),
        traffic_distribution: namespace.map(str::to_owned),
        ..Namespace::default()
    };
    let context = Context {
        namespace: Some(&namespace),
        ..Context::default()
    };
    Some(service(&Mesh::default(), &parsed, &context))
}

fn of(spec: Value) -> WireService {
    translate(spec, json!({}), None).unwrap()
}

#[test]
fn names_and_addresses() {
    let found = of(
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]}),
    );
    assert_eq!(
        (found.name.as_str(), found.namespace.as_str()),
        ("web", "shop")
    );
    assert_eq!(found.hostname, "web.shop.svc.cluster.local");
    let octets: Vec<usize> = found
        .addresses
        .iter()
        .map(|address| address.address.len())
        .collect();
    assert_eq!(octets, [4, 16]);
    assert_eq!(found.ip_families(), IpFamilies::Dual);
    assert!(found.canonical);
    assert!(
        of(json!({"clusterIP": "None", "clusterIPs": ["None"]}))
            .addresses
            .is_empty()
    );
    assert_eq!(of(json!({"clusterIP": "10.0.0.1"})).addresses.len(), 1);
}

#[test]
fn the_family_is_said_as_kubernetes_says_it() {
    assert_eq!(
        of(json!({"ipFamilies": ["IPv4"]})).ip_families(),
        IpFamilies::Ipv4Only
    );
    assert_eq!(
        of(json!({"ipFamilies": ["IPv6"]})).ip_families(),
        IpFamilies::Ipv6Only
    );
    assert_eq!(of(json!({})).ip_families(), IpFamilies::Automatic);
}

#[test]
fn an_external_name_is_no_service() {
    assert_eq!(
        translate(
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({}),
            None
        ),
        None
    );
}

#[test]
fn target_ports_are_numbers_or_zero_for_names() {
    let ports = of(json!({"ports": [
        {"name": "a", "port": 80, "targetPort": 8080},
        {"name": "b", "port": 81, "targetPort": "web"},
        {"name": "c", "port": 82},
    ]}))
    .ports;
    let numbers: Vec<(u32, u32)> = ports
        .iter()
        .map(|port| (port.service_port, port.target_port))
        .collect();
    assert_eq!(numbers, [(80, 8080), (81, 0), (82, 82)]);
}

#[test]
fn the_protocol_follows_from_the_name_or_is_said() {
    let cases = [
        (json!({"name": "http", "port": 1}), AppProtocol::Http11),
        (json!({"name": "HTTP-up", "port": 1}), AppProtocol::Http11),
        (json!({"name": "http2-x", "port": 1}), AppProtocol::Http2),
        (json!({"name": "grpc", "port": 1}), AppProtocol::Grpc),
        (json!({"name": "grpc-web", "port": 1}), AppProtocol::Unknown),
        (json!({"name": "https", "port": 1}), AppProtocol::Tls),
        (json!({"name": "tls-x", "port": 1}), AppProtocol::Tls),
        (json!({"name": "tcp-x", "port": 1}), AppProtocol::Tcp),
        (json!({"name": "mysql", "port": 3306}), AppProtocol::Unknown),
        (json!({"name": "x", "port": 3306}), AppProtocol::Tcp),
        (json!({"name": "x", "port": 1}), AppProtocol::Unknown),
        (
            json!({"name": "http", "port": 1, "protocol": "UDP"}),
            AppProtocol::Unknown,
        ),
        (
            json!({"name": "http", "port": 1, "appProtocol": "tcp"}),
            AppProtocol::Tcp,
        ),
        (
            json!({"name": "x", "port": 1, "appProtocol": "kubernetes.io/h2c"}),
            AppProtocol::Http2,
        ),
        (
            json!({"name": "x", "port": 1, "appProtocol": "kubernetes.io/ws"}),
            AppProtocol::Http11,
        ),
        (
            json!({"name": "x", "port": 1, "appProtocol": "kubernetes.io/wss"}),
            AppProtocol::Tls,
        ),
    ];
    for (port, expected) in cases {
        assert_eq!(
            of(json!({"ports": [port]})).ports[0].app_protocol(),
            expected,
            "{port}"
        );
    }
}

#[test]
fn load_balancing_is_the_field_then_the_annotation_then_the_namespace() {
    let key = crate::objects::place::TRAFFIC_DISTRIBUTION;
    let scopes = |spec, annotations, namespace| {
        translate(spec, annotations, namespace)
            .unwrap()
            .load_balancing
            .map(|balancing| {
                (
                    balancing.mode(),
                    balancing.routing_preference().collect::<Vec<_>>(),
                )
            })
    };
    let zone = Some((
        Mode::Failover,
        vec![Scope::Network, Scope::Region, Scope::Zone],
    ));
    let node = Some((
        Mode::Failover,
        vec![
            Scope::Network,
            Scope::Region,
            Scope::Zone,
            Scope::Subzone,
            Scope::Node,
        ],
    ));
    let field = |value: &str| json!({"trafficDistribution": value});
    let note = |value: &str| json!({key: value});
    assert_eq!(scopes(json!({}), json!({}), None), None);
    assert_eq!(scopes(field("PreferClose"), json!({}), None), zone);
    assert_eq!(
        scopes(field("PreferSameZone"), note("PreferSameNode"), None),
        zone
    );
    assert_eq!(scopes(field("PreferSameNode"), json!({}), None), node);
    assert_eq!(
        scopes(json!({}), note("PREFERCLOSE"), Some("PreferSameNode")),
        zone
    );
    assert_eq!(scopes(json!({}), json!({}), Some("PreferSameNode")), node);
    assert_eq!(
        scopes(json!({}), note("moon"), Some("PreferSameNode")),
        None
    );
    let local = json!({"internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose"});
    assert_eq!(
        scopes(local, json!({}), None),
        Some((Mode::Strict, vec![Scope::Node]))
    );
    assert_eq!(
        scopes(json!({"internalTrafficPolicy": "Cluster"}), json!({}), None),
        None
    );
}

#[test]
fn unready_endpoints_are_used_where_they_are_published() {
    let balancing = of(json!({"publishNotReadyAddresses": true}))
        .load_balancing
        .unwrap();
    assert_eq!(balancing.health_policy(), HealthPolicy::AllowAll);
    assert_eq!(balancing.mode(), Mode::UnspecifiedMode);
    let both = of(json!({"publishNotReadyAddresses": true, "trafficDistribution": "PreferClose"}))
        .load_balancing
        .unwrap();
    assert_eq!(
        (both.health_policy(), both.mode()),
        (HealthPolicy::AllowAll, Mode::Failover)
    );
    let plain = of(json!({"trafficDistribution": "PreferClose"}))
        .load_balancing
        .unwrap();
    assert_eq!(plain.health_policy(), HealthPolicy::OnlyHealthy);
}
