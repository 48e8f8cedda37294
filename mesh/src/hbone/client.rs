//! One connection to a peer: how it is made, driven, and used for a stream.

use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use super::keepalive::Keepalive;
use super::members::{Lease, Load};
use super::pool::{ConnectError, Target};
use super::stream::Stream;
use super::wire::{Broken, Wire, corked};
use super::{ANSWER_TIMEOUT, HANDSHAKE_TIMEOUT, Limits, MAX_FRAME, MAX_HEADERS, TINY_FRAMES};
use crate::certificate::Certificate;
use crate::cork::{Corked, Outlet};
use crate::tls::{self, Expected};

/// What opens streams on a connection.
#[derive(Clone)]
pub(super) struct Opener {
    h2: SendRequest<Bytes>,
    broken: Broken,
}

/// A connection that was just made: somebody has to [`drive`] it.
pub(super) struct Made<T = TcpStream> {
    pub(super) opener: Opener,
    pub(super) usable_until: SystemTime,
    pub(super) driver: Driver<T>,
}

/// What moves a connection's bytes.
pub(super) struct Driver<T = TcpStream> {
    connection: Connection<Corked<Wire<T>>, Bytes>,
    outlet: Outlet<Wire<T>>,
}

/// Why a stream could not be opened, and whether another connection may be tried.
pub(super) enum OpenError {
    /// The connection was already gone, or going: the peer never saw the request.
    Unsent(ConnectError),
    /// The peer may have seen the request.
    Failed(ConnectError),
}

impl OpenError {
    /// What happened, whether or not another connection may be tried.
    pub(super) fn cause(self) -> ConnectError {
        match self {
            Self::Unsent(error) | Self::Failed(error) => error,
        }
    }
}

/// Makes a connection over `io`.
pub(super) async fn make<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: T,
    certificate: &Certificate,
    expected: &[Expected],
    next_hop: SocketAddr,
    limits: &Limits,
) -> Result<Made<T>, ConnectError> {
    let (tls, peer) = tls::connect(io, certificate, expected, HANDSHAKE_TIMEOUT)
        .await
        .map_err(|error| ConnectError::Tls {
            next_hop,
            reason: error.reason,
            cause: error.to_string(),
        })?;
    let (wire, outlet, broken) = corked(tls);
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(limits.send_buffer)
        .data_frame_budget(TINY_FRAMES)
        .initial_max_send_streams(limits.pooled_streams)
        .enable_push(false);
    let (h2, connection) = timeout(HANDSHAKE_TIMEOUT, builder.handshake(wire))
        .await
        .map_err(|_| ConnectError::TimedOut {
            next_hop,
            what: "HTTP/2 handshake",
        })?
        .map_err(|error| broke(&broken, next_hop, &error))?;
    let usable_until = certificate.not_after().min(peer.not_after);
    Ok(Made {
        opener: Opener { h2, broken },
        usable_until,
        driver: Driver { connection, outlet },
    })
}

/// Drives a connection until it ends. Calls `release` once it has been idle for so long, which
/// gives up its last opener if it is still idle then.
pub(super) async fn drive<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    driver: Driver<T>,
    load: Arc<Load>,
    limit: Duration,
    release: impl Fn(),
) {
    let Driver {
        mut connection,
        outlet,
    } = driver;
    let mut keepalive = Keepalive::new(connection.ping_pong());
    let mut connection = pin!(outlet.drive(connection));
    let mut released = false;
    loop {
        let idle = load.idle_at(limit);
        let idle_over = async {
            match (released, idle) {
                (true, _) => pending().await,
                (false, Some(at)) => sleep_until(at.into()).await,
                // Busy: it can't have been idle for long enough before then.
                (false, None) => tokio::time::sleep(limit).await,
            }
        };
        tokio::select! {
            // How it ended is the business of its streams: each learns it by itself.
            _ = &mut connection => return,
            () = poll_fn(|cx| keepalive.poll_dead(cx)) => return,
            () = idle_over => {
                if load.idle_at(limit).is_some_and(|at| at <= std::time::Instant::now()) {
                    release();
                    released = load.idle_at(limit).is_some();
                }
            }
        }
    }
}

impl Opener {
    /// How many streams the peer takes at the same time. It has said so by its first answer.
    pub(super) fn ceiling(&self) -> usize {
        self.h2.current_max_send_streams()
    }

    /// Sends a CONNECT and waits for its answer.
    pub(super) async fn open(&self, target: &Target, lease: Lease) -> Result<Stream, OpenError> {
        let next_hop = target.next_hop;
        let request = request(target).map_err(OpenError::Failed)?;
        let broken = &self.broken;
        let unsent = |error: h2::Error| OpenError::Unsent(broke(broken, next_hop, &error));
        let mut h2 = self.h2.clone().ready().await.map_err(unsent)?;
        let (answer, send) = h2.send_request(request, false).map_err(unsent)?;
        let answer = timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| {
            OpenError::Failed(ConnectError::TimedOut {
                next_hop,
                what: "answer",
            })
        })?;
        let answer = answer.map_err(|error| {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away();
            let failed = broke(broken, next_hop, &error);
            if refused {
                OpenError::Unsent(failed)
            } else {
                OpenError::Failed(failed)
            }
        })?;
        if answer.status() != StatusCode::OK {
            return Err(OpenError::Failed(ConnectError::Refused(answer.status())));
        }
        Ok(Stream::new(send, answer.into_body(), Some(lease)))
    }
}

fn request(target: &Target) -> Result<Request<()>, ConnectError> {
    let wrong = |what: &'static str| ConnectError::Target {
        what,
        authority: target.authority.clone(),
    };
    let authority = target.authority.parse().map_err(|_| wrong("authority"))?;
    let mut parts = http::uri::Parts::default();
    parts.authority = Some(authority);
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| wrong("authority"))?;
    let known = [
        ("baggage", &target.baggage),
        ("forwarded", &target.forwarded),
        ("traceparent", &target.traceparent),
    ];
    let known = known
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let further = target.further.iter().map(|(name, value)| (*name, value));
    for (name, value) in known.chain(further) {
        let value = HeaderValue::from_str(value).map_err(|_| wrong(name))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn broke(broken: &Broken, next_hop: SocketAddr, error: &h2::Error) -> ConnectError {
    let cause = error.to_string();
    match broken.get() {
        Some(reason) if error.is_io() => ConnectError::Tls {
            next_hop,
            reason: *reason,
            cause,
        },
        _ => ConnectError::Broken { next_hop, cause },
    }
}
