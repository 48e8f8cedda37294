//! Envoy's `local_ratelimit` for HTTP → [`model::rate_limit`](crate::model::rate_limit). EnvoyFilters
//! write it as a struct as often as by its protobuf; both are read.

use std::time::Duration;

use ::http::StatusCode;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as envoy;
use envoy_types::pb::envoy::r#type::v3 as kind;
use envoy_types::pb::google::protobuf::Any;
use serde_json::Value;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
pub(super) use described::on_routes;

use super::typed::{self, Body};
use super::{headers, plain, text};
use crate::model::rate_limit::RateLimit;
use crate::model::text::Fraction;
use crate::proto::structs;
use crate::rate_limit::Bucket;
use crate::source::json::message_from_json;
use crate::unserved;

mod described;

/// The shortest interval that Envoy accepts.
const SHORTEST: Duration = Duration::from_millis(50);

/// How many values of a descriptor have tokens of their own, where nothing is said of it.
const USUAL_VALUES: u32 = 20;

/// The filter, or what it is on a route.
///
/// # Errors
/// It limits by something that isn't served, or its bucket is none.
pub(super) fn of(config: &Any, notes: &mut Notes) -> Result<RateLimit, Refused> {
    let message = match typed::open(config)?.body {
        Body::Message(_) => typed::unpack_whole(config)?,
        Body::Struct(of) => {
            let json = Value::Object(structs::object(of));
            message_from_json(json)
                .map_err(|error| Refused::new(error.to_string()).under("value"))?
        }
    };
    compile(message, notes)
}

fn compile(limit: envoy::LocalRateLimit, notes: &mut Notes) -> Result<RateLimit, Refused> {
    let envoy::LocalRateLimit {
        stat_prefix: _,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = limit;
    unserved!(notes, "LocalRateLimit":
        local_rate_limit_per_downstream_connection, local_cluster_rate_limit,
        enable_x_ratelimit_headers, enable_retry_after_header);
    let share = |share: Option<_>, field: &str| match share {
        None => Ok(Fraction::NEVER),
        Some(share) => text::runtime_fraction(share).at(field),
    };
    let wanted = described::Wanted {
        own: rate_limits,
        stage,
        host: vh_rate_limits,
        always_common: plain::on_or(always_consume_default_token_bucket, true),
        most: plain::number(max_dynamic_descriptors).unwrap_or(USUAL_VALUES),
    };
    let field = "request_headers_to_add_when_not_enforced";
    Ok(RateLimit {
        descriptors: described::of(descriptors, wanted, notes)?,
        bucket: token_bucket.map(bucket).transpose().at("token_bucket")?,
        enabled: share(filter_enabled, "filter_enabled")?,
        enforced: share(filter_enforced, "filter_enforced")?,
        // As Envoy: what is no error is none here either.
        status: match status.map(|status| u32::try_from(status.code)) {
            Some(Ok(code @ 400..)) => plain::status(code, 400, 599).at("status.code")?,
            _ => StatusCode::TOO_MANY_REQUESTS,
        },
        exhausted: rate_limited_as_resource_exhausted,
        answer: each("response_headers_to_add", response_headers_to_add, |one| {
            headers::set(one, notes)
        })?,
        passed: each(field, request_headers_to_add_when_not_enforced, |one| {
            headers::set(one, notes)
        })?,
    })
}

fn bucket(bucket: kind::TokenBucket) -> Result<Bucket, Refused> {
    let kind::TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    } = bucket;
    let interval = plain::duration(need(fill_interval, "fill_interval")?).at("fill_interval")?;
    if interval < SHORTEST {
        let reason = format!("{interval:?} is less than {SHORTEST:?}");
        return Err(Refused::new(reason).under("fill_interval"));
    }
    let per_fill = plain::number(tokens_per_fill).unwrap_or(1);
    Bucket::new(max_tokens, per_fill, interval).ok_or_else(|| {
        Refused::new(format!(
            "{max_tokens} tokens, {per_fill} in {interval:?}: there would never be one, or always"
        ))
    })
}

#[cfg(test)]
mod tests;
