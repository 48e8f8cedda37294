//! HTTP/2 connections: many requests at a time on each, another one where the peer's limit of
//! streams is reached.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh::cork::{Outlet, cork};
use mesh::policy::Permit;
use tokio::task::spawn_local;

use super::wire::{Wire, Written, counted};
use super::{Alive, By, Failed, Pool, RequestBody, reset_of};
use crate::upstream::answer::{Place, Release};
use crate::upstream::choice::{Choice, Connection};
use crate::upstream::connect::{Io, Opened, Purpose};
use crate::upstream::failure::FailureKind;
use crate::upstream::head;

/// Bytes that a peer may send on one stream before we have passed them on: 256 KiB in a round trip of
/// 1 ms are 2 Gbit/s, and 64 bodies that nobody reads hold 16 MiB.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for one connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of a stream that may wait for the connection.
const SEND_BUFFER: usize = 64 << 10;
/// Largest list of headers that we accept, in bytes.
const MAX_HEADERS: u32 = 64 << 10;
/// Streams at a time until the peer says its limit.
const FIRST_STREAMS: usize = 100;

/// A connection.
pub(super) struct Line<B> {
    sender: RefCell<SendRequest<B>>,
    alive: Alive<B>,
    ends: Connection,
    written: Written,
    secure: bool,
    /// Requests at present.
    streams: Cell<usize>,
    /// The peer's limit of them.
    most: Rc<Cell<usize>>,
    /// Requests so far.
    requests: Cell<u32>,
    made: Instant,
    idle_since: Cell<Instant>,
    owner: Option<u64>,
}

/// hyper's tasks stay with the worker. One of them drives the connection: what it wrote goes out when
/// its turn is over.
#[derive(Clone)]
struct Local(Outlet<Wire>);

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        let outlet = self.0.clone();
        // The same type is for a connection and for each request on it, and has the size of the
        // former: a task is moved several times until it runs.
        let future = Box::pin(future);
        spawn_local(async move {
            outlet.drive(future).await;
        });
    }
}

impl<B: RequestBody> Pool<B> {
    /// Sends a request on an HTTP/2 connection: one with room, unless a `fresh` one is asked for.
    pub(super) async fn send_shared(
        self: &Rc<Self>,
        mut request: Request<B>,
        choice: &Choice<'_>,
        permit: Permit,
        fresh: bool,
    ) -> Result<(Response<Incoming>, By), Failed<B>> {
        let line = match self.find_line(choice, permit, fresh).await {
            Ok(line) => line,
            Err(kind) => return Err(Failed::early(kind, request)),
        };
        if !self.begin() {
            return Err(Failed::early(FailureKind::Overflow, request));
        }
        head::for_http2(&mut request, line.secure);
        let reused = line.requests.get() > 0;
        line.requests.set(line.requests.get() + 1);
        line.streams.set(line.streams.get() + 1);
        let before = line.written.now();
        let opened = line.ends;
        choice.connected(opened);
        // From here on the place is given back whatever happens, dropped futures included.
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
                if request.is_some() {
                    // It takes no more: whoever comes next looks elsewhere.
                    line.give_up();
                }
                Err(Failed {
                    kind,
                    reused,
                    sent,
                    request,
                })
            }
        }
    }

    async fn find_line(
        self: &Rc<Self>,
        choice: &Choice<'_>,
        permit: Permit,
        fresh: bool,
    ) -> Result<Rc<Line<B>>, FailureKind> {
        let owner = self
            .cluster
            .connection_per_downstream
            .then_some(choice.down.id);
        if !fresh && let Some(line) = self.line_with_room(owner) {
            return Ok(line);
        }
        let _pending = self.pending().ok_or(FailureKind::Overflow)?;
        let alive = loop {
            if !fresh && let Some(line) = self.line_with_room(owner) {
                return Ok(line);
            }
            // One dials, and those who come meanwhile share what it makes, good or bad.
            if self.dialling.get() && owner.is_none() {
                let dial = self.dials.get();
                self.changed.notified().await;
                match &*self.dial_failed.borrow() {
                    Some((failed, kind)) if *failed == dial => return Err(kind.clone()),
                    _ => continue,
                }
            }
            match self.room() {
                Some(alive) => break alive,
                // All are full, and there may be no more: until one has room.
                None => self.changed.notified().await,
            }
        };
        let dialling = Dialling::begin(self.clone());
        let made = async {
            let opened = Box::pin(self.open(choice, Purpose::Pooled, permit)).await?;
            self.share_line(opened, alive, owner).await
        };
        let made = made.await;
        if let Err(kind) = &made {
            *self.dial_failed.borrow_mut() = Some((self.dials.get(), kind.clone()));
        }
        drop(dialling);
        made
    }

    /// Of those with room the one with the fewest streams.
    fn line_with_room(&self, owner: Option<u64>) -> Option<Rc<Line<B>>> {
        let lines = self.shared.borrow();
        let usable = lines
            .iter()
            .filter(|line| line.owner == owner && line.has_room());
        usable.min_by_key(|line| line.streams.get()).cloned()
    }

    pub(super) async fn share_line(
        self: &Rc<Self>,
        opened: Opened,
        alive: Alive<B>,
        owner: Option<u64>,
    ) -> Result<Rc<Line<B>>, FailureKind> {
        let Opened { io, local, peer } = opened;
        if let Some(alpn) = io.alpn()
            && alpn != b"h2"
        {
            self.speaks.set(None);
            let text = "TLS_error: the peer did not agree to HTTP/2 (ALPN h2)";
            return Err(FailureKind::Connect(text.into()));
        }
        let secure = matches!(io, Io::Tls(_) | Io::TunnelTls(_));
        let (wire, written) = counted(io);
        let (wire, outlet) = cork(wire);
        let mut builder = Builder::new(Local(outlet));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(FIRST_STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADERS);
        if let Some((interval, limit)) = self.cluster.http.keepalive {
            builder
                .keep_alive_interval(interval)
                .keep_alive_timeout(limit)
                .keep_alive_while_idle(true);
        }
        let (sender, connection) = builder
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| reset_of(&error))?;
        let most = Rc::new(Cell::new(FIRST_STREAMS));
        let now = Instant::now();
        let line = Rc::new(Line {
            sender: RefCell::new(sender),
            alive,
            ends: Connection {
                local,
                peer,
                version: Version::HTTP_2,
            },
            written,
            secure,
            streams: Cell::new(0),
            most: most.clone(),
            requests: Cell::new(0),
            made: now,
            idle_since: Cell::new(now),
            owner,
        });
        let end = Rc::downgrade(&line);
        spawn_local(async move {
            let mut connection = pin!(connection);
            poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                most.set(connection.current_max_send_streams());
                // How it ended is the business of its requests: each learns it by itself.
                polled.map(|_| ())
            })
            .await;
            if let Some(line) = end.upgrade() {
                line.give_up();
            }
        });
        if !self.retired.get() {
            self.shared.borrow_mut().push(line.clone());
        }
        self.speaks.set(Some(Version::HTTP_2));
        Ok(line)
    }
}

