//! gRPC-Web in front of a gRPC service: texts in pieces, messages that go on as they come, and what
//! becomes of what isn't gRPC.

use std::cell::RefCell;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::world::{Answer, World, answer, backend2, run, text};
use crate::http::testing::{all, chain, cluster, forward};
use crate::model::cluster::UpstreamProtocol;
use crate::model::http::{HttpChain, HttpFilter};
use crate::model::route::RouteAction;

const TEXT: &str = "application/grpc-web-text+proto";

/// A piece of a body from outside.
type Piece = Result<Frame<Bytes>, std::io::Error>;

fn filtered() -> HttpChain {
    let mut chain = chain(vec![all(RouteAction::Forward(Box::new(forward())))]);
    chain.filters = vec![HttpFilter::GrpcWeb];
    chain
}

async fn world<F>(answer: impl Fn(Request<Incoming>) -> F + 'static) -> World
where
    F: Future<Output = Answer> + 'static,
{
    let address = backend2(answer).await;
    let clusters = move || vec![cluster("backend", UpstreamProtocol::Http2, &[address])];
    World::with(filtered(), clusters).await
}

fn message(text: &str) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

/// A request whose body is what is sent.
fn ask() -> (
    UnboundedSender<Piece>,
    Request<StreamBody<UnboundedReceiverStream<Piece>>>,
) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let request = Request::post("/shop.Cart/Add").header("host", "shop");
    let request = request.header("content-type", TEXT).header("accept", TEXT);
    let body = StreamBody::new(UnboundedReceiverStream::new(pieces));
    (sender, request.body(body).unwrap())
}

fn piece(text: &str) -> Piece {
    Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))
}

async fn next(answer: &mut Response<Incoming>) -> String {
    let frame = answer.body_mut().frame().await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[test]
fn messages_go_on_as_they_come_both_ways() {
    run(async {
        // The backend says each message back before it reads on.
        let seen = Rc::new(RefCell::new(HeaderMap::new()));
        let heads = Rc::clone(&seen);
        let world = world(move |request| {
            heads.borrow_mut().clone_from(request.headers());
            let frames = request.into_body().into_data_stream();
            let back = frames.map(|data| data.map(Frame::data));
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            let ended = futures_util::stream::iter([Ok(Frame::trailers(trailers))]);
            let mut answer = Response::new(BodyExt::boxed(StreamBody::new(back.chain(ended))));
            let grpc = HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert("content-type", grpc);
            async move { answer }
        })
        .await;
        let (pieces, request) = ask();
        let mut client = world.client().await;
        let first = STANDARD.encode(message("hello"));
        // Neither piece ends where a group of four does.
        pieces.send(piece(&first[..3])).unwrap();
        pieces.send(piece(&first[3..10])).unwrap();
        pieces.send(piece(&first[10..])).unwrap();
        let mut answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], TEXT);
        assert!(!answer.headers().contains_key("content-length"));
        let mut told = String::new();
        while told.len() < first.len() {
            told.push_str(&next(&mut answer).await);
        }
        assert_eq!(told, first);
        {
            let seen = seen.borrow();
            assert_eq!(seen["content-type"], "application/grpc");
            assert_eq!(seen["te"], "trailers");
            assert!(!seen.contains_key("content-length"));
        }
        let second = STANDARD.encode(message("again"));
        pieces.send(piece(&second)).unwrap();
        drop(pieces);
        let rest = text(answer).await;
        let trailers = STANDARD.encode(b"\x80\0\0\0\x0fgrpc-status:0\r\n");
        assert_eq!(rest, [second, trailers].concat());
    });
}

#[test]
fn text_that_is_none_is_refused_also_after_the_request_went_on() {
    run(async {
        let world = world(|request| async move {
            // It waits for all of the request, which never comes.
            let _ = request.into_body().collect().await;
            answer("never")
        })
        .await;
        for pieces in [["AAAA", "AA*A"], ["AAAA", "AA"]] {
            let (sender, request) = ask();
            for text in pieces {
                sender.send(piece(text)).unwrap();
            }
            drop(sender);
            let mut client = world.client().await;
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{pieces:?}");
            let headers = answer.headers();
            assert_eq!(headers["grpc-status"], "13");
            let said = "Bad gRPC-web request, invalid base64 data.";
            assert_eq!(headers["grpc-message"], said);
            assert_eq!(headers["content-type"], TEXT);
            assert_eq!(text(answer).await, "");
        }
    });
}

#[test]
fn an_answer_that_is_no_grpc_is_told_in_the_head_as_far_as_it_is_told() {
    run(async {
        let world = world(|_| async move {
            let frames = ["x", "y"].map(|of| Ok(Frame::data(Bytes::from(of.repeat(9_000)))));
            let frames = futures_util::stream::iter(frames);
            let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
            *answer.status_mut() = StatusCode::FORBIDDEN;
            answer
        })
        .await;
        let (_, request) = ask();
        let mut client = world.client().await;
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let headers = answer.headers();
        assert_eq!(headers["grpc-status"], "7");
        assert_eq!(headers["content-length"], "0");
        let said = headers["grpc-message"].to_str().unwrap();
        assert_eq!((said.len(), said.find('y')), (16 << 10, Some(9_000)));
        assert_eq!(text(answer).await, "");
    });
}
