//! One document over HTTP/1.1, with TLS where the address says so: bounded in size, time (by the
//! caller) and redirects. Who may write a RequestAuthentication can make control ask any address, so
//! control's own host and its link are left out.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Source;

/// The largest document that is read.
const LARGEST: usize = 1 << 20;
/// Redirects that are followed.
const REDIRECTS: usize = 3;
/// Where an issuer says where its keys are. (OpenID Connect Discovery 1.0, 4)
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address.
    #[error("{0:?} is not an http or https address with a host")]
    Address(String),
    /// The name is not resolved, or nobody is there.
    #[error("{authority} can't be reached")]
    Connect {
        /// Host and port.
        authority: String,
        /// Why.
        source: std::io::Error,
    },
    /// Only addresses that must not be asked.
    #[error("{authority} is an address of control's own host or link, which is not asked for keys")]
    Forbidden {
        /// Host and port.
        authority: String,
    },
    /// The connection broke, or it speaks no HTTP.
    #[error("{authority} gave no answer over HTTP")]
    Http {
        /// Host and port.
        authority: String,
        /// Why.
        source: hyper::Error,
    },
    /// Not a success.
    #[error("{uri} answers {status}")]
    Status {
        /// Who.
        uri: String,
        /// What.
        status: StatusCode,
    },
    /// A redirect to nowhere, to plain text, or one too many.
    #[error("{uri} leads on to where control does not follow")]
    Redirect {
        /// Who.
        uri: String,
    },
    /// More than is read.
    #[error("{uri} is larger than {LARGEST} bytes")]
    Large {
        /// Who.
        uri: String,
    },
    /// The body broke off.
    #[error("{uri} broke off")]
    Body {
        /// Who.
        uri: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not what it should be.
    #[error("{uri} is no {what}")]
    Content {
        /// Who.
        uri: String,
        /// What it should be.
        what: &'static str,
    },
}

/// The error with its causes, in one line.
pub(super) fn told(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Which addresses are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All but control's own host and its link.
    Others,
    /// All, for tests and for a mesh on one machine.
    Everywhere,
}

/// What is needed to fetch.
pub struct Fetcher {
    tls: TlsConnector,
    reach: Reach,
}

impl Fetcher {
    /// Trusts the public authorities, and those in a PEM file where there is one (istiod's
    /// `/cacerts/extra.pem`).
    #[must_use]
    pub fn new(extra_roots: &Path, reach: Reach) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        match CertificateDer::pem_file_iter(extra_roots) {
            Ok(extra) => {
                let (good, bad) = roots.add_parsable_certificates(extra.filter_map(Result::ok));
                tracing::info!(file = %extra_roots.display(), good, bad, "further authorities for fetching keys");
            }
            Err(error) => {
                tracing::debug!(file = %extra_roots.display(), %error, "no further authorities for fetching keys");
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            tls: TlsConnector::from(Arc::new(config)),
            reach,
        }
    }

    /// The keys of a source, as they are in the document.
    pub async fn keys(&self, source: &Source) -> Result<Arc<str>, FetchError> {
        let uri = if source.uri.is_empty() {
            self.discover(&source.issuer).await?
        } else {
            source.uri.clone()
        };
        let text = self.document(&uri).await?;
        let is_keys = |value: &Value| value.get("keys").is_some_and(Value::is_array);
        let good = serde_json::from_str(&text).is_ok_and(|value: Value| is_keys(&value));
        if good {
            Ok(text.into())
        } else {
            let what = "set of keys (JSON with a list \"keys\")";
            Err(FetchError::Content { uri, what })
        }
    }

    async fn discover(&self, issuer: &str) -> Result<String, FetchError> {
        let uri = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
        let text = self.document(&uri).await?;
        let value: Option<Value> = serde_json::from_str(&text).ok();
        let named = value.as_ref().and_then(|value| value["jwks_uri"].as_str());
        named.map(str::to_owned).ok_or(FetchError::Content {
            uri,
            what: "OpenID configuration with a jwks_uri",
        })
    }

