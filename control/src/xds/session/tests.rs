//! A client's conversation, request by request.

use mesh::proto::discovery::{DeltaDiscoveryResponse, Status};
use mesh::proto::security;
use mesh::proto::workload::{NetworkAddress, Service};

use prost::Message;

use super::*;
use crate::index::Update;
use crate::resource::Resource;

const SVC: &str = "ns/a.ns.svc.cluster.local";

fn policy(name: &str, dry_run: bool) -> Update {
    let policy = security::Authorization {
        name: name.to_owned(),
        namespace: "ns".to_owned(),
        dry_run,
        ..security::Authorization::default()
    };
    present(
        ResourceType::Authorization,
        Resource::authorization(&policy),
    )
}

fn service(ip: [u8; 4]) -> Update {
    let address = NetworkAddress {
        address: ip.to_vec(),
        ..NetworkAddress::default()
    };
    let service = Service {
        namespace: "ns".to_owned(),
        hostname: "a.ns.svc.cluster.local".to_owned(),
        addresses: vec![address],
        ..Service::default()
    };
    present(ResourceType::Address, Resource::service(&service))
}

fn present(kind: ResourceType, resource: Resource) -> Update {
    Update {
        kind,
        name: resource.name.clone(),
        resource: Some(resource),
    }
}

fn gone(name: &str) -> Update {
    Update {
        kind: ResourceType::Authorization,
        name: name.into(),
        resource: None,
    }
}

fn store(updates: Vec<Update>) -> Store {
    let mut store = Store::default();
    store.apply(updates);
    store
}

/// What a client reads of a response: nonce, names sent, names removed.
#[derive(Debug, PartialEq)]
struct Read {
    nonce: String,
    sent: Vec<String>,
    removed: Vec<String>,
}

fn read(push: &Push) -> (Read, DeltaDiscoveryResponse) {
    let mut bytes = push.body.to_vec();
    let tail = DeltaDiscoveryResponse {
        nonce: push.nonce.clone(),
        ..DeltaDiscoveryResponse::default()
    };
    bytes.extend(tail.encode_to_vec());
    let response = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
    assert_eq!(response.type_url, push.kind.url());
    let sent = response
        .resources
        .iter()
        .map(|resource| resource.name.clone())
        .collect();
    (
        Read {
            nonce: response.nonce.clone(),
            sent,
            removed: response.removed_resources.clone(),
        },
        response,
    )
}

fn next(session: &mut Session, store: &Store) -> Option<(Vec<String>, Vec<String>, String)> {
    let push = session.poll(store).unwrap()?;
    let (read, _) = read(&push);
    Some((read.sent, read.removed, read.nonce))
}

