//! Parsing: what istiod sends is understood, what is wrong is refused by name.

mod odd;

use super::*;
use crate::proto::workload as proto;

/// A pod as istiod describes it.
fn pod() -> proto::Workload {
    proto::Workload {
        uid: "Kubernetes//Pod/default/reviews-v1-abc".to_owned(),
        name: "reviews-v1-abc".to_owned(),
        namespace: "default".to_owned(),
        addresses: vec![vec![10, 244, 1, 5]],
        tunnel_protocol: proto::TunnelProtocol::Hbone.into(),
        service_account: "bookinfo-reviews".to_owned(),
        node: "node-1".to_owned(),
        canonical_name: "reviews".to_owned(),
        canonical_revision: "v1".to_owned(),
        workload_name: "reviews-v1".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        authorization_policies: vec!["default/productpage-viewer".to_owned()],
        services: [(
            "default/reviews.default.svc.cluster.local".to_owned(),
            proto::PortList {
                ports: vec![port(9080, 9080)],
            },
        )]
        .into(),
        ..proto::Workload::default()
    }
}

fn port(service_port: u32, target_port: u32) -> proto::Port {
    proto::Port {
        service_port,
        target_port,
        app_protocol: 0,
    }
}

fn reviews() -> proto::Service {
    proto::Service {
        name: "reviews".to_owned(),
        namespace: "default".to_owned(),
        hostname: "reviews.default.svc.cluster.local".to_owned(),
        addresses: vec![address(&[10, 96, 0, 1], None)],
        ports: vec![port(9080, 9080)],
        ..proto::Service::default()
    }
}

fn address(address: &[u8], length: Option<u32>) -> proto::NetworkAddress {
    proto::NetworkAddress {
        network: String::new(),
        address: address.to_vec(),
        length,
    }
}

fn gateway(destination: Option<proto::gateway_address::Destination>) -> proto::GatewayAddress {
    proto::GatewayAddress {
        destination,
        hbone_mtls_port: 15008,
    }
}

fn workload_refusal(spoil: impl FnOnce(&mut proto::Workload)) -> String {
    let mut message = pod();
    spoil(&mut message);
    Workload::try_from(message).unwrap_err().to_string()
}

fn service_refusal(spoil: impl FnOnce(&mut proto::Service)) -> String {
    let mut message = reviews();
    spoil(&mut message);
    Service::try_from(message).unwrap_err().to_string()
}

#[test]
fn a_pod_is_understood() {
    let workload = Workload::try_from(pod()).unwrap();
    assert_eq!(
        workload.identity.as_str(),
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    );
    assert_eq!(workload.tunnel, TunnelProtocol::Hbone);
    assert_eq!(
        workload.addresses,
        ["10.244.1.5".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(workload.capacity, 1, "unset means 1");
    assert_eq!(workload.health, Health::Healthy);
    assert!(workload.uid.is_pod());
    assert_eq!(workload.kind_name(), "deployment");
    let key = ServiceKey::new("default", "reviews.default.svc.cluster.local");
    assert_eq!(workload.services[&key][0].target_port, 9080);
    assert_eq!(workload.policies[0].as_str(), "default/productpage-viewer");
    assert!(workload.owns("10.244.1.5".parse().unwrap()));
}

#[test]
fn what_is_left_out_has_its_meaning() {
    let message = proto::Workload {
        uid: "u".to_owned(),
        namespace: "ns".to_owned(),
        capacity: Some(0),
        ..proto::Workload::default()
    };
    let workload = Workload::try_from(message).unwrap();
    assert_eq!(
        workload.identity.as_str(),
        "spiffe://cluster.local/ns/ns/sa/default"
    );
    assert_eq!(workload.tunnel, TunnelProtocol::None);
    assert_eq!(workload.capacity, 0, "said, so meant");
    assert_eq!(workload.hostname, None);
    assert!(workload.waypoint.is_none() && workload.network_gateway.is_none());
}

#[test]
fn mapped_and_repeated_addresses_are_one() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 5];
    let message = proto::Workload {
        addresses: vec![vec![10, 244, 1, 5], mapped.to_vec()],
        ..pod()
    };
    assert_eq!(Workload::try_from(message).unwrap().addresses.len(), 1);
}

