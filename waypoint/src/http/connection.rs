//! One HTTP connection: which protocol it speaks, how hyper is set up for it, and what its requests
//! share. How it ends is `lifetime`'s.

mod late;
mod lent;
mod lifetime;
mod streams;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, StatusCode};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh::cork::{Left, cork, in_rounds};
use mesh::tap::Tapped;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tracing::debug;

use super::body::ResponseBody;
use super::flight::Flight;
use super::flow;
use super::raw::Raw;
use super::view::View;
use crate::listen::io::Io;
use crate::model::http::{Codec, HttpChain};
use crate::model::listener::{ChainKind, Protocol};
use crate::telemetry::{Exchange, Flags, Marks};
use crate::worker::Connection;
use late::Late;
use lent::{Back, Lent};
use lifetime::{Ended, drive};
use streams::Streams;

/// Bytes that a client may send on one stream before they have been passed on.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes that a client may send on one connection before they have been passed on.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of one stream that may wait for the client.
const SEND_BUFFER: usize = 64 << 10;
/// Streams at a time where the configuration has no limit of its own.
const MOST_STREAMS: u32 = 1024;
/// Bytes that hyper holds of one HTTP/1 connection in each direction, at least the longest head: it
/// reads as much of a large body at once, and less of a small one.
const HTTP1_BUFFER: usize = 128 << 10;
/// The longest head where the configuration has no limit of its own.
const LONGEST_HEAD: usize = 64 << 10;

/// Future size, in bytes, of a request's way: it is part of its connection's, or of its stream's.
const MOST_PER_REQUEST: usize = 9 << 10;
/// How long a new connection may say nothing where the configuration has no limit of its own.
const LONGEST_SILENCE: Duration = Duration::from_secs(3600);

/// The versions of HTTP that differ on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) connection: Connection,
    view: RefCell<Rc<View>>,
    /// Requests in flight: from their heads until their answers have gone.
    active: Cell<u32>,
    /// Requests ever.
    count: Cell<u32>,
    /// After how many the connection ends.
    most: Option<u32>,
    /// When the last one ended.
    rested: Cell<Instant>,
    /// No further request is wanted.
    pub(super) closing: Cell<bool>,
    /// The request that came last. With HTTP/2 its stream takes it from here.
    pub(super) last: RefCell<Weak<Flight>>,
    /// The head as it came, with HTTP/1.
    pub(super) raw: Option<Arc<Raw>>,
    /// Where the connection's bytes come back to, with HTTP/1.
    back: Option<Arc<Back>>,
}

/// Serves a connection to its end.
pub async fn serve(connection: Connection, io: Io, alpn: Option<Version>) {
    let ChainKind::Http(chain) = &connection.chain.kind else {
        return;
    };
    let chain = Arc::clone(chain);
    let Some((io, version)) = version(&chain, &connection, io, alpn).await else {
        return;
    };
    let http = Rc::new(Http {
        view: RefCell::new(View::new(&connection, &chain)),
        connection,
        active: Cell::new(0),
        count: Cell::new(0),
        most: chain.limits.max_requests.filter(|most| *most > 0),
        rested: Cell::new(Instant::now()),
        closing: Cell::new(false),
        last: RefCell::default(),
        raw: (version == Version::Http1).then(Arc::default),
        back: (version == Version::Http1).then(Arc::default),
    });
    let ended = match version {
        Version::Http1 => http1(&http, &chain, io).await,
        Version::Http2 => http2(&http, &chain, io).await,
    };
    let remote = http.connection.down.remote;
    match ended {
        Ended::Served(Ok(())) => {}
        Ended::Served(Err(error)) => {
            if error.is_parse() {
                http.note_malformed(&error);
            }
            debug!(%remote, %error, "an HTTP connection broke");
        }
        Ended::Late(late) => {
            debug!(%remote, "a head did not become whole: {}", late.body());
            http.note_refused(
                Late::STATUS,
                late.flags(),
                late.details(),
                late.body().len(),
            );
            if let Some(io) = http.back.as_ref().and_then(|back| back.take()) {
                late.answer(&chain.server, io).await;
            }
        }
    }
}

/// Which version a connection speaks: as the chain says, as TLS agreed, or as its first bytes tell.
async fn version(
    chain: &HttpChain,
    connection: &Connection,
    io: Io,
    alpn: Option<Version>,
) -> Option<(Io, Version)> {
    let known = match (chain.codec, alpn, connection.down.detected) {
        (Codec::Http1, _, _) => Some(Version::Http1),
        (Codec::Http2, _, _) => Some(Version::Http2),
        (Codec::Auto, Some(version), _) => Some(version),
        (Codec::Auto, None, Some(Protocol::Http2)) => Some(Version::Http2),
        (Codec::Auto, None, Some(Protocol::Http10 | Protocol::Http11)) => Some(Version::Http1),
        (Codec::Auto, None, Some(Protocol::Opaque) | None) => None,
    };
    if let Some(version) = known {
        return Some((io, version));
    }
    let limit = chain.limits.idle.unwrap_or(LONGEST_SILENCE);
    let mut io = io;
    let look = async {
        match &mut io {
            Io::Plain(carrier) => carrier.look(true, false, limit).await,
            Io::Tls(tls) => tls.look(true, false, limit).await,
        }
    };
    let found = tokio::select! {
        found = look => Some(found),
        () = connection.entry.given_up() => None,
    };
    let Some(found) = found else {
        // An end, not a reset: nobody has been refused anything.
        let _ = io.shutdown().await;
        return None;
    };
    let found = found.ok().filter(|found| found.any)?;
    let version = match found.protocol {
        Some(Protocol::Http2) => Version::Http2,
        // What is no HTTP at all is told so by hyper's HTTP/1.
        _ => Version::Http1,
    };
    Some((io, version))
}

