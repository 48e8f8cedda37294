//! Who may come to a workload behind a waypoint: anybody while one way leads round it, nobody but
//! the waypoint once none does.

use super::*;
use crate::file::Snapshot;
use crate::policy::Match;
use crate::policy::{Clause, StringMatch};

/// A pod behind a service, both behind a waypoint for all traffic, ingress gateways' too.
const MESH: &str = "
workloads:
- {uid: sleep, name: sleep, namespace: default, addresses: [10.1.0.1], serviceAccount: sleep}
- {uid: way, namespace: default, addresses: [10.1.0.9], serviceAccount: way, services: {default/way: [{servicePort: 15008, targetPort: 15008}]}}
- uid: httpbin
  namespace: default
  addresses: [10.1.0.2]
  tunnelProtocol: HBONE
  serviceAccount: httpbin
  waypoint: {hostname: default/way}
  services: {default/httpbin: [{servicePort: 80, targetPort: 8080}]}
services:
- {namespace: default, hostname: way, addresses: [10.96.0.9], ports: [{servicePort: 15008, targetPort: 15008}]}
- {namespace: default, hostname: httpbin, addresses: [10.96.0.2], ports: [{servicePort: 80, targetPort: 8080}], waypoint: {hostname: default/way}, ingressUseWaypoint: true}
";

fn mesh(changes: &[(&str, &str)]) -> World {
    let mut text = MESH.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} isn't there to be replaced");
        text = text.replace(from, to);
    }
    Snapshot::parse(&text).unwrap().into_world("n1")
}

/// What becomes of a call to httpbin from this service account, or from nobody.
fn call(world: &World, from: Option<&str>) -> Result<Permit, Denied> {
    let identity = |account| {
        format!("spiffe://cluster.local/ns/default/sa/{account}")
            .parse()
            .unwrap()
    };
    let connection = Inbound {
        source: Source {
            ip: "10.1.0.1".parse().unwrap(),
            identity: from.map(identity),
        },
        destination: "10.1.0.2:8080".parse().unwrap(),
    };
    let httpbin = world.workload(&Uid::new("httpbin")).unwrap();
    world.authorize(httpbin, &connection)
}

#[test]
fn nothing_goes_round_a_waypoint_that_every_way_leads_through() {
    let world = mesh(&[]);
    assert!(call(&world, Some("way")).is_ok());
    for from in [Some("sleep"), Some("httpbin"), None] {
        let denied = call(&world, from).unwrap_err();
        assert_eq!(
            denied.reason,
            Reason::RoundWaypoint("default/way:15008".to_owned())
        );
        assert!(!denied.is_pending());
    }
}

#[test]
fn a_way_that_leads_round_by_configuration_is_open() {
    for (what, by) in [
        ("  waypoint: {hostname: default/way}\n", ""),
        (", waypoint: {hostname: default/way}, ingress", ", ingress"),
        (", ingressUseWaypoint: true", ""),
    ] {
        assert!(
            call(&mesh(&[(what, by)]), Some("sleep")).is_ok(),
            "without {what}"
        );
    }
    let without_services = mesh(&[(
        "  services: {default/httpbin: [{servicePort: 80, targetPort: 8080}]}\n",
        "",
    )]);
    assert!(call(&without_services, Some("sleep")).is_err());
    assert!(call(&without_services, Some("way")).is_ok());
}

#[test]
fn a_waypoint_by_address_is_known_by_its_pods() {
    for address in ["10.96.0.9", "10.1.0.9"] {
        let world = mesh(&[(
            "{hostname: default/way}",
            &format!("{{address: {address}}}"),
        )]);
        assert!(call(&world, Some("way")).is_ok(), "{address}");
        assert!(call(&world, Some("sleep")).is_err(), "{address}");
    }
}

#[test]
fn while_no_pod_of_the_waypoint_is_known_nobody_is_let_in_and_nobody_thrown_out() {
    let gone = "- {uid: way, namespace: default, addresses: [10.1.0.9], serviceAccount: way, services: {default/way: [{servicePort: 15008, targetPort: 15008}]}}\n";
    let denied = call(&mesh(&[(gone, "")]), Some("way")).unwrap_err();
    assert!(denied.is_pending(), "{denied}");
    assert!(denied.to_string().contains("no pod is known"), "{denied}");
    let unready = mesh(&[(
        "serviceAccount: way,",
        "serviceAccount: way, status: UNHEALTHY,",
    )]);
    assert!(call(&unready, Some("way")).is_ok());
}

#[test]
fn policies_see_the_waypoint_as_the_source() {
    let mut world = mesh(&[]);
    let only = |account: &str| Authorization {
        name: "default/only".parse().unwrap(),
        scope: Scope::Namespace,
        action: Action::Allow,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    principals: vec![StringMatch::Exact(
                        format!("cluster.local/ns/default/sa/{account}").into(),
                    )],
                    ..Match::default()
                }],
            }],
        }],
        dry_run: false,
    };
    world.insert_policy(only("way"));
    assert_eq!(
        call(&world, Some("way")).unwrap().by(),
        &DecidedBy::Policy("default/only".parse().unwrap())
    );
    world.insert_policy(only("sleep"));
    assert_eq!(
        call(&world, Some("way")).unwrap_err().reason,
        Reason::NotAllowed
    );
    let denied = call(&world, Some("sleep")).unwrap_err();
    assert!(
        matches!(denied.reason, Reason::RoundWaypoint(_)),
        "{denied}"
    );
}

#[test]
fn a_requirement_that_comes_or_goes_is_a_change_of_access() {
    let mut world = mesh(&[(", ingressUseWaypoint: true", "")]);
    let key = ServiceKey::new("default", "httpbin");
    let mut required = (**world.service(&key).unwrap()).clone();
    required.ingress_use_waypoint = true;
    for change in [required.clone(), {
        required.waypoint = None;
        required
    }] {
        let before = world.versions();
        world.insert_service(change.clone());
        assert_ne!(world.versions().authorization, before.authorization);
        let after = world.versions();
        world.insert_service(change);
        assert_eq!(world.versions(), after);
    }
    let mut other = (**world.workload(&Uid::new("httpbin")).unwrap()).clone();
    other.waypoint = None;
    let before = world.versions();
    world.insert_workload(other);
    assert_ne!(world.versions().authorization, before.authorization);
}
