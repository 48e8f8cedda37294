//! A cluster with real sockets on loopback behind it, and a downstream that asks: what the tests of
//! this room tell their stories with.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh::policy::Permit;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

use super::{Choice, Refused, Sent, Shared, TlsConfigs, Upstreams};
use crate::connection::Downstream;
use crate::http::testing::LocalTasks;
use crate::model::cluster::*;
use crate::model::endpoint::*;
use crate::model::snapshot::{ClusterEntry, Current, Snapshot};
use crate::model::testing;
pub(super) use crate::model::testing::endpoints;
use crate::model::tls::ClientTls;

pub(super) type Body = Full<Bytes>;

/// No TLS is configured in these tests.
pub(super) struct NoTls;

impl TlsConfigs for NoTls {
    fn client_config(&self, _: &Arc<ClientTls>) -> Result<Arc<ClientConfig>, String> {
        Err("no secrets here".to_owned())
    }
}

/// Runs a story on one worker.
pub(super) fn story(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limited = async {
        tokio::task::spawn_local(mesh::cork::rounds());
        tokio::time::timeout(Duration::from_secs(20), story).await
    };
    LocalSet::new()
        .block_on(&runtime, limited)
        .expect("the story ends in time");
}

pub(super) fn cluster() -> Cluster {
    let mut cluster = testing::cluster("shop");
    cluster.discovery = Discovery::Subscribed("shop".into());
    cluster.breakers.retries = 3;
    cluster
}

pub(super) fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(testing::endpoint(address))
}

/// A cluster as a snapshot has it.
pub(super) fn entry(cluster: Cluster, addresses: &[SocketAddr]) -> Arc<ClusterEntry> {
    let set = endpoints(addresses.iter().copied().map(endpoint).collect());
    Arc::new(ClusterEntry {
        cluster: Arc::new(cluster),
        endpoints: Arc::new(ArcSwap::from_pointee(set)),
        id: 7,
    })
}

/// A configuration that has this cluster. A worker soon forgets one that is in none, and whatever it
/// kept of it: its connections, and whose turn it is.
pub(super) fn publish(current: &Current, cluster: &Arc<ClusterEntry>) {
    current.publish(Snapshot {
        version: 1,
        clusters: [(cluster.cluster.name.clone(), cluster.clone())].into(),
        ..Snapshot::default()
    });
}

/// A worker's upstream side where this cluster is in force.
pub(super) fn in_force(cluster: &Arc<ClusterEntry>) -> Upstreams<Body> {
    let current = Current::default();
    publish(&current, cluster);
    Upstreams::new(Shared::default(), current, None, Arc::new(NoTls))
}

/// A worker's upstream side, and a cluster that is in force there.
pub(super) fn reaching(
    cluster: Cluster,
    addresses: &[SocketAddr],
) -> (Upstreams<Body>, Arc<ClusterEntry>) {
    let cluster = entry(cluster, addresses);
    (in_force(&cluster), cluster)
}

pub(super) fn down() -> Downstream {
    let (remote, local) = ("192.0.2.1:5000", "192.0.2.2:80");
    Downstream {
        id: 1,
        ..Downstream::between(remote.parse().unwrap(), local.parse().unwrap())
    }
}

pub(super) fn get(path: &str) -> Request<Body> {
    let request = Request::builder().uri(path).header("host", "shop.example");
    request.body(Body::default()).unwrap()
}

/// Sends a GET with nothing special about it.
pub(super) async fn ask(
    upstreams: &Upstreams<Body>,
    cluster: &Arc<ClusterEntry>,
) -> Result<Sent, Refused<Body>> {
    let down = down();
    let choice = Choice::new(&down);
    upstreams
        .send(cluster, &choice, Permit::by_waypoint(), get("/"))
        .await
}

/// The whole body of an answer, as text.
pub(super) async fn text(sent: Sent) -> String {
    let body = sent.response.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// A server whose answers name it.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// How many connections it has accepted, and requests it has answered.
    pub(super) seen: Rc<RefCell<Seen>>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) requests: Vec<(Version, String, String)>,
}

/// Starts a server that answers what `answer` makes of a request.
pub(super) async fn server<F, A>(protocol: Version, answer: F) -> Server
where
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let book = seen.clone();
    spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            book.borrow_mut().connections += 1;
            spawn_local(serve(tcp, protocol, answer.clone(), book.clone()));
        }
    });
    Server { address, seen }
}

/// Answers every request on a connection with this text.
pub(super) async fn answer_on<S>(io: S, protocol: Version, text: &'static str)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answer = move |_| async move { Response::new(Full::from(text)) };
    serve(io, protocol, answer, Rc::default()).await;
}

async fn serve<S, F, A>(io: S, protocol: Version, answer: F, book: Rc<RefCell<Seen>>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let host = request
            .headers()
            .get("host")
            .map(|host| host.to_str().unwrap().to_owned());
        let host = host.or(request.uri().authority().map(ToString::to_string));
        let line = (
            request.version(),
            request.uri().to_string(),
            host.unwrap_or_default(),
        );
        book.borrow_mut().requests.push(line);
        let answer = answer(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    // A client that goes away is no failure of the server.
    let _ = match protocol {
        Version::HTTP_2 => {
            let builder = hyper::server::conn::http2::Builder::new(LocalTasks);
            builder.serve_connection(TokioIo::new(io), service).await
        }
        _ => {
            let builder = hyper::server::conn::http1::Builder::new();
            builder.serve_connection(TokioIo::new(io), service).await
        }
    };
}

/// Starts a server that answers every request with its name.
pub(super) async fn named(name: &'static str) -> Server {
    server(Version::HTTP_11, move |_| async move {
        Response::new(Full::from(name))
    })
    .await
}
