//! The small world of these tests: a waypoint with one worker, its configuration, and backends that
//! say what they were asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh::drain;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::testing::{self, LocalTasks};
use crate::model::cluster::UpstreamProtocol;
use crate::model::http::HttpChain;
use crate::model::listener::ChainKind;
use crate::model::snapshot::{ClusterEntry, Current};
use crate::telemetry::Telemetry;
use crate::worker::seats::Seats;
use crate::worker::{Acceptor, AskToDrain, Workers};

/// How long a drain of listeners takes.
const DRAIN: Duration = Duration::from_secs(3);
/// The longest a test waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A running waypoint.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) current: Current,
    pub(super) workers: Rc<Workers>,
    pub(super) listeners: AskToDrain,
    telemetry: Telemetry,
    /// Dropping it says nothing: tunnels go on.
    _signal: drain::Signal,
    clusters: Box<dyn Fn() -> Vec<ClusterEntry>>,
    version: std::cell::Cell<u64>,
}

/// Runs a test that needs `spawn_local`.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the test hangs");
    });
}

impl World {
    /// A waypoint in front of one backend.
    pub(super) async fn new(chain: HttpChain, backend: SocketAddr) -> Self {
        let cluster = move || {
            vec![testing::cluster(
                "backend",
                UpstreamProtocol::Http1,
                &[backend],
            )]
        };
        Self::with(chain, cluster).await
    }

    /// A waypoint with these clusters.
    pub(super) async fn with(
        chain: HttpChain,
        clusters: impl Fn() -> Vec<ClusterEntry> + 'static,
    ) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let current = Current::default();
        let (signal, watch) = drain::new();
        let telemetry = Telemetry::default();
        let parts = testing::parts(&current, &telemetry, watch);
        let seats = Seats::new(NonZeroUsize::MAX, Telemetry::default().connections());
        let workers = Rc::new(Workers::start(NonZeroUsize::MIN, &parts, seats).unwrap());
        let (listeners, asked) = AskToDrain::new();
        let acceptor = Acceptor::new(current.clone(), workers.clone(), asked, DRAIN);
        tokio::task::spawn_local(acceptor.run());
        let world = Self {
            address,
            current,
            workers,
            listeners,
            telemetry,
            _signal: signal,
            clusters: Box::new(clusters),
            version: std::cell::Cell::new(0),
        };
        world.push(chain);
        // The port is open once the acceptor has followed.
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        world
    }

    /// Another configuration.
    pub(super) fn push(&self, chain: HttpChain) {
        self.version.set(self.version.get() + 1);
        let chain = testing::named(ChainKind::Http(Arc::new(chain)));
        let snapshot =
            testing::snapshot(self.version.get(), self.address, chain, (self.clusters)());
        self.current.publish(snapshot);
    }

    /// Waits until nobody listens any more.
    pub(super) async fn closed(&self) {
        let closed = async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.unwrap();
    }

    /// All metrics.
    pub(super) fn metrics(&self) -> String {
        let mut metrics = String::new();
        self.telemetry.encode(&mut metrics);
        metrics
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own and returns all that comes until it is closed.
    pub(super) async fn raw(&self, bytes: &str) -> String {
        let mut tcp = self.connect().await;
        tcp.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// An HTTP/1 client on a connection of its own.
    pub(super) async fn client<B>(&self) -> hyper::client::conn::http1::SendRequest<B>
    where
        B: http_body::Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = TokioIo::new(self.connect().await);
        let made = hyper::client::conn::http1::handshake(io).await;
        let (client, connection) = made.unwrap();
        tokio::task::spawn_local(connection.with_upgrades());
        client
    }

    /// An HTTP/2 client on a connection of its own.
    pub(super) async fn client2<B>(&self) -> hyper::client::conn::http2::SendRequest<B>
    where
        B: http_body::Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = TokioIo::new(self.connect().await);
        let made = hyper::client::conn::http2::handshake(LocalTasks, io).await;
        let (client, connection) = made.unwrap();
        tokio::task::spawn_local(connection);
        client
    }
}

/// A backend whose requests are answered by `answer`.
pub(super) async fn backend<F>(answer: impl Fn(Request<Incoming>) -> F + 'static) -> SocketAddr
where
    F: Future<Output = Answer> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Rc::new(answer);
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .with_upgrades();
            tokio::task::spawn_local(served);
        }
    });
    address
}

/// The same in HTTP/2 with prior knowledge.
pub(super) async fn backend2<F>(answer: impl Fn(Request<Incoming>) -> F + 'static) -> SocketAddr
where
    F: Future<Output = Answer> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Rc::new(answer);
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let served = hyper::server::conn::http2::Builder::new(LocalTasks)
                .serve_connection(TokioIo::new(tcp), service);
            tokio::task::spawn_local(served);
        }
    });
    address
}

/// A backend of either version, as its client begins, that answers with the version.
pub(super) async fn either() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut first = [0];
                tcp.peek(&mut first).await.unwrap();
                let service = service_fn(|request: Request<Incoming>| async move {
                    Ok::<_, Infallible>(answer(&format!("{:?}", request.version())))
                });
                let io = TokioIo::new(tcp);
                // A client that goes away is no failure of the backend.
                let _ = match first {
                    // HTTP/2 begins with PRI.
                    [b'P'] => {
                        let builder = hyper::server::conn::http2::Builder::new(LocalTasks);
                        builder.serve_connection(io, service).await
                    }
                    _ => {
                        let builder = hyper::server::conn::http1::Builder::new();
                        builder.serve_connection(io, service).await
                    }
                };
            });
        }
    });
    address
}

/// A backend that answers with what it was asked: the request line, headers in order of their
/// names, and the body.
pub(super) async fn echo() -> SocketAddr {
    backend(|request| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut text = format!("{} {}\n", parts.method, parts.uri);
        text.push_str(&lines(&parts.headers));
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&body));
        answer(&text)
    })
    .await
}

/// Headers a line each, in order of their names.
pub(super) fn lines(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.concat()
}

/// An answer with a body.
pub(super) fn answer(text: &str) -> Answer {
    Response::new(full(text))
}

/// A whole body.
pub(super) fn full(text: &str) -> BoxBody<Bytes, hyper::Error> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// The body of an answer as text.
pub(super) async fn text(answer: Response<Incoming>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
