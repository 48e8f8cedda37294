//! HTTP/1.1 connections: one request at a time, kept for the next one.
//!
//! A connection has no task of its own. Whoever waits for its answer, or reads it, drives it on the
//! way ([`Release::drive`]): two wake-ups less a request. Idle ones are driven when they are looked
//! at, which is also when it shows that one has been closed. One that stays idle gives hyper's memory
//! back (`carrier`).

mod carrier;
mod heard;
mod quiet;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use mesh::cork::{Left, in_rounds};
use mesh::policy::Permit;
use tokio::task::spawn_local;

use super::wire::{Written, counted};
use super::{Alive, By, Failed, Pool, RequestBody, reset_of};
use crate::upstream::answer::{Place, Release};
use crate::upstream::choice::{Choice, Connection};
use crate::upstream::connect::{Opened, Purpose};
use crate::upstream::failure::{FailureKind, Reset};
use crate::upstream::head;
use carrier::Carrier;
use heard::Heard;
use quiet::Quiet;

/// A connection of one downstream connection is kept for so long without requests.
const OWNED_IDLE: Duration = Duration::from_secs(60);

/// A connection that has had no request for so long rests.
const RESTS_AFTER: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Line<B> {
    /// Takes requests; none while it rests.
    sender: RefCell<Option<SendRequest<B>>>,
    /// None once it has ended or somebody else drives it.
    carrier: RefCell<Option<Carrier>>,
    /// What it is driven with.
    quiet: Quiet,
    alive: Alive<B>,
    ends: Connection,
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
        choice.connected(opened);
        // From here on the connection is given back whatever happens, dropped futures included.
        let place = Place::new(line.clone());
        let connects = request.method() == Method::CONNECT;
        if connects || request.headers().contains_key(header::UPGRADE) {
            line.expect_upgrade();
        }
        let sending = match &mut *line.sender.borrow_mut() {
            Some(sender) => sender.try_send_request(request),
            None => return Err(Failed::ended(reused, request)),
        };
        let mut sending = pin!(sending);
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
        let wire = Heard::new(in_rounds(wire, Left::Forgotten));
        let (sender, carrier) = carrier::begin(wire, self.cluster.http.keep_case)
            .await
            .map_err(|_| FailureKind::Reset(Reset::Connection))?;
        let now = Instant::now();
        let line = Rc::new(Line {
            sender: RefCell::new(Some(sender)),
            carrier: RefCell::new(Some(carrier)),
            quiet: Quiet::new(),
            alive,
            ends: Connection {
                local,
                peer,
                version: Version::HTTP_11,
            },
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
            if line.is_ready() && line.resume() {
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
        let rests = matches!(&*self.carrier.borrow(), Some(Carrier::Nobody(_)));
        let sender = self.sender.borrow();
        let takes = rests || sender.as_ref().is_some_and(SendRequest::is_ready);
        takes && !self.written.is_broken()
    }

    /// Lets the connection go on. False where there is nothing to drive (any more).
    fn drive(&self, cx: &mut Context<'_>) -> bool {
        let mut carrier = self.carrier.borrow_mut();
        let Some(driving) = &mut *carrier else {
            return false;
        };
        // How it ended is the business of the request on it, which learns it by itself.
        let mut cx = self.quiet.context(cx);
        let ended = driving.poll(&mut cx).is_ready();
        if ended {
            *carrier = None;
        }
        !ended
    }

    /// The next request may have it speak another protocol.
    fn expect_upgrade(&self) {
        let carrier = self.carrier.take();
        *self.carrier.borrow_mut() = carrier.map(Carrier::with_upgrades);
    }

    /// It speaks another protocol from here on, and no more requests come by it.
    fn hand_over(&self) {
        if let Some(carrier) = self.carrier.take() {
            spawn_local(carrier.finish());
        }
    }

    /// Gives hyper's memory back if no request has come for a while. Of one that is ready.
    pub(super) fn rest(&self, now: Instant) {
        let idle = now.saturating_duration_since(self.idle_since.get());
        let plain = matches!(&*self.carrier.borrow(), Some(Carrier::Plain(_)));
        if plain && idle >= RESTS_AFTER {
            let rested = self.carrier.take().and_then(Carrier::rest);
            self.carrier.replace(rested);
            self.sender.take();
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

impl<B: RequestBody> Line<B> {
    /// Has hyper carry requests again, if the connection rests. False where it ended.
    fn resume(&self) -> bool {
        let carrier = self.carrier.take();
        let Some(Carrier::Nobody(wire)) = carrier else {
            *self.carrier.borrow_mut() = carrier;
            return true;
        };
        let keep_case = self.alive.pool.cluster.http.keep_case;
        // There is nothing to wait for: HTTP/1 begins with the first request.
        let begun = carrier::begin(wire, keep_case).now_or_never();
        let Some(Ok((sender, carrier))) = begun else {
            return false;
        };
        *self.sender.borrow_mut() = Some(sender);
        *self.carrier.borrow_mut() = Some(carrier);
        true
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
        if let Some(carrier) = self.carrier.take().filter(|_| rests) {
            self.alive.pool.closing.put(carrier.finish());
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