async fn http1(http: &Rc<Http>, chain: &HttpChain, io: Io) -> Ended {
    let limits = &chain.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper's would count from the end of the request before, and close what only rests.
        .header_read_timeout(None)
        .preserve_header_case(chain.http1.keep_case)
        .half_close(false)
        .max_buf_size(HTTP1_BUFFER.max(limits.max_header_bytes as usize))
        .max_header_size(match limits.max_header_bytes {
            0 => LONGEST_HEAD,
            most => most as usize,
        });
    if limits.max_headers > 0 {
        builder.max_headers(limits.max_headers as usize);
    }
    let shared = http.clone();
    let service = service_fn(move |request| answer(shared.clone(), request));
    let io = Lent::new(
        in_rounds(io, Left::Sent),
        http.back.clone().unwrap_or_default(),
    );
    let io = Tapped::new(io, http.raw.clone().unwrap_or_default());
    let connection = builder.serve_connection(TokioIo::new(io), service);
    // Which upgrades are allowed is each route's to say.
    drive(http, limits, pin!(connection.with_upgrades())).await
}

async fn http2(http: &Rc<Http>, chain: &HttpChain, io: Io) -> Ended {
    let (limits, options) = (&chain.limits, &chain.http2);
    let mut builder = http2::Builder::new(Streams(http.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(
            options
                .max_streams
                .unwrap_or(MOST_STREAMS)
                .min(MOST_STREAMS),
        )
        .initial_stream_window_size(
            options
                .stream_window
                .unwrap_or(STREAM_WINDOW)
                .min(STREAM_WINDOW),
        )
        .initial_connection_window_size(
            options
                .connection_window
                .unwrap_or(CONNECTION_WINDOW)
                .min(CONNECTION_WINDOW),
        )
        .max_send_buf_size(SEND_BUFFER);
    if limits.max_header_bytes > 0 {
        builder.max_header_list_size(limits.max_header_bytes);
    }
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    if let Some((interval, timeout)) = options.keepalive {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
    }
    let shared = http.clone();
    let service = service_fn(move |request| answer(shared.clone(), request));
    let (io, outlet) = cork(io);
    let connection = builder.serve_connection(TokioIo::new(io), service);
    outlet.drive(drive(http, limits, pin!(connection))).await
}

async fn answer(
    http: Rc<Http>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    // In a block of its own, which the request before has just left: hyper moves what it is given
    // several times before it begins, and to a task of its own with HTTP/2.
    let flow = Box::pin(flow::run(&http, request));
    debug_assert!(
        size_of_val(&*flow) <= MOST_PER_REQUEST,
        "a request costs {} bytes",
        size_of_val(&*flow)
    );
    Ok(flow.await)
}

impl Http {
    /// The configuration for a new request.
    pub(super) fn view(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        let current = self.connection.local.current.glance();
        if current.version != view.snapshot.version {
            *view = view.next(&self.connection);
            if view.gone {
                self.close();
            }
        }
        view.clone()
    }

    /// Whether the client should be told that this connection takes no further request.
    pub(super) fn is_ending(&self) -> bool {
        self.closing.get() || self.connection.entry.is_ending()
    }

    /// Writes down a request that is none: hyper has answered it.
    fn note_malformed(&self, error: &hyper::Error) {
        let (status, details) = match error.is_parse_too_large() {
            true => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http1.headers_too_large",
            ),
            false => (StatusCode::BAD_REQUEST, "http1.codec_error"),
        };
        self.note_refused(status, Flags::DOWNSTREAM_PROTOCOL_ERROR, details, 0);
    }

    /// Writes down what never became a request, and was answered with so many bytes.
    fn note_refused(&self, status: StatusCode, flags: Flags, details: &'static str, sent: usize) {
        let now = std::time::Instant::now();
        let marks = Marks::new(now, std::time::SystemTime::now());
        let method = Method::from_bytes(b"-").unwrap_or_default();
        let down = self.connection.down.clone();
        let mut exchange = Exchange::new(down, marks, method, hyper::Version::HTTP_11);
        exchange.status = Some(status);
        exchange.flags |= flags;
        exchange.details = details.into();
        exchange.sent = sent as u64;
        exchange.marks.end = Some(now);
        let chain = &self.view.borrow().chain;
        let telemetry = &self.connection.local.telemetry;
        telemetry.begin(chain, &mut exchange, &HeaderMap::new());
        telemetry.finish(chain, &exchange);
    }

    /// Has the connection end in its own time.
    fn close(&self) {
        self.closing.set(true);
        self.connection.entry.ask();
    }

    /// A request begins, which is in flight until what this returns is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        self.count.set(self.count.get().saturating_add(1));
        if self.most.is_some_and(|most| self.count.get() >= most) {
            self.close();
        }
        Active(self.clone())
    }
}

/// A request in flight on its connection.
#[derive(Debug)]
pub(super) struct Active(Rc<Http>);

impl Drop for Active {
    fn drop(&mut self) {
        let http = &self.0;
        http.active.set(http.active.get() - 1);
        if http.active.get() == 0 {
            http.rested.set(Instant::now());
            // The next head may have come before all of this request was let go.
            if let Some(raw) = &http.raw {
                raw.end();
            }
        }
    }
}
