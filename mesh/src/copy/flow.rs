//! One way of a connection.
//!
//! ```text
//! Open ──the source ends──▶ Flushing ──everything is written──▶ half-close, Done
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use super::buffer::ReadBuffer;
use super::queue::Queue;
use super::side::{Duplex, SideError};

#[derive(Debug, Default)]
pub(super) struct Flow {
    buffer: ReadBuffer,
    queue: Queue,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Flushing,
    Done,
}

/// What broke.
pub(super) enum Fault {
    /// The side that is read.
    Source(SideError),
    /// The side that is written to.
    Sink(SideError),
}

impl Flow {
    /// Copies as much as it can. Ready when the way has ended and its end is passed on.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Duplex,
        sink: &mut Duplex,
        count: &AtomicU64,
    ) -> Poll<Result<(), Fault>> {
        loop {
            while !self.queue.is_empty() {
                let Poll::Ready(written) = sink.poll_write(cx, &mut self.queue) else {
                    self.read_ahead(cx, source)?;
                    return Poll::Pending;
                };
                let written = written.map_err(Fault::Sink)?;
                count.fetch_add(written as u64, Ordering::Relaxed);
                source.release(written);
            }
            match self.state {
                State::Open => {
                    let filled = source.poll_read(cx, &mut self.buffer, &mut self.queue);
                    if filled.is_pending() {
                        self.buffer.rest();
                    }
                    if !ready!(filled).map_err(Fault::Source)? {
                        self.state = State::Flushing;
                    }
                }
                State::Flushing => {
                    sink.finish().map_err(Fault::Sink)?;
                    self.state = State::Done;
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// While the sink takes nothing, still takes what a tunnel has brought: it is bounded by the
    /// stream's window, and a reset is seen.
    fn read_ahead(&mut self, cx: &mut Context<'_>, source: &mut Duplex) -> Result<(), Fault> {
        while self.state == State::Open {
            match source.poll_read_ahead(cx, &mut self.queue) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.state = State::Flushing,
                Poll::Ready(Err(error)) => return Err(Fault::Source(error)),
            }
        }
        Ok(())
    }
}
