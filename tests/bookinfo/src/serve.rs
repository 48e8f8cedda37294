//! One small HTTP/1.1 server for every role: limits, a graceful end, and on each answer the pod and
//! node that gave it. It knows no path.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::idle;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Longest request body taken, in bytes; the bookstore's own is one form field.
const MAX_BODY: usize = 64 * 1024;
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may take to end once the process is asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Response header that names the answering pod.
pub(crate) const POD: &str = "x-bookinfo-pod";
/// Response header that names the answering pod's node.
pub(crate) const NODE: &str = "x-bookinfo-node";

/// Where to serve, and what to call oneself.
#[derive(clap::Args, Clone)]
// Roles' own options are a group of the same name.
#[group(skip)]
pub(crate) struct Options {
    /// TCP port to serve on, on every address.
    #[arg(long, env = "PORT", default_value_t = 9080)]
    pub(crate) port: u16,
    /// The name to answer with.
    #[arg(long, env = "POD_NAME", default_value_t = host_name())]
    pub(crate) pod: String,
    /// The node to answer with.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub(crate) node: String,
}

/// A request as the roles see it: whole, within the limits.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) client: SocketAddr,
}

/// An answer, whole.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Serves until the process is asked to stop.
pub(crate) async fn run<H, F>(role: &str, options: &Options, answer: H) -> anyhow::Result<()>
where
    H: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = listen(options.port).await?;
    println!("{role}: serving on {}", listener.local_addr()?);
    until(listener, options, answer, idle::asked_to_stop()).await
}

/// Serves on `listener` until `stop` is done.
pub(crate) async fn until<H, F>(
    listener: TcpListener,
    options: &Options,
    answer: H,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()>
where
    H: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let answer = Arc::new(answer);
    let signature = Arc::new(Signature::of(options));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stopping, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .context("the server's own limit closed")?;
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors or a client gone already: neither ends the server.
                    eprintln!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            asked = &mut stop => { asked?; break }
        };
        let (answer, signature, stopped) = (answer.clone(), signature.clone(), stopped.clone());
        open.spawn(async move {
            connection(stream, client, answer, signature, stopped).await;
            drop(place);
        });
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    stopping.send_replace(true);
    let drained = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, drained).await.is_err() {
        eprintln!(
            "requests still open after {} s are cut off",
            GRACE.as_secs()
        );
    }
    Ok(())
}

/// Listens on every address, IPv6 and IPv4 where there is IPv6.
pub(crate) async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(error).with_context(|| format!("port {port} is taken by another process"))
        }
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("cannot listen on port {port}")),
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    client: SocketAddr,
    answer: Arc<H>,
    signature: Arc<Signature>,
    mut stopped: watch::Receiver<bool>,
) where
    H: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    // Only slows small answers down when it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let (answer, signature) = (answer.clone(), signature.clone());
        async move {
            let mut response = match whole(request, client).await {
                Ok(asked) => answer(asked).await,
                Err(refused) => refused,
            };
            signature.sign(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // How a connection ends is the client's affair: nothing to say about an error.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

async fn whole(request: Request<Incoming>, client: SocketAddr) -> Result<Asked, Answer> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| {
            text(
                StatusCode::BAD_REQUEST,
                format!("the request's body: {error}\n"),
            )
        })?
        .to_bytes();
    Ok(Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        client,
    })
}

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    with_type(status, "application/json", body.to_string())
}

/// An answer that is a page.
pub(crate) fn html(body: String) -> Answer {
    let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", body);
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
        ),
    );
    response
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The pod and node that every answer carries, unless it already carries another's.
struct Signature {
    pod: Option<HeaderValue>,
    node: Option<HeaderValue>,
}

impl Signature {
    fn of(options: &Options) -> Self {
        let value = |word: &str| {
            Some(word)
                .filter(|word| !word.is_empty())
                .and_then(|word| word.parse().ok())
        };
        Self {
            pod: value(&options.pod),
            node: value(&options.node),
        }
    }

    fn sign(&self, response: &mut Answer) {
        for (name, value) in [(POD, &self.pod), (NODE, &self.node)] {
            if let (Some(value), false) = (value, response.headers().contains_key(name)) {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
}

fn host_name() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
