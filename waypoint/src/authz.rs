//! External authorisation: what is told of a request, and what the answer means. Pure: who sends it
//! and waits is the flow's business.

mod grpc;
mod http_service;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use serde_json::{Map, Value};

use crate::connection::Downstream;
use crate::head::{Head, Metadata};
use crate::model::authz::{AuthzOverride, Buffer, ExtAuthz, Service};
use crate::model::route::SetAction;
use crate::model::text::TextMatch;

/// What logs say of a connection that a service denied, and of one that nobody answered about.
pub const DENIED: &str = "ext_authz_denied";
/// See [`DENIED`].
pub const FAILED: &str = "ext_authz_error";
/// The filter's name, under which it writes down what its service says.
pub const FILTER: &str = "envoy.filters.http.ext_authz";
/// Says that a request passed because nobody answered.
pub const PASSED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// Whether the service was sent a part of the body only.
const PARTIAL: &str = "x-envoy-auth-partial-body";

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The request's head.
    pub head: &'a Head<'a>,
    /// `HTTP/1.1` and the like.
    pub protocol: &'a str,
    /// The connection.
    pub downstream: &'a Downstream,
    /// The client's address after trusted proxies.
    pub client: std::net::SocketAddr,
    /// What filters wrote down.
    pub metadata: &'a Metadata,
    /// The body as far as it was read, and whether there is more of it.
    pub body: Option<(&'a [u8], bool)>,
    /// What is different on the route.
    pub route: Option<&'a AuthzOverride>,
    /// The request's number.
    pub id: u64,
    /// When it came, since 1970.
    pub time: std::time::Duration,
}

/// What the service says.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request passes, changed so.
    Allow(Box<Changes>),
    /// It is answered so.
    Deny(Box<Denial>),
    /// Nothing that could be understood.
    Failed,
}

/// What is changed in a request that passes, and in its answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Set, in place of those of the same name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appended.
    pub append: Vec<(HeaderName, HeaderValue)>,
    /// Appended where there is one of the name already, and left out elsewhere.
    pub append_present: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Headers of the answer.
    pub answer: Vec<(HeaderName, HeaderValue, SetAction)>,
    /// Written down.
    pub metadata: Map<String, Value>,
}

/// The answer to a request that doesn't pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
    /// Written down.
    pub metadata: Map<String, Value>,
}

impl Changes {
    /// Whether the request itself is changed.
    #[must_use]
    pub fn any(&self) -> bool {
        let added = self.append.len() + self.append_present.len();
        !(self.set.is_empty() && added == 0 && self.remove.is_empty())
    }
}

/// How much of the body is wanted.
#[must_use]
pub fn buffer(filter: &ExtAuthz, route: Option<&AuthzOverride>) -> Option<Buffer> {
    route.and_then(|route| route.body).unwrap_or(filter.body)
}

/// The request to the service; none where the request's head can't be told.
#[must_use]
pub fn request(filter: &ExtAuthz, question: &Question<'_>) -> Option<Request<Bytes>> {
    match &filter.service {
        Service::Http(service) => http_service::request(filter, service, question),
        Service::Grpc(metadata) => grpc::request(filter, metadata, question),
    }
}

/// The request to the service about a connection, of which filters wrote this down; none where the
/// service can't be told of one.
#[must_use]
pub fn request_of(
    filter: &ExtAuthz,
    downstream: &Downstream,
    noted: &Metadata,
) -> Option<Request<Bytes>> {
    match &filter.service {
        Service::Http(_) => None,
        Service::Grpc(metadata) => grpc::request_of(filter, metadata, downstream, noted),
    }
}

/// What the service's answer means: its head, its body, and the status of gRPC at its end.
#[must_use]
pub fn verdict(
    filter: &ExtAuthz,
    answer: &http::response::Parts,
    body: Bytes,
    grpc: Option<u32>,
) -> Verdict {
    match &filter.service {
        Service::Http(service) => http_service::verdict(service, answer, body),
        Service::Grpc(_) if answer.status == StatusCode::OK && grpc == Some(0) => {
            grpc::verdict(&body)
        }
        Service::Grpc(_) => Verdict::Failed,
    }
}

/// The headers that the service is told, names in lower case, several values joined.
fn told(filter: &ExtAuthz, question: &Question<'_>) -> Vec<(String, String)> {
    let head = question.head;
    let http = matches!(filter.service, Service::Http(_));
    let may = |name: &str| {
        if any(&filter.disallowed, name) {
            return false;
        }
        // A service of HTTP hears of these always, and of nothing else unasked.
        let always = [":authority", ":method", ":path", "authorization"];
        match &filter.allowed {
            Some(allowed) => any(allowed, name) || (http && always.contains(&name)),
            None => !http || always.contains(&name),
        }
    };
    let pseudo = [
        (":authority", head.authority),
        (":method", head.method.as_str()),
        (":path", head.path),
        (":scheme", head.scheme),
    ];
    let pseudo = pseudo.into_iter().filter(|(name, _)| may(name));
    let mut told: Vec<(String, String)> = pseudo
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for name in head.headers.keys() {
        if *name == header::HOST || !may(name.as_str()) {
            continue;
        }
        if let Some(value) = head.header(name) {
            told.push((name.as_str().to_owned(), value.into_owned()));
        }
    }
    if let Some((_, more)) = question.body {
        told.push((PARTIAL.to_owned(), more.to_string()));
    }
    told
}

fn any(list: &[TextMatch], name: &str) -> bool {
    list.iter().any(|one| one.matches(name))
}

/// A header of an answer that may be passed on; those of one hop and the host never are.
fn passable(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 6] = [
        header::HOST,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
    ];
    !NEVER.contains(name)
}

/// The method of a request to a service.
fn method(text: &str) -> Option<Method> {
    Method::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
