//! One resource, as a control plane might send it: taken or refused with a reason, published either
//! way, and a table of routes that was taken has an answer to every request.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use prost::Message as _;
use waypoint::head::Head;
use waypoint::intake;
use waypoint::intake::served::Notes;
use waypoint::model::route::{RouteAction, RouteTable};
use waypoint::model::snapshot::Current;
use waypoint::route::select::{self, Ask, Found};
use waypoint::route::{redirect, rewrite, split};
use waypoint::source::envoy::Envoy;
use waypoint::source::kind::Kind;
use waypoint::source::secret::Secrets;
use waypoint::source::store::{Change, Store, Update};

/// Longer than anything is waited for.
const LATER: Duration = Duration::from_secs(60);

/// The first byte chooses the kind, the others are the message.
pub fn check(bytes: &[u8]) {
    let Some((first, message)) = bytes.split_first() else {
        return;
    };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    store(kind, message);
    if kind == Kind::Routes {
        routes(message);
    }
}

/// Through the store, as a push of everything would go.
fn store(kind: Kind, message: &[u8]) {
    let (now, current) = (Instant::now(), Current::default());
    let mut store = Store::new(Envoy::default(), Secrets::default(), current.clone());
    let mut refused = Vec::new();
    for each in Kind::ALL {
        let update = Update {
            name: name(kind, message).into(),
            version: "1".into(),
            bytes: message.to_vec().into(),
        };
        refused.extend(store.apply(
            Change {
                kind: each,
                updated: (each == kind).then_some(update).into_iter().collect(),
                removed: Vec::new(),
            },
            now,
        ));
    }
    store.settle(now);
    store.settle(now + LATER);
    assert!(store.is_ready(), "one resource holds everything up");
    for rejected in &refused {
        assert!(
            !rejected.reason.is_empty(),
            "{} for no reason",
            rejected.name
        );
    }
    assert_eq!(
        refused.len(),
        store.refused().len(),
        "refused and forgotten"
    );
}

/// The name inside, as a control plane would send it along.
fn name(kind: Kind, message: &[u8]) -> String {
    let name = match kind {
        Kind::Cluster => Cluster::decode(message).map(|m| m.name),
        Kind::Endpoints => ClusterLoadAssignment::decode(message).map(|m| m.cluster_name),
        Kind::Listener => Listener::decode(message).map(|m| m.name),
        Kind::Routes => RouteConfiguration::decode(message).map(|m| m.name),
        Kind::Secret => Secret::decode(message).map(|m| m.name),
        Kind::Extension => TypedExtensionConfig::decode(message).map(|m| m.name),
        Kind::Workload => mesh::proto::workload::Workload::decode(message).map(|m| m.uid),
    };
    name.unwrap_or_default()
}

/// Requests that a table of routes has to have an answer to.
fn routes(message: &[u8]) {
    let name = RouteConfiguration::decode(message).map(|table| table.name);
    let name = name.unwrap_or_default();
    let Ok(table) = intake::route::resource(&name, message, &mut Notes::default()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [("cookie", "user=jason; a"), ("x-a", "\u{e9}"), ("x-a", "2")] {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let paths = [
        "/",
        "/reviews/0?a=b&a=%zz#f",
        "//%2e%2e/\\..;x=1/é",
        "*",
        "",
    ];
    for (path, authority) in paths
        .into_iter()
        .zip(["reviews", "a.b:80", "[::1]:9080", "", ":"])
    {
        let head = Head {
            method: &Method::GET,
            scheme: "http",
            authority,
            path,
            headers: &headers,
        };
        decide(&table, &head);
    }
}

fn decide(table: &RouteTable, head: &Head<'_>) {
    let ask = Ask {
        head,
        metadata: &waypoint::head::Metadata::default(),
        caller: None,
        random: 42,
    };
    let Found::Route(picked) = select::find(table, ask) else {
        return;
    };
    let matches = &picked.route.matches;
    match &picked.route.action {
        RouteAction::Forward(forward) => {
            let chosen = split::choose(&forward.to, head, 42);
            let weighted = chosen.and_then(|chosen| chosen.weighted);
            let _ = rewrite::path(forward, matches, head.path);
            let _ = rewrite::host(forward, weighted, head);
        }
        RouteAction::Redirect(to) => {
            let _ = redirect::location(to, matches, head);
        }
        _ => {}
    }
}
