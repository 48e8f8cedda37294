//! What is done with the requests of a route.

use super::super::api::{any, core, duration, matcher, parsed, regex, route, seconds, truth};
use super::super::view::{Hosted, View};
use super::filter::{cross_origin, injected};
use super::headers::Changes;
use super::matches::escaped;
use super::retry::retries;
use super::{destination, fraction, share, weight, whole};
use crate::objects::Kind;
use crate::objects::virtual_service::{
    Destination, DirectResponse, HttpRedirect, HttpRewrite, HttpRoute, Percent,
};

use route::route_action::{ClusterSpecifier, HostRewriteSpecifier};

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
