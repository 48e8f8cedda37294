//! Requirements: one provider's token, any of several, all of several. The tree is walked in order,
//! and what each valid token changes adds up.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::claims::{claim, claim_text, normalised};
use super::seen::Keys;
use super::token::{Failure, Token};
use super::{Changes, Checked, Denial, KeySets, authenticate};
use crate::head::{Head, decode, parameters, without_parameters};
use crate::model::jwt::{JwtAuthn, KeySource, Provider, Requirement, TokenPlace};

/// Why a requirement isn't met, or can't be decided yet.
enum Stop {
    Failed(Failure),
    Fetch(Arc<Provider>),
}

/// Walks a requirement.
pub(super) fn check(
    filter: &JwtAuthn,
    requirement: &Requirement,
    head: &Head<'_>,
    now: u64,
    keys: &dyn KeySets,
) -> Checked {
    let mut walk = Walk {
        filter,
        head,
        now,
        keys,
        changes: Changes::default(),
    };
    match walk.meets(requirement) {
        Ok(()) => Checked::Pass(walk.changes),
        Err(Stop::Fetch(provider)) => Checked::Fetch(provider),
        Err(Stop::Failed(failure)) => Checked::Deny(Denial {
            status: match failure {
                Failure::Audience => StatusCode::FORBIDDEN,
                _ => StatusCode::UNAUTHORIZED,
            },
            body: failure.text(),
            authenticate: authenticate(head, failure),
        }),
    }
}

struct Walk<'w> {
    filter: &'w JwtAuthn,
    head: &'w Head<'w>,
    now: u64,
    keys: &'w dyn KeySets,
    changes: Changes,
}

/// A token where it was found.
struct Found<'f> {
    text: Cow<'f, str>,
    place: Place<'f>,
}

/// Where a token was found, so that it can be taken away.
enum Place<'f> {
    Header(HeaderName),
    Query(&'f str),
    Cookie,
}

impl<'w> Walk<'w> {
    fn meets(&mut self, requirement: &Requirement) -> Result<(), Stop> {
        match requirement {
            Requirement::Nothing => Ok(()),
            Requirement::Provider(at, audiences) => match self.filter.providers.get(*at) {
                Some(provider) => self.provider(provider, audiences),
                None => Err(Stop::Failed(Failure::UnknownIssuer)),
            },
            Requirement::Any(any) => self.any(any),
            Requirement::All(all) => all.iter().try_for_each(|one| self.meets(one)),
            Requirement::AllowMissing => match self.every_provider() {
                Err(Stop::Failed(Failure::Missing)) => Ok(()),
                other => other,
            },
            Requirement::AllowMissingOrFailed => match self.every_provider() {
                Err(Stop::Failed(_)) => Ok(()),
                other => other,
            },
        }
    }

    /// Any of several. Allowing that a token is missing, or bad, is said of all the others
    /// together; alone it is a requirement like any other.
    fn any(&mut self, any: &[Requirement]) -> Result<(), Stop> {
        let has = |kind: fn(&Requirement) -> bool| any.iter().any(kind);
        let bad_passes = has(|one| matches!(one, Requirement::AllowMissingOrFailed));
        let missing_passes = has(|one| matches!(one, Requirement::AllowMissing));
        let is_allowance = |one: &Requirement| {
            matches!(
                one,
                Requirement::AllowMissing | Requirement::AllowMissingOrFailed
            )
        };
        let mut others = any.iter().filter(|one| !is_allowance(one)).peekable();
        if others.peek().is_none() {
            return match (bad_passes, missing_passes) {
                (true, _) => self.meets(&Requirement::AllowMissingOrFailed),
                (_, true) => self.meets(&Requirement::AllowMissing),
                _ => Ok(()),
            };
        }
        let mut worst = Failure::Missing;
        for one in others {
            match self.meets(one) {
                Ok(()) => return Ok(()),
                Err(Stop::Fetch(provider)) => return Err(Stop::Fetch(provider)),
                Err(Stop::Failed(failure)) => {
                    let says_little = matches!(failure, Failure::Missing | Failure::UnknownIssuer);
                    if !says_little || worst == Failure::Missing {
                        worst = failure;
                    }
                }
            }
        }
        match bad_passes || (missing_passes && worst == Failure::Missing) {
            true => Ok(()),
            false => Err(Stop::Failed(worst)),
        }
    }

