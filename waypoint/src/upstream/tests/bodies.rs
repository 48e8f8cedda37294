//! Bodies over HTTP/1 connections, which whoever reads the answer drives: nothing may stall, whatever
//! is read, or given up, when.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use mesh::policy::Permit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::until;
use crate::upstream::Choice;
use crate::upstream::test_rig::*;

const LARGE: usize = 8 << 20;

fn post(body: Bytes) -> Request<Body> {
    let request = Request::post("/").header("host", "shop.example");
    request.body(Full::new(body)).unwrap()
}

#[test]
fn a_large_body_comes_back_whole() {
    story(async {
        let server = server(
            Version::HTTP_11,
            |request: Request<hyper::body::Incoming>| async {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(Full::new(body))
            },
        )
        .await;
        let (upstreams, cluster) = reaching(cluster(), &[server.address]);
        let down = down();
        let choice = Choice::new(&down);
        for turn in 0..3_u8 {
            let body = Bytes::from(vec![turn; LARGE]);
            let request = post(body.clone());
            let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), request);
            let sent = sending.await.unwrap();
            let back = sent
                .response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes();
            assert!(back == body, "{} bytes came back", back.len());
        }
        assert_eq!(server.seen.borrow().connections, 1);
    });
}

#[test]
fn an_answer_that_is_given_up_ends_its_connection_and_nothing_else() {
    story(async {
        let server = server(Version::HTTP_11, |_| async {
            Response::new(Full::new(Bytes::from(vec![0; LARGE])))
        })
        .await;
        let (upstreams, cluster) = reaching(cluster(), &[server.address]);
        for _ in 0..3 {
            let sent = ask(&upstreams, &cluster).await.unwrap();
            assert!(!sent.reused);
            let mut body = sent.response.into_body();
            assert!(body.frame().await.unwrap().is_ok());
        }
        let sent = ask(&upstreams, &cluster).await.unwrap();
        let all = sent.response.into_body().collect().await.unwrap();
        assert_eq!(all.to_bytes().len(), LARGE);
    });
}

/// A server that answers each connection at once, has read little of it, and then closes: first when the
/// other side has closed too, or else with most of it unread, which is a reset. It has a thread of its
/// own, so that its reset comes at any moment.
fn refuses(answer: &'static [u8], waits: bool) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (mut tcp, mut buffer) = (tcp.unwrap(), [0; 1024]);
            let _ = tcp.read(&mut buffer).unwrap();
            tcp.write_all(answer).unwrap();
            while waits && tcp.read(&mut buffer).is_ok_and(|read| read > 0) {}
        }
    });
    address
}

#[test]
fn an_answer_may_come_before_its_request_is_read() {
    story(async {
        for waits in [true, false] {
            let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
            let address = refuses(answer, waits);
            let (upstreams, cluster) = reaching(cluster(), &[address]);
            let down = down();
            let choice = Choice::new(&down);
            for _ in 0..if waits { 2 } else { 200 } {
                let request = post(Bytes::from(vec![0; 16 << 20]));
                let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), request);
                let sent = sending.await.unwrap();
                assert_eq!(sent.response.status(), StatusCode::PAYLOAD_TOO_LARGE);
                assert!(
                    !sent.reused,
                    "what was left unsent can't be followed by a request"
                );
            }
        }
    });
}

#[test]
fn an_answer_that_ends_with_its_connection_is_not_whole_after_a_reset() {
    story(async {
        let answer = b"HTTP/1.1 413 Too Large\r\n\r\nperhaps not all";
        let address = refuses(answer, false);
        let (upstreams, cluster) = reaching(cluster(), &[address]);
        let down = down();
        let choice = Choice::new(&down);
        for _ in 0..100 {
            let request = post(Bytes::from(vec![0; 16 << 20]));
            let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), request);
            let sent = sending.await.unwrap();
            assert_eq!(sent.response.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert!(sent.response.into_body().collect().await.is_err());
        }
    });
}

#[test]
fn an_upgraded_connection_is_handed_over() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = tcp.read(&mut buffer).await.unwrap();
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                upgrade: echo\r\n\r\n";
            tcp.write_all(answer).await.unwrap();
            let (mut read, mut write) = tcp.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let (upstreams, cluster) = reaching(cluster(), &[address]);
        let down = down();
        let choice = Choice::new(&down);
        let mut request = get("/");
        let headers = request.headers_mut();
        headers.insert("connection", "upgrade".parse().unwrap());
        headers.insert("upgrade", "echo".parse().unwrap());
        let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), request);
        let mut sent = sending.await.unwrap();
        assert_eq!(sent.response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upgraded = hyper::upgrade::on(&mut sent.response).await.unwrap();
        let mut io = TokioIo::new(upgraded);
        io.write_all(b"echo").await.unwrap();
        let mut back = [0; 4];
        io.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"echo");
    });
}

#[test]
fn resting_connections_are_closed_when_their_endpoint_goes() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ended = spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = tcp.read(&mut buffer).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            tcp.write_all(answer).await.unwrap();
            tcp.read(&mut buffer).await
        });
        let other = named("other").await;
        let (upstreams, cluster) = reaching(cluster(), &[address]);
        assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "ok");
        assert!(!ended.is_finished());
        let set = endpoints(vec![endpoint(other.address)]);
        cluster.endpoints.store(std::sync::Arc::new(set));
        assert_eq!(
            text(ask(&upstreams, &cluster).await.unwrap()).await,
            "other"
        );
        until(|| ended.is_finished()).await;
        assert_eq!(ended.await.unwrap().unwrap(), 0, "closed, not reset");
    });
}
