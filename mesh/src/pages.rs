//! The smallest HTTP/1 server that metrics, readiness and admin need: one handler a port, a bound on
//! connections, no state. It knows nothing of what it serves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A request, its body unread.
pub type Request = hyper::Request<Incoming>;
/// A response, whole.
pub type Response = hyper::Response<Full<Bytes>>;

/// Connections that a port serves at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after accepting failed, which it does when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that can't be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose} (is another one running here?)")]
pub struct Error {
    address: SocketAddr,
    purpose: &'static str,
    source: std::io::Error,
}

/// Listens on `address`, for what `purpose` says.
pub async fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error {
        address,
        purpose,
        source,
    })
}

/// Answers every request on `listener` with `answer`.
pub async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send,
{
    let answer = Arc::new(answer);
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&free).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = Arc::clone(&answer);
                async move { Ok::<_, Infallible>(answer(request).await) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

/// A response of one text.
#[must_use]
pub fn text(status: http::StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(kind),
    );
    response
}
