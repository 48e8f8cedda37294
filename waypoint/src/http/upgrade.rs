//! Upgrades: a request that asks for another protocol goes up as it is, and if the upstream agrees
//! the two connections become one pipe of bytes. HTTP/1 asks with `Upgrade`, HTTP/2 with (extended)
//! CONNECT; either becomes the other where the two sides differ.

use std::rc::Rc;

use http::header::{self, HeaderValue};
use http::{Method, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::{Answered, Handover};
use super::attempts;
use super::body::RequestBody;
use super::flight::{Flight, Landing};
use super::flow::Flow;
use super::forward::{Plan, request, trace};
use super::inbound::Inbound;
use super::reply::Reply;
use crate::telemetry::Flags;
use crate::upstream::{Choice, Sent};

/// Bytes that are held of each way.
const BUFFER: usize = 16 << 10;

/// Sends the request once and waits for the upstream's word. Nothing of it is tried again: what
/// follows is no body that could be kept.
pub(super) async fn forward(
    flow: &mut Flow<'_>,
    _landing: &Landing,
    plan: &Plan,
    incoming: Inbound,
) -> Result<Answered, Reply> {
    let client: OnUpgrade = flow
        .asked
        .extensions
        .remove()
        .ok_or_else(|| Reply::new(StatusCode::BAD_REQUEST, "", "upgrade_failed"))?;
    // A CONNECT of HTTP/2 sends its bytes in its own stream; what comes with an HTTP/1 request is
    // an ordinary body.
    let body = match flow.asked.version {
        Version::HTTP_2 => RequestBody::Empty,
        _ => RequestBody::stream(incoming, &flow.flight),
    };
    translate(flow);
    flow.flight.exchange.borrow_mut().upstream.attempts = 1;
    trace(flow);
    let from_h2 = flow.asked.version >= Version::HTTP_2;
    let mut request = request(flow, body, true);
    // Written as HTTP/1 asks for it, whoever asked.
    *request.version_mut() = Version::HTTP_11;
    let authority = flow.asked.authority.to_str().ok();
    let choice = Choice {
        hash: plan.hash,
        authority,
        destination: plan.destination,
        rewrite_host: plan.rewrite_host,
        timeout: plan.timeouts.total,
        ..Choice::new(&flow.http.connection.down)
    };
    let upstreams = &flow.http.connection.local.upstreams;
    let sent = upstreams.send(&plan.cluster, &choice, plan.permit.clone(), request);
    let sent = sent
        .await
        .map_err(|refused| attempts::failed(&refused.failure))?;
    let Sent {
        mut response,
        endpoint,
        peer,
        local,
        ..
    } = sent;
    {
        let upstream = &mut flow.flight.exchange.borrow_mut().upstream;
        upstream.endpoint = Some(endpoint);
        (upstream.remote, upstream.local) = (peer, local);
    }
    let agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (flow.asked.method == Method::CONNECT && response.status().is_success());
    if !agreed {
        return Ok(Answered::plain(response));
    }
    let server = hyper::upgrade::on(&mut response);
    if from_h2 {
        *response.status_mut() = StatusCode::OK;
        for name in [header::CONNECTION, header::UPGRADE] {
            response.headers_mut().remove(name);
        }
    }
    let idle = flow.flight.idle();
    Ok(Answered {
        response,
        handover: Some(Handover {
            client,
            server,
            idle,
        }),
    })
}

/// HTTP/2's extended CONNECT as HTTP/1 says it; the upstream's side says it in its own way.
fn translate(flow: &mut Flow<'_>) {
    let asked = &mut flow.asked;
    let Some(upgrade) = asked.upgrade.as_deref().filter(|name| *name != "connect") else {
        return;
    };
    if asked.method == Method::CONNECT
        && let Ok(protocol) = HeaderValue::from_str(upgrade)
    {
        asked.method = Method::GET;
        let headers = &mut asked.headers;
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Passes bytes on both ways until both have ended, one breaks, or nothing moves for too long.
pub(super) async fn pipe(handover: Handover, landing: Landing) {
    let Handover {
        client,
        server,
        idle,
    } = handover;
    let (Ok(client), Ok(server)) = tokio::join!(client, server) else {
        landing.broke(Flags::UPSTREAM_CLOSED, "upgrade_failed");
        return;
    };
    let flight = landing.flight().clone();
    flight.limit(|limit| {
        limit.total = None;
        limit.attempt = None;
        limit.idle = idle;
    });
    flight.request_complete();
    let (mut client_read, mut client_write) = tokio::io::split(io(client));
    let (mut server_read, mut server_write) = tokio::io::split(io(server));
    let up = copy(
        &mut client_read,
        &mut server_write,
        &flight,
        Flight::received,
    );
    let down = copy(&mut server_read, &mut client_write, &flight, Flight::sent);
    let first = std::cell::Cell::new(None);
    let ended = |side| first.set(first.get().or(Some(side)));
    let both = async {
        let up = async {
            let _ = up.await;
            ended(Side::Client);
        };
        let down = async {
            let _ = down.await;
            ended(Side::Server);
        };
        tokio::join!(up, down);
        first.get().unwrap_or(Side::Server)
    };
    tokio::select! {
        first = both => match first {
            Side::Client => {
                let details = "downstream_remote_disconnect";
                landing.broke(Flags::DOWNSTREAM_CLOSED, details);
            }
            Side::Server => landing.complete(),
        },
        _ = std::future::poll_fn(|cx| flight.poll_expired(cx)) => {
            landing.broke(Flags::IDLE_TIMEOUT, "stream_idle_timeout");
        }
    }
}

/// Who ended a pipe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

fn io(upgraded: Upgraded) -> TokioIo<Upgraded> {
    TokioIo::new(upgraded)
}

/// One way; its end is passed on as an end.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    flight: &Rc<Flight>,
    count: fn(&Flight, usize),
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        count(flight, read);
    }
}
