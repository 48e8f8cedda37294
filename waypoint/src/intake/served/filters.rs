//! The table's lines for filters.

use super::Decision::{Counted, Ignored, Refused};
use super::Row;

pub(super) const ROWS: &[Row] = &[
    (
        Refused,
        "RBAC",
        &["matcher", "shadow_matcher"],
        "policies are lists of rules, not trees of matchers",
    ),
    (
        Ignored,
        "RBAC",
        &["rules_stat_prefix", "track_per_rule_stats"],
        "decisions are counted under one name",
    ),
    (
        Ignored,
        "network.RBAC",
        &["delay_deny"],
        "a denied connection is closed at once",
    ),
    (
        Counted,
        "config.RBAC",
        &["audit_logging_options"],
        "decisions are in the access log",
    ),
    (
        Refused,
        "Policy",
        &["condition", "checked_condition", "cel_config"],
        "conditions in CEL aren't evaluated",
    ),
    (
        Refused,
        "JwtAuthentication",
        &["filter_state_rules"],
        "requests would pass without the token that they need",
    ),
    (
        Ignored,
        "JwtAuthentication",
        &["strip_failure_response"],
        "the answer to a bad token says no more than Envoy's",
    ),
    (
        Counted,
        "JwtProvider",
        &["failed_status_in_metadata"],
        "nothing reads it but filters of one's own",
    ),
    (
        Ignored,
        "JwtProvider",
        &["jwt_cache_config"],
        "whether tokens are remembered changes no outcome",
    ),
    (
        Ignored,
        "RemoteJwks",
        &["async_fetch", "retry_policy"],
        "keys are fetched ahead, and again after a failure",
    ),
    (
        Refused,
        "HTTPFault",
        &["downstream_nodes"],
        "faults would hit those that they aren't for",
    ),
    (
        Counted,
        "HTTPFault",
        &["response_rate_limit"],
        "answers aren't slowed down",
    ),
    (
        Counted,
        "FaultAbort",
        &["response_body"],
        "the answer is Envoy's: fault filter abort",
    ),
    (Ignored, "CorsPolicy", &["shadow_enabled"], "it only counts"),
    (
        Counted,
        "StatefulSession",
        &["status_on_strict_destination_not_found"],
        "the status is 503",
    ),
    (
        Counted,
        "Cookie",
        &["attributes"],
        "the cookie is HttpOnly, with its path and lifetime",
    ),
    (
        Refused,
        "set_filter_state.Config",
        &["clear_route_cache"],
        "routes aren't chosen by filter state",
    ),
    (
        Ignored,
        "FilterStateValue",
        &["read_only", "skip_if_empty"],
        "what istiod writes down is known here anyway, and never changes",
    ),
    (
        Ignored,
        "Router",
        &[
            "dynamic_stats",
            "start_child_span",
            "upstream_log_options",
            "suppress_grpc_request_failure_code_stats",
            "reject_connect_request_early_data",
        ],
        "it tunes Envoy's own statistics and spans",
    ),
    (
        Counted,
        "Router",
        &["upstream_log"],
        "attempts are told of in the request's own line",
    ),
    (
        Counted,
        "Router",
        &[
            "suppress_envoy_headers",
            "strict_check_headers",
            "respect_expected_rq_timeout",
        ],
        "the x-envoy headers of requests are as Envoy treats them by default",
    ),
    (
        Counted,
        "stats.PluginConfig",
        &["definitions"],
        "the metrics are Istio's",
    ),
];
