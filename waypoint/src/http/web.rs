//! gRPC-Web on a request's way: it goes on as gRPC, and an answer that is neither is read here, within
//! the request's time, because what it says has to stand in the head.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use http_body::Body;

use super::answer::Answered;
use super::attempts::{expire, unreadable};
use super::body::{BodyError, how};
use super::flow::Flow;
use super::reply::Reply;
use crate::grpc::web::{self, MOST_WORDS, Web};

/// Makes a gRPC request of one of gRPC-Web.
pub(super) fn translate(flow: &mut Flow<'_>) -> Result<(), Reply> {
    if flow.asked.path.is_none() || flow.asked.upgrade.is_some() {
        return Ok(());
    }
    let Some(web) = Web::translate(&mut flow.asked.headers) else {
        return Ok(());
    };
    flow.grpc = true;
    flow.flight.exchange.borrow_mut().is_grpc = true;
    flow.afterwards.web = Some(web);
    flow.flight.limit(|limit| limit.readable = web.asks_in_text);
    let translated = flow
        .body
        .as_mut()
        .map_or(Ok(()), |body| body.translate(web));
    translated.map_err(|error| match error {
        BodyError::Unreadable(why) => unreadable(why),
        error => Reply::new(StatusCode::BAD_REQUEST, error.to_string(), "internal"),
    })
}

/// Whether a caller of gRPC-Web could make nothing of an answer.
pub(super) fn is_foreign(flow: &Flow<'_>, answered: &Answered) -> bool {
    let response = &answered.response;
    flow.afterwards.web.is_some()
        && answered.handover.is_none()
        && !response.body().is_end_stream()
        && web::is_foreign(response.status(), response.headers())
}

/// Reads a foreign answer to its end: what it says is kept as far as it is told, the rest passed over.
pub(super) async fn read(flow: &mut Flow<'_>, mut answered: Answered) -> Result<Answered, Reply> {
    let mut words = BytesMut::new();
    let body = answered.response.body_mut();
    loop {
        let flight = &flow.flight;
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => flight.poll_expired(cx).map(Err),
        });
        match frame.await {
            Ok(Some(Ok(frame))) => {
                if let Ok(mut data) = frame.into_data() {
                    data.truncate(MOST_WORDS - words.len());
                    words.extend_from_slice(data.chunk());
                }
            }
            Ok(None) => break,
            // Nothing has been sent yet, so that the client can still be told.
            Ok(Some(Err(error))) => return Err(broke(&error)),
            Err(expired) => return Err(expire(expired, true)),
        }
    }
    flow.afterwards.words = Some(words.freeze());
    Ok(answered)
}

/// What is answered where an answer's body breaks off before its head was sent on.
pub(super) fn broke(error: &hyper::Error) -> Reply {
    let (flag, details) = how(error);
    let body = "upstream connect error or disconnect/reset before the answer's end";
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, body, details).flag(flag)
}
