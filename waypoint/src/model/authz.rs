//! External authorisation as compiled: who is asked about a request, what is told of it, and what the
//! answer may change. Envoy's `ext_authz`, in which AuthorizationPolicy with CUSTOM arrives.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::policy::MetadataMatch;
use super::text::{Fraction, TextMatch};

/// One filter.
#[derive(Debug, Clone)]
pub struct ExtAuthz {
    /// Who is asked.
    pub service: Service,
    /// The cluster through which.
    pub cluster: Arc<str>,
    /// The service's host.
    pub authority: Box<str>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// A request passes where no answer comes.
    pub fail_open: bool,
    /// The upstream is told of that (`x-envoy-auth-failure-mode-allowed`).
    pub fail_open_header: bool,
    /// The answer where none comes, unless such requests pass.
    pub status_on_error: StatusCode,
    /// So much of the body is sent along.
    pub body: Option<Buffer>,
    /// The route is looked up again where the answer changed the request.
    pub clear_route_cache: bool,
    /// The share of requests that is asked about.
    pub enabled: Fraction,
    /// Only requests of which an earlier filter wrote this down: istiod's CUSTOM policies match so.
    pub enabled_metadata: Option<MetadataMatch>,
    /// Headers that the service is told; none: its kind's own.
    pub allowed: Option<Vec<TextMatch>>,
    /// Headers that it is never told.
    pub disallowed: Vec<TextMatch>,
    /// What these filters wrote down is told too (gRPC).
    pub metadata_of: Vec<Box<str>>,
    /// The name asked for by TLS is told too (gRPC).
    pub tls_session: bool,
}

/// How the service is asked.
#[derive(Debug, Clone)]
pub enum Service {
    /// By HTTP: the request's head is sent on, and the status decides.
    Http(Box<HttpService>),
    /// By the `Check` of gRPC, with such metadata.
    Grpc(Vec<(HeaderName, HeaderValue)>),
}

/// A service of HTTP. Lists of names are of headers of its answer.
#[derive(Debug, Clone, Default)]
pub struct HttpService {
    /// Put before the request's path.
    pub path_prefix: Box<str>,
    /// Headers that are added for the service.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Put in place of the request's.
    pub upstream: Vec<TextMatch>,
    /// Appended to the request's.
    pub upstream_append: Vec<TextMatch>,
    /// What the client hears of a denial; all where empty.
    pub client: Vec<TextMatch>,
    /// What the client hears of a request that passes.
    pub client_on_success: Vec<TextMatch>,
    /// Written down for later filters and logs.
    pub metadata: Vec<TextMatch>,
}

/// How much of a request's body is sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// At most so many bytes.
    pub most: usize,
    /// A longer body is cut, rather than refused with 413.
    pub partial: bool,
    /// It is told as bytes rather than as text (gRPC).
    pub as_bytes: bool,
}

/// What is different on a route.
#[derive(Debug, Clone, Default)]
pub struct AuthzOverride {
    /// Told to the service (gRPC).
    pub context: Vec<(Box<str>, Box<str>)>,
    /// Another rule for the body; none at all where the inner is none.
    pub body: Option<Option<Buffer>>,
}
