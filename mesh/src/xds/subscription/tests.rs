//! The protocol without a wire: what is asked, taken, refused, kept and dropped. Long because each
//! rule is a story of its own, and they share one way to tell it.

mod model;

use prost::Message as _;
use prost_types::Any;

use super::*;
use crate::proto::{security, workload as proto};
use crate::world::{Synced, World};
use crate::xds::{Kind, into_world};

fn subscription(kind: Kind) -> Subscription {
    Subscription::to_all(kind.type_url())
}

fn envelope(kind: Kind, name: &str, version: &str, content: Vec<u8>) -> Envelope {
    Envelope {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any {
            type_url: kind.type_url().to_owned(),
            value: content,
        }),
        aliases: Vec::new(),
    }
}

/// A workload resource; its node's name tells versions apart.
fn workload(uid: &str, version: &str) -> Envelope {
    let workload = proto::Workload {
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        node: version.to_owned(),
        ..proto::Workload::default()
    };
    let address = proto::Address {
        r#type: Some(proto::address::Type::Workload(workload)),
    };
    envelope(Kind::Address, uid, version, address.encode_to_vec())
}

/// A workload resource that must be refused.
fn bad_workload(uid: &str, version: &str) -> Envelope {
    let workload = proto::Workload {
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        addresses: vec![vec![1, 2, 3]],
        ..proto::Workload::default()
    };
    let address = proto::Address {
        r#type: Some(proto::address::Type::Workload(workload)),
    };
    envelope(Kind::Address, uid, version, address.encode_to_vec())
}

fn policy(name: &str, action: i32) -> Envelope {
    let policy = security::Authorization {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        action,
        ..security::Authorization::default()
    };
    envelope(
        Kind::Authorization,
        &format!("default/{name}"),
        "1",
        policy.encode_to_vec(),
    )
}

