//! The body of an answer before it is anybody's to send: bytes of our own, an upstream's as it comes, or
//! what a plugin lets go of either.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::body::BodyError;
use super::plugins::Plugged;
use crate::upstream::Received;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Carried {
    /// Bytes of our own.
    Whole(Option<Bytes>),
    /// As it comes from the upstream.
    Upstream(Received),
    /// As another plugin lets it go.
    Plugged(Box<Plugged<Carried>>),
}

impl Carried {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(received) => {
                let frame = std::task::ready!(Pin::new(received).poll_frame(cx));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
            Self::Plugged(plugged) => plugged.poll_frame(cx),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Upstream(received) => received.is_end_stream(),
            Self::Plugged(plugged) => plugged.has_ended(),
        }
    }
}
