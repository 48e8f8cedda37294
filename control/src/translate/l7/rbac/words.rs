//! The single words of a rule: which attributes there are, and how each value is matched.
#![allow(deprecated)] // As in `model`.

use super::super::api::{cidr, core, matcher, rbac, regex, route, string};
use crate::objects::authorization_policy::Condition;

use matcher::string_matcher::MatchPattern;
use rbac::permission::Rule as Permit;
use rbac::principal::Identifier;

/// Why a value can't be used here.
pub(super) enum Why {
    /// It is HTTP's, and this is an opaque connection.
    HttpOnly,
    /// It is wrong.
    Wrong(String),
}

pub(super) fn of_destination(key: &str) -> bool {
    matches!(
        key,
        "destination.ip" | "destination.port" | "connection.sni"
    ) || key.starts_with("experimental.envoy.filters.")
}

pub(super) fn known(condition: &Condition) -> Result<(), Why> {
    let key = condition.key.as_str();
    let plain = [
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
    ];
    let prefixed = ["request.headers[", "request.auth.claims["];
    if condition.values.is_empty() && condition.not_values.is_empty() {
        return Err(Why::Wrong(format!(
            "when key {key:?} needs values or notValues"
        )));
    }
    if of_destination(key)
        || plain.contains(&key)
        || prefixed.iter().any(|prefix| key.starts_with(prefix))
    {
        return Ok(());
    }
    Err(Why::Wrong(format!("when key {key:?} is not known")))
}

pub(super) fn strings(value: &serde_json::Value) -> Result<Vec<String>, Why> {
    serde_json::from_value(value.clone())
        .map_err(|_| Why::Wrong(format!("{value} is no list of texts")))
}

/// The path of claims that a key names, if it names one.
pub(super) fn claims(key: &str) -> Result<Option<Vec<&str>>, Why> {
    match key {
        "request.auth.audiences" => return Ok(Some(vec!["aud"])),
        "request.auth.presenter" => return Ok(Some(vec!["azp"])),
        _ => {}
    }
    let Some(path) = key.strip_prefix("request.auth.claims") else {
        return Ok(None);
    };
    let inner = path
        .strip_prefix('[')
        .and_then(|path| path.strip_suffix(']'));
    let inner = inner.filter(|inner| !inner.is_empty()).ok_or_else(|| {
        Why::Wrong(format!(
            "when key {key:?}: it must be request.auth.claims[NAME]"
        ))
    })?;
    Ok(Some(inner.split("][").collect()))
}

pub(super) fn claim_principal(claims: &[&str], values: &[String]) -> rbac::Principal {
    let mut matchers: Vec<matcher::ValueMatcher> = values
        .iter()
        .map(|value| string_value(text(value)))
        .collect();
    let value = match matchers.len() {
        1 => matchers.remove(0),
        _ => matcher::ValueMatcher {
            match_pattern: Some(matcher::value_matcher::MatchPattern::OrMatch(
                matcher::OrMatcher {
                    value_matchers: matchers,
                },
            )),
        },
    };
    principal(Identifier::Metadata(in_payload(claims, is_or_has(value))))
}

/// `ISSUER/SUBJECT`, with `*` at one end.
pub(super) fn request_principal(values: &[String]) -> rbac::Principal {
    let exact = |value: &str| string(MatchPattern::Exact(value.to_owned()), false);
    let anything = || pattern(".+".to_owned());
    let mut ids: Vec<rbac::Principal> = values
        .iter()
        .map(|value| {
            // The issuer may be a URL: its slashes come first.
            let (issuer, subject) = match value.rsplit_once('/') {
                _ if value == "*" => (anything(), anything()),
                Some(("*", subject)) if value.starts_with('*') => (anything(), exact(subject)),
                Some((issuer, subject)) if value.starts_with('*') => (
                    string(MatchPattern::Suffix(issuer[1..].to_owned()), false),
                    exact(subject),
                ),
                None if value.starts_with('*') => (
                    anything(),
                    string(MatchPattern::Suffix(value[1..].to_owned()), false),
                ),
                Some((issuer, "*")) => (exact(issuer), anything()),
                Some((issuer, subject)) if subject.ends_with('*') => (
                    exact(issuer),
                    string(
                        MatchPattern::Prefix(subject.trim_end_matches('*').to_owned()),
                        false,
                    ),
                ),
                None if value.ends_with('*') => (
                    string(
                        MatchPattern::Prefix(value.trim_end_matches('*').to_owned()),
                        false,
                    ),
                    anything(),
                ),
                Some((issuer, subject)) => (exact(issuer), exact(subject)),
                None => (exact(value), exact("")),
            };
            let claim = |name: &str, wanted| {
                principal(Identifier::Metadata(in_payload(
                    &[name],
                    string_value(wanted),
                )))
            };
            principal(Identifier::AndIds(rbac::principal::Set {
                ids: vec![claim("iss", issuer), claim("sub", subject)],
            }))
        })
        .collect();
    match ids.len() {
        1 => ids.remove(0),
        _ => principal(Identifier::OrIds(rbac::principal::Set { ids })),
    }
}

