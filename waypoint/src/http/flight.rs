//! One request in flight: what its parts (the flow, the request's body on its way up, the answer's
//! on its way down) tell each other, and how long it may take. One allocation a request. Whoever
//! holds its [`Landing`] last ends it: then it is counted and written down, exactly once.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::BodyError;
use super::connection::Active;
use super::reply::Reply;
use super::view::View;
use crate::grpc::text::Unreadable;
use crate::telemetry::{Exchange, Flags};
use crate::wasm;
use crate::worker::Local;

/// Bytes of an answer from which on its client may be the one who holds it up: fewer are in buffers.
const STALLS: u64 = 64 << 10;

/// A request in flight.
#[derive(Debug)]
pub(super) struct Flight {
    /// What is written down of it.
    pub(super) exchange: RefCell<Exchange>,
    /// The configuration that it began with.
    pub(super) view: Rc<View>,
    local: Rc<Local>,
    began: Instant,
    /// When something last moved.
    moved: Cell<Instant>,
    /// When the request had come as a whole.
    request_done: Cell<Option<Instant>>,
    /// Who waits for the request's end.
    waits: RefCell<Option<Waker>>,
    /// Why the request's body can't be read.
    unreadable: Cell<Option<Unreadable>>,
    /// The plugins that know of it, in the order in which they met it.
    pub(super) plugins: RefCell<Vec<Rc<wasm::Stream>>>,
    /// What a plugin answers that has read on in the request's body.
    answer: RefCell<Option<Box<Reply>>>,
    received: Cell<u64>,
    sent: Cell<u64>,
    limits: Cell<Limits>,
    clock: RefCell<Option<Pin<Box<Sleep>>>>,
    /// Its connection doesn't rest meanwhile.
    _active: Active,
}

/// How long a request may take. None: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// From the request's end to the answer's.
    pub(super) total: Option<Duration>,
    /// Nothing may move for so long.
    pub(super) idle: Option<Duration>,
    /// From its first byte to the last, whatever happens.
    pub(super) whole: Option<Duration>,
    /// Until the request has come as a whole.
    pub(super) request: Option<Duration>,
    /// From the request's end, or the attempt's beginning if that is later, to the answer's head.
    pub(super) attempt: Option<(Instant, Duration)>,
    /// The request is text: that it can't be read ends it as well.
    pub(super) readable: bool,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    Total,
    Idle,
    Whole,
    Request,
    Attempt,
    /// What the request is made of can't be read.
    Unreadable(Unreadable),
    /// A plugin has answered it meanwhile.
    Answered,
}

impl Expired {
    /// What is said of an answer that it breaks off.
    pub(super) fn broken(self) -> (Flags, &'static str) {
        match self {
            Self::Idle => (Flags::IDLE_TIMEOUT, "stream_idle_timeout"),
            Self::Whole => (Flags::NONE, "max_duration_timeout"),
            Self::Request => (Flags::NONE, "request_overall_timeout"),
            Self::Total | Self::Attempt => (Flags::UPSTREAM_TIMEOUT, "response_timeout"),
            Self::Unreadable(why) => (Flags::NONE, why.details()),
            Self::Answered => (Flags::NONE, "wasm_fail_stream"),
        }
    }
}

impl Flight {
    pub(super) fn new(
        exchange: Exchange,
        view: Rc<View>,
        local: Rc<Local>,
        active: Active,
        complete: bool,
    ) -> Rc<Self> {
        let began = Instant::from_std(exchange.marks.start);
        Rc::new(Self {
            exchange: RefCell::new(exchange),
            view,
            local,
            began,
            moved: Cell::new(began),
            request_done: Cell::new(complete.then_some(began)),
            waits: RefCell::new(None),
            unreadable: Cell::new(None),
            plugins: RefCell::default(),
            answer: RefCell::default(),
            received: Cell::new(0),
            sent: Cell::new(0),
            limits: Cell::new(Limits::default()),
            clock: RefCell::new(None),
            _active: active,
        })
    }

    /// When the request had come as a whole; when it began, while it hasn't.
    pub(super) fn asked_at(&self) -> Instant {
        self.request_done.get().unwrap_or(self.began)
    }

    /// Changes how long it may take.
    pub(super) fn limit(&self, change: impl FnOnce(&mut Limits)) {
        let mut limits = self.limits.get();
        change(&mut limits);
        self.limits.set(limits);
    }

    /// Bytes of the request came.
    pub(super) fn received(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.received.set(self.received.get() + count as u64);
        self.touch();
    }

    /// Bytes of the answer went.
    pub(super) fn sent(&self, count: usize) {
        self.sent.set(self.sent.get() + count as u64);
        self.touch();
    }

    /// How much of the request's body came, and of the answer's went.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }

    /// The clock is read only where something is measured by it.
    fn touch(&self) {
        if self.limits.get().idle.is_some() {
            self.moved.set(Instant::now());
        }
    }

    /// The request has come as a whole.
    pub(super) fn request_complete(&self) {
        if self.request_done.get().is_none() {
            self.request_done.set(Some(Instant::now()));
            self.waits.take().into_iter().for_each(Waker::wake);
        }
    }

    /// The rest of the request never comes, or can't be read.
    pub(super) fn request_broke(&self, error: &BodyError) {
        if let BodyError::Unreadable(why) = error {
            self.unreadable.set(Some(*why));
        }
        self.request_complete();
    }

