//! HTTPRoute, GRPCRoute, TCPRoute and TLSRoute of the mesh → the VirtualService that says the same.
//!
//! As istiod does it: a route whose parent is a service applies to that service's callers; a
//! backend in another namespace needs that namespace's leave (a ReferenceGrant), and one that is
//! wrong is answered with 500. (istio/istio, `pilot/pkg/config/kube/gateway/conversion.go`)

mod filter;

use std::collections::BTreeMap;

use crate::objects::Kind;
use crate::objects::gateway_route::{
    BackendRef, GatewayRoute, ParentRef, RouteMatch, RouteRule, ValueMatch,
};
use crate::objects::virtual_service::{
    Destination, HttpDestination, HttpMatch, HttpRetry, HttpRoute, L4Match, PortSelector,
    RouteDestination, StringMatch, TcpRoute, TlsRoute, VirtualService,
};

use filter::filters;

/// What of the cluster a route is made with.
pub struct Surroundings<'a> {
    /// The route's namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The DNS suffix of services.
    pub domain: &'a str,
    /// Whether a route here may name a service there.
    pub granted: &'a dyn Fn(&str, &str) -> bool,
    /// Whether a service, by namespace and name, has this port; `None` if there is no such service.
    pub has_port: &'a dyn Fn(&str, &str, u32) -> Option<bool>,
}

/// The VirtualService of one parent of a route, and what in the route is wrong.
#[must_use]
pub fn virtual_service(
    kind: Kind,
    route: &GatewayRoute,
    parent: &ParentRef,
    around: &Surroundings<'_>,
) -> (VirtualService, Vec<String>) {
    let mut problems = Vec::new();
    let namespace = parent.namespace.as_deref().unwrap_or(around.namespace);
    let host = format!("{}.{namespace}.svc.{}", parent.name, around.domain);
    let mut made = VirtualService {
        hosts: vec![host.clone()],
        gateways: vec!["mesh".to_owned()],
        ..VirtualService::default()
    };
    for (number, rule) in route.rules.iter().enumerate() {
        match kind {
            Kind::TcpRoute => made.tcp.push(TcpRoute {
                r#match: parent
                    .port
                    .map(|port| L4Match {
                        port: Some(port),
                        ..L4Match::default()
                    })
                    .into_iter()
                    .collect(),
                route: l4(rule, around, &mut problems),
            }),
            Kind::TlsRoute => made.tls.push(TlsRoute {
                r#match: vec![L4Match {
                    sni_hosts: if route.hostnames.is_empty() {
                        vec![host.clone()]
                    } else {
                        route.hostnames.clone()
                    },
                    port: parent.port,
                    ..L4Match::default()
                }],
                route: l4(rule, around, &mut problems),
            }),
            _ => {
                let mut route = http(kind, rule, parent, around, &mut problems);
                let usual = || format!("{}.{}.{number}", around.namespace, around.name);
                route.name = rule.name.clone().unwrap_or_else(usual);
                made.http.push(route);
            }
        }
    }
    // Of several rules the most exact is tried first, whatever their order.
    made.http = by_precedence(std::mem::take(&mut made.http));
    (made, problems)
}

/// One rule for each match, the most exact first: exact paths, longer prefixes, a method, more
/// headers, more query parameters; of the same, the earlier. (Gateway API, HTTPRouteMatch)
fn by_precedence(routes: Vec<HttpRoute>) -> Vec<HttpRoute> {
    let mut single = Vec::new();
    for route in routes {
        if route.r#match.is_empty() {
            single.push(route);
            continue;
        }
        for found in &route.r#match {
            single.push(HttpRoute {
                r#match: vec![found.clone()],
                ..route.clone()
            });
        }
    }
    single.sort_by_key(|route| std::cmp::Reverse(exactness(route)));
    single
}