impl<B> Line<B> {
    fn has_room(&self) -> bool {
        let http = &self.alive.pool.cluster.http;
        let own = http.max_streams.map_or(usize::MAX, |most| most as usize);
        self.streams.get() < self.most.get().min(own) && !self.is_spent()
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

    /// Whether it has been idle for too long, or takes no more requests and has none.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let idle = self.alive.pool.cluster.http.idle;
        let limit = |limit: Duration| now.saturating_duration_since(self.idle_since.get()) >= limit;
        self.streams.get() == 0 && (idle.is_some_and(limit) || self.is_spent())
    }

    /// Whether it has no request now.
    pub(super) fn is_free(&self) -> bool {
        self.streams.get() == 0
    }

    /// Takes no more requests; those that run go on.
    fn give_up(self: Rc<Self>) {
        let pool = &self.alive.pool;
        let mut lines = pool.shared.borrow_mut();
        let place = lines.iter().position(|line| Rc::ptr_eq(line, &self));
        let removed = place.map(|place| lines.swap_remove(place));
        drop(lines);
        drop(removed);
    }
}

impl<B> Release for Line<B> {
    /// A request on it is over.
    fn release(self: Rc<Self>) {
        self.alive.pool.done();
        self.streams.set(self.streams.get() - 1);
        if self.streams.get() == 0 {
            self.idle_since.set(Instant::now());
        }
        // Cheap where nobody waits.
        self.alive.pool.changed.notify_waiters();
        // Others may wait for its place.
        if self.streams.get() == 0 && self.is_spent() {
            self.give_up();
        }
    }
}

/// The right to dial; those who wait for it look again when it is over, however it ended.
struct Dialling<B>(Rc<Pool<B>>);

impl<B> Dialling<B> {
    fn begin(pool: Rc<Pool<B>>) -> Self {
        pool.dialling.set(true);
        pool.dials.set(pool.dials.get() + 1);
        Self(pool)
    }
}

impl<B> Drop for Dialling<B> {
    fn drop(&mut self) {
        self.0.dialling.set(false);
        self.0.changed.notify_waiters();
    }
}
