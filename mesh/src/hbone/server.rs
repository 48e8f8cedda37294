//! The destination's side: a TCP connection becomes requests, each with a verified peer.

use std::future::poll_fn;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::uri::Authority;
use http::{HeaderMap, Method, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::authority::Destination;
use super::keepalive::Keepalive;
use super::stream::{Stream, StreamError};
use super::wire::{Broken, Wire, corked};
use super::{HANDSHAKE_TIMEOUT, Limits, MAX_FRAME, MAX_HEADERS, TINY_FRAMES};
use crate::certificate::Certificate;
use crate::cork::{Corked, Outlet};
use crate::drain::Watch;
use crate::policy::Permit;
use crate::tls::{self, HandshakeError, Peer, TlsRefusal};

/// A connection from a verified peer. [`Connection::next`] drives it, and all its streams: keep
/// calling it, and handle requests in tasks of their own.
pub struct Connection {
    h2: h2::server::Connection<Corked<Wire>, Bytes>,
    outlet: Outlet<Wire>,
    keepalive: Keepalive,
    watch: Watch,
    closing: bool,
    /// When the peer's certificate expires: it may open no stream afterwards.
    expires: Instant,
    peer: Peer,
    broken: Broken,
}

/// A CONNECT that waits for its answer. Dropping it unanswered resets the stream.
pub struct Request {
    peer: Peer,
    authority: Authority,
    destination: Destination,
    headers: HeaderMap,
    respond: h2::server::SendResponse<Bytes>,
    body: RecvStream,
}

/// Why a connection was not accepted, or broke.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// TLS was refused.
    #[error(transparent)]
    Tls(#[from] HandshakeError),
    /// TLS broke later.
    #[error("the tunnel broke ({reason}): {cause}")]
    Broken {
        /// What TLS saw.
        reason: TlsRefusal,
        /// What HTTP/2 saw.
        cause: h2::Error,
    },
    /// The peer doesn't speak proper HTTP/2.
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    /// The peer said nothing after TLS.
    #[error("no HTTP/2 preface within {HANDSHAKE_TIMEOUT:?}")]
    Silent,
    /// The peer stopped answering PINGs.
    #[error("the peer answers no PING")]
    Dead,
}

impl AcceptError {
    /// The reason, where TLS is to blame.
    #[must_use]
    pub fn refusal(&self) -> Option<TlsRefusal> {
        match self {
            Self::Tls(error) => Some(error.reason),
            Self::Broken { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// Whether the peer only took too long.
    #[must_use]
    pub fn is_lateness(&self) -> bool {
        matches!(self, Self::Silent) || self.refusal() == Some(TlsRefusal::TimedOut)
    }
}

/// Accepts a connection on behalf of `certificate`'s workload. While `watch` is closing, no new
/// stream is accepted and the present ones go on; when it is forced they are reset.
///
/// # Errors
/// See [`AcceptError`].
pub async fn accept(
    tcp: TcpStream,
    certificate: &Certificate,
    watch: Watch,
) -> Result<Connection, AcceptError> {
    accept_within(tcp, certificate, watch, &Limits::NODE).await
}

/// As [`accept`], with limits other than a node proxy's.
///
/// # Errors
/// See [`AcceptError`].
pub async fn accept_within(
    tcp: TcpStream,
    certificate: &Certificate,
    watch: Watch,
    limits: &Limits,
) -> Result<Connection, AcceptError> {
    let (tls, peer) = tls::accept(tcp, certificate, HANDSHAKE_TIMEOUT).await?;
    let (wire, outlet, broken) = corked(tls);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(limits.accepted_streams)
        .max_send_buffer_size(limits.send_buffer)
        .data_frame_budget(TINY_FRAMES);
    let mut h2 = timeout(HANDSHAKE_TIMEOUT, builder.handshake(wire))
        .await
        .map_err(|_| AcceptError::Silent)?
        .map_err(|cause| broke(&broken, cause))?;
    let keepalive = Keepalive::new(h2.ping_pong());
    let left = peer
        .not_after
        .duration_since(SystemTime::now())
        .unwrap_or(Duration::ZERO);
    // A certificate of a century would overflow the timer's clock.
    let expires = Instant::now() + left.min(Duration::from_secs(365 * 86_400));
    Ok(Connection {
        h2,
        outlet,
        keepalive,
        watch,
        closing: false,
        expires,
        peer,
        broken,
    })
}

impl Connection {
    /// Who the peer is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The next request, or `None` once the connection has ended properly: the peer closed it, or
    /// it was drained and its last stream is done. When the peer's certificate expires, the
    /// connection is closed for new streams (GOAWAY), so that nobody goes on with an identity that
    /// it could not prove again. May be cancelled, but must then be called again or dropped.
    ///
    /// # Errors
    /// See [`AcceptError`]. The connection is over then.
    pub async fn next(&mut self) -> Result<Option<Request>, AcceptError> {
        loop {
            let watch = self.watch.clone();
            tokio::select! {
                incoming = self.outlet.drive(self.h2.accept()) => match incoming {
                    None => return Ok(None),
                    Some(Err(cause)) => return Err(broke(&self.broken, cause)),
                    Some(Ok((request, respond))) => {
                        if let Some(request) = self.read(request, respond) {
                            return Ok(Some(request));
                        }
                    }
                },
                () = poll_fn(|cx| self.keepalive.poll_dead(cx)) => return Err(AcceptError::Dead),
                () = watch.forced() => {
                    self.h2.abrupt_shutdown(Reason::CANCEL);
                    // Sends what it can of the farewell without waiting for the peer.
                    let farewell = self.outlet.drive(poll_fn(|cx| self.h2.poll_closed(cx)));
                    let _ = timeout(Duration::from_millis(100), farewell).await;
                    return Ok(None);
                }
                () = watch.closing(), if !self.closing => self.close(),
                () = sleep_until(self.expires), if !self.closing => self.close(),
            }
        }
    }

    fn close(&mut self) {
        self.closing = true;
        self.h2.graceful_shutdown();
    }

    /// Looks at a request; what is no CONNECT to a destination is answered here.
    fn read(
        &self,
        request: http::Request<RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) -> Option<Request> {
        let (head, body) = request.into_parts();
        let authority = head.uri.authority();
        let plain = head.extensions.get::<h2::ext::Protocol>().is_none();
        let destination = authority.and_then(|text| Some((text, text.as_str().parse().ok()?)));
        match destination {
            Some((authority, destination)) if head.method == Method::CONNECT && plain => {
                let (peer, authority) = (self.peer.clone(), authority.clone());
                let headers = head.headers;
                Some(Request {
                    peer,
                    authority,
                    destination,
                    headers,
                    respond,
                    body,
                })
            }
            _ => {
                debug!(peer = %self.peer.identity, method = %head.method, ?authority, "not a CONNECT");
                let _ = respond.send_response(answer(StatusCode::BAD_REQUEST), true);
                None
            }
        }
    }
}

impl Request {
    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where the stream is to go.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Where the stream is to go, as the peer wrote it.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// All the headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header's value, if it is text: `baggage`, `forwarded`, `traceparent`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Answers 200. To be called once the destination's connection stands.
    ///
    /// # Errors
    /// If the peer has given up meanwhile.
    pub fn accept(mut self, _permit: Permit) -> Result<Stream, StreamError> {
        let send = self.respond.send_response(answer(StatusCode::OK), false)?;
        Ok(Stream::new(send, self.body, None))
    }

    /// Answers with a failure: 401 denied by policy, 503 no upstream.
    pub fn refuse(mut self, status: StatusCode) {
        // It fails only if the peer has given up, and then nobody waits for the answer.
        let _ = self.respond.send_response(answer(status), true);
    }

    /// Waits until the peer gives up.
    pub async fn cancelled(&mut self) {
        // Either way, a reset or a broken connection, nobody waits any more.
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({} → {})", self.peer.identity, self.destination)
    }
}

fn answer(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

fn broke(broken: &Broken, cause: h2::Error) -> AcceptError {
    match broken.get() {
        Some(reason) if cause.is_io() => AcceptError::Broken {
            reason: *reason,
            cause,
        },
        _ => AcceptError::Http2(cause),
    }
}
