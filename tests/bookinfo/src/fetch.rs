//! One HTTP/1.1 request on a new connection, and what can go wrong with it in curl's terms. The
//! client half of every role; it follows no redirect and speaks no TLS.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer that [`whole`] takes, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// What to ask for.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// For the connection alone.
    pub(crate) connect_timeout: Duration,
}

impl Ask {
    /// A GET of `uri` with `headers`.
    pub(crate) fn get(uri: Uri, headers: HeaderMap) -> Self {
        Self {
            method: Method::GET,
            uri,
            headers,
            body: Bytes::new(),
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// As it goes over the wire: with a Host, and a path alone.
    fn request(&self) -> Result<Request<Full<Bytes>>, Failed> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(self.method.clone()).uri(path);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
            if !headers.contains_key(header::HOST) {
                let authority = self.uri.authority().map_or("", |a| a.as_str());
                let value = authority
                    .parse()
                    .map_err(|_| Failed::Url("a host with odd letters".to_owned()))?;
                headers.insert(header::HOST, value);
            }
        }
        request
            .body(Full::new(self.body.clone()))
            .map_err(|error| Failed::Url(error.to_string()))
    }
}

/// Why there was no answer. The words and the exit codes are curl's.
#[derive(Debug)]
pub(crate) enum Failed {
    Url(String),
    Resolve { host: String, cause: io::Error },
    Connect { to: String, cause: io::Error },
    TimedOut { after: Duration },
    Empty,
    Partial,
    Received(String),
}

impl Failed {
    /// curl's exit code for the same failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Url(_) => 3,
            Self::Resolve { .. } => 6,
            Self::Connect { cause, .. } => match cause.kind() {
                io::ErrorKind::TimedOut => 28,
                // The connection stood, and was reset before we looked at it.
                io::ErrorKind::ConnectionReset => 56,
                _ => 7,
            },
            Self::Partial => 18,
            Self::TimedOut { .. } => 28,
            Self::Empty => 52,
            Self::Received(_) => 56,
        }
    }

    /// From an error of the HTTP connection: a reset and an early end are told apart.
    pub(crate) fn of_http(error: &hyper::Error) -> Self {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return match io.kind() {
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        Self::Received("Connection reset by peer".to_owned())
                    }
                    _ => Self::Received(io.to_string()),
                };
            }
            cause = inner.source();
        }
        if error.is_incomplete_message() {
            Self::Empty
        } else {
            Self::Received(error.to_string())
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(why) => write!(f, "URL rejected: {why}"),
            Self::Resolve { host, cause } => write!(f, "Could not resolve host: {host} ({cause})"),
            Self::Connect { to, cause } => write!(f, "Failed to connect to {to}: {cause}"),
            Self::TimedOut { after } => {
                write!(
                    f,
                    "Operation timed out after {} milliseconds",
                    after.as_millis()
                )
            }
            Self::Empty => f.write_str("Empty reply from server"),
            Self::Partial => f.write_str("transfer closed with outstanding data remaining"),
            Self::Received(what) => write!(f, "Recv failure: {what}"),
        }
    }
}

impl std::error::Error for Failed {}

/// What sends requests on one connection.
type Sender = http1::SendRequest<Full<Bytes>>;

/// Sends `ask` and returns the answer's head, its body still to come, and the address asked.
pub(crate) async fn send(ask: Ask) -> Result<(Response<Incoming>, SocketAddr), Failed> {
    let (mut sender, peer) = open(&ask).await?;
    let response = sender
        .send_request(ask.request()?)
        .await
        .map_err(|error| Failed::of_http(&error))?;
    Ok((response, peer))
}

/// A connection for a request and those after it.
async fn open(ask: &Ask) -> Result<(Sender, SocketAddr), Failed> {
    let host = ask
        .uri
        .host()
        .ok_or_else(|| Failed::Url("no host in it".to_owned()))?;
    if ask.uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(Failed::Url("only http is spoken here".to_owned()));
    }
    let port = ask.uri.port_u16().unwrap_or(80);
    let stream = connect(host, port, ask.connect_timeout).await?;
    let peer = stream
        .peer_addr()
        .map_err(|cause| Failed::Received(cause.to_string()))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failed::of_http(&error))?;
    // The connection's own error comes back through the request as well.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((sender, peer))
}

/// A connection that is kept for the next request, while the server keeps it.
#[derive(Default)]
pub(crate) struct Kept(Option<Sender>);

impl Kept {
    /// As [`whole`], on the connection of the request before if it still stands. As curl does, a
    /// request that a kept connection ends under without a byte of an answer is sent again on a new
    /// one: the server may have closed it at the very same moment.
    pub(crate) async fn whole(
        &mut self,
        ask: Ask,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Failed> {
        let exchange = async {
            if let Some(mut sender) = self.0.take()
                && sender.ready().await.is_ok()
            {
                match sender.send_request(ask.request()?).await {
                    Ok(response) => {
                        let answer = collect(response).await?;
                        self.0 = Some(sender);
                        return Ok(answer);
                    }
                    Err(error) if error.is_canceled() || error.is_incomplete_message() => {}
                    Err(error) => return Err(Failed::of_http(&error)),
                }
            }
            let (mut sender, _) = open(&ask).await?;
            let response = sender
                .send_request(ask.request()?)
                .await
                .map_err(|error| Failed::of_http(&error))?;
            let answer = collect(response).await?;
            self.0 = Some(sender);
            Ok(answer)
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or(Err(Failed::TimedOut { after: timeout }))
    }
}

/// Sends `ask` and returns the whole answer, all within `timeout`.
pub(crate) async fn whole(ask: Ask, timeout: Duration) -> Result<Response<Bytes>, Failed> {
    let exchange = async {
        let (response, _) = send(ask).await?;
        collect(response).await
    };
    tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or(Err(Failed::TimedOut { after: timeout }))
}

async fn collect(response: Response<Incoming>) -> Result<Response<Bytes>, Failed> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| match error.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_incomplete_message() => Failed::Partial,
            Some(error) => Failed::of_http(error),
            None => Failed::Received(error.to_string()),
        })?
        .to_bytes();
    Ok(Response::from_parts(head, body))
}

/// Connects to the first address of `host` that answers.
pub(crate) async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, Failed> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let trying = async {
        let addresses = tokio::net::lookup_host((bare, port))
            .await
            .map_err(|cause| Failed::Resolve {
                host: host.to_owned(),
                cause,
            })?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Only slows small requests down when it fails.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(cause) => {
                    last = Some(Failed::Connect {
                        to: address.to_string(),
                        cause,
                    })
                }
            }
        }
        Err(last.unwrap_or_else(|| Failed::Resolve {
            host: host.to_owned(),
            cause: io::Error::new(io::ErrorKind::NotFound, "it has no address"),
        }))
    };
    tokio::time::timeout(timeout, trying)
        .await
        .unwrap_or(Err(Failed::TimedOut { after: timeout }))
}
