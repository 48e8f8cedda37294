//! Expressions about a request or connection, such as `response.code >= 400`: conditions of access
//! logs, labels of metrics and values of formats are given by one. A subset of the Common Expression
//! Language ([ADR 13](../../../docs/adr/0013-a-subset-of-cel.md)), understood once and evaluated often.

use regex::Regex;

use super::format::Operator;

/// An expression. Two of the same text are the same.
#[derive(Debug, Clone)]
pub struct Expression {
    /// As it was written.
    pub source: Box<str>,
    /// What it says.
    pub root: Node,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

/// A part of an expression.
#[derive(Debug, Clone)]
pub enum Node {
    /// A value that stands for itself.
    Literal(Literal),
    /// `[a, b]`
    List(Vec<Node>),
    /// What is known of the request.
    Attribute(Attribute),
    /// Whether that is known: `has(a.b)`, `'name' in request.headers`.
    Present(Attribute),
    /// `!a`
    Not(Box<Node>),
    /// `-a`
    Minus(Box<Node>),
    /// `a ? b : c`
    Choice(Box<[Node; 3]>),
    /// Two values and what is between them.
    Pair(Between, Box<[Node; 2]>),
    /// `a.matches('expression')`
    Matches(Box<Node>, Regex),
    /// A value made into one of another type, or its length.
    Made(Make, Box<Node>),
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

/// What is known of a request or connection, with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// Text.
    Text(Operator),
    /// A whole number.
    Number(Operator),
    /// A time span, which the operator gives in milliseconds.
    Span(Operator),
    /// Whether the operator has a value.
    Truth(Operator),
    /// The port of an address.
    Port(Operator),
    /// What follows the `?` of the path.
    Query,
    /// Response flags, as Envoy's bits.
    Flags,
}

impl Attribute {
    /// The operator that has its value, where one has.
    #[must_use]
    pub fn operator(&self) -> Option<&Operator> {
        match self {
            Self::Text(operator)
            | Self::Number(operator)
            | Self::Span(operator)
            | Self::Truth(operator)
            | Self::Port(operator) => Some(operator),
            Self::Query | Self::Flags => None,
        }
    }
}

impl Node {
    /// Calls `see` for each operator that the expression looks at.
    pub fn each_operator<'n>(&'n self, see: &mut dyn FnMut(&'n Operator)) {
        match self {
            Self::Literal(_) => {}
            Self::Attribute(attribute) | Self::Present(attribute) => {
                attribute.operator().into_iter().for_each(see);
            }
            Self::List(nodes) => nodes.iter().for_each(|node| node.each_operator(see)),
            Self::Choice(nodes) => nodes.iter().for_each(|node| node.each_operator(see)),
            Self::Pair(_, nodes) => nodes.iter().for_each(|node| node.each_operator(see)),
            Self::Not(node) | Self::Minus(node) | Self::Matches(node, _) | Self::Made(_, node) => {
                node.each_operator(see);
            }
        }
    }
}
