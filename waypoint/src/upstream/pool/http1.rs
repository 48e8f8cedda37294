//! HTTP/1.1 connections: one request at a time, kept for the next one.
//!
//! A connection has no task of its own. Whoever waits for its answer, or reads it, drives it on the
//! way ([`Release::drive`]): two wake-ups less a request. Idle ones are driven when they are looked
//! at, which is also when it shows that one has been closed.

mod heard;
mod quiet;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use mesh::cork::{Left, in_rounds};
use mesh::policy::Permit;
use tokio::task::spawn_local;

use super::wire::{Written, counted};
use super::{Alive, By, Ends, Failed, Pool, RequestBody, reset_of};
use crate::upstream::answer::{Place, Release};
use crate::upstream::choice::Choice;
use crate::upstream::connect::{Opened, Purpose};
use crate::upstream::failure::{FailureKind, Reset};
use crate::upstream::head;
use heard::Heard;
use quiet::Quiet;

/// Most bytes that are buffered for one connection, each way; a head must fit. hyper reads as much of
/// a large body at once.
const BUFFER: usize = 128 << 10;

/// A connection of one downstream connection is kept for so long without requests.
const OWNED_IDLE: Duration = Duration::from_secs(60);

/// hyper's side of a connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// A connection.
pub(super) struct Line<B> {
    sender: RefCell<SendRequest<B>>,
    /// hyper's side of it; none once it has ended or somebody else drives it.
    driver: RefCell<Option<Driver>>,
    /// What it is driven with.
    quiet: Quiet,
    alive: Alive<B>,
    ends: Ends,
    written: Written,
    requests: Cell<u32>,
    made: Instant,
    idle_since: Cell<Instant>,
    /// The downstream connection that it belongs to, where each has its own.
    owner: Option<u64>,
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
        let connects = request.method() == Method::CONNECT;
        let mut sending = pin!(line.sender.borrow_mut().try_send_request(request));
        let answered = poll_fn(|cx| {
            // Nothing but the connection brings the answer, so that nothing else need wake us.
            match line.drive(cx) {
                true => sending
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop())),
                false => sending.as_mut().poll(cx),
            }
        });
        match answered.await {
            Ok(response) => {
                let status = response.status();
                if status == StatusCode::SWITCHING_PROTOCOLS || connects && status.is_success() {
                    line.hand_over();
                }
                Ok((
                    response,
                    By {
                        place,
                        reused,
                        opened,
                    },
                ))
            }
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
        if !fresh && let Some(line) = self.take_idle(owner) {
            return Ok(line);
        }
        let _pending = self.pending().ok_or(FailureKind::Overflow)?;
        let alive = loop {
            if let Some(alive) = self.room() {
                break alive;
            }
            if let Some(line) = self.waiting.wait().await
                && line.is_ready()
            {
                return Ok(line);
            }
        };
        let opened = Box::pin(self.open(choice, Purpose::Pooled, permit)).await?;
        self.keep_line(opened, alive, owner).await
    }

    pub(super) async fn keep_line(
        self: &Rc<Self>,
        opened: Opened,
        alive: Alive<B>,
        owner: Option<u64>,
    ) -> Result<Rc<Line<B>>, FailureKind> {
        let Opened { io, local, peer } = opened;
        let (wire, written) = counted(io);
        // A request that was given up before it went out is not sent after all.
        let wire = in_rounds(wire, Left::Forgotten);
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER);
        if self.cluster.http.keep_case {
            builder.preserve_header_case(true);
        }
        let (sender, connection) = builder
            .handshake(TokioIo::new(Heard::new(wire)))
            .await
            .map_err(|_| FailureKind::Reset(Reset::Connection))?;
        let now = Instant::now();
        let driver: Driver = Box::pin(connection.with_upgrades());
        let line = Rc::new(Line {
            sender: RefCell::new(sender),
            driver: RefCell::new(Some(driver)),
            quiet: Quiet::new(),
            alive,
            ends: Ends { local, peer },
            written,
            requests: Cell::new(0),
            made: now,
            idle_since: Cell::new(now),
            owner,
        });
        Ok(line)
    }

    /// The connection that was used last and still stands. Those found closed are dropped.
    fn take_idle(&self, owner: Option<u64>) -> Option<Rc<Line<B>>> {
        let mut place = self.idle.borrow().len();
        while place > 0 {
            place -= 1;
            let mut idle = self.idle.borrow_mut();
            if idle.get(place)?.owner != owner {
                continue;
            }
            let line = idle.remove(place);
            // Its end takes part in the pool's books: not while they are borrowed.
            drop(idle);
            if line.is_ready() {
                return Some(line);
            }
        }
        None
    }
}

impl<B> Line<B> {
    /// Whether it takes a request now, as far as can be seen.
    fn is_ready(&self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop())) && self.takes_requests()
    }

    fn takes_requests(&self) -> bool {
        self.sender.borrow().is_ready() && !self.written.is_broken()
    }

    /// Lets the connection go on. False where there is nothing to drive (any more).
    fn drive(&self, cx: &mut Context<'_>) -> bool {
        let mut driver = self.driver.borrow_mut();
        let Some(driving) = &mut *driver else {
            return false;
        };
        // How it ended is the business of the request on it, which learns it by itself.
        let mut cx = self.quiet.context(cx);
        let ended = driving.as_mut().poll(&mut cx).is_ready();
        if ended {
            *driver = None;
        }
        !ended
    }

    /// It speaks another protocol from here on, and no more requests come by it.
    fn hand_over(&self) {
        if let Some(driver) = self.driver.take() {
            spawn_local(driver);
        }
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
        longer(self.idle_since.get(), idle)
            || longer(self.made, http.max_duration)
            || !self.is_ready()
    }

    fn is_spent(&self) -> bool {
        let http = &self.alive.pool.cluster.http;
        let requests = http
            .max_requests
            .is_some_and(|most| most > 0 && self.requests.get() >= most);
        let age = http
            .max_duration
            .is_some_and(|most| self.made.elapsed() >= most);
        requests || age || !self.takes_requests() && !self.is_ready()
    }
}

impl<B> Release for Line<B> {
    /// The answer was read, or given up: the next request may have the connection.
    fn release(self: Rc<Self>) {
        self.alive.pool.done();
        self.park();
    }

    fn drive(&self, cx: &mut Context<'_>) -> bool {
        Line::drive(self, cx)
    }

    fn hush(&self, hushed: bool) {
        self.quiet.hush(hushed);
    }
}

impl<B> Drop for Line<B> {
    /// One that rests is closed in an orderly way, which takes a while: in TLS and in tunnels a peer
    /// could take a sudden end for a broken one. One that doesn't just ends.
    fn drop(&mut self) {
        let rests = self.takes_requests();
        if let Some(driver) = self.driver.take().filter(|_| rests) {
            self.alive.pool.closing.put(driver);
        }
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
        if let Some(line) = pool.waiting.hand(self) {
            pool.idle.borrow_mut().push(line);
        }
    }
}
