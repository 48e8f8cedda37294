//! What passes between the acceptor and a worker.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::seats::Seat;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// To serve a connection.
    Serve(Accepted),
    /// To let the connections of a listener end.
    Retire(Arc<str>),
    /// To let all connections end, those to come too.
    Drain,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, which doesn't block.
    pub tcp: TcpStream,
    /// Who connects.
    pub remote: SocketAddr,
    /// Where to.
    pub local: SocketAddr,
    /// Which listener accepted it.
    pub listener: Arc<str>,
    /// Its place among those that a worker serves.
    pub place: Place,
}

/// A place among what a worker serves, free again when it is dropped.
#[derive(Debug, Default)]
pub struct Place {
    held: Option<(Arc<AtomicUsize>, TaskTrackerToken)>,
    /// A connection's own, which its streams don't have.
    _seat: Option<Seat>,
}

impl Place {
    pub(super) fn new(load: Arc<AtomicUsize>, token: TaskTrackerToken, seat: Seat) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self {
            held: Some((load, token)),
            _seat: Some(seat),
        }
    }

    /// A further place on the same worker: for a stream of a tunnel, which is as much work as a
    /// connection.
    #[must_use]
    pub fn beside(&self) -> Self {
        let held = self.held.as_ref().map(|(load, token)| {
            load.fetch_add(1, Ordering::Relaxed);
            (load.clone(), token.clone())
        });
        Self { held, _seat: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((load, _)) = &self.held {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
