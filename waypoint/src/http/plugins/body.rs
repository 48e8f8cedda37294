//! A body on its way past a plugin, which sees each part as it comes, may change it, or hold back what
//! it has seen until more has come, up to a limit.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};

use super::{closed, failed, reply};
use crate::http::body::BodyError;
use crate::http::carried::Carried;
use crate::http::flight::Flight;
use crate::http::inbound::Inbound;
use crate::http::reply::Reply;
use crate::wasm::{MOST_HELD, Outcome, Stream, Verdict, Way};

/// A body on its way past a plugin.
#[derive(Debug)]
pub(in crate::http) struct Plugged<B> {
    inner: B,
    stream: Rc<Stream>,
    flight: Rc<Flight>,
    way: Way,
    /// What the plugin has seen and not let go.
    held: BytesMut,
    waits: Waits,
    /// What may go.
    ready: VecDeque<Frame<Bytes>>,
    /// Nothing more comes.
    ended: bool,
    /// The plugin failed, and everything passes.
    blind: bool,
    /// It may fail.
    open: bool,
    /// The message's head waits too, so that what ends it here can still be answered.
    head: bool,
    /// What is answered then.
    reply: Option<Reply>,
}

/// What the plugin was shown last and holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    No,
    Head,
    Body,
    Trailers,
}

/// A body that a plugin can be shown.
pub(in crate::http) trait Parts {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    fn is_over(&self) -> bool;
    /// Writes down what of a request came.
    fn count(&mut self, flight: &Flight);
}

impl Parts for Inbound {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(self).poll_frame(cx)
    }

    fn is_over(&self) -> bool {
        self.is_end_stream()
    }

    fn count(&mut self, flight: &Flight) {
        flight.received(self.take_came());
        if self.is_end_stream() {
            flight.request_complete();
        }
    }
}

impl Parts for Carried {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_frame(cx)
    }

    fn is_over(&self) -> bool {
        self.is_end_stream()
    }

    fn count(&mut self, _: &Flight) {}
}

impl Plugged<Inbound> {
    /// A request's body.
    pub(super) fn up(inner: Inbound, stream: Rc<Stream>, flight: Rc<Flight>, open: bool) -> Self {
        Self::new(inner, stream, flight, Way::Up, open)
    }
}

impl Plugged<Carried> {
    /// An answer's body.
    pub(super) fn down(inner: Carried, stream: Rc<Stream>, flight: Rc<Flight>) -> Self {
        let open = stream.may_fail();
        Self::new(inner, stream, flight, Way::Down, open)
    }
}

impl<B: Parts> Plugged<B> {
    fn new(inner: B, stream: Rc<Stream>, flight: Rc<Flight>, way: Way, open: bool) -> Self {
        Self {
            inner,
            stream,
            flight,
            way,
            held: BytesMut::new(),
            waits: Waits::No,
            ready: VecDeque::new(),
            ended: false,
            blind: false,
            open,
            head: false,
            reply: None,
        }
    }

    /// The message's head waits with it.
    pub(super) fn with_head(mut self) -> Self {
        self.waits = Waits::Head;
        self.head = true;
        self
    }

    /// Shows the plugin the body until the head may go. Where it may not, there is mostly something to
    /// be answered instead.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), (BodyError, Option<Reply>)>> {
        while self.waits != Waits::No {
            let done = if let Poll::Ready(outcome) = self.stream.poll(self.way, cx) {
                self.become_of(outcome)
            } else if self.ended {
                return Poll::Pending;
            } else {
                let part = self.inner.poll_part(cx);
                self.inner.count(&self.flight);
                self.part(std::task::ready!(part))
            };
            if let Err(error) = done {
                return Poll::Ready(Err((error, self.reply.take())));
            }
        }
        self.head = false;
        Poll::Ready(Ok(()))
    }

    /// What it is made of.
    pub(in crate::http) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Whether nothing more comes.
    pub(in crate::http) fn has_ended(&self) -> bool {
        self.ended && self.ready.is_empty() && self.waits == Waits::No
    }

    pub(in crate::http) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.waits != Waits::No {
                if let Poll::Ready(outcome) = self.stream.poll(self.way, cx) {
                    if let Err(error) = self.become_of(outcome) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    continue;
                }
                if self.ended {
                    return Poll::Pending;
                }
            } else if self.ended {
                return Poll::Ready(None);
            }
            let part = std::task::ready!(self.inner.poll_part(cx));
            if let Err(error) = self.part(part) {
                self.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// The next part has come, or the end.
    fn part(&mut self, part: Option<Result<Frame<Bytes>, BodyError>>) -> Result<(), BodyError> {
        let frame = part.transpose()?;
        let over = frame.is_none() || self.inner.is_over();
        let trailers = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.held.extend_from_slice(&data);
                None
            }
            Some(Err(frame)) => frame.into_trailers().ok(),
            None => None,
        };
        let has_trailers = trailers.is_some();
        self.ended = over || has_trailers;
        if self.blind {
            self.release();
            self.ready.extend(trailers.map(Frame::trailers));
            return Ok(());
        }
        if !has_trailers {
            let verdict = self.stream.body(self.way, &mut self.held, over);
            return self.heed(verdict, Waits::Body);
        }
        let Some(trailers) = trailers else {
            return Ok(());
        };
        // What it held of the body it lets go with them, or not.
        let verdict = self.stream.trailers(self.way, trailers);
        self.heed(verdict, Waits::Trailers)
    }

    /// Does what the plugin says of what it was shown.
    fn heed(&mut self, verdict: Verdict, shown: Waits) -> Result<(), BodyError> {
        match verdict {
            Verdict::Continue => {
                self.waits = shown;
                self.become_of(Outcome::Continue)
            }
            Verdict::Pause | Verdict::PauseHead => {
                self.waits = shown;
                match self.held.len() > MOST_HELD {
                    true => Err(self.end_with(too_large(self.way))),
                    false => Ok(()),
                }
            }
            Verdict::Stop(outcome) => {
                self.waits = shown;
                self.become_of(outcome)
            }
        }
    }

    fn become_of(&mut self, outcome: Outcome) -> Result<(), BodyError> {
        let shown = std::mem::replace(&mut self.waits, Waits::No);
        match outcome {
            Outcome::Continue => {}
            Outcome::Failed if self.open => self.blind = true,
            Outcome::Failed => return Err(self.end_with(failed())),
            Outcome::Close => return Err(self.end_with(closed())),
            Outcome::Answer(answer) => return Err(self.end_with(reply(answer))),
        }
        self.release();
        if shown == Waits::Trailers {
            let trailers: HeaderMap = self.stream.take_trailers(self.way);
            self.ready.push_back(Frame::trailers(trailers));
        }
        Ok(())
    }

    /// What was held may go.
    fn release(&mut self) {
        let held = self.held.split().freeze();
        if !held.is_empty() {
            self.ready.push_back(Frame::data(held));
        }
    }

    /// It ends here; the client is told so, where it hasn't been answered yet.
    fn end_with(&mut self, reply: Reply) -> BodyError {
        self.ended = true;
        self.held.clear();
        self.ready.clear();
        match self.way {
            _ if self.head => self.reply = Some(reply),
            Way::Up => self.flight.answer(reply),
            // The client has the head of another answer already.
            Way::Down => {}
        }
        BodyError::Plugin
    }
}

/// What is answered where a plugin would hold back more than it may.
fn too_large(way: Way) -> Reply {
    match way {
        Way::Up => Reply::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            "request_payload_too_large",
        ),
        Way::Down => Reply::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal Server Error",
            "response_payload_too_large",
        ),
    }
}
