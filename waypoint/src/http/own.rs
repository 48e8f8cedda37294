//! The proxy's own requests, which belong to nobody's connection: for keys, for decisions, for spans to
//! arrive, and for what plugins ask.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use mesh::policy::Permit;

use super::body::RequestBody;
use crate::connection::Downstream;
use crate::model::snapshot::ClusterEntry;
use crate::upstream::{Choice, Received};
use crate::worker::Local;

/// A body, and what came after it.
pub(super) struct Whole {
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

/// Sends a request to a cluster. Its URI is a path, and `authority` stands in its headers already.
///
/// # Errors
/// There is no answer; why.
pub(super) async fn send(
    local: &Local,
    cluster: &Arc<ClusterEntry>,
    authority: &str,
    request: Request<RequestBody>,
) -> Result<Response<Received>, String> {
    let here = (Ipv4Addr::LOCALHOST, 0).into();
    let down = Downstream::between(here, here);
    let choice = Choice {
        authority: Some(authority),
        ..Choice::new(&down)
    };
    let upstreams = &local.upstreams;
    let sent = upstreams.send(cluster, &choice, Permit::by_waypoint(), request);
    let sent = sent.await.map_err(|refused| refused.failure.to_string())?;
    Ok(sent.response)
}

/// Reads an answer's body of so many bytes at most.
///
/// # Errors
/// It breaks off, or is larger.
pub(super) async fn whole(mut body: Received, largest: usize) -> Result<Whole, String> {
    let mut read = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| error.to_string())?.into_data() {
            Ok(data) if read.len() + data.remaining() > largest => {
                return Err(format!("the answer is larger than {largest} bytes"));
            }
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    Ok(Whole {
        body: read.freeze(),
        trailers,
    })
}
