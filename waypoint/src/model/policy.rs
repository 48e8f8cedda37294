//! L7 policy as compiled: who may do what. Envoy's RBAC filters, in the form that
//! AuthorizationPolicy takes on its way through a control plane.

use ipnet::IpNet;

use super::text::{HeaderMatch, TextMatch};

/// One RBAC filter. Filters stand in a chain in order; each must let the request pass.
#[derive(Debug, Clone, Default)]
pub struct Rbac {
    /// The rules in force; none decides nothing.
    pub rules: Option<Rules>,
    /// Rules that are only tried out (dry run).
    pub shadow: Option<Rules>,
    /// Put before the names under which the trial's results are written down.
    pub shadow_prefix: Box<str>,
}

/// Policies with one action.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a match means.
    pub action: Action,
    /// Policies in the order of their names. With no policy nothing matches.
    pub policies: Vec<Policy>,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Matching requests pass, all others are denied.
    Allow,
    /// Matching requests are denied, all others pass.
    Deny,
    /// All pass, matching ones are marked for the log (AUDIT).
    Log,
}

/// A policy: it matches if any permission and any principal match.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name, such as `ns[bookinfo]-policy[viewer]-rule[0]`.
    pub name: Box<str>,
    /// What is done.
    pub permissions: Vec<Condition>,
    /// Who does it.
    pub principals: Vec<Condition>,
}

/// A condition on a request or connection.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Holds always.
    Any,
    /// Every one holds.
    All(Vec<Condition>),
    /// One of them holds.
    AnyOf(Vec<Condition>),
    /// It doesn't hold.
    Not(Box<Condition>),
    /// A header.
    Header(HeaderMatch),
    /// The path without query.
    Path(TextMatch),
    /// The path without query, by segments.
    PathTemplate(PathTemplate),
    /// The address the connection is for.
    DestinationIp(IpNet),
    /// The port the connection is for.
    DestinationPort(u16),
    /// A range of such ports, the last excluded.
    DestinationPorts(u16, u32),
    /// The name asked for by TLS.
    ServerName(TextMatch),
    /// The SPIFFE ID that the peer proved, as text (`io.istio.peer_principal`).
    Peer(TextMatch),
    /// The peer showed a certificate, with such a name where one is given.
    Authenticated(Option<TextMatch>),
    /// The source's address as the connection shows it.
    SourceIp(IpNet),
    /// The source's address after trusted proxies (`x-forwarded-for`).
    RemoteIp(IpNet),
    /// A value that an earlier filter wrote down: a claim of the request's token.
    Metadata(MetadataMatch),
}

/// A value under a filter's name.
#[derive(Debug, Clone)]
pub struct MetadataMatch {
    /// The filter, such as `envoy.filters.http.jwt_authn`.
    pub filter: Box<str>,
    /// The keys that lead to it.
    pub path: Vec<Box<str>>,
    /// What it must be.
    pub value: ValueMatch,
    /// The opposite is meant.
    pub invert: bool,
}

/// What a value must be.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// Null, which a missing one is not.
    Null,
    /// Such a number.
    Number(f64),
    /// A number from the first (included) to the second (excluded).
    NumberRange(f64, f64),
    /// Such a text.
    Text(TextMatch),
    /// Such a truth value.
    Bool(bool),
    /// There at all, or not there at all.
    Present(bool),
    /// A list with an element like this.
    OneOf(Box<ValueMatch>),
    /// Any of these.
    Any(Vec<ValueMatch>),
}

/// A path by segments: `{*}` is one segment, `{**}` any number of them at the end or once inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    /// The segments between slashes.
    pub segments: Vec<Segment>,
}

/// A segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text, with anything before it where a wildcard preceded it in the same segment.
    Literal(Box<str>),
    /// One segment, not empty.
    One,
    /// Any number of segments, also none, then this end.
    Many(Box<str>),
}
