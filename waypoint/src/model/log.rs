//! What is written down of a request or connection: access logs and traces, as configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::expression::Expression;
use super::format::Format;
use super::text::{Fraction, HeaderMatch};

/// One access log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Where lines go.
    pub to: LogTarget,
    /// How a line looks.
    pub format: LogFormat,
    /// Which requests are written; all where none.
    pub filter: Option<LogFilter>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// How a line looks.
#[derive(Debug, Clone)]
pub enum LogFormat {
    /// Text, with its own line end.
    Text(Format),
    /// An object a line.
    Json(JsonFormat),
}

/// An object whose values are formats.
#[derive(Debug, Clone)]
pub enum JsonFormat {
    /// Fields in order.
    Object(Vec<(Box<str>, JsonFormat)>),
    /// Values in order.
    List(Vec<JsonFormat>),
    /// One value: a lone operator keeps its type (number, null), anything else is text.
    Value(Format),
    /// A number, a truth value or null, as JSON writes it.
    Literal(Box<str>),
}

/// Which requests are written.
#[derive(Debug, Clone)]
pub enum LogFilter {
    /// The status compared with a number.
    Status(Compare, u64),
    /// The duration in milliseconds compared with a number.
    Duration(Compare, u64),
    /// Any of these response flags (their short names); any flag at all where none is named.
    Flags(Vec<Box<str>>),
    /// Every one of these.
    All(Vec<LogFilter>),
    /// Any of these.
    Any(Vec<LogFilter>),
    /// A request header.
    Header(HeaderMatch),
    /// This share.
    Sample(Fraction),
    /// Not a health check.
    NotHealthCheck,
    /// Only traced requests.
    Traced,
    /// Those of which an expression is true.
    Where(Expression),
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Equal,
    /// Greater or equal.
    AtLeast,
    /// Less or equal.
    AtMost,
    /// Not equal.
    Not,
}

/// How requests are traced.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// Where spans go; without one only trace headers are passed on.
    pub provider: Option<Arc<TraceProvider>>,
    /// The share that is started at random.
    pub random: Fraction,
    /// The share of requests with `x-client-trace-id` that is started.
    pub client: Fraction,
    /// The upper bound over both.
    pub overall: Fraction,
    /// What spans carry besides.
    pub tags: Vec<Tag>,
    /// The longest path tag, in bytes.
    pub path_limit: usize,
    /// A span of its own for each upstream attempt.
    pub upstream_spans: bool,
    /// The next hop is told of the trace; where it isn't, the client's own headers go on as they came.
    pub propagates: bool,
}

/// How a route's requests are traced, in place of what their chain says.
#[derive(Debug, Clone)]
pub struct RouteTracing {
    /// The share that is started at random.
    pub random: Fraction,
    /// The share of requests with `x-client-trace-id` that is started.
    pub client: Fraction,
    /// The upper bound over both.
    pub overall: Fraction,
    /// What spans carry beside the chain's tags, or in place of those with the same names.
    pub tags: Vec<Tag>,
}

/// Where spans go.
#[derive(Debug, Clone)]
pub struct TraceProvider {
    /// The protocol.
    pub protocol: TraceProtocol,
    /// The cluster of the collector.
    pub cluster: Arc<str>,
    /// `service.name`.
    pub service: Box<str>,
    /// The collector's `:authority`.
    pub authority: Box<str>,
    /// The path of the collector's API.
    pub path: Box<str>,
    /// How long an export may take.
    pub timeout: Duration,
    /// The longest batch, in spans.
    pub batch: usize,
}

/// A protocol of trace collectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceProtocol {
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP, protobuf.
    OtlpHttp,
    /// Zipkin's JSON, version 2.
    Zipkin,
}

/// What a span carries.
#[derive(Debug, Clone)]
pub struct Tag {
    /// Its name.
    pub name: Box<str>,
    /// Its value.
    pub value: Format,
    /// What it is where that is empty. Where this is empty, too, the tag is left out.
    pub otherwise: Box<str>,
}
