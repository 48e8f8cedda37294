//! What an attempt brings: an answer whose body keeps its place on the connection until it is read,
//! or a connection for bytes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connect::Io;
use crate::model::endpoint::Endpoint;

/// An answer and where it came from.
#[derive(Debug)]
pub struct Sent {
    /// The answer. `hyper::upgrade::on` works with it.
    pub response: Response<Received>,
    /// Who answered.
    pub endpoint: Arc<Endpoint>,
    /// The address that the connection goes to, of a tunnel the inner one.
    pub peer: Option<SocketAddr>,
    /// Our own address of the connection.
    pub local: Option<SocketAddr>,
    /// The connection had carried requests before.
    pub reused: bool,
}

/// A connection for bytes: TCP, TLS or a tunnel. Its place in the cluster's limits is free again
/// when it is dropped.
pub struct Connected {
    /// The bytes. Shutting down half-closes.
    pub io: Io,
    /// Who is at the other end.
    pub endpoint: Arc<Endpoint>,
    /// The address that the connection goes to, of a tunnel the inner one.
    pub peer: Option<SocketAddr>,
    /// Our own address of the connection.
    pub local: Option<SocketAddr>,
    /// The place; keep it as long as the connection.
    pub place: Place,
}

/// A place on a connection or in a cluster's limits, free again when it is dropped.
pub struct Place(Option<Rc<dyn Release>>);

/// What has to be done when a place is free again.
pub(super) trait Release {
    /// The one who held it is done.
    fn release(self: Rc<Self>);

    /// Lets the connection go on that this is a place of, where it has no task of its own; false
    /// where it has, or has ended.
    fn drive(&self, _cx: &mut Context<'_>) -> bool {
        false
    }

    /// Whether the connection that this is a place of wakes nobody just now, where it has no task of
    /// its own.
    fn hush(&self, _hushed: bool) {}
}

/// The body of an answer. Dropping it before its end gives up the stream, and with HTTP/1 the
/// connection.
pub struct Received {
    incoming: Incoming,
    place: Place,
}

impl Place {
    pub(super) fn new(of: Rc<dyn Release>) -> Self {
        Self(Some(of))
    }

    fn drive(&self, cx: &mut Context<'_>) -> bool {
        self.0.as_ref().is_some_and(|held| held.drive(cx))
    }

    fn hush(&self, hushed: bool) {
        if let Some(held) = &self.0 {
            held.hush(hushed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.release();
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl Received {
    pub(super) fn new(incoming: Incoming, place: Place) -> Self {
        Self { incoming, place }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut unwoken = Context::from_waker(Waker::noop());
        // What the connection has read already needs neither it nor a waker. It would wake us to go
        // on, and we go on anyway: now, or when somebody wants more.
        this.place.hush(true);
        let frame = Pin::new(&mut this.incoming).poll_frame(&mut unwoken);
        this.place.hush(false);
        if frame.is_ready() {
            return frame;
        }
        let incoming = Pin::new(&mut this.incoming);
        match this.place.drive(cx) {
            // Nothing but the connection brings more, and it wakes whoever drove it.
            true => incoming.poll_frame(&mut unwoken),
            false => incoming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received")
            .field("size", &self.incoming.size_hint())
            .field("place", &self.place)
            .finish()
    }
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("io", &self.io)
            .field("endpoint", &self.endpoint.address)
            .finish_non_exhaustive()
    }
}
