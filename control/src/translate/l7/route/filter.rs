//! What single filters do on a route: faults, and cross-origin requests.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;

use super::super::api::{duration, matcher, string, truth};
use super::matches::pattern;
use super::{fraction, share, whole};
use crate::objects::virtual_service::{CorsPolicy, Fault};

pub(super) fn injected(found: &Fault) -> Result<Option<fault::HttpFault>, String> {
    let delay = match &found.delay {
        Some(delay) => {
            let fixed = delay.fixed_delay.ok_or("fault.delay needs fixedDelay")?;
            let how_many = delay
                .percentage
                .map_or_else(|| whole(delay.percent), |percent| share(percent.value));
            Some(common_fault::FaultDelay {
                fault_delay_secifier: Some(
                    common_fault::fault_delay::FaultDelaySecifier::FixedDelay(duration(fixed.0)),
                ),
                percentage: Some(how_many),
            })
        }
        None => None,
    };
    let abort = match &found.abort {
        Some(abort) => {
            let error = match (abort.http_status, &abort.grpc_status) {
                (Some(status), _) => fault::fault_abort::ErrorType::HttpStatus(status),
                (None, Some(name)) => fault::fault_abort::ErrorType::GrpcStatus(grpc_status(name)?),
                (None, None) => return Err("fault.abort needs httpStatus or grpcStatus".to_owned()),
            };
            Some(fault::FaultAbort {
                error_type: Some(error),
                percentage: abort.percentage.map(|percent| share(percent.value)),
                ..Default::default()
            })
        }
        None => None,
    };
    if delay.is_none() && abort.is_none() {
        return Ok(None);
    }
    Ok(Some(fault::HttpFault {
        delay,
        abort,
        ..Default::default()
    }))
}

pub(super) fn grpc_status(name: &str) -> Result<u32, String> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let found = NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|at| u32::try_from(at).ok());
    found.ok_or_else(|| {
        format!(
            "fault.abort.grpcStatus is {name:?}: it must be a status of gRPC such as UNAVAILABLE"
        )
    })
}

pub(super) fn cross_origin(policy: &CorsPolicy) -> cors::CorsPolicy {
    let exact = |origin: &String| matcher::string_matcher::MatchPattern::Exact(origin.clone());
    let mut origins: Vec<_> = policy.allow_origins.iter().filter_map(pattern).collect();
    if origins.is_empty() {
        origins = policy.allow_origin.iter().map(exact).collect();
    }
    cors::CorsPolicy {
        allow_origin_string_match: origins
            .into_iter()
            .map(|pattern| string(pattern, false))
            .collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy
            .max_age
            .map(|age| age.0.as_secs().to_string())
            .unwrap_or_default(),
        allow_credentials: policy.allow_credentials.and_then(truth),
        filter_enabled: Some(fraction(whole(100))),
        forward_not_matching_preflights: truth(
            policy.unmatched_preflights.as_deref() != Some("IGNORE"),
        ),
        ..Default::default()
    }
}
