//! The document that has an issuer's keys, and the one that says where they are: bounded in size, time (by
//! the caller) and redirects.

use std::path::Path;
use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mesh::fetch::{self, Client, Reach, Unanswered};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

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

/// What is needed to fetch.
pub struct Fetcher {
    client: Client,
    reach: Reach,
}

impl Fetcher {
    /// Trusts the public authorities, and those in a PEM file where there is one (istiod's
    /// `/cacerts/extra.pem`).
    #[must_use]
    pub fn new(extra_roots: &Path, reach: Reach) -> Self {
        let mut roots = fetch::public_roots();
        match CertificateDer::pem_file_iter(extra_roots) {
            Ok(extra) => {
                let (good, bad) = roots.add_parsable_certificates(extra.filter_map(Result::ok));
                tracing::info!(file = %extra_roots.display(), good, bad, "further authorities for fetching keys");
            }
            Err(error) => {
                tracing::debug!(file = %extra_roots.display(), %error, "no further authorities for fetching keys");
            }
        }
        Self {
            client: Client::new(roots),
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
        let mut headers = HeaderMap::new();
        let (accept, agent) = ("application/json", "culvert-control");
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let read = |response| read(response, uri);
        let answer = self.client.get(uri, &headers, self.reach, read).await;
        answer.map_err(|why| unanswered(uri, why))?
    }
}

fn unanswered(uri: &Uri, why: Unanswered) -> FetchError {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let authority = format!("{host}:{port}");
    match why {
        Unanswered::Address => FetchError::Address(uri.to_string()),
        Unanswered::Forbidden => FetchError::Forbidden { authority },
        Unanswered::Connect(source) | Unanswered::Tls(source) => {
            FetchError::Connect { authority, source }
        }
        Unanswered::Http(source) => FetchError::Http { authority, source },
    }
}

enum Answer {
    Text(String),
    Elsewhere(String),
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
