//! What is done with the requests of a route.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::super::api::{
    any, core, duration, matcher, number, parsed, regex, route, seconds, string, truth,
};
use super::super::view::{Hosted, View};
use super::matches::{escaped, pattern};
use super::{destination, fraction, share, weight, whole};
use crate::objects::Kind;
use crate::objects::virtual_service::{
    CorsPolicy, Destination, DirectResponse, Fault, HeaderOperations, Headers, HttpRedirect,
    HttpRetry, HttpRewrite, HttpRoute, Percent,
};

use route::route_action::{ClusterSpecifier, HostRewriteSpecifier};

/// Istio's usual reasons to try again.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// Completes a route that has its match.
pub(super) fn apply(
    view: &View<'_>,
    hosted: &Hosted,
    http: &HttpRoute,
    port: u16,
    made: &mut route::Route,
) -> Result<(), String> {
    let mut authority = String::new();
    if let Some(headers) = &http.headers {
        let changes = Changes::of(headers);
        authority = changes.authority.clone();
        changes.onto_route(made);
    }
    if let Some(to) = &http.redirect {
        made.action = Some(redirect(to, port)?);
    } else if let Some(response) = &http.direct_response {
        made.action = Some(respond(response)?);
    } else {
        forward(view, hosted, http, port, authority, made)?;
    }
    if let Some(found) = &http.fault
        && let Some(fault) = injected(found)?
    {
        made.typed_per_filter_config
            .insert("envoy.filters.http.fault".to_owned(), any(&fault));
    }
    if let Some(policy) = &http.cors_policy {
        made.typed_per_filter_config.insert(
            "envoy.filters.http.cors".to_owned(),
            any(&cross_origin(policy)),
        );
    }
    Ok(())
}

fn forward(
    view: &View<'_>,
    hosted: &Hosted,
    http: &HttpRoute,
    port: u16,
    mut authority: String,
    made: &mut route::Route,
) -> Result<(), String> {
    let gateway_api = hosted.kind != Kind::VirtualService;
    if http.route.is_empty() && !gateway_api {
        return Err(format!(
            "http route {:?} has neither route, redirect, directResponse nor delegate",
            http.name
        ));
    }
    let mut action = route::RouteAction::default();
    set_timeout(&mut action, http.timeout.map(|timeout| duration(timeout.0)));
    if gateway_api {
        action.cluster_not_found_response_code =
            route::route_action::ClusterNotFoundResponseCode::InternalServerError.into();
    }
    if let Some(rewritten) = &http.rewrite {
        rewrite(rewritten, gateway_api, made, &mut action);
        if !rewritten.authority.is_empty() {
            authority.clone_from(&rewritten.authority);
        }
    }
    if !authority.is_empty() {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority));
    }
    mirrors(view, http, port, &mut action);
    let mut sticky = false;
    match http.route.as_slice() {
        [one] => {
            action.cluster_specifier = Some(ClusterSpecifier::Cluster(destination(
                view,
                &one.destination,
                port,
            )));
            if let Some(headers) = &one.headers {
                let changes = Changes::of(headers);
                if !changes.authority.is_empty() && action.host_rewrite_specifier.is_none() {
                    action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(
                        changes.authority.clone(),
                    ));
                }
                changes.onto_route(made);
            }
            let hash = hash(view, &one.destination, port);
            sticky = hash.is_some();
            action.hash_policy.extend(hash);
        }
        several => {
            let mut clusters = Vec::new();
            for to in several.iter().filter(|to| to.weight > 0) {
                let mut cluster = route::weighted_cluster::ClusterWeight {
                    name: destination(view, &to.destination, port),
                    weight: weight(to.weight),
                    ..Default::default()
                };
                if let Some(headers) = &to.headers {
                    Changes::of(headers).onto_cluster(&mut cluster);
                }
                action.hash_policy.extend(hash(view, &to.destination, port));
                clusters.push(cluster);
            }
            if clusters.is_empty() && gateway_api {
                // All references are wrong, or none has a share: 500, as the Gateway API asks.
                made.action = Some(respond(&DirectResponse {
                    status: 500,
                    body: None,
                })?);
                return Ok(());
            }
            action.cluster_specifier =
                Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
                    clusters,
                    ..Default::default()
                }));
        }
    }
    action.retry_policy = retries(http.retries.as_ref(), sticky);
    made.action = Some(route::route::Action::Route(action));
    Ok(())
}

/// For the whole request; zero and nothing are no limit.
pub(super) fn set_timeout(
    action: &mut route::RouteAction,
    timeout: Option<super::super::api::Duration>,
) {
    let timeout = timeout.or(seconds(0));
    action.timeout = timeout;
    #[allow(deprecated)] // As istiod: Envoy's successor of the field behaves otherwise.
    {
        action.max_grpc_timeout = timeout;
    }
}

