//! A connection's waker that can be hushed. hyper wakes whoever drives a connection when a piece of
//! an answer's body is taken. Here that is the one who takes it, and it comes back for the next piece
//! by itself: being woken for it would cost each request one more turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;

/// The waker of one connection.
#[derive(Debug)]
pub(super) struct Quiet {
    shared: Arc<Shared>,
    /// The same as what wakers are.
    waker: Waker,
}

/// Wakers are shared between threads; these are used on one only.
#[derive(Debug)]
struct Shared {
    /// Who drives the connection now.
    whom: Mutex<Waker>,
    hushed: AtomicBool,
}

impl Quiet {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared {
            whom: Mutex::new(Waker::noop().clone()),
            hushed: AtomicBool::new(false),
        });
        let waker = Waker::from(shared.clone());
        Self { shared, waker }
    }

    /// What the connection is polled with by somebody who is polled with `cx`.
    pub(super) fn context(&self, cx: &Context<'_>) -> Context<'_> {
        let mut whom = self.shared.whom.lock();
        if !whom.will_wake(cx.waker()) {
            *whom = cx.waker().clone();
        }
        drop(whom);
        Context::from_waker(&self.waker)
    }

    /// Whether it keeps quiet.
    pub(super) fn hush(&self, hushed: bool) {
        self.shared.hushed.store(hushed, Relaxed);
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.hushed.load(Relaxed) {
            return;
        }
        // Woken outside of the lock, whatever that sets off.
        let whom = self.whom.lock().clone();
        whom.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn it_wakes_whoever_drives_last_unless_it_is_hushed() {
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let quiet = Quiet::new();
        let of = |count: &Arc<Count>| Waker::from(count.clone());
        let kept = quiet
            .context(&Context::from_waker(&of(&first)))
            .waker()
            .clone();
        kept.wake_by_ref();
        quiet.context(&Context::from_waker(&of(&second)));
        quiet.hush(true);
        kept.wake_by_ref();
        quiet.hush(false);
        kept.wake();
        assert_eq!((first.0.load(Relaxed), second.0.load(Relaxed)), (1, 1));
    }
}
