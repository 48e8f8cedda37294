//! Requests in as messages, responses out as bytes that are encoded already.
//!
//! A response for many clients is encoded once, and each client's connection is given the same bytes:
//! gRPC's own encoder would copy them into a buffer of the stream's, and keep it as large as its
//! largest message for as long as the stream lives.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use mesh::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic::codegen::http::HeaderMap;

use super::session::Push;

/// A message of gRPC begins with a flag (not compressed) and its length.
const HEAD: usize = 5;
/// Smaller messages are put together: a copy costs less than a further frame.
const SMALL: usize = 16 << 10;

/// Reads requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestDecoder;

impl Decoder for RequestDecoder {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;

    fn decode(
        &mut self,
        buffer: &mut DecodeBuf<'_>,
    ) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        let request = DeltaDiscoveryRequest::decode(buffer);
        request
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("not a discovery request: {error}")))
    }
}

/// A stream of responses: messages of gRPC, and how it ended.
pub(super) struct Responses {
    pushes: mpsc::Receiver<Result<Push, Status>>,
    /// What is left of the message under way, the last piece first.
    pieces: Vec<Bytes>,
    ended: bool,
}

impl Responses {
    /// What is pushed, as it comes.
    pub(super) fn new(pushes: mpsc::Receiver<Result<Push, Status>>) -> Self {
        Self {
            pushes,
            pieces: Vec::new(),
            ended: false,
        }
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.pieces.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.pushes.poll_recv(context)) {
            Some(Ok(push)) => match pieces(push) {
                Ok(mut pieces) => {
                    let first = pieces.pop().unwrap_or_default();
                    self.pieces = pieces;
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                Err(status) => status,
            },
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        if let Err(status) = status.add_header(&mut trailers) {
            tracing::warn!(error = %status, "a stream's end can't be told");
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// One message, the last piece first: the shared body, and around it what is this client's own.
fn pieces(push: Push) -> Result<Vec<Bytes>, Status> {
    // A message may be written in parts: this one holds the nonce alone.
    let tail = DeltaDiscoveryResponse {
        nonce: push.nonce,
        ..DeltaDiscoveryResponse::default()
    };
    let tail = tail.encode_to_vec();
    let length = u32::try_from(push.body.len() + tail.len())
        .map_err(|_| Status::internal("a response is larger than 4 GiB"))?;
    let mut head = BytesMut::with_capacity(HEAD);
    head.put_u8(0);
    head.put_u32(length);
    if push.body.len() > SMALL {
        return Ok(vec![tail.into(), push.body, head.freeze()]);
    }
    head.reserve(push.body.len() + tail.len());
    head.put_slice(&push.body);
    head.put_slice(&tail);
    Ok(vec![head.freeze()])
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::resource::ResourceType;

    fn push(size: usize, nonce: &str) -> Push {
        let shared = DeltaDiscoveryResponse {
            type_url: "x".repeat(size),
            ..DeltaDiscoveryResponse::default()
        };
        Push {
            kind: ResourceType::Address,
            nonce: nonce.to_owned(),
            body: shared.encode_to_vec().into(),
        }
    }

    #[tokio::test]
    async fn small_and_large_messages_arrive_whole_and_large_ones_are_not_copied() {
        let (sender, pushes) = mpsc::channel(8);
        let large = push(SMALL * 3, "2");
        let shared = large.body.clone();
        for one in [
            Ok(push(10, "1")),
            Ok(large),
            Err(Status::unavailable("gone")),
        ] {
            sender.send(one).await.unwrap();
        }
        let mut responses = Responses::new(pushes);
        let (mut bytes, mut trailers, mut same) = (BytesMut::new(), None, false);
        while let Some(frame) =
            poll_fn(|context| Pin::new(&mut responses).poll_frame(context)).await
        {
            match frame.unwrap().into_data() {
                Ok(data) => {
                    same |= data.as_ptr() == shared.as_ptr();
                    bytes.extend_from_slice(&data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert!(same, "the shared bytes themselves");
        for (size, nonce) in [(10, "1"), (SMALL * 3, "2")] {
            let head = bytes.split_to(HEAD);
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let message = bytes.split_to(usize::try_from(length).unwrap());
            let response = DeltaDiscoveryResponse::decode(message.freeze()).unwrap();
            assert_eq!((head[0], response.type_url.len()), (0, size));
            assert_eq!(response.nonce, nonce);
        }
        assert!(bytes.is_empty());
        let trailers = trailers.unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["grpc-message"], "gone");
    }
}
