//! What happens over time: pushes, drains, time-outs, retries, clients that go away, large bodies.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{World, answer, backend, echo, full, run, text};
use crate::http::testing::{all, chain, forward};
use crate::model::http::HttpFilter;
use crate::model::policy::{Action, Rbac, Rules};
use crate::model::route::{Forward, Retry, RetryOn, RouteAction};
use crate::worker::Drain;

fn to(forward: Forward) -> RouteAction {
    RouteAction::Forward(Box::new(forward))
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header("host", "a");
    request.body(Empty::new()).unwrap()
}

pub(super) fn retry(on: RetryOn, retries: u32) -> Arc<Retry> {
    Arc::new(Retry {
        on,
        retries,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
        headers: Vec::new(),
        request_headers: Vec::new(),
        avoid_previous_hosts: false,
        host_attempts: 1,
        previous_priorities: None,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
    })
}

#[test]
fn a_push_counts_from_the_next_request_on_an_open_connection() {
    run(async {
        let world = World::new(chain(vec![all(to(forward()))]), echo().await).await;
        let mut client = world.client().await;
        let answered = client.send_request(get("/")).await.unwrap();
        assert_eq!(answered.status(), 200);
        text(answered).await;
        let mut denying = chain(vec![all(to(forward()))]);
        let nobody = Rbac {
            rules: Some(Rules {
                action: Action::Allow,
                policies: Vec::new(),
            }),
            ..Rbac::default()
        };
        denying.filters = vec![HttpFilter::Rbac(Arc::new(nobody))];
        world.push(denying);
        let answered = client.send_request(get("/")).await.unwrap();
        assert_eq!(answered.status(), 403);
        assert_eq!(text(answered).await, "RBAC: access denied");
    });
}

#[test]
fn a_drain_ends_idle_connections_and_finishes_requests() {
    run(async {
        let (asked, hears) = tokio::sync::oneshot::channel();
        let (go, waits) = tokio::sync::oneshot::channel::<()>();
        let once = Rc::new(Cell::new(Some((asked, waits))));
        let address = backend(move |_| {
            let once = once.clone();
            async move {
                let (asked, waits) = once.take().unwrap();
                asked.send(()).unwrap();
                waits.await.unwrap();
                answer("done")
            }
        })
        .await;
        let world = World::new(chain(vec![all(to(forward()))]), address).await;
        let mut idle = world.connect().await;
        let mut client = world.client().await;
        let request = tokio::task::spawn_local(client.send_request(get("/")));
        hears.await.unwrap();
        world.workers.drain().await;
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        go.send(()).unwrap();
        let answered = request.await.unwrap().unwrap();
        assert_eq!(answered.headers()["connection"], "close");
        assert_eq!(text(answered).await, "done");
        world.workers.idle().await;
    });
}

#[test]
fn listeners_that_are_closed_leave_open_connections_alone() {
    run(async {
        let world = World::new(chain(vec![all(to(forward()))]), echo().await).await;
        let mut client = world.client().await;
        text(client.send_request(get("/")).await.unwrap()).await;
        world.listeners.ask(Drain::AtOnce);
        world.closed().await;
        // A push opens nothing again.
        world.push(chain(vec![all(to(forward()))]));
        for _ in 0..2 {
            let answered = client.send_request(get("/")).await.unwrap();
            assert_eq!(answered.headers().get("connection"), None);
            assert_eq!(answered.status(), 200);
            text(answered).await;
        }
        world.closed().await;
    });
}

#[test]
fn listeners_that_are_drained_accept_until_their_time_is_over() {
    run(async {
        let world = World::new(chain(vec![all(to(forward()))]), echo().await).await;
        let mut idle = world.connect().await;
        world
            .raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        world.listeners.ask(Drain::Gracefully);
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        let late = world.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(late.starts_with("HTTP/1.1 200 OK"), "{late}");
        assert!(late.contains("connection: close"), "{late}");
        world.closed().await;
    });
}

#[test]
fn a_connection_without_a_request_still_gets_its_first_one_answered_in_a_drain() {
    run(async {
        let world = World::new(chain(vec![all(to(forward()))]), echo().await).await;
        let mut tcp = world.connect().await;
        // Something must have been served, so that the worker has taken the connection.
        world
            .raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        world.workers.drain().await;
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    });
}

