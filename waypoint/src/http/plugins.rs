//! Plugins on a request's way. Each sees the head at its place among the chain's filters, the bodies as
//! they pass, and the answer's head, last of all the first; it may change them, hold them back until
//! something has come that it asked for, or answer itself. A plugin that fails lets nobody pass,
//! unless its configuration says otherwise.

mod body;
mod calls;
mod grpc;
mod known;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderValue, Response, StatusCode, header};
use tracing::debug;

use super::answer::{self, Answered, Draft, Drafted};
use super::attempts::expire;
use super::body::{BodyError, ResponseBody};
use super::carried::Carried;
use super::filters::not_served;
use super::flight::{Flight, Landing};
use super::flow::Flow;
use super::inbound::Inbound;
use super::reply::Reply;
use super::{authz, web};
use crate::model::wasm::{OnFailure, Plugin};
use crate::policy;
use crate::telemetry::Text;
use crate::wasm::{Answer, Head, Map, Missing, Outcome, RequestLine, Stream, Verdict, Way};

use body::Parts;
pub(super) use body::Plugged;

/// Envoy's word for what becomes of a request when a plugin fails.
const FAILED: &str = "wasm_fail_stream";

/// Shows the request to a plugin.
pub(super) async fn ask(flow: &mut Flow<'_>, plugin: &Arc<Plugin>) -> Result<(), Reply> {
    let local = &flow.http.connection.local;
    if !flow.metadata.is_empty() {
        // What filters before it wrote down it may read.
        flow.flight.exchange.borrow_mut().metadata = flow.metadata.clone();
    }
    let known = Rc::downgrade(&flow.flight);
    let begun = local.plugins.begin(plugin, || calls::through(local), known);
    let stream = match begun {
        Ok(stream) => Rc::new(stream),
        Err(missing) => return without(plugin, missing),
    };
    flow.flight.plugins.borrow_mut().push(stream.clone());
    let end = flow
        .body
        .as_ref()
        .is_none_or(http_body::Body::is_end_stream);
    let verdict = stream.headers(Way::Up, take_head(flow), end);
    let open = plugin.settings.failure == OnFailure::Open;
    let body = match verdict {
        Verdict::PauseHead if !end && flow.asked.upgrade.is_none() => flow.body.take(),
        _ => None,
    };
    if let Some(body) = body {
        flow.flight.limit(|limit| limit.readable = true);
        let plugged = Plugged::up(body, stream.clone(), flow.flight.clone(), open);
        let gathered = gather(&flow.flight, plugged, Way::Up).await;
        put_head(flow, &stream);
        flow.body = Some(Inbound::from(gathered?));
        return Ok(());
    }
    let outcome = settle(flow, &stream, Way::Up, verdict).await;
    put_head(flow, &stream);
    match outcome? {
        Outcome::Continue => {}
        Outcome::Answer(answer) => return Err(reply(answer)),
        Outcome::Close => return Err(closed()),
        Outcome::Failed if open => return Ok(()),
        Outcome::Failed => return Err(failed()),
    }
    // What follows an upgrade is no body.
    if !end && flow.asked.upgrade.is_none() {
        // It may answer while the body is on its way.
        flow.flight.limit(|limit| limit.readable = true);
        let body = flow.body.take();
        flow.body =
            body.map(|body| Inbound::from(Plugged::up(body, stream, flow.flight.clone(), open)));
    }
    Ok(())
}

/// The answer, once every plugin that met the request has seen it.
pub(super) async fn answer(
    mut flow: Flow<'_>,
    landing: Landing,
    served: Result<Answered, Reply>,
) -> Response<ResponseBody> {
    let meanwhile = flow.flight.take_answer();
    let mut draft = match (served, meanwhile) {
        (Err(_), Some(reply)) | (Err(reply), None) => answer::draft(&mut flow, reply),
        (Ok(answered), _) => answered.draft(&flow),
    };
    if let Drafted::Body(Carried::Whole(Some(body))) = &draft.body
        && !body.is_empty()
    {
        // Its length is known now; a plugin that makes another of it takes the header away.
        let length = HeaderValue::from(body.len());
        draft.head.headers.insert(header::CONTENT_LENGTH, length);
    }
    let streams = flow.flight.plugins.borrow().clone();
    for stream in streams.iter().rev() {
        if let Err(reply) = show(&mut flow, stream, &mut draft).await {
            // Others don't see what one of them answers in place of an answer.
            draft = answer::draft(&mut flow, reply);
            break;
        }
    }
    draft.into_response(flow, landing)
}

/// Shows an answer to a plugin.
async fn show(flow: &mut Flow<'_>, stream: &Rc<Stream>, draft: &mut Draft) -> Result<(), Reply> {
    let end = match &draft.body {
        Drafted::Body(carried) => carried.is_end_stream(),
        Drafted::Pipe(_) => false,
    };
    let map = Map {
        head: Head::Response(draft.head.status),
        headers: std::mem::take(&mut draft.head.headers),
        changed: false,
    };
    let verdict = stream.headers(Way::Down, map, end);
    let nothing = || Drafted::Body(Carried::Whole(None));
    if matches!(verdict, Verdict::PauseHead) && !end {
        match std::mem::replace(&mut draft.body, nothing()) {
            Drafted::Body(carried) => {
                let plugged = Plugged::down(carried, stream.clone(), flow.flight.clone());
                let gathered = gather(&flow.flight, plugged, Way::Down).await;
                put_answer(flow, stream, draft);
                draft.body = Drafted::Body(Carried::Plugged(Box::new(gathered?)));
                return Ok(());
            }
            pipe => draft.body = pipe,
        }
    }
    let outcome = settle(flow, stream, Way::Down, verdict).await;
    put_answer(flow, stream, draft);
    match outcome? {
        Outcome::Continue => {}
        Outcome::Answer(answer) => return Err(reply(answer)),
        Outcome::Close => return Err(closed()),
        Outcome::Failed if stream.may_fail() => return Ok(()),
        Outcome::Failed => return Err(failed()),
    }
    draft.body = match std::mem::replace(&mut draft.body, nothing()) {
        Drafted::Body(carried) if !end => {
            let plugged = Plugged::down(carried, stream.clone(), flow.flight.clone());
            Drafted::Body(Carried::Plugged(Box::new(plugged)))
        }
        other => other,
    };
    Ok(())
}

