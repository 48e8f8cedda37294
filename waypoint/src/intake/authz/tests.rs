//! What istiod sends for CUSTOM policies, and what of the filter is refused.

use serde_json::{Value, json};

use super::*;
use crate::source::json::Descriptors;

/// As istiod sends it for `envoyExtAuthzHttp` (tests/fixtures/istiod/policy.json).
fn istiod() -> Value {
    json!({
        "http_service": {
            "server_uri": {"uri": "http://authz.policy.svc.cluster.local",
                "cluster": "outbound|8000||authz.policy.svc.cluster.local", "timeout": "2s"},
            "path_prefix": "/check",
            "authorization_request": {"headers_to_add": [{"key": "x-extra", "value": "yes"}]},
            "authorization_response": {
                "allowed_upstream_headers": {"patterns": [{"exact": "x-user", "ignore_case": true}]}}
        },
        "with_request_body": {"max_request_bytes": 1000, "allow_partial_message": true},
        "status_on_error": {"code": "ServiceUnavailable"},
        "filter_enabled_metadata": {"filter": "envoy.filters.http.rbac",
            "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": "istio-ext-authz-authz-http"}}}
    })
}

fn compile(json: Value) -> Result<ExtAuthz, String> {
    let message = Descriptors::get().message(json).unwrap();
    filter(message, &mut Notes::default()).map_err(|refused| refused.to_string())
}

#[test]
fn what_istiod_sends_is_served() {
    let compiled = compile(istiod()).unwrap();
    assert_eq!(
        &*compiled.cluster,
        "outbound|8000||authz.policy.svc.cluster.local"
    );
    assert_eq!(compiled.timeout, Duration::from_secs(2));
    assert_eq!(compiled.status_on_error, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(compiled.body.unwrap().most, 1000);
    assert!(!compiled.fail_open && compiled.enabled_metadata.is_some());
    let Service::Http(service) = compiled.service else {
        panic!("{:?}", compiled.service);
    };
    assert_eq!((&*service.path_prefix, service.add.len()), ("/check", 1));
    let grpc = compile(
        json!({"grpc_service": {"envoy_grpc": {"cluster_name": "c"}},
        "failure_mode_allow": true}),
    );
    let grpc = grpc.unwrap();
    assert!(grpc.fail_open && matches!(grpc.service, Service::Grpc(_)));
    assert_eq!((&*grpc.authority, grpc.timeout), ("c", TIMEOUT));
}

#[test]
fn what_would_decide_otherwise_is_refused() {
    let with = |field: &str, value: Value| {
        let mut json = istiod();
        json[field] = value;
        compile(json).unwrap_err()
    };
    for (field, value, told) in [
        ("shadow_mode", json!(true), "shadow_mode: is not served"),
        (
            "encode_raw_headers",
            json!(true),
            "encode_raw_headers: is not served",
        ),
        (
            "with_request_body",
            json!({}),
            "with_request_body.max_request_bytes: 0",
        ),
        (
            "http_service",
            json!({}),
            "http_service.server_uri: must be set",
        ),
    ] {
        let refused = with(field, value);
        assert!(refused.starts_with(told), "{refused}");
    }
    assert!(
        compile(json!({}))
            .unwrap_err()
            .starts_with("grpc_service: must be set")
    );
    let google = json!({"grpc_service": {"google_grpc": {"target_uri": "a", "stat_prefix": "b"}}});
    assert!(compile(google).unwrap_err().contains("google_grpc"));
}

#[test]
fn a_route_switches_it_off_or_tells_more() {
    let compile = |json: Value| {
        let message = Descriptors::get().message(json).unwrap();
        on_route(message, &mut Notes::default()).map_err(|refused| refused.to_string())
    };
    assert!(compile(json!({"disabled": true})).unwrap().is_none());
    let settings = json!({"check_settings": {"context_extensions": {"b": "2", "a": "1"},
        "disable_request_body_buffering": true}});
    let settings = compile(settings).unwrap().unwrap();
    assert_eq!(
        settings.context,
        [("a".into(), "1".into()), ("b".into(), "2".into())]
    );
    assert_eq!(settings.body, Some(None));
    assert!(compile(json!({})).unwrap_err().contains("must be set"));
}
