//! The tunnel's two ends against each other, and against peers that misbehave.
//! Long because all stories share one rig and its few helpers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request as HttpRequest, StatusCode, Version};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::test_rig::{CLIENT, Rig, SERVER, listener, permit, tcp_pair};
use super::*;
use crate::drain;
use crate::tls::TlsRefusal;
use crate::tls::test_authority::{TestAuthority, id};

const LIMIT: Duration = Duration::from_secs(120);
const DESTINATION: &str = "10.0.0.1:80";

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it hangs")
}

async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Answers 200 and sends back what comes.
async fn echo(request: Request) {
    let mut stream = request.accept(permit()).unwrap();
    while let Ok(Some(bytes)) = stream.read().await {
        if stream.write(bytes).await.is_err() {
            return;
        }
    }
    let _ = stream.finish();
}

async fn exchange(stream: &mut Stream, words: &'static str) {
    stream
        .write(Bytes::from_static(words.as_bytes()))
        .await
        .unwrap();
    assert_eq!(soon(stream.read()).await.unwrap().unwrap(), words);
}

#[tokio::test]
async fn a_request_says_who_asks_for_what() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let rig = Rig::new(move |request| {
        let facts = (
            request.peer().identity.clone(),
            request.destination().clone(),
            request.header("baggage").map(str::to_owned),
        );
        assert_eq!(request.authority(), DESTINATION);
        seen.send(facts).unwrap();
        echo(request)
    })
    .await;
    let mut stream = soon(rig.connect(DESTINATION)).await.unwrap();
    exchange(&mut stream, "hello").await;
    stream.finish().unwrap();
    assert_eq!(soon(stream.read()).await, Ok(None));
    let (peer, destination, baggage) = requests.recv().await.unwrap();
    assert_eq!(peer, id(CLIENT));
    assert_eq!(
        destination,
        Destination::Address("10.0.0.1:80".parse().unwrap())
    );
    assert_eq!(baggage.as_deref(), Some("k8s.namespace.name=default"));
}

#[tokio::test]
async fn a_refusal_carries_its_status_and_leaves_the_connection_in_use() {
    let rig = Rig::new(async |request: Request| match request.destination() {
        Destination::Address(to) if to.port() == 81 => request.refuse(StatusCode::UNAUTHORIZED),
        _ => echo(request).await,
    })
    .await;
    let refused = soon(rig.connect("10.0.0.1:81")).await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::Refused(StatusCode::UNAUTHORIZED)),
        "{refused}"
    );
    let mut stream = soon(rig.connect(DESTINATION)).await.unwrap();
    exchange(&mut stream, "hello").await;
    assert_eq!(rig.accepted(), 1);
}

