//! What a worker's connections share: where the configuration is found, the way to upstream hosts,
//! and the connections that are open, so that they can be told to end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mesh::drain;

use crate::connection::Downstream;
use crate::http::{RequestBody, jwks};
use crate::model::snapshot::Current;
use crate::source::secret::Secrets;
use crate::telemetry::{self, Telemetry};
use crate::upstream::{self, Identified, Upstreams};
use crate::wasm;
use crate::worker::handle::Place;

/// What every worker is built from.
#[derive(Clone)]
pub struct Parts {
    /// The configuration.
    pub current: Current,
    /// What is known of clusters across workers.
    pub upstream: upstream::Shared,
    /// Who the proxy is in the mesh, where it is in one.
    pub own: Option<Identified>,
    /// Certificates and roots, for listeners and towards upstream hosts.
    pub secrets: Secrets,
    /// Where requests and connections are counted and written down.
    pub telemetry: Telemetry,
    /// What plugins of all workers have between them.
    pub plugins: wasm::Shared,
    /// Tells tunnels to end.
    pub watch: drain::Watch,
}

/// How long a connection that is asked to end still waits for a request that may be on the way.
pub const LINGER: Duration = Duration::from_secs(2);

/// One worker's shared state.
pub struct Local {
    /// The configuration.
    pub current: Current,
    /// The way to upstream hosts.
    pub upstreams: Upstreams<RequestBody>,
    /// Who the proxy is in the mesh.
    pub own: Option<Identified>,
    /// Certificates and roots of listeners.
    pub secrets: Secrets,
    /// Where requests and connections are counted and written down.
    pub telemetry: telemetry::Worker,
    /// Keys of token issuers that are fetched.
    pub jwks: jwks::Keys,
    /// Plugins that run here.
    pub plugins: wasm::Plugins,
    /// Tells tunnels to end.
    pub watch: drain::Watch,
    /// The connections that are open.
    pub open: Open,
}

impl Local {
    pub(super) fn new(parts: Parts) -> Rc<Self> {
        let Parts {
            current,
            upstream,
            own,
            secrets,
            telemetry,
            plugins,
            watch,
        } = parts;
        Rc::new(Self {
            upstreams: Upstreams::new(
                upstream,
                current.clone(),
                own.clone(),
                Arc::new(secrets.clone()),
            ),
            current,
            own,
            secrets,
            telemetry: telemetry.worker(),
            jwks: jwks::Keys::default(),
            plugins: wasm::Plugins::new(plugins),
            watch,
            open: Open::default(),
        })
    }
}

/// The connections that are open on a worker.
#[derive(Debug, Default)]
pub struct Open {
    draining: Cell<bool>,
    connections: RefCell<Vec<Option<Rc<Ending>>>>,
    free: RefCell<Vec<usize>>,
}

/// Whether one connection is asked to end. Asking costs a look-up of all; being asked costs a
/// connection nothing, since its own poll reads a flag.
#[derive(Debug)]
pub(super) struct Ending {
    asked: Cell<bool>,
    listener: Arc<str>,
    waker: RefCell<Option<Waker>>,
}

/// A connection's entry among those that are open; it leaves when this is dropped.
#[derive(Debug)]
pub struct Entry {
    local: Rc<Local>,
    ending: Rc<Ending>,
    at: usize,
    /// Held as long: requests and pipes may outlive whoever accepted the connection.
    place: Place,
}

impl Open {
    /// Asks the connections of a listener to end.
    pub(super) fn retire(&self, listener: &str) {
        self.ask(|ending| *ending.listener == *listener);
    }

    /// Asks all to end, those to come too.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.ask(|_| true);
    }

    fn ask(&self, which: impl Fn(&Ending) -> bool) {
        let connections = self.connections.borrow();
        for ending in connections.iter().flatten().filter(|ending| which(ending)) {
            ending.ask();
        }
    }
}

impl Ending {
    fn ask(&self) {
        self.asked.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Entry {
    /// Notes a connection of a listener.
    #[must_use]
    pub fn new(local: &Rc<Local>, listener: &Arc<str>, place: Place) -> Self {
        let open = &local.open;
        let ending = Rc::new(Ending {
            asked: Cell::new(open.draining.get()),
            listener: listener.clone(),
            waker: RefCell::new(None),
        });
        let mut connections = open.connections.borrow_mut();
        let at = match open.free.borrow_mut().pop() {
            Some(at) => at,
            None => {
                connections.push(None);
                connections.len() - 1
            }
        };
        connections[at] = Some(ending.clone());
        drop(connections);
        Self {
            local: local.clone(),
            ending,
            at,
            place,
        }
    }

    /// The connection's place, beside which streams of a tunnel have theirs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the connection is asked to end; if not, its task is woken when it is.
    #[must_use]
    pub fn is_asked(&self, cx: &Context<'_>) -> bool {
        if self.ending.asked.get() {
            return true;
        }
        let mut waker = self.ending.waker.borrow_mut();
        if waker
            .as_ref()
            .is_none_or(|known| !known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        false
    }

    /// Asks the connection to end.
    pub fn ask(&self) {
        self.ending.ask();
    }

    /// Waits until the connection is asked to end.
    pub async fn asked(&self) {
        std::future::poll_fn(|cx| match self.is_asked(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Waits until a connection on which nothing has been asked should be given up: some time after
    /// it was asked to end, since its first request may be on the way.
    pub async fn given_up(&self) {
        self.asked().await;
        tokio::time::sleep(LINGER).await;
    }

    /// Whether the connection is asked to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.asked.get()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let open = &self.local.open;
        open.connections.borrow_mut()[self.at] = None;
        open.free.borrow_mut().push(self.at);
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// Unlike any other of this process: numbers of connections.
#[must_use]
pub fn next_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A connection and everything that its requests share.
#[derive(Debug)]
pub struct Connection {
    /// The worker it is on.
    pub local: Rc<Local>,
    /// What is known of it.
    pub down: Arc<Downstream>,
    /// The listener whose dispatch chose its chain.
    pub listener: Arc<str>,
    /// The chain.
    pub chain: Arc<crate::model::listener::Chain>,
    /// Its place among those that are open.
    pub entry: Entry,
}