/// A claim that is, or has in its list, this text.
pub(in crate::translate::l7) fn jwt_claim(
    claims: &[&str],
    wanted: matcher::StringMatcher,
) -> matcher::MetadataMatcher {
    in_payload(claims, is_or_has(string_value(wanted)))
}

pub(super) fn in_payload(
    claims: &[&str],
    value: matcher::ValueMatcher,
) -> matcher::MetadataMatcher {
    let path: Vec<&str> = std::iter::once("payload")
        .chain(claims.iter().copied())
        .collect();
    at("envoy.filters.http.jwt_authn", &path, value)
}

pub(super) fn at(
    filter: &str,
    path: &[&str],
    value: matcher::ValueMatcher,
) -> matcher::MetadataMatcher {
    use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    matcher::MetadataMatcher {
        filter: filter.to_owned(),
        path: path
            .iter()
            .map(|key| PathSegment {
                segment: Some(Segment::Key((*key).to_owned())),
            })
            .collect(),
        value: Some(value),
        invert: false,
    }
}

pub(super) fn string_value(wanted: matcher::StringMatcher) -> matcher::ValueMatcher {
    matcher::ValueMatcher {
        match_pattern: Some(matcher::value_matcher::MatchPattern::StringMatch(wanted)),
    }
}

pub(super) fn one_of(value: matcher::ValueMatcher) -> matcher::ValueMatcher {
    let list = matcher::ListMatcher {
        match_pattern: Some(matcher::list_matcher::MatchPattern::OneOf(Box::new(value))),
    };
    matcher::ValueMatcher {
        match_pattern: Some(matcher::value_matcher::MatchPattern::ListMatch(Box::new(
            list,
        ))),
    }
}

/// A claim may be a text, or a list with that text in it.
fn is_or_has(value: matcher::ValueMatcher) -> matcher::ValueMatcher {
    matcher::ValueMatcher {
        match_pattern: Some(matcher::value_matcher::MatchPattern::OrMatch(
            matcher::OrMatcher {
                value_matchers: vec![one_of(value.clone()), value],
            },
        )),
    }
}

pub(super) fn block(value: &str) -> Result<core::CidrRange, Why> {
    cidr(value).ok_or_else(|| Why::Wrong(format!("{value:?} is no IP address or CIDR block")))
}

pub(super) fn peer(wanted: matcher::StringMatcher) -> rbac::Principal {
    principal(Identifier::FilterState(matcher::FilterStateMatcher {
        key: "io.istio.peer_principal".to_owned(),
        matcher: Some(matcher::filter_state_matcher::Matcher::StringMatch(wanted)),
    }))
}

pub(super) fn pattern(text: String) -> matcher::StringMatcher {
    string(MatchPattern::SafeRegex(regex(text)), false)
}

pub(super) fn affixed(value: &str, ignore_case: bool) -> Option<matcher::StringMatcher> {
    Some(
        match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
            ("*", _, _) => return None,
            (_, Some(suffix), _) => string(MatchPattern::Suffix(suffix.to_owned()), ignore_case),
            (_, _, Some(prefix)) => string(MatchPattern::Prefix(prefix.to_owned()), ignore_case),
            _ => string(MatchPattern::Exact(value.to_owned()), ignore_case),
        },
    )
}

/// `a`, `a*`, `*a` or `*`.
pub(super) fn text(value: &str) -> matcher::StringMatcher {
    affixed(value, false).unwrap_or_else(|| pattern(".+".to_owned()))
}

pub(super) fn header(name: &str, value: &str, ignore_case: bool) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let specifier = match affixed(value, ignore_case) {
        None => HeaderMatchSpecifier::PresentMatch(true),
        Some(wanted) => HeaderMatchSpecifier::StringMatch(wanted),
    };
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

pub(super) fn permission(rule: Permit) -> rbac::Permission {
    rbac::Permission { rule: Some(rule) }
}

pub(super) fn principal(identifier: Identifier) -> rbac::Principal {
    rbac::Principal {
        identifier: Some(identifier),
    }
}
