//! What a consistent balancer is given: 64 bits of a header, cookie, address or parameter, hashed
//! as Envoy hashes (XXH64), so that both send a request to the same endpoint.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderValue;
use regex::Regex;
use xxhash_rust::xxh64::xxh64;

use super::rewrite::replace;
use crate::head::{Head, parameters};
use crate::model::route::{HashOf, HashPolicy};
use crate::model::text::HeaderKey;

/// The hash of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hash {
    /// The hash; none where no policy found a value, so that chance decides.
    pub value: Option<u64>,
    /// `set-cookie` values for the answer: cookies that were made.
    pub cookies: Vec<HeaderValue>,
}

/// The hash of a request by a route's policies. `client` is the client's address (after trusted
/// proxies), `local` the connection's own end.
#[must_use]
pub fn compute(
    policies: &[HashPolicy],
    head: &Head<'_>,
    client: SocketAddr,
    local: SocketAddr,
) -> Hash {
    let mut hash = Hash::default();
    for policy in policies {
        let new = match &policy.of {
            HashOf::Header(name, change) => header(head, name, change.as_ref()),
            HashOf::SourceIp => Some(of(client.ip().to_string().as_bytes())),
            HashOf::Query(name) => parameters(head.path)
                .find_map(|(key, value)| (key == &**name).then_some(of(value.as_bytes()))),
            HashOf::Cookie {
                name,
                ttl,
                path,
                attributes,
            } => match (head.cookie(name).filter(|value| !value.is_empty()), ttl) {
                (Some(value), _) => Some(of(value.as_bytes())),
                (None, None) => None,
                (None, Some(ttl)) => {
                    let value = format!("{:x}", of(format!("{client}{local}").as_bytes()));
                    hash.cookies
                        .extend(set_cookie(name, &value, *ttl, path, attributes));
                    Some(of(value.as_bytes()))
                }
            },
        };
        if let Some(new) = new {
            // Turned, so that the same policy twice doesn't cancel itself out.
            let old = hash.value.map_or(0, |old| old.rotate_left(1));
            hash.value = Some(old ^ new);
        }
        if policy.terminal && hash.value.is_some() {
            break;
        }
    }
    hash
}

/// The `set-cookie` value of a cookie as Envoy writes it.
#[must_use]
pub fn set_cookie(
    name: &str,
    value: &str,
    ttl: Duration,
    path: &str,
    attributes: &[(Box<str>, Box<str>)],
) -> Option<HeaderValue> {
    let mut cookie = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        cookie.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !path.is_empty() {
        cookie.push_str(&format!("; Path={path}"));
    }
    for (name, value) in attributes {
        cookie.push_str("; ");
        cookie.push_str(name);
        if !value.is_empty() {
            cookie.push('=');
            cookie.push_str(value);
        }
    }
    cookie.push_str("; HttpOnly");
    HeaderValue::try_from(cookie).ok()
}

/// The hash of some bytes.
#[must_use]
pub fn of(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// The hash of a header's values, whose order doesn't count.
fn header(
    head: &Head<'_>,
    key: &HeaderKey,
    change: Option<&(Box<Regex>, Box<str>)>,
) -> Option<u64> {
    let changed = |value: &[u8]| match (change, std::str::from_utf8(value)) {
        (Some((from, to)), Ok(text)) => replace(from, to, text).as_bytes().to_vec(),
        _ => value.to_vec(),
    };
    let mut values: Vec<Vec<u8>> = match key {
        HeaderKey::Name(name) => {
            let values = head.headers.get_all(name).iter();
            values.map(|value| changed(value.as_bytes())).collect()
        }
        pseudo => {
            let value = head.value(pseudo);
            value
                .iter()
                .map(|value| changed(value.as_bytes()))
                .collect()
        }
    };
    values.sort_unstable();
    let (first, rest) = values.split_first()?;
    Some(
        rest.iter()
            .fold(of(first), |seed, value| xxh64(value, seed)),
    )
}

#[cfg(test)]
mod tests;
