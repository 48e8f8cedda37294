//! HTTP/1.1 connections: one request at a time, kept for the next one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use mesh::policy::Permit;
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};

use super::wire::{Wire, Written};
use super::{Alive, By, Ends, Failed, Pool, RequestBody, reset_of};
use crate::upstream::answer::{Place, Release};
use crate::upstream::choice::Choice;
use crate::upstream::connect::{Opened, Purpose};
use crate::upstream::failure::{FailureKind, Reset};
use crate::upstream::head;

/// Most bytes that are buffered for one connection, each way; a head must fit.
const BUFFER: usize = 64 << 10;

/// A connection of one downstream connection is kept for so long without requests.
const OWNED_IDLE: Duration = Duration::from_secs(60);

/// A connection.
pub(super) struct Line<B> {
    sender: RefCell<SendRequest<B>>,
    alive: Alive<B>,
    ends: Ends,
    written: Written,
    requests: Cell<u32>,
    made: Instant,
    idle_since: Cell<Instant>,
    /// The downstream connection that it belongs to, where each has its own.
    owner: Option<u64>,
}

/// What the idle connections have to offer.
enum Idle<B> {
    Ready(Rc<Line<B>>),
    /// One whose last answer was read, but that has not noticed yet.
    Settling,
    None,
}

impl<B: RequestBody> Pool<B> {
    /// Sends a request on an HTTP/1 connection: one that waits, unless a `fresh` one is asked for.
    pub(super) async fn send_alone(
        self: &Rc<Self>,
        mut request: Request<B>,
        choice: &Choice<'_>,
        permit: Permit,
        fresh: bool,
    ) -> Result<(Response<Incoming>, By), Failed<B>> {
        head::for_http1(&mut request);
        let line = match self.take_line(choice, permit, fresh).await {
            Ok(line) => line,
            Err(kind) => return Err(Failed::early(kind, request)),
        };
        if !self.begin() {
            line.park();
            return Err(Failed::early(FailureKind::Overflow, request));
        }
        let reused = line.requests.get() > 0;
        line.requests.set(line.requests.get() + 1);
        let before = line.written.now();
        let opened = line.ends;
        // From here on the connection is given back whatever happens, dropped futures included.
        let place = Place::new(line.clone());
        let sending = line.sender.borrow_mut().try_send_request(request);
        match sending.await {
            Ok(response) => Ok((
                response,
                By {
                    place,
                    reused,
                    opened,
                },
            )),
            Err(mut error) => {
                let request = error.take_message();
                let sent = request.is_none() && line.written.now() > before;
                let kind = reset_of(error.error());
                Err(Failed {
                    kind,
                    reused,
                    sent,
                    request,
                })
            }
        }
    }

    async fn take_line(
        self: &Rc<Self>,
        choice: &Choice<'_>,
        permit: Permit,
        fresh: bool,
    ) -> Result<Rc<Line<B>>, FailureKind> {
        let owner = self
            .cluster
            .connection_per_downstream
            .then_some(choice.down.id);
        if !fresh {
            match self.take_idle(owner) {
                Idle::Ready(line) => return Ok(line),
                Idle::Settling => {
                    // Its task runs before this one does again.
                    yield_now().await;
                    if let Idle::Ready(line) = self.take_idle(owner) {
                        return Ok(line);
                    }
                }
                Idle::None => {}
            }
        }
        let _pending = self.pending().ok_or(FailureKind::Overflow)?;
        let alive = loop {
            if let Some(alive) = self.room() {
                break alive;
            }
            let (sender, receiver) = oneshot::channel();
            self.waiting.borrow_mut().push_back(sender);
            if let Ok(line) = receiver.await
                && line.settle().await
            {
                return Ok(line);
            }
        };
        let opened = self.open(choice, Purpose::Pooled, permit).await?;
        self.keep_line(opened, alive, owner).await
    }

