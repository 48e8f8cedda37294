//! Two tunnels, one in the other, over a gateway that passes bytes on: who is asked for what, who must
//! prove to be whom, what is shared, and that nothing is lost at the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::copy::{Meter, bidirectional};
use crate::hbone::test_rig::{CLIENT, Rig, SERVER, permit};
use crate::hbone::{ConnectError, Request, Stream, Target};
use crate::identity::Identity;
use crate::tls::TlsRefusal;
use crate::tls::test_authority::id;

const GATEWAY: &str = "spiffe://cluster.local/ns/istio-system/sa/east-west";
const SERVICE: &str = "reviews.shop.svc.cluster.local:80";
const LIMIT: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it hangs")
}

/// What a tunnel's end was asked.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    peer: Identity,
    authority: String,
    network: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        Self {
            peer: request.peer().identity.clone(),
            authority: request.authority().to_owned(),
            network: request.header("x-forwarded-network").map(str::to_owned),
        }
    }
}

/// Two networks: a destination, and the gateway before it, which knows no other.
struct Networks {
    gateway: Rig,
    destination: Rig,
    asked_of_gateway: mpsc::UnboundedReceiver<Asked>,
    asked_of_destination: mpsc::UnboundedReceiver<Asked>,
}

impl Networks {
    async fn new<F>(serve: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, asked_of_destination) = mpsc::unbounded_channel();
        let destination = Rig::new(move |request| {
            tell.send(Asked::of(&request)).unwrap();
            serve(request)
        })
        .await;
        let (tell, asked_of_gateway) = mpsc::unbounded_channel();
        let behind = destination.address;
        let authority = Arc::clone(&destination.authority);
        let certificate = authority.certificate(GATEWAY);
        let gateway = Rig::with(authority, certificate, move |request| {
            tell.send(Asked::of(&request)).unwrap();
            pass_on(request, behind)
        })
        .await;
        Self {
            gateway,
            destination,
            asked_of_gateway,
            asked_of_destination,
        }
    }

    fn outer(&self) -> Target {
        let mut target = self.gateway.target(SERVICE);
        target.expect = vec![id(GATEWAY).into()];
        target
    }

    fn inner(&self) -> Target {
        let mut target = self.gateway.target(SERVICE);
        target.further = vec![("x-forwarded-network", "west".to_owned())];
        target
    }

    async fn connect(&self, outer: Target, inner: Target) -> Result<Stream, ConnectError> {
        let address = self.gateway.address;
        let dial = async || TcpStream::connect(address).await;
        let connecting = self
            .gateway
            .pool
            .connect_beyond(permit(), outer, inner, dial);
        soon(connecting).await
    }
}

/// What a gateway does: bytes both ways, whatever they are.
async fn pass_on(request: Request, to: SocketAddr) {
    let tcp = TcpStream::connect(to).await.unwrap();
    let Ok(stream) = request.accept(permit()) else {
        return;
    };
    let never = std::future::pending();
    bidirectional(permit(), stream, tcp, &Meter::default(), never).await;
}

async fn echo(request: Request) {
    let mut stream = request.accept(permit()).unwrap();
    while let Ok(Some(bytes)) = stream.read().await {
        if stream.write(bytes).await.is_err() {
            return;
        }
    }
    let _ = stream.finish();
}

