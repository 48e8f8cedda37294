//! The small writes of many connections of one thread, let out together once every task that was ready
//! has had its turn. A peer on the same machine sleeps until something comes, and to wake it costs as
//! much as to write: let out one by one, each write finds it asleep again; together, only the first.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use super::{Corked, LetsOut, State};

/// Most connections that wait: the first of them doesn't wait for more than these to have their turn.
const MOST: usize = 64;
/// Most empty buffers that are kept.
const MOST_SPARE: usize = 32;

thread_local! {
    static ROUND: RefCell<Round> = const {
        RefCell::new(Round {
            task: None,
            waiting: Vec::new(),
            spare: Vec::new(),
        })
    };
}

/// What waits on this thread.
struct Round {
    /// The task of [`rounds`], while there is one.
    task: Option<Waker>,
    waiting: Vec<Arc<dyn Waiting>>,
    /// What waited lay in these: a connection that rests holds none.
    spare: Vec<BytesMut>,
}

/// What becomes of bytes that wait when their connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// They go out with the round, as if they had been written at once.
    Sent,
    /// They never go out: whoever dropped the connection may send them elsewhere.
    Forgotten,
}

/// A connection of which something waits.
trait Waiting {
    fn let_out(self: Arc<Self>);
}

impl<T: AsyncWrite + Unpin + Send + 'static> Waiting for Mutex<State<T>> {
    fn let_out(self: Arc<Self>) {
        let state = &mut *self.lock();
        if let LetsOut::Round { told, .. } = &mut state.lets_out {
            *told = false;
        }
        // Asking again would have another one woken in its place.
        if state.blocked {
            return;
        }
        // Mostly everything goes out, and nobody need be woken.
        state.let_out(&mut Context::from_waker(Waker::noop()));
        if state.unflushed {
            let again = Waker::from(Arc::new(Again(Arc::downgrade(&self))));
            state.let_out(&mut Context::from_waker(&again));
        }
        if state.waiting.is_empty() && state.waiting.capacity() > 0 {
            let buffer = std::mem::take(&mut state.waiting);
            ROUND.with_borrow_mut(|round| {
                if round.spare.len() < MOST_SPARE {
                    round.spare.push(buffer);
                }
            });
        }
    }
}

/// Has a connection take part in another round, once it can be written to. One that was dropped
/// meanwhile is closed, though its peer took not everything.
struct Again<T>(Weak<Mutex<State<T>>>);

impl<T: AsyncWrite + Unpin + Send + 'static> Wake for Again<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(connection) = self.0.upgrade() {
            ROUND.with_borrow_mut(|round| round.join(connection));
        }
    }
}

impl Round {
    /// Nobody asks any more where rounds have ended: its thread has.
    fn join(&mut self, connection: Arc<dyn Waiting>) {
        if let Some(task) = &self.task {
            self.waiting.push(connection);
            if self.waiting.len() == 1 {
                task.wake_by_ref();
            }
        }
    }
}

/// Lets out what waits on this thread, whenever all tasks have had their turn that were ready when
/// something began to wait. One task of a runtime that keeps its tasks on one thread, in the order in
/// which they are woken.
pub async fn rounds() {
    let _ends = Ends;
    poll_fn(|cx| {
        ROUND.with_borrow_mut(|round| round.task = Some(cx.waker().clone()));
        let_out();
        Poll::Pending
    })
    .await
}

/// Puts a cork on a connection of this thread. Where nobody carries [`rounds`] out, nothing
/// waits.
pub fn in_rounds<T>(io: T, left: Left) -> Corked<T> {
    Corked::new(io, next(left).unwrap_or(LetsOut::Nobody))
}

/// That the next round of this thread lets out what waits, if there will be one.
pub(super) fn next(left: Left) -> Option<LetsOut> {
    let goes_on = ROUND.with_borrow(|round| round.task.is_some());
    goes_on.then_some(LetsOut::Round { told: false, left })
}

/// Something for what is about to wait.
pub(super) fn buffer() -> BytesMut {
    ROUND
        .with_borrow_mut(|round| round.spare.pop())
        .unwrap_or_default()
}

/// Something of this connection waits.
pub(super) fn wait<T: AsyncWrite + Unpin + Send + 'static>(connection: Arc<Mutex<State<T>>>) {
    let (ended, full) = ROUND.with_borrow_mut(|round| {
        round.join(connection.clone());
        (round.task.is_none(), round.waiting.len() >= MOST)
    });
    if ended {
        connection.let_out();
    }
    if full {
        let_out();
    }
}

/// Ends a round. Nothing is borrowed while connections write: they may wake whomever they like.
fn let_out() {
    let mut waiting = ROUND.with_borrow_mut(|round| std::mem::take(&mut round.waiting));
    for connection in waiting.drain(..) {
        connection.let_out();
    }
    ROUND.with_borrow_mut(|round| {
        if round.waiting.is_empty() {
            round.waiting = waiting;
        }
    });
}

/// Whoever writes after the last round lets it out alone.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        ROUND.with_borrow_mut(|round| round.task = None);
        let_out();
    }
}

#[cfg(test)]
mod tests;
