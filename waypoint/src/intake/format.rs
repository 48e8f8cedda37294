//! Envoy's substitution format strings → [`model::format`](crate::model::format). An operator that
//! Envoy doesn't have is refused, as Envoy does; one that Envoy has and we don't is counted, and its
//! value is never there.

mod operators;

use envoy_types::pb::envoy::config::core::v3 as core;

use super::error::{At as _, Refused};
use super::plain;
use super::served::Notes;
use crate::model::format::{Format, Operator, Part};
use crate::model::text::HeaderKey;

/// A format as text.
///
/// # Errors
/// It has a stray `%`, an operator that Envoy doesn't have, or one with a bad argument.
pub fn parse(source: &str, notes: &mut Notes) -> Result<Format, Refused> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let command = Command::read(after).ok_or_else(|| {
            let at = source.len() - after.len() - 1;
            Refused::new(format!(
                "{source:?} has no operator at byte {at}; a percent sign by itself is written %%"
            ))
        })?;
        rest = command.rest;
        let text = |text: String| Part::Literal(text.into());
        if !literal.is_empty() {
            parts.push(text(std::mem::take(&mut literal)));
        }
        parts.push(Part::Value {
            operator: operators::operator(command.name, command.argument, notes)
                .map_err(|refused| refused.under(&format!("%{}%", command.name)))?,
            limit: command.limit,
        });
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(Format { parts })
}

/// A format that must be one of text, from the message that also has formats of objects.
///
/// # Errors
/// It is one of an object, or a bad one.
pub fn of_text(
    value: core::SubstitutionFormatString,
    notes: &mut Notes,
) -> Result<Format, Refused> {
    match source(value, notes)? {
        Source::Text(text) => parse(&text, notes),
        Source::Object(_) => Err(Refused::new("must be text").under("json_format")),
    }
}

/// What a format is made from.
pub(super) enum Source {
    /// Text.
    Text(String),
    /// An object whose texts are formats.
    Object(envoy_types::pb::google::protobuf::Struct),
}

/// Takes the message of a format apart.
pub(super) fn source(
    value: core::SubstitutionFormatString,
    notes: &mut Notes,
) -> Result<Source, Refused> {
    use core::substitution_format_string::Format as Kind;

    let core::SubstitutionFormatString {
        omit_empty_values,
        content_type: _,
        formatters: _,
        json_format_options: _,
        format,
    } = value;
    crate::unserved!(notes, "SubstitutionFormatString": omit_empty_values);
    #[expect(deprecated, reason = "istiod of earlier versions sends the old form")]
    match super::error::need(format, "text_format_source")? {
        Kind::TextFormat(text) => Ok(Source::Text(text)),
        Kind::JsonFormat(object) => Ok(Source::Object(object)),
        Kind::TextFormatSource(source) => {
            Ok(Source::Text(plain::text(source).at("text_format_source")?))
        }
    }
}

/// `NAME(argument):limit%`, as it follows a percent sign.
struct Command<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    limit: Option<usize>,
    rest: &'a str,
}

impl<'a> Command<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let inside = |char: char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_';
        let end = text.find(|char| !inside(char))?;
        let (name, after) = text.split_at(end);
        if name.is_empty() {
            return None;
        }
        let Some(inner) = after.strip_prefix('(') else {
            let (limit, rest) = end_of(after)?;
            return Some(Self {
                name,
                argument: None,
                limit,
                rest,
            });
        };
        // An argument may have brackets of its own: the first that ends the operator counts.
        let ends = inner.match_indices(')');
        let mut ended = ends.filter_map(|(at, _)| Some((at, end_of(&inner[at + 1..])?)));
        let (at, (limit, rest)) = ended.next()?;
        Some(Self {
            name,
            argument: Some(&inner[..at]),
            limit,
            rest,
        })
    }
}

/// `:limit%` or `%`: the limit, and what comes after.
fn end_of(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(rest) = text.strip_prefix('%') {
        return Some((None, rest));
    }
    let (limit, rest) = text.strip_prefix(':')?.split_once('%')?;
    let digits = !limit.is_empty() && limit.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some((limit.parse().ok(), rest))
}

/// The value of a request's header, as a format.
pub(super) fn of_header(key: HeaderKey) -> Format {
    of(Operator::Request {
        key,
        otherwise: None,
    })
}

/// One value, as a format.
pub(super) fn of(operator: Operator) -> Format {
    let limit = None;
    Format {
        parts: vec![Part::Value { operator, limit }],
    }
}

#[cfg(test)]
mod tests;
