//! Keys of token issuers: fetched ones are in force, and what could not be fetched refuses and says so.

use serde_json::{Value, json};

use super::super::*;
use super::object;
use crate::jwks::Source;

fn authentication(rules: Value) -> Change {
    object(json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "shop"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "a"}], "jwtRules": rules},
    }))
}

/// A waypoint for service a.
fn shop() -> Index {
    let mut index = super::shop();
    let listeners = json!([{"name": "mesh", "port": 15008, "protocol": "HBONE"}]);
    for change in [
        json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}}}),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "waypoint", "namespace": "shop"},
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": listeners},
            "status": {"addresses": [{"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"}]},
        }),
        json!({
            "kind": "Service",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "a"}, "ports": [{"name": "http", "port": 80}]},
        }),
    ] {
        index.apply(object(change));
    }
    index
}

/// Whether the waypoint's listeners hold this text now, and what the object's status says.
fn held(index: &mut Index, text: &str) -> (bool, Option<String>) {
    index.recompute();
    let (updates, _) = index.take_l7();
    let listeners = updates.values().flatten();
    let mut values = listeners
        .filter(|update| update.kind == ResourceType::Listener)
        .filter_map(|update| Some(update.resource.as_ref()?.value.clone()));
    let found = values.any(|value| {
        value
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    });
    let mut wishes = index.take_wishes().into_iter();
    let said = wishes.find(|wish| wish.kind == Kind::RequestAuthentication);
    (found, said.map(|wish| wish.verdict.message))
}

#[test]
fn keys_that_were_fetched_are_written_into_the_listener() {
    let mut index = shop();
    let uri = "https://keys.test/keys";
    index.apply(authentication(json!([{"issuer": "me", "jwksUri": uri, "timeout": "2s"}, {"issuer": "inline", "jwks": "{\"keys\":[1]}"}])));
    let source = Source {
        issuer: "me".to_owned(),
        uri: uri.to_owned(),
    };
    let wanted = index.take_wanted_keys().unwrap();
    assert_eq!(
        wanted,
        [(source.clone(), std::time::Duration::from_secs(2))].into()
    );
    assert!(index.waits_for_keys());
    let (_, said) = held(&mut index, "fetched-key");
    assert!(said.unwrap().contains("not been fetched yet"));
    index.set_keys(source.clone(), Err("it is down".to_owned()));
    assert!(!index.waits_for_keys());
    let (found, said) = held(&mut index, "fetched-key");
    assert!(!found);
    let said = said.unwrap();
    assert!(said.contains(uri) && said.contains("it is down"), "{said}");
    index.set_keys(source.clone(), Ok("{\"keys\":[\"fetched-key\"]}".into()));
    let (found, said) = held(&mut index, "fetched-key");
    assert_eq!(
        (found, said.as_deref()),
        (true, Some("in force at waypoints"))
    );
    // What nobody asks for any more is forgotten, and what comes late is nobody's.
    index.apply(authentication(json!([{"issuer": "inline", "jwks": "{}"}])));
    assert_eq!(index.take_wanted_keys(), Some(Default::default()));
    index.set_keys(source, Ok("{\"keys\":[]}".into()));
    assert!(!held(&mut index, "fetched-key").0);
}
