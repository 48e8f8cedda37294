//! Filters that come separately, and the places that wait for them.

use serde_json::{Value, json};

use super::*;
use crate::source::json::Descriptors;

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

fn came(json: Value) -> Result<Extension, String> {
    let message = Descriptors::get().message(json).unwrap();
    resource(message, &mut Notes::default()).map_err(|refused| refused.to_string())
}

fn place(name: &str, json: Value) -> Result<Discovered, String> {
    let message = Descriptors::get().message(json).unwrap();
    discovered(name, message, &mut Notes::default()).map_err(|refused| refused.to_string())
}

#[test]
fn a_filter_that_stands_alone_may_come_by_itself() {
    let rbac = came(json!({"name": "a", "typed_config": {"@type": RBAC}})).unwrap();
    assert_eq!(&*rbac.kind, "envoy.extensions.filters.http.rbac.v3.RBAC");
    assert!(matches!(rbac.filter, HttpFilter::Rbac(_)));
    let refused = came(json!({"name": "a", "typed_config": {"@type": ROUTER}})).unwrap_err();
    assert!(
        refused.contains("typed_config") && refused.contains("Router"),
        "{refused}"
    );
    assert!(
        came(json!({"name": "a"}))
            .unwrap_err()
            .contains("typed_config")
    );
}

#[test]
fn a_place_says_what_may_stand_there_and_what_stands_there_meanwhile() {
    let waits = place(
        "a",
        json!({"config_source": {"ads": {}}, "type_urls": [WASM, RBAC]}),
    );
    let waits = waits.unwrap();
    assert_eq!(
        (&*waits.name, waits.kinds.len(), waits.at_once),
        ("a", 2, false)
    );
    assert!(waits.default.is_none());
    let json = json!({"config_source": {"ads": {}}, "type_urls": [RBAC],
        "default_config": {"@type": RBAC}, "apply_default_config_without_warming": true});
    let begins = place("a", json).unwrap();
    assert!(begins.at_once && matches!(begins.default, Some(HttpFilter::Rbac(_))));
    for (name, json, told) in [
        ("a", json!({"config_source": {"ads": {}}}), "type_urls"),
        ("", json!({"type_urls": [WASM]}), "no name"),
        (
            "a",
            json!({"type_urls": [WASM], "default_config": {"@type": RBAC}}),
            "default_config",
        ),
    ] {
        let refused = place(name, json).unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
}

#[test]
fn credentials_of_registries_are_not_kept_to_be_shown() {
    let any = Descriptors::get().any(json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "a",
        "typed_config": {"@type": WASM, "config": {"name": "p", "vm_config": {
            "environment_variables": {"key_values":
                {"ISTIO_META_WASM_IMAGE_PULL_SECRET": "hidden", "OWN": "shown"}}}}}
    }));
    let bytes = Bytes::from(any.unwrap().value);
    let shown = without_secrets(bytes.clone());
    let has = |bytes: &Bytes, text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
    assert!(has(&bytes, "hidden"));
    assert!(!has(&shown, "hidden") && has(&shown, "shown"));
    assert_eq!(without_secrets(shown.clone()), shown);
}
