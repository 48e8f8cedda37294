//! A request's head as decisions see it: method, scheme, authority, path and headers, borrowed from
//! wherever they live. Every matcher of the model that looks at a request is evaluated here, with
//! Envoy's semantics. Knows no connection and no body.

mod metadata;
mod query;

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, header};

use crate::model::text::{HeaderKey, HeaderMatch, HeaderTest};

pub use metadata::Metadata;
pub use query::{decode, parameters, without_parameters};

/// Whether any header is one of Envoy's own. Most requests have none, and each of them looked for by
/// its name costs more than this.
#[must_use]
pub fn has_envoys(headers: &HeaderMap) -> bool {
    let mut names = headers.keys();
    names.any(|name| name.as_str().starts_with("x-envoy-"))
}

/// A request's head.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `:method`
    pub method: &'a Method,
    /// `:scheme`; of HTTP/1, what `x-forwarded-proto` says, or else the connection.
    pub scheme: &'a str,
    /// `:authority`, or the `Host` of HTTP/1.
    pub authority: &'a str,
    /// `:path`, with its query; empty for a plain CONNECT.
    pub path: &'a str,
    /// Everything else. `Host` may be among them and is never looked at.
    pub headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    /// The path without its query and fragment.
    #[must_use]
    pub fn path_only(&self) -> &'a str {
        split_path(self.path).0
    }

    /// The query with its question mark, up to a fragment; empty where there is none.
    #[must_use]
    pub fn query(&self) -> &'a str {
        split_path(self.path).1
    }

    /// The value of a header. Several values are joined with commas; bytes that are no text are
    /// replaced, so that a test by prefix, suffix or part still sees what is around them.
    #[must_use]
    pub fn value(&self, key: &HeaderKey) -> Option<Cow<'a, str>> {
        let pseudo = match key {
            HeaderKey::Method => self.method.as_str(),
            HeaderKey::Path => self.path,
            HeaderKey::Authority => self.authority,
            HeaderKey::Scheme => self.scheme,
            HeaderKey::Name(name) if *name == header::HOST => self.authority,
            HeaderKey::Name(name) => return self.header(name),
        };
        // A CONNECT has no path, and HTTP/1.0 may have no host: what is empty isn't there.
        (!pseudo.is_empty()).then_some(Cow::Borrowed(pseudo))
    }

    /// The value of an ordinary header, as [`Head::value`].
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<Cow<'a, str>> {
        joined(self.headers, name)
    }

    /// The first value of an ordinary header.
    #[must_use]
    pub fn first(&self, name: &HeaderName) -> Option<Cow<'a, str>> {
        let value = self.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    }

    /// Whether a test of a header holds.
    #[must_use]
    pub fn matches(&self, test: &HeaderMatch) -> bool {
        match &test.key {
            HeaderKey::Name(name) if *name != header::HOST => {
                values_match(test, lossy(self.headers, name))
            }
            pseudo => values_match(test, self.value(pseudo).into_iter()),
        }
    }

    /// Whether all tests hold.
    #[must_use]
    pub fn matches_all(&self, tests: &[HeaderMatch]) -> bool {
        tests.iter().all(|test| self.matches(test))
    }

    /// Whether it is a gRPC request, by its content type.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        is_grpc(self.headers)
    }

    /// Whether it is a CORS preflight request.
    #[must_use]
    pub fn is_preflight(&self) -> bool {
        let filled = |name| {
            self.headers
                .get(name)
                .is_some_and(|value| !value.is_empty())
        };
        self.method == Method::OPTIONS
            && filled(header::ORIGIN)
            && filled(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The value of a cookie; the first of this name, without quotes around it.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.cookies()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// All cookies in order: names and values.
    pub fn cookies(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.headers
            .get_all(header::COOKIE)
            .into_iter()
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let unquoted = value
                    .strip_prefix('"')
                    .and_then(|rest| rest.strip_suffix('"'));
                Some((name.trim_matches([' ', '\t']), unquoted.unwrap_or(value)))
            })
    }
}

/// Whether these headers are of gRPC, by their content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// The value of a header, several joined with commas.
#[must_use]
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).into_iter();
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    let Some(second) = values.next() else {
        return Some(first);
    };
    let mut all = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        all.push(',');
        all.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(Cow::Owned(all))
}

/// Whether a test holds of an ordinary header among these.
#[must_use]
pub fn header_matches(test: &HeaderMatch, headers: &HeaderMap) -> bool {
    match &test.key {
        HeaderKey::Name(name) => values_match(test, lossy(headers, name)),
        _ => values_match(test, std::iter::empty()),
    }
}

/// Whether a test holds of a header's values, or of there being none. Each value is looked at by
/// itself and one suffices, so that a second header can't hide what the first one says; an inverted
/// test holds where none of them passes.
#[must_use]
pub fn values_match<'v>(test: &HeaderMatch, values: impl Iterator<Item = Cow<'v, str>>) -> bool {
    let mut values = values.peekable();
    let there = values.peek().is_some() || test.missing_as_empty;
    if let HeaderTest::Present(present) = test.test {
        return (there == present) != test.invert;
    }
    let holds = |value: &str| match &test.test {
        HeaderTest::Present(present) => *present,
        HeaderTest::Text(text) => text.matches(value),
        HeaderTest::Range(start, end) => decimal(value).is_some_and(|n| n >= *start && n < *end),
    };
    let any = match values.peek() {
        None => there && holds(""),
        Some(_) => values.any(|value| holds(&value)),
    };
    there && any != test.invert
}

fn lossy<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Cow<'h, str>> + use<'h> {
    let values = headers.get_all(name).into_iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// Splits a path from its query (kept with its question mark); a fragment is left out.
#[must_use]
pub fn split_path(path: &str) -> (&str, &str) {
    // Byte by byte: paths are short, and most have neither.
    let marks = |from: usize, wanted: &[u8]| {
        let found = path.as_bytes()[from..]
            .iter()
            .position(|byte| wanted.contains(byte));
        found.map_or(path.len(), |at| from + at)
    };
    let only = marks(0, b"?#");
    let end = marks(only, b"#");
    (&path[..only], &path[only..end])
}

/// A number as Envoy's matcher reads it: an optional sign and digits, nothing else.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
