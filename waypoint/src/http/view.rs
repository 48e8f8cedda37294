//! The configuration as one connection's requests see it: found again by names when another
//! snapshot has been published, so that a push counts from the next request on, on open connections
//! too. A request in flight keeps the view it began with.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use crate::model::http::{HttpChain, Routes};
use crate::model::listener::{Chain, ChainKind, Direction, Dispatch, ListenerKind};
use crate::model::route::RouteTable;
use crate::model::snapshot::Snapshot;
use crate::worker::Connection;

/// A table without routes: a chain whose table hasn't come answers 404.
static NO_ROUTES: LazyLock<Arc<RouteTable>> = LazyLock::new(Arc::default);

/// The configuration as one request sees it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) chain: Arc<HttpChain>,
    pub(super) table: Arc<RouteTable>,
    /// The chain's place among its listener's: unnamed ones are told apart by it.
    place: Option<usize>,
    /// The chain's name.
    pub(super) name: Arc<str>,
    /// Whose traffic its listener takes.
    pub(super) direction: Direction,
    /// The chain is gone; what it was stays in force while the connection ends.
    pub(super) gone: bool,
}

impl View {
    /// The view of a new connection.
    pub(super) fn new(connection: &Connection, chain: &Arc<HttpChain>) -> Rc<Self> {
        let snapshot = connection.local.current.snapshot();
        let chains = dispatch(&snapshot, &connection.listener).map(|dispatch| &dispatch.chains);
        let mut chains = chains.into_iter().flatten();
        let place = chains.position(|one| Arc::ptr_eq(one, &connection.chain));
        Self::of(connection, snapshot, chain.clone(), place, false)
    }

    /// The view of its next request, where another snapshot is published.
    pub(super) fn next(self: &Rc<Self>, connection: &Connection) -> Rc<Self> {
        let snapshot = connection.local.current.snapshot();
        match self.find(&snapshot, connection) {
            Some(chain) => Self::of(connection, snapshot, chain, self.place, false),
            None => Self::of(connection, snapshot, self.chain.clone(), self.place, true),
        }
    }

    fn of(
        connection: &Connection,
        snapshot: Arc<Snapshot>,
        chain: Arc<HttpChain>,
        place: Option<usize>,
        gone: bool,
    ) -> Rc<Self> {
        let table = match &chain.routes {
            Routes::Inline(table) => table.clone(),
            Routes::Named(name) => match snapshot.routes.get(name) {
                Some(table) => table.clone(),
                None => NO_ROUTES.clone(),
            },
        };
        let listener = snapshot.listeners.get(&connection.listener);
        let direction = listener.map_or(Direction::default(), |listener| listener.direction);
        Rc::new(Self {
            snapshot,
            chain,
            table,
            place,
            name: connection.chain.name.clone(),
            direction,
            gone,
        })
    }

    /// The chain in a snapshot.
    fn find(&self, snapshot: &Snapshot, connection: &Connection) -> Option<Arc<HttpChain>> {
        let dispatch = dispatch(snapshot, &connection.listener)?;
        let name = &*connection.chain.name;
        let found = match self.place.filter(|_| name.is_empty()) {
            Some(place) => dispatch.chains.get(place),
            None => dispatch.named(name),
        };
        found.and_then(|chain| http(chain)).cloned()
    }
}

fn http(chain: &Chain) -> Option<&Arc<HttpChain>> {
    match &chain.kind {
        ChainKind::Http(http) => Some(http),
        ChainKind::Tcp(_) | ChainKind::Closed => None,
    }
}

fn dispatch<'s>(snapshot: &'s Snapshot, listener: &str) -> Option<&'s Dispatch> {
    match &snapshot.listeners.get(listener)?.kind {
        ListenerKind::Socket(socket) => Some(&socket.dispatch),
        ListenerKind::Internal(dispatch) => Some(dispatch),
        ListenerKind::Tunnel(_) => None,
    }
}
