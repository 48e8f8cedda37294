//! The record of one request and its answer, or of one opaque connection. The flow fills it as it
//! goes; logs, metrics and spans are made of it at the end. Everything in it is shared or small: a
//! record costs no copy of a header that nobody looks at.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::flags::Flags;
use super::trace::Span;
use crate::connection::Downstream;
use crate::head::Metadata;
use crate::model::cluster::Cluster;
use crate::model::endpoint::{Address, Endpoint};
use crate::model::log::Tag;
use crate::model::route::Route;

/// A piece of a request's head, however it is held. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub enum Text {
    /// Nothing.
    #[default]
    Empty,
    /// An authority of a request line or of HTTP/2.
    Authority(Authority),
    /// A path of such.
    Path(PathAndQuery),
    /// A header's value, such as `Host`.
    Header(HeaderValue),
    /// Made here.
    Owned(Arc<str>),
}

impl Text {
    /// As text; empty where it is none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Empty => "",
            Self::Authority(authority) => authority.as_str(),
            Self::Path(path) => path.as_str(),
            Self::Header(value) => std::str::from_utf8(value.as_bytes()).unwrap_or_default(),
            Self::Owned(text) => text,
        }
    }
}

/// When the steps of a request happened, as far as they did.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    /// Its head was there.
    pub start: Instant,
    /// The same by the clock on the wall.
    pub started: SystemTime,
    /// Its last byte came.
    pub request_end: Option<Instant>,
    /// Its first byte went to the upstream, in the last attempt.
    pub upstream_start: Option<Instant>,
    /// Its last byte went there.
    pub upstream_end: Option<Instant>,
    /// The answer's head came.
    pub response_start: Option<Instant>,
    /// The answer's last byte came.
    pub response_end: Option<Instant>,
    /// The answer's first byte went to the client.
    pub downstream_start: Option<Instant>,
    /// Everything was over.
    pub end: Option<Instant>,
}

impl Marks {
    /// A request that begins.
    #[must_use]
    pub fn new(start: Instant, started: SystemTime) -> Self {
        Self {
            start,
            started,
            request_end: None,
            upstream_start: None,
            upstream_end: None,
            response_start: None,
            response_end: None,
            downstream_start: None,
            end: None,
        }
    }
}

/// Where a request or connection went.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// The chosen cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The chosen endpoint, of the last attempt.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The address of the endpoint itself, where a tunnel ends elsewhere too.
    pub remote: Option<SocketAddr>,
    /// Our own address of the connection.
    pub local: Option<SocketAddr>,
    /// Why no connection came to be, in words.
    pub failure: Option<Box<str>>,
    /// How many attempts were made.
    pub attempts: u32,
}

impl Upstream {
    /// The address of the endpoint, whether a connection to it came to be or not.
    #[must_use]
    pub fn host(&self) -> Option<SocketAddr> {
        let listed = || match self.endpoint.as_ref()?.address {
            Address::Socket(at) | Address::Tunnel { to: at, .. } => Some(at),
            _ => None,
        };
        self.remote.or_else(listed)
    }
}

/// The headers that logs, traces and answers look at later.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pairs: Vec<(HeaderName, HeaderValue)>,
}

impl Kept {
    /// Keeps these headers, as far as they are there: the first value of each.
    pub fn keep(&mut self, names: &[HeaderName], headers: &HeaderMap) {
        for name in names {
            if let Some(value) = headers.get(name) {
                self.pairs.push((name.clone(), value.clone()));
            }
        }
    }

    /// A header that was kept.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.pairs
            .iter()
            .find_map(|(known, value)| (known == name).then_some(value))
    }
}

