//! Requests that are forwarded, redirected, answered here or refused.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;

use super::world::{World, answer, backend, echo, either, full, run, text};
use crate::http::testing::{all, chain, cluster, forward, route};
use crate::model::cluster::UpstreamProtocol;
use crate::model::http::HttpFilter;
use crate::model::route::{
    Destination, Forward, PathMatch, PathRewrite, Redirect, RedirectPath, RouteAction, RouteMatch,
};
use crate::model::text::TextMatch;

fn to_backend() -> RouteAction {
    RouteAction::Forward(Box::new(forward()))
}

fn prefix(path: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Text(TextMatch::prefix(path)),
        ..RouteMatch::default()
    }
}

#[test]
fn a_request_goes_through_and_comes_back() {
    run(async {
        let world = World::new(chain(vec![all(to_backend())]), echo().await).await;
        let mut client = world.client().await;
        for number in 0..3 {
            let request = Request::post(format!("/path?n={number}"))
                .header("host", "reviews")
                .header("x-request-id", "1")
                .body(full("hello"))
                .unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let headers = answer.headers();
            assert_eq!(headers["server"], "culvert");
            assert!(headers.contains_key("x-envoy-upstream-service-time"));
            assert!(headers.contains_key("date"));
            let expected = format!(
                "POST /path?n={number}\ncontent-length: 5\nhost: reviews\n\
                 x-forwarded-proto: http\nx-request-id: 1\n\nhello"
            );
            assert_eq!(text(answer).await, expected);
        }
    });
}

#[test]
fn a_cluster_may_be_spoken_to_as_its_client_speaks() {
    run(async {
        let address = either().await;
        let clusters = move || vec![cluster("backend", UpstreamProtocol::Downstream, &[address])];
        let world = World::with(chain(vec![all(to_backend())]), clusters).await;
        let request = || Request::get("http://reviews/").header("host", "reviews");
        let request = || request().body(Empty::<Bytes>::new()).unwrap();
        let mut older = world.client().await;
        let mut newer = world.client2().await;
        for _ in 0..2 {
            let answer = older.send_request(request()).await.unwrap();
            assert_eq!(text(answer).await, "HTTP/1.1");
            let answer = newer.send_request(request()).await.unwrap();
            assert_eq!(text(answer).await, "HTTP/2.0");
        }
    });
}

#[test]
fn what_is_answered_here_is_worded_as_envoy_does() {
    run(async {
        let redirect = Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: Some("https".into()),
            host: None,
            port: None,
            path: RedirectPath::Prefix("/new".into()),
            strip_query: false,
        };
        let direct = RouteAction::Direct {
            status: StatusCode::IM_A_TEAPOT,
            body: Bytes::from_static(b"short and stout"),
        };
        let elsewhere = Forward {
            to: Destination::Cluster("nobody".into()),
            ..forward()
        };
        let empty = Forward {
            to: Destination::Cluster("empty".into()),
            ..forward()
        };
        let refusing = Forward {
            to: Destination::Cluster("refusing".into()),
            ..forward()
        };
        let routes = vec![
            route(prefix("/old"), RouteAction::Redirect(Box::new(redirect))),
            route(prefix("/tea"), direct),
            route(
                prefix("/elsewhere"),
                RouteAction::Forward(Box::new(elsewhere)),
            ),
            route(prefix("/empty"), RouteAction::Forward(Box::new(empty))),
            route(
                prefix("/refusing"),
                RouteAction::Forward(Box::new(refusing)),
            ),
        ];
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let clusters = move || {
            vec![
                cluster("empty", UpstreamProtocol::Http1, &[]),
                cluster("refusing", UpstreamProtocol::Http1, &[address]),
            ]
        };
        let world = World::with(chain(routes), clusters).await;
        let ask = |path: &str, more: &str| {
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}\r\n")
        };
        for (request, status, part) in [
            (ask("/none", ""), "404 Not Found", "content-length: 0"),
            (
                ask("/old/x?y", ""),
                "301 Moved Permanently",
                "location: https://a/new/x?y\r\n",
            ),
            (
                ask("/tea", ""),
                "418 I'm a teapot",
                "\r\n\r\nshort and stout",
            ),
            (
                ask("/elsewhere", ""),
                "503 Service Unavailable",
                "content-length: 0",
            ),
            (
                ask("/empty", ""),
                "503 Service Unavailable",
                "\r\n\r\nno healthy upstream",
            ),
            (
                ask("/refusing", ""),
                "503 Service Unavailable",
                "upstream connect error or disconnect/reset before headers. reset reason: remote \
                 connection failure, transport failure reason: delayed connect error: Connection \
                 refused",
            ),
            (
                ask("/empty", "content-type: application/grpc\r\n"),
                "200 OK",
                "grpc-status: 14\r\ngrpc-message: no healthy upstream\r\n",
            ),
            (
                ask("/tea", "connection: upgrade\r\nupgrade: other\r\n"),
                "403 Forbidden",
                "content-length: 0",
            ),
            (
                "GET / HTTP/1.0\r\n\r\n".to_owned(),
                "426 Upgrade Required",
                "content-length: 0",
            ),
            (
                "GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(),
                "400 Bad Request",
                "content-length: 0",
            ),
        ] {
            let answer = world.raw(&request).await;
            let line = answer.lines().next().unwrap();
            assert_eq!(
                line.split_once(' ').unwrap().1,
                status,
                "{request}\n{answer}"
            );
            assert!(answer.contains(part), "{request}\n{answer}");
        }
    });
}

