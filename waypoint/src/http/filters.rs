//! The chain's filters, in its order: tokens, policy, faults, CORS. Each lets the request pass,
//! changes it, or answers it; what it does differently on a route is the route's to say.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header;
use http::{HeaderMap, StatusCode};

use super::authz;
use super::flow::{Flow, Target};
use super::reply::Reply;
use super::{plugins, session, web};
use crate::grpc::RESOURCE_EXHAUSTED;
use crate::jwt::{self, Checked};
use crate::model::http::{AbortWith, Cors, Discovered, Fault, HttpChain, HttpFilter};
use crate::model::jwt::JwtAuthn;
use crate::model::policy::Rbac;
use crate::model::rare::Silent;
use crate::model::rate_limit::{HostLimits, RateLimit};
use crate::model::route::{FilterOverrides, Route, RouteAction};
use crate::policy::{self, Subject};
use crate::rate_limit::describe::{self, About};
use crate::route::headers::{set_in_answer, set_in_request};
use crate::route::{Ask, split};
use crate::tcp::NOT_SERVED;
use crate::telemetry::Flags;
use crate::{cors, fault};

/// Requests that are held up or answered by faults now, in this process.
static FAULTS: AtomicU32 = AtomicU32::new(0);

/// When the process first met a rate limit: what its buckets count from.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Lets the request through the chain's filters.
pub(super) async fn run(flow: &mut Flow<'_>, chain: &HttpChain) -> Result<(), Reply> {
    let mut guards = 0;
    for filter in &chain.filters {
        one(flow, filter, &mut guards).await?;
    }
    if flow.permit.is_none() {
        flow.permit = policy::unguarded(guards);
    }
    Ok(())
}

/// Lets the request through one filter, and counts it where it guards.
async fn one(flow: &mut Flow<'_>, filter: &HttpFilter, guards: &mut usize) -> Result<(), Reply> {
    match filter {
        // What few chains have costs its room only there.
        HttpFilter::Jwt(filter) => Box::pin(tokens(flow, filter)).await,
        HttpFilter::ExtAuthz(filter) => Box::pin(authz::ask(flow, filter)).await,
        HttpFilter::Plugin(plugin) => Box::pin(plugins::ask(flow, plugin)).await,
        HttpFilter::Discovered(it) => Box::pin(discovered(flow, it, guards)).await,
        HttpFilter::RateLimit(filter) => limits(flow, filter),
        HttpFilter::Rbac(filter) => {
            *guards += 1;
            access(flow, filter)
        }
        HttpFilter::Fault(filter) => match fault_of(flow, filter) {
            Some(fault) => Box::pin(faults(flow, &fault)).await,
            None => Ok(()),
        },
        HttpFilter::Cors => origins(flow),
        HttpFilter::GrpcWeb => web::translate(flow),
        HttpFilter::Session(filter) => {
            session::find(flow, filter.as_ref());
            Ok(())
        }
        HttpFilter::Refused => Err(not_served()),
        // Counted at the request's end.
        HttpFilter::GrpcStats | HttpFilter::Stats(_) | HttpFilter::PeerMetadata => Ok(()),
    }
}

/// Lets the request through a filter that came separately, or what stands for it; answered with an
/// error where neither is there.
async fn discovered(flow: &mut Flow<'_>, it: &Discovered, guards: &mut usize) -> Result<(), Reply> {
    let came = flow.view.snapshot.extensions.get(&it.name);
    let came = came.filter(|came| it.kinds.contains(&came.kind)).cloned();
    let filter = came.as_ref().map(|came| &came.filter);
    match filter.or(it.default.as_ref()) {
        Some(filter) => Box::pin(one(flow, filter, guards)).await,
        None => Err(not_served()),
    }
}

/// Takes a token for the request.
fn limits(flow: &mut Flow<'_>, filter: &Arc<RateLimit>) -> Result<(), Reply> {
    const DETAILS: &str = "local_rate_limited";
    let limit = overridden(flow, |filters| filters.rate_limit.as_ref()).unwrap_or(filter);
    let mut random = rand::rng();
    if !limit.enabled.holds(&mut random) || has_token(flow, limit) {
        return Ok(());
    }
    let limit = limit.clone();
    let exchange = flow.flight.exchange.borrow();
    if !limit.enforced.holds(&mut random) {
        set_in_request(&mut flow.asked.headers, &limit.passed, &*exchange);
        return Ok(());
    }
    let mut headers = HeaderMap::new();
    set_in_answer(&mut headers, &limit.answer, &*exchange);
    let mut reply = Reply::new(limit.status, DETAILS, DETAILS).flag(Flags::RATE_LIMITED);
    let named = headers.iter();
    reply.headers = named
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    reply.grpc_status = limit.exhausted.then_some(RESOURCE_EXHAUSTED);
    Err(reply)
}

