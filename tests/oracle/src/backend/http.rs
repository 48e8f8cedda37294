//! A backend for HTTP: one service for both protocols, which answers by the request's script.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::{AUTHZ, CASE, FROM, Journal, Kind, Name, SCRIPT, Seen};
use crate::script::{self, Ending, Step};
use crate::wire::pairs;

/// One frame of a long body.
const PIECE: usize = 16 * 1024;
/// What a body that breaks off waits for its beginning to be written.
const FLUSH: std::time::Duration = std::time::Duration::from_millis(50);

type Failure = Box<dyn Error + Send + Sync>;

pub(super) async fn serve(listener: TcpListener, kind: Kind, name: Name, journal: Arc<Journal>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, kind, name.clone(), Arc::clone(&journal)));
    }
}

async fn connection(stream: TcpStream, kind: Kind, name: Name, journal: Arc<Journal>) {
    // Without it an answer in two writes waits for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(request, kind, name.clone(), Arc::clone(&journal)));
    let io = TokioIo::new(stream);
    // How a connection ended is the proxy's to notice.
    if kind == Kind::Http2 {
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = http1::Builder::new()
            .serve_connection(io, service)
            .with_upgrades()
            .await;
    }
}

async fn answer(
    request: Request<Incoming>,
    kind: Kind,
    name: Name,
    journal: Arc<Journal>,
) -> Result<Response<Scripted>, Failure> {
    let headers = request.headers();
    let text = |name: &str| {
        let value = headers.get(name).map(HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let (case, script) = (
        text(CASE),
        text(match kind {
            Kind::Authz => AUTHZ,
            _ => SCRIPT,
        }),
    );
    let attempt = journal.write(&case, head(&request, &name));
    let step = script::step(&script, attempt)?;
    match step.ending {
        Ending::Close if step.early => return Err("the script closes".into()),
        Ending::Refuse => return Err(h2::Error::from(h2::Reason::REFUSED_STREAM).into()),
        _ => {}
    }
    if headers.contains_key(UPGRADE) && step.status == 200 {
        return Ok(upgrade(request, &name));
    }
    if step.early {
        tokio::time::sleep(step.delay).await;
    } else {
        let whole = request.into_body().collect().await?;
        let trailers = whole.trailers().map(pairs).unwrap_or_default();
        let body = String::from_utf8_lossy(&whole.to_bytes()).into_owned();
        journal.complete(&case, &name.cluster, body, trailers);
        tokio::time::sleep(step.delay).await;
    }
    if step.ending == Ending::Close {
        return Err("the script closes".into());
    }
    scripted(step, &name)
}

fn head(request: &Request<Incoming>, name: &Name) -> Seen {
    let uri = request.uri();
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let host = String::from_utf8_lossy(host.unwrap_or_default()).into_owned();
    let mut headers = request.headers().clone();
    headers.remove(HOST);
    Seen {
        cluster: name.cluster.to_string(),
        endpoint: name.endpoint,
        method: request.method().to_string(),
        path: uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        authority: uri.authority().map_or(host, ToString::to_string),
        headers: pairs(&headers),
        body: String::new(),
        trailers: Vec::new(),
    }
}

/// Takes the protocol that is asked for, and echoes its bytes.
fn upgrade(mut request: Request<Incoming>, name: &Name) -> Response<Scripted> {
    let protocol = request.headers()[UPGRADE].clone();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
            if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                // The other side may be gone already.
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
            }
        }
    });
    let mut answer = Response::new(Scripted::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(FROM, value(&name.text()));
    answer
}

fn scripted(step: Step, name: &Name) -> Result<Response<Scripted>, Failure> {
    let body = match (step.size, &step.body, &step.frames) {
        (_, _, Some(messages)) => frames(messages),
        (Some(size), _, _) => Bytes::from(vec![b'x'; size]),
        (None, Some(text), _) => Bytes::from(text.clone()),
        (None, None, _) => Bytes::from(name.text()),
    };
    let mut trailers = HeaderMap::new();
    for (name, text) in &step.trailers {
        trailers.append(HeaderName::try_from(name)?, HeaderValue::try_from(text)?);
    }
    let scripted = Scripted {
        body,
        piece: step.chop.unwrap_or(PIECE),
        trailers: (!trailers.is_empty()).then_some(trailers),
        breaks: step.ending == Ending::Break,
        stall: (!step.stall.is_zero()).then(|| Box::pin(tokio::time::sleep(step.stall))),
    };
    let mut answer = Response::new(scripted);
    *answer.status_mut() = StatusCode::from_u16(step.status)?;
    answer.headers_mut().insert(FROM, value(&name.text()));
    for (name, text) in &step.headers {
        let (name, text) = (HeaderName::try_from(name)?, HeaderValue::try_from(text)?);
        answer.headers_mut().append(name, text);
    }
    Ok(answer)
}

/// gRPC's frames: no flags, the length in four bytes, the message.
fn frames(messages: &[String]) -> Bytes {
    let mut bytes = Vec::new();
    for message in messages {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        bytes.push(0);
        bytes.extend(length.to_be_bytes());
        bytes.extend(message.as_bytes());
    }
    bytes.into()
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("names of clusters are visible ASCII")
}

/// A body that stalls, breaks off or ends with trailers as told.
struct Scripted {
    body: Bytes,
    /// How long one frame is at most.
    piece: usize,
    trailers: Option<HeaderMap>,
    breaks: bool,
    stall: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Scripted {
    fn empty() -> Self {
        Self {
            body: Bytes::new(),
            piece: PIECE,
            trailers: None,
            breaks: false,
            stall: None,
        }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(stall) = &mut self.stall {
            std::task::ready!(stall.as_mut().poll(cx));
            self.stall = None;
        }
        if self.breaks && self.body.len() < PIECE {
            if self.body.is_empty() {
                return Poll::Ready(Some(Err("the script breaks off".into())));
            }
            // What was written before must leave the process first, or nobody sees that it began.
            self.body.clear();
            let mut flush = Box::pin(tokio::time::sleep(FLUSH));
            let pending = flush.as_mut().poll(cx);
            self.stall = Some(flush);
            std::task::ready!(pending);
        }
        if !self.body.is_empty() {
            let piece = self.body.len().min(self.piece);
            return Poll::Ready(Some(Ok(Frame::data(self.body.split_to(piece)))));
        }
        let trailers = self.trailers.take().map(|t| Ok(Frame::trailers(t)));
        Poll::Ready(trailers)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty() && self.trailers.is_none() && !self.breaks && self.stall.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Trailers need a chunked body in HTTP/1.1, so the length is told only without them.
        if self.trailers.is_some() {
            SizeHint::default()
        } else {
            SizeHint::with_exact(self.body.len() as u64)
        }
    }
}
