//! Tokens of requests: found, verified, and what of them is passed on. Envoy's `jwt_authn` filter,
//! which RequestAuthentication becomes. Pure: `now` is an argument, and keys that must be fetched
//! are asked of a [`KeySets`], so that the flow fetches them and asks again.

mod claims;
pub mod keys;
mod requirement;
mod seen;
mod token;

use std::cell::RefCell;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use crate::head::{Head, Metadata};
use crate::model::jwt::{JwtAuthn, KeySet, Provider, Requirement};
use crate::model::route::FilterOverrides;
use crate::route::Ask;

pub use seen::Seen;
pub use token::Failure;

/// The filter's name, under which it writes claims down.
pub const FILTER: &str = "envoy.filters.http.jwt_authn";

/// Who has the keys of issuers whose keys are fetched.
pub trait KeySets {
    /// The keys of a provider ([`crate::model::jwt::KeySource::Remote`]); none where they must be
    /// fetched first, an error where that failed.
    fn keys(&self, provider: &Provider) -> Option<Result<Arc<KeySet>, Unreachable>>;

    /// Tokens that this worker found good before; none where each is verified anew.
    fn seen(&self) -> Option<&RefCell<Seen>> {
        None
    }
}

/// Keys could not be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the issuer's keys could not be fetched: its address or cluster is wrong, or it is down")]
pub struct Unreachable;

/// What is said of a request's tokens.
#[derive(Debug)]
pub enum Checked {
    /// The request goes on with these changes.
    Pass(Changes),
    /// The request is answered here.
    Deny(Denial),
    /// The keys of this provider must be fetched; then ask again.
    Fetch(Arc<Provider>),
}

/// What a token changes in a request.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Headers to remove: tokens that aren't passed on, and headers of claims that nobody but this
    /// filter may set. First.
    pub remove: Vec<HeaderName>,
    /// Headers to set. Then.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// The path without its token.
    pub path: Option<String>,
    /// To be written down under [`FILTER`].
    pub metadata: Map<String, Value>,
    /// The route is to be chosen again.
    pub clear_route_cache: bool,
}

/// The answer to a request whose tokens don't do. Its details are
/// `jwt_authn_access_denied{…}` with the body's spaces as underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// 401 or 403.
    pub status: StatusCode,
    /// The body, such as `Jwt is missing`.
    pub body: &'static str,
    /// `www-authenticate`
    pub authenticate: Option<HeaderValue>,
}

impl Denial {
    /// What logs say of it (`%RESPONSE_CODE_DETAILS%`).
    #[must_use]
    pub fn details(&self) -> String {
        format!("jwt_authn_access_denied{{{}}}", self.body.replace(' ', "_"))
    }
}

/// What is said of a request's tokens. `overrides` are the chosen route's; `now` is in seconds
/// since 1970.
#[must_use]
pub fn check(
    filter: &JwtAuthn,
    overrides: &FilterOverrides,
    ask: Ask<'_>,
    now: u64,
    keys: &dyn KeySets,
) -> Checked {
    let head = ask.head;
    if filter.bypass_cors_preflight && head.is_preflight() {
        return Checked::Pass(Changes::default());
    }
    let requirement = match &overrides.jwt {
        Some(None) => None,
        Some(Some(requirement)) => Some(&**requirement),
        None => required(filter, ask),
    };
    match requirement {
        None | Some(Requirement::Nothing) => Checked::Pass(Changes::default()),
        Some(requirement) => requirement::check(filter, requirement, head, now, keys),
    }
}

/// Writes what a token changes into the metadata of a request.
pub fn note(changes: &mut Changes, metadata: &mut Metadata) {
    if !changes.metadata.is_empty() {
        metadata.merge(FILTER, std::mem::take(&mut changes.metadata));
    }
}

/// What the first rule that matches requires.
fn required<'f>(filter: &'f JwtAuthn, ask: Ask<'_>) -> Option<&'f Requirement> {
    filter
        .rules
        .iter()
        .find(|rule| crate::route::route_matches(&rule.matches, ask))
        .map(|rule| &rule.requires)
}

/// `www-authenticate`, whose realm is the address that was asked for, up to a length.
fn authenticate(head: &Head<'_>, failure: Failure) -> Option<HeaderValue> {
    const LONGEST_PATH: usize = 256;
    let original = HeaderName::from_static("x-envoy-original-path");
    let path = head.first(&original).unwrap_or(head.path.into());
    let path = &path[..path.floor_char_boundary(LONGEST_PATH)];
    let (scheme, host) = (head.scheme, head.authority);
    let error = match failure {
        Failure::Missing => "",
        _ => ", error=\"invalid_token\"",
    };
    HeaderValue::try_from(format!("Bearer realm=\"{scheme}://{host}{path}\"{error}")).ok()
}

#[cfg(test)]
mod tests;
