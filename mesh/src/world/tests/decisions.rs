//! Decisions over connections: by what is known now, held while something is missing.

use std::time::Duration;

use super::*;

pub(super) fn plaintext() -> Inbound {
    Inbound {
        source: Source {
            ip: "10.0.0.9".parse().unwrap(),
            identity: None,
        },
        destination: "10.0.0.1:80".parse().unwrap(),
    }
}

fn outbound(world: &World, from: &Workload, to: &str) -> Result<Permit, Reason> {
    let to = OrigDst::new(to.parse().unwrap());
    world
        .permit_outbound(from, to)
        .map_err(|denied| denied.reason)
}

#[test]
fn nobody_is_let_in_before_policies_are_here() {
    let mut world = World::new("n1");
    let to = workload("a", &["10.0.0.1"], &[]);
    world.insert_workload(to.clone());
    world.mark_synced(Synced {
        workloads: true,
        policies: false,
    });
    let denied = world.authorize(&to, &plaintext()).unwrap_err();
    assert!(denied.is_pending() && denied.reason == Reason::NotSynced);
    world.mark_synced(Synced {
        workloads: false,
        policies: true,
    });
    assert_eq!(
        world.authorize(&to, &plaintext()).unwrap().by(),
        &DecidedBy::Default
    );
}

/// The gap of the peer: there, a policy that newly selects a workload spares its open connections.
#[test]
fn a_decision_is_about_the_workload_as_it_is_now() {
    let mut world = synced();
    let looked_up_earlier = workload("a", &["10.0.0.1"], &[]);
    world.insert_workload(looked_up_earlier.clone());
    world.insert_policy(policy("default/p", Action::Deny));
    assert!(world.authorize(&looked_up_earlier, &plaintext()).is_ok());
    let selected = proto::Workload {
        authorization_policies: vec!["default/p".to_owned()],
        ..message("a", &["10.0.0.1"], &[])
    };
    world.insert_workload(selected.try_into().unwrap());
    let denied = world
        .authorize(&looked_up_earlier, &plaintext())
        .unwrap_err();
    assert_eq!(denied.policy().unwrap().as_str(), "default/p");
    assert_eq!(denied.to_string(), "explicitly denied by default/p");
}

#[test]
fn pods_of_this_node_may_call_out() {
    let world = synced();
    let from = workload("a", &["10.0.0.1", "fd00::1"], &[]);
    let permit = outbound(&world, &from, "93.184.216.34:443").unwrap();
    assert_eq!(permit.by(), &DecidedBy::Outbound);
    let to_another_pods_hbone = outbound(&world, &from, "10.0.0.2:15008");
    assert!(to_another_pods_hbone.is_ok());
    assert!(
        outbound(&world, &from, "10.0.0.1:80").is_ok(),
        "itself is no loop"
    );
}

#[test]
fn the_proxy_is_not_called_through_itself() {
    let world = synced();
    let from = workload("a", &["10.0.0.1", "fd00::1"], &[]);
    for port in [15001, 15006, 15008] {
        for ip in [
            "10.0.0.1",
            "[fd00::1]",
            "127.0.0.1",
            "[::1]",
            "[::ffff:10.0.0.1]",
        ] {
            let found = outbound(&world, &from, &format!("{ip}:{port}"));
            assert_eq!(found, Err(Reason::Loop(port)), "{ip}:{port}");
        }
    }
}

#[test]
fn others_may_not_call_out_from_here() {
    let world = synced();
    let away = proto::Workload {
        node: "n2".to_owned(),
        ..message("a", &["10.0.0.1"], &[])
    };
    let found = outbound(&world, &away.try_into().unwrap(), "10.0.0.2:80");
    let Err(Reason::NotLocal { workload, node }) = found else {
        panic!("{found:?}");
    };
    assert_eq!((&*workload, &*node), ("a", "n2"));
    let host = proto::Workload {
        network_mode: proto::NetworkMode::HostNetwork.into(),
        ..message("a", &["10.0.0.1"], &[])
    };
    let found = outbound(&world, &host.try_into().unwrap(), "10.0.0.2:80");
    assert_eq!(found, Err(Reason::HostNetwork("a".to_owned())));
}

#[tokio::test]
async fn a_held_connection_is_decided_when_its_policy_comes() {
    let shared = SharedWorld::new(World::new("n1"));
    let selected = proto::Workload {
        authorization_policies: vec!["default/p".to_owned()],
        ..message("a", &["10.0.0.1"], &[])
    };
    let to: Workload = selected.try_into().unwrap();
    shared.update(|world| world.insert_workload(to.clone()));
    let held = tokio::spawn({
        let (shared, to) = (shared.clone(), to.clone());
        async move {
            shared
                .authorize(&to, &plaintext(), Duration::from_secs(60))
                .await
        }
    });
    shared.mark_synced(Synced {
        workloads: true,
        policies: true,
    });
    tokio::task::yield_now().await;
    assert!(!held.is_finished());
    shared.update(|world| world.insert_policy(policy("default/p", Action::Allow)));
    let permit = held.await.unwrap().unwrap();
    assert_eq!(
        permit.by(),
        &DecidedBy::Policy("default/p".parse().unwrap())
    );
}

#[tokio::test]
async fn a_connection_is_not_held_forever() {
    let shared = SharedWorld::new(World::new("n1"));
    let to = workload("a", &["10.0.0.1"], &[]);
    let patience = Duration::from_millis(20);
    let denied = shared
        .authorize(&to, &plaintext(), patience)
        .await
        .unwrap_err();
    assert_eq!(denied.reason, Reason::NotSynced);
}

#[tokio::test]
async fn watchers_hear_of_what_concerns_them() {
    let shared = SharedWorld::new(synced());
    let (mut all, mut authorization) = (shared.changes(), shared.authorization_changes());
    shared.update(|world| world.insert_service(service("x", &[])));
    assert!(all.has_changed().unwrap());
    assert!(!authorization.has_changed().unwrap());
    all.mark_unchanged();
    shared.update(|world| world.insert_service(service("x", &[])));
    assert!(!all.has_changed().unwrap(), "nothing changed");
    shared.update(|world| world.insert_policy(policy("default/p", Action::Deny)));
    assert!(all.has_changed().unwrap() && authorization.has_changed().unwrap());
    authorization.mark_unchanged();
    assert_eq!(*all.borrow_and_update(), shared.read().versions().all);
}

/// Each held connection costs this much, beside its sockets.
#[test]
fn waiting_is_cheap_and_moves_between_threads() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let shared = SharedWorld::new(World::new("n1"));
    let (to, connection) = (workload("a", &["10.0.0.1"], &[]), plaintext());
    let waiting = sendable(shared.authorize(&to, &connection, Duration::ZERO));
    let size = std::mem::size_of_val(&waiting);
    assert!(size <= 768, "{size} bytes");
}