    /// A valid token of this provider. Where it has several, all must be valid: the upstream might
    /// look at the other one.
    fn provider(&mut self, provider: &Arc<Provider>, audiences: &[Box<str>]) -> Result<(), Stop> {
        self.sanitise(provider);
        let found = self.find(provider);
        if found.is_empty() {
            return Err(Stop::Failed(Failure::Missing));
        }
        // Envoy begins with the last place.
        for found in found.into_iter().rev() {
            let token = Token::parse(&found.text).map_err(Stop::Failed)?;
            self.accept(provider, audiences, &token, &found.place)?;
        }
        Ok(())
    }

    /// The tokens of all providers, of which each must be valid; the issuer says whose it is.
    fn every_provider(&mut self) -> Result<(), Stop> {
        let providers = &self.filter.providers;
        let mut result = Err(Failure::Missing);
        for provider in providers {
            self.sanitise(provider);
        }
        for at in 0..providers.len() {
            for found in self.find(&providers[at]).into_iter().rev() {
                let one = match Token::parse(&found.text) {
                    Err(failure) => Err(Stop::Failed(failure)),
                    Ok(token) => match issuer(providers, &token.issuer) {
                        // Another provider's turn comes, or came.
                        Some(of) if of != at && shares(&providers[of], &found.place) => continue,
                        Some(of) if of == at => {
                            self.accept(&providers[of], &[], &token, &found.place)
                        }
                        _ => Err(Stop::Failed(Failure::UnknownIssuer)),
                    },
                };
                match one {
                    Ok(()) if result == Err(Failure::Missing) => result = Ok(()),
                    Ok(()) => {}
                    Err(Stop::Fetch(provider)) => return Err(Stop::Fetch(provider)),
                    Err(Stop::Failed(failure)) => result = Err(failure),
                }
            }
        }
        result.map_err(Stop::Failed)
    }

    /// Verifies a token and writes down what it changes.
    fn accept(
        &mut self,
        provider: &Arc<Provider>,
        audiences: &[Box<str>],
        token: &Token<'_>,
        place: &Place<'_>,
    ) -> Result<(), Stop> {
        if !provider.issuer.is_empty() && *token.issuer != *provider.issuer {
            return Err(Stop::Failed(Failure::UnknownIssuer));
        }
        token
            .check_claims(provider, audiences, self.now)
            .map_err(Stop::Failed)?;
        self.verify(provider, token)?;
        self.note(provider, token, place);
        Ok(())
    }

    /// Verifies a token's signature, unless these keys did before.
    fn verify(&self, provider: &Arc<Provider>, token: &Token<'_>) -> Result<(), Stop> {
        let remote;
        let (keys, known_as) = match &provider.keys {
            KeySource::Inline(keys) => (keys, Keys::inline(provider)),
            KeySource::Remote { .. } => match self.keys.keys(provider) {
                None => return Err(Stop::Fetch(Arc::clone(provider))),
                Some(Err(_)) => return Err(Stop::Failed(Failure::Fetch)),
                Some(Ok(keys)) => {
                    remote = keys;
                    (&*remote, Keys::fetched(&remote))
                }
            },
        };
        let seen = self.keys.seen();
        if seen.is_some_and(|seen| seen.borrow().has(token.text, &known_as)) {
            return Ok(());
        }
        token.verify(keys).map_err(Stop::Failed)?;
        if let Some(seen) = seen {
            seen.borrow_mut().keep(token.text, known_as);
        }
        Ok(())
    }

    /// What a valid token changes.
    fn note(&mut self, provider: &Provider, token: &Token<'_>, place: &Place<'_>) {
        let changes = &mut self.changes;
        if let Some(name) = &provider.payload_header {
            let mut text = token.payload_text.to_owned();
            while provider.pad_payload_header && !text.len().is_multiple_of(4) {
                text.push('=');
            }
            set(changes, name, &text);
        }
        for (name, path) in &provider.claim_headers {
            if let Some(text) = claim(&token.claims, path).and_then(claim_text) {
                set(changes, name, &text);
            }
        }
        if !provider.forward {
            match place {
                Place::Header(name) => changes.remove.push(name.clone()),
                Place::Query(name) => {
                    let path = changes.path.as_deref().unwrap_or(self.head.path);
                    if let Some(path) = without_parameters(path, &[name]) {
                        changes.path = Some(path);
                    }
                }
                Place::Cookie => {}
            }
        }
        if let Some(key) = &provider.header_key {
            let header = Value::Object(token.header.clone());
            changes.metadata.insert(key.to_string(), header);
        }
        if let Some(key) = &provider.payload_key {
            let claims = normalised(&token.claims, &provider.space_delimited);
            changes.metadata.insert(key.to_string(), claims);
        }
        changes.clear_route_cache |= provider.clear_route_cache;
    }

