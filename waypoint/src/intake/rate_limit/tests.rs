//! What users write as an EnvoyFilter, in both forms, and what is refused.

use envoy_types::pb::google::protobuf as google;
use prost::{Message as _, Name as _};
use serde_json::json;

use super::*;
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

#[test]
fn what_limits_by_more_than_a_bucket_is_refused() {
    for (field, value, told) in [
        (
            "descriptors",
            json!([{"entries": [{"key": "a", "value": "b"}],
            "token_bucket": {"max_tokens": 1, "fill_interval": "1s"}}]),
            "descriptors: is not",
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
