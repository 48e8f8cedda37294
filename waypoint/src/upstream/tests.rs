//! Requests through pools to real sockets: what is kept, what is limited, what is tried again.

mod bodies;
mod choosing;
mod lifetimes;
mod named;
mod waiting;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use mesh::policy::Permit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::test_rig::*;
use super::*;
use crate::model::cluster::UpstreamProtocol;

#[test]
fn a_connection_is_kept_for_the_next_request() {
    story(async {
        let server = named("a").await;
        let (upstreams, cluster) = reaching(cluster(), &[server.address]);
        for turn in 0..20 {
            let sent = ask(&upstreams, &cluster).await.unwrap();
            assert_eq!(sent.reused, turn > 0);
            assert_eq!(sent.peer, Some(server.address));
            assert_eq!(text(sent).await, "a");
        }
        let seen = server.seen.borrow();
        assert_eq!((seen.connections, seen.requests.len()), (1, 20));
        assert_eq!(seen.requests[0].2, "shop.example");
    });
}

#[test]
fn endpoints_take_turns_and_new_ones_join() {
    story(async {
        let (a, b, c) = (named("a").await, named("b").await, named("c").await);
        let (upstreams, cluster) = reaching(cluster(), &[a.address, b.address]);
        let mut names = BTreeSet::new();
        for _ in 0..2 {
            names.insert(text(ask(&upstreams, &cluster).await.unwrap()).await);
        }
        assert_eq!(names, ["a".into(), "b".into()].into());
        let set = endpoints(vec![endpoint(b.address), endpoint(c.address)]);
        cluster.endpoints.store(Arc::new(set));
        names.clear();
        for _ in 0..2 {
            names.insert(text(ask(&upstreams, &cluster).await.unwrap()).await);
        }
        assert_eq!(names, ["b".into(), "c".into()].into());
        assert_eq!(b.seen.borrow().connections, 1, "its connection was kept");
    });
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    story(async {
        let a = named("a").await;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = gone.local_addr().unwrap();
        drop(gone);
        let (upstreams, cluster) = reaching(cluster(), &[a.address, nobody]);
        for _ in 0..6 {
            let sent = ask(&upstreams, &cluster).await.unwrap();
            assert_eq!(text(sent).await, "a");
        }
        let (upstreams, only) = reaching(super::test_rig::cluster(), &[nobody]);
        let refused = ask(&upstreams, &only).await.unwrap_err();
        assert_eq!(refused.failure.flag(), "UF");
        assert_eq!(
            refused.failure.transport_failure(),
            Some("delayed connect error: Connection refused")
        );
        assert!(refused.request.is_some(), "the request comes back");
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_nothing() {
    story(async {
        // It answers one request on each connection, and closes without having said so.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let read = tcp.read(&mut buffer).await.unwrap();
                assert!(buffer[..read].ends_with(b"\r\n\r\n"));
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                tcp.write_all(answer).await.unwrap();
            }
        });
        let (upstreams, cluster) = reaching(cluster(), &[address]);
        for _ in 0..20 {
            assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "ok");
        }
    });
}

#[test]
fn a_request_that_was_written_and_not_answered_says_so() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = tcp.read(&mut buffer).await.unwrap();
        });
        let (upstreams, cluster) = reaching(cluster(), &[address]);
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        assert_eq!(refused.failure.kind, FailureKind::Reset(Reset::Connection));
        assert!(refused.failure.sent && !refused.failure.reused);
        assert!(!refused.failure.untouched());
    });
}

#[test]
fn a_kept_connection_that_ends_under_a_request_is_told_from_a_fresh_one() {
    story(async {
        // It answers one request, reads the next one and closes.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = tcp.read(&mut buffer).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            tcp.write_all(answer).await.unwrap();
            let _ = tcp.read(&mut buffer).await.unwrap();
        });
        let (upstreams, cluster) = reaching(cluster(), &[address]);
        assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "ok");
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        assert!(refused.failure.stale(), "{:?}", refused.failure);
        assert!(refused.failure.sent && !refused.failure.untouched());
    });
}

#[test]
fn http2_connections_that_say_goaway_are_replaced_unnoticed() {
    story(async {
        // Each connection answers two requests at most, and says so after the first.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Rc::new(std::cell::Cell::new(0));
        let count = accepted.clone();
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                count.set(count.get() + 1);
                spawn_local(async move {
                    let mut connection = h2::server::handshake(tcp).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                        connection.graceful_shutdown();
                    }
                });
            }
        });
        let mut cluster = cluster();
        cluster.http.protocol = UpstreamProtocol::Http2;
        let (upstreams, cluster) = reaching(cluster, &[address]);
        for _ in 0..20 {
            assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "ok");
        }
        assert!(accepted.get() >= 10, "{}", accepted.get());
    });
}

/// A server that answers when it is told to.
async fn held(protocol: Version) -> (Server, Rc<Notify>) {
    let go = Rc::new(Notify::new());
    let gate = go.clone();
    let server = server(protocol, move |_: Request<_>| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Response::new(Full::<Bytes>::from("done"))
        }
    })
    .await;
    (server, go)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_second_request_waits_and_a_third_overflows() {
    story(async {
        let (server, go) = held(Version::HTTP_11).await;
        let mut cluster = cluster();
        cluster.breakers.connections = 1;
        cluster.breakers.pending = 1;
        let (upstreams, cluster) = reaching(cluster, &[server.address]);
        let asking = |upstreams: Upstreams<_>, cluster: Arc<_>| {
            spawn_local(async move { text(ask(&upstreams, &cluster).await.unwrap()).await })
        };
        let first = asking(upstreams.clone(), cluster.clone());
        until(|| server.seen.borrow().requests.len() == 1).await;
        let second = asking(upstreams.clone(), cluster.clone());
        tokio::task::yield_now().await;
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        assert_eq!(refused.failure.flag(), "UO");
        go.notify_one();
        assert_eq!(first.await.unwrap(), "done");
        until(|| server.seen.borrow().requests.len() == 2).await;
        go.notify_one();
        assert_eq!(second.await.unwrap(), "done");
        assert_eq!(server.seen.borrow().connections, 1);
    });
}

