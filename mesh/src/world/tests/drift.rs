//! After any sequence of changes the indices say what a fresh world says that was only told the
//! final state.

use proptest::prelude::*;

use super::*;

/// One change.
#[derive(Debug, Clone)]
enum Change {
    Workload {
        name: u8,
        address: u8,
        services: Vec<u8>,
        host: bool,
    },
    RemoveWorkload(u8),
    Service {
        name: u8,
        vip: u8,
        length: u8,
    },
    RemoveService(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let services = prop::collection::vec(0..4_u8, 0..3);
    prop_oneof![
        4 => (0..6_u8, 0..4_u8, services, prop::bool::weighted(0.2)).prop_map(
            |(name, address, services, host)| Change::Workload { name, address, services, host }
        ),
        2 => (0..6_u8).prop_map(Change::RemoveWorkload),
        2 => (0..4_u8, 0..4_u8, 29..=32_u8)
            .prop_map(|(name, vip, length)| Change::Service { name, vip, length }),
        1 => (0..4_u8).prop_map(Change::RemoveService),
    ]
}

fn apply(world: &mut World, change: &Change) {
    match change {
        Change::Workload {
            name,
            address,
            services,
            host,
        } => {
            let services: Vec<_> = services.iter().map(|s| format!("s{s}")).collect();
            let services: Vec<_> = services.iter().map(|s| &**s).collect();
            let mut workload = workload(
                &format!("w{name}"),
                &[&*format!("10.0.0.{address}")],
                &services,
            );
            if *host {
                workload.network_mode = NetworkMode::HostNetwork;
            }
            world.insert_workload(workload);
        }
        Change::RemoveWorkload(name) => {
            world.remove(&format!("w{name}"));
        }
        Change::Service { name, vip, length } => {
            let vip = format!("10.96.0.{}/{length}", vip * 2);
            world.insert_service(service(&format!("s{name}"), &[&*vip]));
        }
        Change::RemoveService(name) => {
            world.remove(&format!("default/s{name}"));
        }
    }
}

/// Everything that can be asked, as text; addresses in reuse as a set, for their order is history.
fn everything(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for i in 0..8_u8 {
        let key = NetworkIp::new(Network::default(), IpAddr::from([10, 0, 0, i]));
        let mut uids = world.by_address.get(&key).cloned().unwrap_or_default();
        uids.sort();
        all.push(format!("{key}: {uids:?}"));
        let vip = IpAddr::from([10, 96, 0, i]);
        let found = world
            .service_at(&Network::default(), vip, "default")
            .map(|s| s.key.clone());
        all.push(format!("{vip}: {found:?}"));
        let hostname = format!("s{i}");
        all.push(format!("{hostname}: {:?}", serving(world, &hostname)));
        all.push(format!(
            "{:?}",
            world.service_named(&hostname, "default").map(|s| &s.vips)
        ));
        all.push(format!(
            "{:?}",
            world.pod("default", &format!("w{i}")).map(|w| &w.uid)
        ));
    }
    all.push(format!(
        "{} {}",
        world.workloads().len(),
        world.services.len()
    ));
    all
}

proptest! {
    #[test]
    fn indices_never_drift(changes in prop::collection::vec(change(), 0..60)) {
        let mut world = World::new("n1");
        for change in &changes {
            apply(&mut world, change);
        }
        let mut fresh = World::new("n1");
        for workload in world.workloads() {
            fresh.insert_workload((**workload).clone());
        }
        for service in world.services() {
            fresh.insert_service((**service).clone());
        }
        prop_assert_eq!(everything(&world), everything(&fresh));
        let uids: Vec<_> = world.workloads().map(|w| w.uid.to_string()).collect();
        let keys: Vec<_> = world.services().map(|s| s.key.to_string()).collect();
        for name in uids.iter().chain(&keys) {
            prop_assert!(world.remove(name));
        }
        prop_assert_eq!(everything(&world), everything(&World::new("n1")));
        prop_assert!(world.by_address.is_empty() && world.by_pod.is_empty());
    }
}
