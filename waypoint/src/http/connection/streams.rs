//! The streams of an HTTP/2 connection, which are tasks of their own: one whose client doesn't take its
//! answer in time is reset. hyper asks for no more of the answer meanwhile, so that nobody would see
//! that its time is over.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::rt::Executor;
use tokio::task::spawn_local;

use super::Http;

/// Runs a connection's streams on this worker.
#[derive(Debug, Clone)]
pub(super) struct Streams(pub(super) Rc<Http>);

impl<F> Executor<F> for Streams
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, stream: F) {
        let http = self.0.clone();
        spawn_local(async move {
            let mut stream = pin!(stream);
            let mut flight = None;
            poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                // The request that came last came by this stream, just now.
                let flight = flight.get_or_insert_with(|| http.last.take());
                match flight.upgrade() {
                    Some(flight) => flight.poll_stalled(cx),
                    None => Poll::Pending,
                }
            })
            .await;
        });
    }
}