fn rewrite(
    rewrite: &HttpRewrite,
    gateway_api: bool,
    made: &route::Route,
    action: &mut route::RouteAction,
) {
    use route::route_match::PathSpecifier;
    if let Some(by_pattern) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
            pattern: Some(regex(&by_pattern.r#match)),
            substitution: by_pattern.rewrite.clone(),
        });
    } else if gateway_api && rewrite.uri == "/" {
        let prefix = match made
            .r#match
            .as_ref()
            .and_then(|found| found.path_specifier.as_ref())
        {
            Some(PathSpecifier::PathSeparatedPrefix(prefix)) => prefix.as_str(),
            _ => "",
        };
        // A slash stays where the whole path goes.
        action.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
            pattern: Some(regex(format!("^{}(/?)(.*)", escaped(prefix)))),
            substitution: r"/\2".to_owned(),
        });
    } else if !rewrite.uri.is_empty() {
        action.prefix_rewrite.clone_from(&rewrite.uri);
    }
}

fn mirrors(view: &View<'_>, http: &HttpRoute, port: u16, action: &mut route::RouteAction) {
    let percent = |said: Option<Percent>, older: Option<u32>| match (said, older) {
        (Some(Percent { value }), _) if value > 0.0 => Some(share(value)),
        (Some(_), _) | (None, Some(0)) => None,
        (None, Some(older)) => Some(whole(older)),
        (None, None) => Some(whole(100)),
    };
    let first = http
        .mirror
        .as_ref()
        .map(|to| (to, percent(http.mirror_percentage, http.mirror_percent)));
    let others = http.mirrors.iter().filter_map(|mirror| {
        Some((
            mirror.destination.as_ref()?,
            percent(mirror.percentage, None),
        ))
    });
    for (to, how_many) in first.into_iter().chain(others) {
        let Some(how_many) = how_many else { continue };
        action
            .request_mirror_policies
            .push(route::route_action::RequestMirrorPolicy {
                cluster: destination(view, to, port),
                runtime_fraction: Some(fraction(how_many)),
                trace_sampled: truth(false),
                disable_shadow_host_suffix_append: true,
                ..Default::default()
            });
    }
}

/// How often and when a request is tried again; `None` where it is not.
pub(super) fn retries(said: Option<&HttpRetry>, sticky: bool) -> Option<route::RetryPolicy> {
    let previous_hosts = || route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(
            route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate {},
            )),
        ),
    };
    let mut policy = route::RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: number(2),
        retry_host_predicate: if sticky {
            Vec::new()
        } else {
            vec![previous_hosts()]
        },
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    };
    let Some(said) = said else {
        return Some(policy);
    };
    policy.num_retries = number(
        u32::try_from(said.attempts)
            .ok()
            .filter(|attempts| *attempts > 0)?,
    );
    if !said.retry_on.is_empty() {
        let parts = said
            .retry_on
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let (codes, words): (Vec<&str>, Vec<&str>) =
            parts.partition(|part| part.parse::<u32>().is_ok());
        policy.retriable_status_codes = codes.iter().filter_map(|code| code.parse().ok()).collect();
        policy.retry_on = words.join(",");
        if !codes.is_empty() && !words.contains(&"retriable-status-codes") {
            policy.retry_on.push_str(",retriable-status-codes");
        }
    }
    policy.per_try_timeout = parsed(said.per_try_timeout);
    if let Some(elsewhere) = said.retry_ignore_previous_hosts {
        policy.retry_host_predicate = if elsewhere {
            vec![previous_hosts()]
        } else {
            Vec::new()
        };
    }
    if said.retry_remote_localities == Some(true) {
        let config = PreviousPrioritiesConfig {
            update_frequency: 2,
        };
        policy.retry_priority = Some(route::retry_policy::RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(
                route::retry_policy::retry_priority::ConfigType::TypedConfig(any(&config)),
            ),
        });
    }
    policy.retry_back_off = said.backoff.map(|first| route::retry_policy::RetryBackOff {
        base_interval: Some(duration(first.0)),
        ..Default::default()
    });
    Some(policy)
}

/// By what a destination's requests are told apart, where its DestinationRule says so.
pub(super) fn hash(
    view: &View<'_>,
    to: &Destination,
    called: u16,
) -> Option<route::route_action::HashPolicy> {
    use route::route_action::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
    };
    let target = (view.lookup)(&to.host)?;
    let rule = view.rule_of(&target)?;
    let port = to.port.map_or(u32::from(called), |port| port.number);
    let port = u16::try_from(port).ok()?;
    let policy = super::super::cluster::policy_for(&rule, port, &to.subset);
    let hash = policy.load_balancer?.consistent_hash?;
    let specifier = if let Some(header_name) = hash.http_header_name {
        PolicySpecifier::Header(Header {
            header_name,
            ..Default::default()
        })
    } else if let Some(cookie) = hash.http_cookie {
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name,
            path: cookie.path,
            ttl: parsed(cookie.ttl),
            attributes: cookie
                .attributes
                .into_iter()
                .map(|a| CookieAttribute {
                    name: a.name,
                    value: a.value,
                })
                .collect(),
        })
    } else if let Some(name) = hash.http_query_parameter_name {
        PolicySpecifier::QueryParameter(QueryParameter { name })
    } else {
        PolicySpecifier::ConnectionProperties(ConnectionProperties {
            source_ip: hash.use_source_ip?,
        })
    };
    Some(route::route_action::HashPolicy {
        policy_specifier: Some(specifier),
        ..Default::default()
    })
}

