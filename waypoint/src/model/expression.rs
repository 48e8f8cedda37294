//! Expressions about a request or connection, such as `response.code >= 400`: conditions of access
//! logs, labels of metrics and values of formats are given by one. A subset of the Common Expression
//! Language ([ADR 13](../../../docs/adr/0013-a-subset-of-cel.md)), understood once and evaluated often.

pub use mesh::expression::{Between, Literal, Make};
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
pub type Node = mesh::expression::Node<Attribute, Regex>;

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

impl Expression {
    /// Calls `see` for each operator that the expression looks at.
    pub fn each_operator<'n>(&'n self, see: &mut dyn FnMut(&'n Operator)) {
        let mut looked = |attribute: &'n Attribute| {
            attribute.operator().into_iter().for_each(&mut *see);
        };
        self.root.each_attribute(&mut looked);
    }
}
