//! Connections that last, over several threads: each thread has as many as the others, whichever end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::*;
use crate::http::testing;
use crate::model::listener::ChainKind;
use crate::model::snapshot::Current;
use crate::telemetry::Telemetry;

const THREADS: usize = 4;

/// A waypoint with several threads and one listener.
struct World {
    workers: Rc<Workers>,
    address: SocketAddr,
}

impl World {
    async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let (telemetry, current) = (Telemetry::default(), Current::default());
        let parts = testing::parts(&current, &telemetry, mesh::drain::new().1);
        let seats = Seats::new(NonZeroUsize::MAX, telemetry.connections());
        let threads = NonZeroUsize::new(THREADS).unwrap();
        let workers = Rc::new(Workers::start(threads, &parts, seats).unwrap());
        let (_, asked) = AskToDrain::new();
        let acceptor = Acceptor::new(current.clone(), workers.clone(), asked, Duration::ZERO);
        spawn_local(acceptor.run());
        let chain = testing::named(ChainKind::Http(Arc::new(testing::chain(Vec::new()))));
        current.publish(testing::snapshot(1, address, chain, Vec::new()));
        let world = Self { workers, address };
        // The port is open once the acceptor has followed.
        while TcpStream::connect(world.address).await.is_err() {
            yield_now().await;
        }
        world.until(0).await;
        world
    }

    async fn open(&self, count: usize) -> Vec<TcpStream> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(TcpStream::connect(self.address).await.unwrap());
        }
        all
    }

    /// Waits until so many are open.
    async fn until(&self, open: usize) {
        while self.workers.load() != open {
            yield_now().await;
        }
    }

    fn loads(&self) -> Vec<usize> {
        let workers = self.workers.workers.iter();
        workers.map(|worker| worker.load.load(Relaxed)).collect()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("the test hangs");
    });
}

#[test]
fn lasting_connections_are_spread_evenly_and_further_ones_go_where_some_have_ended() {
    run(async {
        let world = World::start().await;
        let mut all = world.open(10 * THREADS).await;
        world.until(all.len()).await;
        assert_eq!(world.loads(), [10; THREADS]);
        // Those that end are not spread evenly: most are of the threads that came first.
        let mut number = 0;
        all.retain(|_| {
            number += 1;
            number % THREADS == 0
        });
        world.until(all.len()).await;
        let uneven = world.loads();
        assert!(uneven.iter().any(|load| *load != uneven[0]), "{uneven:?}");
        let further = world.open(10 * THREADS - all.len()).await;
        world.until(10 * THREADS).await;
        assert_eq!(world.loads(), [10; THREADS]);
        drop((all, further));
        world.until(0).await;
    });
}

#[test]
fn a_stream_of_a_tunnel_weighs_as_much_as_a_connection() {
    run(async {
        let world = World::start().await;
        // As if one thread had a tunnel with nine streams.
        let (busy, workers) = (&world.workers.workers[2], &world.workers);
        let seat = workers.seats.take().unwrap();
        let tunnel = Place::new(busy.load.clone(), workers.open.token(), seat);
        let streams: Vec<_> = (0..9).map(|_| tunnel.beside()).collect();
        let further = world.open(10 * (THREADS - 1)).await;
        world.until(10 * THREADS).await;
        assert_eq!(world.loads(), [10; THREADS]);
        drop((tunnel, further, streams));
    });
}
