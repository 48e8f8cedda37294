//! Text with command operators, such as `%REQ(X-REQUEST-ID)%`: access-log lines, header values and
//! trace tags are written by one. Envoy's substitution format strings.

use std::sync::Arc;

use http::HeaderName;

use super::expression::Expression;
use super::text::HeaderKey;

/// A text with operators in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Format {
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that stands for itself.
    Literal(Box<str>),
    /// A value that is looked up. A longer one is cut after so many bytes.
    Value {
        /// Which one.
        operator: Operator,
        /// How many bytes at most.
        limit: Option<usize>,
    },
}

/// A value of a request or connection. Names are Envoy's, in our spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is documented by Envoy under the same name"
)]
pub enum Operator {
    StartTime {
        format: Option<Box<str>>,
    },
    Request {
        key: HeaderKey,
        otherwise: Option<HeaderKey>,
    },
    Response {
        key: HeaderName,
        otherwise: Option<HeaderName>,
    },
    Trailer {
        key: HeaderName,
        otherwise: Option<HeaderName>,
    },
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    /// The same in its own words: logs write it without spaces.
    UpstreamFailure,
    DownstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    UpstreamWireBytesSent,
    UpstreamWireBytesReceived,
    DownstreamWireBytesSent,
    DownstreamWireBytesReceived,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    RequestTxDuration,
    UpstreamHost,
    UpstreamHostName {
        port: bool,
    },
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamLocalAddress {
        port: bool,
    },
    UpstreamRemoteAddress {
        port: bool,
    },
    UpstreamProtocol,
    UpstreamRequestAttemptCount,
    DownstreamLocalAddress {
        port: bool,
    },
    DownstreamLocalPort,
    DownstreamRemoteAddress {
        port: bool,
    },
    DownstreamDirectRemoteAddress {
        port: bool,
    },
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    DownstreamPeerSubject,
    /// Whether there is one of the client: it has an empty value then.
    DownstreamCertificate,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    Hostname,
    ConnectionId,
    StreamId,
    TraceId,
    SpanId,
    GrpcStatus {
        form: GrpcForm,
    },
    /// `%FILTER_STATE(key:PLAIN|TYPED|FIELD:field)%`
    FilterState {
        key: Box<str>,
        field: Option<Box<str>>,
    },
    /// `%DYNAMIC_METADATA(namespace:key…)%`
    DynamicMetadata {
        path: Vec<Box<str>>,
    },
    /// `%CLUSTER_METADATA(namespace:key…)%`
    ClusterMetadata {
        path: Vec<Box<str>>,
    },
    /// `%UPSTREAM_METADATA(namespace:key…)%`
    UpstreamMetadata {
        path: Vec<Box<str>>,
    },
    /// `%ENVIRONMENT(NAME)%`, read when the format was compiled.
    Environment(Box<str>),
    /// `%CEL(expression)%`
    Expression(Arc<Expression>),
    /// `%PATH(WQ|NQ:…)%`
    Path {
        query: bool,
        which: WhichPath,
    },
    /// `%QUERY_PARAM(name)%`: the first of that name, decoded.
    QueryParameter(Box<str>),
    /// `%EMIT_TIME%`, when the value is asked for.
    EmitTime {
        format: Option<Box<str>>,
    },
}

/// How the status of a gRPC call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcForm {
    /// `DeadlineExceeded`
    Camel,
    /// `DEADLINE_EXCEEDED`
    Snake,
    /// `4`
    Number,
}

/// A request's path before or after it was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichPath {
    /// As the upstream gets it.
    Now,
    /// As it was before, where it was rewritten.
    Original,
    /// The original where there is one, or else as it is.
    OriginalOrNow,
}

impl Format {
    /// A text without operators.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        let parts = match text {
            "" => Vec::new(),
            text => vec![Part::Literal(text.into())],
        };
        Self { parts }
    }

    /// The text, where it has no operator and is one piece.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }
}
