//! The text of an expression in CEL → [`model::expression`](crate::model::expression), by
//! [`mesh::expression`]: what its names stand for here.

pub(crate) mod names;

pub(crate) use mesh::expression::Problem;
use mesh::expression::Terms;
use regex::Regex;

use super::text;
use crate::model::expression::{Attribute, Expression};
use crate::model::format::Operator;
use crate::model::text::HeaderKey;

/// Understands an expression.
///
/// # Errors
/// It is none, too long, or has something in it that isn't served.
pub(crate) fn parse(source: &str) -> Result<Expression, Problem> {
    let root = mesh::expression::parse(source, &Operators)?;
    Ok(Expression {
        source: source.into(),
        root,
    })
}

/// Names stand for what has their value when a request ends.
struct Operators;

impl Terms for Operators {
    type Attribute = Attribute;
    type Pattern = Regex;

    fn attribute(&self, name: &str) -> Option<Attribute> {
        names::attribute(name)
    }

    fn header(&self, of: &str, name: &str) -> Option<Attribute> {
        Some(Attribute::Text(match (of, text::header_key(name).ok()?) {
            ("request.headers", key) => Operator::Request {
                key,
                otherwise: None,
            },
            ("response.headers", HeaderKey::Name(key)) => Operator::Response {
                key,
                otherwise: None,
            },
            ("response.trailers", HeaderKey::Name(key)) => Operator::Trailer {
                key,
                otherwise: None,
            },
            _ => return None,
        }))
    }

    fn pattern(&self, text: &str) -> Result<Regex, String> {
        Regex::new(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
