//! How a connection is driven to its end: it is asked to end when it has been idle or open for too
//! long, or when the process, its listener or its chain is going, and may still take a request that
//! is on the way then.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mesh::cork::Corked;
use mesh::tap::Tapped;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Http;
use super::late::{HeadClock, Late};
use super::lent::Lent;
use super::streams::Streams;
use crate::http::body::ResponseBody;
use crate::http::raw::Raw;
use crate::listen::io::Io;
use crate::model::http::HttpLimits;
use crate::worker::LINGER;

/// How a connection ended.
pub(super) enum Ended {
    /// As HTTP has it, or it broke.
    Served(hyper::Result<()>),
    /// A head didn't become whole in time.
    Late(Late),
}

/// Drives a connection, and asks it to end when its time has come.
pub(super) async fn drive(
    http: &Rc<Http>,
    limits: &HttpLimits,
    mut connection: Pin<&mut impl Graceful>,
) -> Ended {
    let mut lifetime = Lifetime::new(limits);
    let mut head = HeadClock::new(limits);
    std::future::poll_fn(|cx| {
        if !lifetime.ending && lifetime.is_over(http, cx) {
            lifetime.ending = true;
            http.closing.set(true);
            connection.as_mut().end();
        }
        if let Poll::Ready(served) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ended::Served(served));
        }
        // Streams of HTTP/2 look after themselves.
        let Some(raw) = &http.raw else {
            return Poll::Pending;
        };
        let last = http.last.borrow().upgrade();
        if last.is_some_and(|flight| flight.poll_stalled(cx).is_ready()) {
            return Poll::Ready(Ended::Served(Ok(())));
        }
        head.poll(raw, cx).map(|late| {
            // Whoever answers gets the connection when hyper lets go of it.
            if let Some(back) = &http.back {
                back.want();
            }
            Ended::Late(late)
        })
    })
    .await
}

/// A hyper connection that can be asked to end.
pub(super) trait Graceful: Future<Output = hyper::Result<()>> {
    fn end(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::UpgradeableConnection<TokioIo<Tapped<Lent, Arc<Raw>>>, S>
where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<ResponseBody>,
            Error = Infallible,
        >,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<Corked<Io>>, S, Streams>
where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<ResponseBody>,
            Error = Infallible,
        >,
    S::Future: 'static,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// How long a connection may last, and whether it has been told to end.
struct Lifetime {
    idle: Option<Duration>,
    until: Option<Instant>,
    clock: Option<Pin<Box<Sleep>>>,
    linger: Option<Pin<Box<Sleep>>>,
    ending: bool,
}

impl Lifetime {
    fn new(limits: &HttpLimits) -> Self {
        Self {
            idle: limits.idle,
            until: limits
                .max_duration
                .and_then(|limit| Instant::now().checked_add(limit)),
            clock: None,
            linger: None,
            ending: false,
        }
    }

    /// Whether a connection that is asked to end has waited long enough for a request that may be on
    /// the way. HTTP/2 says which requests it still takes; HTTP/1 can only answer the next one with
    /// `connection: close`.
    fn has_lingered(&mut self, http: &Http, cx: &mut Context<'_>) -> bool {
        if http.raw.is_none() || http.active.get() > 0 {
            return true;
        }
        let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        linger.as_mut().poll(cx).is_ready()
    }

    /// Whether the connection should end; if not, the task is woken when it should.
    fn is_over(&mut self, http: &Http, cx: &mut Context<'_>) -> bool {
        if http.connection.entry.is_asked(cx) || http.closing.get() {
            return self.has_lingered(http, cx);
        }
        if self.idle.is_none() && self.until.is_none() {
            return false;
        }
        // The clock rings once an idle period at most, not once a request.
        let rings = match &mut self.clock {
            Some(clock) => clock.as_mut().poll(cx),
            None => Poll::Ready(()),
        };
        if rings.is_pending() {
            return false;
        }
        let now = Instant::now();
        let resting = |limit: Duration| match http.active.get() {
            0 => http.rested.get() + limit,
            _ => now + limit,
        };
        let due = [self.idle.map(resting), self.until];
        let Some(at) = due.into_iter().flatten().min() else {
            return false;
        };
        if at <= now {
            return true;
        }
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep_until(at)));
        clock.as_mut().reset(at);
        clock.as_mut().poll(cx).is_ready()
    }
}
