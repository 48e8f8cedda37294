//! A backend that decides about requests: gRPC's `envoy.service.auth.v3.Authorization/Check`. It writes
//! down what it was told, and answers by the script in the request's header `x-authz`: `200` lets the
//! request pass, with `h=` as headers of the request and `t=` as headers of the answer (`+` before a
//! name: it is appended); a status from 500 on is an error of the call; any other denies.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::BoolValue;
use envoy_types::pb::google::rpc;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;

use super::{AUTHZ, CASE, Journal, Name, Seen};
use crate::script::{self, Ending, Step};

const INTERNAL: u16 = 13;
const PERMISSION_DENIED: i32 = 7;

type Failure = Box<dyn Error + Send + Sync>;
type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

pub(super) async fn serve(listener: TcpListener, name: Name, journal: Arc<Journal>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (name, journal) = (name.clone(), Arc::clone(&journal));
        let service = service_fn(move |request| check(request, name.clone(), Arc::clone(&journal)));
        tokio::spawn(async move {
            // How a connection ended is the proxy's to notice.
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn check(
    request: Request<Incoming>,
    name: Name,
    journal: Arc<Journal>,
) -> Result<Response<StreamBody<Frames>>, Failure> {
    let path = request.uri().path().to_owned();
    // Of a connection there are no headers: the filter's own metadata has the script.
    let metadata = request.headers().get(AUTHZ).cloned();
    let body = request.into_body().collect().await?.to_bytes();
    let asked = auth::CheckRequest::decode(body.get(5..).unwrap_or_default())?;
    let attributes = asked.attributes.unwrap_or_default();
    let context = attributes.context_extensions;
    let http = attributes.request.and_then(|request| request.http);
    let http = http.unwrap_or_default();
    let of = |name: &str| http.headers.get(name).cloned().unwrap_or_default();
    let script = match metadata {
        Some(script) => String::from_utf8_lossy(script.as_bytes()).into_owned(),
        None => of(AUTHZ),
    };
    let case = of(CASE);
    let mut headers: Vec<_> = http.headers.into_iter().collect();
    headers.extend(
        context
            .into_iter()
            .map(|(key, value)| (format!("context {key}"), value)),
    );
    headers.push(("asked".to_owned(), path));
    headers.push(("protocol".to_owned(), http.protocol));
    headers.push(("scheme".to_owned(), http.scheme));
    headers.sort();
    let seen = Seen {
        cluster: name.cluster.to_string(),
        endpoint: name.endpoint,
        method: http.method,
        path: http.path,
        authority: http.host,
        headers,
        body: http.body,
        trailers: Vec::new(),
    };
    let step = script::step(&script, journal.write(&case, seen))?;
    tokio::time::sleep(step.delay).await;
    if step.ending == Ending::Close {
        return Err("the script closes".into());
    }
    answer(step)
}

fn answer(step: Step) -> Result<Response<StreamBody<Frames>>, Failure> {
    let failed = step.status >= 500;
    let mut trailers = HeaderMap::new();
    let status = if failed { INTERNAL } else { 0 };
    trailers.insert("grpc-status", status.to_string().parse()?);
    let mut frames = Vec::new();
    if !failed {
        let message = said(step).encode_to_vec();
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len())?);
        body.extend_from_slice(&message);
        frames.push(Ok(Frame::data(body.freeze())));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body)?)
}

fn said(step: Step) -> auth::CheckResponse {
    use auth::check_response::HttpResponse;

    let allowed = step.status == 200;
    let http_response = match allowed {
        true => HttpResponse::OkResponse(auth::OkHttpResponse {
            headers: options(step.headers),
            response_headers_to_add: options(step.trailers),
            ..Default::default()
        }),
        false => HttpResponse::DeniedResponse(auth::DeniedHttpResponse {
            status: Some(HttpStatus {
                code: i32::from(step.status),
            }),
            headers: options(step.headers),
            body: step.body.unwrap_or_default(),
        }),
    };
    auth::CheckResponse {
        status: Some(rpc::Status {
            code: if allowed { 0 } else { PERMISSION_DENIED },
            ..Default::default()
        }),
        dynamic_metadata: None,
        http_response: Some(http_response),
    }
}

fn options(headers: Vec<(String, String)>) -> Vec<HeaderValueOption> {
    let headers = headers.into_iter().map(|(key, value)| {
        let appended = key.strip_prefix('+').map(str::to_owned);
        #[expect(deprecated, reason = "services say it so")]
        HeaderValueOption {
            append: appended.is_some().then_some(BoolValue { value: true }),
            header: Some(HeaderValue {
                key: appended.unwrap_or(key),
                value,
                ..Default::default()
            }),
            ..Default::default()
        }
    });
    headers.collect()
}
