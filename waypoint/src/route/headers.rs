//! Changes to headers: of the table, the host, the route and the chosen cluster, in Envoy's order.
//! Values may have operators in them, which a [`Values`] answers.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::expression;
use crate::model::format::{Format, Operator, Part};
use crate::model::route::{
    HeaderChanges, HeaderSet, Route, RouteTable, SetAction, VirtualHost, Weighted,
};
use crate::model::text::HeaderKey;

/// Who knows the values of operators: telemetry's record of the exchange.
pub trait Values {
    /// Appends the value of an operator, or says that it has none (and appends nothing).
    fn write(&self, operator: &Operator, out: &mut String) -> bool;
}

/// Everything that may change the headers of one request and its answer.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// The table.
    pub table: &'a RouteTable,
    /// The host.
    pub host: &'a VirtualHost,
    /// The route.
    pub route: &'a Route,
    /// The chosen cluster, where it is one of several.
    pub weighted: Option<&'a Weighted>,
}

impl<'a> Layers<'a> {
    /// Changes a request's headers. To be called before host and path are rewritten.
    pub fn request(&self, headers: &mut HeaderMap, values: &dyn Values) {
        for changes in self.in_order() {
            let (remove, set) = (&changes.request_remove, &changes.request_set);
            apply(headers, remove, set, Side::Request, values);
        }
    }

    /// Changes an answer's headers.
    pub fn response(&self, headers: &mut HeaderMap, values: &dyn Values) {
        for changes in self.in_order() {
            let (remove, set) = (&changes.response_remove, &changes.response_set);
            apply(headers, remove, set, Side::Response, values);
        }
    }

    /// The request's headers that a change to the answer looks at, which are kept until then.
    pub fn response_wants(&self) -> impl Iterator<Item = &'a HeaderName> + use<'a> {
        let sets = self.in_order().flat_map(|changes| &changes.response_set);
        let mut names = Vec::new();
        for part in sets.flat_map(|set| &set.value.parts) {
            if let Part::Value { operator, .. } = part {
                request_headers(operator, &mut names);
            }
        }
        names.into_iter()
    }

    /// The later wins: by default the most general.
    fn in_order(&self) -> impl Iterator<Item = &'a HeaderChanges> + use<'a> {
        let layers = [
            self.weighted.map(|weighted| &*weighted.headers),
            Some(&*self.route.headers),
            Some(&*self.host.headers),
            Some(&*self.table.headers),
        ];
        let backwards = self.table.most_specific_wins;
        (0..layers.len()).filter_map(move |at| match backwards {
            true => layers[layers.len() - 1 - at],
            false => layers[at],
        })
    }
}

fn request_headers<'o>(operator: &'o Operator, names: &mut Vec<&'o HeaderName>) {
    match operator {
        Operator::Request { key, otherwise } => {
            let keys = std::iter::once(key).chain(otherwise);
            names.extend(keys.filter_map(|key| match key {
                HeaderKey::Name(name) => Some(name),
                _ => None,
            }));
        }
        Operator::Expression(expression) => {
            expression.each_operator(&mut |operator| request_headers(operator, names));
        }
        _ => {}
    }
}

/// Sets headers of a request.
pub fn set_in_request(headers: &mut HeaderMap, set: &[HeaderSet], values: &dyn Values) {
    apply(headers, &[], set, Side::Request, values);
}

/// Sets headers of an answer.
pub fn set_in_answer(headers: &mut HeaderMap, set: &[HeaderSet], values: &dyn Values) {
    apply(headers, &[], set, Side::Response, values);
}

/// Whose headers are changed: operators that name the same side's headers read them directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// Appends a format's text. `missing` stands for a value that isn't there: nothing in headers, `-`
/// in logs.
pub fn render(format: &Format, values: &dyn Values, missing: &str, out: &mut String) {
    for part in &format.parts {
        match part {
            Part::Literal(text) => out.push_str(text),
            Part::Value { operator, limit } => {
                let start = out.len();
                if !values.write(operator, out) {
                    out.push_str(missing);
                } else if let Some(limit) = limit {
                    cut(out, start, *limit);
                }
            }
        }
    }
}

/// Cuts what was appended after so many bytes, not inside of a character.
fn cut(out: &mut String, start: usize, limit: usize) {
    let end = out.floor_char_boundary(start.saturating_add(limit));
    out.truncate(end.max(start));
}

fn apply(
    headers: &mut HeaderMap,
    remove: &[HeaderName],
    set: &[HeaderSet],
    side: Side,
    values: &dyn Values,
) {
    for name in remove {
        headers.remove(name);
    }
    if set.is_empty() {
        return;
    }
    // All values are made, and all conditions looked at, before any header is set; those that
    // overwrite come first, as in Envoy.
    let made = set.iter().filter_map(|set| {
        let there = headers.contains_key(&set.name);
        let wanted = match set.action {
            SetAction::Append | SetAction::Overwrite => true,
            SetAction::AddIfAbsent => !there,
            SetAction::OverwriteIfExists => there,
        };
        let value = wanted.then(|| value(set, headers, side, values))??;
        Some((set, value))
    });
    let made: Vec<(&HeaderSet, HeaderValue)> = made.collect();
    let adds = |set: &HeaderSet| matches!(set.action, SetAction::Append | SetAction::AddIfAbsent);
    for (set, value) in made.iter().filter(|(set, _)| !adds(set)) {
        headers.insert(&set.name, value.clone());
    }
    for (set, value) in made.into_iter().filter(|(set, _)| adds(set)) {
        headers.append(&set.name, value);
    }
}

/// The value to set; none where it is empty and an empty one isn't wanted.
fn value(
    set: &HeaderSet,
    headers: &HeaderMap,
    side: Side,
    values: &dyn Values,
) -> Option<HeaderValue> {
    let value = match set.value.as_literal() {
        Some(text) => HeaderValue::from_str(text).ok()?,
        None => {
            let values = Near {
                headers,
                side,
                values,
            };
            let mut text = String::new();
            render(&set.value, &values, "", &mut text);
            HeaderValue::try_from(text).ok()?
        }
    };
    (set.keep_empty || !value.is_empty()).then_some(value)
}

/// The headers at hand before anybody else's knowledge.
struct Near<'a> {
    headers: &'a HeaderMap,
    side: Side,
    values: &'a dyn Values,
}

impl Near<'_> {
    fn header(&self, name: &HeaderName, out: &mut String) -> bool {
        let Some(value) = self.headers.get(name) else {
            return false;
        };
        out.push_str(&String::from_utf8_lossy(value.as_bytes()));
        true
    }
}

impl Values for Near<'_> {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        match (self.side, operator) {
            (Side::Request, Operator::Request { key, otherwise }) => {
                let one = |key: &HeaderKey, out: &mut String| match key {
                    HeaderKey::Name(name) => self.header(name, out),
                    pseudo => self.values.write(
                        &Operator::Request {
                            key: pseudo.clone(),
                            otherwise: None,
                        },
                        out,
                    ),
                };
                one(key, out) || otherwise.as_ref().is_some_and(|key| one(key, out))
            }
            (Side::Response, Operator::Response { key, otherwise }) => {
                self.header(key, out)
                    || otherwise
                        .as_ref()
                        .is_some_and(|name| self.header(name, out))
            }
            (_, Operator::Expression(expression)) => expression::write(expression, self, out),
            (_, operator) => self.values.write(operator, out),
        }
    }
}

#[cfg(test)]
mod tests;
