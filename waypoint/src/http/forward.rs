//! Forwarding a request: its cluster, what is changed in its head, its copies, and the attempts to
//! have it answered. As Envoy's router does it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::Parts;
use http::{HeaderMap, HeaderName, Request, StatusCode, Uri, Version};
use mesh::policy::Permit;

use super::answer::{self, Answered};
use super::attempts::{self, Attempts};
use super::body::RequestBody;
use super::flight::Landing;
use super::flow::Flow;
use super::replay::Replay;
use super::reply::Reply;
use super::{mirror, upgrade};
use crate::model::cluster::Discovery;
use crate::model::route::{Destination, Forward, Retry, Route, VirtualHost};
use crate::model::snapshot::ClusterEntry;
use crate::route::headers::Layers;
use crate::route::rewrite::{self, Host};
use crate::route::{hash, retry, split, timeout};
use crate::telemetry::{Flags, Text};

const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What all attempts of a request share.
pub(super) struct Plan {
    pub(super) cluster: Arc<ClusterEntry>,
    pub(super) permit: Permit,
    pub(super) retry: Option<retry::State>,
    /// The route's rules for retries, or its host's.
    pub(super) rules: Option<Arc<Retry>>,
    pub(super) timeouts: timeout::Timeouts,
    pub(super) hash: Option<u64>,
    pub(super) rewrite_host: bool,
    /// Where the request's header sends it, for a cluster that heeds one.
    pub(super) destination: Option<SocketAddr>,
    /// The upstream is told how often it was tried.
    pub(super) count_attempts: bool,
    /// The route bounds `grpc-timeout`, and the request is gRPC.
    pub(super) tells_grpc: bool,
    /// The endpoint must have these values.
    pub(super) route: Arc<Route>,
}

/// Forwards the request.
pub(super) async fn run(
    flow: &mut Flow<'_>,
    landing: &Landing,
    host: &Arc<VirtualHost>,
    route: &Arc<Route>,
    forward: &Forward,
) -> Result<Answered, Reply> {
    let (cluster, weighted) = cluster(flow, forward)?;
    flow.flight.exchange.borrow_mut().upstream.cluster = Some(cluster.cluster.clone());
    flow.afterwards.change_headers(host, route, weighted);
    let permit = flow.permit.take().ok_or_else(denied)?;
    change_head(flow, host, route, forward, weighted);
    answer::keep(flow);
    let rewrite_host = rewrite(flow, route, forward, weighted);
    let rules = forward.retry.as_ref().or(host.retry.as_ref()).cloned();
    let retry = retry::State::new(rules.as_ref(), &flow.asked.head());
    retry::State::strip(&mut flow.asked.headers);
    let headers = &mut flow.asked.headers;
    let timeouts = timeout::effective(forward, rules.as_deref(), headers, flow.grpc);
    flow.flight.limit(|limit| {
        limit.idle = timeouts.idle.or(limit.idle).filter(|idle| !idle.is_zero());
        limit.whole = timeouts
            .whole
            .or(limit.whole)
            .filter(|whole| !whole.is_zero());
    });
    let hash = hash(flow, forward);
    let plan = Plan {
        destination: destination(flow, &cluster),
        cluster,
        permit,
        rules,
        timeouts,
        hash,
        rewrite_host,
        count_attempts: host.attempt_count_in_request,
        tells_grpc: flow.grpc && forward.max_grpc_timeout.is_some() && forward.stream.is_none(),
        route: route.clone(),
        retry,
    };
    let attempts = send(flow, landing, forward, plan).await;
    if host.attempt_count_in_response {
        let made = flow.flight.exchange.borrow().upstream.attempts;
        flow.afterwards.attempts = Some(made);
    }
    attempts
}

