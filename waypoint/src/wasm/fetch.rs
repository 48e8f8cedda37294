//! One document over HTTP/1.1, with TLS where the address says so: bounded in size, in redirects, and
//! by its caller in time. Whoever may write a WasmPlugin can have a waypoint ask any address, so that
//! the proxy's own host and its link are left out, unless an operator names them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::engine::LARGEST;

/// Redirects that are followed.
const REDIRECTS: usize = 5;

/// Gets documents.
#[derive(Default)]
pub(super) struct Fetcher {
    tls: OnceLock<TlsConnector>,
    /// Hosts, with their ports where they have one, that may be asked without TLS and wherever they
    /// are; `*` is every host.
    open: Vec<Box<str>>,
}

/// An answer.
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// It may be otherwise the next time.
    #[error("{0}")]
    Passing(String),
    /// It stays so until somebody changes something.
    #[error("{0}")]
    Lasting(String),
}

impl Fetcher {
    pub(super) fn new(open: Vec<Box<str>>) -> Self {
        Self {
            open,
            ..Self::default()
        }
    }

    /// Whether a host may be asked without TLS, and wherever it is.
    pub(super) fn is_open(&self, authority: &str) -> bool {
        let mut open = self.open.iter();
        open.any(|host| **host == *authority || &**host == "*")
    }

    /// Gets a document; redirects are followed, without credentials to other hosts.
    pub(super) async fn get(&self, uri: &Uri, headers: &HeaderMap) -> Result<Got, FetchError> {
        let mut at = uri.clone();
        let mut headers = headers.clone();
        for _ in 0..=REDIRECTS {
            let got = self.ask(&at, &headers).await?;
            if !got.status.is_redirection() {
                return Ok(got);
            }
            let to = got.headers.get(header::LOCATION);
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or_default();
            let next = onward(&at, to)
                .ok_or_else(|| FetchError::Lasting(format!("{at} leads on to {to:?}")))?;
            if next.scheme() != at.scheme() && at.scheme() == Some(&Scheme::HTTPS) {
                let why = format!("{at} leads on to {next}, without TLS");
                return Err(FetchError::Lasting(why));
            }
            if next.authority() != at.authority() {
                headers.remove(header::AUTHORIZATION);
            }
            at = next;
        }
        Err(FetchError::Lasting(format!("{uri} leads on too often")))
    }

    async fn ask(&self, uri: &Uri, headers: &HeaderMap) -> Result<Got, FetchError> {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .body(Empty::<Bytes>::new())
            .map_err(|error| FetchError::Lasting(format!("{uri}: {error}")))?;
        request.headers_mut().extend(headers.clone());
        let agent = HeaderValue::from_static("culvert-waypoint");
        request.headers_mut().insert(header::USER_AGENT, agent);
        if let Ok(host) = HeaderValue::from_str(authority) {
            request.headers_mut().insert(header::HOST, host);
        }
        let passing = |error: String| FetchError::Passing(format!("{authority}: {error}"));
        let stream = self.connect(host, port, authority).await?;
        let got = match secure {
            true => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|error| FetchError::Lasting(format!("{uri}: {error}")))?;
                let stream = self.tls().connect(name, stream).await;
                let stream = stream.map_err(|error| passing(error.to_string()))?;
                exchange(stream, request).await
            }
            false => exchange(stream, request).await,
        };
        got.map_err(passing)
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        authority: &str,
    ) -> Result<TcpStream, FetchError> {
        let passing = |error: std::io::Error| {
            FetchError::Passing(format!("{authority} can't be reached: {error}"))
        };
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<SocketAddr> = found
            .map_err(passing)?
            .filter(|at| self.is_open(authority) || is_elsewhere(at.ip()))
            .collect();
        if found.is_empty() {
            let why =
                "is an address of the proxy's own host or link, which code isn't fetched from";
            return Err(FetchError::Lasting(format!("{authority} {why}")));
        }
        TcpStream::connect(found.as_slice()).await.map_err(passing)
    }

    /// Trusts the public authorities.
    fn tls(&self) -> &TlsConnector {
        self.tls.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
            roots.add_parsable_certificates(public);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring has the cipher suites of the default versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        })
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Got, String> {
    let told = |error: hyper::Error| format!("no answer over HTTP: {error}");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(told)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(told)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|error| format!("the answer can't be read: {error}"))?;
        Ok(Got {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    };
    // The connection moves the bytes; it ends with the answer, or with this future.
    tokio::pin!(answered);
    tokio::select! {
        got = &mut answered => got,
        ended = connection => {
            ended.map_err(told)?;
            answered.await
        }
    }
}

/// Where a redirect leads.
fn onward(at: &Uri, to: &str) -> Option<Uri> {
    let next: Uri = to.parse().ok()?;
    if next.host().is_some() {
        let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)];
        return known.contains(&next.scheme()).then_some(next);
    }
    let mut parts = at.clone().into_parts();
    parts.path_and_query = Some(next.path_and_query()?.clone());
    Uri::from_parts(parts).ok()
}

/// Neither this host nor its link, where clouds tell machines their secrets.
fn is_elsewhere(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
