//! Accepting on one of a pod's listeners: holds until the first workloads and policies have come,
//! bounds the connections, and stops a little after the pod is let go.

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
/// How long a pod that is let go is still listened for. A handshake that had begun before ends at our
/// listener, after a round trip and perhaps after the kernel's first repetition (1 s); without the
/// listener its client would be reset. Peers that have not heard yet that the pod has left call here too.
const HANDSHAKES: Duration = Duration::from_millis(1500);

/// A listener and what stops it.
pub(super) struct Accept {
    listener: Listener,
    drain: Watch,
    /// That of the process.
    process: Watch,
    world: SharedWorld,
    free: Arc<Semaphore>,
}

impl Accept {
    pub(super) fn new(
        listener: Listener,
        drain: Watch,
        process: Watch,
        world: SharedWorld,
    ) -> Self {
        Self {
            listener,
            drain,
            process,
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
        let handshakes = tokio::time::sleep(HANDSHAKES);
        tokio::pin!(handshakes);
        loop {
            tokio::select! {
                () = &mut handshakes => break,
                // Another process has these listeners, or none: nobody waits for this one to end.
                () = self.process.closing() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(captured) => self.spawn(captured, &carry).await,
                    Err(_) => break,
                },
            }
        }
        // The kernel completed these; nobody else will take them.
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
