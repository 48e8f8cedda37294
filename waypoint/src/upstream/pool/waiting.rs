//! Who waits for an HTTP/1 connection, in their order. Knows no connection: whoever waits is handed
//! one, or told to look again. That word is never lost on somebody who has given up meanwhile.

use std::cell::RefCell;
use std::collections::VecDeque;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{Receiver, Sender, channel};

/// Those who wait.
#[derive(Debug)]
pub(super) struct Waiting<T>(RefCell<VecDeque<Sender<T>>>);

/// One who waits. Who gives up when its turn has come leaves it to the next.
struct Turn<'w, T> {
    waiting: &'w Waiting<T>,
    told: Receiver<T>,
    over: bool,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Waiting<T> {
    /// Waits to be handed something; nothing where there is reason to look again.
    pub(super) async fn wait(&self) -> Option<T> {
        let (sender, told) = channel();
        self.push(sender);
        let mut turn = Turn {
            waiting: self,
            told,
            over: false,
        };
        let handed = (&mut turn.told).await;
        turn.over = true;
        handed.ok()
    }

    /// Hands something to the first who still waits, or back where nobody does.
    pub(super) fn hand(&self, mut it: T) -> Option<T> {
        loop {
            let Some(next) = self.pop() else {
                return Some(it);
            };
            match next.send(it) {
                Ok(()) => return None,
                Err(back) => it = back,
            }
        }
    }

    /// Has the first who still waits look again.
    pub(super) fn wake_one(&self) {
        while let Some(next) = self.pop() {
            if !next.is_closed() {
                return;
            }
        }
    }

    /// Has all look again.
    pub(super) fn wake_all(&self) {
        self.0.take();
    }

    fn pop(&self) -> Option<Sender<T>> {
        self.0.borrow_mut().pop_front()
    }

    /// Those who gave up are let go before more room is made: clients that come and go while nothing
    /// is free must not add up.
    fn push(&self, sender: Sender<T>) {
        let mut waiting = self.0.borrow_mut();
        if waiting.len() == waiting.capacity() {
            waiting.retain(|one| !one.is_closed());
            let live = waiting.len();
            waiting.reserve(live.max(1));
        }
        waiting.push_back(sender);
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        match self.told.try_recv() {
            // What ends with this wakes the next itself, as everything that is handed over here.
            Ok(handed) => drop(handed),
            Err(TryRecvError::Closed) => self.waiting.wake_one(),
            Err(TryRecvError::Empty) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_first_who_still_waits_is_handed_it() {
        let waiting = Waiting::default();
        let mut second = pin!(waiting.wait());
        {
            let mut first = pin!(waiting.wait());
            assert!(poll(first.as_mut()).is_pending());
            assert!(poll(second.as_mut()).is_pending());
        }
        assert_eq!(waiting.hand(1), None);
        assert_eq!(poll(second.as_mut()), Poll::Ready(Some(1)));
        assert_eq!(waiting.hand(2), Some(2));
    }

    #[test]
    fn a_turn_is_not_lost_on_who_has_given_up() {
        let waiting = Waiting::<u8>::default();
        let mut third = pin!(waiting.wait());
        {
            let (mut first, mut second) = (Box::pin(waiting.wait()), pin!(waiting.wait()));
            assert!(poll(first.as_mut()).is_pending());
            assert!(poll(second.as_mut()).is_pending());
            assert!(poll(third.as_mut()).is_pending());
            drop(first);
            // It is the second one's turn, which doesn't live to hear of it.
            waiting.wake_one();
            assert!(poll(third.as_mut()).is_pending());
        }
        assert_eq!(poll(third.as_mut()), Poll::Ready(None));
    }

    #[test]
    fn who_gave_up_takes_no_room() {
        let waiting = Waiting::<u8>::default();
        let mut lasting = pin!(waiting.wait());
        assert!(poll(lasting.as_mut()).is_pending());
        for _ in 0..10_000 {
            assert!(poll(pin!(waiting.wait())).is_pending());
        }
        assert!(waiting.0.borrow().capacity() < 16);
        waiting.wake_all();
        assert_eq!(poll(lasting.as_mut()), Poll::Ready(None));
    }
}
