//! A request's body as it comes from the client, of which a filter may read the beginning before the
//! request goes on: what was read is passed on first, as it came.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A request's body.
#[derive(Debug)]
pub(super) struct Inbound {
    /// What was read ahead. Mostly nothing, which costs nothing.
    early: VecDeque<Frame<Bytes>>,
    rest: Incoming,
    /// There is nothing behind what was read ahead.
    ended: bool,
    /// The frame that was given last had been read ahead.
    was_early: bool,
}

impl From<Incoming> for Inbound {
    fn from(rest: Incoming) -> Self {
        Self {
            early: VecDeque::new(),
            ended: false,
            was_early: false,
            rest,
        }
    }
}

impl Inbound {
    /// Reads until the body has ended or more than so many bytes are there. What is read is held, and
    /// frames of the HTTP library bound what is read beyond.
    pub(super) async fn read_ahead(&mut self, most: usize) -> Result<(), hyper::Error> {
        while !self.ended && self.held() <= most {
            match self.rest.frame().await {
                None => self.ended = true,
                Some(frame) => self.early.push_back(frame?),
            }
            self.ended |= self.rest.is_end_stream();
        }
        Ok(())
    }

    /// The first bytes of what was read ahead, and whether there is more of the body.
    pub(super) fn beginning(&self, most: usize) -> (Vec<u8>, bool) {
        let data = self.early.iter().filter_map(Frame::data_ref);
        let mut beginning = data.flatten().copied().collect::<Vec<u8>>();
        let more = beginning.len() > most;
        beginning.truncate(most);
        (beginning, more)
    }

    /// Whether all of it was read ahead.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the frame that was given last had been read ahead, and was counted then.
    pub(super) fn was_early(&self) -> bool {
        self.was_early
    }

    /// How many bytes were read ahead and not given yet.
    pub(super) fn held(&self) -> usize {
        let data = self.early.iter().filter_map(Frame::data_ref);
        data.map(Bytes::len).sum()
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let early = self.early.pop_front();
        self.was_early = early.is_some();
        if let Some(frame) = early {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.rest).poll_frame(cx));
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.early.is_empty() && !self.ended {
            return self.rest.size_hint();
        }
        let held = self.held() as u64;
        if self.ended {
            return SizeHint::with_exact(held);
        }
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}
