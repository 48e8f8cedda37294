//! Accepting on one of a pod's listeners: holds until the first workloads and policies have come,
//! bounds the connections, and stops when the pod is let go.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mesh::drain::Watch;
use mesh::world::SharedWorld;
use tokio::sync::Semaphore;

use crate::capture::{Captured, Listener};

/// Connections that one listener of a pod has open at once. Further ones wait in the kernel's
/// queue, and are refused by the kernel when that is full.
const CONNECTIONS: usize = 16_384;
/// The pause after accepting failed, which it does when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener and what stops it.
pub(super) struct Accept {
    listener: Listener,
    drain: Watch,
    world: SharedWorld,
    free: Arc<Semaphore>,
}

impl Accept {
    pub(super) fn new(listener: Listener, drain: Watch, world: SharedWorld) -> Self {
        Self {
            listener,
            drain,
            world,
            free: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Gives each connection to `carry`, on a task of its own.
    pub(super) async fn run<F>(self, carry: impl Fn(Captured, Watch) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::select! {
            // Until then connections wait in the kernel's queue: held, and bounded by it.
            () = self.world.synced() => {}
            () = self.drain.closing() => return,
        }
        while let Some(captured) = self.next().await {
            self.spawn(captured, &carry).await;
        }
        // The kernel completed these before the pod was let go; nobody else will take them.
        while let Some(Ok(captured)) = self.listener.accept().now_or_never() {
            self.spawn(captured, &carry).await;
        }
    }

    /// The next connection; none when this listener is to close.
    async fn next(&self) -> Option<Captured> {
        loop {
            tokio::select! {
                biased;
                () = self.drain.closing() => return None,
                accepted = self.listener.accept() => match accepted {
                    Ok(captured) => return Some(captured),
                    Err(error) => tracing::warn!(%error, "cannot accept a connection (out of file descriptors?)"),
                },
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn spawn<F>(&self, captured: Captured, carry: &impl Fn(Captured, Watch) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let free = Arc::clone(&self.free);
        let Ok(place) = free.acquire_owned().await else {
            return;
        };
        let carried = carry(captured, self.drain.clone());
        tokio::spawn(async move {
            carried.await;
            drop(place);
        });
    }
}
