//! The connections of one worker to one endpoint: which of them takes a request, when another is
//! made, and when one is closed. HTTP/1 connections serve one request at a time and wait for the next
//! one last-in-first-out; HTTP/2 connections serve many. Knows nothing of other endpoints.
//!
//! ```text
//! idle connection ──▶ use it
//! none            ──▶ room in the cluster's limits, or the first here ──▶ make one
//!                     no room ──▶ wait for one of ours, as one of the cluster's pending requests
//! ```

mod closing;
mod http1;
mod http2;
mod places;
mod waiting;
mod wire;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use mesh::policy::Permit;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::answer::{Connected, Place, Received, Sent};
use super::choice::{Choice, Connection};
use super::connect::{Connector, Opened, Purpose};
use super::failure::FailureKind;
use super::head;
use super::shared::{ClusterState, HostState};
use crate::model::cluster::{Cluster, Discovery, UpstreamProtocol};
use crate::model::endpoint::{Endpoint, EndpointSet};
use crate::model::snapshot::ClusterEntry;
pub(super) use closing::Closing;
pub(super) use places::Failed;
use places::{Alive, Bytewise, Pending, reset_of};
use waiting::Waiting;

/// Connections that end under a request before anything of it was sent, before a fresh one is made.
const STALE: u32 = 3;

/// How often an attempt that waits for its connection looks whether its endpoint is still there.
const LOOK: Duration = Duration::from_millis(100);

/// What a request's body must be.
pub trait RequestBody:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static
{
}

impl<B> RequestBody for B where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static
{
}

/// The connections of one worker to one endpoint.
pub(super) struct Pool<B> {
    /// Changes where only its weight, health or names do.
    endpoint: RefCell<Arc<Endpoint>>,
    pub(super) cluster: Arc<Cluster>,
    /// The cluster's endpoints now.
    listed: Arc<ArcSwap<EndpointSet>>,
    pub(super) state: Arc<ClusterState>,
    pub(super) host: Arc<HostState>,
    connector: Rc<Connector>,
    closing: Rc<Closing>,
    /// HTTP/1 connections that wait for a request, the latest last.
    idle: RefCell<Vec<Rc<http1::Line<B>>>>,
    /// HTTP/2 connections.
    shared: RefCell<Vec<Rc<http2::Line<B>>>>,
    /// Who waits for an HTTP/1 connection.
    waiting: Waiting<Rc<http1::Line<B>>>,
    /// An HTTP/2 connection is being made.
    dialling: Cell<bool>,
    /// How many were begun, and how the latest failed one did.
    dials: Cell<u64>,
    dial_failed: RefCell<Option<(u64, FailureKind)>>,
    /// HTTP/2: dialling is over, or a stream, or a connection is.
    changed: Notify,
    /// Connections that stand or are being made.
    alive: Cell<usize>,
    /// What ALPN said last.
    speaks: Cell<Option<Version>>,
    /// No connection is kept any more.
    retired: Cell<bool>,
}

/// The connection that an answer came by.
struct By {
    place: Place,
    reused: bool,
    opened: Connection,
}

