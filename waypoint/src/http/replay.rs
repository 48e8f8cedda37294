//! A request's body that may have to be sent again: frames are kept as they pass, up to a limit. A
//! body that grows beyond it is let go, and with it the right to send it again. Copies of the request
//! are fed here too, as frames pass for the first time.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::BodyError;
use super::copied::{Copied, Feed, copied};
use super::flight::Flight;
use super::inbound::Inbound;

/// Bytes that are kept of one request. 64 of them at a time are 8 MiB.
pub(super) const LIMIT: usize = 128 << 10;

/// A body of which attempts are made.
#[derive(Debug, Clone)]
pub(super) struct Replay(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    flight: Rc<Flight>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    incoming: Inbound,
    kept: Vec<Bytes>,
    size: usize,
    trailers: Option<HeaderMap>,
    end: End,
    /// Bytes have passed that are not kept.
    lost: bool,
    /// Which attempt may read on; an older one that is still around must not.
    attempt: u32,
    copies: Vec<Feed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Ended,
    Broken,
}

/// The body of one attempt.
#[derive(Debug)]
pub struct Attempt {
    shared: Rc<Shared>,
    number: u32,
    /// How many of the kept frames have been sent.
    next: usize,
    trailers_sent: bool,
}

impl Replay {
    /// `again` where further attempts may be made; else it is only for copies, and nothing is kept.
    pub(super) fn new(incoming: Inbound, flight: &Rc<Flight>, again: bool) -> Self {
        Self(Rc::new(Shared {
            flight: flight.clone(),
            state: RefCell::new(State {
                incoming,
                kept: Vec::new(),
                size: 0,
                trailers: None,
                end: End::Open,
                lost: !again,
                attempt: 0,
                copies: Vec::new(),
            }),
        }))
    }

    /// Whether another attempt could be sent all of it.
    pub(super) fn is_possible(&self) -> bool {
        let state = self.0.state.borrow();
        !state.lost && state.end != End::Broken
    }

    /// The body for a copy of the request, as it comes from here on.
    pub(super) fn copy(&self) -> Copied {
        let (feed, copied) = copied();
        self.0.state.borrow_mut().copies.push(feed);
        copied
    }

    /// The body for the next attempt, from its beginning.
    pub(super) fn attempt(&self) -> Attempt {
        let mut state = self.0.state.borrow_mut();
        state.attempt += 1;
        Attempt {
            shared: self.0.clone(),
            number: state.attempt,
            next: 0,
            trailers_sent: false,
        }
    }
}

impl State {
    fn end(&mut self, end: End) {
        self.end = end;
        for copy in &self.copies {
            copy.end(end == End::Ended);
        }
    }
}

impl Attempt {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.shared.state.borrow_mut();
        if state.attempt != self.number || (state.lost && self.next < state.kept.len()) {
            return Poll::Ready(Some(Err(BodyError::Lost)));
        }
        if let Some(data) = state.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        match state.end {
            End::Open => {}
            End::Broken => return Poll::Ready(Some(Err(BodyError::Lost))),
            End::Ended => {
                let trailers = match self.trailers_sent {
                    true => None,
                    false => state.trailers.clone(),
                };
                self.trailers_sent = true;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
        }
        for copy in &state.copies {
            ready!(copy.poll_room(cx));
        }
        let frame = ready!(Pin::new(&mut state.incoming).poll_frame(cx));
        self.shared.flight.received(state.incoming.take_came());
        let Some(frame) = frame else {
            state.end(End::Ended);
            self.shared.flight.request_complete();
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                state.end(End::Broken);
                self.shared.flight.request_broke(&error);
                return Poll::Ready(Some(Err(error)));
            }
        };
        for copy in &state.copies {
            copy.pass(&frame);
        }
        if let Some(data) = frame.data_ref() {
            state.size += data.len();
            if state.lost || state.size > LIMIT {
                state.lost = true;
                state.kept = Vec::new();
                self.next = 0;
            } else {
                state.kept.push(data.clone());
                self.next += 1;
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            state.trailers = Some(trailers.clone());
            self.trailers_sent = true;
        }
        if frame.is_trailers() || state.incoming.is_end_stream() {
            state.end(End::Ended);
            self.shared.flight.request_complete();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.shared.state.borrow();
        let sent_all = self.next >= state.kept.len();
        let trailers = state.trailers.is_none() || self.trailers_sent;
        state.end == End::Ended && sent_all && trailers
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.shared.state.borrow();
        if state.lost {
            return state.incoming.size_hint();
        }
        let waiting: usize = state.kept[self.next.min(state.kept.len())..]
            .iter()
            .map(Bytes::len)
            .sum();
        let rest = state.incoming.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + waiting as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + waiting as u64);
        }
        hint
    }
}
