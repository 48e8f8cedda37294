//! The threads that carry traffic. Each has a runtime of its own and shares nothing mutable with
//! the others, so that a request takes no lock; a connection stays on the thread that got it. Who
//! accepts (`acceptor`) gives each new connection to the thread that has the least to do.

mod acceptor;
mod handle;
mod local;
pub mod seats;

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use mesh::{cork, memory};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

pub use acceptor::{Acceptor, AskToDrain, Drain};
pub use handle::{Accepted, Place};
pub use local::{Connection, Entry, LINGER, Local, Parts, next_id};

use crate::http::collector::Collector;
use crate::listen;
use handle::Order;
use seats::Seats;

/// Connections that may wait for one thread to take them. The acceptor waits when it is full, and
/// further connections wait in the kernel's queue.
const QUEUE: usize = 1024;
/// Future size, in bytes, of a connection's first task: what every connection costs at rest.
const MOST_PER_CONNECTION: usize = 8 << 10;

/// All threads.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    /// Counts open connections.
    open: TaskTracker,
    seats: Seats,
}

/// One thread, as others see it.
#[derive(Debug)]
struct Worker {
    orders: mpsc::Sender<Order>,
    load: Arc<AtomicUsize>,
    /// Dropped to end it at once.
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts so many threads, which have so many connections between them.
    ///
    /// # Errors
    /// The system has no thread, or no file descriptor, left.
    pub fn start(count: NonZeroUsize, parts: &Parts, seats: Seats) -> std::io::Result<Self> {
        let open = TaskTracker::new();
        let workers = (0..count.get())
            .map(|number| Worker::start(number, parts.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            workers,
            open,
            seats,
        })
    }

    /// Gives a connection to the thread that has the least to do; whether there was a seat for it.
    pub(crate) async fn give(&self, mut accepted: Accepted) -> bool {
        let Some(seat) = self.seats.take() else {
            return false;
        };
        let load = |worker: &&Worker| worker.load.load(std::sync::atomic::Ordering::Relaxed);
        let Some(worker) = self.workers.iter().min_by_key(load) else {
            return false;
        };
        accepted.place = Place::new(worker.load.clone(), self.open.token(), seat);
        // It fails only when the thread has ended, and then everything ends.
        let _ = worker.orders.send(Order::Serve(accepted)).await;
        true
    }

    /// How many connections there may be.
    pub(crate) fn most(&self) -> usize {
        self.seats.most()
    }

    /// Has the connections of a listener end in their own time.
    pub(crate) async fn retire(&self, listener: &Arc<str>) {
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Retire(listener.clone())).await;
        }
    }

    /// Has all connections end in their own time, those to come too.
    pub async fn drain(&self) {
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Drain).await;
        }
    }

    /// Waits until no connection is open.
    pub async fn idle(&self) {
        self.open.close();
        self.open.wait().await;
        self.open.reopen();
    }

    /// How many connections and streams of tunnels are open.
    #[must_use]
    pub fn load(&self) -> usize {
        let load = |worker: &Worker| worker.load.load(std::sync::atomic::Ordering::Relaxed);
        self.workers.iter().map(load).sum()
    }

    /// Ends all threads, and every connection that is still open with them.
    pub fn end(self) {
        for Worker { end, thread, .. } in self.workers {
            drop(end);
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Worker {
    fn start(number: usize, parts: Parts) -> std::io::Result<Self> {
        let (orders, incoming) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        // A runtime of this kind is made on its own thread: its tasks never leave it, and waking one
        // takes no detour through a set of tasks beside the runtime's.
        let (tell, made) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                let (runtime, made) = match runtime {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _ = tell.send(made);
                let Some(runtime) = runtime else {
                    return;
                };
                runtime.spawn_local(memory::tend());
                runtime.spawn_local(cork::rounds());
                // One thread is enough for what all of them tell.
                runtime.spawn_local(obey(parts, incoming, number == 0));
                // Either word is the same: the other side is gone.
                let _ = runtime.block_on(ended);
            })?;
        let gone = || std::io::Error::other("a worker's thread ended as it began");
        made.recv().map_err(|_| gone())??;
        Ok(Self {
            orders,
            load: Arc::default(),
            end,
            thread,
        })
    }
}

/// What a thread does: it serves what it is given.
async fn obey(parts: Parts, mut orders: mpsc::Receiver<Order>, carries_spans: bool) {
    let local = Local::new(parts);
    if carries_spans {
        let collector = Collector(Rc::clone(&local));
        let local = Rc::clone(&local);
        tokio::task::spawn_local(async move { local.telemetry.export(collector).await });
    }
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve(accepted) => {
                let serving = listen::serve(Rc::clone(&local), accepted);
                debug_assert!(
                    size_of_val(&serving) <= MOST_PER_CONNECTION,
                    "a connection costs {} bytes at rest",
                    size_of_val(&serving)
                );
                tokio::task::spawn_local(serving);
            }
            Order::Retire(listener) => local.open.retire(&listener),
            Order::Drain => local.open.drain(),
        }
    }
}

#[cfg(test)]
mod tests;