    /// A plugin answers it, whose body is still on its way up.
    pub(super) fn answer(&self, reply: Reply) {
        self.answer.replace(Some(Box::new(reply)));
        self.request_complete();
        self.waits.take().into_iter().for_each(Waker::wake);
    }

    /// What a plugin answers in place of anything else.
    pub(super) fn take_answer(&self) -> Option<Reply> {
        self.answer.take().map(|reply| *reply)
    }

    /// Why the request's body ends before its time, where it does.
    pub(super) fn unreadable(&self) -> Option<Expired> {
        match self.answer.borrow().is_some() {
            true => Some(Expired::Answered),
            false => self.unreadable.get().map(Expired::Unreadable),
        }
    }

    /// How long nothing may move.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.limits.get().idle
    }

    /// Ready when a limit is reached. Whoever polled last is woken.
    pub(super) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Expired> {
        let limits = self.limits.get();
        if limits == Limits::default() {
            return Poll::Pending;
        }
        if let Some(unreadable) = self.unreadable() {
            return Poll::Ready(unreadable);
        }
        let counts_from_end = limits.total.is_some() || limits.attempt.is_some() || limits.readable;
        if counts_from_end && self.request_done.get().is_none() {
            *self.waits.borrow_mut() = Some(cx.waker().clone());
        }
        let mut clock = self.clock.borrow_mut();
        loop {
            let Some((at, which)) = self.next(&limits) else {
                return Poll::Pending;
            };
            let sleep = clock.get_or_insert_with(|| Box::pin(sleep_until(at)));
            // It may ring early, when something has moved since, but never late.
            if sleep.deadline() > at || sleep.is_elapsed() {
                if Instant::now() >= at {
                    return Poll::Ready(which);
                }
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when an answer on its way has come to a limit, which is noted then. While the client takes
    /// nothing, nobody asks for more of the answer, who would see that.
    pub(super) fn poll_stalled(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sent.get() < STALLS || self.exchange.borrow().marks.response_end.is_some() {
            return Poll::Pending;
        }
        let (flag, details) = ready!(self.poll_expired(cx)).broken();
        self.broke(flag, details);
        Poll::Ready(())
    }

    /// The answer ends before its time; why.
    fn broke(&self, flag: Flags, details: &'static str) {
        let mut exchange = self.exchange.borrow_mut();
        exchange.flags |= flag;
        exchange.details = details.into();
        // What ended it is known: it isn't the client that went away.
        exchange.marks.response_end = Some(Instant::now().into_std());
    }

    /// The limit that comes first.
    fn next(&self, limits: &Limits) -> Option<(Instant, Expired)> {
        let done = self.request_done.get();
        let after = |from: Instant, limit: Option<Duration>| from.checked_add(limit?);
        let all = [
            (
                done.and_then(|done| after(done, limits.total)),
                Expired::Total,
            ),
            (after(self.moved.get(), limits.idle), Expired::Idle),
            (after(self.began, limits.whole), Expired::Whole),
            (
                match done {
                    None => after(self.began, limits.request),
                    Some(_) => None,
                },
                Expired::Request,
            ),
            (
                limits.attempt.and_then(|(began, limit)| {
                    done.and_then(|done| after(done.max(began), Some(limit)))
                }),
                Expired::Attempt,
            ),
        ];
        let all = all.into_iter();
        all.filter_map(|(at, which)| Some((at?, which)))
            .min_by_key(|(at, _)| *at)
    }
}

/// The duty to end a request: dropping it does so.
#[derive(Debug)]
pub(super) struct Landing(Rc<Flight>);

impl Landing {
    pub(super) fn new(flight: &Rc<Flight>) -> Self {
        Self(flight.clone())
    }

    pub(super) fn flight(&self) -> &Rc<Flight> {
        &self.0
    }

    /// The answer's trailers.
    pub(super) fn trailers(&self, trailers: &HeaderMap) {
        let Flight { local, view, .. } = &*self.0;
        let mut exchange = self.0.exchange.borrow_mut();
        local
            .telemetry
            .trailed(&view.chain, &mut exchange, trailers);
    }

    /// The answer has gone as a whole; what is not told so ended before its time.
    pub(super) fn complete(&self) {
        let now = Instant::now().into_std();
        self.0.exchange.borrow_mut().marks.response_end = Some(now);
    }

    /// The same, and that ends it.
    pub(super) fn land(self) {
        self.complete();
        let marks = &mut self.0.exchange.borrow_mut().marks;
        marks.end = marks.response_end;
    }

    /// Why the answer ends before its time.
    pub(super) fn broke(&self, flag: Flags, details: &'static str) {
        self.0.broke(flag, details);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let Flight { local, view, .. } = &*self.0;
        let mut exchange = self.0.exchange.borrow_mut();
        if exchange.marks.response_end.is_none() {
            exchange.flags |= Flags::DOWNSTREAM_CLOSED;
            exchange.details = "downstream_remote_disconnect".into();
        }
        (exchange.received, exchange.sent) = self.0.bytes();
        exchange.marks.request_end = self.0.request_done.get().map(Instant::into_std);
        let end = exchange.marks.end;
        exchange.marks.end = end.or_else(|| Some(Instant::now().into_std()));
        local.telemetry.finish(&view.chain, &exchange);
        drop(exchange);
        // Plugins hear that it is over, and look at what became of it.
        drop(self.0.plugins.take());
    }
}