fn redirect(to: &HttpRedirect, called: u16) -> Result<route::route::Action, String> {
    use route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };
    let code = match to.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        other => {
            return Err(format!(
                "redirect.redirectCode is {other}: it must be 301, 302, 303, 307 or 308"
            ));
        }
    };
    let port = match (to.port, to.derive_port.as_deref()) {
        (Some(port), _) => port,
        (None, Some("FROM_REQUEST_PORT")) => u32::from(called),
        _ => 0,
    };
    let usual = match to.scheme.as_str() {
        "https" => 443,
        _ => 80,
    };
    let path = if to.prefix_rewrite.is_empty() {
        PathRewriteSpecifier::PathRedirect(to.uri.clone())
    } else {
        PathRewriteSpecifier::PrefixRewrite(to.prefix_rewrite.clone())
    };
    Ok(route::route::Action::Redirect(route::RedirectAction {
        host_redirect: to.authority.clone(),
        port_redirect: if port == usual { 0 } else { port },
        response_code: code.into(),
        path_rewrite_specifier: Some(path),
        scheme_rewrite_specifier: (!to.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(to.scheme.clone())),
        ..Default::default()
    }))
}

fn respond(response: &DirectResponse) -> Result<route::route::Action, String> {
    if !(200..600).contains(&response.status) {
        return Err(format!(
            "directResponse.status is {}: it must be from 200 to 599",
            response.status
        ));
    }
    let body = response.body.as_ref().and_then(|body| {
        let specifier = match (&body.string, &body.bytes) {
            (Some(text), _) => core::data_source::Specifier::InlineString(text.clone()),
            (None, Some(bytes)) => core::data_source::Specifier::InlineBytes(decoded(bytes)?),
            (None, None) => return None,
        };
        Some(core::DataSource {
            specifier: Some(specifier),
            ..Default::default()
        })
    });
    Ok(route::route::Action::DirectResponse(
        route::DirectResponseAction {
            status: response.status,
            body,
            ..Default::default()
        },
    ))
}

fn decoded(bytes: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(bytes).ok()
}

fn injected(found: &Fault) -> Result<Option<fault::HttpFault>, String> {
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

fn grpc_status(name: &str) -> Result<u32, String> {
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

fn cross_origin(policy: &CorsPolicy) -> cors::CorsPolicy {
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

/// Changes of headers, apart from those of the host, which Envoy makes otherwise.
struct Changes {
    request: (Vec<core::HeaderValueOption>, Vec<String>),
    response: (Vec<core::HeaderValueOption>, Vec<String>),
    authority: String,
}

impl Changes {
    fn of(headers: &Headers) -> Self {
        let none = HeaderOperations::default();
        let request = headers.request.as_ref().unwrap_or(&none);
        let host = |values: &std::collections::BTreeMap<String, String>| {
            let is_host = |name: &str| {
                name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
            };
            values
                .iter()
                .find(|(name, _)| is_host(name))
                .map(|(_, value)| value.clone())
        };
        Self {
            request: operations(request),
            response: operations(headers.response.as_ref().unwrap_or(&none)),
            authority: host(&request.set)
                .or_else(|| host(&request.add))
                .unwrap_or_default(),
        }
    }

    fn onto_route(self, made: &mut route::Route) {
        made.request_headers_to_add.extend(self.request.0);
        made.request_headers_to_remove.extend(self.request.1);
        made.response_headers_to_add.extend(self.response.0);
        made.response_headers_to_remove.extend(self.response.1);
    }

    fn onto_cluster(self, cluster: &mut route::weighted_cluster::ClusterWeight) {
        use route::weighted_cluster::cluster_weight::HostRewriteSpecifier;
        cluster.request_headers_to_add = self.request.0;
        cluster.request_headers_to_remove = self.request.1;
        cluster.response_headers_to_add = self.response.0;
        cluster.response_headers_to_remove = self.response.1;
        if !self.authority.is_empty() {
            cluster.host_rewrite_specifier =
                Some(HostRewriteSpecifier::HostRewriteLiteral(self.authority));
        }
    }
}

fn operations(said: &HeaderOperations) -> (Vec<core::HeaderValueOption>, Vec<String>) {
    use core::header_value_option::HeaderAppendAction::{
        AppendIfExistsOrAdd, OverwriteIfExistsOrAdd,
    };
    let ours = |name: &String| !name.starts_with(':') && !name.eq_ignore_ascii_case("host");
    let option = |(name, value): (&String, &String),
                  how: core::header_value_option::HeaderAppendAction| {
        core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: name.clone(),
                value: value.clone(),
                ..Default::default()
            }),
            append_action: how.into(),
            ..Default::default()
        }
    };
    let set = said
        .set
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|entry| option(entry, OverwriteIfExistsOrAdd));
    let add = said
        .add
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|entry| option(entry, AppendIfExistsOrAdd));
    (
        set.chain(add).collect(),
        said.remove
            .iter()
            .filter(|name| ours(name))
            .cloned()
            .collect(),
    )
}
