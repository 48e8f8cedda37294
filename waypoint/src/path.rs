//! How a request's path is normalised before anything looks at it: RFC 3986's dot segments, merged
//! slashes, escaped slashes, as Envoy's `path_utility` does it. A policy that compares paths is
//! worth only as much as this.

use std::borrow::Cow;

use crate::model::http::{EscapedSlashes, PathNormalisation};

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normalised<'a> {
    /// It goes on, like this; borrowed where nothing changed.
    Path(Cow<'a, str>),
    /// The client is redirected to this path: 307, `location` is the path itself, details
    /// `path_normalization_failed` don't apply.
    Redirect(String),
    /// It is refused: 400, details `path_normalization_failed`.
    Refused,
}

/// Normalises a path with query; the query and what follows stays as it is.
#[must_use]
pub fn normalise<'a>(path: &'a str, how: &PathNormalisation) -> Normalised<'a> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (only, rest) = path.split_at(end);
    let mut now = Cow::Borrowed(only);
    let mut redirect = false;
    match how.escaped_slashes {
        EscapedSlashes::Keep => {}
        EscapedSlashes::Reject if has_escaped_slash(only) => return Normalised::Refused,
        EscapedSlashes::Reject => {}
        EscapedSlashes::UnescapeAndForward | EscapedSlashes::UnescapeAndRedirect => {
            if has_escaped_slash(only) {
                now = Cow::Owned(unescape_slashes(only));
                redirect = how.escaped_slashes == EscapedSlashes::UnescapeAndRedirect;
            }
        }
    }
    if how.normalize {
        match canonical(&now) {
            Some(Cow::Owned(new)) => now = Cow::Owned(new),
            Some(Cow::Borrowed(_)) => {}
            None => return Normalised::Refused,
        }
    }
    if how.merge_slashes && now.contains("//") {
        now = Cow::Owned(merge_slashes(&now));
    }
    match now {
        Cow::Borrowed(_) => Normalised::Path(Cow::Borrowed(path)),
        Cow::Owned(new) if redirect => Normalised::Redirect(new + rest),
        Cow::Owned(new) => Normalised::Path(Cow::Owned(new + rest)),
    }
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes()
        .windows(3)
        .any(|window| escaped_slash(window).is_some())
}

/// The slash that three bytes stand for.
fn escaped_slash(three: &[u8]) -> Option<char> {
    match three {
        b"%2f" | b"%2F" => Some('/'),
        b"%5c" | b"%5C" => Some('\\'),
        _ => None,
    }
}

fn unescape_slashes(path: &str) -> String {
    let mut new = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        new.push_str(before);
        let slash = from.as_bytes().get(..3).and_then(escaped_slash);
        new.push(slash.unwrap_or('%'));
        rest = &from[if slash.is_some() { 3 } else { 1 }..];
    }
    new.push_str(rest);
    new
}

fn merge_slashes(path: &str) -> String {
    let mut new = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !new.ends_with('/') {
            new.push(character);
        }
    }
    new
}

/// The path without dot segments; nothing where it is none. Borrowed where it has none of them.
fn canonical(path: &str) -> Option<Cow<'_, str>> {
    path.starts_with('/').then_some(Cow::Borrowed(path))
}
