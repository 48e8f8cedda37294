//! Heads that come slowly, or never to their end, and answers that nobody takes.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{World, backend, echo, run, text};
use crate::http::testing::{all, chain, forward};
use crate::model::http::{HttpChain, HttpLimits};
use crate::model::route::{Forward, RouteAction};

const LIMIT: Duration = Duration::from_millis(200);
const BEGINNING: &str = "GET / HTTP/1.1\r\nhost: a\r\nx-slow: ";

fn limited(limit: impl Fn(&mut HttpLimits)) -> HttpChain {
    let mut chain = chain(vec![all(RouteAction::Forward(Box::new(forward())))]);
    limit(&mut chain.limits);
    chain
}

/// A limit, what is answered when a head comes to it, and the counter that says so.
type Case = (fn(&mut HttpLimits), &'static str, &'static str);

#[test]
fn a_head_that_never_ends_is_answered_and_counted() {
    let cases: [Case; 3] = [
        (
            |limits| limits.request_headers = Some(LIMIT),
            "request header timeout",
            "rq_header_timeout",
        ),
        (
            |limits| limits.request = Some(LIMIT),
            "request timeout",
            "rq_timeout",
        ),
        (
            |limits| limits.stream_idle = Some(LIMIT),
            "stream timeout",
            "rq_idle_timeout",
        ),
    ];
    for (limit, body, counter) in cases {
        run(async move {
            let world = World::new(limited(limit), echo().await).await;
            let answer = world.raw(BEGINNING).await;
            assert!(
                answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
                "{answer}"
            );
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
            let metrics = world.metrics();
            for name in [counter, "rq_total"] {
                let start = format!("envoy_http_downstream_{name}{{");
                let counted = |line: &str| line.starts_with(&start) && line.ends_with(" 1");
                assert!(metrics.lines().any(counted), "{name} isn't 1 in {metrics}");
            }
        });
    }
}

#[test]
fn an_answer_that_nobody_takes_is_broken_off_in_time() {
    struct Gone(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let whole = || {
        let forward = Forward {
            timeout: Some(LIMIT),
            ..forward()
        };
        chain(vec![all(RouteAction::Forward(Box::new(forward)))])
    };
    let idle = || limited(|limits| limits.stream_idle = Some(LIMIT));
    let all = [Version::HTTP_11, Version::HTTP_2];
    let all = all.map(|version| [(version, whole()), (version, idle())]);
    for (version, chain) in all.into_iter().flatten() {
        run(async move {
            let (gone, hears) = tokio::sync::oneshot::channel();
            let once = Cell::new(Some(Gone(Some(gone))));
            let address = backend(move |_| {
                let gone = once.take();
                let endless = futures_util::stream::repeat_with(move || {
                    let _until = &gone;
                    Ok::<_, hyper::Error>(Frame::data(Bytes::from_static(&[7; 64 << 10])))
                });
                async { http::Response::new(BodyExt::boxed(StreamBody::new(endless))) }
            })
            .await;
            let world = World::new(chain, address).await;
            if version == Version::HTTP_2 {
                let mut client = world.client2().await;
                let request = Request::get("http://a/").body(Empty::<Bytes>::new());
                let answer = client.send_request(request.unwrap()).await.unwrap();
                hears.await.unwrap();
                // It hears that it has not got the whole.
                answer.into_body().collect().await.unwrap_err();
                drop(client);
            } else {
                let mut tcp = world.connect().await;
                let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
                tcp.write_all(request).await.unwrap();
                hears.await.unwrap();
                // Its connection goes with it, which it still holds.
                world.workers.idle().await;
            }
        });
    }
}

#[test]
fn a_connection_that_rests_is_not_late() {
    run(async {
        let chain = limited(|limits| limits.request_headers = Some(LIMIT));
        let world = World::new(chain, echo().await).await;
        let mut client = world.client().await;
        for _ in 0..2 {
            let request = Request::get("/").header("host", "a");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            text(answer).await;
            // While somebody else's time passes, nothing happens here.
            assert!(world.raw(BEGINNING).await.contains(" 408 "));
        }
    });
}

#[test]
fn each_head_has_its_own_time() {
    run(async {
        let chain = limited(|limits| limits.request_headers = Some(LIMIT));
        let world = World::new(chain, echo().await).await;
        let mut tcp = world.connect().await;
        let (mut answers, mut heads) = (Vec::new(), 0);
        let begun = std::time::Instant::now();
        // Longer than any of them may take.
        while begun.elapsed() < LIMIT * 3 {
            tcp.write_all(BEGINNING.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
            tcp.write_all(b"\r\n\r\n").await.unwrap();
            heads += 1;
            let all = |answers: &[u8]| {
                let text = String::from_utf8_lossy(answers);
                text.matches("x-slow: ").count() == heads
            };
            while !all(&answers) {
                assert!(
                    tcp.read_buf(&mut answers).await.unwrap() > 0,
                    "{heads} heads"
                );
            }
        }
        assert!(!String::from_utf8_lossy(&answers).contains(" 408 "));
    });
}