/// What a plugin wrote down: under which path, and what.
pub(super) type Words = (Box<[u8]>, Box<[u8]>);

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// The connection it came by.
    pub downstream: Arc<Downstream>,
    /// When what happened.
    pub marks: Marks,
    /// `:method`
    pub method: Method,
    /// `:scheme`, which is also `x-forwarded-proto`.
    pub scheme: &'static str,
    /// `:authority`, as the upstream gets it.
    pub authority: Text,
    /// `:path`, as the upstream gets it.
    pub path: Text,
    /// `:path` before it was rewritten, where it was.
    pub original_path: Option<Text>,
    /// The client's protocol.
    pub protocol: Version,
    /// The upstream's protocol.
    pub upstream_protocol: Option<Version>,
    /// It is gRPC.
    pub is_grpc: bool,
    /// The client's address after trusted proxies.
    pub client: SocketAddr,
    /// Request headers that were kept.
    pub request: Kept,
    /// Answer headers that were kept.
    pub response: Kept,
    /// Answer trailers that were kept.
    pub trailers: Kept,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// Where it went.
    pub upstream: Upstream,
    /// The answer's status; none where there was no answer.
    pub status: Option<StatusCode>,
    /// `grpc-status`, of the trailers or else the head.
    pub grpc_status: Option<u32>,
    /// What was unusual.
    pub flags: Flags,
    /// Who answered, and why so: `via_upstream`, `route_not_found`, …
    pub details: Cow<'static, str>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// gRPC messages from the client, where they are counted.
    pub messages_received: u64,
    /// gRPC messages to the client.
    pub messages_sent: u64,
    /// What filters wrote down.
    pub metadata: Metadata,
    /// What plugins wrote down, by their own paths.
    pub kept: Vec<Words>,
    /// Its span, where it is traced or trace headers came with it.
    pub span: Option<Box<Span>>,
    /// The span of the attempt that is under way, where attempts have some.
    pub attempt: Option<Box<Attempt>>,
}

impl Exchange {
    /// The status of a gRPC call: what its answer says, or else what the HTTP status stands for.
    #[must_use]
    pub fn call_status(&self) -> Option<u32> {
        self.in_grpc().filter(|_| self.is_grpc)
    }

    /// What gRPC would call the answer's status, whether or not the request is a call.
    #[must_use]
    pub fn in_grpc(&self) -> Option<u32> {
        let stands_for = || self.status.map(crate::grpc::status_of);
        self.grpc_status.or_else(stands_for)
    }

    /// The tags that spans carry by the request's route.
    #[must_use]
    pub fn route_tags(&self) -> &[Tag] {
        let tracing = self.route.as_ref().and_then(|route| route.tracing.as_ref());
        tracing.map_or(&[], |tracing| &tracing.tags)
    }

    /// A request that begins. The flow sets the rest as it comes to know it.
    #[must_use]
    pub fn new(
        downstream: Arc<Downstream>,
        marks: Marks,
        method: Method,
        protocol: Version,
    ) -> Self {
        let client = downstream.remote;
        Self {
            downstream,
            marks,
            method,
            scheme: "http",
            authority: Text::Empty,
            path: Text::Empty,
            original_path: None,
            protocol,
            upstream_protocol: None,
            is_grpc: false,
            client,
            request: Kept::default(),
            response: Kept::default(),
            trailers: Kept::default(),
            route: None,
            upstream: Upstream::default(),
            status: None,
            grpc_status: None,
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            received: 0,
            sent: 0,
            messages_received: 0,
            messages_sent: 0,
            metadata: Metadata::default(),
            kept: Vec::new(),
            span: None,
            attempt: None,
        }
    }
}

/// An attempt that is traced by itself.
#[derive(Debug)]
pub struct Attempt {
    /// Its span.
    pub span: Span,
    /// When it began, by the clock on the wall.
    pub started: SystemTime,
    /// The same for durations.
    pub start: Instant,
    /// Its number, from 1.
    pub number: u32,
}

/// One opaque connection, or one of HTTP as such.
#[derive(Debug)]
pub struct Connection {
    /// What is known of it.
    pub downstream: Arc<Downstream>,
    /// When it began.
    pub start: Instant,
    /// The same by the clock on the wall.
    pub started: SystemTime,
    /// Where it went.
    pub upstream: Upstream,
    /// What was unusual.
    pub flags: Flags,
    /// Why it ended, or was denied (`rbac_access_denied_matched_policy[…]`).
    pub details: Cow<'static, str>,
    /// The word of a service that was asked (`ext_authz_denied`); empty where none denied it.
    pub verdict: &'static str,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// When it was over.
    pub end: Option<Instant>,
}

impl Connection {
    /// A connection that begins.
    #[must_use]
    pub fn new(downstream: Arc<Downstream>, start: Instant, started: SystemTime) -> Self {
        Self {
            downstream,
            start,
            started,
            upstream: Upstream::default(),
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            verdict: "",
            received: 0,
            sent: 0,
            end: None,
        }
    }
}
