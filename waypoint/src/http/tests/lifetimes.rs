//! How long things count as under way: a request until its answer has gone, a connection until its last
//! request, or the pipe that it became, is over. And where a request ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::world::{World, answer, backend, echo, full, run, text};
use crate::http::testing::{all, chain, forward};
use crate::model::format::Format;
use crate::model::http::HttpChain;
use crate::model::route::{HeaderChanges, HeaderSet, RouteAction, SetAction};

fn to_backend() -> HttpChain {
    chain(vec![all(RouteAction::Forward(Box::new(forward())))])
}

fn get() -> Request<Empty<Bytes>> {
    let request = Request::get("/").header("host", "a");
    request.body(Empty::new()).unwrap()
}

#[test]
fn a_connection_does_not_rest_while_its_answer_comes() {
    const IDLE: Duration = Duration::from_millis(400);
    run(async {
        // Its body takes longer than a connection may be idle.
        let address = backend(|_| async {
            let slow = async {
                tokio::time::sleep(IDLE * 2).await;
                Ok::<_, hyper::Error>(Frame::data(Bytes::from_static(b"slow")))
            };
            let body = StreamBody::new(futures_util::stream::once(slow));
            http::Response::new(BodyExt::boxed(body))
        })
        .await;
        let mut chain = to_backend();
        chain.limits.idle = Some(IDLE);
        let world = World::new(chain, address).await;
        let mut client = world.client().await;
        for turn in 1..=2 {
            let answered = client.send_request(get()).await;
            let answered = answered.unwrap_or_else(|error| panic!("request {turn}: {error}"));
            assert_eq!(text(answered).await, "slow");
        }
        // It is let go once it rests.
        while client.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_pipe_is_a_connection_until_it_ends() {
    run(async {
        let (go, end) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (going, ending) = (go.clone(), end.clone());
        let address = backend(move |mut request| {
            let (going, ending) = (going.clone(), ending.clone());
            async move {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::task::spawn_local(async move {
                    let mut io = TokioIo::new(upgrade.await.unwrap());
                    going.notified().await;
                    io.write_all(b"word").await.unwrap();
                    ending.notified().await;
                });
                let response = http::Response::builder()
                    .status(101)
                    .header("connection", "upgrade")
                    .header("upgrade", "websocket");
                response.body(full("")).unwrap()
            }
        })
        .await;
        let world = World::new(to_backend(), address).await;
        while world.workers.load() > 0 {
            tokio::task::yield_now().await;
        }
        let mut client = world.client::<Empty<Bytes>>().await;
        let request = Request::get("/")
            .header("host", "a")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket");
        let mut answered = client
            .send_request(request.body(Empty::new()).unwrap())
            .await
            .unwrap();
        assert_eq!(answered.status(), 101);
        let mut io = TokioIo::new(hyper::upgrade::on(&mut answered).await.unwrap());
        go.notify_one();
        let mut word = [0; 4];
        io.read_exact(&mut word).await.unwrap();
        // It has its seat, and a drain waits for it.
        assert_eq!(world.workers.load(), 1);
        end.notify_one();
        drop(io);
        world.workers.idle().await;
        assert_eq!(world.workers.load(), 0);
    });
}

#[test]
fn a_body_ends_where_it_ends_whatever_length_is_set() {
    run(async {
        let mut route = all(RouteAction::Forward(Box::new(forward())));
        Arc::get_mut(&mut route).unwrap().headers = HeaderChanges {
            request_set: vec![HeaderSet {
                name: http::header::CONTENT_LENGTH,
                value: Format::literal("2"),
                action: SetAction::Overwrite,
                keep_empty: false,
            }],
            ..HeaderChanges::default()
        }
        .into();
        let world = World::new(chain(vec![route]), echo().await).await;
        let smuggled = "xxGET /admin HTTP/1.1\r\nhost: a\r\n\r\n";
        let request = Request::post("/").header("host", "a");
        let request = request.body(full(smuggled)).unwrap();
        let answered = world.client().await.send_request(request).await.unwrap();
        let told = text(answered).await;
        assert!(told.ends_with(smuggled), "{told}");
        let length = format!("content-length: {}\n", smuggled.len());
        assert_eq!(told.matches("content-length").count(), 1, "{told}");
        assert!(told.contains(&length), "{told}");
    });
}

#[test]
fn a_body_that_comes_behind_its_answer_is_no_head() {
    const LIMIT: Duration = Duration::from_millis(200);
    run(async {
        let address = backend(|request| async move {
            match request.uri().path() {
                // The answer is the request's own body: its head comes at once.
                "/back" => http::Response::new(request.into_body().boxed()),
                _ => answer("next"),
            }
        })
        .await;
        let mut chain = to_backend();
        chain.limits.request_headers = Some(LIMIT);
        let world = World::new(chain, address).await;
        let mut tcp = world.connect().await;
        let mut heard = Vec::new();
        let head =
            b"POST /back HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
        tcp.write_all(head).await.unwrap();
        while !heard.ends_with(b"1\r\na\r\n") {
            assert!(tcp.read_buf(&mut heard).await.unwrap() > 0);
        }
        tcp.write_all(b"2\r\n#b\r\n").await.unwrap();
        while !heard.ends_with(b"2\r\n#b\r\n") {
            assert!(tcp.read_buf(&mut heard).await.unwrap() > 0);
        }
        // While more time passes than a head may take, on another connection.
        let late = world.raw("GET / HTTP/1.1\r\n").await;
        assert!(late.contains(" 408 "), "{late}");
        tcp.write_all(b"0\r\n\r\n").await.unwrap();
        while !heard.ends_with(b"\r\n0\r\n\r\n") {
            let more = tcp.read_buf(&mut heard).await.unwrap();
            assert!(more > 0, "{}", String::from_utf8_lossy(&heard));
        }
        // Nor is it looked through for what a head must not have.
        let next = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        tcp.write_all(next).await.unwrap();
        tcp.read_to_end(&mut heard).await.unwrap();
        let heard = String::from_utf8_lossy(&heard);
        assert!(
            !heard.contains(" 408 ") && heard.ends_with("next"),
            "{heard}"
        );
    });
}
