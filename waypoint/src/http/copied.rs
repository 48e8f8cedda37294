//! A request's body on its way to a copy of the request: frames as they pass towards the upstream, in
//! a queue of bounded length. The request waits for a copy that lags behind, as in Envoy, but not for
//! ever: a copy that takes nothing for a while is given up, and the request goes on without it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Sleep, sleep};

use super::body::BodyError;

/// Bytes that wait for a copy; one frame may go beyond.
const LIMIT: usize = 128 << 10;
/// How long a request is held up by a copy that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// The side of the request, which feeds a copy.
#[derive(Debug)]
pub(super) struct Feed(Rc<RefCell<Queue>>);

/// The body of a copy.
#[derive(Debug)]
pub struct Copied(Rc<RefCell<Queue>>);

#[derive(Debug)]
struct Queue {
    frames: VecDeque<Frame<Bytes>>,
    size: usize,
    end: End,
    /// The copy's task, while there is nothing for it.
    taker: Option<Waker>,
    /// The request's task, while there is no room.
    feeder: Option<Waker>,
    /// How much longer that may last.
    patience: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// All of the body has come.
    Whole,
    /// The rest never comes.
    Broken,
    /// Nobody takes it any more.
    Left,
}

/// Both sides.
pub(super) fn copied() -> (Feed, Copied) {
    let queue = Rc::new(RefCell::new(Queue {
        frames: VecDeque::new(),
        size: 0,
        end: End::Open,
        taker: None,
        feeder: None,
        patience: None,
    }));
    (Feed(Rc::clone(&queue)), Copied(queue))
}

impl Feed {
    /// Ready when the next frame may be read: there is room, or the copy has been given up.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let queue = &mut *self.0.borrow_mut();
        if queue.end != End::Open || queue.size < LIMIT {
            queue.patience = None;
            return Poll::Ready(());
        }
        let patience = queue
            .patience
            .get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        if patience.as_mut().poll(cx).is_ready() {
            tracing::debug!("a copy of a request is given up: it takes nothing");
            queue.end(End::Broken);
            queue.frames.clear();
            return Poll::Ready(());
        }
        queue.feeder = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A frame that passes.
    pub(super) fn pass(&self, frame: &Frame<Bytes>) {
        let queue = &mut *self.0.borrow_mut();
        if queue.end != End::Open {
            return;
        }
        if let Some(data) = frame.data_ref() {
            queue.size += data.len();
            queue.frames.push_back(Frame::data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            queue.frames.push_back(Frame::trailers(trailers.clone()));
        }
        queue.taker.take().into_iter().for_each(Waker::wake);
    }

    /// Nothing more comes; `whole` where that was all.
    pub(super) fn end(&self, whole: bool) {
        let end = if whole { End::Whole } else { End::Broken };
        self.0.borrow_mut().end(end);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Queue {
    /// The first end counts.
    fn end(&mut self, end: End) {
        if self.end == End::Open {
            self.end = end;
            self.patience = None;
            let waiting = self.taker.take().into_iter().chain(self.feeder.take());
            waiting.for_each(Waker::wake);
        }
    }
}

impl Copied {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let queue = &mut *self.0.borrow_mut();
        let Some(frame) = queue.frames.pop_front() else {
            return match queue.end {
                End::Open => {
                    queue.taker = Some(cx.waker().clone());
                    Poll::Pending
                }
                End::Whole => Poll::Ready(None),
                End::Broken | End::Left => Poll::Ready(Some(Err(BodyError::Lost))),
            };
        };
        queue.size -= frame.data_ref().map_or(0, Bytes::len);
        // It moves: whoever waits begins to count anew.
        queue.patience = None;
        queue.feeder.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Some(Ok(frame)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let queue = self.0.borrow();
        queue.end == End::Whole && queue.frames.is_empty()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let queue = &mut *self.0.borrow_mut();
        queue.end(End::Left);
        queue.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn half() -> Frame<Bytes> {
        Frame::data(Bytes::from(vec![0; LIMIT / 2]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_copy_and_not_for_ever() {
        let (feed, mut copy) = copied();
        feed.pass(&half());
        assert!(feed.poll_room(&mut context()).is_ready());
        feed.pass(&half());
        assert!(feed.poll_room(&mut context()).is_pending());
        assert!(copy.poll_frame(&mut context()).is_ready());
        assert!(feed.poll_room(&mut context()).is_ready());
        // One that moves is waited for again and again.
        for _ in 0..3 {
            feed.pass(&half());
            assert!(feed.poll_room(&mut context()).is_pending());
            tokio::time::advance(PATIENCE - Duration::from_millis(10)).await;
            assert!(feed.poll_room(&mut context()).is_pending());
            assert!(copy.poll_frame(&mut context()).is_ready());
        }
        feed.pass(&half());
        std::future::poll_fn(|cx| feed.poll_room(cx)).await;
        assert_eq!(feed.0.borrow().end, End::Broken);
        assert!(matches!(
            copy.poll_frame(&mut context()),
            Poll::Ready(Some(Err(BodyError::Lost)))
        ));
    }

    #[test]
    fn a_copy_has_all_of_it_or_breaks() {
        let (feed, mut copy) = copied();
        feed.pass(&Frame::data(Bytes::from_static(b"all")));
        feed.end(true);
        drop(feed);
        assert!(!copy.is_end_stream());
        let Poll::Ready(Some(Ok(frame))) = copy.poll_frame(&mut context()) else {
            panic!("no frame");
        };
        assert_eq!(frame.into_data().unwrap(), "all");
        assert!(copy.is_end_stream());
        assert!(matches!(copy.poll_frame(&mut context()), Poll::Ready(None)));
        let (feed, mut copy) = copied();
        drop(feed);
        assert!(matches!(
            copy.poll_frame(&mut context()),
            Poll::Ready(Some(Err(BodyError::Lost)))
        ));
    }

    #[test]
    fn a_copy_that_is_gone_holds_nobody_up() {
        let (feed, copy) = copied();
        feed.pass(&half());
        feed.pass(&half());
        drop(copy);
        feed.pass(&half());
        assert!(feed.poll_room(&mut context()).is_ready());
        assert!(feed.0.borrow().frames.is_empty());
    }
}