/// How exactly a route with one match says what it wants; of several routes of a service too, the most
/// exact is tried first. A path that begins with `/`, said or not, asks for nothing: whatever asks for
/// more comes before it.
pub(super) fn exactness(route: &HttpRoute) -> (u8, usize, bool, usize, usize) {
    let Some(found) = route.r#match.first() else {
        return (0, 0, false, 0, 0);
    };
    let uri = found.uri.clone().unwrap_or_default();
    let (rank, length) = match (&uri.exact, &uri.prefix, &uri.regex) {
        (Some(exact), _, _) => (3, exact.len()),
        (_, Some(prefix), _) if prefix != "/" => (2, prefix.trim_end_matches('/').len()),
        (_, _, Some(regex)) => (1, regex.len()),
        _ => (0, 0),
    };
    let (headers, queries) = (found.headers.len(), found.query_params.len());
    (rank, length, found.method.is_some(), headers, queries)
}

fn http(
    kind: Kind,
    rule: &RouteRule,
    parent: &ParentRef,
    around: &Surroundings<'_>,
    problems: &mut Vec<String>,
) -> HttpRoute {
    let mut made = HttpRoute::default();
    for found in &rule.matches {
        made.r#match.push(HttpMatch {
            port: parent.port,
            ..matched(kind, found)
        });
    }
    if made.r#match.is_empty() {
        made.r#match.push(HttpMatch {
            port: parent.port,
            ..HttpMatch::default()
        });
    }
    filters(&rule.filters, around, &mut made, problems);
    if made.redirect.is_none() {
        let weights: Vec<u32> = rule
            .backend_refs
            .iter()
            .map(|to| to.weight.unwrap_or(1))
            .collect();
        for (to, weight) in rule.backend_refs.iter().zip(weights) {
            if weight == 0 {
                continue;
            }
            let destination = backend(to, around, problems).unwrap_or_default();
            let mut headers = HttpRoute::default();
            filters(&to.filters, around, &mut headers, problems);
            made.route.push(HttpDestination {
                destination,
                weight,
                headers: headers.headers,
            });
        }
    }
    if let Some(timeouts) = &rule.timeouts {
        made.timeout = timeouts.request;
    }
    let per_try = rule
        .timeouts
        .as_ref()
        .and_then(|timeouts| timeouts.backend_request);
    made.retries = match &rule.retry {
        Some(retry) => {
            let codes: Vec<String> = retry.codes.iter().map(ToString::to_string).collect();
            let mut on = codes.join(",");
            if !on.is_empty() {
                on.insert_str(0, "connect-failure,refused-stream,unavailable,cancelled,");
            }
            Some(HttpRetry {
                attempts: retry.attempts.unwrap_or(2),
                retry_on: on,
                backoff: retry.backoff,
                per_try_timeout: per_try,
                ..HttpRetry::default()
            })
        }
        None => per_try.map(|timeout| HttpRetry {
            attempts: 2,
            per_try_timeout: Some(timeout),
            ..HttpRetry::default()
        }),
    };
    made
}

fn matched(kind: Kind, found: &RouteMatch) -> HttpMatch {
    let mut made = HttpMatch::default();
    if kind == Kind::GrpcRoute {
        made.uri = found.method.as_ref().and_then(grpc_path);
    } else {
        made.uri = Some(match &found.path {
            None => StringMatch {
                prefix: Some("/".to_owned()),
                ..StringMatch::default()
            },
            Some(path) => wanted(path, "PathPrefix", "/"),
        });
        made.method = found
            .method
            .as_ref()
            .and_then(|method| method.as_str())
            .map(|method| StringMatch {
                exact: Some(method.to_owned()),
                ..StringMatch::default()
            });
    }
    let named = |all: &[ValueMatch], lower: bool| -> BTreeMap<String, StringMatch> {
        // Of several for one name the first counts.
        let pairs = all.iter().rev().map(|one| {
            let name = if lower {
                one.name.to_ascii_lowercase()
            } else {
                one.name.clone()
            };
            (name, wanted(one, "Exact", ""))
        });
        pairs.collect()
    };
    made.headers = named(&found.headers, true);
    made.query_params = named(&found.query_params, false);
    made
}