#[test]
fn lengths_beside_chunks_are_refused() {
    run(async {
        let world = World::new(chain(vec![all(to(forward()))]), echo().await).await;
        let answer = world
            .raw("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let fragment = world.raw("GET /a#b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(fragment.await.starts_with("HTTP/1.1 400"));
    });
}

#[test]
fn a_client_that_goes_away_takes_its_upstream_request_along() {
    run(async {
        struct Gone(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let (gone, hears) = tokio::sync::oneshot::channel();
        let (asked, begun) = tokio::sync::oneshot::channel();
        let once = Rc::new(Cell::new(Some((asked, Gone(Some(gone))))));
        let address = backend(move |_| {
            let once = once.clone();
            async move {
                let (asked, _gone) = once.take().unwrap();
                asked.send(()).unwrap();
                std::future::pending().await
            }
        })
        .await;
        let world = World::new(chain(vec![all(to(forward()))]), address).await;
        let mut tcp = world.connect().await;
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        begun.await.unwrap();
        drop(tcp);
        hears.await.unwrap();
    });
}

#[test]
fn a_request_that_takes_too_long_ends_as_such() {
    run(async {
        let address = backend(|_| std::future::pending()).await;
        let to = to(Forward {
            timeout: Some(Duration::from_millis(50)),
            ..forward()
        });
        let world = World::new(chain(vec![all(to)]), address).await;
        let mut client = world.client().await;
        let answered = client.send_request(get("/")).await.unwrap();
        assert_eq!(answered.status(), 504);
        assert_eq!(text(answered).await, "upstream request timeout");
    });
}

#[test]
fn a_request_with_its_body_is_tried_again_where_the_route_says_so() {
    run(async {
        let times = Rc::new(Cell::new(0));
        let counted = times.clone();
        let address = backend(move |request| {
            let times = counted.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                times.set(times.get() + 1);
                let mut answer = answer(std::str::from_utf8(&body).unwrap());
                if times.get() < 3 {
                    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                answer
            }
        })
        .await;
        let on = RetryOn {
            retriable_status_codes: true,
            ..RetryOn::default()
        };
        let route = |retries| {
            all(to(Forward {
                retry: Some(retry(on, retries)),
                ..forward()
            }))
        };
        let world = World::new(chain(vec![route(2)]), address).await;
        let mut client = world.client().await;
        let post = || {
            Request::post("/")
                .header("host", "a")
                .body(full("body"))
                .unwrap()
        };
        let answered = client.send_request(post()).await.unwrap();
        assert_eq!((answered.status(), times.get()), (StatusCode::OK, 3));
        assert_eq!(text(answered).await, "body");
        times.set(0);
        world.push(chain(vec![route(1)]));
        let answered = client.send_request(post()).await.unwrap();
        assert_eq!((answered.status().as_u16(), times.get()), (503, 2));
    });
}

#[test]
fn a_large_body_streams_through_without_being_held() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 2400;
    run(async {
        let address = backend(|request| async move {
            // The answer is the request's own body: both directions stream at once.
            http::Response::new(request.into_body().boxed())
        })
        .await;
        let world = World::new(chain(vec![all(to(forward()))]), address).await;
        let mut client = world.client().await;
        let sent = Rc::new(Cell::new(0_usize));
        let (counter, chunk) = (sent.clone(), Bytes::from(vec![7; CHUNK]));
        let frames = futures_util::stream::iter((0..CHUNKS).map(move |_| {
            counter.set(counter.get() + CHUNK);
            Ok::<_, hyper::Error>(Frame::data(chunk.clone()))
        }));
        let request = Request::post("/").header("host", "a");
        let request = request.body(StreamBody::new(frames)).unwrap();
        let answered = client.send_request(request).await.unwrap();
        let mut body = answered.into_body();
        let (mut received, mut held) = (0, 0);
        while let Some(frame) = body.frame().await {
            received += frame.unwrap().into_data().unwrap().len();
            held = held.max(sent.get().saturating_sub(received));
        }
        assert_eq!(received, CHUNK * CHUNKS);
        // What is under way is in the buffers of eight sockets and a few of ours, not the body.
        assert!(held < 64 << 20, "{held} bytes were under way");
    });
}
