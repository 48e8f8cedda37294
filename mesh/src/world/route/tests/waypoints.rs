//! Waypoints: taken where named, shared by weight, never bypassed, never taken by themselves.

use std::collections::HashMap;

use super::*;
use crate::workload::{GatewayAddress, GatewayTarget, ServiceKey};

/// Entries for a waypoint pod behind a waypoint service.
const WAYPOINT: &str = "
- {uid: waypoint, namespace: default, addresses: [10.1.0.9, 'fd00::9'], serviceAccount: waypoint, services: {default/waypoint: [{servicePort: 15008, targetPort: 15008}]}}
services:
- {namespace: default, hostname: waypoint, addresses: [10.96.0.9], ports: [{servicePort: 15008, targetPort: 15008}]}
- namespace";

/// The mesh with the waypoint in it, used by whatever `of` is followed by.
fn mesh_with_waypoint(of: &str, waypoint: &str) -> World {
    mesh(&[
        ("services:\n- namespace", WAYPOINT.trim_start_matches('\n')),
        (of, &format!("{of}\n  waypoint: {waypoint}")),
    ])
}

const OF_SERVICE: &str = "hostname: httpbin.default.svc.cluster.local";
const OF_WORKLOAD: &str = "serviceAccount: httpbin";

#[test]
fn a_service_behind_a_waypoint() {
    let world = mesh_with_waypoint(OF_SERVICE, "{hostname: default/waypoint}");
    let expected = format!("waypoint 10.1.0.9:15008 for 10.96.0.2:80 to waypoint of {HTTPBIN}");
    goes(&world, "10.96.0.2:80", &expected);
    let expected = format!("waypoint [fd00::9]:15008 for [fd96::2]:80 to waypoint of {HTTPBIN}");
    goes(&world, "[fd96::2]:80", &expected);
    goes(
        &world,
        "10.1.0.2:8080",
        "hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin",
    );
    let own = words(route_from(&world, "waypoint", "10.96.0.2:80"));
    assert!(
        own.starts_with("hbone 10.1.0.2:15008"),
        "the waypoint came back to itself: {own}"
    );
}

#[test]
fn a_waypoint_named_by_address() {
    for address in ["10.96.0.9", "10.1.0.9"] {
        let world = mesh_with_waypoint(OF_SERVICE, &format!("{{address: {address}}}"));
        let expected = format!("waypoint 10.1.0.9:15008 for 10.96.0.2:80 to waypoint of {HTTPBIN}");
        goes(&world, "10.96.0.2:80", &expected);
        let own = words(route_from(&world, "waypoint", "10.96.0.2:80"));
        assert!(own.starts_with("hbone 10.1.0.2:15008"), "{own}");
    }
}

#[test]
fn a_workload_behind_a_waypoint() {
    let world = mesh_with_waypoint(OF_WORKLOAD, "{hostname: default/waypoint}");
    goes(
        &world,
        "10.1.0.2:8080",
        "waypoint 10.1.0.9:15008 for 10.1.0.2:8080 to waypoint",
    );
    let through_service = words(route(&world, "10.96.0.2:80"));
    assert!(
        through_service.starts_with("hbone 10.1.0.2:15008"),
        "{through_service}"
    );
}

#[test]
fn a_waypoint_is_never_bypassed() {
    let unknown = mesh_with_waypoint(OF_SERVICE, "{hostname: default/gone}");
    let error = words(route(&unknown, "10.96.0.2:80"));
    assert!(
        error.starts_with("error: waypoint default/gone:15008 of default/httpbin"),
        "{error}"
    );
    let down = WAYPOINT.replace("serviceAccount: waypoint", "status: UNHEALTHY");
    let down = mesh(&[
        ("services:\n- namespace", down.trim_start_matches('\n')),
        (
            OF_SERVICE,
            &format!("{OF_SERVICE}\n  waypoint: {{hostname: default/waypoint}}"),
        ),
    ]);
    let error = words(route(&down, "10.96.0.2:80"));
    assert!(
        error.contains("waypoint of default/httpbin") && error.contains("none of its 1"),
        "{error}"
    );
}

