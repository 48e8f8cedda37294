//! Two proxies on loopback for tests of `hbone` and `copy`: a listener whose connections leave
//! through a pool, and a tunnel's end that connects to where each request says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Connection, Destination, Pool, Request, Target, accept};
use crate::certificate::{Certificate, Certificates};
use crate::copy::{Ended, Meter, bidirectional};
use crate::drain::{self, Signal, Watch};
use crate::policy::{Inbound, Permit, Policies, Source};
use crate::tls::test_authority::{TestAuthority, id};

pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";

pub(crate) struct Rig {
    pub(crate) authority: Arc<TestAuthority>,
    pub(crate) pool: Pool,
    /// The HBONE server's address.
    pub(crate) address: SocketAddr,
    /// TCP connections that the HBONE server has accepted.
    pub(crate) accepted: Arc<AtomicUsize>,
    /// Drains the HBONE server.
    pub(crate) signal: Signal,
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
    endings: mpsc::UnboundedSender<Ended>,
}

/// A permit, as the policies of a mesh without policies give it.
pub(crate) fn permit() -> Permit {
    let source = Source {
        ip: [127, 0, 0, 1].into(),
        identity: None,
    };
    let connection = Inbound {
        source,
        destination: ([127, 0, 0, 1], 80).into(),
    };
    Policies::default()
        .decide("default", &[], &connection)
        .unwrap()
}

pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Two ends of one TCP connection.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listener().await;
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

impl Rig {
    /// A rig whose HBONE server passes requests to `handle`.
    pub(crate) async fn new<F>(handle: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let authority = TestAuthority::new("mesh");
        let certificate = authority.certificate(SERVER);
        Self::with(authority, certificate, handle).await
    }

    pub(crate) async fn with<F>(
        authority: Arc<TestAuthority>,
        certificate: Arc<Certificate>,
        handle: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (listener, address) = listener().await;
        let (signal, watch) = drain::new();
        let accepted = Arc::new(AtomicUsize::new(0));
        tokio::spawn(serve(
            listener,
            certificate,
            watch,
            accepted.clone(),
            Arc::new(handle),
        ));
        let pool = Pool::new(Certificates::new(authority.clone(), Vec::new()));
        let (endings, ended) = mpsc::unbounded_channel();
        Self {
            authority,
            pool,
            address,
            accepted,
            signal,
            ended,
            endings,
        }
    }

    /// A rig whose HBONE server connects to where each request says.
    pub(crate) async fn relay() -> Self {
        Self::new(relay).await
    }

    pub(crate) fn target(&self, authority: &str) -> Target {
        Target {
            source: id(CLIENT),
            pod: "pod-1".into(),
            expect: vec![id(SERVER).into()],
            next_hop: self.address,
            authority: authority.to_owned(),
            baggage: Some("k8s.namespace.name=default".to_owned()),
            forwarded: None,
            traceparent: None,
            further: Vec::new(),
        }
    }

    pub(crate) async fn connect(
        &self,
        authority: &str,
    ) -> Result<super::Stream, super::ConnectError> {
        let address = self.address;
        let dial = async || TcpStream::connect(address).await;
        self.pool
            .connect(permit(), self.target(authority), dial)
            .await
    }

    /// A listener whose connections go through the tunnel to `destination`.
    pub(crate) async fn outbound(&self, destination: SocketAddr) -> SocketAddr {
        let (listener, address) = listener().await;
        let (pool, target) = (self.pool.clone(), self.target(&destination.to_string()));
        let endings = self.endings.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (pool, target, endings) = (pool.clone(), target.clone(), endings.clone());
                tokio::spawn(async move {
                    let next_hop = target.next_hop;
                    let dial = async || TcpStream::connect(next_hop).await;
                    let Ok(stream) = pool.connect(permit(), target, dial).await else {
                        return;
                    };
                    let meter = Meter::default();
                    let stop = std::future::pending();
                    let ended = bidirectional(permit(), tcp, stream, &meter, stop).await;
                    let _ = endings.send(ended);
                });
            }
        });
        address
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// What an inbound proxy does with a request that its policies allow.
pub(crate) async fn relay(request: Request) {
    let Destination::Address(to) = *request.destination() else {
        return request.refuse(StatusCode::BAD_REQUEST);
    };
    let Ok(tcp) = TcpStream::connect(to).await else {
        return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    let Ok(stream) = request.accept(permit()) else {
        return;
    };
    bidirectional(
        permit(),
        stream,
        tcp,
        &Meter::default(),
        std::future::pending(),
    )
    .await;
}

async fn serve<F>(
    listener: TcpListener,
    certificate: Arc<Certificate>,
    watch: Watch,
    accepted: Arc<AtomicUsize>,
    handle: Arc<impl Fn(Request) -> F + Send + Sync + 'static>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = watch.closing() => return,
        };
        accepted.fetch_add(1, Ordering::SeqCst);
        let (certificate, watch, handle) = (certificate.clone(), watch.clone(), handle.clone());
        tokio::spawn(async move {
            let Ok(connection) = accept(tcp, &certificate, watch).await else {
                return;
            };
            drive(connection, &*handle).await;
        });
    }
}

pub(crate) async fn drive<F>(mut connection: Connection, handle: impl Fn(Request) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Ok(Some(request)) = connection.next().await {
        tokio::spawn(handle(request));
    }
}