    async fn document(&self, uri: &str) -> Result<String, FetchError> {
        let mut at = parsed(uri)?;
        for _ in 0..=REDIRECTS {
            match self.ask(&at).await? {
                Answer::Text(text) => return Ok(text),
                Answer::Elsewhere(next) => {
                    let secure = at.scheme() == Some(&Scheme::HTTPS);
                    let redirect = || FetchError::Redirect {
                        uri: at.to_string(),
                    };
                    let next = parsed(&next).map_err(|_| redirect())?;
                    if secure && next.scheme() != Some(&Scheme::HTTPS) {
                        return Err(redirect());
                    }
                    at = next;
                }
            }
        }
        Err(FetchError::Redirect {
            uri: uri.to_owned(),
        })
    }

    async fn ask(&self, uri: &Uri) -> Result<Answer, FetchError> {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let authority = format!("{host}:{port}");
        let broken = |source| FetchError::Connect {
            authority: authority.clone(),
            source,
        };
        let stream = self.connect(host, port, &authority).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, uri.authority().map_or(host, |a| a.as_str()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "culvert-control")
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Address(uri.to_string()))?;
        if secure {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| FetchError::Address(uri.to_string()))?;
            let stream = self.tls.connect(name, stream).await.map_err(broken)?;
            exchange(stream, request, uri, &authority).await
        } else {
            exchange(stream, request, uri, &authority).await
        }
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        authority: &str,
    ) -> Result<TcpStream, FetchError> {
        let broken = |source| FetchError::Connect {
            authority: authority.to_owned(),
            source,
        };
        let found = tokio::net::lookup_host((host, port))
            .await
            .map_err(broken)?;
        let allowed: Vec<SocketAddr> = found
            .filter(|at| self.reach == Reach::Everywhere || others(at.ip()))
            .collect();
        if allowed.is_empty() {
            return Err(FetchError::Forbidden {
                authority: authority.to_owned(),
            });
        }
        TcpStream::connect(allowed.as_slice()).await.map_err(broken)
    }
}

enum Answer {
    Text(String),
    Elsewhere(String),
}

async fn exchange(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    uri: &Uri,
    authority: &str,
) -> Result<Answer, FetchError> {
    let broken = |source| FetchError::Http {
        authority: authority.to_owned(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(response, uri).await
    };
    // The connection moves the bytes; it ends with the answer, or with this future.
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended.map_err(broken)?;
            answered.await
        }
    }
}

async fn read(
    response: http::Response<hyper::body::Incoming>,
    uri: &Uri,
) -> Result<Answer, FetchError> {
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(header::LOCATION);
        let to = to.and_then(|to| to.to_str().ok()).map(str::to_owned);
        return to
            .map(Answer::Elsewhere)
            .ok_or_else(|| FetchError::Redirect {
                uri: uri.to_string(),
            });
    }
    if !status.is_success() {
        return Err(FetchError::Status {
            uri: uri.to_string(),
            status,
        });
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|source| {
        if source.is::<LengthLimitError>() {
            FetchError::Large {
                uri: uri.to_string(),
            }
        } else {
            FetchError::Body {
                uri: uri.to_string(),
                source,
            }
        }
    })?;
    String::from_utf8(body.to_bytes().into())
        .map(Answer::Text)
        .map_err(|_| FetchError::Content {
            uri: uri.to_string(),
            what: "text in UTF-8",
        })
}

fn parsed(text: &str) -> Result<Uri, FetchError> {
    let uri: Option<Uri> = text.parse().ok();
    let web = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    };
    uri.filter(web)
        .ok_or_else(|| FetchError::Address(text.to_owned()))
}

/// Not control's own host, nor what is on its link alone: there the cloud keeps its credentials.
fn others(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let of_link = match address {
        IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    !(of_link || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}