/// Whether there is a token for the request, which it takes.
fn has_token(flow: &Flow<'_>, limit: &RateLimit) -> bool {
    let now = BEGAN.elapsed();
    let Some(wanted) = limit.descriptors.as_deref() else {
        return describe::take(limit, &[], now);
    };
    let chosen = chosen(flow);
    let about = About {
        head: flow.asked.head(),
        client: flow.flight.exchange.borrow().client.ip(),
        cluster: chosen.as_ref().map(|chosen| &*chosen.cluster),
    };
    let nothing = &[][..];
    let (of_route, of_host) = match flow.route() {
        _ if !wanted.own.is_empty() => (&*wanted.own, nothing),
        Some((host, route)) => match &route.action {
            RouteAction::Forward(forward) => {
                let host_too = match wanted.host {
                    _ if forward.host_limits => true,
                    HostLimits::Too => true,
                    HostLimits::Otherwise => forward.limits.is_empty(),
                    HostLimits::No => false,
                };
                let of_host = if host_too { &**host.limits } else { nothing };
                (&**forward.limits, of_host)
            }
            RouteAction::Redirect(_) | RouteAction::Direct { .. } => (nothing, nothing),
        },
        None => (nothing, nothing),
    };
    let limits = of_route.iter().chain(of_host);
    let limits = limits.filter(|limit| limit.stage == wanted.stage);
    describe::take(limit, &describe::descriptors(limits, about), now)
}

/// The answer where the chain's configuration was refused. Envoy answers so where a filter's
/// configuration never came.
pub(super) fn not_served() -> Reply {
    let body = "the proxy can't serve the configuration of this service";
    let reply = Reply::new(StatusCode::INTERNAL_SERVER_ERROR, body, NOT_SERVED);
    reply.flag(Flags::NO_FILTER_CONFIG)
}

/// What the route says of a filter, then its host.
pub(super) fn overridden<'f, T>(
    flow: &'f Flow<'_>,
    of: impl Fn(&'f FilterOverrides) -> Option<&'f T>,
) -> Option<&'f T> {
    let (host, route) = match &flow.target {
        Target::Route(host, route) => (host, route),
        Target::Nothing | Target::RequireTls => return None,
    };
    let weighted = chosen(flow).and_then(|chosen| chosen.weighted);
    weighted
        .and_then(|weighted| of(&weighted.filters))
        .or_else(|| of(&route.filters))
        .or_else(|| of(&host.filters))
}

/// The cluster that the request will go to.
fn chosen<'f>(flow: &'f Flow<'_>) -> Option<split::Chosen<'f>> {
    let (_, route) = flow.route()?;
    match &route.action {
        RouteAction::Forward(forward) => {
            split::choose(&forward.to, &flow.asked.head(), flow.random)
        }
        RouteAction::Redirect(_) | RouteAction::Direct { .. } => None,
    }
}

async fn tokens(flow: &mut Flow<'_>, filter: &Arc<JwtAuthn>) -> Result<(), Reply> {
    let local = flow.http.connection.local.clone();
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.as_ref().map_or(0, Duration::as_secs);
        let route = flow.route();
        let overrides = route.map_or(FilterOverrides::SILENT, |(_, route)| &*route.filters);
        let checked = {
            let head = flow.asked.head();
            let ask = Ask {
                head: &head,
                metadata: &flow.metadata,
                caller: Some(&flow.http.connection.down),
                random: flow.random,
            };
            jwt::check(filter, overrides, ask, now, &local.jwks)
        };
        let mut changes = match checked {
            Checked::Pass(changes) => changes,
            Checked::Deny(denial) => {
                let mut reply = Reply::new(denial.status, denial.body, denial.details());
                if let Some(value) = denial.authenticate {
                    reply = reply.header(header::WWW_AUTHENTICATE, value);
                }
                return Err(reply);
            }
            Checked::Fetch(provider) => {
                local
                    .jwks
                    .fetch(&local, &flow.view.snapshot, &provider)
                    .await;
                continue;
            }
        };
        for name in &changes.remove {
            flow.asked.headers.remove(name);
        }
        jwt::note(&mut changes, &mut flow.metadata);
        for (name, value) in changes.set {
            flow.asked.headers.insert(name, value);
        }
        if let Some(path) = changes.path {
            flow.asked.set_path(path);
        }
        if changes.clear_route_cache {
            flow.find_route();
        }
        return Ok(());
    }
}

