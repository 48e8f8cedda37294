//! The callers: one that speaks HTTP/1.1 or HTTP/2 through an ordinary stack, and (in `raw`) one
//! that sends exactly the bytes it is given. Everything they wait for is bounded.

pub mod frames;
pub mod raw;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Request, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest that an answer may take, its body included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which protocol a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 in clear text, with prior knowledge.
    H2,
}

impl Over {
    /// `h1` or `h2`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The authority: `host` in HTTP/1.1.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// In order; a name may occur more than once.
    pub headers: Vec<(String, String)>,
    /// In pieces, between which a little passes, so that they come apart; empty for none.
    pub body: Vec<Bytes>,
}

/// What passes between two pieces of a body: long enough for the first to be read by itself, on most
/// days. Nothing depends on it but what is shown.
const PAUSE: Duration = Duration::from_millis(20);

/// A request's body.
type Sent = UnsyncBoxBody<Bytes, Infallible>;

impl Ask {
    /// `GET path` of `authority`.
    #[must_use]
    pub fn get(authority: &str, path: &str) -> Self {
        Self {
            method: Method::GET,
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// As the caller saw it.
    pub version: Version,
    /// In the order of the wire.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Bytes,
    /// After the body.
    pub trailers: Vec<(String, String)>,
}

/// An open connection.
#[derive(Debug)]
pub struct Caller {
    /// Our own end, by which an access log names the connection.
    pub local: SocketAddr,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Sent>),
    H2(http2::SendRequest<Sent>),
}

impl Caller {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens, or doesn't speak the protocol.
    pub async fn connect(to: SocketAddr, over: Over) -> Result<Self> {
        let stream = TcpStream::connect(to);
        let stream = timeout(PATIENCE, stream).await??;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let io = TokioIo::new(stream);
        let sender = match over {
            Over::H1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::H1(sender)
            }
            Over::H2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::H2(sender)
            }
        };
        Ok(Self { local, sender })
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// When the connection or the stream ends before the answer does.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer> {
        let answered = async {
            let answer = match &mut self.sender {
                Sender::H1(sender) => {
                    sender.ready().await.context("the connection is closed")?;
                    sender.send_request(ask.request(Over::H1)?).await?
                }
                Sender::H2(sender) => {
                    sender.ready().await.context("the connection is closed")?;
                    sender.send_request(ask.request(Over::H2)?).await?
                }
            };
            read(answer).await
        };
        timeout(PATIENCE, answered)
            .await
            .map_err(|_| anyhow!("no whole answer within {PATIENCE:?}"))?
    }
}

impl Ask {
    fn request(&self, over: Over) -> Result<Request<Sent>> {
        let mut request = Request::builder().method(self.method.clone());
        request = match over {
            Over::H1 => request
                .uri(&self.path)
                .header(http::header::HOST, &self.authority),
            Over::H2 => request.uri(format!("http://{}{}", self.authority, self.path)),
        };
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = match self.body.as_slice() {
            [] => Full::default().boxed_unsync(),
            [whole] => Full::new(whole.clone()).boxed_unsync(),
            pieces => {
                let pieces = futures_util::stream::iter(pieces.to_vec()).then(async |piece| {
                    tokio::time::sleep(PAUSE).await;
                    Ok(Frame::data(piece))
                });
                BodyExt::boxed_unsync(StreamBody::new(Box::pin(pieces)))
            }
        };
        Ok(request.body(body)?)
    }
}

async fn read(answer: http::Response<Incoming>) -> Result<Answer> {
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .context("the answer's body broke off")?;
    let trailers = body.trailers().map(pairs).unwrap_or_default();
    Ok(Answer {
        status: head.status.as_u16(),
        version: head.version,
        headers: pairs(&head.headers),
        body: body.to_bytes(),
        trailers,
    })
}

/// Headers as text; what is not UTF-8 is replaced.
#[must_use]
pub fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// One plain request on a connection of its own.
///
/// # Errors
/// When nobody answers.
pub async fn get(at: SocketAddr, path: &str) -> Result<Answer> {
    let mut caller = Caller::connect(at, Over::H1).await?;
    caller.ask(&Ask::get(&at.to_string(), path)).await
}