#[test]
fn paths_are_rewritten_and_the_old_one_is_told() {
    run(async {
        let to = Forward {
            path: PathRewrite::Prefix("/v2".into()),
            ..forward()
        };
        let routes = vec![route(prefix("/api"), RouteAction::Forward(Box::new(to)))];
        let world = World::new(chain(routes), echo().await).await;
        let answer = world
            .raw("GET /api/a?b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        assert!(answer.contains("GET /v2/a?b\n"), "{answer}");
        assert!(
            answer.contains("x-envoy-original-path: /api/a?b\n"),
            "{answer}"
        );
    });
}

#[test]
fn trailers_go_both_ways_between_http2_and_http2() {
    run(async {
        let address = super::world::backend2(|request| async move {
            let collected = request.into_body().collect().await.unwrap();
            let said = collected
                .trailers()
                .map(super::world::lines)
                .unwrap_or_default();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("x-heard", said.trim().parse().unwrap());
            let frames = [
                Ok(Frame::data(Bytes::from_static(b"data"))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            http::Response::new(BodyExt::boxed(body))
        })
        .await;
        let clusters = move || vec![cluster("backend", UpstreamProtocol::Http2, &[address])];
        let world = World::with(chain(vec![all(to_backend())]), clusters).await;
        let mut client = world.client2().await;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-said", "this".parse().unwrap());
        let frames = [
            Ok::<_, hyper::Error>(Frame::data(Bytes::from_static(b"a"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post("http://a/")
            .header("te", "trailers")
            .body(body);
        let answer = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let collected = answer.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-heard"], "x-said: this");
        assert_eq!(collected.to_bytes(), "data");
    });
}

#[test]
fn a_chain_that_cannot_be_served_answers_with_an_error_and_asks_nobody() {
    run(async {
        let mut chain = chain(vec![all(to_backend())]);
        chain.filters = vec![HttpFilter::Refused];
        let world = World::new(chain, echo().await).await;
        for head in ["GET /", "POST /x", "OPTIONS /"] {
            let answer = world
                .raw(&format!(
                    "{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
                ))
                .await;
            assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
            assert!(
                answer.ends_with("configuration of this service"),
                "{answer}"
            );
        }
    });
}

#[test]
fn head_has_the_length_and_no_body() {
    run(async {
        let address = backend(|_| async { answer("four") }).await;
        let world = World::new(chain(vec![all(to_backend())]), address).await;
        let answer = world
            .raw("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        assert!(answer.contains("content-length: 4\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn expect_is_answered_before_the_body_is_sent() {
    run(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let world = World::new(chain(vec![all(to_backend())]), echo().await).await;
        let mut tcp = world.connect().await;
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
        tcp.write_all(head).await.unwrap();
        let mut first = [0; 25];
        tcp.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
        tcp.write_all(b"hi").await.unwrap();
        let mut rest = String::new();
        tcp.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("\n\nhi"), "{rest}");
    });
}

#[test]
fn a_websocket_becomes_a_pipe() {
    run(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = backend(|mut request| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::task::spawn_local(async move {
                let upgraded = upgrade.await.unwrap();
                let mut io = hyper_util::rt::TokioIo::new(upgraded);
                let mut word = [0; 4];
                io.read_exact(&mut word).await.unwrap();
                assert_eq!(&word, b"ping");
                io.write_all(b"pong").await.unwrap();
                io.shutdown().await.unwrap();
            });
            let response = http::Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "websocket");
            response.body(full("")).unwrap()
        })
        .await;
        let world = World::new(chain(vec![all(to_backend())]), address).await;
        let mut client = world.client::<Empty<Bytes>>().await;
        let request = Request::get("/")
            .header("host", "a")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket");
        let answer = client.send_request(request.body(Empty::new()).unwrap());
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["upgrade"], "websocket");
        let upgraded = hyper::upgrade::on(&mut answer).await.unwrap();
        let mut io = hyper_util::rt::TokioIo::new(upgraded);
        io.write_all(b"ping").await.unwrap();
        let mut heard = String::new();
        io.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "pong");
    });
}
