//! What clients ask a pod for.

use super::*;
use crate::testing::{backing, pod, service, world};

/// What a tunnel to `web` (10.0.0.1, backs `shop` with port 80 → 8080) leads to.
fn asked(authority: &str) -> Result<String, Refused> {
    let shop = service("shop", "10.96.0.1");
    let world = world([
        backing(pod("web", "10.0.0.1"), &shop),
        pod("other", "10.0.0.2"),
    ]);
    world.update(|world| {
        world.insert_service(shop);
        world.insert_service(service("foreign", "10.96.0.2"));
    });
    let own = crate::testing::found(&world, "web");
    let at = "10.0.0.1:15008".parse().unwrap();
    let resolved = resolve(&world.read(), &own, &authority.parse().unwrap(), at);
    resolved.map(|address| address.to_string())
}

#[test]
fn its_own_address_and_the_services_behind_which_it_stands() {
    assert_eq!(asked("10.0.0.1:8080").unwrap(), "10.0.0.1:8080");
    assert_eq!(asked("[::ffff:10.0.0.1]:8080").unwrap(), "10.0.0.1:8080");
    assert_eq!(
        asked("shop.default.svc.cluster.local:80").unwrap(),
        "10.0.0.1:8080"
    );
}

#[test]
fn nobody_elses() {
    for other in [
        "10.0.0.2:8080",
        "127.0.0.1:8080",
        "[::1]:8080",
        "10.96.0.1:80",
    ] {
        assert!(
            matches!(asked(other), Err(Refused::OtherAddress(..))),
            "{other}"
        );
    }
    for other in [
        "foreign.default.svc.cluster.local:80",
        "shop.default.svc.cluster.local:81",
        "nowhere:80",
    ] {
        assert!(
            matches!(asked(other), Err(Refused::OtherService(..))),
            "{other}"
        );
    }
}

#[test]
fn never_the_proxy_itself() {
    for port in OWN_PORTS {
        assert_eq!(
            asked(&format!("10.0.0.1:{port}")),
            Err(Refused::OwnPort(port))
        );
    }
}

#[test]
fn the_service_behind_a_port_is_found_for_telemetry() {
    let shop = service("shop", "10.96.0.1");
    let own = backing(pod("web", "10.0.0.1"), &shop);
    let world = world([own.clone()]);
    world.update(|world| world.insert_service(shop));
    let world = world.read();
    assert_eq!(
        super::service(&world, &own, 8080)
            .unwrap()
            .key
            .namespace
            .as_ref(),
        "default"
    );
    assert!(super::service(&world, &own, 9999).is_none());
}