impl<B: RequestBody> Pool<B> {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        entry: &ClusterEntry,
        state: Arc<ClusterState>,
        host: Arc<HostState>,
        connector: Rc<Connector>,
        closing: Rc<Closing>,
    ) -> Rc<Self> {
        Rc::new(Self {
            endpoint: RefCell::new(endpoint),
            cluster: entry.cluster.clone(),
            listed: entry.endpoints.clone(),
            state,
            host,
            connector,
            closing,
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: Waiting::default(),
            dialling: Cell::new(false),
            dials: Cell::new(0),
            dial_failed: RefCell::default(),
            changed: Notify::new(),
            alive: Cell::new(0),
            speaks: Cell::new(None),
            retired: Cell::new(false),
        })
    }

    /// Sends a request on a connection of this pool.
    pub(super) async fn send(
        self: &Rc<Self>,
        mut request: Request<B>,
        choice: &Choice<'_>,
        permit: Permit,
    ) -> Result<Sent, Failed<B>> {
        if choice.rewrite_host {
            let endpoint = self.endpoint.borrow();
            if !endpoint.hostname.is_empty() {
                head::set_host(&mut request, &endpoint.hostname);
            }
        }
        let unknown =
            self.cluster.http.protocol == UpstreamProtocol::Alpn && self.speaks.get().is_none();
        if unknown && let Err(kind) = Box::pin(self.learn(choice, permit.clone())).await {
            return Err(Failed::early(kind, request));
        }
        let mut stale = 0;
        loop {
            let version = self.version(request.version());
            let permit = permit.clone();
            let sent = match version {
                Version::HTTP_2 => {
                    self.send_shared(request, choice, permit, stale >= STALE)
                        .await
                }
                _ => {
                    self.send_alone(request, choice, permit, stale >= STALE)
                        .await
                }
            };
            match sent {
                Ok((response, by)) => return Ok(self.sent(response, by)),
                // Somebody closed the connection while it was idle: that says nothing of the next.
                Err(Failed {
                    reused: true,
                    sent: false,
                    request: Some(again),
                    ..
                }) if stale < STALE => {
                    request = again;
                    stale += 1;
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Makes a first connection, to see which protocol the peer agrees to.
    async fn learn(
        self: &Rc<Self>,
        choice: &Choice<'_>,
        permit: Permit,
    ) -> Result<(), FailureKind> {
        let _pending = self.pending().ok_or(FailureKind::Overflow)?;
        let alive = self.room().ok_or(FailureKind::Overflow)?;
        let owner = self
            .cluster
            .connection_per_downstream
            .then_some(choice.down.id);
        let opened = Box::pin(self.open(choice, Purpose::Pooled, permit)).await?;
        if opened.io.alpn() == Some(b"h2") {
            self.share_line(opened, alive, owner).await?;
        } else {
            self.speaks.set(Some(Version::HTTP_11));
            let line = self.keep_line(opened, alive, owner).await?;
            line.park();
        }
        Ok(())
    }

    /// Opens a connection for bytes.
    pub(super) async fn connect(
        self: &Rc<Self>,
        choice: &Choice<'_>,
        permit: Permit,
    ) -> Result<Connected, FailureKind> {
        let alive = self.room().ok_or(FailureKind::Overflow)?;
        let opened = self.open(choice, Purpose::Alone, permit).await?;
        self.host.active.take_anyway();
        Ok(Connected {
            io: opened.io,
            endpoint: self.endpoint.borrow().clone(),
            peer: opened.peer,
            local: opened.local,
            place: Place::new(Rc::new(Bytewise(alive))),
        })
    }

    /// Closes the connections that have no request now.
    pub(super) fn close_idle(&self) {
        let idle = self.idle.take();
        let shared: Vec<_> = self
            .shared
            .borrow_mut()
            .extract_if(.., |line| line.is_free())
            .collect();
        drop((idle, shared));
    }

    /// The endpoint is the same, but for what doesn't matter to its connections.
    pub(super) fn renamed(&self, endpoint: Arc<Endpoint>) {
        *self.endpoint.borrow_mut() = endpoint;
    }

    /// Closes what has been idle, or open, for too long; what has been idle for a while rests.
    pub(super) fn sweep(&self, now: Instant) {
        let idle: Vec<_> = self
            .idle
            .borrow_mut()
            .extract_if(.., |line| line.is_over(now))
            .collect();
        for line in &*self.idle.borrow() {
            line.rest(now);
        }
        let shared: Vec<_> = self
            .shared
            .borrow_mut()
            .extract_if(.., |line| line.is_over(now))
            .collect();
        // Their ends take part in the pool's books: not while those are borrowed.
        drop((idle, shared));
    }

    /// Whether nothing is kept or running here.
    pub(super) fn is_unused(&self) -> bool {
        self.alive.get() == 0
    }

    fn version(&self, downstream: Version) -> Version {
        match self.cluster.http.protocol {
            UpstreamProtocol::Http1 => Version::HTTP_11,
            UpstreamProtocol::Http2 => Version::HTTP_2,
            UpstreamProtocol::Downstream => downstream,
            UpstreamProtocol::Alpn => self.speaks.get().unwrap_or(Version::HTTP_11),
        }
    }

    fn sent(&self, response: Response<Incoming>, by: By) -> Sent {
        Sent {
            response: response.map(|incoming| Received::new(incoming, by.place)),
            endpoint: self.endpoint.borrow().clone(),
            peer: by.opened.peer,
            local: by.opened.local,
            reused: by.reused,
        }
    }

    /// A place for one more connection: the cluster's limit doesn't keep a worker from its first.
    fn room(self: &Rc<Self>) -> Option<Alive<B>> {
        if !self
            .state
            .connections
            .take(self.cluster.breakers.connections)
        {
            if self.alive.get() > 0 {
                return None;
            }
            self.state.connections.take_anyway();
        }
        self.host.connections.take_anyway();
        self.alive.set(self.alive.get() + 1);
        Some(Alive { pool: self.clone() })
    }

    /// Takes a place among the cluster's requests.
    fn begin(&self) -> bool {
        let room = self.state.requests.take(self.cluster.breakers.requests);
        if room {
            self.host.active.take_anyway();
            self.host.totals.requests.fetch_add(1, Relaxed);
        }
        room
    }

    fn pending(&self) -> Option<Pending> {
        let taken = self.state.pending.take(self.cluster.breakers.pending);
        taken.then(|| Pending(self.state.clone()))
    }

    async fn open(
        &self,
        choice: &Choice<'_>,
        purpose: Purpose,
        permit: Permit,
    ) -> Result<Opened, FailureKind> {
        let endpoint = self.endpoint.borrow().clone();
        let opening = self
            .connector
            .open(&self.cluster, &endpoint, choice, purpose, permit);
        let opened = tokio::select! {
            opened = opening => opened?,
            () = self.gone(&endpoint) => {
                return Err(FailureKind::Connect("the endpoint has gone".into()));
            }
        };
        self.host.totals.connections.fetch_add(1, Relaxed);
        Ok(opened)
    }
}

impl<B> Pool<B> {
    /// Ends when the endpoint is one of the cluster's no longer: its pod is gone, nothing at its
    /// address will answer, and waiting out the connection's time limit would only hold the request
    /// up. Endpoints that come from requests themselves are in no list.
    async fn gone(&self, endpoint: &Endpoint) {
        if matches!(
            self.cluster.discovery,
            Discovery::OriginalDestination { .. } | Discovery::DynamicForwardProxy { .. }
        ) {
            return std::future::pending().await;
        }
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once; most connections stand before the second.
        look.tick().await;
        loop {
            look.tick().await;
            let set = self.listed.load();
            let mut listed = set.localities.iter().flat_map(|place| &place.endpoints);
            if !listed.any(|listed| listed.address == endpoint.address) {
                return;
            }
        }
    }

    /// Keeps no connection any more; requests that run go on.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        drop(self.idle.take());
        drop(self.shared.take());
        // Whoever waits finds that nothing will come, and makes a connection of its own.
        self.waiting.wake_all();
        self.changed.notify_waiters();
    }

    /// A request is over.
    fn done(&self) {
        self.host.active.give();
        self.state.requests.give();
    }
}