async fn send(
    flow: &mut Flow<'_>,
    landing: &Landing,
    forward: &Forward,
    plan: Plan,
) -> Result<Answered, Reply> {
    let Some(incoming) = flow.body.take() else {
        return Err(Reply::new(StatusCode::BAD_GATEWAY, "", "internal"));
    };
    let telemetry = &flow.http.connection.local.telemetry;
    telemetry.inject(&flow.flight.exchange.borrow(), &mut flow.asked.headers);
    if flow.asked.upgrade.is_some() {
        return Box::pin(upgrade::forward(flow, landing, &plan, incoming)).await;
    }
    let complete = hyper::body::Body::is_end_stream(&incoming);
    let mirrors = mirror::chosen(&forward.mirrors, flow.random);
    let kept = !complete && (plan.retry.is_some() || !mirrors.is_empty());
    let (replay, body) = match kept {
        true => {
            let replay = Replay::new(incoming, &flow.flight, plan.retry.is_some());
            (Some(replay), RequestBody::Empty)
        }
        false => (None, RequestBody::stream(incoming, &flow.flight)),
    };
    for mirror in mirrors {
        mirror::send(flow, mirror, replay.as_ref().map(Replay::copy));
    }
    let attempts = Attempts {
        plan,
        replay,
        first: Some(body),
        complete,
        harmless: flow.asked.method.is_idempotent(),
    };
    attempts::run(flow, attempts).await
}

/// Where a request goes; answered here where that doesn't exist.
fn cluster(
    flow: &Flow<'_>,
    forward: &Forward,
) -> Result<(Arc<ClusterEntry>, Option<usize>), Reply> {
    let missing = || Reply::new(forward.not_found, "", "cluster_not_found").flag(Flags::NO_CLUSTER);
    let head = flow.asked.head();
    let chosen = split::choose(&forward.to, &head, flow.random).ok_or_else(missing)?;
    let entry = flow.view.snapshot.clusters.get(&*chosen.cluster);
    let place = match (&forward.to, chosen.weighted) {
        (Destination::Weighted { clusters, .. }, Some(weighted)) => {
            clusters.iter().position(|one| std::ptr::eq(one, weighted))
        }
        _ => None,
    };
    Ok((entry.ok_or_else(missing)?.clone(), place))
}

/// A request that policy let through has a permit; without one nothing is forwarded.
fn denied() -> Reply {
    let details = "rbac_access_denied_matched_policy[none]";
    Reply::new(StatusCode::FORBIDDEN, crate::policy::DENIED_BODY, details)
}

/// What table, host, route and cluster change in the request's headers.
fn change_head(
    flow: &mut Flow<'_>,
    host: &VirtualHost,
    route: &Route,
    _forward: &Forward,
    weighted: Option<usize>,
) {
    let layers = Layers {
        table: &flow.view.table,
        host,
        route,
        weighted: weighted.and_then(|at| answer::weighted(route, at)),
    };
    // What is written of the first attempt holds for all of them.
    flow.flight.exchange.borrow_mut().upstream.attempts = 1;
    let exchange = flow.flight.exchange.borrow();
    layers.request(&mut flow.asked.headers, &*exchange);
}

/// Another host and path; whether the host is to be the endpoint's.
fn rewrite(flow: &mut Flow<'_>, route: &Route, forward: &Forward, weighted: Option<usize>) -> bool {
    let weighted = weighted.and_then(|at| answer::weighted(route, at));
    let (host, path) = {
        let head = flow.asked.head();
        let host = match rewrite::host(forward, weighted, &head) {
            Host::Keep => None,
            Host::New(host) => Some(Cow::into_owned(host)),
            Host::Endpoint => {
                let path = rewrite::path(forward, &route.matches, head.path);
                rewrite_path(flow, path);
                return true;
            }
        };
        (host, rewrite::path(forward, &route.matches, head.path))
    };
    if let Some(host) = host
        && let Ok(host) = HeaderValue::try_from(host)
    {
        let before = flow.asked.authority.clone();
        if forward.append_forwarded_host {
            flow.asked.headers.append(FORWARDED_HOST, before.clone());
        }
        flow.asked.headers.insert(ORIGINAL_HOST, before);
        flow.flight.exchange.borrow_mut().authority = Text::Header(host.clone());
        flow.asked.set_authority(host);
    }
    rewrite_path(flow, path);
    false
}

