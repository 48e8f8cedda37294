//! What users write as an EnvoyFilter, in both forms, and what is refused.

use envoy_types::pb::google::protobuf as google;
use prost::{Message as _, Name as _};
use serde_json::json;

use super::*;
use crate::model::rate_limit::{Action, HostLimits};
use crate::proto::udpa::TypedStruct;

/// As in Istio's task "Enabling Rate Limits using Envoy".
fn usual() -> Value {
    let always = |key: &str| json!({"runtime_key": key, "default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({
        "stat_prefix": "http_local_rate_limiter",
        "token_bucket": {"max_tokens": 4, "tokens_per_fill": 4, "fill_interval": "60s"},
        "filter_enabled": always("local_rate_limit_enabled"),
        "filter_enforced": always("local_rate_limit_enforced"),
        "response_headers_to_add": [
            {"append": false, "header": {"key": "x-local-rate-limit", "value": "true"}}],
    })
}

fn by_struct(json: &Value) -> Result<RateLimit, String> {
    let of = TypedStruct {
        type_url: envoy::LocalRateLimit::type_url(),
        value: Some(structs::structure(json.as_object().unwrap())),
    };
    let any = google::Any {
        type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".into(),
        value: of.encode_to_vec(),
    };
    self::of(&any, &mut Notes::default()).map_err(|refused| refused.to_string())
}

fn by_message(json: Value) -> Result<RateLimit, String> {
    let message: envoy::LocalRateLimit = message_from_json(json).unwrap();
    compile(message, &mut Notes::default()).map_err(|refused| refused.to_string())
}

