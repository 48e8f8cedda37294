//! Bytes between two connections, both ways, until both ways are done: half-close stays half-close,
//! a reset is passed on as a reset, and nothing is copied that nobody permitted. Knows TCP sockets
//! and tunnelled streams, and nothing of how they came to be.
//!
//! A side that takes no more is heard to its end before the other one is reset: a server that answers
//! "too large" and closes has its answer delivered, as the kernel would.
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
use std::task::{Context, Poll, ready};

use flow::{Fault, Flow};
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
        refused: None,
        broken: None,
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
    /// A side that takes no more, and how that was seen: what it said before is still handed on.
    refused: Option<(Side, SideError)>,
    /// The side that broke; the other one is reset once it has what was handed on.
    broken: Option<(Side, SideError)>,
}

impl Pair {
    fn poll(&mut self, cx: &mut Context<'_>, meter: &Meter) -> Poll<End> {
        if self.refused.is_none() && self.broken.is_none() {
            match ready!(self.poll_both(cx, meter)) {
                Ok(first) => return Poll::Ready(self.closed(first)),
                Err((by, Fault::Source(cause))) => self.broken = Some((by, cause)),
                Err((from, Fault::Sink(cause))) => self.refused = Some((from.other(), cause)),
            }
        }
        if let Some((by, closed)) = self.refused.as_ref().map(|(by, c)| (*by, c.is_close())) {
            if ready!(self.poll_way(by, cx, meter)).is_ok() && closed {
                return Poll::Ready(self.closed(by));
            }
            // A socket whose reset was told to who wrote to it reads like one that ended, so that even
            // an end is no proof that this was all.
            self.broken = self.refused.take();
        }
        let Some((by, _)) = &self.broken else {
            return Poll::Pending;
        };
        let other = match by {
            Side::Downstream => &mut self.upstream,
            Side::Upstream => &mut self.downstream,
        };
        ready!(other.poll_left(cx));
        let broken = self.broken.take();
        broken.map_or(Poll::Pending, |(by, cause)| {
            Poll::Ready(End::Broken { by, cause })
        })
    }

    /// Both ways, until both have ended, or one side of one of them broke.
    fn poll_both(
        &mut self,
        cx: &mut Context<'_>,
        meter: &Meter,
    ) -> Poll<Result<Side, (Side, Fault)>> {
        let out = self.poll_way(Side::Downstream, cx, meter);
        if let Poll::Ready(Err(fault)) = out {
            return Poll::Ready(Err((Side::Downstream, fault)));
        }
        let home = self.poll_way(Side::Upstream, cx, meter);
        if let Poll::Ready(Err(fault)) = home {
            return Poll::Ready(Err((Side::Upstream, fault)));
        }
        let ended = match (out.is_ready(), home.is_ready()) {
            (true, true) => return Poll::Ready(Ok(self.first.unwrap_or(Side::Downstream))),
            (true, false) => Side::Downstream,
            (false, true) => Side::Upstream,
            (false, false) => return Poll::Pending,
        };
        self.first.get_or_insert(ended);
        // The side that has ended is not read any more, and would not be heard when it is reset.
        let side = match ended {
            Side::Downstream => &mut self.downstream,
            Side::Upstream => &mut self.upstream,
        };
        let cause = ready!(side.poll_reset(cx));
        if cause.is_close() {
            // All it sent has been handed on, its end too, and it takes no more. For the other side
            // that is an end like any other; a reset could overtake what it has not read yet.
            return Poll::Ready(Ok(ended));
        }
        Poll::Ready(Err((ended, Fault::Source(cause))))
    }

    /// The way from one side to the other.
    fn poll_way(
        &mut self,
        from: Side,
        cx: &mut Context<'_>,
        meter: &Meter,
    ) -> Poll<Result<(), Fault>> {
        let (downstream, upstream) = (&mut self.downstream, &mut self.upstream);
        match from {
            Side::Downstream => self.there.poll(cx, downstream, upstream, &meter.sent),
            Side::Upstream => self.back.poll(cx, upstream, downstream, &meter.received),
        }
    }

    fn closed(&mut self, first: Side) -> End {
        self.downstream.finished();
        self.upstream.finished();
        End::Closed { first }
    }
}
