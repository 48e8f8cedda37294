//! The way from a request to its route: the virtual host by domain, then the first of its routes
//! whose conditions all hold. The index of domains is built here too, so that both ends of it stay
//! together.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;

use crate::connection::Downstream;
use crate::head::{Head, Metadata, parameters};
use crate::model::route::{
    CallerMatch, PathMatch, QueryMatch, Route, RouteMatch, RouteTable, VirtualHost,
};
use crate::model::text::Fraction;
use crate::policy;

/// What a choice of route looks at.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The request.
    pub head: &'a Head<'a>,
    /// What filters wrote down so far.
    pub metadata: &'a Metadata,
    /// Who asks; nobody where no connection is.
    pub caller: Option<&'a Downstream>,
    /// The request's own random number. One number serves all choices of a request, so that a
    /// route chosen again is the same one.
    pub random: u64,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub enum Found<'t> {
    /// A route.
    Route(Picked<'t>),
    /// The host is only for TLS: the answer is [`super::redirect::to_tls`].
    RequireTls(&'t Arc<VirtualHost>),
    /// No host, or none of its routes: 404, response flag `NR`, details `route_not_found`.
    Nothing,
}

/// A route with its host.
#[derive(Debug, Clone, Copy)]
pub struct Picked<'t> {
    /// The host.
    pub host: &'t Arc<VirtualHost>,
    /// The route.
    pub route: &'t Arc<Route>,
}

/// Why domains can't be indexed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDomain {
    /// Two hosts, or one twice, have it: which would be meant is open.
    #[error("domain {0:?} stands in the table twice; Envoy takes each only once")]
    Twice(Box<str>),
    /// It has no character.
    #[error("a domain is empty; the domain of all hosts is \"*\"")]
    Empty,
}

/// Finds a request's route.
#[must_use]
pub fn find<'t>(table: &'t RouteTable, ask: Ask<'_>) -> Found<'t> {
    let Some(host) = host(table, ask.head.authority) else {
        return Found::Nothing;
    };
    if host.require_tls && forwarded_protocol(ask.head) != "https" {
        return Found::RequireTls(host);
    }
    let route = host
        .routes
        .iter()
        .find(|route| route_matches(&route.matches, ask));
    route.map_or(Found::Nothing, |route| Found::Route(Picked { host, route }))
}

/// The virtual host of a domain: exact, then the longest suffix, then the longest prefix, then any.
#[must_use]
pub fn host<'t>(table: &'t RouteTable, authority: &str) -> Option<&'t Arc<VirtualHost>> {
    let of = |at: usize| table.hosts.get(at);
    if table.exact.is_empty() && table.suffixes.is_empty() && table.prefixes.is_empty() {
        return table.any.and_then(of);
    }
    let domain = match table.ignore_port {
        true => without_port(authority),
        false => authority,
    };
    let domain = lower(domain);
    // A wildcard stands for one character at least.
    let longer = |part: &str| domain.len() > part.len();
    let wildcard = |list: &[(Box<str>, usize)], fits: &dyn Fn(&str) -> bool| {
        list.iter()
            .find_map(|(part, at)| (longer(part) && fits(part)).then_some(*at))
    };
    table
        .exact
        .get(&*domain)
        .copied()
        .or_else(|| wildcard(&table.suffixes, &|part| domain.ends_with(part)))
        .or_else(|| wildcard(&table.prefixes, &|part| domain.starts_with(part)))
        .or(table.any)
        .and_then(of)
}

