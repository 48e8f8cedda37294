//! Where connections go, told as small meshes.

mod addresses;
mod networks;
mod waypoints;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::file::Snapshot;

/// Sleep, and an enrolled pair of httpbin pods behind a service, both families.
const MESH: &str = "
workloads:
- {uid: sleep, name: sleep, namespace: default, addresses: [10.1.0.1, 'fd00::1'], tunnelProtocol: HBONE, serviceAccount: sleep, node: n1}
- uid: httpbin
  namespace: default
  addresses: [10.1.0.2, 'fd00::2']
  tunnelProtocol: HBONE
  serviceAccount: httpbin
  services: {default/httpbin.default.svc.cluster.local: [{servicePort: 80, targetPort: 8080}]}
services:
- namespace: default
  hostname: httpbin.default.svc.cluster.local
  addresses: [/10.96.0.2, 'fd96::2']
  ports: [{servicePort: 80, targetPort: 8080}]
";

/// The mesh with some text replaced, at the places where it matters to the test.
fn mesh(changes: &[(&str, &str)]) -> World {
    let mut text = MESH.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} isn't there to be replaced");
        text = text.replace(from, to);
    }
    Snapshot::parse(&text).unwrap().into_world("n1")
}

/// The mesh with more entries of the same kind beside the first.
fn with_workloads(more: &str, changes: &[(&str, &str)]) -> World {
    let more = format!("{}\nservices:", more.trim_end());
    let mut changes = changes.to_vec();
    changes.push(("services:\n- namespace", ""));
    let last = changes.len() - 1;
    let more = format!("{more}\n- namespace");
    changes[last].1 = &more;
    mesh(&changes)
}

fn route_from(world: &World, uid: &str, to: &str) -> Result<Route, RouteError> {
    let from = world.workloads().find(|w| w.uid.as_str() == uid).unwrap();
    let to = OrigDst::new(to.parse().unwrap());
    world.route(from, to, &mut StdRng::seed_from_u64(3))
}

fn route(world: &World, to: &str) -> Result<Route, RouteError> {
    route_from(world, "sleep", to)
}

/// A route in words: how, where, for what, to whom.
fn words(route: Result<Route, RouteError>) -> String {
    match route {
        Err(error) => format!("error: {error}"),
        Ok(Route::Hbone {
            next_hop,
            authority,
            destination,
            service,
            via_waypoint,
            expect,
            beyond,
        }) => {
            let via = match (via_waypoint, &beyond) {
                (false, None) => "hbone",
                (true, None) => "waypoint",
                (false, Some(_)) => "gateway",
                (true, Some(_)) => panic!("a gateway is no waypoint"),
            };
            let service = service.map_or(String::new(), |s| format!(" of {}", s.key.hostname));
            assert!(expect.contains(&destination.identity));
            format!(
                "{via} {next_hop} for {authority} to {}{service}",
                destination.uid
            )
        }
        Ok(Route::Plain {
            to,
            destination,
            service,
        }) => {
            let whom = destination.map_or(String::new(), |w| format!(" to {}", w.uid));
            let service = service.map_or(String::new(), |s| format!(" of {}", s.key.hostname));
            format!("plain {to}{whom}{service}")
        }
    }
}

#[track_caller]
fn goes(world: &World, to: &str, expected: &str) {
    assert_eq!(words(route(world, to)), expected, "from sleep to {to}");
}

const HTTPBIN: &str = "httpbin.default.svc.cluster.local";

#[test]
fn a_service_is_an_endpoint_over_hbone() {
    let world = mesh(&[]);
    let expected = format!("hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin of {HTTPBIN}");
    goes(&world, "10.96.0.2:80", &expected);
    goes(&world, "[::ffff:10.96.0.2]:80", &expected);
    let Ok(Route::Hbone { expect, .. }) = route(&world, "10.96.0.2:80") else {
        panic!("no tunnel");
    };
    assert_eq!(
        expect,
        ["spiffe://cluster.local/ns/default/sa/httpbin"
            .parse()
            .unwrap()]
    );
}

