//! A request's body as it comes from the client, of which a filter may read the beginning before the
//! request goes on: what was read is passed on first, as it came. gRPC-Web's text is decoded here, so
//! that whoever reads the body, or sends it again, has gRPC's frames.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;
use super::plugins::Plugged;
use crate::grpc::text::Decoder;
use crate::grpc::web::Web;

/// A request's body.
#[derive(Debug)]
pub(super) struct Inbound {
    /// What was read ahead. Mostly nothing, which costs nothing.
    early: VecDeque<Frame<Bytes>>,
    rest: Source,
    /// There is nothing behind what was read ahead.
    ended: bool,
    /// Bytes that came from the client since somebody asked last.
    came: usize,
    /// It is gRPC-Web's: its length isn't told, as Envoy doesn't.
    web: bool,
    /// It comes as text.
    text: Option<Box<Decoder>>,
}

/// Where a request's body comes from.
#[derive(Debug)]
enum Source {
    /// The client.
    Client(Incoming),
    /// A plugin, which has seen what stands before it.
    Plugin(Box<Plugged<Inbound>>),
}

impl From<Incoming> for Inbound {
    fn from(rest: Incoming) -> Self {
        Self::of(Source::Client(rest))
    }
}

impl From<Plugged<Self>> for Inbound {
    fn from(plugged: Plugged<Self>) -> Self {
        Self::of(Source::Plugin(Box::new(plugged)))
    }
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Client(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
            Self::Plugin(plugged) => plugged.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(incoming) => incoming.is_end_stream(),
            Self::Plugin(plugged) => plugged.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(incoming) => incoming.size_hint(),
            // A plugin may make more or less of it.
            Self::Plugin(_) => SizeHint::new(),
        }
    }
}

impl Inbound {
    fn of(rest: Source) -> Self {
        Self {
            early: VecDeque::new(),
            rest,
            ended: false,
            came: 0,
            web: false,
            text: None,
        }
    }

    /// It is gRPC-Web's from here on; what was read ahead too.
    ///
    /// # Errors
    /// What was read ahead is to be text, and isn't.
    pub(super) fn translate(&mut self, web: Web) -> Result<(), BodyError> {
        self.web = true;
        if !web.asks_in_text {
            return Ok(());
        }
        let mut decoder = Box::<Decoder>::default();
        for frame in std::mem::take(&mut self.early) {
            match frame.into_data() {
                Ok(text) => {
                    let bytes = decoder.take(&text, false)?;
                    if !bytes.is_empty() {
                        self.early.push_back(Frame::data(bytes));
                    }
                }
                Err(frame) => self.early.push_back(frame),
            }
        }
        if self.ended {
            decoder.end()?;
        }
        self.text = Some(decoder);
        Ok(())
    }

    /// Reads until the body has ended or more than so many bytes are there. What is read is held, and
    /// frames of the HTTP library bound what is read beyond.
    pub(super) async fn read_ahead(&mut self, most: usize) -> Result<(), BodyError> {
        while !self.ended && self.held() <= most {
            let frame = std::future::poll_fn(|cx| self.poll_rest(cx)).await;
            match frame {
                None => self.ended = true,
                Some(frame) => self.early.push_back(frame?),
            }
            self.ended |= self.rest.is_end_stream();
        }
        Ok(())
    }

    /// The next frame that nobody read ahead.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = ready!(self.rest.poll_frame(cx)).transpose()?;
            let data = frame.as_ref().and_then(Frame::data_ref);
            self.came += match self.rest {
                Source::Client(_) => data.map_or(0, Bytes::len),
                Source::Plugin(_) => 0,
            };
            let Some(decoder) = &mut self.text else {
                return Poll::Ready(frame.map(Ok));
            };
            let Some(text) = data else {
                decoder.end()?;
                return Poll::Ready(frame.map(Ok));
            };
            let last = self.rest.is_end_stream();
            let bytes = decoder.take(text, last)?;
            if !bytes.is_empty() || last {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
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

    /// How many bytes came from the client since this was asked last.
    pub(super) fn take_came(&mut self) -> usize {
        let before = match &mut self.rest {
            Source::Client(_) => 0,
            Source::Plugin(plugged) => plugged.inner().take_came(),
        };
        before + std::mem::take(&mut self.came)
    }

    /// How many bytes were read ahead and not given yet.
    pub(super) fn held(&self) -> usize {
        let data = self.early.iter().filter_map(Frame::data_ref);
        data.map(Bytes::len).sum()
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.early.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll_rest(cx));
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.web {
            return SizeHint::new();
        }
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