/// Builds the table's index: each domain with the place of its host in [`RouteTable::hosts`].
///
/// # Errors
/// A domain stands there twice or is empty, which Envoy refuses too.
pub fn index<'d>(
    table: &mut RouteTable,
    domains: impl IntoIterator<Item = (usize, &'d str)>,
) -> Result<(), BadDomain> {
    let twice = |domain: &str| BadDomain::Twice(domain.into());
    let push = |list: &mut Vec<(Box<str>, usize)>, part: &str, at: usize, domain: &str| {
        if list.iter().any(|(known, _)| **known == *part) {
            return Err(twice(domain));
        }
        list.push((part.into(), at));
        Ok(())
    };
    for (at, domain) in domains {
        let name = lower(domain);
        match &*name {
            "" => return Err(BadDomain::Empty),
            "*" if table.any.is_some() => return Err(twice(domain)),
            "*" => table.any = Some(at),
            name => match (name.strip_prefix('*'), name.strip_suffix('*')) {
                (Some(part), _) => push(&mut table.suffixes, part, at, domain)?,
                (None, Some(part)) => push(&mut table.prefixes, part, at, domain)?,
                (None, None) => {
                    if table.exact.insert(name.into(), at).is_some() {
                        return Err(twice(domain));
                    }
                }
            },
        }
    }
    for list in [&mut table.suffixes, &mut table.prefixes] {
        list.sort_by_key(|(part, _)| std::cmp::Reverse(part.len()));
    }
    Ok(())
}

/// Whether all conditions of a route hold.
#[must_use]
pub fn route_matches(matches: &RouteMatch, ask: Ask<'_>) -> bool {
    let head = ask.head;
    matches
        .fraction
        .is_none_or(|share| falls(share, ask.random))
        && path_matches(&matches.path, head)
        && (!matches.grpc || head.is_grpc())
        && head.matches_all(&matches.headers)
        && matches.query.iter().all(|test| query_matches(test, head))
        && matches
            .metadata
            .iter()
            .all(|test| policy::metadata_matches(test, ask.metadata))
        && matches
            .caller
            .iter()
            .all(|test| caller_matches(test, ask.caller))
}

/// What isn't known of the caller matches nothing.
fn caller_matches(test: &CallerMatch, caller: Option<&Downstream>) -> bool {
    let (found, text) = match test {
        CallerMatch::Principal(text) => (caller.and_then(Downstream::principal), text),
        CallerMatch::Label(name, text) => (caller.and_then(|caller| caller.label(name)), text),
    };
    found.is_some_and(|found| text.matches(found))
}

/// Whether a random number falls into a share.
#[must_use]
pub fn falls(share: Fraction, random: u64) -> bool {
    random % u64::from(Fraction::ALWAYS.0) < u64::from(share.0)
}

/// An authority without its port.
#[must_use]
pub fn without_port(authority: &str) -> &str {
    let Some((host, port)) = authority.rsplit_once(':') else {
        return authority;
    };
    let bare_v6 = host.contains(':') && !host.ends_with(']');
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match is_port && !bare_v6 {
        true => host,
        false => authority,
    }
}

/// `x-forwarded-proto`, or the scheme where nobody set it.
pub(super) fn forwarded_protocol<'a>(head: &Head<'a>) -> Cow<'a, str> {
    let name = http::HeaderName::from_static("x-forwarded-proto");
    head.first(&name).unwrap_or(Cow::Borrowed(head.scheme))
}

fn path_matches(test: &PathMatch, head: &Head<'_>) -> bool {
    // A plain CONNECT has no path, so that only a test for CONNECT can hold.
    if head.path.is_empty() {
        return matches!(test, PathMatch::Connect) && head.method == Method::CONNECT;
    }
    let path = head.path_only();
    match test {
        PathMatch::Any => true,
        PathMatch::Text(text) => text.matches(path),
        PathMatch::Segments(prefix, ignore_case) => segments_match(prefix, *ignore_case, path),
        PathMatch::Template(template) => policy::template_matches(template, path),
        PathMatch::Connect => head.method == Method::CONNECT,
    }
}

fn segments_match(prefix: &str, ignore_case: bool, path: &str) -> bool {
    let (path, prefix) = (path.as_bytes(), prefix.as_bytes());
    let Some((start, rest)) = path.split_at_checked(prefix.len()) else {
        return false;
    };
    let same = match ignore_case {
        true => start.eq_ignore_ascii_case(prefix),
        false => start == prefix,
    };
    same && matches!(rest.first(), None | Some(b'/'))
}

fn query_matches(test: &QueryMatch, head: &Head<'_>) -> bool {
    let value =
        parameters(head.path).find_map(|(name, value)| (name == &*test.name).then_some(value));
    if let Some(present) = test.present {
        return value.is_some() == present;
    }
    match (&test.value, value) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(text), Some(value)) => text.matches(value),
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests;
