//! The way of spans to their collector: through the cluster that the configuration names, as any
//! request of the proxy's own. What is sent is telemetry's business.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::BodyExt;

use super::body::RequestBody;
use super::own;
use crate::grpc;
use crate::telemetry::trace::export::Caller;
use crate::worker::Local;

/// Sends spans by a worker's own connections.
pub struct Collector(pub Rc<Local>);

impl Caller for Collector {
    async fn call(
        &self,
        cluster: &str,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<(StatusCode, Option<u32>), String> {
        let sent = tokio::time::timeout(timeout, send(&self.0, cluster, request)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
    }
}

async fn send(
    local: &Rc<Local>,
    cluster: &str,
    request: Request<Bytes>,
) -> Result<(StatusCode, Option<u32>), String> {
    let snapshot = local.current.snapshot();
    let entry = snapshot.clusters.get(cluster);
    let entry = entry.ok_or_else(|| format!("there is no cluster {cluster:?}"))?;
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().cloned();
    let authority = authority.ok_or("the collector's address has no host")?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
    head.headers.insert(header::HOST, host);
    let request = Request::from_parts(head, RequestBody::Whole(Some(body)));
    let answer = own::send(local, entry, authority.as_str(), request).await?;
    let (head, mut body) = answer.into_parts();
    let mut grpc = grpc::status(&head.headers);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        grpc = frame.trailers_ref().and_then(grpc::status).or(grpc);
    }
    Ok((head.status, grpc))
}
