//! The query of a path: its parameters in order, decoded where asked, and paths without some of
//! them. As Envoy's `QueryParamsMulti` reads them.

use std::borrow::Cow;

use super::split_path;

/// The parameters of a path's query in order, as they stand. One without `=` has an empty value.
pub fn parameters(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = split_path(path).1;
    query
        .strip_prefix('?')
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A text with its percent escapes decoded; one that isn't complete stays as it is.
#[must_use]
pub fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

/// The path without the parameters that are named, or nothing where none of them is there.
#[must_use]
pub fn without_parameters(path: &str, unwanted: &[&str]) -> Option<String> {
    let is_unwanted = |name: &str| unwanted.contains(&&*decode(name));
    if !parameters(path).any(|(name, _)| is_unwanted(name)) {
        return None;
    }
    let (before, query) = split_path(path);
    let mut rest = before.to_owned();
    let mut mark = '?';
    for pair in query[1..].split('&').filter(|pair| !pair.is_empty()) {
        if !is_unwanted(pair.split_once('=').map_or(pair, |(name, _)| name)) {
            rest.push(mark);
            rest.push_str(pair);
            mark = '&';
        }
    }
    Some(rest)
}