#[tokio::test]
async fn a_request_that_nobody_answers_is_reset() {
    let rig = Rig::new(async |request: Request| drop(request)).await;
    let error = soon(rig.connect(DESTINATION)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn many_callers_share_one_dial_and_its_connection() {
    let rig = Arc::new(Rig::new(echo).await);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let rig = rig.clone();
        callers.spawn(async move {
            let mut stream = rig.connect(DESTINATION).await.unwrap();
            exchange(&mut stream, "hello").await;
            stream
        });
    }
    let streams = soon(callers.join_all()).await;
    assert_eq!(
        (streams.len(), rig.accepted(), rig.pool.connections()),
        (50, 1, 1)
    );
}

#[tokio::test]
async fn other_pods_identities_and_expectations_share_nothing() {
    let rig = Rig::new(echo).await;
    let base = rig.target(DESTINATION);
    let mut other_pod = base.clone();
    other_pod.pod = "pod-2".into();
    let mut other_source = base.clone();
    other_source.source = id("spiffe://cluster.local/ns/default/sa/other");
    let mut other_expectation = base.clone();
    other_expectation.expect.push(id(CLIENT).into());
    let mut same = other_expectation.clone();
    same.expect.reverse();
    let mut streams = Vec::new();
    for target in [base, other_pod, other_source, other_expectation, same] {
        let address = rig.address;
        let dial = async || TcpStream::connect(address).await;
        streams.push(
            soon(rig.pool.connect(permit(), target, dial))
                .await
                .unwrap(),
        );
    }
    assert_eq!(rig.accepted(), 4);
    rig.pool.forget("pod-2");
    assert_eq!(rig.pool.connections(), 3);
    exchange(&mut streams[1], "a forgotten pod's stream goes on").await;
}

#[tokio::test]
async fn a_full_connection_is_joined_by_another() {
    let rig = Rig::new(echo).await;
    let mut streams = Vec::new();
    for _ in 0..=Limits::NODE.pooled_streams {
        streams.push(soon(rig.connect(DESTINATION)).await.unwrap());
    }
    assert_eq!(rig.accepted(), 2);
    streams.remove(0);
    streams.push(soon(rig.connect(DESTINATION)).await.unwrap());
    assert_eq!(rig.accepted(), 2);
}

#[tokio::test]
async fn a_failed_dial_reaches_everybody_who_waits_and_is_not_kept() {
    let rig = Arc::new(Rig::new(echo).await);
    let dials = Arc::new(AtomicUsize::new(0));
    let go = Arc::new(Notify::new());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (rig, dials, go) = (rig.clone(), dials.clone(), go.clone());
        callers.spawn(async move {
            let dial = async || {
                dials.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Err(io::Error::from(io::ErrorKind::ConnectionRefused))
            };
            rig.pool
                .connect(permit(), rig.target(DESTINATION), dial)
                .await
        });
    }
    until(|| dials.load(Ordering::SeqCst) == 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    for result in soon(callers.join_all()).await {
        assert!(matches!(result, Err(ConnectError::Dial { .. })));
    }
    assert_eq!(dials.load(Ordering::SeqCst), 1);
    soon(rig.connect(DESTINATION)).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_while_dialling_leaves_nobody_hanging() {
    let rig = Arc::new(Rig::new(echo).await);
    let dialling = Arc::new(Notify::new());
    let first = {
        let (rig, dialling) = (rig.clone(), dialling.clone());
        tokio::spawn(async move {
            let dial = async || {
                dialling.notify_one();
                std::future::pending().await
            };
            rig.pool
                .connect(permit(), rig.target(DESTINATION), dial)
                .await
        })
    };
    soon(dialling.notified()).await;
    let second = {
        let rig = rig.clone();
        tokio::spawn(async move { rig.connect(DESTINATION).await })
    };
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.accepted(), 0, "it waits for the first one's dial");
    first.abort();
    soon(second).await.unwrap().unwrap();
    assert_eq!(rig.accepted(), 1);
}

#[tokio::test]
async fn a_cancelled_request_is_seen_by_the_server_and_frees_its_place() {
    let cancelled = Arc::new(Notify::new());
    let arrived = Arc::new(Notify::new());
    let (on_cancelled, on_arrived) = (cancelled.clone(), arrived.clone());
    let rig = Arc::new(
        Rig::new(move |mut request: Request| {
            let (cancelled, arrived) = (on_cancelled.clone(), on_arrived.clone());
            async move {
                arrived.notify_one();
                request.cancelled().await;
                cancelled.notify_one();
            }
        })
        .await,
    );
    let caller = {
        let rig = rig.clone();
        tokio::spawn(async move { rig.connect(DESTINATION).await })
    };
    soon(arrived.notified()).await;
    caller.abort();
    soon(cancelled.notified()).await;
    assert_eq!(rig.pool.connections(), 1, "the connection itself stays");
}

#[tokio::test]
async fn a_drained_server_ends_running_streams_in_peace_and_new_ones_go_elsewhere() {
    let old = Rig::new(echo).await;
    let mut running = soon(old.connect(DESTINATION)).await.unwrap();
    exchange(&mut running, "before").await;
    old.signal.close();
    // The GOAWAY arrives; the pool lets go of the connection.
    let address = old.address;
    let refused = soon(async {
        loop {
            let dial = async || TcpStream::connect(address).await;
            match old
                .pool
                .connect(permit(), old.target(DESTINATION), dial)
                .await
            {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(
        matches!(
            refused,
            ConnectError::Dial { .. } | ConnectError::Tls { .. }
        ),
        "{refused}"
    );
    exchange(&mut running, "after").await;
    running.finish().unwrap();
    assert_eq!(soon(running.read()).await, Ok(None));
    drop(running);
    soon(old.signal.done()).await;
}

#[tokio::test]
async fn a_broken_connection_is_replaced() {
    let rig = Rig::new(echo).await;
    let (first, second) = tcp_pair().await;
    drop(second);
    let dial = async || Ok(first);
    let error = rig
        .pool
        .connect(permit(), rig.target(DESTINATION), dial)
        .await
        .unwrap_err();
    assert_eq!(error.refusal(), Some(TlsRefusal::Closed), "{error}");
    let mut stream = soon(rig.connect(DESTINATION)).await.unwrap();
    exchange(&mut stream, "hello").await;
    rig.signal.force();
    assert!(soon(stream.read()).await.is_err());
    until(|| rig.pool.connections() == 0).await;
}

#[tokio::test]
async fn an_idle_connection_is_released_and_a_busy_one_is_not() {
    let mut rig = Rig::new(echo).await;
    let certificates = crate::certificate::Certificates::new(rig.authority.clone(), Vec::new());
    let idle = Duration::from_millis(100);
    rig.pool = Pool::within(certificates, idle, Limits::NODE);
    let mut stream = soon(rig.connect(DESTINATION)).await.unwrap();
    tokio::time::sleep(4 * idle).await;
    exchange(&mut stream, "it is busy, if only with waiting").await;
    assert_eq!(rig.pool.connections(), 1);
    let since = std::time::Instant::now();
    drop(stream);
    until(|| rig.pool.connections() == 0).await;
    assert!(since.elapsed() >= idle);
    // The server sees it end, so that nothing holds up its drain.
    rig.signal.close();
    soon(rig.signal.done()).await;
    assert_eq!(rig.accepted(), 1);
}

#[tokio::test]
async fn the_refusal_of_our_certificate_has_its_name() {
    let authority = TestAuthority::new("mesh");
    let server = authority.certificate_trusting(SERVER, &TestAuthority::new("other"));
    let rig = Rig::with(authority, server, echo).await;
    let error = soon(rig.connect(DESTINATION)).await.unwrap_err();
    assert_eq!(error.refusal(), Some(TlsRefusal::RefusedByPeer), "{error}");
}

#[tokio::test]
async fn an_unexpected_server_is_refused() {
    let rig = Rig::new(echo).await;
    let mut target = rig.target(DESTINATION);
    target.expect = vec![id("spiffe://cluster.local/ns/default/sa/somebody").into()];
    let address = rig.address;
    let dial = async || TcpStream::connect(address).await;
    let error = soon(rig.pool.connect(permit(), target, dial))
        .await
        .unwrap_err();
    assert_eq!(
        error.refusal(),
        Some(TlsRefusal::IdentityMismatch),
        "{error}"
    );
}

#[tokio::test]
async fn an_expiring_peer_opens_no_more_streams() {
    let authority = TestAuthority::new("mesh");
    let (client_tcp, server_tcp) = tcp_pair().await;
    let server = authority.certificate(SERVER);
    let client = authority.certificate_seconds(CLIENT, 2);
    let (_signal, watch) = drain::new();
    let serving = tokio::spawn(async move {
        let mut connection = accept(server_tcp, &server, watch).await.unwrap();
        while let Some(request) = connection.next().await.unwrap() {
            tokio::spawn(echo(request));
        }
    });
    let (mut h2, connection) = raw(client_tcp, &client).await;
    let driver = tokio::spawn(connection);
    h2 = soon(h2.ready()).await.unwrap();
    let (answer, mut send) = h2.send_request(connect_to(DESTINATION), false).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), StatusCode::OK);
    let closed = async {
        while h2.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(closed).await;
    send.send_data(Bytes::new(), true).unwrap();
    soon(serving).await.unwrap();
    soon(driver).await.unwrap().unwrap();
}

/// A client that speaks HTTP/2 as it likes.
async fn raw(
    tcp: TcpStream,
    certificate: &crate::certificate::Certificate,
) -> (
    h2::client::SendRequest<Bytes>,
    h2::client::Connection<tokio_rustls::client::TlsStream<crate::tls::Ahead<TcpStream>>, Bytes>,
) {
    let expected = [id(SERVER).into()];
    let (tls, _) = crate::tls::connect(tcp, certificate, &expected, LIMIT)
        .await
        .unwrap();
    h2::client::Builder::new().handshake(tls).await.unwrap()
}

fn connect_to(authority: &str) -> HttpRequest<()> {
    let mut request = HttpRequest::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = authority.parse().unwrap();
    request
}

async fn raw_client(
    address: SocketAddr,
    authority: &TestAuthority,
) -> h2::client::SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (h2, connection) = raw(tcp, &authority.certificate(CLIENT)).await;
    tokio::spawn(connection);
    soon(h2.ready()).await.unwrap()
}

#[tokio::test]
async fn what_is_no_connect_to_a_destination_is_answered_400() {
    let rig = Rig::new(echo).await;
    let mut h2 = raw_client(rig.address, &rig.authority).await;
    let get = HttpRequest::get("https://10.0.0.1:80/").body(()).unwrap();
    let post = HttpRequest::post("https://10.0.0.1:80/").body(()).unwrap();
    let bad = [
        "10.0.0.1",
        "10.0.0.1:0",
        "name",
        "user@10.0.0.1:80",
        "10.0.0.256:80",
    ];
    let requests = [get, post].into_iter().chain(bad.map(connect_to));
    for request in requests {
        let words = format!("{request:?}");
        let (answer, _send) = h2.send_request(request, false).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{words}");
        h2 = soon(h2.ready()).await.unwrap();
    }
    let (answer, _send) = h2.send_request(connect_to(DESTINATION), false).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn too_many_headers_are_refused_and_harm_nobody_else() {
    let rig = Rig::new(echo).await;
    let mut h2 = raw_client(rig.address, &rig.authority).await;
    let mut flood = connect_to(DESTINATION);
    for number in 0..100 {
        let name: http::HeaderName = format!("x-flood-{number}").parse().unwrap();
        flood
            .headers_mut()
            .insert(name, "x".repeat(1000).parse().unwrap());
    }
    let (answer, _send) = h2.send_request(flood, true).unwrap();
    match soon(answer).await {
        Ok(answer) => {
            assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    let mut stream = soon(rig.connect(DESTINATION)).await.unwrap();
    exchange(&mut stream, "hello").await;
}

#[tokio::test]
async fn streams_beyond_the_limit_wait_or_are_refused() {
    let rig = Rig::new(echo).await;
    let mut h2 = raw_client(rig.address, &rig.authority).await;
    let mut open = Vec::new();
    for _ in 0..Limits::NODE.accepted_streams {
        let (answer, send) = h2.send_request(connect_to(DESTINATION), false).unwrap();
        open.push((soon(answer).await.unwrap(), send));
        h2 = h2.ready().await.unwrap();
    }
    let (extra, _send) = h2.send_request(connect_to(DESTINATION), false).unwrap();
    let mut extra = Box::pin(extra);
    assert!(
        timeout(Duration::from_millis(100), &mut extra)
            .await
            .is_err(),
        "one more was let in"
    );
    open.pop();
    assert_eq!(soon(extra).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_not_waited_for_forever() {
    let authority = TestAuthority::new("mesh");
    let (client, server) = tcp_pair().await;
    let limit = Duration::from_millis(50);
    let certificate = authority.certificate(SERVER);
    let error = crate::tls::accept(server, &certificate, limit)
        .await
        .unwrap_err();
    assert_eq!(error.reason, TlsRefusal::TimedOut);
    drop(client);
    // The other side: a next hop that accepts TCP and is silent.
    let (silent, address) = listener().await;
    let tcp = TcpStream::connect(address).await.unwrap();
    let error = crate::tls::connect(tcp, &certificate, &[id(SERVER).into()], limit)
        .await
        .unwrap_err();
    assert_eq!(error.reason, TlsRefusal::TimedOut);
    drop(silent);
}

#[tokio::test]
async fn a_target_that_is_no_header_is_refused_before_anything_is_sent() {
    let rig = Rig::new(echo).await;
    for wrong in ["", "not an authority", "a:80\r\nx: y"] {
        let error = soon(rig.connect(wrong)).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Target { .. }),
            "{wrong:?}: {error}"
        );
    }
    let mut target = rig.target(DESTINATION);
    target.baggage = Some("a\nb".to_owned());
    let address = rig.address;
    let dial = async || TcpStream::connect(address).await;
    let error = soon(rig.pool.connect(permit(), target, dial))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Target {
                what: "baggage",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_futures_of_every_connection_are_small() {
    fn size<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }
    fn connect(pool: &Pool, target: Target) -> impl Future<Output = Result<Stream, ConnectError>> {
        let next_hop = target.next_hop;
        pool.connect(permit(), target, async move || {
            TcpStream::connect(next_hop).await
        })
    }
    let connecting = size(|(pool, target): (&'static Pool, Target)| connect(pool, target));
    assert!(connecting <= 6 << 10, "{connecting} bytes");
    let next = size(|connection: &'static mut Connection| connection.next());
    assert!(next <= 1 << 10, "{next} bytes");
    assert!(size_of::<Stream>() <= 128, "{} bytes", size_of::<Stream>());
}
