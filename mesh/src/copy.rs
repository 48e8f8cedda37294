//! Bytes between two connections, both ways, until both ways are done: half-close stays half-close,
//! a reset is passed on as a reset, and nothing is copied that nobody permitted. Knows TCP sockets
//! and tunnelled streams, and nothing of how they came to be.
//!
//! Each way is a [`flow`](self): a chunk is read only when everything before it is written, so a
//! slow reader holds back its writer, over any number of hops. What a way may hold is one read
//! buffer, or what the peer may send on a stream without a window update
//! ([`Limits::stream_window`](crate::hbone::Limits)).

mod buffer;
mod flow;
mod queue;
mod side;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use flow::Flow;
pub use side::{Duplex, SideError};

use crate::policy::Permit;

/// Bytes that went through, readable while they do.
#[derive(Debug, Default)]
pub struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
}

/// One of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that was accepted: the client's.
    Downstream,
    /// The one that was opened: the server's.
    Upstream,
}

/// Why somebody else ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// A policy now denies it.
    Denied,
    /// The time to finish is over.
    Drained,
    /// Its pod is gone.
    Gone,
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Bytes from downstream to upstream.
    pub sent: u64,
    /// Bytes from upstream to downstream.
    pub received: u64,
    /// Why.
    pub reason: End,
}

/// Why a connection ended.
#[derive(Debug, Clone)]
pub enum End {
    /// Both sides have closed properly.
    Closed {
        /// The one that closed first.
        first: Side,
    },
    /// One side was reset or broke; the other was reset.
    Broken {
        /// The side that broke.
        by: Side,
        /// How.
        cause: SideError,
    },
    /// Both sides were reset from here.
    Stopped(Stop),
}

impl Meter {
    /// Bytes from downstream to upstream so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes from upstream to downstream so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// Copies between two connections until both ways have ended, one side breaks, or `stop` is ready.
/// Counts in `meter` what was handed on. Dropping the future resets both sides.
pub async fn bidirectional(
    _permit: Permit,
    downstream: impl Into<Duplex>,
    upstream: impl Into<Duplex>,
    meter: &Meter,
    stop: impl Future<Output = Stop>,
) -> Ended {
    let mut pair = Pair {
        downstream: downstream.into(),
        upstream: upstream.into(),
        there: Flow::default(),
        back: Flow::default(),
        first: None,
    };
    let mut stop = pin!(stop);
    let reason = poll_fn(|cx| {
        if let Poll::Ready(end) = pair.poll(cx, meter) {
            return Poll::Ready(end);
        }
        stop.as_mut().poll(cx).map(End::Stopped)
    })
    .await;
    match reason {
        End::Closed { .. } => {}
        End::Broken { .. } | End::Stopped(_) => {
            pair.downstream.abort();
            pair.upstream.abort();
        }
    }
    Ended {
        sent: meter.sent(),
        received: meter.received(),
        reason,
    }
}

struct Pair {
    downstream: Duplex,
    upstream: Duplex,
    there: Flow,
    back: Flow,
    /// Whose end came first.
    first: Option<Side>,
}

impl Pair {
    fn poll(&mut self, cx: &mut Context<'_>, meter: &Meter) -> Poll<End> {
        let Self {
            downstream,
            upstream,
            there,
            back,
            first,
        } = self;
        let out = there.poll(cx, downstream, upstream, &meter.sent);
        if let Poll::Ready(Err(fault)) = out {
            return Poll::Ready(fault.end(Side::Downstream));
        }
        let home = back.poll(cx, upstream, downstream, &meter.received);
        if let Poll::Ready(Err(fault)) = home {
            return Poll::Ready(fault.end(Side::Upstream));
        }
        match (out.is_ready(), home.is_ready()) {
            (true, true) => {
                let first = first.unwrap_or(Side::Downstream);
                downstream.finished();
                upstream.finished();
                return Poll::Ready(End::Closed { first });
            }
            (true, false) => {
                first.get_or_insert(Side::Downstream);
            }
            (false, true) => {
                first.get_or_insert(Side::Upstream);
            }
            (false, false) => return Poll::Pending,
        }
        // The side that has ended is not read any more, and would not be heard when it is reset.
        let (reset, by) = if out.is_ready() {
            (downstream.poll_reset(cx), Side::Downstream)
        } else {
            (upstream.poll_reset(cx), Side::Upstream)
        };
        let Poll::Ready(cause) = reset else {
            return Poll::Pending;
        };
        if cause.is_close() {
            // All it sent has been handed on, its end too, and it takes no more. For the other side
            // that is an end like any other; a reset could overtake what it has not read yet.
            downstream.finished();
            upstream.finished();
            return Poll::Ready(End::Closed { first: by });
        }
        Poll::Ready(End::Broken { by, cause })
    }
}
