//! Bodies on their way through: the request's up, the answer's down. Each passes frames on as they
//! come, so that a slow reader holds back its writer, counts bytes, and ends when the request's
//! time is over. Nothing is kept but what a retry may have to send again ([`super::replay`]).

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::carried::Carried;
use super::copied::Copied;
use super::flight::{Expired, Flight, Landing};
use super::inbound::Inbound;
use super::plugins::Plugged;
use super::replay::Attempt;
use crate::grpc::text::Unreadable;
use crate::grpc::web::{self, Web};
use crate::telemetry::Flags;
use crate::upstream::Received;
use crate::wasm::calls::Outgoing;

/// Why a body broke.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The side that sends it broke.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// The request's time is over.
    #[error("the request took longer than it may")]
    Expired,
    /// The client's gRPC-Web can't be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A plugin has answered the request, or broken it off.
    #[error("a plugin ended the request")]
    Plugin,
    /// A body that was to be sent again had grown too large meanwhile, or broke before.
    #[error("the body can't be sent again")]
    Lost,
}

/// The body of a request, as an upstream is sent it.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// Bytes of our own.
    Whole(Option<Bytes>),
    /// Messages of a plugin's own.
    Own(Outgoing),
    /// Of a copy of a request, as that request's own passes.
    Copied(Copied),
    /// As it comes from the client.
    Stream(Streamed),
    /// As it comes from the client, kept for further attempts.
    Kept(Attempt),
}

/// A body as it comes from the client.
#[derive(Debug)]
pub struct Streamed {
    incoming: Inbound,
    flight: Rc<Flight>,
}

/// The body of an answer, as the client is sent it.
#[derive(Debug)]
pub struct ResponseBody {
    kind: Kind,
    landing: Option<Landing>,
    /// It goes as gRPC-Web.
    web: Option<Box<web::Body>>,
}

#[derive(Debug)]
enum Kind {
    /// Nothing more.
    Empty,
    /// Bytes of our own.
    Whole(Bytes),
    /// As it comes from the upstream.
    Stream(Received),
    /// As plugins let it go.
    Plugged(Box<Plugged<Carried>>),
}

impl RequestBody {
    /// The client's body, sent once.
    pub(super) fn stream(incoming: Inbound, flight: &Rc<Flight>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Stream(Streamed {
            incoming,
            flight: flight.clone(),
        })
    }
}

impl Streamed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        self.flight.received(self.incoming.take_came());
        match &frame {
            Some(Ok(frame)) => {
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.flight.request_complete();
                }
            }
            Some(Err(error)) => self.flight.request_broke(error),
            None => self.flight.request_complete(),
        }
        Poll::Ready(frame)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Own(messages) => {
                let next = std::task::ready!(messages.poll_next(cx));
                Poll::Ready(next.map(|message| Ok(Frame::data(message))))
            }
            Self::Copied(copied) => copied.poll_frame(cx),
            Self::Stream(streamed) => streamed.poll_frame(cx),
            Self::Kept(attempt) => attempt.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Own(messages) => messages.is_over(),
            Self::Copied(copied) => copied.is_end_stream(),
            Self::Stream(streamed) => streamed.incoming.is_end_stream(),
            Self::Kept(attempt) => attempt.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            // Its length, where it is known, is in the copy's headers.
            Self::Copied(_) | Self::Own(_) => SizeHint::new(),
            Self::Stream(streamed) => streamed.incoming.size_hint(),
            Self::Kept(attempt) => attempt.size_hint(),
        }
    }
}

impl ResponseBody {
    /// An answer of our own.
    pub(super) fn whole(bytes: Bytes, landing: Landing) -> Self {
        let kind = match bytes.is_empty() {
            true => Kind::Empty,
            false => Kind::Whole(bytes),
        };
        Self::new(kind, landing)
    }

    /// An upstream's answer, as it comes or as gRPC-Web.
    pub(super) fn stream(received: Received, landing: Landing, web: Option<Web>) -> Self {
        let kind = match received.is_end_stream() {
            true => Kind::Empty,
            false => Kind::Stream(received),
        };
        Self {
            web: web.map(|web| Box::new(web.body())),
            ..Self::new(kind, landing)
        }
    }

    /// An answer that plugins see on its way.
    pub(super) fn carried(carried: Carried, landing: Landing, web: Option<Web>) -> Self {
        match carried {
            Carried::Whole(bytes) => Self::whole(bytes.unwrap_or_default(), landing),
            Carried::Upstream(received) => Self::stream(received, landing, web),
            Carried::Plugged(plugged) => Self {
                web: web.map(|web| Box::new(web.body())),
                ..Self::new(Kind::Plugged(plugged), landing)
            },
        }
    }

