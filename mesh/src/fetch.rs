//! One request over HTTP/1.1, with TLS where the address says so, to wherever somebody else says: who
//! may write a RequestAuthentication or a WasmPlugin can have us ask any address. So our own host and
//! its link are left out, unless the caller knows better. Redirects, sizes and times are the caller's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Which addresses are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All but our own host and its link.
    Others,
    /// All.
    Everywhere,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// It is no address that a request can be sent to.
    Address,
    /// Only addresses that must not be asked.
    Forbidden,
    /// The name is not resolved, or nobody is there.
    Connect(io::Error),
    /// It speaks no TLS, or as somebody else.
    Tls(io::Error),
    /// The connection broke, or it speaks no HTTP.
    Http(hyper::Error),
}

/// Asks.
pub struct Client {
    tls: TlsConnector,
}

/// The public authorities.
#[must_use]
pub fn public_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    roots
}

impl Client {
    /// Trusts these authorities.
    #[must_use]
    pub fn new(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            tls: TlsConnector::from(Arc::new(config)),
        }
    }

    /// Gets what an address has; `read` makes of the answer what is wanted of it, while the connection
    /// lasts.
    ///
    /// # Errors
    /// There is no answer; why.
    pub async fn get<R: Future>(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        reach: Reach,
        read: impl FnOnce(Response<Incoming>) -> R,
    ) -> Result<R::Output, Unanswered> {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path).body(Empty::new());
        let mut request = request.map_err(|_| Unanswered::Address)?;
        request.headers_mut().extend(headers.clone());
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        let authority = HeaderValue::from_str(authority).map_err(|_| Unanswered::Address)?;
        request.headers_mut().insert(header::HOST, authority);
        let stream = connect(host, port, reach).await?;
        if !secure {
            return exchange(stream, request, read).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Unanswered::Address)?;
        let stream = self.tls.connect(name, stream).await;
        exchange(stream.map_err(Unanswered::Tls)?, request, read).await
    }
}

async fn connect(host: &str, port: u16, reach: Reach) -> Result<TcpStream, Unanswered> {
    let found = tokio::net::lookup_host((host, port)).await;
    let allowed: Vec<SocketAddr> = found
        .map_err(Unanswered::Connect)?
        .filter(|at| reach == Reach::Everywhere || is_elsewhere(at.ip()))
        .collect();
    if allowed.is_empty() {
        return Err(Unanswered::Forbidden);
    }
    let stream = TcpStream::connect(allowed.as_slice()).await;
    stream.map_err(Unanswered::Connect)
}

async fn exchange<R: Future>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    read: impl FnOnce(Response<Incoming>) -> R,
) -> Result<R::Output, Unanswered> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Unanswered::Http)?;
    let answered = async {
        let response = sender.send_request(request).await;
        Ok(read(response.map_err(Unanswered::Http)?).await)
    };
    // The connection moves the bytes; it ends with the answer, or with this future.
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended.map_err(Unanswered::Http)?;
            answered.await
        }
    }
}

/// Not our own host, nor what is on its link alone: there the cloud keeps its credentials.
#[must_use]
pub fn is_elsewhere(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let of_link = match address {
        IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    !(of_link || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}
