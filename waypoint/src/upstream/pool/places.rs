//! Places in a cluster's limits, each free again when it is dropped, and what ended a connection.

use std::rc::Rc;
use std::sync::Arc;

use http::Request;

use super::Pool;
use crate::upstream::answer::Release;
use crate::upstream::failure::{FailureKind, Reset};
use crate::upstream::shared::ClusterState;

/// A place of a connection in the limits, free again when it is dropped.
pub(super) struct Alive<B> {
    pub(super) pool: Rc<Pool<B>>,
}

/// A place among those who wait for a connection, free again when it is dropped.
pub(super) struct Pending(pub(super) Arc<ClusterState>);

/// An attempt that failed.
pub(in crate::upstream) struct Failed<B> {
    pub(in crate::upstream) kind: FailureKind,
    pub(in crate::upstream) reused: bool,
    pub(in crate::upstream) sent: bool,
    /// The request, where nothing of it was taken.
    pub(in crate::upstream) request: Option<Request<B>>,
}

impl<B> Drop for Alive<B> {
    fn drop(&mut self) {
        let pool = &self.pool;
        pool.alive.set(pool.alive.get() - 1);
        pool.state.connections.give();
        pool.host.connections.give();
        // The place is free for the first who waits.
        pool.waiting.wake_one();
        pool.changed.notify_waiters();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.give();
    }
}

impl<B> Failed<B> {
    pub(super) fn early(kind: FailureKind, request: Request<B>) -> Self {
        Self {
            kind,
            reused: false,
            sent: false,
            request: Some(request),
        }
    }

    /// The connection had ended before anything was sent.
    pub(super) fn ended(reused: bool, request: Request<B>) -> Self {
        Self {
            reused,
            ..Self::early(FailureKind::Reset(Reset::Connection), request)
        }
    }
}

/// The place of a connection for bytes.
pub(super) struct Bytewise<B>(pub(super) Alive<B>);

impl<B> Release for Bytewise<B> {
    fn release(self: Rc<Self>) {
        self.0.pool.host.active.give();
    }
}

/// What an error of hyper means.
pub(super) fn reset_of(error: &hyper::Error) -> FailureKind {
    use std::error::Error;
    if error.is_user() {
        let cause = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        return FailureKind::Request(cause.into());
    }
    let h2 = error
        .source()
        .and_then(|cause| cause.downcast_ref::<h2::Error>());
    FailureKind::Reset(match h2 {
        _ if error.is_parse() => Reset::Protocol,
        Some(h2) if h2.reason() == Some(h2::Reason::REFUSED_STREAM) => Reset::RefusedStream,
        // Streams that a GOAWAY without an error leaves out were never begun.
        Some(h2)
            if h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR) =>
        {
            Reset::RefusedStream
        }
        Some(h2) if h2.is_reset() && h2.is_remote() => Reset::Remote,
        Some(h2) if h2.is_library() => Reset::Protocol,
        _ => Reset::Connection,
    })
}
