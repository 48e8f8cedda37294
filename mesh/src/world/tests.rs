//! The world: what is found where after each change, when it counts as changed, who may call out.

mod decisions;
mod drift;
mod speed;
mod through;

use super::*;
use crate::policy::{Action, Authorization, Rule, Scope, Source};
use crate::proto::workload as proto;
use crate::workload::Vip;

fn message(uid: &str, addresses: &[&str], services: &[&str]) -> proto::Workload {
    let bytes = |text: &&str| match text.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = proto::PortList { ports: Vec::new() };
    proto::Workload {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        namespace: "default".to_owned(),
        node: "n1".to_owned(),
        addresses: addresses.iter().map(bytes).collect(),
        services: services
            .iter()
            .map(|s| (format!("default/{s}"), ports.clone()))
            .collect(),
        ..proto::Workload::default()
    }
}

fn workload(uid: &str, addresses: &[&str], services: &[&str]) -> Workload {
    message(uid, addresses, services).try_into().unwrap()
}

fn service(hostname: &str, vips: &[&str]) -> Service {
    let message = proto::Service {
        namespace: "default".to_owned(),
        hostname: hostname.to_owned(),
        ..proto::Service::default()
    };
    let vip = |vip: &&str| Vip {
        network: Network::default(),
        block: vip.parse().unwrap(),
    };
    let mut service = Service::try_from(message).unwrap();
    service.vips = vips.iter().map(vip).collect();
    service
}

fn policy(name: &str, action: Action) -> Authorization {
    Authorization {
        name: name.parse().unwrap(),
        scope: Scope::Selector,
        action,
        rules: vec![Rule::default()],
        dry_run: false,
    }
}

fn synced() -> World {
    let mut world = World::new("n1");
    world.mark_synced(Synced {
        workloads: true,
        policies: true,
    });
    world
}

fn at(world: &World, ip: &str) -> Option<String> {
    let ip = ip.parse().unwrap();
    let found = world.workload_at(&Network::default(), ip);
    found.map(|workload| workload.uid.to_string())
}

fn serving(world: &World, hostname: &str) -> Vec<String> {
    let key = ServiceKey::new("default", hostname);
    let uids = world
        .endpoints(&key)
        .iter()
        .map(|e| e.workload.uid.to_string());
    let mut uids: Vec<_> = uids.collect();
    uids.sort();
    uids
}

#[test]
fn a_workload_that_changes_is_found_by_what_it_is_now() {
    let mut world = World::new("n1");
    world.insert_workload(workload("a", &["10.0.0.1", "fd00::1"], &["x", "y"]));
    assert_eq!(at(&world, "10.0.0.1").as_deref(), Some("a"));
    assert_eq!(
        at(&world, "::ffff:10.0.0.1").as_deref(),
        Some("a"),
        "mapped"
    );
    world.insert_workload(workload("a", &["10.0.0.2"], &["y", "z"]));
    assert_eq!(at(&world, "10.0.0.1"), None);
    assert_eq!(at(&world, "fd00::1"), None);
    assert_eq!(at(&world, "10.0.0.2").as_deref(), Some("a"));
    assert!(serving(&world, "x").is_empty());
    assert_eq!(serving(&world, "y"), ["a"]);
    assert_eq!(serving(&world, "z"), ["a"]);
    assert!(world.remove("a"));
    assert!(!world.remove("a"));
    assert_eq!(at(&world, "10.0.0.2"), None);
    assert!(
        world.services.is_empty(),
        "an entry without service and endpoints stayed"
    );
}

#[test]
fn an_address_in_reuse_is_the_newer_pods() {
    let mut world = World::new("n1");
    world.insert_workload(workload("c//Pod/default/old", &["10.0.0.1"], &[]));
    world.insert_workload(workload("c//Pod/default/new", &["10.0.0.1"], &[]));
    world.insert_workload(workload(
        "c/networking.istio.io/WorkloadEntry/default/e",
        &["10.0.0.1"],
        &[],
    ));
    assert_eq!(
        at(&world, "10.0.0.1").as_deref(),
        Some("c//Pod/default/new")
    );
    assert!(world.remove("c//Pod/default/old"));
    assert_eq!(
        at(&world, "10.0.0.1").as_deref(),
        Some("c//Pod/default/new")
    );
    assert!(world.remove("c//Pod/default/new"));
    assert!(at(&world, "10.0.0.1").unwrap().ends_with("/e"));
}

#[test]
fn an_address_means_another_workload_in_another_network() {
    let mut world = World::new("n1");
    let far = proto::Workload {
        network: "far".to_owned(),
        ..message("far", &["10.0.0.1"], &[])
    };
    world.insert_workload(far.try_into().unwrap());
    assert_eq!(at(&world, "10.0.0.1"), None);
    let found = world.workload_at(&Network::new("far"), "10.0.0.1".parse().unwrap());
    assert_eq!(found.unwrap().uid.as_str(), "far");
}

