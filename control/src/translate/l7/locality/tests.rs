//! Shares and priorities by place, by the examples of Istio's documentation.

use std::sync::Arc;

use super::*;
use crate::objects::{Key, Kind};
use crate::translate::l7::view::{Found, Place as At};

fn backend(number: u8, place: (&str, &str), version: &str) -> Backend {
    Backend {
        place: At::Address([10, 0, 0, number].into()),
        port: 80,
        labels: Arc::new(Labels::from([("version".to_owned(), version.to_owned())])),
        hbone: true,
        locality: (place.0.to_owned(), place.1.to_owned(), String::new()),
        node: format!("node-{number}").into(),
        workload: String::new(),
        ready: true,
        weight: 1,
    }
}

/// Two endpoints in r1/z1, one in r1/z2, one in r2/z1 and one in r3/z1.
fn endpoints() -> Vec<Backend> {
    vec![
        backend(1, ("r1", "z1"), "v1"),
        backend(2, ("r1", "z1"), "v2"),
        backend(3, ("r1", "z2"), "v1"),
        backend(4, ("r2", "z1"), "v1"),
        backend(5, ("r3", "z1"), "v1"),
    ]
}

fn here(zone: &str) -> Here {
    Here {
        place: ("r1".to_owned(), zone.to_owned(), String::new()),
        labels: Labels::from([("version".to_owned(), "v2".to_owned())]),
        node: "node-2".into(),
    }
}

/// `region/zone: priority, weight, how many`.
fn made(here: &Here, setting: serde_json::Value, outliers: bool) -> Vec<String> {
    let wanted = Wanted {
        setting: serde_json::from_value(setting).unwrap(),
        outliers,
    };
    told(here, Some(&wanted))
}

fn told(here: &Here, wanted: Option<&Wanted>) -> Vec<String> {
    let groups = groups(wanted.map(|wanted| (here, wanted)), endpoints());
    let told = groups.iter().map(|group| {
        let (region, zone, _) = &group.place;
        let count = group.members.len();
        format!(
            "{region}/{zone}: {}, {}, {count}",
            group.priority, group.weight
        )
    });
    told.collect()
}

#[test]
fn shares_go_to_the_places_that_are_named_and_none_to_others() {
    let setting = serde_json::json!({"distribute": [
        {"from": "r9", "to": {"r9": 100}},
        {"from": "r1/z1/*", "to": {"r1/z1/*": 70, "r1/z2": 20, "r2/*": 10}},
        {"from": "*", "to": {"r3": 100}},
    ]});
    assert_eq!(
        made(&here("z1"), setting.clone(), false),
        [
            "r1/z1: 0, 70, 2",
            "r1/z2: 0, 20, 1",
            "r2/z1: 0, 10, 1",
            "r3/z1: 0, 1, 0"
        ]
    );
    assert_eq!(
        made(&here("z2"), setting, false),
        [
            "r1/z1: 0, 2, 0",
            "r1/z2: 0, 1, 0",
            "r2/z1: 0, 1, 0",
            "r3/z1: 0, 100, 1"
        ]
    );
    // A share for several places is divided by what is there.
    let wide = serde_json::json!({"distribute": [{"from": "*", "to": {"r1/*": 90, "*": 10}}]});
    assert_eq!(
        made(&here("z1"), wide, false),
        // `*` is before `r1/*` among the keys, and takes all.
        [
            "r1/z1: 0, 4, 2",
            "r1/z2: 0, 2, 1",
            "r2/z1: 0, 2, 1",
            "r3/z1: 0, 2, 1"
        ]
    );
}

#[test]
fn nearer_ones_come_first_and_then_the_region_that_is_named() {
    let near = [
        "r1/z1: 0, 2, 2",
        "r1/z2: 1, 1, 1",
        "r2/z1: 2, 1, 1",
        "r3/z1: 2, 1, 1",
    ];
    assert_eq!(made(&here("z1"), serde_json::json!({}), true), near);
    let named = serde_json::json!({"failover": [{"from": "r1", "to": "r3"}]});
    assert_eq!(
        made(&here("z1"), named.clone(), true),
        [
            "r1/z1: 0, 2, 2",
            "r1/z2: 1, 1, 1",
            "r2/z1: 3, 1, 1",
            "r3/z1: 2, 1, 1"
        ]
    );
    let plain = [
        "r1/z1: 0, 2, 2",
        "r1/z2: 0, 1, 1",
        "r2/z1: 0, 1, 1",
        "r3/z1: 0, 1, 1",
    ];
    assert_eq!(
        made(&here("z1"), named.clone(), false),
        plain,
        "nobody is found to be gone"
    );
}

#[test]
fn labels_that_are_shared_come_first() {
    let own = serde_json::json!({"failoverPriority": [REGION, "version"]});
    assert_eq!(
        made(&here("z1"), own, true),
        [
            "r1/z1: 0, 1, 1",
            "r1/z1: 1, 1, 1",
            "r1/z2: 1, 1, 1",
            "r2/z1: 2, 1, 1",
            "r3/z1: 2, 1, 1"
        ]
    );
    let said = serde_json::json!({"failoverPriority": ["version=v1", ZONE]});
    assert_eq!(
        made(&here("z2"), said, true),
        [
            "r1/z1: 1, 1, 1",
            "r1/z1: 2, 1, 1",
            "r1/z2: 0, 1, 1",
            "r2/z1: 1, 1, 1",
            "r3/z1: 1, 1, 1"
        ]
    );
    let node = serde_json::json!({"failoverPriority": [HOSTNAME]});
    assert_eq!(
        made(&here("z1"), node, true),
        [
            "r1/z1: 0, 1, 1",
            "r1/z1: 1, 1, 1",
            "r1/z2: 1, 1, 1",
            "r2/z1: 1, 1, 1",
            "r3/z1: 1, 1, 1"
        ]
    );
}

#[test]
fn a_traffic_distribution_prefers_the_own_zone_and_then_the_region() {
    let service = |near| Target {
        host: "a.shop.svc.cluster.local".to_owned(),
        key: Key::new("shop", "a"),
        object: Key::new("shop", "a"),
        kind: Kind::Service,
        addresses: Vec::new(),
        ports: Vec::new(),
        headless: false,
        near,
        found: Found::Known,
        external: false,
    };
    let by_zone = Wanted::of(None, &service(Some(Near::Zone)), 80, "").unwrap();
    assert_eq!(by_zone.reckoned(), Reckoned::ByPlace);
    assert_eq!(
        told(&here("z2"), Some(&by_zone)),
        [
            "r1/z1: 1, 2, 2",
            "r1/z2: 0, 1, 1",
            "r2/z1: 2, 1, 1",
            "r3/z1: 2, 1, 1"
        ]
    );
    let by_node = Wanted::of(None, &service(Some(Near::Node)), 80, "").unwrap();
    assert_eq!(by_node.reckoned(), Reckoned::ByNode);
    assert_eq!(
        told(&here("z1"), Some(&by_node)),
        [
            "r1/z1: 0, 1, 1",
            "r1/z1: 1, 1, 1",
            "r1/z2: 2, 1, 1",
            "r2/z1: 3, 1, 1",
            "r3/z1: 3, 1, 1"
        ],
        "the own node, its zone, its region, all"
    );
    assert!(Wanted::of(None, &service(None), 80, "").is_none());
}
