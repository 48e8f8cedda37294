//! The answer's head, whoever made it: what the route and its filters change in it, and what a
//! proxy says of itself. Nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::response::Parts;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;

use super::body::ResponseBody;
use super::carried::Carried;
use super::flight::Landing;
use super::flow::Flow;
use super::forwarded::REQUEST_ID;
use super::reply::Reply;
use super::request::has_hop_by_hop;
use super::upgrade;
use crate::cors;
use crate::grpc::web::{self, Web};
use crate::model::http::{Cors, ServerHeader};
use crate::model::route::{
    Destination, Route, RouteAction, RouteTable, SetAction, VirtualHost, Weighted,
};
use crate::route::headers::Layers;
use crate::telemetry::Exchange;
use crate::upstream::Received;

const ATTEMPTS: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// Headers of an upstream's answer that count for its hop only.
const HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::TRAILER,
];

/// What is done to the answer, whoever makes it.
#[derive(Debug, Default)]
pub(super) struct Afterwards {
    changes: Option<Changes>,
    /// The origin that may see the answer.
    pub(super) cors: Option<(Arc<Cors>, HeaderValue)>,
    /// `set-cookie` values.
    pub(super) cookies: Vec<HeaderValue>,
    /// Another header: a sticky session's.
    pub(super) session: Option<(HeaderName, HeaderValue)>,
    /// What an authorisation service sets.
    pub(super) authorised: Vec<(HeaderName, HeaderValue, SetAction)>,
    /// How many attempts were made, where the answer is to say so.
    pub(super) attempts: Option<u32>,
    /// The caller speaks gRPC-Web.
    pub(super) web: Option<Web>,
    /// The body of an answer that it could make nothing of, to be told in the head.
    pub(super) words: Option<Bytes>,
}

/// Whose changes to headers count.
#[derive(Debug)]
struct Changes {
    host: Arc<VirtualHost>,
    route: Arc<Route>,
    /// Which of several clusters, by its place.
    weighted: Option<usize>,
}

/// An upstream's answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<Received>,
    /// The two connections become one pipe once the answer is sent.
    pub(super) handover: Option<Handover>,
}

/// Two connections that become one pipe.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) client: OnUpgrade,
    pub(super) server: OnUpgrade,
    /// Nothing may move for so long.
    pub(super) idle: Option<Duration>,
}

impl Afterwards {
    /// The route's changes to headers count.
    pub(super) fn change_headers(
        &mut self,
        host: &Arc<VirtualHost>,
        route: &Arc<Route>,
        weighted: Option<usize>,
    ) {
        self.changes = Some(Changes {
            host: host.clone(),
            route: route.clone(),
            weighted,
        });
    }
}

/// Keeps the request's headers that the route's changes to the answer look at: the request itself is
/// gone when its answer comes.
pub(super) fn keep(flow: &Flow<'_>) {
    let Some(changes) = &flow.afterwards.changes else {
        return;
    };
    let mut exchange = flow.flight.exchange.borrow_mut();
    for name in changes.layers(&flow.view.table).response_wants() {
        let name = std::slice::from_ref(name);
        exchange.request.keep(name, &flow.asked.headers);
    }
}

impl Changes {
    fn layers<'c>(&'c self, table: &'c RouteTable) -> Layers<'c> {
        Layers {
            table,
            host: &self.host,
            route: &self.route,
            weighted: self.weighted.and_then(|at| weighted(&self.route, at)),
        }
    }
}

/// An answer's head and body before the proxy speaks of itself, which is when plugins see them.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) head: Parts,
    pub(super) body: Drafted,
}

/// What comes of an answer's body.
#[derive(Debug)]
pub(super) enum Drafted {
    /// It is sent.
    Body(Carried),
    /// The two connections become one pipe.
    Pipe(Handover),
}

impl Draft {
    /// The answer as the client gets it.
    pub(super) fn into_response(
        mut self,
        flow: Flow<'_>,
        landing: Landing,
    ) -> Response<ResponseBody> {
        say_who(
            &flow,
            &mut flow.flight.exchange.borrow_mut(),
            &mut self.head.headers,
        );
        let body = match self.body {
            Drafted::Body(carried) => ResponseBody::carried(carried, landing, flow.afterwards.web),
            Drafted::Pipe(handover) => {
                tokio::task::spawn_local(upgrade::pipe(handover, landing));
                ResponseBody::nothing()
            }
        };
        Response::from_parts(self.head, body)
    }
}

impl Answered {
    /// An answer as such.
    pub(super) fn plain(response: Response<Received>) -> Self {
        Self {
            response,
            handover: None,
        }
    }

    /// The answer as the client gets it.
    pub(super) fn into_response(self, flow: Flow<'_>, landing: Landing) -> Response<ResponseBody> {
        self.draft(&flow).into_response(flow, landing)
    }

    /// The answer with what the route and its filters change in it.
    pub(super) fn draft(self, flow: &Flow<'_>) -> Draft {
        let (mut head, received) = self.response.into_parts();
        head.version = Version::HTTP_11;
        head.extensions.remove::<ReasonPhrase>();
        let headers = &mut head.headers;
        remove_hop_by_hop(headers, self.handover.is_some());
        let now = tokio::time::Instant::now();
        let waited = now.saturating_duration_since(flow.flight.asked_at());
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        headers.insert(SERVICE_TIME, HeaderValue::from(millis));
        {
            let exchange = &mut *flow.flight.exchange.borrow_mut();
            exchange.status = Some(head.status);
            exchange.details = "via_upstream".into();
            exchange.marks.response_start = Some(now.into_std());
            exchange.marks.downstream_start = Some(now.into_std());
            change(flow, exchange, headers);
        }
        let body = match self.handover {
            None if flow.afterwards.words.is_some() => Drafted::Body(Carried::Whole(None)),
            None => Drafted::Body(Carried::Upstream(received)),
            Some(handover) => Drafted::Pipe(handover),
        };
        Draft { head, body }
    }
}

