//! Access logs: whether a request or connection is written down, and how its line looks. A line is
//! made in a buffer that is used again; who writes it is [`super::writer`].

use std::borrow::Cow;
use std::time::Instant;

use rand::Rng;

use super::exchange::{Connection, Exchange};
use super::flags::Flags;
use super::values::is_number;
use crate::expression;
use crate::head::values_match;
use crate::model::format::{Format, Operator, Part};
use crate::model::log::{AccessLog, Compare, JsonFormat, LogFilter, LogFormat};
use crate::model::text::{HeaderKey, HeaderMatch};
use crate::route::headers::{Values, render};

/// What filters look at.
pub(super) trait Logged: Values {
    /// The status; zero where there is none.
    fn status(&self) -> u64;
    /// How long it took, in milliseconds.
    fn duration(&self) -> u64;
    /// What was unusual.
    fn flags(&self) -> Flags;
    /// Whether it is traced.
    fn traced(&self) -> bool;
    /// Whether a test of a request header holds.
    fn header(&self, test: &HeaderMatch) -> bool;
}

impl Logged for Exchange {
    fn status(&self) -> u64 {
        self.status.map_or(0, |status| status.as_u16().into())
    }

    fn duration(&self) -> u64 {
        took(self.marks.start, self.marks.end)
    }

    fn flags(&self) -> Flags {
        self.flags
    }

    fn traced(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.sampled)
    }

    fn header(&self, test: &HeaderMatch) -> bool {
        let value = match &test.key {
            HeaderKey::Method => Some(Cow::Borrowed(self.method.as_str())),
            HeaderKey::Path => Some(Cow::Borrowed(self.path.as_str())),
            HeaderKey::Authority => Some(Cow::Borrowed(self.authority.as_str())),
            HeaderKey::Scheme => Some(Cow::Borrowed(self.scheme)),
            HeaderKey::Name(name) => {
                let value = self.request.get(name);
                value.map(|value| String::from_utf8_lossy(value.as_bytes()))
            }
        };
        values_match(test, value.into_iter())
    }
}

impl Logged for Connection {
    fn status(&self) -> u64 {
        0
    }

    fn duration(&self) -> u64 {
        took(self.start, self.end)
    }

    fn flags(&self) -> Flags {
        self.flags
    }

    fn traced(&self) -> bool {
        false
    }

    fn header(&self, test: &HeaderMatch) -> bool {
        values_match(test, std::iter::empty())
    }
}

/// Appends the line of a log, or nothing where its filter leaves it out.
pub(super) fn line(log: &AccessLog, of: &impl Logged, rng: &mut impl Rng, out: &mut String) {
    if log
        .filter
        .as_ref()
        .is_some_and(|filter| !passes(filter, of, rng))
    {
        return;
    }
    match &log.format {
        LogFormat::Text(format) => render(format, of, "-", out),
        LogFormat::Json(format) => {
            json(format, of, out);
            out.push('\n');
        }
    }
}

fn passes(filter: &LogFilter, of: &impl Logged, rng: &mut impl Rng) -> bool {
    match filter {
        LogFilter::Status(compare, than) => holds(*compare, of.status(), *than),
        LogFilter::Duration(compare, than) => holds(*compare, of.duration(), *than),
        LogFilter::Flags(names) if names.is_empty() => !of.flags().is_empty(),
        LogFilter::Flags(names) => {
            let mut flags = names.iter().filter_map(|name| Flags::by_name(name));
            flags.any(|flag| of.flags().contains(flag))
        }
        LogFilter::All(all) => all.iter().all(|filter| passes(filter, of, rng)),
        LogFilter::Any(any) => any.iter().any(|filter| passes(filter, of, rng)),
        LogFilter::Header(test) => of.header(test),
        LogFilter::Sample(share) => share.holds(rng),
        // The waypoint answers no health checks of clients itself.
        LogFilter::NotHealthCheck => true,
        LogFilter::Traced => of.traced(),
        LogFilter::Where(expression) => expression::holds(expression, of),
    }
}

fn holds(compare: Compare, value: u64, than: u64) -> bool {
    match compare {
        Compare::Equal => value == than,
        Compare::AtLeast => value >= than,
        Compare::AtMost => value <= than,
        Compare::Not => value != than,
    }
}

fn json(format: &JsonFormat, of: &impl Logged, out: &mut String) {
    match format {
        JsonFormat::Object(fields) => {
            out.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quoted(name, out);
                out.push(':');
                json(value, of, out);
            }
            out.push('}');
        }
        JsonFormat::List(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json(value, of, out);
            }
            out.push(']');
        }
        JsonFormat::Value(format) => value(format, of, out),
        JsonFormat::Literal(text) => out.push_str(text),
    }
}

/// One value: a lone operator keeps its type, everything else is text.
fn value(format: &Format, of: &impl Logged, out: &mut String) {
    if let [
        Part::Value {
            operator,
            limit: None,
        },
    ] = format.parts.as_slice()
    {
        let start = out.len();
        if !of.write(operator, out) {
            out.truncate(start);
            out.push_str("null");
            return;
        }
        let is_tree = matches!(operator, Operator::DynamicMetadata { .. })
            && out[start..].starts_with(['{', '[']);
        if !is_number(operator) && !is_tree {
            quote_from(start, out);
        }
        return;
    }
    let start = out.len();
    render(format, of, "-", out);
    quote_from(start, out);
}

/// Makes what was appended a JSON text.
fn quote_from(start: usize, out: &mut String) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if out.as_bytes()[start..].iter().all(|byte| plain(*byte)) {
        out.insert(start, '"');
        out.push('"');
        return;
    }
    let text = out.split_off(start);
    quoted(&text, out);
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn took(start: Instant, end: Option<Instant>) -> u64 {
    let took = end.map(|end| end.saturating_duration_since(start).as_millis());
    took.and_then(|took| took.try_into().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
