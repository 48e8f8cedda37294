//! Bytes and texts that nobody meant, through the intake: refused or compiled, and never a panic.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where what it reads is not there"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use proptest::prelude::*;
use prost::Message as _;
use waypoint::intake::chain::ChainCache;
use waypoint::intake::served::Notes;
use waypoint::intake::{format, jwks, listener, route, template, text};

/// The listeners of a scenario, as istiod sent them.
fn listeners(scenario: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/istiod");
    let text = std::fs::read_to_string(format!("{folder}/{scenario}.pb.json")).unwrap();
    let dump: serde_json::Value = serde_json::from_str(&text).unwrap();
    let resources = dump.get("resources").unwrap_or(&dump).as_array().unwrap();
    let listeners = resources.iter().filter_map(|resource| {
        let kind = resource["type_url"].as_str().unwrap();
        let value = resource["value"].as_str().unwrap();
        kind.ends_with(".Listener")
            .then(|| STANDARD.decode(value).unwrap())
    });
    listeners.collect()
}

fn take(bytes: &[u8]) {
    if let Ok(message) = Listener::decode(bytes) {
        let mut cache = ChainCache::default();
        let taken = listener::resource(message, &mut Notes::default(), &mut cache);
        if let Err(refused) = taken {
            assert!(!refused.reason.is_empty() && !refused.resource.is_empty());
        }
    }
    if let Ok(message) = RouteConfiguration::decode(bytes) {
        let taken = route::resource(message, &mut Notes::default());
        if let Err(refused) = taken {
            assert!(!refused.reason.is_empty() && !refused.resource.is_empty());
        }
    }
}

/// The route tables that stand in a listener.
fn tables(listener: &[u8]) -> Vec<Vec<u8>> {
    use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType::TypedConfig;
    use hcm::http_connection_manager::RouteSpecifier::RouteConfig;

    let listener = Listener::decode(listener).unwrap();
    let filters = listener
        .filter_chains
        .into_iter()
        .flat_map(|chain| chain.filters);
    let tables = filters.filter_map(|filter| match filter.config_type {
        Some(TypedConfig(config)) if config.type_url.ends_with("HttpConnectionManager") => {
            let manager = hcm::HttpConnectionManager::decode(config.value.as_slice()).unwrap();
            match manager.route_specifier {
                Some(RouteConfig(table)) => Some(table.encode_to_vec()),
                _ => None,
            }
        }
        _ => None,
    });
    tables.collect()
}

/// Places in bytes, and what is put there.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
}

fn edited(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (place, byte) in edits {
        let place = place.index(bytes.len());
        bytes[place] = *byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        take(&bytes);
    }

    #[test]
    fn listeners_with_a_few_bytes_changed(
        scenario in prop::sample::select(vec!["bookinfo", "zipkin", "workloads", "jwt"]),
        which in any::<prop::sample::Index>(),
        edits in edits(),
    ) {
        let listeners = listeners(scenario);
        take(&edited(listeners[which.index(listeners.len())].clone(), &edits));
    }

    #[test]
    fn texts(text in ".{0,64}", operator in "%[A-Z_]{1,12}(\\([^%]{0,12}\\))?(:[0-9]{0,3})?%?") {
        let mut notes = Notes::default();
        let _ = format::parse(&text, &mut notes);
        let _ = format::parse(&operator, &mut notes);
        let _ = template::parse(&text);
        let _ = template::parse(&format!("/{text}"));
        let _ = jwks::parse(&text, &mut notes);
        let _ = text::header_key(&text);
    }
}

/// Routes are where the most is written by hand: their own bytes, each scenario's once.
#[test]
fn tables_with_each_byte_changed() {
    for scenario in ["routing", "gatewayapi"] {
        for table in listeners(scenario)
            .iter()
            .flat_map(|listener| tables(listener))
        {
            for place in (0..table.len()).step_by(37) {
                let mut changed = table.clone();
                changed[place] ^= 1 << (place % 8);
                take(&changed);
            }
        }
    }
}
