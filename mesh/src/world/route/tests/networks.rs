//! Endpoints in another network: reached through its gateway by the service's name, never directly.

use std::collections::BTreeMap;

use super::*;
use crate::address::Network;

/// A gateway of the network `west` at 10.9.0.1, by itself and as a service with a pod, and the
/// endpoints that httpbin has there, summed up as istiod does.
const WEST: &str = "
- {uid: gateway, namespace: istio-system, addresses: [10.9.0.1], network: west, serviceAccount: east-west}
- {uid: gateway-pod, namespace: istio-system, addresses: [10.9.0.2, 'fd09::2'], network: west, serviceAccount: gateway-pod, services: {istio-system/gateway: [{servicePort: 15010, targetPort: 15009}]}}
- uid: west/SplitHorizonWorkload/httpbin
  namespace: default
  network: west
  tunnelProtocol: HBONE
  capacity: 3
  networkGateway: {address: west/10.9.0.1, hboneMtlsPort: 15011}
  services: {default/httpbin.default.svc.cluster.local: [{servicePort: 80, targetPort: 8080}]}
services:
- {namespace: istio-system, hostname: gateway, addresses: [west/10.9.0.3], ports: [{servicePort: 15010, targetPort: 15009}]}
- namespace";

const NAMES: &str =
    "  subjectAltNames: ['spiffe://cluster.local/ns/default/sa/far']\n  addresses: [/10.96";

/// The two networks, with some text replaced.
fn networks(changes: &[(&str, &str)]) -> World {
    let mut west = WEST.trim_start_matches('\n').to_owned();
    let mut own = vec![("  addresses: [/10.96", NAMES)];
    for (from, to) in changes {
        if west.contains(from) {
            west = west.replace(from, to);
        } else {
            own.push((from, to));
        }
    }
    own.push(("services:\n- namespace", &west));
    mesh(&own)
}

/// Leaves httpbin no endpoint in the caller's own network.
const NONE_HERE: (&str, &str) = (
    "  serviceAccount: httpbin\n  services: {default/httpbin",
    "  serviceAccount: httpbin\n  services: {default/other",
);
const BY_ADDRESS: &str = "{address: west/10.9.0.1, hboneMtlsPort: 15011}";

fn beyond(world: &World, to: &str) -> (Vec<Identity>, Beyond) {
    match route(world, to) {
        Ok(Route::Hbone {
            expect,
            beyond: Some(beyond),
            ..
        }) => (expect, beyond),
        other => panic!("{other:?}"),
    }
}

fn identity(text: &str) -> Identity {
    format!("spiffe://cluster.local/ns/{text}").parse().unwrap()
}

#[test]
fn a_service_in_another_network_is_asked_of_its_gateway_by_name() {
    let world = networks(&[NONE_HERE]);
    let expected = format!("gateway 10.9.0.1:15011 for {HTTPBIN}:80 to gateway of {HTTPBIN}");
    goes(&world, "10.96.0.2:80", &expected);
    goes(&world, "[fd96::2]:80", &expected);
    let (gateway, beyond) = beyond(&world, "10.96.0.2:80");
    assert_eq!(gateway, [identity("istio-system/sa/east-west")]);
    assert_eq!(beyond.network, Network::new("west"));
    // Not the identity of what stands for all of them, which is nobody's.
    assert_eq!(beyond.expect, [identity("default/sa/far")]);
}

#[test]
fn a_gateway_is_found_by_its_service_and_host_name_too() {
    let by = |gateway| networks(&[NONE_HERE, (BY_ADDRESS, gateway)]);
    let through_pod =
        |ip: &str| format!("gateway {ip}:15009 for {HTTPBIN}:80 to gateway-pod of {HTTPBIN}");
    let at_service = by("{address: west/10.9.0.3, hboneMtlsPort: 15010}");
    goes(&at_service, "10.96.0.2:80", &through_pod("10.9.0.2"));
    let named = by("{hostname: istio-system/gateway, hboneMtlsPort: 15010}");
    goes(&named, "10.96.0.2:80", &through_pod("10.9.0.2"));
    // By name the caller's family counts.
    goes(&named, "[fd96::2]:80", &through_pod("[fd09::2]"));
    let (gateway, _) = beyond(&named, "10.96.0.2:80");
    assert_eq!(gateway, [identity("istio-system/sa/gateway-pod")]);
}

#[test]
fn endpoints_here_and_there_share_by_capacity_and_locality_decides_before() {
    let count = |world: &World| {
        let from = world
            .workloads()
            .find(|w| w.uid.as_str() == "sleep")
            .unwrap();
        let to = OrigDst::new("10.96.0.2:80".parse().unwrap());
        let mut rng = StdRng::seed_from_u64(5);
        let mut counts = BTreeMap::new();
        for _ in 0..4000 {
            let words = words(world.route(from, to, &mut rng));
            let way = words.split(' ').next().unwrap().to_owned();
            *counts.entry(way).or_insert(0) += 1;
        }
        counts
    };
    let both = count(&networks(&[]));
    assert!((2850..3150).contains(&both["gateway"]), "{both:?}");
    assert_eq!(both["gateway"] + both["hbone"], 4000);
    let near = "  loadBalancing: {mode: FAILOVER, routingPreference: [NETWORK]}\n  subjectAltNames";
    let near = networks(&[("  subjectAltNames", near)]);
    assert_eq!(count(&near)["hbone"], 4000);
    let sick = (
        "  serviceAccount: httpbin\n",
        "  serviceAccount: httpbin\n  status: UNHEALTHY\n",
    );
    let failed_over =
        "  loadBalancing: {mode: FAILOVER, routingPreference: [NETWORK]}\n  subjectAltNames";
    let failed_over = networks(&[sick, ("  subjectAltNames", failed_over)]);
    assert_eq!(count(&failed_over)["gateway"], 4000);
}

