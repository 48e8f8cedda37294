//! The table's lines for routes.

use super::Decision::{Counted, Ignored, Refused};
use super::Row;

pub(super) const ROWS: &[Row] = &[
    (
        Refused,
        "RouteConfiguration",
        &["vhds"],
        "virtual hosts stand in their table",
    ),
    (
        Refused,
        "RouteConfiguration",
        &[
            "cluster_specifier_plugins",
            "vhost_header",
            "ignore_path_parameters_in_path_matching",
            "route_specifiers",
        ],
        "requests would go elsewhere",
    ),
    (
        Refused,
        "VirtualHost",
        &["matcher", "route_specifiers"],
        "requests would go elsewhere",
    ),
    (
        Refused,
        "VirtualHost",
        &["cors"],
        "it moved to the CORS filter's own configuration (typed_per_filter_config)",
    ),
    (
        Refused,
        "VirtualHost",
        &["retry_policy_typed_config"],
        "retries are decided by no extension",
    ),
    (
        Ignored,
        "VirtualHost",
        &["virtual_clusters"],
        "they only name statistics",
    ),
    (
        Counted,
        "VirtualHost",
        &["hedge_policy", "include_is_timeout_retry_header"],
        "a request has one attempt at a time",
    ),
    (
        Ignored,
        "VirtualHost",
        &[
            "per_request_buffer_limit_bytes",
            "request_body_buffer_limit",
        ],
        "buffers are bounded anyway",
    ),
    (
        Ignored,
        "Route",
        &[
            "per_request_buffer_limit_bytes",
            "request_body_buffer_limit",
        ],
        "buffers are bounded anyway",
    ),
    (
        Refused,
        "Route",
        &["route_specifiers"],
        "requests would go elsewhere",
    ),
    (
        Refused,
        "RouteMatch",
        &["cookies", "tls_context"],
        "the route would take requests that aren't for it",
    ),
    (
        Refused,
        "RouteAction",
        &["path_rewrite_policy", "path_rewrite"],
        "paths are rewritten by prefix or expression",
    ),
    (
        Refused,
        "RouteAction",
        &["cors"],
        "it moved to the CORS filter's own configuration (typed_per_filter_config)",
    ),
    (
        Refused,
        "RouteAction",
        &["retry_policy_typed_config"],
        "retries are decided by no extension",
    ),
    (
        Refused,
        "RouteAction",
        &["internal_redirect_policy", "internal_redirect_action"],
        "redirects of upstreams go to the client",
    ),
    (
        Ignored,
        "RouteAction",
        &["max_internal_redirects"],
        "redirects of upstreams go to the client",
    ),
    (
        Ignored,
        "route.RateLimit",
        &[
            "limit",
            "hits_addend",
            "apply_on_stream_done",
            "x_ratelimit_option",
        ],
        "only a rate-limit service reads them",
    ),
    (
        Counted,
        "RouteAction",
        &["priority"],
        "limits of a cluster are those of the default priority",
    ),
    (
        Counted,
        "RouteAction",
        &["hedge_policy"],
        "a request has one attempt at a time",
    ),
    (
        Ignored,
        "RouteAction",
        &["flush_timeout", "early_data_policy"],
        "it tunes what Envoy does inside",
    ),
    (
        Refused,
        "UpgradeConfig",
        &["connect_config"],
        "tunnels end at connect_terminate only",
    ),
    (
        Ignored,
        "WeightedCluster",
        &["total_weight", "runtime_key_prefix"],
        "the weights add up to their sum, and there is no runtime",
    ),
    (
        Refused,
        "WeightedCluster",
        &["random_value_specifier"],
        "requests would be split in another way",
    ),
    (
        Refused,
        "ClusterWeight",
        &["cluster_header", "metadata_match"],
        "requests would go elsewhere",
    ),
    (
        Refused,
        "RequestMirrorPolicy",
        &["cluster_header"],
        "copies would go elsewhere",
    ),
    (
        Ignored,
        "RequestMirrorPolicy",
        &["trace_sampled"],
        "copies aren't traced",
    ),
    (
        Counted,
        "RequestMirrorPolicy",
        &["request_headers_mutations", "host_rewrite_literal"],
        "copies are like the request",
    ),
    (
        Refused,
        "DirectResponseAction",
        &["body_format"],
        "the body stands in the route as it is",
    ),
    (
        Counted,
        "Metadata",
        &["typed_filter_metadata"],
        "metadata is compared as texts",
    ),
    (
        Counted,
        "RetryPolicy",
        &["retry_options_predicates", "rate_limited_retry_back_off"],
        "pauses between attempts follow retry_back_off",
    ),
    (
        Ignored,
        "RetryPolicy",
        &["refresh_cluster_on_retry"],
        "the cluster is chosen once for a request",
    ),
];