/// An answer that is made here, as the client gets it.
pub(super) fn reply(mut flow: Flow<'_>, landing: Landing, reply: Reply) -> Response<ResponseBody> {
    draft(&mut flow, reply).into_response(flow, landing)
}

/// An answer that is made here, with what the route and its filters change in it.
pub(super) fn draft(flow: &mut Flow<'_>, reply: Reply) -> Draft {
    let (flag, details) = (reply.flag, reply.details.clone());
    let is_web = flow.afterwards.web.is_some();
    let (response, mut body) = reply.response(flow.grpc && !is_web);
    let (mut head, ()) = response.into_parts();
    if is_web && !body.is_empty() {
        flow.afterwards.words = Some(std::mem::take(&mut body));
    }
    {
        let exchange = &mut *flow.flight.exchange.borrow_mut();
        exchange.status = Some(head.status);
        exchange.flags |= flag;
        exchange.details = details;
        exchange.marks.downstream_start = Some(std::time::Instant::now());
        change(flow, exchange, &mut head.headers);
    }
    let body = without_body_for_head(flow, &mut head.headers, body);
    let body = Drafted::Body(Carried::Whole(Some(body)));
    Draft { head, body }
}

/// HEAD hears how long the body would be, and gets none.
fn without_body_for_head(flow: &Flow<'_>, headers: &mut HeaderMap, body: Bytes) -> Bytes {
    if flow.asked.method != Method::HEAD {
        return body;
    }
    if !body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Bytes::new()
}

/// Everything that changes an answer's headers, in order.
fn change(flow: &Flow<'_>, exchange: &mut Exchange, headers: &mut HeaderMap) {
    let after = &flow.afterwards;
    if let Some(attempts) = after.attempts {
        headers.insert(ATTEMPTS, HeaderValue::from(attempts));
    }
    if let Some(changes) = &after.changes {
        changes.layers(&flow.view.table).response(headers, exchange);
    }
    for cookie in &after.cookies {
        headers.append(header::SET_COOKIE, cookie.clone());
    }
    if let Some((name, value)) = &after.session {
        match *name == header::SET_COOKIE {
            true => headers.append(name, value.clone()),
            false => headers.insert(name, value.clone()).is_some(),
        };
    }
    for (name, value, action) in &after.authorised {
        let there = headers.contains_key(name);
        match action {
            SetAction::Append => drop(headers.append(name, value.clone())),
            SetAction::AddIfAbsent if there => {}
            SetAction::OverwriteIfExists if !there => {}
            _ => drop(headers.insert(name, value.clone())),
        }
    }
    if let Some((cors, origin)) = &after.cors {
        cors::decorate(cors, origin, headers);
    }
    if let Some(web) = after.web {
        web.answer(headers);
    }
    if let (Some(words), Some(status)) = (&after.words, exchange.status) {
        web::tell(headers, status, words);
    }
}

/// What a proxy says of itself, and what is noted of the answer in the end.
fn say_who(flow: &Flow<'_>, exchange: &mut Exchange, headers: &mut HeaderMap) {
    name(flow, headers);
    // Whoever has not sent its request in time is not waited for: the connection ends with this.
    let late = exchange.status == Some(StatusCode::REQUEST_TIMEOUT);
    let is_ours = exchange.details != "via_upstream";
    if flow.asked.version < Version::HTTP_2 && (flow.http.is_ending() || late && is_ours) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let telemetry = &flow.http.connection.local.telemetry;
    telemetry.answered(&flow.view.chain, exchange, headers);
}

/// Its name, and the request's number.
fn name(flow: &Flow<'_>, headers: &mut HeaderMap) {
    let chain = &flow.view.chain;
    match &chain.server {
        ServerHeader::PassThrough => {}
        ServerHeader::AppendIfAbsent(_) if headers.contains_key(header::SERVER) => {}
        ServerHeader::Overwrite(name) | ServerHeader::AppendIfAbsent(name) => {
            headers.insert(header::SERVER, name.clone());
        }
    }
    if chain.request_id.in_response
        && let Some(id) = flow.request_id.clone()
    {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(via) = &chain.via
        && let Ok(via) = HeaderValue::from_str(via)
    {
        headers.append(header::VIA, via);
    }
}

/// One of a route's clusters.
pub(super) fn weighted(route: &Route, at: usize) -> Option<&Weighted> {
    match &route.action {
        RouteAction::Forward(forward) => match &forward.to {
            Destination::Weighted { clusters, .. } => clusters.get(at),
            Destination::Cluster(_) | Destination::Header(_) => None,
        },
        RouteAction::Redirect(_) | RouteAction::Direct { .. } => None,
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap, upgraded: bool) {
    if !has_hop_by_hop(headers) {
        return;
    }
    if !upgraded {
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
    for name in &HOP {
        headers.remove(name);
    }
}