#[test]
fn a_pod_is_itself() {
    let world = mesh(&[]);
    goes(
        &world,
        "10.1.0.2:1234",
        "hbone 10.1.0.2:15008 for 10.1.0.2:1234 to httpbin",
    );
    goes(
        &world,
        "[fd00::2]:1234",
        "hbone [fd00::2]:15008 for [fd00::2]:1234 to httpbin",
    );
}

#[test]
fn who_is_not_enrolled_is_called_plainly() {
    let world = mesh(&[(
        "tunnelProtocol: HBONE\n  serviceAccount: httpbin",
        "serviceAccount: httpbin",
    )]);
    goes(&world, "10.1.0.2:1234", "plain 10.1.0.2:1234 to httpbin");
    goes(
        &world,
        "10.96.0.2:80",
        &format!("plain 10.1.0.2:8080 to httpbin of {HTTPBIN}"),
    );
}

#[test]
fn the_unknown_is_passed_through() {
    goes(&mesh(&[]), "93.184.216.34:443", "plain 93.184.216.34:443");
}

#[test]
fn nothing_goes_anywhere_before_the_first_sync() {
    let mut world = World::new("n1");
    let from = mesh(&[])
        .workload_at(&Default::default(), "10.1.0.1".parse().unwrap())
        .unwrap()
        .clone();
    world.insert_workload((*from).clone());
    let to = OrigDst::new("93.184.216.34:443".parse().unwrap());
    let found = world.route(&from, to, &mut StdRng::seed_from_u64(3));
    assert_eq!(found, Err(RouteError::NotSynced));
}

#[test]
fn a_service_that_cannot_take_the_call_is_an_error() {
    let words_of = |world: &World| words(route(world, "10.96.0.2:80"));
    let none = mesh(&[(
        "  services: {default/httpbin.default.svc",
        "  services: {default/other.default.svc",
    )]);
    assert!(
        words_of(&none).ends_with("has no endpoint for port 80: it has none"),
        "{}",
        words_of(&none)
    );
    let sick = mesh(&[(
        "serviceAccount: httpbin",
        "serviceAccount: httpbin\n  status: UNHEALTHY",
    )]);
    assert!(
        words_of(&sick).contains("none of its 1 is healthy"),
        "{}",
        words_of(&sick)
    );
    let far = mesh(&[(
        "serviceAccount: httpbin",
        "serviceAccount: httpbin\n  network: other",
    )]);
    assert!(
        words_of(&far).contains("in other networks, and the control plane names no gateway"),
        "{}",
        words_of(&far)
    );
    assert!(words(route(&mesh(&[]), "10.96.0.2:81")).ends_with("has no port 81"));
}

#[test]
fn unhealthy_endpoints_count_where_the_service_says_so() {
    let world = mesh(&[
        (
            "serviceAccount: httpbin",
            "serviceAccount: httpbin\n  status: UNHEALTHY",
        ),
        (
            "  addresses: [/10.96",
            "  loadBalancing: {healthPolicy: ALLOW_ALL}\n  addresses: [/10.96",
        ),
    ]);
    goes(
        &world,
        "10.96.0.2:80",
        &format!("hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin of {HTTPBIN}"),
    );
}

#[test]
fn an_endpoint_in_another_network_is_not_chosen_while_there_is_one_here() {
    let far = "
- {uid: far, namespace: default, addresses: [10.1.0.3], network: other, services: {default/httpbin.default.svc.cluster.local: [{servicePort: 80, targetPort: 8080}]}}";
    let world = with_workloads(far, &[]);
    for _ in 0..20 {
        goes(
            &world,
            "10.96.0.2:80",
            &format!("hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin of {HTTPBIN}"),
        );
    }
}