#[test]
fn waypoints_share_by_weight() {
    let mut world = mesh_with_waypoint(OF_SERVICE, "{hostname: default/gone}");
    let key = ServiceKey::new("default", HTTPBIN);
    let mut service = (**world.service(&key).unwrap()).clone();
    let weighted = |hostname, weight| crate::workload::WeightedGateway {
        gateway: GatewayAddress {
            target: GatewayTarget::Hostname(ServiceKey::new("default", hostname)),
            hbone_port: HBONE_PORT,
        },
        weight,
    };
    service.weighted_waypoints = vec![
        weighted("waypoint", 3),
        weighted("away", 1),
        weighted("never", 0),
    ];
    world.insert_service(service);
    let from = world
        .workloads()
        .find(|w| w.uid.as_str() == "sleep")
        .unwrap();
    let to = OrigDst::new("10.96.0.2:80".parse().unwrap());
    let mut rng = StdRng::seed_from_u64(3);
    let mut there = 0;
    for _ in 0..4000 {
        match world.route(from, to, &mut rng) {
            Ok(Route::Hbone {
                via_waypoint: true, ..
            }) => there += 1,
            Err(RouteError::UnknownWaypoint { waypoint, .. }) => {
                assert_eq!(waypoint, "default/away:15008");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        (2850..3150).contains(&there),
        "{there} of 4000 is not 3 of 4"
    );
}

/// Entries for further pods of the waypoint.
fn pods(count: u8) -> String {
    let one = |n: u8| {
        format!(
            "
- {{uid: waypoint-{n}, namespace: default, addresses: [10.1.1.{n}], serviceAccount: waypoint, services: {{default/waypoint: [{{servicePort: 15008, targetPort: 15008}}]}}}}"
        )
    };
    (0..count).map(one).collect()
}

/// Sends connections that stay; gives how many each pod then has.
fn send(world: &World, load: &mut HashMap<SocketAddr, usize>, count: usize) {
    let from = world
        .workloads()
        .find(|w| w.uid.as_str() == "sleep")
        .unwrap();
    let to = OrigDst::new("10.96.0.2:80".parse().unwrap());
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..count {
        let streams = |hop: SocketAddr| load.get(&hop).copied().unwrap_or_default();
        let Ok(Route::Hbone { next_hop, .. }) = world.route_by_load(from, to, &streams, &mut rng)
        else {
            panic!("no waypoint")
        };
        *load.entry(next_hop).or_default() += 1;
    }
}

#[test]
fn connections_that_stay_are_even_over_the_pods_of_a_waypoint() {
    let with_pods = |count| {
        let first = WAYPOINT.replacen("\nservices:", &format!("{}\nservices:", pods(count)), 1);
        mesh(&[
            ("services:\n- namespace", first.trim_start_matches('\n')),
            (
                OF_SERVICE,
                &format!("{OF_SERVICE}\n  waypoint: {{hostname: default/waypoint}}"),
            ),
        ])
    };
    let mut load = HashMap::new();
    send(&with_pods(2), &mut load, 300);
    assert_eq!(load.len(), 3);
    let spread = load.values().max().unwrap() - load.values().min().unwrap();
    assert!(spread <= 6, "{load:?}");
    // Two more pods: the next connections go to them above all, until all are even.
    send(&with_pods(4), &mut load, 200);
    let new: usize = ["10.1.1.2:15008", "10.1.1.3:15008"]
        .map(|hop| load[&hop.parse().unwrap()])
        .iter()
        .sum();
    assert!(new > 110, "{new} of 200 to the two new of five pods");
    send(&with_pods(4), &mut load, 300);
    let spread = load.values().max().unwrap() - load.values().min().unwrap();
    assert!(spread <= 8, "{load:?}");
}
