//! Requests that wait because the cluster may have no further connection: each gets its turn, whatever
//! becomes of the connection it waits for, and of those who waited before it.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Waker};

use super::*;

/// Answers one request on each connection, when it is told to, and closes it.
async fn closing() -> (std::net::SocketAddr, Rc<Notify>, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (go, asked) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
    let (gate, count) = (go.clone(), asked.clone());
    spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let read = tcp.read(&mut buffer).await.unwrap();
            assert!(buffer[..read].ends_with(b"\r\n\r\n"));
            count.set(count.get() + 1);
            gate.notified().await;
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            tcp.write_all(answer).await.unwrap();
        }
    });
    (address, go, asked)
}

/// Has a request wait, without anybody who would go on with it.
fn begin<F: Future>(request: F) -> Pin<Box<F>> {
    let mut request = Box::pin(request);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(request.as_mut().poll(&mut cx).is_pending());
    request
}

#[test]
fn a_place_that_becomes_free_is_not_lost_on_a_request_that_was_given_up() {
    story(async {
        let (address, go, asked) = closing().await;
        let mut cluster = cluster();
        cluster.breakers.connections = 1;
        let (upstreams, cluster) = reaching(cluster, &[address]);
        let first = {
            let (upstreams, cluster) = (upstreams.clone(), cluster.clone());
            spawn_local(async move { text(ask(&upstreams, &cluster).await.unwrap()).await })
        };
        until(|| asked.get() == 1).await;
        let gone = begin(ask(&upstreams, &cluster));
        let late = begin(ask(&upstreams, &cluster));
        let last = begin(ask(&upstreams, &cluster));
        // One gives up before its turn, one when it has just come.
        drop(gone);
        go.notify_one();
        assert_eq!(first.await.unwrap(), "ok");
        drop(late);
        go.notify_one();
        assert_eq!(text(last.await.unwrap()).await, "ok");
    });
}

#[test]
fn http2_requests_that_wait_go_on_when_the_connection_has_ended() {
    story(async {
        // Each connection takes one request, says so before it answers, and ends.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                spawn_local(async move {
                    let mut builder = h2::server::Builder::new();
                    builder.max_concurrent_streams(1);
                    let mut connection = builder.handshake::<_, Bytes>(tcp).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        connection.graceful_shutdown();
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                    }
                });
            }
        });
        let mut cluster = cluster();
        cluster.http.protocol = UpstreamProtocol::Http2;
        cluster.http.max_streams = Some(1);
        cluster.breakers.connections = 1;
        let (upstreams, cluster) = reaching(cluster, &[address]);
        let asking = (0..5).map(|_| {
            let (upstreams, cluster) = (upstreams.clone(), cluster.clone());
            spawn_local(async move { text(ask(&upstreams, &cluster).await.unwrap()).await })
        });
        for asked in asking.collect::<Vec<_>>() {
            assert_eq!(asked.await.unwrap(), "ok");
        }
    });
}

#[test]
fn http2_connections_that_have_served_all_they_may_make_room_at_once() {
    story(async {
        let answer = |_| async { Response::new(Full::from("a")) };
        let server = server(Version::HTTP_2, answer).await;
        let mut cluster = cluster();
        cluster.http.protocol = UpstreamProtocol::Http2;
        cluster.http.max_requests = Some(1);
        cluster.breakers.connections = 1;
        let (upstreams, cluster) = reaching(cluster, &[server.address]);
        for turn in 1..=5 {
            assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "a");
            assert_eq!(server.seen.borrow().connections, turn);
        }
    });
}
