//! One document over HTTP: bounded in size, in redirects, and by its caller in time. The proxy's own host
//! and its link are left out, unless an operator names them.

use std::sync::OnceLock;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use mesh::fetch::{Client, Reach, Unanswered, public_roots};

use super::engine::LARGEST;

/// Redirects that are followed.
const REDIRECTS: usize = 5;

/// Gets documents.
#[derive(Default)]
pub(super) struct Fetcher {
    client: OnceLock<Client>,
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
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let mut headers = headers.clone();
        let agent = HeaderValue::from_static("culvert-waypoint");
        headers.insert(header::USER_AGENT, agent);
        let reach = match self.is_open(authority) {
            true => Reach::Everywhere,
            false => Reach::Others,
        };
        let client = self.client.get_or_init(|| Client::new(public_roots()));
        let got = client.get(uri, &headers, reach, read).await;
        let passing = |error: String| FetchError::Passing(format!("{authority}: {error}"));
        got.map_err(|why| unanswered(uri, authority, why))?
            .map_err(passing)
    }
}

async fn read(response: Response<Incoming>) -> Result<Got, String> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LARGEST).collect().await;
    let body = body.map_err(|error| format!("the answer can't be read: {error}"))?;
    Ok(Got {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}

fn unanswered(uri: &Uri, authority: &str, why: Unanswered) -> FetchError {
    match why {
        Unanswered::Address => FetchError::Lasting(format!("{uri} is no address to fetch from")),
        Unanswered::Forbidden => FetchError::Lasting(format!(
            "{authority} is an address of the proxy's own host or link, which code isn't fetched from"
        )),
        Unanswered::Connect(error) => {
            FetchError::Passing(format!("{authority} can't be reached: {error}"))
        }
        Unanswered::Tls(error) => FetchError::Passing(format!("{authority}: {error}")),
        Unanswered::Http(error) => {
            FetchError::Passing(format!("{authority}: no answer over HTTP: {error}"))
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

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