fn wanted(value: &ValueMatch, usual: &str, nothing: &str) -> StringMatch {
    let text = value.value.clone().unwrap_or_else(|| nothing.to_owned());
    match value.r#type.as_deref().unwrap_or(usual) {
        "PathPrefix" => StringMatch {
            prefix: Some(text),
            ..StringMatch::default()
        },
        "RegularExpression" => StringMatch {
            regex: Some(text),
            ..StringMatch::default()
        },
        _ => StringMatch {
            exact: Some(text),
            ..StringMatch::default()
        },
    }
}

/// gRPC's `/SERVICE/METHOD`.
fn grpc_path(method: &serde_json::Value) -> Option<StringMatch> {
    let part = |name: &str| {
        method
            .get(name)
            .and_then(serde_json::Value::as_str)
            .filter(|part| !part.is_empty())
    };
    let (service, called) = (part("service"), part("method"));
    if method.get("type").and_then(serde_json::Value::as_str) == Some("RegularExpression") {
        let pattern = format!(
            "/{}/{}",
            service.unwrap_or("[^/]+"),
            called.unwrap_or("[^/]+")
        );
        return Some(StringMatch {
            regex: Some(pattern),
            ..StringMatch::default()
        });
    }
    match (service, called) {
        (Some(service), Some(called)) => Some(StringMatch {
            exact: Some(format!("/{service}/{called}")),
            ..StringMatch::default()
        }),
        (Some(service), None) => Some(StringMatch {
            prefix: Some(format!("/{service}/")),
            ..StringMatch::default()
        }),
        (None, Some(called)) => Some(StringMatch {
            regex: Some(format!("/[^/]+/{called}")),
            ..StringMatch::default()
        }),
        (None, None) => None,
    }
}

fn l4(
    rule: &RouteRule,
    around: &Surroundings<'_>,
    problems: &mut Vec<String>,
) -> Vec<RouteDestination> {
    let made = rule
        .backend_refs
        .iter()
        .filter(|to| to.weight != Some(0))
        .map(|to| RouteDestination {
            destination: backend(to, around, problems).unwrap_or_default(),
            weight: to.weight.unwrap_or(1),
        });
    made.collect()
}

/// Where a reference leads; `None` and a problem where it leads nowhere.
fn backend(
    to: &BackendRef,
    around: &Surroundings<'_>,
    problems: &mut Vec<String>,
) -> Option<Destination> {
    let (group, kind) = (
        to.group.as_deref().unwrap_or_default(),
        to.kind.as_deref().unwrap_or("Service"),
    );
    if !matches!(group, "" | "core") || kind != "Service" {
        problems.push(format!(
            "InvalidKind: backendRef to {group:?} {kind} {}: only a Service can be one",
            to.name
        ));
        return None;
    }
    let namespace = to.namespace.as_deref().unwrap_or(around.namespace);
    if namespace != around.namespace && !(around.granted)(namespace, &to.name) {
        problems.push(format!(
            "RefNotPermitted: backendRef {namespace}/{} is not permitted by a ReferenceGrant there",
            to.name
        ));
        return None;
    }
    let Some(port) = to.port else {
        problems.push(format!("backendRef {} has no port", to.name));
        return None;
    };
    match (around.has_port)(namespace, &to.name, port) {
        None => problems.push(format!(
            "BackendNotFound: backendRef {namespace}/{} is no service",
            to.name
        )),
        Some(false) => problems.push(format!(
            "BackendNotFound: service {namespace}/{} has no port {port}",
            to.name
        )),
        Some(true) => {}
    }
    Some(Destination {
        host: format!("{}.{namespace}.svc.{}", to.name, around.domain),
        subset: String::new(),
        port: Some(PortSelector { number: port }),
    })
}
