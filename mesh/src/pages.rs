//! The smallest HTTP/1 server that metrics, readiness and admin need: one handler a port, a bound on
//! connections, no state. It knows nothing of what it serves. Any pod may reach a probe's port: who
//! holds connections there keeps nobody out, since a newcomer takes the place of who came first.

use std::collections::VecDeque;
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
use tokio::task::AbortHandle;

/// A request, its body unread.
pub type Request = hyper::Request<Incoming>;
/// A response, whole.
pub type Response = hyper::Response<Full<Bytes>>;

/// Connections that a port serves at once; a further one ends the oldest.
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
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let answer = Arc::clone(&answer);
        let serving = tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = Arc::clone(&answer);
                async move { Ok::<_, Infallible>(answer(request).await) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        open.push_back(serving.abort_handle());
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn who_holds_connections_keeps_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, |_| async {
            text(http::StatusCode::OK, "text/plain", "ready")
        }));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS * 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = async {
            let mut probe = TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            probe.write_all(request).await.unwrap();
            let mut answer = String::new();
            probe.read_to_string(&mut answer).await.unwrap();
            answer
        };
        // Before any of those who say nothing is sent away for that.
        let answer = tokio::time::timeout(HEAD_TIMEOUT / 2, asked).await.unwrap();
        assert!(answer.ends_with("ready"), "{answer}");
        // The first of them are gone, the last are still served.
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
        let last = &mut silent[CONNECTIONS * 2 - 1];
        last.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(last.read(&mut [0]).await.unwrap(), 1);
    }
}
