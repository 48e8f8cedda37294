//! External authorisation on a request's way: as much of the body is read as is told of it, the
//! service is asked by the proxy's own request, and its word is done. Whoever doesn't answer lets
//! nobody pass, unless the configuration says otherwise.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Version, header, response};
use tracing::debug;

use super::attempts::{expire, unreadable};
use super::body::{BodyError, RequestBody};
use super::filters::overridden;
use super::flow::Flow;
use super::own::{self, Whole};
use super::reply::Reply;
use crate::authz::{self, Changes, Question, Verdict};
use crate::grpc;
use crate::model::authz::{AuthzOverride, Buffer, ExtAuthz};
use crate::model::snapshot::Snapshot;
use crate::policy::metadata_matches;
use crate::telemetry::Flags;
use crate::worker::Local;

/// The longest answer of a service that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// Asks the filter's service about the request.
pub(super) async fn ask(flow: &mut Flow<'_>, filter: &ExtAuthz) -> Result<(), Reply> {
    let route = match overridden(flow, |filters| filters.authz.as_ref()) {
        None => None,
        Some(None) => return Ok(()),
        Some(Some(route)) => Some(Arc::clone(route)),
    };
    let wanted = filter.enabled_metadata.as_ref();
    if wanted.is_some_and(|wanted| !metadata_matches(wanted, &flow.metadata))
        || !filter.enabled.holds(&mut rand::rng())
    {
        return Ok(());
    }
    let body = match authz::buffer(filter, route.as_deref()) {
        Some(buffer) if flow.asked.upgrade.is_none() => read(flow, buffer).await?,
        _ => None,
    };
    let request = question(flow, filter, route.as_deref(), body.as_ref());
    let verdict = match request {
        None => Verdict::Failed,
        Some(request) => {
            let local = &flow.http.connection.local;
            verdict(local, &flow.view.snapshot, filter, request).await
        }
    };
    match verdict {
        Verdict::Allow(changes) => {
            pass(flow, filter, *changes);
            Ok(())
        }
        Verdict::Deny(denial) => {
            flow.metadata.merge(authz::FILTER, denial.metadata);
            let mut reply = Reply::new(denial.status, denial.body, authz::DENIED);
            reply.headers = denial.headers;
            Err(reply.flag(Flags::UNAUTHORIZED))
        }
        Verdict::Failed if filter.fail_open => {
            if filter.fail_open_header {
                let yes = HeaderValue::from_static("true");
                flow.asked.headers.insert(authz::PASSED, yes);
            }
            Ok(())
        }
        Verdict::Failed => {
            let reply = Reply::new(filter.status_on_error, "", authz::FAILED);
            Err(reply.flag(Flags::UNAUTHORIZED))
        }
    }
}

/// The beginning of the body, and whether there is more of it; none where the request has none.
async fn read(flow: &mut Flow<'_>, buffer: Buffer) -> Result<Option<(Vec<u8>, bool)>, Reply> {
    let Some(body) = flow.body.as_mut() else {
        return Ok(None);
    };
    if http_body::Body::is_end_stream(body) {
        return Ok(None);
    }
    let flight = flow.flight.clone();
    let read = tokio::select! {
        read = body.read_ahead(buffer.most) => read,
        expired = std::future::poll_fn(|cx| flight.poll_expired(cx)) => {
            return Err(expire(expired, false));
        }
    };
    flight.received(body.take_came());
    read.map_err(broke)?;
    if body.has_ended() {
        flight.request_complete();
    }
    if !buffer.partial && body.held() > buffer.most {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(Reply::new(
            status,
            "Payload Too Large",
            "request_payload_too_large",
        ));
    }
    Ok(Some(body.beginning(buffer.most)))
}

/// What is answered where a request's body breaks off before anything was sent on.
pub(super) fn broke(error: BodyError) -> Reply {
    if let BodyError::Unreadable(why) = error {
        return unreadable(why);
    }
    debug!(%error, "a body broke off before it could be told of");
    let status = StatusCode::BAD_REQUEST;
    Reply::new(status, "", "downstream_remote_disconnect")
}

fn question(
    flow: &Flow<'_>,
    filter: &ExtAuthz,
    route: Option<&AuthzOverride>,
    body: Option<&(Vec<u8>, bool)>,
) -> Option<Request<Bytes>> {
    let head = flow.asked.head();
    let started = flow.flight.exchange.borrow().marks.started;
    let question = Question {
        head: &head,
        protocol: match flow.asked.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_11 => "HTTP/1.1",
            _ => "HTTP/2",
        },
        downstream: &flow.http.connection.down,
        client: flow.flight.exchange.borrow().client,
        metadata: &flow.metadata,
        body: body.map(|(beginning, more)| (beginning.as_slice(), *more)),
        route,
        id: flow.random,
        time: started
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    };
    authz::request(filter, &question)
}

/// What the filter's service says to a request.
pub(crate) async fn verdict(
    local: &Local,
    snapshot: &Snapshot,
    filter: &ExtAuthz,
    request: Request<Bytes>,
) -> Verdict {
    let answer = tokio::time::timeout(filter.timeout, send(local, snapshot, filter, request));
    let late = |_| Err(format!("no answer within {:?}", filter.timeout));
    match answer.await.unwrap_or_else(late) {
        Ok((head, body, grpc)) => authz::verdict(filter, &head, body, grpc),
        Err(error) => {
            debug!(cluster = %filter.cluster, error, "an authorisation service can't be asked");
            Verdict::Failed
        }
    }
}

/// The answer's head and body, and the status of gRPC at its end.
type Answer = (response::Parts, Bytes, Option<u32>);

async fn send(
    local: &Local,
    snapshot: &Snapshot,
    filter: &ExtAuthz,
    request: Request<Bytes>,
) -> Result<Answer, String> {
    let entry = snapshot.clusters.get(&filter.cluster);
    let entry = entry.ok_or("there is no such cluster")?;
    let request = request.map(|body| match body.is_empty() {
        true => RequestBody::Empty,
        false => RequestBody::Whole(Some(body)),
    });
    // The proxy's own request, not the one that is asked about.
    let answer = own::send(local, entry, &filter.authority, request).await?;
    let (head, body) = answer.into_parts();
    let Whole { body, trailers } = own::whole(body, LARGEST).await?;
    let grpc = trailers.as_ref().and_then(grpc::status);
    let grpc = grpc.or_else(|| grpc::status(&head.headers));
    Ok((head, body, grpc))
}

/// Does what the service says to a request that passes.
fn pass(flow: &mut Flow<'_>, filter: &ExtAuthz, changes: Changes) {
    let again = filter.clear_route_cache && changes.any();
    let headers = &mut flow.asked.headers;
    let mut before = None;
    for (name, value) in changes.set {
        // Several values of one name stay together, in place of what there was.
        match before.as_ref() == Some(&name) {
            true => headers.append(&name, value),
            false => headers.insert(&name, value).is_some(),
        };
        before = Some(name);
    }
    for (name, value) in changes.append {
        headers.append(name, value);
    }
    for (name, value) in changes.append_present {
        if headers.contains_key(&name) {
            headers.append(name, value);
        }
    }
    for name in changes.remove {
        if name != header::HOST {
            headers.remove(name);
        }
    }
    flow.metadata.merge(authz::FILTER, changes.metadata);
    flow.afterwards.authorised.extend(changes.answer);
    if again {
        flow.find_route();
    }
}
