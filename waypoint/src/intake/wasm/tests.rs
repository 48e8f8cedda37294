//! What istiod sends for a WasmPlugin, and what of a plugin's configuration is refused.

use serde_json::{Value, json};

use super::*;
use crate::source::json::Descriptors;

/// As istiod makes it of a WasmPlugin (pilot/pkg/model/extensions.go).
fn istiod() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": "bookinfo.guard",
            "root_id": "guard",
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": "{\"mode\":\"strict\"}"
            },
            "failure_policy": "FAIL_OPEN",
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"remote": {
                    "http_uri": {"uri": "oci://registry.test/guard:v1", "timeout": "30s",
                        "cluster": "_"},
                    "sha256": "nil"
                }},
                "environment_variables": {
                    "host_env_keys": ["POD_NAME"],
                    "key_values": {
                        "ISTIO_META_WASM_IMAGE_PULL_SECRET": "{\"auths\":{}}",
                        "ISTIO_META_WASM_IMAGE_PULL_POLICY": "Always",
                        "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": "17",
                        "OWN": "value"
                    }
                }
            }
        }
    })
}

fn compile(json: Value) -> Result<Settings, String> {
    let any = Descriptors::get().any(json).unwrap();
    filter(&any, &mut Notes::default()).map_err(|refused| refused.to_string())
}

#[test]
fn what_istiod_sends_is_served() {
    let settings = compile(istiod()).unwrap();
    assert_eq!(
        (&*settings.name, &*settings.root_id),
        ("bookinfo.guard", "guard")
    );
    assert_eq!(&*settings.configuration, br#"{"mode":"strict"}"#);
    assert_eq!(settings.failure, OnFailure::Open);
    // What is meant for whoever fetches stays here.
    assert_eq!(settings.environment, [("OWN".into(), "value".into())]);
    assert_eq!(settings.host_environment, ["POD_NAME".into()]);
    let Code::Remote(remote) = &settings.code else {
        panic!("{:?}", settings.code);
    };
    assert_eq!(&*remote.uri, "oci://registry.test/guard:v1");
    assert_eq!(
        (remote.sha256.as_deref(), remote.again),
        (None, Pull::Always)
    );
    assert_eq!(
        (&*remote.version, remote.timeout),
        ("17", Duration::from_secs(30))
    );
    assert_eq!(&*remote.secret.as_ref().unwrap().0, r#"{"auths":{}}"#);
    assert!(!format!("{settings:?}").contains("auths"), "{settings:?}");
}

#[test]
fn a_struct_is_given_as_json_and_failures_close_unless_told_otherwise() {
    let mut json = istiod();
    json["config"]["configuration"] = json!({
        "@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 1}});
    json["config"]
        .as_object_mut()
        .unwrap()
        .remove("failure_policy");
    json["config"]["vm_config"]["code"] = json!({"local": {"filename": "/a.wasm"}});
    let settings = compile(json.clone()).unwrap();
    assert_eq!(&*settings.configuration, br#"{"a":1}"#);
    assert_eq!(settings.failure, OnFailure::Closed);
    assert!(matches!(settings.code, Code::File(path) if &*path == "/a.wasm"));
    json["config"]["fail_open"] = true.into();
    assert_eq!(compile(json.clone()).unwrap().failure, OnFailure::Open);
    json["config"]["failure_policy"] = "FAIL_RELOAD".into();
    json["config"]["reload_config"] = json!({"backoff": {"base_interval": "2s"}});
    let reload = OnFailure::Reload(Duration::from_secs(2), Duration::from_secs(20));
    assert_eq!(compile(json.clone()).unwrap().failure, reload);
    json["config"]["vm_config"]["capability_restriction_config"] =
        json!({"allowed_capabilities": {"proxy_log": {}}});
    assert_eq!(
        compile(json).unwrap().allowed,
        Some(BTreeSet::from(["proxy_log".into()]))
    );
}

#[test]
fn what_can_not_be_run_or_checked_is_refused() {
    for (at, value, told) in [
        (
            "/config/vm_config/runtime",
            json!("envoy.wasm.runtime.null"),
            "vm_config.runtime",
        ),
        (
            "/config/vm_config/code/remote/sha256",
            json!("12"),
            "sha256",
        ),
        (
            "/config/vm_config/code/remote/http_uri/uri",
            json!("ftp://a/b"),
            "http_uri.uri",
        ),
        ("/config/vm_config/code", json!({}), "vm_config.code"),
        (
            "/config/vm_config/code",
            json!({"local": {"environment_variable": "A"}}),
            "environment_variable",
        ),
        (
            "/config/vm_config/code",
            json!({"local": {"filename": "/a", "watched_directory": {"path": "/"}}}),
            "watched_directory",
        ),
    ] {
        let mut json = istiod();
        *json.pointer_mut(at).unwrap() = value;
        let refused = compile(json).unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
}