#[test]
fn a_host_address_is_nobodys() {
    let mut world = World::new("n1");
    let host = proto::Workload {
        network_mode: proto::NetworkMode::HostNetwork.into(),
        ..message("host", &["192.168.0.1"], &[])
    };
    world.insert_workload(host.try_into().unwrap());
    assert_eq!(at(&world, "192.168.0.1"), None);
    assert!(world.remove("host"));
}

#[test]
fn a_pod_is_found_by_name_on_its_node() {
    let mut world = World::new("n2");
    for (uid, node) in [("c1//Pod/default/p", "n1"), ("c2//Pod/default/p", "n2")] {
        let pod = proto::Workload {
            name: "p".to_owned(),
            node: node.to_owned(),
            ..message(uid, &[], &[])
        };
        world.insert_workload(pod.try_into().unwrap());
    }
    assert_eq!(
        world.pod("default", "p").unwrap().uid.as_str(),
        "c2//Pod/default/p"
    );
    assert!(world.remove("c2//Pod/default/p"));
    assert_eq!(
        world.pod("default", "p").unwrap().uid.as_str(),
        "c1//Pod/default/p"
    );
    assert!(world.pod("other", "p").is_none());
}

#[test]
fn endpoints_may_come_before_their_service() {
    let mut world = World::new("n1");
    let key = ServiceKey::new("default", "x");
    world.insert_workload(workload("a", &["10.0.0.1"], &["x"]));
    assert!(world.service(&key).is_none());
    assert_eq!(world.services().count(), 0);
    world.insert_service(service("x", &["10.96.0.1/32"]));
    assert_eq!(serving(&world, "x"), ["a"]);
    assert!(world.remove("default/x"));
    assert!(world.service(&key).is_none());
    world.insert_service(service("x", &[]));
    assert_eq!(
        serving(&world, "x"),
        ["a"],
        "the endpoints were forgotten with the service"
    );
}

#[test]
fn a_service_that_changes_leaves_its_old_addresses() {
    let mut world = World::new("n1");
    let found = |world: &World, ip: &str| {
        world
            .service_at(&Network::default(), ip.parse().unwrap(), "default")
            .is_some()
    };
    world.insert_service(service("x", &["10.96.0.1/32", "fd96::1/128"]));
    world.insert_service(service("x", &["10.96.0.2/32"]));
    assert!(!found(&world, "10.96.0.1"));
    assert!(!found(&world, "fd96::1"));
    assert!(found(&world, "10.96.0.2"));
    assert!(world.service_named("x", "anywhere").is_some());
    assert!(world.remove("default/x"));
    assert!(!found(&world, "10.96.0.2"));
    assert!(world.service_named("x", "anywhere").is_none());
    assert!(world.services_by_hostname.is_empty());
}

#[test]
fn only_a_change_is_a_change() {
    let mut world = World::new("n1");
    let mut last = world.versions();
    let mut changed = |world: &World| {
        let now = world.versions();
        let changed = (now.all > last.all, now.authorization > last.authorization);
        last = now;
        changed
    };
    let insert =
        |world: &mut World, m: proto::Workload| world.insert_workload(m.try_into().unwrap());
    insert(&mut world, message("a", &["10.0.0.1"], &["x"]));
    assert_eq!(changed(&world), (true, true));
    insert(&mut world, message("a", &["10.0.0.1"], &["x"]));
    assert_eq!(changed(&world), (false, false), "the same again");
    insert(&mut world, message("a", &["10.0.0.2"], &["x"]));
    assert_eq!(changed(&world), (true, false), "an address decides nothing");
    let selected = proto::Workload {
        authorization_policies: vec!["default/p".to_owned()],
        ..message("a", &["10.0.0.2"], &["x"])
    };
    insert(&mut world, selected);
    assert_eq!(changed(&world), (true, true), "a policy selects it now");
    world.insert_service(service("x", &[]));
    assert_eq!(changed(&world), (true, false));
    world.insert_service(service("x", &[]));
    assert_eq!(changed(&world), (false, false));
    world.insert_policy(policy("default/p", Action::Deny));
    assert_eq!(changed(&world), (true, true));
    world.insert_policy(policy("default/p", Action::Deny));
    assert_eq!(changed(&world), (false, false));
    assert!(!world.remove_policy(&"default/q".parse().unwrap()));
    assert_eq!(changed(&world), (false, false));
    assert!(world.remove_policy(&"default/p".parse().unwrap()));
    assert_eq!(changed(&world), (true, true));
    world.mark_synced(Synced {
        workloads: true,
        policies: false,
    });
    assert_eq!(changed(&world), (true, true));
    assert!(!world.synced().all());
}