#[test]
fn each_endpoint_has_its_own_port() {
    let named = mesh(&[
        (
            "  ports: [{servicePort: 80, targetPort: 8080}]",
            "  ports: [{servicePort: 80, targetPort: 0}]",
        ),
        (
            "cluster.local: [{servicePort: 80, targetPort: 8080}]",
            "cluster.local: [{servicePort: 80, targetPort: 9090}]",
        ),
    ]);
    goes(
        &named,
        "10.96.0.2:80",
        &format!("hbone 10.1.0.2:15008 for 10.1.0.2:9090 to httpbin of {HTTPBIN}"),
    );
    let its_own = mesh(&[(
        "cluster.local: [{servicePort: 80, targetPort: 8080}]",
        "cluster.local: [{servicePort: 80, targetPort: 7}]",
    )]);
    goes(
        &its_own,
        "10.96.0.2:80",
        &format!("hbone 10.1.0.2:15008 for 10.1.0.2:7 to httpbin of {HTTPBIN}"),
    );
    let the_services = mesh(&[(
        "cluster.local: [{servicePort: 80, targetPort: 8080}]",
        "cluster.local: []",
    )]);
    goes(
        &the_services,
        "10.96.0.2:80",
        &format!("hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin of {HTTPBIN}"),
    );
    let nobodys = mesh(&[
        (
            "  ports: [{servicePort: 80, targetPort: 8080}]",
            "  ports: [{servicePort: 80, targetPort: 0}]",
        ),
        (
            "cluster.local: [{servicePort: 80, targetPort: 8080}]",
            "cluster.local: []",
        ),
    ]);
    assert!(words(route(&nobodys, "10.96.0.2:80")).contains("serves the port"));
}

#[test]
fn passthrough_is_the_original_destination() {
    let world = mesh(&[(
        "  addresses: [/10.96",
        "  loadBalancing: {mode: PASSTHROUGH}\n  addresses: [/10.96",
    )]);
    goes(
        &world,
        "10.96.0.2:80",
        &format!("plain 10.96.0.2:80 of {HTTPBIN}"),
    );
}

#[test]
fn a_private_service_is_only_seen_from_its_namespace() {
    let elsewhere = "
- {uid: away, namespace: other, addresses: [10.1.0.7], tunnelProtocol: HBONE}";
    let private = [(
        "  addresses: [/10.96",
        "  visibility: NAMESPACE\n  addresses: [/10.96",
    )];
    let world = with_workloads(elsewhere, &private);
    assert!(words(route(&world, "10.96.0.2:80")).starts_with("hbone"));
    assert_eq!(
        words(route_from(&world, "away", "10.96.0.2:80")),
        "plain 10.96.0.2:80"
    );
}

#[test]
fn a_node_address_is_nobodys_but_serves_as_an_endpoint() {
    let world = mesh(&[(
        "tunnelProtocol: HBONE\n  serviceAccount: httpbin",
        "networkMode: HOST_NETWORK\n  serviceAccount: httpbin",
    )]);
    goes(&world, "10.1.0.2:1234", "plain 10.1.0.2:1234");
    goes(
        &world,
        "10.96.0.2:80",
        &format!("plain 10.1.0.2:8080 to httpbin of {HTTPBIN}"),
    );
}

#[test]
fn a_workload_of_only_a_host_name_is_a_clear_error() {
    let world = mesh(&[(
        "addresses: [10.1.0.2, 'fd00::2']",
        "hostname: httpbin.example.com",
    )]);
    let error = words(route(&world, "10.96.0.2:80"));
    assert!(
        error.contains("workload httpbin has no address, only a host name"),
        "{error}"
    );
}

#[test]
fn an_endpoint_with_an_address_is_taken_before_one_with_only_a_name() {
    let named = "
- {uid: named, namespace: default, hostname: h.example.com, services: {default/httpbin.default.svc.cluster.local: [{servicePort: 80, targetPort: 8080}]}}";
    let world = with_workloads(named, &[]);
    for _ in 0..20 {
        assert!(words(route(&world, "10.96.0.2:80")).starts_with("hbone 10.1.0.2"));
    }
}

#[test]
fn a_call_to_oneself_is_a_call() {
    let world = mesh(&[]);
    let own = words(route_from(&world, "httpbin", "10.96.0.2:80"));
    assert_eq!(
        own,
        format!("hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin of {HTTPBIN}")
    );
}

#[test]
fn a_service_may_name_further_identities() {
    let world = mesh(&[(
        "  addresses: [/10.96",
        "  subjectAltNames: ['spiffe://td/ns/a/sa/b', www.example.com]\n  addresses: [/10.96",
    )]);
    let Ok(Route::Hbone { expect, .. }) = route(&world, "10.96.0.2:80") else {
        panic!("no tunnel");
    };
    assert_eq!(expect.len(), 2);
    assert!(expect.contains(&"spiffe://td/ns/a/sa/b".parse().unwrap()));
}