#[test]
fn what_was_given_up_frees_its_place() {
    story(async {
        let (server, _go) = held(Version::HTTP_11).await;
        let mut cluster = cluster();
        cluster.breakers.requests = 1;
        let (upstreams, cluster) = reaching(cluster, &[server.address]);
        let down = down();
        let mut choice = Choice::new(&down);
        choice.timeout = Some(Duration::from_millis(20));
        for _ in 0..3 {
            let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
            let refused = sending.await.unwrap_err();
            assert_eq!(refused.failure.flag(), "UT");
            assert!(refused.failure.endpoint.is_some());
        }
    });
}

#[test]
fn http2_shares_a_connection_and_writes_the_host_into_the_uri() {
    story(async {
        let (server, go) = held(Version::HTTP_2).await;
        let mut cluster = cluster();
        cluster.http.protocol = UpstreamProtocol::Http2;
        let (upstreams, cluster) = reaching(cluster, &[server.address]);
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (upstreams, cluster) = (upstreams.clone(), cluster.clone());
                spawn_local(async move { text(ask(&upstreams, &cluster).await.unwrap()).await })
            })
            .collect();
        until(|| server.seen.borrow().requests.len() == 10).await;
        for task in tasks {
            go.notify_one();
            go.notify_waiters();
            assert_eq!(task.await.unwrap(), "done");
        }
        let seen = server.seen.borrow();
        assert_eq!(seen.connections, 1);
        let line = (
            Version::HTTP_2,
            "http://shop.example/".to_owned(),
            "shop.example".to_owned(),
        );
        assert_eq!(seen.requests[0], line);
    });
}

#[test]
fn http2_opens_another_connection_where_streams_are_full() {
    story(async {
        let (server, go) = held(Version::HTTP_2).await;
        let mut cluster = cluster();
        cluster.http.protocol = UpstreamProtocol::Http2;
        cluster.http.max_streams = Some(2);
        let (upstreams, cluster) = reaching(cluster, &[server.address]);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (upstreams, cluster) = (upstreams.clone(), cluster.clone());
                spawn_local(async move { text(ask(&upstreams, &cluster).await.unwrap()).await })
            })
            .collect();
        until(|| server.seen.borrow().requests.len() == 4).await;
        assert_eq!(server.seen.borrow().connections, 2);
        go.notify_waiters();
        for task in tasks {
            assert_eq!(task.await.unwrap(), "done");
        }
    });
}

#[test]
fn a_connection_for_bytes_half_closes() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            tcp.read_to_end(&mut all).await.unwrap();
            tcp.write_all(b"got it").await.unwrap();
            all
        });
        let (upstreams, cluster) = reaching(cluster(), &[address]);
        let down = down();
        let choice = Choice::new(&down);
        let connecting = upstreams.connect(&cluster, &choice, Permit::by_waypoint());
        let mut connected = connecting.await.unwrap();
        connected.io.write_all(b"bytes").await.unwrap();
        connected.io.shutdown().await.unwrap();
        let mut back = Vec::new();
        connected.io.read_to_end(&mut back).await.unwrap();
        assert_eq!(
            (peer.await.unwrap(), back),
            (b"bytes".to_vec(), b"got it".to_vec())
        );
    });
}

#[test]
fn an_endpoint_that_goes_finishes_what_it_has() {
    story(async {
        let (server, go) = held(Version::HTTP_11).await;
        let (upstreams, cluster) = reaching(cluster(), &[server.address]);
        let other = named("other").await;
        let running = {
            let (upstreams, cluster) = (upstreams.clone(), cluster.clone());
            spawn_local(async move { text(ask(&upstreams, &cluster).await.unwrap()).await })
        };
        until(|| server.seen.borrow().requests.len() == 1).await;
        cluster
            .endpoints
            .store(Arc::new(endpoints(vec![endpoint(other.address)])));
        assert_eq!(
            text(ask(&upstreams, &cluster).await.unwrap()).await,
            "other"
        );
        go.notify_one();
        assert_eq!(running.await.unwrap(), "done");
    });
}

#[test]
fn a_connection_serves_only_so_many_requests_where_that_is_limited() {
    story(async {
        for (version, protocol) in [
            (Version::HTTP_11, UpstreamProtocol::Http1),
            (Version::HTTP_2, UpstreamProtocol::Http2),
        ] {
            let server = server(version, |_| async { Response::new(Full::from("a")) }).await;
            let mut cluster = cluster();
            cluster.http.protocol = protocol;
            cluster.http.max_requests = Some(2);
            let (upstreams, cluster) = reaching(cluster, &[server.address]);
            for _ in 0..6 {
                text(ask(&upstreams, &cluster).await.unwrap()).await;
            }
            assert_eq!(server.seen.borrow().connections, 3, "{version:?}");
        }
    });
}

#[test]
fn retries_have_a_limit_of_their_own() {
    story(async {
        let (upstreams, cluster) = reaching(cluster(), &[]);
        let places: Vec<_> = (0..3).map(|_| upstreams.retry(&cluster).unwrap()).collect();
        assert!(upstreams.retry(&cluster).is_none());
        drop(places);
        assert!(upstreams.retry(&cluster).is_some());
    });
}
