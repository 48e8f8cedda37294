//! Connections on their way out: resting ones that were let go are closed in an orderly way by one
//! task for the worker, however the letting go came about.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How long closing may take: a peer that doesn't read any more holds nothing up.
const LIMIT: Duration = Duration::from_secs(2);

/// What closes a connection, once nobody sends by it.
pub(super) type Ending = Pin<Box<dyn Future<Output = ()>>>;

/// Connections on their way out.
#[derive(Default)]
pub(in crate::upstream) struct Closing {
    endings: RefCell<Vec<Ending>>,
    more: Rc<Notify>,
}

impl Closing {
    /// Where connections are let go, with the task that closes them. Called within the worker's
    /// `LocalSet`.
    pub(in crate::upstream) fn start() -> Rc<Self> {
        let closing = Rc::new(Self::default());
        spawn_local(close(Rc::downgrade(&closing), closing.more.clone()));
        closing
    }

    /// Closes a connection whose sender is gone.
    pub(super) fn put(&self, ending: Ending) {
        self.endings.borrow_mut().push(ending);
        self.more.notify_one();
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.more.notify_one();
    }
}

async fn close(closing: Weak<Closing>, more: Rc<Notify>) {
    loop {
        more.notified().await;
        let Some(closing) = closing.upgrade() else {
            return;
        };
        for ending in closing.endings.take() {
            spawn_local(timeout(LIMIT, ending));
        }
    }
}