/// The answer's head as the plugin left it.
fn put_answer(flow: &Flow<'_>, stream: &Stream, draft: &mut Draft) {
    let Some(map) = stream.take_headers(Way::Down) else {
        return;
    };
    draft.head.headers = map.headers;
    if let Head::Response(status) = map.head {
        draft.head.status = status;
        flow.flight.exchange.borrow_mut().status = Some(status);
    }
}

/// Shows the plugin the body of a message whose head it holds back, until it lets that go. What is
/// held is bounded as any body is.
async fn gather<B: Parts>(
    flight: &Rc<Flight>,
    plugged: Plugged<B>,
    way: Way,
) -> Result<Plugged<B>, Reply> {
    let mut plugged = plugged.with_head();
    let gathered = poll_fn(|cx| match plugged.poll_head(cx) {
        Poll::Ready(gathered) => Poll::Ready(Ok(gathered)),
        Poll::Pending => flight.poll_expired(cx).map(Err),
    });
    match gathered.await {
        Ok(Ok(())) => Ok(plugged),
        Ok(Err((_, Some(reply)))) => Err(reply),
        Ok(Err((error, None))) => Err(match (way, error) {
            (Way::Up, error) => authz::broke(error),
            (Way::Down, BodyError::Hyper(error)) => web::broke(&error),
            (Way::Down, _) => failed(),
        }),
        Err(expired) => Err(expire(expired, way == Way::Down)),
    }
}

/// What becomes of a message that the plugin may have to be waited for.
async fn settle(
    flow: &Flow<'_>,
    stream: &Stream,
    way: Way,
    verdict: Verdict,
) -> Result<Outcome, Reply> {
    match verdict {
        Verdict::Continue => return Ok(Outcome::Continue),
        Verdict::Stop(outcome) => return Ok(outcome),
        Verdict::Pause | Verdict::PauseHead => {}
    }
    let flight = &flow.flight;
    poll_fn(|cx| match stream.poll(way, cx) {
        Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
        Poll::Pending => {
            let expired = flight.poll_expired(cx);
            expired.map(|expired| Err(expire(expired, way == Way::Down)))
        }
    })
    .await
}

/// What becomes of a request that there is no plugin for.
fn without(plugin: &Plugin, missing: Missing) -> Result<(), Reply> {
    let settings = &plugin.settings;
    if settings.failure == OnFailure::Open && missing != Missing::Coming {
        return Ok(());
    }
    debug!(plugin = %settings.name, ?missing, "a request meets no plugin");
    Err(match missing {
        Missing::Coming => not_served(),
        // As under Istio's agent, which puts a policy in the plugin's place that denies everything.
        Missing::NoCode => {
            let details = "rbac_access_denied_matched_policy[none]";
            Reply::new(StatusCode::FORBIDDEN, policy::DENIED_BODY, details)
        }
        Missing::Failed => failed(),
    })
}

fn failed() -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, "", FAILED)
}

/// A plugin breaks a request off: the client hears as little as there is.
fn closed() -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, "", "wasm_close_stream")
}

fn reply(answer: Answer) -> Reply {
    let Answer {
        status,
        details,
        body,
        headers,
        grpc,
    } = answer;
    let mut reply = Reply::new(status, body, details);
    let named = headers.iter();
    reply.headers = named
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    reply.grpc_status = grpc;
    reply
}

fn take_head(flow: &mut Flow<'_>) -> Map {
    let asked = &mut flow.asked;
    Map {
        head: Head::Request(Box::new(RequestLine {
            method: asked.method.clone(),
            scheme: asked.scheme,
            authority: asked.authority.clone(),
            path: asked.path.clone(),
        })),
        headers: std::mem::take(&mut asked.headers),
        changed: false,
    }
}

/// The head as the plugin left it, and the route that it has now.
fn put_head(flow: &mut Flow<'_>, stream: &Stream) {
    let Some(map) = stream.take_headers(Way::Up) else {
        return;
    };
    let asked = &mut flow.asked;
    asked.headers = map.headers;
    let Head::Request(line) = map.head else {
        return;
    };
    let RequestLine {
        method,
        scheme,
        authority,
        path,
    } = *line;
    asked.method = method;
    asked.scheme = scheme;
    asked.path = path;
    if asked.authority != authority {
        asked.set_authority(authority);
    }
    if map.changed {
        {
            let exchange = &mut *flow.flight.exchange.borrow_mut();
            exchange.method = flow.asked.method.clone();
            exchange.authority = Text::Header(flow.asked.authority.clone());
            exchange.path = flow.asked.path.clone().map_or(Text::Empty, Text::Path);
        }
        flow.find_route();
    }
}