    /// Nothing: the request's end is somebody else's business.
    pub(super) fn nothing() -> Self {
        Self {
            kind: Kind::Empty,
            landing: None,
            web: None,
        }
    }

    fn new(kind: Kind, landing: Landing) -> Self {
        if matches!(kind, Kind::Empty) {
            landing.complete();
        }
        Self {
            kind,
            landing: Some(landing),
            web: None,
        }
    }

    /// The last byte is on its way.
    fn finish(&mut self) {
        self.kind = Kind::Empty;
        if let Some(landing) = self.landing.take() {
            landing.land();
        }
    }

    fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (polled, ended) = match &mut self.kind {
            Kind::Stream(received) => {
                let polled = Pin::new(&mut *received).poll_frame(cx);
                let polled = polled.map(|frame| frame.map(|frame| frame.map_err(BodyError::from)));
                (polled, received.is_end_stream())
            }
            Kind::Plugged(plugged) => {
                let polled = plugged.poll_frame(cx);
                (polled, plugged.has_ended())
            }
            Kind::Empty | Kind::Whole(_) => return Poll::Ready(None),
        };
        let Poll::Ready(frame) = polled else {
            let landing = self.landing.as_ref();
            return match landing.map(|landing| landing.flight().poll_expired(cx)) {
                Some(Poll::Ready(expired)) => self.expire(expired),
                _ => Poll::Pending,
            };
        };
        match frame {
            Some(Ok(frame)) => {
                let last = ended || frame.is_trailers();
                if let Some((landing, trailers)) = self.landing.as_ref().zip(frame.trailers_ref()) {
                    landing.trailers(trailers);
                }
                let frame = match &mut self.web {
                    None => frame,
                    Some(web) => translated(web, frame, last),
                };
                let data = frame.data_ref().map(Bytes::len);
                if self.web.is_some() && !last && data == Some(0) {
                    // It waits for what comes next. In another turn, since an upstream may send as many
                    // empty frames as it likes.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if let Some((landing, count)) = self.landing.as_ref().zip(data) {
                    landing.flight().sent(count);
                }
                if last {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                if let Some(landing) = self.landing.take() {
                    let (flag, details) = match &error {
                        BodyError::Hyper(error) => how(error),
                        _ => (Flags::NONE, "wasm_fail_stream"),
                    };
                    landing.broke(flag, details);
                }
                self.kind = Kind::Empty;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                let rest = self.web.as_mut().map(|web| web.end());
                let rest = rest.filter(|rest| !rest.is_empty());
                if let Some((landing, rest)) = self.landing.as_ref().zip(rest.as_ref()) {
                    landing.flight().sent(rest.len());
                }
                self.finish();
                Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))))
            }
        }
    }

    fn expire(&mut self, expired: Expired) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(landing) = self.landing.take() {
            let (flag, details) = expired.broken();
            landing.broke(flag, details);
        }
        // Dropping the upstream's body gives its stream up.
        self.kind = Kind::Empty;
        Poll::Ready(Some(Err(BodyError::Expired)))
    }
}

/// A frame of an answer as gRPC-Web has it.
fn translated(web: &mut web::Body, frame: Frame<Bytes>, last: bool) -> Frame<Bytes> {
    match frame.into_data() {
        Ok(bytes) => Frame::data(web.data(bytes, last)),
        Err(frame) => match frame.trailers_ref() {
            Some(trailers) => Frame::data(web.trailers(trailers)),
            None => frame,
        },
    }
}

/// How an upstream broke off its answer: by a reset of the stream, or with its connection.
pub(super) fn how(error: &hyper::Error) -> (Flags, &'static str) {
    let cause = std::error::Error::source(error);
    let reset = cause
        .and_then(|cause| cause.downcast_ref::<h2::Error>())
        .is_some_and(h2::Error::is_reset);
    match reset {
        true => (
            Flags::UPSTREAM_RESET,
            "upstream_reset_after_response_started{remote_reset}",
        ),
        false => (
            Flags::UPSTREAM_CLOSED,
            "upstream_reset_after_response_started{connection_termination}",
        ),
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                if let Some(landing) = &self.landing {
                    landing.flight().sent(bytes.len());
                }
                self.finish();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(_) | Kind::Plugged(_) => self.poll_stream(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // Neither text nor trailers have the length of what came.
            Kind::Stream(_) if self.web.is_some() => SizeHint::new(),
            Kind::Stream(received) => received.size_hint(),
            // A plugin may make more or less of it.
            Kind::Plugged(_) => SizeHint::new(),
        }
    }
}