fn access(flow: &mut Flow<'_>, filter: &Arc<Rbac>) -> Result<(), Reply> {
    let filter = match overridden(flow, |filters| filters.rbac.as_ref()) {
        None => filter.clone(),
        Some(Some(instead)) => instead.clone(),
        // No policy here: the empty one lets everything pass.
        Some(None) => Arc::default(),
    };
    let head = flow.asked.head();
    let subject = Subject {
        head: Some(&head),
        downstream: &flow.http.connection.down,
        client: flow.flight.exchange.borrow().client.ip(),
        metadata: &flow.metadata,
    };
    let verdict = policy::decide(&filter, &subject);
    if let Some(shadow) = verdict.shadow {
        shadow.note(policy::FILTER, &mut flow.metadata);
    }
    match verdict.decision {
        Ok(permit) => {
            flow.permit = Some(permit);
            Ok(())
        }
        Err(denied) => Err(Reply::new(
            StatusCode::FORBIDDEN,
            policy::DENIED_BODY,
            denied.details(),
        )),
    }
}

/// A fault that is in force, counted while it is.
struct Active;

impl Active {
    fn new() -> Self {
        FAULTS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        FAULTS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The fault that is in force for a request, if there is any.
fn fault_of(flow: &Flow<'_>, filter: &Arc<Fault>) -> Option<Arc<Fault>> {
    let fault = overridden(flow, |filters| filters.fault.as_ref()).unwrap_or(filter);
    (fault.delay.is_some() || fault.abort.is_some()).then(|| fault.clone())
}

async fn faults(flow: &mut Flow<'_>, fault: &Fault) -> Result<(), Reply> {
    let injected = {
        let cluster = chosen(flow).map(|chosen| chosen.cluster);
        fault::decide(
            fault,
            &flow.asked.head(),
            cluster.as_deref().unwrap_or_default(),
            FAULTS.load(Ordering::Relaxed),
            &mut rand::rng(),
        )
    };
    if !injected.is_any() {
        return Ok(());
    }
    let _active = Active::new();
    if let Some(delay) = injected.delay {
        flow.flight.exchange.borrow_mut().flags |= Flags::DELAY_INJECTED;
        tokio::time::sleep(delay).await;
    }
    let Some(abort) = injected.abort else {
        return Ok(());
    };
    let status = fault::http_status(abort);
    let mut reply = Reply::new(status, fault::ABORT_BODY, "fault_filter_abort");
    if let AbortWith::Grpc(status) = abort {
        reply.grpc_status = Some(status);
    }
    Err(reply.flag(Flags::FAULT_INJECTED))
}

fn origins(flow: &mut Flow<'_>) -> Result<(), Reply> {
    // As in Envoy, redirects and direct answers say nothing of origins.
    let forwards = |(_, route): (_, &Arc<Route>)| matches!(route.action, RouteAction::Forward(_));
    if !flow.route().is_some_and(forwards) {
        return Ok(());
    }
    let Some(cors) = overridden(flow, |filters| filters.cors.as_ref()) else {
        return Ok(());
    };
    let cors: Arc<Cors> = cors.clone();
    match cors::decide(&cors, &flow.asked.head(), &mut rand::rng()) {
        cors::Answer::Pass => Ok(()),
        cors::Answer::Decorate(origin) => {
            flow.afterwards.cors = Some((cors, origin));
            Ok(())
        }
        cors::Answer::Preflight(headers) => {
            let mut reply = Reply::new(StatusCode::OK, Bytes::new(), "cors_response");
            let named = headers.iter();
            reply.headers = named
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            Err(reply)
        }
    }
}