fn response(
    kind: Kind,
    nonce: &str,
    resources: Vec<Envelope>,
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
        resources,
        removed_resources: removed.iter().map(|&name| name.to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn receive(
    subscription: &mut Subscription,
    world: &mut World,
    response: DeltaDiscoveryResponse,
) -> Received {
    let mut kinds = Kind::ALL.into_iter();
    let kind = kinds.find(|kind| kind.type_url() == response.type_url);
    subscription.receive(response, |arrived| {
        into_world::take(kind.unwrap(), arrived, world)
    })
}

/// Takes a response and gives the answer.
fn take(
    subscription: &mut Subscription,
    world: &mut World,
    response: DeltaDiscoveryResponse,
) -> DeltaDiscoveryRequest {
    receive(subscription, world, response).answer
}

fn node_of(world: &World, uid: &str) -> Option<String> {
    let found = world.workload(&crate::workload::Uid::new(uid));
    found.map(|workload| workload.node.to_string())
}

#[test]
fn it_asks_for_everything() {
    let request = subscription(Kind::Address).open().unwrap();
    assert_eq!(
        request.type_url,
        "type.googleapis.com/istio.workload.Address"
    );
    assert_eq!(request.resource_names_subscribe, ["*"]);
    assert!(request.initial_resource_versions.is_empty());
    assert!(request.response_nonce.is_empty());
}

#[test]
fn what_is_good_is_taken_and_acknowledged() {
    let (mut subscription, mut world) = (subscription(Kind::Address), World::new("n1"));
    let first = response(Kind::Address, "n-1", vec![workload("a", "v1")], &[]);
    let answer = take(&mut subscription, &mut world, first);
    assert_eq!(answer.response_nonce, "n-1");
    assert_eq!(answer.error_detail, None);
    assert_eq!(answer.type_url, Kind::Address.type_url());
    assert!(answer.node.is_none() && answer.resource_names_subscribe.is_empty());
    assert_eq!(node_of(&world, "a").as_deref(), Some("v1"));
}

#[test]
fn what_is_bad_is_named_and_its_last_good_version_stays() {
    let (mut subscription, mut world) = (subscription(Kind::Address), World::new("n1"));
    let good = response(
        Kind::Address,
        "1",
        vec![workload("a", "v1"), workload("b", "v1")],
        &[],
    );
    take(&mut subscription, &mut world, good);
    let mixed = vec![
        bad_workload("a", "v2"),
        workload("b", "v2"),
        bad_workload("c", "v2"),
    ];
    let answer = take(
        &mut subscription,
        &mut world,
        response(Kind::Address, "2", mixed, &[]),
    );
    let error = answer.error_detail.expect("a NACK");
    assert_eq!(answer.response_nonce, "2");
    assert_eq!(error.code, 3);
    for name in ["a: workload a: addresses[0]", "c: workload c: addresses[0]"] {
        assert!(
            error.message.contains(name),
            "{name} isn't in {}",
            error.message
        );
    }
    assert!(!error.message.contains("workload b"), "{}", error.message);
    assert_eq!(
        node_of(&world, "a").as_deref(),
        Some("v1"),
        "the last good version is gone"
    );
    assert_eq!(
        node_of(&world, "b").as_deref(),
        Some("v2"),
        "a good one was held back"
    );
    assert_eq!(node_of(&world, "c"), None);
    let versions = subscription.open().unwrap().initial_resource_versions;
    let held = |name: &str| versions.get(name).map(String::as_str);
    assert_eq!(
        (held("a"), held("b"), held("c")),
        (Some("v1"), Some("v2"), None)
    );
}

#[test]
fn a_malformed_policy_is_refused_by_name_and_the_last_good_one_stays() {
    let (mut subscription, mut world) = (subscription(Kind::Authorization), World::new("n1"));
    let good = response(Kind::Authorization, "1", vec![policy("p", 1)], &[]);
    take(&mut subscription, &mut world, good);
    let bad = response(Kind::Authorization, "2", vec![policy("p", 77)], &[]);
    let answer = take(&mut subscription, &mut world, bad);
    let message = answer.error_detail.unwrap().message;
    assert_eq!(
        message,
        "default/p: policy default/p: action: unknown value 77: the control plane is probably newer than this proxy"
    );
    assert!(
        world
            .policies()
            .get(&"default/p".parse().unwrap())
            .is_some()
    );
    let gone = response(
        Kind::Authorization,
        "3",
        Vec::new(),
        &["default/p", "no policy"],
    );
    assert_eq!(take(&mut subscription, &mut world, gone).error_detail, None);
    assert!(world.policies().is_empty());
}

#[test]
fn whatever_is_wrong_with_an_envelope_is_told() {
    let no_content = Envelope {
        resource: None,
        ..workload("a", "1")
    };
    let other_type = envelope(Kind::Authorization, "a", "1", Vec::new());
    let garbage = envelope(Kind::Address, "a", "1", vec![0xff; 9]);
    let other_name = Envelope {
        name: "b".to_owned(),
        ..workload("a", "1")
    };
    let empty = envelope(Kind::Address, "a", "1", Vec::new());
    for (envelope, reason) in [
        (no_content, "a: the resource has no content"),
        (
            other_type,
            "a: of type \"type.googleapis.com/istio.security.Authorization\"",
        ),
        (garbage, "a: failed to decode"),
        (other_name, "b: its content names \"a\""),
        (empty, "a: address: type: neither a workload nor a service"),
    ] {
        let received = receive(
            &mut subscription(Kind::Address),
            &mut World::new("n1"),
            response(Kind::Address, "1", vec![envelope], &[]),
        );
        let message = received.answer.error_detail.unwrap().message;
        assert!(
            message.starts_with(reason),
            "{message:?} doesn't begin with {reason:?}"
        );
    }
}

#[test]
fn a_nack_names_a_bounded_number() {
    let bad = (0..50)
        .map(|i| bad_workload(&format!("w{i}"), "1"))
        .collect();
    let received = receive(
        &mut subscription(Kind::Address),
        &mut World::new("n1"),
        response(Kind::Address, "1", bad, &[]),
    );
    assert_eq!(received.rejected.len(), 50);
    let message = received.answer.error_detail.unwrap().message;
    assert!(
        message.contains("w19: ") && !message.contains("w20: "),
        "{message}"
    );
    assert!(message.ends_with("; and 30 more"), "{message}");
}

#[test]
fn what_is_removed_is_gone_and_forgotten() {
    let (mut subscription, mut world) = (subscription(Kind::Address), World::new("n1"));
    let both = vec![workload("a", "1"), workload("b", "1")];
    take(
        &mut subscription,
        &mut world,
        response(Kind::Address, "1", both, &[]),
    );
    take(
        &mut subscription,
        &mut world,
        response(Kind::Address, "2", Vec::new(), &["a", "never"]),
    );
    assert_eq!(node_of(&world, "a"), None);
    let versions = subscription.open().unwrap().initial_resource_versions;
    assert_eq!(versions.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn each_type_is_synced_by_its_first_response_even_an_empty_one() {
    let mut world = World::new("n1");
    let first = |kind| response(kind, "1", Vec::new(), &[]);
    take(
        &mut subscription(Kind::Address),
        &mut world,
        first(Kind::Address),
    );
    assert_eq!(
        world.synced(),
        Synced {
            workloads: true,
            policies: false
        }
    );
    take(
        &mut subscription(Kind::Authorization),
        &mut world,
        first(Kind::Authorization),
    );
    assert!(world.synced().all());
}

#[test]
fn in_both_lists_means_there() {
    let (mut subscription, mut world) = (subscription(Kind::Address), World::new("n1"));
    let both = response(Kind::Address, "1", vec![workload("a", "1")], &["a"]);
    take(&mut subscription, &mut world, both);
    assert!(node_of(&world, "a").is_some());
    assert_eq!(
        subscription.open().unwrap().initial_resource_versions.len(),
        1
    );
}

/// More than a server would take in one request.
#[test]
fn very_many_resources_are_not_named_but_what_has_gone_is_noticed() {
    let (mut subscription, mut world) = (subscription(Kind::Address), World::new("n1"));
    let long = "x".repeat(120);
    let all = |from: usize| {
        (from..30_000)
            .map(|i| workload(&format!("{long}{i}"), "1"))
            .collect()
    };
    take(
        &mut subscription,
        &mut world,
        response(Kind::Address, "1", all(0), &[]),
    );
    assert!(
        subscription
            .open()
            .unwrap()
            .initial_resource_versions
            .is_empty()
    );
    let mut again: Vec<_> = all(2);
    again.push(bad_workload(&format!("{long}1"), "2"));
    take(
        &mut subscription,
        &mut world,
        response(Kind::Address, "2", again, &[]),
    );
    assert_eq!(
        world.workloads().len(),
        29_999,
        "only the one that wasn't there is gone"
    );
    assert!(node_of(&world, &format!("{long}0")).is_none());
    assert!(
        node_of(&world, &format!("{long}1")).is_some(),
        "a bad version isn't a removal"
    );
    take(
        &mut subscription,
        &mut world,
        response(Kind::Address, "3", Vec::new(), &[]),
    );
    assert_eq!(
        world.workloads().len(),
        29_999,
        "only the first response is complete"
    );
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Takes a response of resources that are all good.
fn good(subscription: &mut Subscription, names: &[&str], removed: &[&str]) {
    let resources = names.iter().map(|name| workload(name, "1")).collect();
    let response = response(Kind::Address, "1", resources, removed);
    let received = subscription.receive(response, |_| Vec::new());
    assert!(received.rejected.is_empty());
}

#[test]
fn names_are_asked_for_as_they_come_and_go() {
    let mut subscription = Subscription::by_name(Kind::Address.type_url());
    assert!(
        subscription.open().is_none(),
        "a request without names would be one for everything"
    );
    let first = subscription.want(named(&["a", "b"]), true).unwrap();
    assert_eq!(first.resource_names_subscribe, ["a", "b"]);
    assert!(first.resource_names_unsubscribe.is_empty());
    good(&mut subscription, &["a"], &["b"]);
    assert!(subscription.want(named(&["a", "b"]), true).is_none());
    let other = subscription.want(named(&["b", "c"]), true).unwrap();
    assert_eq!(other.resource_names_subscribe, ["c"]);
    assert_eq!(other.resource_names_unsubscribe, ["a"]);
    good(&mut subscription, &["c"], &[]);
    let none = subscription.want(named(&[]), true).unwrap();
    assert_eq!(none.resource_names_unsubscribe, ["b", "c"]);
    assert!(subscription.open().is_none());
}

#[test]
fn a_new_stream_names_all_that_is_wanted_and_what_is_held_of_it() {
    let mut subscription = Subscription::by_name(Kind::Address.type_url());
    subscription.open();
    subscription.want(named(&["a", "b"]), true);
    good(&mut subscription, &["a", "b"], &[]);
    // While no stream stands, wishes change too.
    assert!(subscription.want(named(&["b", "c"]), false).is_none());
    let request = subscription.open().unwrap();
    assert_eq!(request.resource_names_subscribe, ["b", "c"]);
    let held: Vec<_> = request.initial_resource_versions.keys().collect();
    assert_eq!(held, ["b"]);
    let more = subscription.want(named(&["b", "c", "d"]), true).unwrap();
    assert_eq!(more.resource_names_subscribe, ["d"]);
    assert!(more.initial_resource_versions.is_empty());
}