#[tokio::test]
async fn both_ends_are_asked_for_the_service_and_see_who_asks() {
    let mut networks = Networks::new(echo).await;
    let connected = networks.connect(networks.outer(), networks.inner()).await;
    let mut stream = connected.unwrap();
    stream.write(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(soon(stream.read()).await.unwrap().unwrap(), "hello");
    stream.finish().unwrap();
    assert_eq!(soon(stream.read()).await, Ok(None));
    let asked = |network: Option<&str>| Asked {
        peer: id(CLIENT),
        authority: SERVICE.to_owned(),
        network: network.map(str::to_owned),
    };
    let of_gateway = soon(networks.asked_of_gateway.recv()).await;
    assert_eq!(of_gateway, Some(asked(None)));
    let of_destination = soon(networks.asked_of_destination.recv()).await;
    assert_eq!(of_destination, Some(asked(Some("west"))));
}

#[tokio::test]
async fn the_way_to_the_gateway_is_shared_and_the_way_on_is_not() {
    let networks = Networks::new(echo).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let connected = networks.connect(networks.outer(), networks.inner()).await;
        streams.push(connected.unwrap());
    }
    let accepted = (networks.gateway.accepted(), networks.destination.accepted());
    assert_eq!(accepted, (1, 3));
    assert_eq!(networks.gateway.pool.connections(), 1);
    assert_eq!(networks.gateway.pool.streams(networks.gateway.address), 3);
    for stream in &mut streams {
        stream.finish().unwrap();
        assert_eq!(soon(stream.read()).await, Ok(None));
    }
    drop(streams);
    // The inner connections end by themselves, and give their places back.
    soon(async {
        while networks.gateway.pool.streams(networks.gateway.address) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_end_must_be_who_it_is_expected_to_be() {
    let mut networks = Networks::new(echo).await;
    let mut inner = networks.inner();
    inner.expect = vec![id(CLIENT).into()];
    let refused = networks.connect(networks.outer(), inner).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(TlsRefusal::IdentityMismatch));
    let told = refused.to_string();
    let gateway = networks.gateway.address;
    assert!(
        told.starts_with(&format!(
            "beyond the gateway {gateway}, in the tunnel to {SERVICE}"
        )) && told.contains(SERVER),
        "{told}"
    );
    assert!(networks.asked_of_destination.try_recv().is_err());
    let mut nobody = networks.inner();
    nobody.expect.clear();
    let refused = networks
        .connect(networks.outer(), nobody)
        .await
        .unwrap_err();
    assert_eq!(refused.refusal(), Some(TlsRefusal::IdentityMismatch));
    // What stands before the gateway's place is told nothing at all.
    let mut outer = networks.outer();
    outer.expect = vec![id(SERVER).into()];
    let reached = networks.destination.accepted();
    let refused = networks.connect(outer, networks.inner()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            ConnectError::Tls {
                reason: TlsRefusal::IdentityMismatch,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(networks.destination.accepted(), reached);
}

#[tokio::test]
async fn a_refusal_says_which_end_refused() {
    let networks =
        Networks::new(async |request: Request| request.refuse(StatusCode::UNAUTHORIZED)).await;
    let refused = networks.connect(networks.outer(), networks.inner()).await;
    let Err(ConnectError::Beyond { cause, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        matches!(*cause, ConnectError::Refused(StatusCode::UNAUTHORIZED)),
        "{cause}"
    );
    let closed = Rig::new(async |request: Request| request.refuse(StatusCode::NOT_FOUND)).await;
    let address = closed.address;
    let dial = async || TcpStream::connect(address).await;
    let (outer, inner) = (closed.target(SERVICE), closed.target(SERVICE));
    let refused = closed.pool.connect_beyond(permit(), outer, inner, dial);
    let refused = soon(refused).await;
    assert!(
        matches!(refused, Err(ConnectError::Refused(StatusCode::NOT_FOUND))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_was_sent_last_arrives_although_nobody_waits_for_it() {
    const SENT: usize = 3 << 20;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let networks = Networks::new(move |request: Request| {
        let tell = tell.clone();
        async move {
            let mut stream = request.accept(permit()).unwrap();
            // It has said all it had to say, and listens.
            stream.finish().unwrap();
            let mut count = 0;
            while let Ok(Some(bytes)) = stream.read().await {
                count += bytes.len();
            }
            tell.send(count).unwrap();
        }
    })
    .await;
    for _ in 0..5 {
        let connected = networks.connect(networks.outer(), networks.inner()).await;
        let mut stream = connected.unwrap();
        assert_eq!(soon(stream.read()).await, Ok(None));
        let sent = stream.write(Bytes::from(vec![7; SENT]));
        soon(sent).await.unwrap();
        stream.finish().unwrap();
        drop(stream);
        assert_eq!(soon(heard.recv()).await, Some(SENT));
    }
}