fn rewrite_path(flow: &mut Flow<'_>, path: Option<String>) {
    let Some(path) = path else {
        return;
    };
    let before = flow.asked.path.clone();
    if flow.asked.set_path(path)
        && let Some(before) = before
    {
        if let Ok(value) = HeaderValue::from_str(before.as_str()) {
            flow.asked.headers.insert(ORIGINAL_PATH, value);
        }
        let mut exchange = flow.flight.exchange.borrow_mut();
        exchange.original_path = Some(Text::Path(before));
        exchange.path = flow.asked.path.clone().map_or(Text::Empty, Text::Path);
    }
}

fn hash(flow: &mut Flow<'_>, forward: &Forward) -> Option<u64> {
    if forward.hash.is_empty() {
        return None;
    }
    let client = flow.flight.exchange.borrow().client;
    let local = flow.http.connection.down.local;
    let hash = hash::compute(&forward.hash, &flow.asked.head(), client, local);
    flow.afterwards.cookies.extend(hash.cookies);
    hash.value
}

/// Where a cluster's header sends the request instead of to the connection's own destination.
fn destination(flow: &Flow<'_>, cluster: &ClusterEntry) -> Option<SocketAddr> {
    match &cluster.cluster.discovery {
        Discovery::OriginalDestination {
            header: Some(name), ..
        } => flow.asked.head().header(name)?.trim().parse().ok(),
        _ => None,
    }
}

/// The upstream is told of the attempt's own span, where it has one.
pub(super) fn trace(flow: &mut Flow<'_>) {
    let exchange = &mut *flow.flight.exchange.borrow_mut();
    let telemetry = &flow.http.connection.local.telemetry;
    telemetry.attempt(&flow.view.chain, exchange, &mut flow.asked.headers);
}

/// The request as it is sent: the last attempt takes the head, others a copy.
pub(super) fn request(flow: &mut Flow<'_>, body: RequestBody, last: bool) -> Request<RequestBody> {
    let headers = match last {
        true => std::mem::take(&mut flow.asked.headers),
        false => flow.asked.headers.clone(),
    };
    let mut headers = headers;
    bound(&mut headers, &body);
    let mut request = Request::new(body);
    *request.method_mut() = flow.asked.method.clone();
    // What a cluster goes by that speaks as its clients do.
    *request.version_mut() = flow.asked.version;
    *request.headers_mut() = headers;
    if flow.asked.version >= Version::HTTP_2 {
        let authority = flow.asked.authority.clone();
        request.headers_mut().insert(header::HOST, authority);
    }
    let mut parts = Parts::default();
    parts.path_and_query = flow.asked.path.clone();
    // A path alone is a URI; without one there is nothing to fail.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    if flow.view.chain.http1.keep_case {
        // hyper keeps the case of names among the extensions.
        *request.extensions_mut() = match last {
            true => std::mem::take(&mut flow.asked.extensions),
            false => flow.asked.extensions.clone(),
        };
    }
    request
}

/// Where the body ends is its own to say: a length that a route, a filter or an authorisation service
/// has set would have the upstream take its rest for another request. One that isn't known yet is
/// held to what its header says, by who writes it.
fn bound(headers: &mut HeaderMap, body: &RequestBody) {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), more) = (said.next(), said.next().is_some()) else {
        return;
    };
    let length = http_body::Body::size_hint(body).exact();
    let said = first
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    if let Some(length) = length.filter(|_| more || said != length) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// A header that counts attempts.
pub(super) fn count(headers: &mut HeaderMap, attempt: u32) {
    const ATTEMPTS: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
    headers.insert(ATTEMPTS, HeaderValue::from(attempt));
}

/// The shorter of two limits.
pub(super) fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
