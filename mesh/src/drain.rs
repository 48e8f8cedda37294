//! Drain: how a part of the proxy is told to finish, and how long it may take. Signals form a
//! tree (process → pod → connection): what closes a node closes everything below it, and a node is
//! done when everything below it is. Knows nothing of what is being drained.
//!
//! ```text
//! open ──close()──▶ closing ──force() or the deadline of drain()──▶ forced
//! ```
//! *Closing*: take no new work, finish what runs. *Forced*: end now. A pod that leaves the mesh is
//! closed and never forced; one that was deleted is forced; a process that stops is closed, and
//! forced at its deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The side that says when to finish. Dropping it says nothing: what it watches goes on.
#[derive(Debug)]
pub struct Signal {
    closing: CancellationToken,
    forced: CancellationToken,
    below: TaskTracker,
}

/// The side that listens. Whoever does work holds one until the work is done.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Node>);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything finished by itself before the deadline.
    Gracefully,
    /// The deadline passed, and what still ran was told to end at once.
    Forced,
}

#[derive(Debug)]
struct Node {
    closing: CancellationToken,
    forced: CancellationToken,
    /// Keeps every node above from being done. Never read: its drop is the message.
    _above: Option<Watch>,
    _here: TaskTrackerToken,
}

/// The root of a tree.
#[must_use]
pub fn new() -> (Signal, Watch) {
    pair(CancellationToken::new(), CancellationToken::new(), None)
}

impl Signal {
    /// Asks everything below to take no new work and to finish what runs. No deadline.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Tells everything below to end now.
    pub fn force(&self) {
        self.closing.cancel();
        self.forced.cancel();
    }

    /// Waits until every watch below is gone. Says nothing to them.
    pub async fn done(&self) {
        self.below.close();
        self.below.wait().await;
    }

    /// Closes, waits for at most `grace`, then forces, and waits for the rest to obey.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.close();
        if tokio::time::timeout(grace, self.done()).await.is_ok() {
            return Drained::Gracefully;
        }
        self.force();
        self.done().await;
        Drained::Forced
    }
}

impl Watch {
    /// A node below this one, with a signal of its own.
    #[must_use]
    pub fn child(&self) -> (Signal, Watch) {
        let (closing, forced) = (self.0.closing.child_token(), self.0.forced.child_token());
        pair(closing, forced, Some(self.clone()))
    }

    /// Waits until this part should take no new work.
    pub async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// Waits until this part must end at once.
    pub async fn forced(&self) {
        self.0.forced.cancelled().await;
    }

    /// Whether this part should take no new work.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    /// Whether this part must end at once.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.0.forced.is_cancelled()
    }
}

fn pair(
    closing: CancellationToken,
    forced: CancellationToken,
    above: Option<Watch>,
) -> (Signal, Watch) {
    let below = TaskTracker::new();
    let node = Node {
        closing: closing.clone(),
        forced: forced.clone(),
        _above: above,
        _here: below.token(),
    };
    (
        Signal {
            closing,
            forced,
            below,
        },
        Watch(Arc::new(node)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::pending;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn finishing_in_time_is_graceful() {
        let (signal, watch) = new();
        let work = tokio::spawn(async move {
            watch.closing().await;
            watch.is_forced()
        });
        assert_eq!(signal.drain(LONG).await, Drained::Gracefully);
        assert!(!work.await.unwrap());
    }

    #[tokio::test]
    async fn the_deadline_forces() {
        let (signal, watch) = new();
        let work = tokio::spawn(async move {
            tokio::select! {
                () = watch.forced() => "forced",
                () = pending() => "finished",
            }
        });
        let start = Instant::now();
        assert_eq!(signal.drain(SHORT).await, Drained::Forced);
        assert!(start.elapsed() >= SHORT);
        assert_eq!(work.await.unwrap(), "forced");
    }

    #[tokio::test]
    async fn a_signal_reaches_what_is_below_and_nothing_else() {
        let (root, watch) = new();
        let (pod_a, in_a) = watch.child();
        let (_pod_b, in_b) = watch.child();
        let (_connection, in_connection) = in_a.child();
        pod_a.close();
        assert!(in_a.is_closing() && in_connection.is_closing());
        assert!(!in_b.is_closing() && !watch.is_closing());
        assert!(
            !in_connection.is_forced(),
            "leaving the mesh ends no connection"
        );
        root.force();
        assert!(in_b.is_forced() && in_connection.is_forced());
    }

    #[tokio::test]
    async fn a_node_is_done_only_when_everything_below_is() {
        let (root, watch) = new();
        let (pod, in_pod) = watch.child();
        drop(watch);
        let (_connection, in_connection) = in_pod.child();
        drop(in_pod);
        assert_eq!(pod.done().now_or_never(), None);
        assert_eq!(root.done().now_or_never(), None);
        drop(in_connection);
        pod.done().await;
        root.done().await;
    }

    #[tokio::test]
    async fn a_late_child_of_a_closed_node_is_closed() {
        let (signal, watch) = new();
        signal.close();
        let (_child, below) = watch.child();
        below.closing().await;
        assert!(below.is_closing());
    }
}