#[test]
fn an_address_of_another_network_is_never_called() {
    // Known by itself, at an address that this network may use for somebody else.
    let addressed = [
        NONE_HERE,
        (
            "  network: west\n  tunnelProtocol: HBONE",
            "  addresses: [10.1.0.77]\n  network: west\n  tunnelProtocol: HBONE\n  serviceAccount: remote",
        ),
    ];
    let world = networks(&addressed);
    let expected = format!("gateway 10.9.0.1:15011 for {HTTPBIN}:80 to gateway of {HTTPBIN}");
    goes(&world, "10.96.0.2:80", &expected);
    let (_, beyond) = beyond(&world, "10.96.0.2:80");
    let both = [identity("default/sa/far"), identity("default/sa/remote")];
    assert_eq!(beyond.expect, both);
    // What is at that address here is nobody that this network knows.
    goes(&world, "10.1.0.77:80", "plain 10.1.0.77:80");
    let without = networks(&[
        addressed[0],
        addressed[1],
        (&format!("  networkGateway: {BY_ADDRESS}\n"), ""),
    ]);
    let error = words(route(&without, "10.96.0.2:80"));
    assert!(error.contains("names no gateway"), "{error}");
}

#[test]
fn what_is_missing_on_the_way_is_named() {
    let error = |changes: &[(&str, &str)]| {
        let mut all = vec![NONE_HERE];
        all.extend(changes);
        words(route(&networks(&all), "10.96.0.2:80"))
    };
    let unknown = error(&[(BY_ADDRESS, "{address: west/10.9.0.99}")]);
    assert_eq!(
        unknown,
        "error: gateway west/10.9.0.99:15008 of the network \"west\" is unknown: it was removed, or is on its way"
    );
    let unnamed = error(&[(
        "  subjectAltNames: ['spiffe://cluster.local/ns/default/sa/far']\n",
        "",
    )]);
    assert!(unnamed.contains("but no subject_alt_names"), "{unnamed}");
    let no_port = error(&[(
        BY_ADDRESS,
        "{hostname: istio-system/gateway, hboneMtlsPort: 1}",
    )]);
    assert!(
        no_port.starts_with("error: gateway of the network \"west\": ")
            && no_port.ends_with("has no port 1"),
        "{no_port}"
    );
    let only_name = error(&[
        ("addresses: [10.9.0.1]", "hostname: lb.example.com"),
        (BY_ADDRESS, "{hostname: istio-system/lb.example.com}"),
    ]);
    assert!(only_name.contains("only a host name"), "{only_name}");
    let sick = ("  capacity: 3\n", "  capacity: 3\n  status: UNHEALTHY\n");
    assert!(error(&[sick]).contains("none of its 1 is healthy"));
}

#[test]
fn a_waypoint_in_another_network_is_found_by_the_service_it_is_for() {
    let entries = "
- uid: west/SplitHorizonWorkload/waypoint
  namespace: default
  network: west
  tunnelProtocol: HBONE
  networkGateway: {address: west/10.9.0.1, hboneMtlsPort: 15011}
  services: {default/waypoint: [{servicePort: 15008, targetPort: 15008}]}
services:
- {namespace: default, hostname: waypoint, ports: [{servicePort: 15008, targetPort: 15008}], subjectAltNames: ['spiffe://cluster.local/ns/default/sa/waypoint']}
- {namespace: istio-system";
    let waypoint = "  waypoint: {hostname: default/waypoint}\n";
    let changes = [
        (
            "services:\n- {namespace: istio-system",
            entries.trim_start_matches('\n'),
        ),
        (
            "  subjectAltNames: ['spiffe://cluster.local/ns/default/sa/far']\n",
            waypoint,
        ),
    ];
    let world = networks(&changes);
    let expected = format!("gateway 10.9.0.1:15011 for {HTTPBIN}:80 to gateway of {HTTPBIN}");
    goes(&world, "10.96.0.2:80", &expected);
    let (_, beyond) = beyond(&world, "10.96.0.2:80");
    assert_eq!(beyond.expect, [identity("default/sa/waypoint")]);
    // A single workload has no name that the gateway could be asked for.
    let of_workload = format!("  serviceAccount: httpbin\n{waypoint}");
    let changes = [changes[0], ("  serviceAccount: httpbin\n", &of_workload)];
    let error = words(route(&networks(&changes), "10.1.0.2:80"));
    assert!(error.contains("only services are reached there"), "{error}");
    let by_itself = "  waypoint: {address: west/10.9.0.1}\n  subjectAltNames";
    let error = words(route(
        &networks(&[("  subjectAltNames", by_itself)]),
        "10.96.0.2:80",
    ));
    assert!(
        error.contains("gateway is in the network \"west\": only services are reached there"),
        "{error}"
    );
}