    /// Takes headers away that only this filter may set.
    fn sanitise(&mut self, provider: &Provider) {
        let claims = provider.claim_headers.iter().map(|(name, _)| name);
        for name in provider.payload_header.iter().chain(claims) {
            self.changes.set.retain(|(set, _)| set != name);
            if self.head.headers.contains_key(name) && !self.changes.remove.contains(name) {
                self.changes.remove.push(name.clone());
            }
        }
    }

    /// The tokens in a provider's places, in Envoy's order: headers, parameters, cookies. One that
    /// an earlier provider took away is gone.
    fn find<'p>(&self, provider: &'p Provider) -> Vec<Found<'p>>
    where
        'w: 'p,
    {
        let head = self.head;
        let mut found = Vec::new();
        let mut header = |name: &HeaderName, prefix: &str, removed: &[HeaderName]| {
            if !removed.contains(name) {
                found.extend(in_header(head.headers, name, prefix));
            }
        };
        let removed = &self.changes.remove;
        if provider.from.is_empty() {
            header(&header::AUTHORIZATION, "Bearer ", removed);
        }
        for place in &provider.from {
            if let TokenPlace::Header(name, prefix) = place {
                header(name, prefix, removed);
            }
        }
        let default = provider.from.is_empty().then_some("access_token");
        let named = provider.from.iter().filter_map(|place| match place {
            TokenPlace::Query(name) => Some(&**name),
            _ => None,
        });
        for name in default.into_iter().chain(named) {
            let taken = self.changes.path.as_deref();
            let gone =
                taken.is_some_and(|path| parameters(path).all(|(key, _)| decode(key) != name));
            let value = parameters(head.path)
                .find_map(|(key, value)| (decode(key) == name).then_some(value));
            if let (false, Some(value)) = (gone, value) {
                found.push(Found {
                    text: decode(value),
                    place: Place::Query(name),
                });
            }
        }
        for place in &provider.from {
            if let TokenPlace::Cookie(name) = place
                && let Some(value) = head.cookie(name)
            {
                found.push(Found {
                    text: Cow::Borrowed(value),
                    place: Place::Cookie,
                });
            }
        }
        found
    }
}

/// The tokens in a header's values: what follows the prefix, from the first character that a token
/// can have.
fn in_header<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    prefix: &str,
) -> impl Iterator<Item = Found<'h>> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    headers.get_all(name).iter().filter_map(move |value| {
        let mut text = value.to_str().ok()?;
        if !prefix.is_empty() {
            let after = &text[text.find(prefix)? + prefix.len()..];
            text = after.find(is_token).map_or(text, |start| &after[start..]);
        }
        Some(Found {
            text: Cow::Borrowed(text),
            place: Place::Header(name.clone()),
        })
    })
}

/// The provider of an issuer: the first that names it, then the first that names none.
fn issuer(providers: &[Arc<Provider>], issuer: &str) -> Option<usize> {
    let of = |name: &str| providers.iter().position(|one| *one.issuer == *name);
    of(issuer).or_else(|| of(""))
}

/// Whether a provider looks for tokens in this place too.
fn shares(provider: &Provider, place: &Place<'_>) -> bool {
    let default = provider.from.is_empty();
    let looks = |test: &dyn Fn(&TokenPlace) -> bool| provider.from.iter().any(test);
    match place {
        Place::Header(name) => {
            (default && *name == header::AUTHORIZATION)
                || looks(&|one| matches!(one, TokenPlace::Header(other, _) if other == name))
        }
        Place::Query(name) => {
            (default && *name == "access_token")
                || looks(&|one| matches!(one, TokenPlace::Query(other) if **other == **name))
        }
        Place::Cookie => looks(&|one| matches!(one, TokenPlace::Cookie(_))),
    }
}

fn set(changes: &mut Changes, name: &HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        changes.set.push((name.clone(), value));
    }
}
