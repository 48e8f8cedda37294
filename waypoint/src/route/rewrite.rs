//! What becomes of a request's path and host on the way to the upstream.

use std::borrow::Cow;

use regex::{Captures, Regex};

use crate::head::{Head, split_path};
use crate::model::route::{Forward, HostRewrite, PathMatch, PathRewrite, RouteMatch, Weighted};
use crate::model::text::Pattern;

/// The path for the upstream, or nothing where it stays. A flow that changes it keeps the old one
/// in `x-envoy-original-path`.
#[must_use]
pub fn path(forward: &Forward, matches: &RouteMatch, path: &str) -> Option<String> {
    match &forward.path {
        PathRewrite::Keep => None,
        PathRewrite::Prefix(by) => Some(prefix(matches, by, path)),
        PathRewrite::Regex(of, by) => Some(regex(of, by, path)),
    }
}

/// The host for the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host<'a> {
    /// The request's.
    Keep,
    /// This one. The old one goes to `x-forwarded-host` where the route says so.
    New(Cow<'a, str>),
    /// The host name of the endpoint, once that is chosen; the request's where it has none.
    Endpoint,
}

/// The host for the upstream.
#[must_use]
pub fn host<'a>(forward: &'a Forward, weighted: Option<&'a Weighted>, head: &Head<'a>) -> Host<'a> {
    match &forward.host {
        HostRewrite::Keep => match weighted.and_then(|weighted| weighted.host.as_deref()) {
            Some(host) => Host::New(Cow::Borrowed(host)),
            None => Host::Keep,
        },
        HostRewrite::Literal(host) => Host::New(Cow::Borrowed(host)),
        HostRewrite::Endpoint => Host::Endpoint,
        HostRewrite::Header(name) => match head.first(name).filter(|value| !value.is_empty()) {
            Some(host) => Host::New(host),
            None => Host::Keep,
        },
        HostRewrite::PathRegex(of, by) => Host::New(replace(of, by, head.path_only())),
    }
}

/// The path with what matched replaced: a prefix, or the whole of it.
pub(super) fn prefix(matches: &RouteMatch, by: &str, path: &str) -> String {
    let whole = split_path(path).0.len();
    let matched = match &matches.path {
        PathMatch::Segments(prefix, _) => prefix.len(),
        PathMatch::Text(text) => match &text.pattern {
            Pattern::Prefix(prefix) => prefix.len(),
            _ => whole,
        },
        PathMatch::Any | PathMatch::Template(_) | PathMatch::Connect => whole,
    };
    let rest = path.get(matched..).unwrap_or_default();
    format!("{by}{rest}")
}

/// The path with what an expression matches replaced, everywhere; its query stays.
pub(super) fn regex(of: &Regex, by: &str, path: &str) -> String {
    let (only, _) = split_path(path);
    let rest = &path[only.len()..];
    let mut new = replace(of, by, only).into_owned();
    new.push_str(rest);
    new
}

/// Replaces every match. `\0` to `\9` stand for groups and `\\` for a backslash, as in RE2.
#[must_use]
pub fn replace<'a>(of: &Regex, by: &str, text: &'a str) -> Cow<'a, str> {
    of.replace_all(text, |found: &Captures<'_>| {
        let mut new = String::with_capacity(by.len());
        let mut rest = by.chars();
        while let Some(next) = rest.next() {
            match (next, rest.clone().next()) {
                ('\\', Some(digit)) if digit.is_ascii_digit() => {
                    let group = digit.to_digit(10).unwrap_or_default() as usize;
                    new.push_str(found.get(group).map_or("", |group| group.as_str()));
                    rest.next();
                }
                ('\\', Some('\\')) => {
                    new.push('\\');
                    rest.next();
                }
                _ => new.push(next),
            }
        }
        new
    })
}

#[cfg(test)]
mod tests;
