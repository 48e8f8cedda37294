//! What the real istiod sent a waypoint, byte for byte (`fixtures/istiod`), through the intake:
//! every listener is served, recognised, or refused for a reason that stands here.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where what it reads is not there"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use prost::Message as _;
use waypoint::intake::chain::ChainCache;
use waypoint::intake::error::Refused;
use waypoint::intake::extension;
use waypoint::intake::listener;
use waypoint::intake::served::Notes;
use waypoint::model::http::HttpFilter;
use waypoint::model::listener::{Chain, ChainKind, Dispatch, Listener as Compiled, ListenerKind};
use waypoint::model::wasm::Code;

/// Scenarios in which chains are refused, for a filter without which requests would pass that must not.
const REFUSED: &[(&str, &str)] = &[("plugins", "v3.Wasm")];

/// Everything else that isn't served, over all scenarios.
const COUNTED: &[&str] = &["envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy"];

/// The listeners of each scenario.
fn scenarios() -> BTreeMap<String, Vec<Listener>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/istiod");
    let mut scenarios = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(".pb.json") else {
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let dump: serde_json::Value = serde_json::from_str(&text).unwrap();
        let resources = dump.get("resources").unwrap_or(&dump).as_array().unwrap();
        let listeners = resources.iter().filter_map(|resource| {
            let kind = resource["type_url"].as_str().unwrap();
            kind.ends_with("envoy.config.listener.v3.Listener")
                .then(|| {
                    let bytes = STANDARD
                        .decode(resource["value"].as_str().unwrap())
                        .unwrap();
                    Listener::decode(bytes.as_slice()).unwrap()
                })
        });
        scenarios.insert(name.to_owned(), listeners.collect());
    }
    assert!(scenarios.len() >= 13, "{:?}", scenarios.keys());
    scenarios
}

fn compile(listener: Listener, notes: &mut Notes) -> Result<Option<Compiled>, Refused> {
    listener::resource(listener, notes, &mut ChainCache::default())
}

/// How many chains answer everything with an error, or close.
fn refusing(dispatch: &Dispatch) -> usize {
    let refuses = |chain: &&Arc<Chain>| match &chain.kind {
        ChainKind::Http(http) => matches!(http.filters.first(), Some(HttpFilter::Refused)),
        ChainKind::Closed => true,
        ChainKind::Tcp(_) => false,
    };
    dispatch.chains.iter().filter(refuses).count()
}

#[test]
fn every_listener_is_served_recognised_or_refused_for_a_known_reason() {
    let mut notes = Notes::default();
    for (scenario, listeners) in scenarios() {
        assert_eq!(listeners.len(), 5, "{scenario}");
        for listener in listeners {
            let name = listener.name.clone();
            let compiled = compile(listener, &mut notes);
            let mut reasons = REFUSED.iter().filter(|(known, _)| *known == scenario);
            match (name.as_str(), compiled, reasons.next()) {
                ("main_internal", Ok(Some(compiled)), reason) => {
                    let ListenerKind::Internal(dispatch) = &compiled.kind else {
                        panic!("{scenario}: {name} became another kind");
                    };
                    assert_eq!(refusing(dispatch), compiled.refused.len(), "{scenario}");
                    assert_eq!(reason.is_none(), compiled.refused.is_empty(), "{scenario}");
                    for refused in &compiled.refused {
                        let (_, reason) = reason.unwrap();
                        assert!(refused.contains(reason), "{scenario}: {refused}");
                    }
                    // A plugin for TCP stands in chains of TCP, a policy in those of its own services.
                    let served = dispatch.chains.len() - refusing(dispatch);
                    assert!(served > 0, "{scenario}");
                }
                ("connect_terminate", Ok(Some(compiled)), _) => {
                    let ListenerKind::Tunnel(tunnel) = &compiled.kind else {
                        panic!("{scenario}: {name} became another kind");
                    };
                    assert_eq!(&*tunnel.to, "main_internal");
                }
                (
                    "connect_originate" | "inner_connect_originate" | "outer_connect_originate",
                    Ok(None),
                    _,
                ) => {}
                (_, compiled, _) => panic!("{scenario}: {name} became {compiled:?}"),
            }
        }
    }
    let counted: BTreeSet<&str> = notes.iter().map(|(name, ..)| name).collect();
    assert_eq!(counted, COUNTED.iter().copied().collect());
}

#[test]
fn a_wasm_plugin_comes_by_discovery_and_one_for_tcp_is_refused_by_name() {
    let text = include_str!("fixtures/istiod/plugins.pb.json");
    let dump: serde_json::Value = serde_json::from_str(text).unwrap();
    let resources = dump.get("resources").unwrap_or(&dump).as_array().unwrap();
    let mut told = BTreeMap::new();
    for resource in resources {
        let kind = resource["type_url"].as_str().unwrap();
        if !kind.ends_with("TypedExtensionConfig") {
            continue;
        }
        let bytes = STANDARD.decode(resource["value"].as_str().unwrap());
        let extension = TypedExtensionConfig::decode(bytes.unwrap().as_slice()).unwrap();
        let name = extension.name.clone();
        let compiled = extension::resource(extension, &mut Notes::default());
        told.insert(name, compiled.map_err(|refused| refused.to_string()));
    }
    let name = |of: &str| {
        format!("extensions.istio.io/trafficextension/plugins.{of}~istio-translated-wasmplugin")
    };
    let HttpFilter::Plugin(authn) = &told[&name("authn")].as_ref().unwrap().filter else {
        panic!("{told:?}");
    };
    assert_eq!(
        &*authn.settings.configuration,
        br#"{"key":"value","list":[1,2]}"#
    );
    assert_eq!(authn.settings.environment, [("A".into(), "b".into())]);
    assert!(
        matches!(&authn.settings.code, Code::Remote(it) if &*it.uri == "oci://registry.example/authn:1")
    );
    let refused = told[&name("network")].as_ref().unwrap_err();
    assert!(refused.contains("network.wasm"), "{refused}");
    assert_eq!(told.len(), 2);
}

#[test]
fn a_chain_that_did_not_change_is_not_compiled_again() {
    let listener = || {
        let mut listeners = scenarios().remove("bookinfo").unwrap().into_iter();
        listeners
            .find(|listener| listener.name == "main_internal")
            .unwrap()
    };
    let mut cache = ChainCache::default();
    let mut chains = |listener| {
        let compiled = listener::resource(listener, &mut Notes::default(), &mut cache);
        let ListenerKind::Internal(dispatch) = compiled.unwrap().unwrap().kind else {
            panic!("main_internal became another kind");
        };
        dispatch.chains
    };
    let before = chains(listener());
    let mut changed = listener();
    changed.filter_chains[0].filters.remove(0);
    let last = changed.filter_chains.len() - 1;
    changed.filter_chains[0] = changed.filter_chains[last].clone();
    changed.filter_chains[0]
        .name
        .clone_from(&before[0].name.to_string());
    let after = chains(changed);
    assert!(!Arc::ptr_eq(&before[0], &after[0]));
    for (before, after) in before.iter().zip(&after).skip(1) {
        assert!(Arc::ptr_eq(before, after), "{}", before.name);
    }
}