fn ask(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url().to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn answer(kind: ResourceType, nonce: &str, error: Option<&str>) -> DeltaDiscoveryRequest {
    let error_detail = error.map(|message| Status {
        code: 3,
        message: message.to_owned(),
    });
    DeltaDiscoveryRequest {
        type_url: kind.url().to_owned(),
        response_nonce: nonce.to_owned(),
        error_detail,
        ..DeltaDiscoveryRequest::default()
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

const POLICIES: ResourceType = ResourceType::Authorization;

#[test]
fn a_wildcard_client_gets_everything_and_then_only_what_changes() {
    let mut store = store(vec![policy("a", false), policy("b", false)]);
    let mut session = Session::default();
    session.handle(ask(POLICIES, &["*"])).unwrap();
    let (sent, removed, nonce) = next(&mut session, &store).unwrap();
    assert_eq!((sent, removed), (strings(&["ns/a", "ns/b"]), strings(&[])));
    assert_eq!(next(&mut session, &store), None);
    assert_eq!(
        session.handle(answer(POLICIES, &nonce, None)).unwrap(),
        Heard::Ack(POLICIES)
    );
    assert_eq!(next(&mut session, &store), None, "an ACK asks for nothing");
    store.apply(vec![policy("b", true), gone("ns/a"), policy("c", false)]);
    let (sent, removed, _) = next(&mut session, &store).unwrap();
    assert_eq!(
        (sent, removed),
        (strings(&["ns/b", "ns/c"]), strings(&["ns/a"]))
    );
}

#[test]
fn an_empty_first_subscription_is_a_wildcard_and_an_empty_mesh_is_an_answer() {
    let store = Store::default();
    let mut session = Session::default();
    session.handle(ask(POLICIES, &[])).unwrap();
    let (sent, removed, _) = next(&mut session, &store).unwrap();
    assert_eq!((sent, removed), (strings(&[]), strings(&[])));
}

#[test]
fn one_response_is_under_way_and_later_changes_are_joined() {
    let mut store = store(vec![policy("a", false)]);
    let mut session = Session::default();
    session.handle(ask(POLICIES, &["*"])).unwrap();
    let (.., nonce) = next(&mut session, &store).unwrap();
    store.apply(vec![policy("b", false)]);
    store.apply(vec![policy("b", true), policy("c", false)]);
    store.apply(vec![gone("ns/c")]);
    assert_eq!(next(&mut session, &store), None, "not before the answer");
    session.handle(answer(POLICIES, &nonce, None)).unwrap();
    let (sent, removed, _) = next(&mut session, &store).unwrap();
    assert_eq!((sent, removed), (strings(&["ns/b"]), strings(&["ns/c"])));
}

#[test]
fn a_client_that_comes_back_gets_only_what_it_lacks() {
    let store = store(vec![
        policy("a", false),
        policy("b", false),
        policy("c", false),
    ]);
    let version = |name| {
        store
            .collection(POLICIES)
            .unwrap()
            .get(name)
            .unwrap()
            .version
            .to_string()
    };
    let mut session = Session::default();
    let retained = [
        ("ns/a", version("ns/a")),
        ("ns/b", "old".to_owned()),
        ("ns/gone", "x".to_owned()),
    ];
    let request = DeltaDiscoveryRequest {
        initial_resource_versions: retained
            .into_iter()
            .map(|(name, version)| (name.to_owned(), version))
            .collect(),
        ..ask(POLICIES, &["*"])
    };
    session.handle(request).unwrap();
    let (sent, removed, _) = next(&mut session, &store).unwrap();
    assert_eq!(
        (sent, removed),
        (strings(&["ns/b", "ns/c"]), strings(&["ns/gone"]))
    );
}

#[test]
fn a_refused_response_is_counted_and_not_sent_again_before_it_changes() {
    let mut store = store(vec![policy("a", false)]);
    let mut session = Session::default();
    session.handle(ask(POLICIES, &["*"])).unwrap();
    let (.., nonce) = next(&mut session, &store).unwrap();
    let heard = session
        .handle(answer(POLICIES, &nonce, Some("ns/a: bad")))
        .unwrap();
    assert_eq!(heard, Heard::Nack(POLICIES, "ns/a: bad".to_owned()));
    assert_eq!(next(&mut session, &store), None);
    let (_, progress) = session.progress().next().unwrap();
    assert_eq!(
        (
            progress.nacks,
            progress.last_nack.as_deref(),
            progress.nonce_acked.as_str()
        ),
        (1, Some("ns/a: bad"), "")
    );
    store.apply(vec![policy("a", true)]);
    let (sent, _, nonce) = next(&mut session, &store).unwrap();
    assert_eq!(sent, strings(&["ns/a"]));
    session.handle(answer(POLICIES, &nonce, None)).unwrap();
    assert_eq!(session.progress().next().unwrap().1.nonce_acked, nonce);
}

#[test]
fn an_answer_to_an_older_response_settles_nothing() {
    let mut store = store(vec![policy("a", false)]);
    let mut session = Session::default();
    session.handle(ask(POLICIES, &["*"])).unwrap();
    next(&mut session, &store).unwrap();
    store.apply(vec![policy("b", false)]);
    assert_eq!(
        session.handle(answer(POLICIES, "stale", None)).unwrap(),
        Heard::Subscription(POLICIES)
    );
    assert_eq!(next(&mut session, &store), None);
}

#[test]
fn names_and_aliases_are_answered_found_or_not() {
    let mut store = store(vec![service([10, 0, 0, 1])]);
    let kind = ResourceType::Address;
    let mut session = Session::default();
    session
        .handle(ask(kind, &["/10.0.0.1", "/10.0.0.9"]))
        .unwrap();
    let push = session.poll(&store).unwrap().unwrap();
    let (found, response) = read(&push);
    assert_eq!(
        (found.sent, found.removed),
        (strings(&[SVC]), strings(&["/10.0.0.9"]))
    );
    assert_eq!(response.resources[0].aliases, ["/10.0.0.1"]);
    session.handle(answer(kind, &push.nonce, None)).unwrap();

    store.apply(vec![policy("unrelated", false)]);
    assert_eq!(next(&mut session, &store), None);
    store.apply(vec![service([10, 0, 0, 9])]);
    let (sent, removed, nonce) = next(&mut session, &store).unwrap();
    assert_eq!(
        (sent, removed),
        (strings(&[SVC]), strings(&[])),
        "it is the one that was asked for before"
    );
    session.handle(answer(kind, &nonce, None)).unwrap();
    store.apply(vec![service([10, 0, 0, 7])]);
    let (sent, removed, nonce) = next(&mut session, &store).unwrap();
    assert_eq!(
        (sent, removed),
        (strings(&[]), strings(&[SVC])),
        "no longer under a name that it knows"
    );
    session.handle(answer(kind, &nonce, None)).unwrap();
    store.apply(vec![service([10, 0, 0, 8])]);
    assert_eq!(next(&mut session, &store), None);
}

#[test]
fn an_unsubscribed_name_is_not_followed() {
    let mut store = store(vec![service([10, 0, 0, 1])]);
    let kind = ResourceType::Address;
    let mut session = Session::default();
    session.handle(ask(kind, &[SVC])).unwrap();
    let (.., nonce) = next(&mut session, &store).unwrap();
    let leave = DeltaDiscoveryRequest {
        resource_names_unsubscribe: strings(&[SVC]),
        ..answer(kind, &nonce, None)
    };
    session.handle(leave).unwrap();
    store.apply(vec![service([10, 0, 0, 2])]);
    assert_eq!(next(&mut session, &store), None);
}

#[test]
fn policies_go_before_workloads() {
    let store = store(vec![service([10, 0, 0, 1]), policy("a", false)]);
    let mut session = Session::default();
    session.handle(ask(ResourceType::Address, &["*"])).unwrap();
    session.handle(ask(POLICIES, &["*"])).unwrap();
    let kinds: Vec<_> = std::iter::from_fn(|| session.poll(&store).unwrap())
        .map(|push| push.kind)
        .collect();
    assert_eq!(kinds, [POLICIES, ResourceType::Address]);
}

#[test]
fn workloads_wait_for_policies_that_cannot_be_sent_yet() {
    let mut store = store(vec![policy("a", false)]);
    let mut session = Session::default();
    session.handle(ask(ResourceType::Address, &["*"])).unwrap();
    session.handle(ask(POLICIES, &["*"])).unwrap();
    let nonces: Vec<_> = std::iter::from_fn(|| session.poll(&store).unwrap())
        .map(|push| push.nonce)
        .collect();
    session
        .handle(answer(ResourceType::Address, &nonces[1], None))
        .unwrap();
    store.apply(vec![service([10, 0, 0, 1]), policy("b", false)]);
    assert_eq!(
        session.poll(&store).unwrap(),
        None,
        "policy b waits for the answer about policy a"
    );
    session.handle(answer(POLICIES, &nonces[0], None)).unwrap();
    let kinds: Vec<_> = std::iter::from_fn(|| session.poll(&store).unwrap())
        .map(|push| push.kind)
        .collect();
    assert_eq!(kinds, [POLICIES, ResourceType::Address]);
}

#[test]
fn many_clients_share_one_encoding() {
    let mut store = store(vec![policy("a", false)]);
    let mut sessions: Vec<Session> = (0..3).map(|_| Session::default()).collect();
    let round = |sessions: &mut Vec<Session>, store: &Store| -> Vec<*const u8> {
        let push = |session: &mut Session| {
            let push = session.poll(store).unwrap().unwrap();
            session.handle(answer(POLICIES, &push.nonce, None)).unwrap();
            push.body.as_ptr()
        };
        sessions.iter_mut().map(push).collect()
    };
    for session in &mut sessions {
        session.handle(ask(POLICIES, &["*"])).unwrap();
    }
    let first = round(&mut sessions, &store);
    assert!(first.iter().all(|body| *body == first[0]));
    store.apply(vec![policy("b", false)]);
    let second = round(&mut sessions, &store);
    assert!(second.iter().all(|body| *body == second[0]));
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let mut session = Session::default();
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/other".to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    assert!(
        session
            .handle(request)
            .unwrap_err()
            .to_string()
            .contains("type.googleapis.com/other")
    );
    let names: Vec<String> = (0..=NAME_LIMIT).map(|number| number.to_string()).collect();
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: names,
        ..ask(POLICIES, &[])
    };
    assert_eq!(session.handle(request), Err(Refusal::TooManyNames));
}