    pub(super) async fn keep_line(
        self: &Rc<Self>,
        opened: Opened,
        alive: Alive<B>,
        owner: Option<u64>,
    ) -> Result<Rc<Line<B>>, FailureKind> {
        let Opened { io, local, peer } = opened;
        let (wire, written) = Wire::new(io);
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER);
        if self.cluster.http.keep_case {
            builder.preserve_header_case(true);
        }
        let (sender, connection) = builder
            .handshake(wire)
            .await
            .map_err(|_| FailureKind::Reset(Reset::Connection))?;
        let now = Instant::now();
        let line = Rc::new(Line {
            sender: RefCell::new(sender),
            alive,
            ends: Ends { local, peer },
            written,
            requests: Cell::new(0),
            made: now,
            idle_since: Cell::new(now),
            owner,
        });
        let end = Rc::downgrade(&line);
        spawn_local(async move {
            // How it ended is the business of the request on it, which learns it by itself.
            let _ = connection.with_upgrades().await;
            if let Some(line) = end.upgrade() {
                line.ended();
            }
        });
        Ok(line)
    }

    fn take_idle(&self, owner: Option<u64>) -> Idle<B> {
        let mut idle = self.idle.borrow_mut();
        let mut settling = false;
        let mut place = idle.len();
        while place > 0 {
            place -= 1;
            let line = &idle[place];
            if line.owner != owner {
                continue;
            }
            if line.sender.borrow().is_ready() {
                return Idle::Ready(idle.remove(place));
            }
            settling |= !line.sender.borrow().is_closed();
        }
        match settling {
            true => Idle::Settling,
            false => Idle::None,
        }
    }
}

impl<B> Line<B> {
    /// Waits until it takes a request; false if it ended instead.
    async fn settle(&self) -> bool {
        std::future::poll_fn(|cx| self.sender.borrow_mut().poll_ready(cx))
            .await
            .is_ok()
    }

    /// Whether it has been idle, or open, for too long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let http = &self.alive.pool.cluster.http;
        let longer = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
        };
        // One that belongs to a downstream connection isn't told when that ends.
        let idle = match self.owner {
            Some(_) => Some(http.idle.map_or(OWNED_IDLE, |idle| idle.min(OWNED_IDLE))),
            None => http.idle,
        };
        longer(self.idle_since.get(), idle) || longer(self.made, http.max_duration)
    }

    fn is_spent(&self) -> bool {
        let http = &self.alive.pool.cluster.http;
        let requests = http
            .max_requests
            .is_some_and(|most| most > 0 && self.requests.get() >= most);
        let age = http
            .max_duration
            .is_some_and(|most| self.made.elapsed() >= most);
        requests || age || self.sender.borrow().is_closed()
    }

    /// The connection has ended: it is not for anybody any more.
    fn ended(self: Rc<Self>) {
        let pool = &self.alive.pool;
        let mut idle = pool.idle.borrow_mut();
        let place = idle.iter().position(|line| Rc::ptr_eq(line, &self));
        let removed = place.map(|place| idle.remove(place));
        drop(idle);
        drop(removed);
    }
}

impl<B> Release for Line<B> {
    /// The answer was read, or given up: the next request may have the connection.
    fn release(self: Rc<Self>) {
        self.alive.pool.done();
        self.park();
    }
}

impl<B> Line<B> {
    /// Waits for the next request, or is handed to one that waits.
    pub(super) fn park(self: Rc<Self>) {
        let pool = self.alive.pool.clone();
        let now = Instant::now();
        if pool.retired.get() || self.is_spent() {
            return;
        }
        self.idle_since.set(now);
        let mut line = self;
        loop {
            let next = pool.waiting.borrow_mut().pop_front();
            let Some(next) = next else {
                pool.idle.borrow_mut().push(line);
                return;
            };
            // Whoever gave up waiting gives it back.
            match next.send(line) {
                Ok(()) => return,
                Err(back) => line = back,
            }
        }
    }
}
