//! Whole connections over loopback: client → proxy → tunnel → proxy → server, and the same
//! between two sockets. Long because each way a copy can end is a story of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::hbone::Limits;
use crate::hbone::test_rig::{Rig, listener, permit, tcp_pair};
use crate::hbone::{Destination, Request};

const LIMIT: Duration = Duration::from_secs(120);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it hangs")
}

/// A path from a client to a server's listener: through two proxies and a tunnel.
async fn tunnel() -> (Rig, TcpListener, SocketAddr) {
    let (server, destination) = listener().await;
    let rig = Rig::relay().await;
    let entry = rig.outbound(destination).await;
    (rig, server, entry)
}

/// Both ends of one connection through the tunnel.
async fn ends() -> (Rig, TcpStream, TcpStream) {
    let (rig, server, entry) = tunnel().await;
    let (client, server) =
        soon(async { tokio::join!(TcpStream::connect(entry), server.accept()) }).await;
    (rig, client.unwrap(), server.unwrap().0)
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .take(len)
        .collect()
}

fn destination_of(request: &Request) -> SocketAddr {
    match request.destination() {
        Destination::Address(address) => *address,
        Destination::Name { .. } => panic!("a name"),
    }
}

fn reset(socket: TcpStream) {
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(socket);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_arrives_whole_both_ways_at_once() {
    let (mut rig, server, entry) = tunnel().await;
    for len in [
        1,
        2,
        1023,
        1024,
        1025,
        16_384,
        65_537,
        1 << 20,
        (9 << 20) + 3,
    ] {
        let client = soon(TcpStream::connect(entry)).await.unwrap();
        let (server, _) = soon(server.accept()).await.unwrap();
        let there = pattern(len as u64, len);
        let back = pattern(!(len as u64), len);
        let side = |socket: TcpStream, send: Vec<u8>| async move {
            let (mut read, mut write) = socket.into_split();
            let mut got = Vec::new();
            let (sent, received) = tokio::join!(
                async {
                    write.write_all(&send).await?;
                    write.shutdown().await
                },
                read.read_to_end(&mut got)
            );
            sent.unwrap();
            received.unwrap();
            got
        };
        let (at_client, at_server) =
            soon(async { tokio::join!(side(client, back.clone()), side(server, there.clone())) })
                .await;
        assert!(at_client == there && at_server == back, "{len} bytes");
        let ended = soon(rig.ended.recv()).await.unwrap();
        assert_eq!((ended.sent, ended.received), (len as u64, len as u64));
        assert!(matches!(ended.reason, End::Closed { .. }), "{ended:?}");
    }
    assert_eq!(rig.accepted(), 1, "one tunnel connection served them all");
}

#[tokio::test]
async fn a_half_closed_connection_goes_on_the_other_way() {
    let (mut rig, mut client, mut server) = ends().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    soon(server.read_to_string(&mut question)).await.unwrap();
    assert_eq!(question, "question");
    for _ in 0..3 {
        server.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        soon(client.read_exact(&mut answer)).await.unwrap();
    }
    drop(server);
    assert_eq!(soon(client.read(&mut [0; 1])).await.unwrap(), 0);
    let ended = soon(rig.ended.recv()).await.unwrap();
    assert!(
        matches!(
            ended.reason,
            End::Closed {
                first: Side::Downstream
            }
        ),
        "{ended:?}"
    );
}

#[tokio::test]
async fn the_servers_end_comes_first_as_well() {
    let (mut rig, mut client, mut server) = ends().await;
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut words = String::new();
    soon(client.read_to_string(&mut words)).await.unwrap();
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    let mut words = String::new();
    soon(server.read_to_string(&mut words)).await.unwrap();
    assert_eq!(words, "still here");
    let ended = soon(rig.ended.recv()).await.unwrap();
    assert!(
        matches!(
            ended.reason,
            End::Closed {
                first: Side::Upstream
            }
        ),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_clients_reset_reaches_the_server_as_a_reset() {
    let (mut rig, mut client, mut server) = ends().await;
    client.write_all(b"x").await.unwrap();
    soon(server.read_exact(&mut [0; 1])).await.unwrap();
    reset(client);
    let error = soon(server.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let ended = soon(rig.ended.recv()).await.unwrap();
    let End::Broken {
        by: Side::Downstream,
        cause,
    } = ended.reason
    else {
        panic!("{ended:?}")
    };
    assert!(cause.is_reset());
}

#[tokio::test]
async fn a_servers_reset_reaches_the_client_as_a_reset() {
    let (mut rig, mut client, mut server) = ends().await;
    server.write_all(b"x").await.unwrap();
    soon(client.read_exact(&mut [0; 1])).await.unwrap();
    reset(server);
    let error = soon(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let ended = soon(rig.ended.recv()).await.unwrap();
    let End::Broken {
        by: Side::Upstream,
        cause,
    } = ended.reason
    else {
        panic!("{ended:?}")
    };
    assert!(cause.is_reset());
}

#[tokio::test]
async fn a_reset_after_a_half_close_is_not_taken_for_an_end() {
    let (_rig, mut client, mut server) = ends().await;
    server.write_all(b"part").await.unwrap();
    server.shutdown().await.unwrap();
    let mut words = String::new();
    soon(client.read_to_string(&mut words)).await.unwrap();
    assert_eq!(words, "part");
    // The client is still open; the server, half-closed, now goes away with a reset.
    client.write_all(b"x").await.unwrap();
    soon(server.read_exact(&mut [0; 1])).await.unwrap();
    reset(server);
    let refused = async {
        while client.write_all(b"more").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(refused).await;
}

/// What a server does that answers without having read the question: the kernel resets a socket that is
/// closed with bytes unread, and the client has the answer all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_heard_from_a_server_that_takes_no_more() {
    let (mut rig, listener, entry) = tunnel().await;
    for round in 0..200 {
        let (client, server) =
            soon(async { tokio::join!(TcpStream::connect(entry), listener.accept()) }).await;
        let (client, (mut server, _)) = (client.unwrap(), server.unwrap());
        let (mut read, mut write) = client.into_split();
        let asking = tokio::spawn(async move {
            let part = pattern(round, 16 << 10);
            while write.write_all(&part).await.is_ok() {}
        });
        soon(server.read_exact(&mut [0; 1])).await.unwrap();
        server.write_all(b"too large").await.unwrap();
        if round % 2 == 0 {
            server.shutdown().await.unwrap();
        }
        drop(server);
        let mut answer = [0; 9];
        let heard = soon(read.read_exact(&mut answer)).await;
        assert!(
            heard.is_ok() && &answer == b"too large",
            "round {round}: {heard:?}"
        );
        soon(asking).await.unwrap();
        let ended = soon(rig.ended.recv()).await.unwrap();
        assert!(
            matches!(
                ended.reason,
                End::Broken {
                    by: Side::Upstream,
                    ..
                }
            ),
            "{ended:?}"
        );
    }
}

/// The same the other way: what a client said before it went away is the server's to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_said_before_it_was_reset_is_heard() {
    let (_rig, listener, entry) = tunnel().await;
    for round in 0..200 {
        let (client, server) =
            soon(async { tokio::join!(TcpStream::connect(entry), listener.accept()) }).await;
        let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
        server.write_all(b"welcome").await.unwrap();
        soon(client.read_exact(&mut [0; 1])).await.unwrap();
        client.write_all(b"goodbye").await.unwrap();
        // With bytes unread, so that it is a reset.
        drop(client);
        let mut word = [0; 7];
        let heard = soon(server.read_exact(&mut word)).await;
        assert!(
            heard.is_ok() && &word == b"goodbye",
            "round {round}: {heard:?}"
        );
        let error = soon(server.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_vanished_tunnel_resets_both_ends() {
    let (rig, mut client, mut server) = ends().await;
    client.write_all(b"x").await.unwrap();
    soon(server.read_exact(&mut [0; 1])).await.unwrap();
    rig.signal.force();
    for socket in [&mut client, &mut server] {
        let error = soon(socket.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn stopping_resets_both_sides_and_says_why() {
    let (mut client, downstream) = tcp_pair().await;
    let (upstream, mut server) = tcp_pair().await;
    let (deny, denied) = oneshot::channel();
    let copy = tokio::spawn(async move {
        let stop = async { denied.await.unwrap() };
        bidirectional(permit(), downstream, upstream, &Meter::default(), stop).await
    });
    client.write_all(b"hello").await.unwrap();
    soon(server.read_exact(&mut [0; 5])).await.unwrap();
    deny.send(Stop::Denied).unwrap();
    let ended = soon(copy).await.unwrap();
    assert!(matches!(ended.reason, End::Stopped(Stop::Denied)));
    assert_eq!((ended.sent, ended.received), (5, 0));
    for socket in [&mut client, &mut server] {
        let error = soon(socket.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_dropped_copy_resets_rather_than_ends() {
    let (mut client, downstream) = tcp_pair().await;
    let (upstream, mut server) = tcp_pair().await;
    let copy = tokio::spawn(async move {
        let meter = Meter::default();
        bidirectional(
            permit(),
            downstream,
            upstream,
            &meter,
            std::future::pending(),
        )
        .await
    });
    client.write_all(b"hello").await.unwrap();
    soon(server.read_exact(&mut [0; 5])).await.unwrap();
    copy.abort();
    let error = soon(server.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_stops_its_writer_and_then_gets_everything() {
    let (_rig, client, mut server) = ends().await;
    // Fills every buffer on the way until nothing more is taken.
    let chunk = pattern(1, 64 << 10);
    let mut sent = 0usize;
    let mut quiet = 0;
    while quiet < 20 {
        match client.try_write(&chunk) {
            Ok(count) => (sent, quiet) = (sent + count, 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                quiet += 1;
                let _ = timeout(Duration::from_millis(25), client.writable()).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    // The sockets' own buffers, a stream window, what waits to be sent, and a read buffer.
    let sockets = 3 * (8 << 20);
    let ours = Limits::NODE.stream_window as usize + Limits::NODE.send_buffer + (1 << 20);
    assert!(
        sent < sockets + ours,
        "{sent} bytes were taken from a writer that nobody reads"
    );
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        all.len()
    });
    drop(client);
    assert_eq!(soon(reader).await.unwrap(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_bytes_to_a_stalled_reader_harm_nobody_else() {
    let (server, destination) = listener().await;
    let rig = Rig::new(async |request: Request| {
        let tcp = TcpStream::connect(destination_of(&request)).await.unwrap();
        SockRef::from(&tcp).set_send_buffer_size(64 << 10).unwrap();
        let stream = request.accept(permit()).unwrap();
        bidirectional(
            permit(),
            stream,
            tcp,
            &Meter::default(),
            std::future::pending(),
        )
        .await;
    })
    .await;
    let mut stream = rig.connect(&destination.to_string()).await.unwrap();
    let (mut stalled, _) = server.accept().await.unwrap();
    // More tiny frames than h2 holds unread before it ends the whole connection, after so many
    // bytes that the sockets take none of them.
    let bulk = pattern(3, 3 << 20);
    soon(stream.write(Bytes::from(bulk.clone()))).await.unwrap();
    for _ in 0..100_000 {
        soon(stream.write(Bytes::from_static(b"x"))).await.unwrap();
    }
    let mut other = rig.connect(&destination.to_string()).await.unwrap();
    let (mut quick, _) = soon(server.accept()).await.unwrap();
    other.write(Bytes::from_static(b"hello")).await.unwrap();
    soon(quick.read_exact(&mut [0; 5])).await.unwrap();
    assert_eq!(rig.accepted(), 1);
    stream.finish().unwrap();
    SockRef::from(&stalled)
        .set_recv_buffer_size(4 << 20)
        .unwrap();
    let mut all = Vec::new();
    soon(stalled.read_to_end(&mut all)).await.unwrap();
    assert!(all.len() == bulk.len() + 100_000 && all.starts_with(&bulk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_at_once() {
    const COUNT: usize = 2000;
    let (rig, server, entry) = tunnel().await;
    tokio::spawn(async move {
        while let Ok((socket, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let mut clients = tokio::task::JoinSet::new();
    let all_open = std::sync::Arc::new(tokio::sync::Barrier::new(COUNT));
    for number in 0..COUNT {
        let all_open = all_open.clone();
        clients.spawn(async move {
            let mut client = TcpStream::connect(entry).await.unwrap();
            let sent = pattern(number as u64, 3000);
            client.write_all(&sent).await.unwrap();
            let mut echoed = vec![0; sent.len()];
            client.read_exact(&mut echoed).await.unwrap();
            assert!(echoed == sent);
            all_open.wait().await;
        });
    }
    soon(async { while clients.join_next().await.transpose().unwrap().is_some() {} }).await;
    assert_eq!(rig.accepted(), COUNT / Limits::NODE.pooled_streams);
}

#[test]
fn the_future_on_every_connection_is_small() {
    let meter = Meter::default();
    let copy =
        |a: TcpStream, b: TcpStream| bidirectional(permit(), a, b, &meter, std::future::pending());
    fn size<F>(_: &impl Fn(TcpStream, TcpStream) -> F) -> usize {
        size_of::<F>()
    }
    assert!(size(&copy) <= 1024, "{} bytes", size(&copy));
}

/// What a waypoint does with a connection that it keeps no longer: the answer, its end, and no
/// interest in what may still come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_was_closed_for_good_is_an_end_and_no_reset() {
    let mut rig = Rig::new(async |request: Request| {
        let mut io = crate::hbone::Io::new(request.accept(permit()).unwrap());
        io.write_all(b"answer").await.unwrap();
        io.shutdown().await.unwrap();
    })
    .await;
    let entry = rig.outbound(([10, 0, 0, 1], 80).into()).await;
    for round in 0..200 {
        let mut client = TcpStream::connect(entry).await.unwrap();
        // Before, while and after the stream is closed, when nothing takes it.
        for _ in 0..round % 5 {
            let _ = client.write_all(b"ping").await;
            tokio::task::yield_now().await;
        }
        let ended = soon(rig.ended.recv()).await.unwrap();
        assert!(
            matches!(
                ended.reason,
                End::Closed {
                    first: Side::Upstream
                }
            ),
            "round {round}: {ended:?}"
        );
        let mut answer = [0; 6];
        soon(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"answer");
    }
}