#[test]
fn wrong_workloads_are_refused_by_name_and_field() {
    type Spoil = fn(&mut proto::Workload);
    let table: &[(Spoil, &str)] = &[
        (|w| w.namespace.clear(), "namespace: empty"),
        (
            |w| w.namespace = "a/b".to_owned(),
            "namespace and service_account: namespace \"a/b\"",
        ),
        (
            |w| w.service_account = "a b".to_owned(),
            "service account \"a b\"",
        ),
        (
            |w| w.trust_domain = "Not A Domain".to_owned(),
            "trust_domain: trust domain",
        ),
        (
            |w| w.addresses.push(b"10.0.0.1".to_vec()),
            "addresses[1]: an address of 8 bytes",
        ),
        (
            |w| w.tunnel_protocol = 9,
            "tunnel_protocol: unknown value 9",
        ),
        (|w| w.status = 9, "status: unknown value 9"),
        (|w| w.network_mode = 9, "network_mode: unknown value 9"),
        (|w| w.workload_type = -1, "workload_type: unknown value -1"),
        (
            |w| w.authorization_policies.push("p".to_owned()),
            "authorization_policies[1]: \"p\" names no policy",
        ),
        (
            |w| {
                drop(
                    w.services
                        .insert("reviews".to_owned(), proto::PortList::default()),
                )
            },
            "services[\"reviews\"]: expected a key namespace/hostname",
        ),
        (
            |w| {
                w.services
                    .values_mut()
                    .for_each(|list| list.ports.push(port(80, 65536)))
            },
            ".ports[1].target_port: 65536 is no port",
        ),
        (
            |w| {
                w.services
                    .values_mut()
                    .for_each(|list| list.ports[0].service_port = 0)
            },
            ".ports[0].service_port: 0 is no port",
        ),
        (
            |w| w.waypoint = Some(gateway(None)),
            "waypoint: neither a hostname nor an address",
        ),
        (
            |w| {
                w.application_tunnel = Some(proto::ApplicationTunnel {
                    protocol: 0,
                    port: 70000,
                })
            },
            "application_tunnel.port: 70000 is no port",
        ),
        (
            |w| {
                let address = address(&[1, 2, 3], None);
                w.network_gateway = Some(gateway(Some(
                    proto::gateway_address::Destination::Address(address),
                )));
            },
            "network_gateway.address: an address of 3 bytes",
        ),
    ];
    for (spoil, expected) in table {
        let error = workload_refusal(*spoil);
        assert!(
            error.starts_with("workload Kubernetes//Pod/default/reviews-v1-abc: "),
            "{error}"
        );
        assert!(
            error.contains(expected),
            "{error:?} doesn't say {expected:?}"
        );
    }
    let error = workload_refusal(|w| w.uid.clear());
    assert!(
        error.contains("workload default/reviews-v1-abc without uid: uid: empty"),
        "{error}"
    );
}

#[test]
fn wrong_services_are_refused_by_name_and_field() {
    type Spoil = fn(&mut proto::Service);
    let table: &[(Spoil, &str)] = &[
        (|s| s.hostname.clear(), "hostname: empty"),
        (|s| s.namespace.clear(), "namespace: empty"),
        (
            |s| s.addresses.push(address(&[], None)),
            "addresses[1]: an address of 0 bytes",
        ),
        (
            |s| s.addresses.push(address(&[10, 0, 0, 0], Some(64))),
            "addresses[1]: a prefix of 64 bits",
        ),
        (
            |s| s.ports.push(port(70000, 1)),
            "ports[1].service_port: 70000 is no port",
        ),
        (|s| s.ip_families = 9, "ip_families: unknown value 9"),
        (|s| s.visibility = 9, "visibility: unknown value 9"),
        (
            |s| {
                s.weighted_waypoints
                    .push(proto::WeightedWaypoint::default())
            },
            "weighted_waypoints[0].destination: missing",
        ),
        (
            |s| {
                s.load_balancing = Some(proto::LoadBalancing {
                    routing_preference: vec![1, 0],
                    ..proto::LoadBalancing::default()
                });
            },
            "load_balancing.routing_preference[1]: no scope is named",
        ),
        (
            |s| {
                s.load_balancing = Some(proto::LoadBalancing {
                    mode: 9,
                    ..Default::default()
                })
            },
            "load_balancing.mode: unknown value 9",
        ),
        (
            |s| {
                s.load_balancing = Some(proto::LoadBalancing {
                    health_policy: 9,
                    ..Default::default()
                })
            },
            "load_balancing.health_policy: unknown value 9",
        ),
    ];
    for (spoil, expected) in table {
        let error = service_refusal(*spoil);
        assert!(error.starts_with("service "), "{error}");
        assert!(
            error.contains(expected),
            "{error:?} doesn't say {expected:?}"
        );
    }
}

#[test]
fn an_unknown_hint_is_no_reason_to_refuse() {
    let mut message = reviews();
    message.ports[0].app_protocol = 99;
    message.subject_alt_names = vec!["*.example.com".to_owned(), "spiffe://odd/path".to_owned()];
    let service = Service::try_from(message).unwrap();
    assert_eq!(service.ports[0].app_protocol, AppProtocol::Unknown);
    assert!(service.subject_alt_names.is_empty());
}

#[test]
fn a_gateway_without_a_port_takes_hbone_where_everybody_does() {
    use proto::gateway_address::Destination;
    let hostname = proto::NamespacedHostname {
        namespace: "default".to_owned(),
        hostname: "waypoint".to_owned(),
    };
    let mut message = reviews();
    message.waypoint = Some(proto::GatewayAddress {
        destination: Some(Destination::Hostname(hostname)),
        hbone_mtls_port: 0,
    });
    let waypoint = Service::try_from(message).unwrap().waypoint.unwrap();
    assert_eq!(waypoint.to_string(), "default/waypoint:15008");
}

#[test]
fn a_block_of_virtual_addresses_is_kept() {
    let mut message = reviews();
    message.addresses = vec![
        address(&[10, 96, 7, 9], Some(24)),
        address(&[10, 96, 0, 1], Some(32)),
    ];
    let vips: Vec<_> = Service::try_from(message).unwrap().vips;
    let vips: Vec<_> = vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["/10.96.7.0/24", "/10.96.0.1"]);
}

#[test]
fn an_address_of_a_kind_we_do_not_know_is_refused() {
    let error = super::address(proto::Address::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("neither a workload nor a service"),
        "{error}"
    );
}
