//! A call or stream of gRPC that a plugin makes, from its first message to its status: what the other
//! side sends is told in the order and with the statuses that Envoy's client of gRPC has.

use std::ops::ControlFlow;

use bytes::{Buf as _, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tracing::debug;

use crate::grpc::{self, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN};
use crate::http::RequestBody;
use crate::http::own;
use crate::route::timeout::{GRPC_TIMEOUT, to_grpc_timeout};
use crate::upstream::Received;
use crate::wasm::MOST_HELD;
use crate::wasm::calls::{AskGrpc, Heard, Listener};
use crate::worker::Local;

/// The other side has said all, or nobody listens any more.
type Step = ControlFlow<()>;

/// Makes it, and tells what is heard of it.
pub(super) async fn run(local: &Local, ask: AskGrpc, heard: &Listener) {
    let (cluster, timeout) = (ask.cluster.clone(), ask.timeout);
    let run = async {
        match send(local, ask).await {
            Ok(answer) => listen(answer, heard).await,
            Err(error) => {
                debug!(cluster, error, "a plugin gets no answer by gRPC");
                unanswered(&error, heard)
            }
        }
    };
    // Whoever has stopped listening needn't be told that it is over.
    let _ = match timeout {
        None => run.await,
        Some(timeout) => {
            let late = |_| {
                debug!(cluster, ?timeout, "a plugin gets no answer by gRPC in time");
                unanswered("no answer in time", heard)
            };
            tokio::time::timeout(timeout, run)
                .await
                .unwrap_or_else(late)
        }
    };
}

async fn send(local: &Local, ask: AskGrpc) -> Result<Response<Received>, String> {
    let snapshot = local.current.snapshot();
    let entry = snapshot.clusters.get(&*ask.cluster);
    let entry = entry.ok_or("there is no such cluster")?;
    let authority = ask.authority.unwrap_or(ask.cluster);
    let path: PathAndQuery = ask.path.parse().map_err(|_| "its names make no path")?;
    let mut request = Request::new(RequestBody::Own(ask.messages));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.into();
    let host = HeaderValue::from_str(&authority).map_err(|_| "its host is none")?;
    let headers = request.headers_mut();
    *headers = ask.metadata;
    headers.insert(header::HOST, host);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    if let Some(timeout) = ask.timeout {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        headers.insert(GRPC_TIMEOUT, to_grpc_timeout(millis));
    }
    own::send(local, entry, &authority, request).await
}

/// Tells an answer to its end.
async fn listen(answer: Response<Received>, heard: &Listener) -> Step {
    let (head, mut body) = answer.into_parts();
    let only = body.is_end_stream();
    let told = grpc::status(&head.headers);
    let well = head.status == StatusCode::OK;
    let (before, trailers) = match only {
        true => (HeaderMap::new(), Some(head.headers)),
        false => (head.headers, None),
    };
    tell(Heard::Head(before), heard)?;
    match trailers {
        Some(trailers) if well || told.is_some() => return end(trailers, heard),
        _ if !well => return fail(grpc::status_of(head.status), heard),
        _ => {}
    }
    let mut held = BytesMut::new();
    loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return fail(INTERNAL, heard),
            None => return fail(UNKNOWN, heard),
        };
        match frame.into_data() {
            Ok(mut data) => held.extend_from_slice(&data.copy_to_bytes(data.remaining())),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => return end(trailers, heard),
                Err(_) => continue,
            },
        }
        loop {
            match message(&mut held) {
                Ok(Some(message)) => tell(Heard::Message(message), heard)?,
                Ok(None) => break,
                Err(status) => return fail(status, heard),
            }
        }
    }
}

/// The next message, where it is there as a whole.
fn message(held: &mut BytesMut) -> Result<Option<Bytes>, u32> {
    let Some(&[flags, a, b, c, d]) = held.first_chunk::<5>() else {
        return Ok(None);
    };
    // Nobody has said how it would be compressed.
    if flags != 0 {
        return Err(INTERNAL);
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MOST_HELD {
        return Err(RESOURCE_EXHAUSTED);
    }
    if held.len() < 5 + length {
        return Ok(None);
    }
    held.advance(5);
    Ok(Some(held.split_to(length).freeze()))
}

/// It has ended with trailers.
fn end(trailers: HeaderMap, heard: &Listener) -> Step {
    let status = grpc::status(&trailers).unwrap_or(UNKNOWN);
    // As it came: plugins decode it, as they must under Envoy.
    let why = trailers.get(grpc::MESSAGE).map(HeaderValue::as_bytes);
    let why = String::from_utf8_lossy(why.unwrap_or_default()).into_owned();
    tell(Heard::Trailers(trailers), heard)?;
    close(status, &why, heard)
}

/// There is no answer, which is told as one that has nothing but its end.
fn unanswered(why: &str, heard: &Listener) -> Step {
    tell(Heard::Head(HeaderMap::new()), heard)?;
    tell(Heard::Trailers(HeaderMap::new()), heard)?;
    close(UNAVAILABLE, why, heard)
}

/// It has ended without.
fn fail(status: u32, heard: &Listener) -> Step {
    tell(Heard::Trailers(HeaderMap::new()), heard)?;
    close(status, "", heard)
}

fn close(status: u32, why: &str, heard: &Listener) -> Step {
    tell(Heard::Closed(status, why.to_owned()), heard)
}

fn tell(what: Heard, heard: &Listener) -> Step {
    match heard(what) {
        true => Step::Continue(()),
        false => Step::Break(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_any_pieces_and_are_bounded() {
        let all = [&[0, 0, 0, 0, 3][..], b"one", &[0, 0, 0, 0, 0]].concat();
        let mut held = BytesMut::new();
        let mut heard = Vec::new();
        for byte in all {
            held.extend_from_slice(&[byte]);
            heard.extend(message(&mut held).unwrap());
        }
        assert_eq!(heard, [Bytes::from_static(b"one"), Bytes::new()]);
        let of = |bytes: &[u8]| message(&mut BytesMut::from(bytes));
        assert_eq!(of(&[1, 0, 0, 0, 0]), Err(INTERNAL));
        assert_eq!(of(&[0, 1, 0, 0, 0]), Err(RESOURCE_EXHAUSTED));
    }
}