#[test]
fn both_forms_are_the_same_limit() {
    for limit in [by_struct(&usual()).unwrap(), by_message(usual()).unwrap()] {
        assert_eq!(
            (limit.enabled, limit.enforced),
            (Fraction::ALWAYS, Fraction::ALWAYS)
        );
        assert_eq!(limit.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(limit.answer.len(), 1);
        let bucket = limit.bucket.unwrap();
        let taken = (0..9).filter(|_| bucket.take(Duration::ZERO)).count();
        assert_eq!(taken, 4);
    }
    let idle = by_message(json!({"stat_prefix": "a"})).unwrap();
    assert!(idle.bucket.is_none() && idle.enabled == Fraction::NEVER);
}

fn descriptor(key: &str, value: &str) -> Value {
    json!({"entries": [{"key": key, "value": value}],
        "token_bucket": {"max_tokens": 1, "fill_interval": "1s"}})
}

#[test]
fn descriptors_have_buckets_the_slowest_first() {
    let mut json = usual();
    let mut slow = descriptor("b", "");
    slow["token_bucket"]["fill_interval"] = "3600s".into();
    json["descriptors"] = json!([descriptor("a", "1"), slow]);
    json["stage"] = 3.into();
    json["vh_rate_limits"] = "IGNORE".into();
    json["always_consume_default_token_bucket"] = false.into();
    json["rate_limits"] = json!([{"actions": [
        {"request_headers": {"header_name": "X-A", "descriptor_key": "a", "skip_if_absent": true}},
        {"masked_remote_address": {"v4_prefix_mask_len": 24}},
        {"header_value_match": {"descriptor_value": "v", "expect_match": false,
            "headers": [{"name": ":path", "string_match": {"prefix": "/x"}}]}},
    ]}]);
    let limit = by_struct(&json).unwrap();
    let descriptors = limit.descriptors.unwrap();
    let keys = descriptors.buckets.iter();
    let keys = keys.map(|one| (&*one.entries[0].0, one.entries[0].1.is_some()));
    assert_eq!(keys.collect::<Vec<_>>(), [("b", false), ("a", true)]);
    assert!(!descriptors.always_common);
    assert_eq!((descriptors.stage, descriptors.host), (3, HostLimits::No));
    let [own] = descriptors.own.as_slice() else {
        panic!("not one limit: {:?}", descriptors.own);
    };
    assert_eq!(own.stage, 3);
    let [
        Action::Header { optional: true, .. },
        Action::MaskedRemoteAddress { v4: 24, v6: 128 },
        Action::HeaderMatch {
            key,
            expected: false,
            ..
        },
    ] = own.actions.as_slice()
    else {
        panic!("other actions: {:?}", own.actions);
    };
    assert_eq!(&**key, "header_match");
}

#[test]
fn what_the_filters_own_descriptors_cannot_be_made_of_is_refused() {
    for (field, value, told) in [
        (
            "actions",
            json!([{"source_cluster": {}}]),
            "rate_limits[0].actions[0].source_cluster",
        ),
        (
            "actions",
            json!([{"generic_key": {}}]),
            "rate_limits[0].actions[0].generic_key.descriptor_value: must not",
        ),
        (
            "actions",
            json!([{"masked_remote_address": {"v4_prefix_mask_len": 33}}]),
            "rate_limits[0].actions[0].masked_remote_address.v4_prefix_mask_len: 33 is more",
        ),
        ("disable_key", json!("x"), "rate_limits[0].disable_key"),
    ] {
        let mut json = usual();
        json["descriptors"] = json!([descriptor("a", "1")]);
        json["rate_limits"] = json!([{"actions": [{"remote_address": {}}]}]);
        json["rate_limits"][0][field] = value;
        let refused = by_message(json).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn what_routes_say_is_kept_but_for_what_is_not_looked_at() {
    let mut notes = Notes::default();
    let limits = [
        json!({"actions": [{"remote_address": {}}, {"generic_key": {"descriptor_value": "v"}}]}),
        json!({"stage": 2, "actions": [{"destination_cluster": {}}]}),
        json!({"disable_key": "off", "actions": [{"remote_address": {}}]}),
        json!({"actions": [{"remote_address": {}}, {"metadata": {"descriptor_key": "m",
            "metadata_key": {"key": "k", "path": [{"key": "p"}]}}}]}),
    ];
    let limits = limits.map(|json| message_from_json(json).unwrap());
    let kept = on_routes(limits.into(), &mut notes).unwrap();
    let stages: Vec<_> = kept
        .iter()
        .map(|one| (one.stage, one.actions.len()))
        .collect();
    assert_eq!(stages, [(0, 2), (2, 1)]);
    let told: Vec<_> = notes.iter().map(|(name, ..)| name).collect();
    assert_eq!(told, ["RateLimit.Action.metadata"]);
}

#[test]
fn what_limits_by_more_than_tokens_of_one_process_is_refused() {
    for (field, value, told) in [
        (
            "descriptors",
            json!([descriptor("a", "b"), descriptor("a", "b")]),
            "descriptors[1]: stands twice",
        ),
        (
            "descriptors",
            json!([{"entries": [{"key": "a"}]}]),
            "descriptors[0].token_bucket: must be set",
        ),
        (
            "descriptors",
            json!([{"token_bucket": {"max_tokens": 1, "fill_interval": "1s"}}]),
            "descriptors[0].entries: must not be empty",
        ),
        (
            "local_rate_limit_per_downstream_connection",
            json!(true),
            "local_rate_limit_per",
        ),
        (
            "token_bucket",
            json!({"max_tokens": 1, "fill_interval": "0.010s"}),
            "token_bucket.fill_interval: 10ms is less",
        ),
        (
            "token_bucket",
            json!({"max_tokens": 1}),
            "token_bucket.fill_interval: must be set",
        ),
        (
            "token_bucket",
            json!({"max_tokens": 0, "fill_interval": "1s"}),
            "token_bucket: 0 tokens",
        ),
    ] {
        let mut json = usual();
        json[field] = value;
        let refused = by_message(json).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
    assert!(by_struct(&json!({"no_such_field": 1})).is_err());
}
