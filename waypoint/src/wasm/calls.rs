//! What a plugin asks clusters for, and what it hears of it: a request of HTTP with its answer, and calls
//! and streams of gRPC. How they are made is somebody else's business ([`Calls`]); which of them are
//! open, and to whose context they belong, is known here.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::AbortHandle;

use super::MOST_HELD;
use super::map::Map;

/// How clusters are asked.
pub trait Calls {
    /// Whether there is such a cluster.
    fn has(&self, cluster: &str) -> bool;
    /// Asks it. What comes of it is empty where there is no answer in time.
    fn ask(&self, ask: Ask) -> Pin<Box<dyn Future<Output = Called>>>;
    /// Asks it by gRPC, and tells what is heard of that, a [`Heard::Closed`] last, for as long as it is
    /// listened to. Dropping it gives it up.
    fn grpc(&self, ask: AskGrpc, heard: Listener) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// Takes what is heard; false where nobody listens any more.
pub type Listener = Box<dyn Fn(Heard) -> bool>;

/// A request to a cluster.
#[derive(Debug)]
pub struct Ask {
    /// Under which number the plugin hears of it again.
    pub token: u32,
    /// The cluster.
    pub cluster: String,
    /// The request's head.
    pub headers: Map,
    /// Its body.
    pub body: Bytes,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a cluster answered a plugin.
#[derive(Debug, Default)]
pub struct Called {
    /// Its head; none where there was no answer.
    pub headers: Option<Map>,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<Map>,
}

/// A call or stream of gRPC to a cluster.
#[derive(Debug)]
pub struct AskGrpc {
    /// Under which number the plugin hears of it again.
    pub token: u32,
    /// The cluster.
    pub cluster: String,
    /// Its host; none: the cluster's name.
    pub authority: Option<String>,
    /// Service and method.
    pub path: String,
    /// What goes before the messages.
    pub metadata: HeaderMap,
    /// How long all of it may take, if limited.
    pub timeout: Option<Duration>,
    /// The messages.
    pub messages: Outgoing,
}

/// What is heard of a call or stream of gRPC.
#[derive(Debug)]
pub enum Heard {
    /// What came before the messages.
    Head(HeaderMap),
    /// A message.
    Message(Bytes),
    /// What came after them.
    Trailers(HeaderMap),
    /// It is over, with this status and what is said of it.
    Closed(u32, String),
}

/// Messages on their way from a plugin to a cluster, which takes them as fast as it can; those that
/// wait are bounded.
#[derive(Debug, Clone, Default)]
pub struct Outgoing(Rc<RefCell<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
    waker: Option<Waker>,
}

impl Outgoing {
    /// Puts a message behind the others; false where too much waits, or no more may come.
    pub fn push(&self, message: Bytes) -> bool {
        let queue = &mut *self.0.borrow_mut();
        if queue.closed || queue.bytes + message.len() > MOST_HELD {
            return false;
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        queue.waker.take().into_iter().for_each(Waker::wake);
        true
    }

    /// No more messages come.
    pub fn close(&self) {
        let queue = &mut *self.0.borrow_mut();
        queue.closed = true;
        queue.waker.take().into_iter().for_each(Waker::wake);
    }

    /// The next message; none after the last.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let queue = &mut *self.0.borrow_mut();
        if let Some(message) = queue.messages.pop_front() {
            queue.bytes -= message.len();
            return Poll::Ready(Some(message));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the last message has gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let queue = self.0.borrow();
        queue.closed && queue.messages.is_empty()
    }
}

/// The calls of one running plugin that are open.
#[derive(Default)]
pub(super) struct Open {
    last: u32,
    /// Those of HTTP, and the context that made them.
    pub(super) http: HashMap<u32, u32>,
    pub(super) grpc: HashMap<u32, Line>,
}

/// A call or stream of gRPC.
pub(super) struct Line {
    /// The context that made it.
    pub(super) context: u32,
    pub(super) messages: Outgoing,
    pub(super) kind: Kind,
    pub(super) running: Option<AbortHandle>,
}

/// What a line is for.
#[derive(Debug)]
pub(super) enum Kind {
    /// One message there, and one back, which is told once the call has ended well.
    Call(Option<Bytes>),
    /// Messages both ways.
    Stream {
        /// The plugin sends no more.
        sent_all: bool,
        /// The other side has ended it.
        ended: bool,
    },
}

impl Open {
    /// A number for the next; none while too many are open.
    pub(super) fn number(&mut self, most: usize) -> Option<u32> {
        if self.http.len() + self.grpc.len() >= most {
            return None;
        }
        self.last = self.last.wrapping_add(1).max(1);
        Some(self.last)
    }

    /// Gives up what a context has asked for.
    pub(super) fn end(&mut self, context: u32) {
        self.http.retain(|_, of| *of != context);
        self.grpc.retain(|_, line| line.context != context);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_wait_are_bounded_and_end() {
        let outgoing = Outgoing::default();
        assert!(outgoing.push(vec![1; MOST_HELD].into()));
        assert!(!outgoing.push(Bytes::from_static(b"more")));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(matches!(outgoing.poll_next(cx), Poll::Ready(Some(_))));
        assert!(outgoing.poll_next(cx).is_pending());
        assert!(outgoing.push(Bytes::from_static(b"last")));
        outgoing.close();
        assert!(!outgoing.push(Bytes::from_static(b"late")) && !outgoing.is_over());
        let last = Poll::Ready(Some(Bytes::from_static(b"last")));
        assert_eq!(outgoing.poll_next(cx), last);
        assert!(outgoing.is_over());
        assert_eq!(outgoing.poll_next(cx), Poll::Ready(None));
    }

    #[test]
    fn what_a_context_asked_for_goes_with_it() {
        let mut open = Open::default();
        for context in [1, 2] {
            let token = open.number(4).unwrap();
            open.http.insert(token, context);
            let token = open.number(4).unwrap();
            let line = Line {
                context,
                messages: Outgoing::default(),
                kind: Kind::Call(None),
                running: None,
            };
            open.grpc.insert(token, line);
        }
        assert_eq!(open.number(4), None);
        open.end(1);
        assert_eq!((open.http.len(), open.grpc.len()), (1, 1));
        assert_eq!(open.number(4), Some(5));
    }
}
