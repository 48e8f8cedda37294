//! Requests in as messages, responses out as bytes that are encoded already.

use bytes::BufMut;
use mesh::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::session::Push;

/// The delta stream's codec, the server's side.
#[derive(Clone, Copy, Debug, Default)]
pub struct PushCodec;

/// Writes a shared body and the client's own nonce.
#[derive(Clone, Copy, Debug, Default)]
pub struct PushEncoder;

/// Reads requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestDecoder;

impl Codec for PushCodec {
    type Encode = Push;
    type Decode = DeltaDiscoveryRequest;
    type Encoder = PushEncoder;
    type Decoder = RequestDecoder;

    fn encoder(&mut self) -> PushEncoder {
        PushEncoder
    }

    fn decoder(&mut self) -> RequestDecoder {
        RequestDecoder
    }
}

impl Encoder for PushEncoder {
    type Item = Push;
    type Error = Status;

    fn encode(&mut self, push: Push, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&push.body);
        // A message may be written in parts: this one holds the nonce alone.
        let tail = DeltaDiscoveryResponse {
            nonce: push.nonce,
            ..DeltaDiscoveryResponse::default()
        };
        tail.encode(buffer)
            .map_err(|error| Status::internal(format!("a response does not fit: {error}")))
    }
}

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
