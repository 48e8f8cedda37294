//! Answers that send the client to another address: the `location` is the request's own with some
//! parts replaced.

use crate::head::{Head, split_path};
use crate::model::route::{Redirect, RedirectPath, RouteMatch};

use super::rewrite;
use super::select::forwarded_protocol;

/// The `location` of a redirect.
#[must_use]
pub fn location(redirect: &Redirect, matches: &RouteMatch, head: &Head<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(head.scheme);
    let port = redirect.port.map(|port| format!(":{port}"));
    let host = match &redirect.host {
        Some(host) => host,
        None => request_host(head, scheme, port.is_some()),
    };
    let port = port.unwrap_or_default();
    let path = path(redirect, matches, head);
    format!("{scheme}://{host}{port}{path}")
}

/// The `location` where a host is only for TLS; the status is 301.
#[must_use]
pub fn to_tls(head: &Head<'_>) -> String {
    format!("https://{}{}", head.authority, head.path)
}

/// The path with its query.
fn path(redirect: &Redirect, matches: &RouteMatch, head: &Head<'_>) -> String {
    let query = match redirect.strip_query {
        true => "",
        false => head.path.find('?').map_or("", |at| &head.path[at..]),
    };
    let only = |path: &str| match redirect.strip_query {
        true => split_path(path).0.to_owned(),
        false => path.to_owned(),
    };
    let full = |path: &str| match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    match &redirect.path {
        // A query of the new path's own is kept whatever is said of the request's.
        RedirectPath::Full(path) if path.contains('?') => full(path),
        RedirectPath::Full(path) => full(path) + query,
        RedirectPath::Keep => only(head.path),
        RedirectPath::Prefix(prefix) => only(&rewrite::prefix(matches, prefix, head.path)),
        RedirectPath::Regex(regex, by) => only(&rewrite::regex(regex, by, head.path)),
    }
}

/// The request's host; without its port where another takes its place, or where it was the default
/// of a scheme that changes.
fn request_host<'a>(head: &Head<'a>, scheme: &str, new_port: bool) -> &'a str {
    let authority = head.authority;
    let end = match authority.starts_with('[') {
        true => authority.rfind("]:").map(|at| at + 1),
        false => authority.rfind(':'),
    };
    let Some(end) = end else {
        return authority;
    };
    let protocol = forwarded_protocol(head);
    let was_default = matches!(
        (&*protocol, &authority[end..]),
        ("https", ":443") | ("http", ":80")
    );
    match new_port || (was_default && *scheme != *protocol) {
        true => &authority[..end],
        false => authority,
    }
}

#[cfg(test)]
mod tests;
