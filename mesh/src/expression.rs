//! Expressions in CEL about a request or connection, such as `response.code >= 400`: the subset that waypoints
//! serve ([ADR 13](../../docs/adr/0013-a-subset-of-cel.md)). It stands here because two read it: the waypoint,
//! which evaluates them, and the control plane, which tells who wrote one that it is none.
//!
//! What is no CEL is told from what is CEL and not among what is served. An expression's length and the number of
//! its parts are bounded, there are no loops (macros), and expressions to match are of linear time: evaluating one
//! is bounded, too. What names stand for is decided by who reads it ([`Terms`]).

mod parse;
mod words;

pub use parse::parse;

/// The longest expression, in bytes.
pub const LONGEST: usize = 4096;
/// The most parts of one, which bounds how long evaluating it takes.
pub const PARTS: usize = 256;
/// How deep brackets may stand in each other.
pub const DEPTH: usize = 24;

/// Envoy's attributes by name, as far as a waypoint has their value.
pub const ATTRIBUTES: [&str; 36] = [
    "request.method",
    "request.host",
    "request.path",
    "request.scheme",
    "request.url_path",
    "request.query",
    "request.referer",
    "request.useragent",
    "request.id",
    "request.protocol",
    "request.duration",
    "request.size",
    "response.size",
    "response.code",
    "response.code_details",
    "response.grpc_status",
    "response.flags",
    "source.address",
    "source.port",
    "destination.address",
    "destination.port",
    "connection.mtls",
    "connection.id",
    "connection.requested_server_name",
    "connection.uri_san_peer_certificate",
    "connection.uri_san_local_certificate",
    "connection.subject_peer_certificate",
    "connection.tls_version",
    "connection.termination_details",
    "upstream.address",
    "upstream.port",
    "upstream.local_address",
    "upstream.transport_failure_reason",
    "upstream.request_attempt_count",
    "xds.route_name",
    "xds.cluster_name",
];
/// Attributes that are maps of headers.
pub const HEADERS: [&str; 3] = ["request.headers", "response.headers", "response.trailers"];

/// Why a text is no expression here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is no CEL, as the text says.
    Wrong(String),
    /// It is, and this is not served.
    Unserved(String),
}

/// What names and patterns in an expression stand for.
pub trait Terms {
    /// What is known of a request or connection.
    type Attribute;
    /// What texts are matched with.
    type Pattern;

    /// One of [`ATTRIBUTES`].
    fn attribute(&self, name: &str) -> Option<Self::Attribute>;
    /// A header of one of [`HEADERS`]; of a request the name may be `:path` and its like.
    fn header(&self, of: &str, name: &str) -> Option<Self::Attribute>;
    /// A pattern in RE2's syntax.
    ///
    /// # Errors
    /// It is none.
    fn pattern(&self, text: &str) -> Result<Self::Pattern, String>;
}

/// A part of an expression.
#[derive(Debug, Clone)]
pub enum Node<A, P> {
    /// A value that stands for itself.
    Literal(Literal),
    /// `[a, b]`
    List(Vec<Self>),
    /// What is known of the request.
    Attribute(A),
    /// Whether that is known: `has(a.b)`, `'name' in request.headers`.
    Present(A),
    /// `!a`
    Not(Box<Self>),
    /// `-a`
    Minus(Box<Self>),
    /// `a ? b : c`
    Choice(Box<[Self; 3]>),
    /// Two values and what is between them.
    Pair(Between, Box<[Self; 2]>),
    /// `a.matches('expression')`
    Matches(Box<Self>, P),
    /// A value made into one of another type, or its length.
    Made(Make, Box<Self>),
}

/// A value that stands for itself.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is CEL's type of that name")]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
    /// In nanoseconds.
    Duration(i64),
}

/// What stands between two values, or what one is asked about the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is CEL's operator or function of that name"
)]
pub enum Between {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    In,
    Plus,
    Minus,
    Times,
    Divided,
    Remainder,
    StartsWith,
    EndsWith,
    Contains,
}

/// What is made of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// `size(a)`
    Size,
    /// `string(a)`
    Text,
    /// `int(a)`
    Int,
    /// `double(a)`
    Double,
}

impl<A, P> Node<A, P> {
    /// Calls `see` for each attribute that the expression looks at.
    pub fn each_attribute<'n>(&'n self, see: &mut dyn FnMut(&'n A)) {
        match self {
            Self::Literal(_) => {}
            Self::Attribute(attribute) | Self::Present(attribute) => see(attribute),
            Self::List(nodes) => nodes.iter().for_each(|node| node.each_attribute(see)),
            Self::Choice(nodes) => nodes.iter().for_each(|node| node.each_attribute(see)),
            Self::Pair(_, nodes) => nodes.iter().for_each(|node| node.each_attribute(see)),
            Self::Not(node) | Self::Minus(node) | Self::Matches(node, _) | Self::Made(_, node) => {
                node.each_attribute(see);
            }
        }
    }
}

fn wrong(why: impl Into<String>) -> Problem {
    Problem::Wrong(why.into())
}

fn unserved(what: impl Into<String>) -> Problem {
    Problem::Unserved(what.into())
}

#[cfg(test)]
mod tests;
