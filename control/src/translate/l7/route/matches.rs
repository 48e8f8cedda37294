//! Which requests a route is for.

use super::super::api::{matcher, regex, route, string, truth};
use super::super::rbac::jwt_claim;
use crate::objects::virtual_service::{HttpMatch, StringMatch};

use matcher::string_matcher::MatchPattern;
use route::route_match::PathSpecifier;

/// Every request.
pub(super) fn everything() -> route::RouteMatch {
    route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    }
}

/// Whether nothing can come after it.
pub(super) fn is_everything(made: &route::Route) -> bool {
    let Some(found) = &made.r#match else {
        return false;
    };
    let path = match &found.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == "*",
        _ => false,
    };
    path && found.headers.is_empty()
        && found.query_parameters.is_empty()
        && found.dynamic_metadata.is_empty()
        && found.filter_state.is_empty()
}

/// The match of a rule. A prefix is one of the text in a VirtualService, and of the path's segments
/// in the Gateway API.
pub(super) fn of(
    found: Option<&HttpMatch>,
    gateway_api: bool,
) -> Result<route::RouteMatch, String> {
    let mut made = everything();
    let Some(found) = found else { return Ok(made) };
    let mut headers = Vec::new();
    for (name, wanted) in &found.headers {
        match claim(name, wanted) {
            Some(claim) => made.dynamic_metadata.push(claim),
            None => headers.push(header(name, wanted)?),
        }
    }
    for (name, unwanted) in &found.without_headers {
        if let Some(mut claim) = claim(name, unwanted) {
            claim.invert = true;
            made.dynamic_metadata.push(claim);
            continue;
        }
        let mut header = header(name, unwanted)?;
        header.invert_match = true;
        header.treat_missing_header_as_empty = !is_presence(unwanted);
        headers.push(header);
    }
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    made.headers = headers;
    if let Some(uri) = &found.uri {
        made.path_specifier = Some(match (&uri.exact, &uri.prefix, &uri.regex) {
            (Some(exact), _, _) => PathSpecifier::Path(exact.clone()),
            (_, Some(prefix), _) if gateway_api && prefix != "/" => {
                PathSpecifier::PathSeparatedPrefix(prefix.trim_end_matches('/').to_owned())
            }
            (_, Some(prefix), _) => PathSpecifier::Prefix(prefix.clone()),
            (_, _, Some(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
            _ => PathSpecifier::Prefix("/".to_owned()),
        });
    }
    made.case_sensitive = truth(!found.ignore_uri_case);
    let pseudo = [
        (":method", &found.method),
        (":authority", &found.authority),
        (":scheme", &found.scheme),
    ];
    for (name, wanted) in pseudo {
        if let Some(wanted) = wanted {
            made.headers.push(header(name, wanted)?);
        }
    }
    for (name, wanted) in &found.query_params {
        use route::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
        let specifier = match pattern(wanted) {
            None => Specifier::PresentMatch(true),
            Some(pattern) => Specifier::StringMatch(string(pattern, false)),
        };
        made.query_parameters.push(route::QueryParameterMatcher {
            name: name.clone(),
            query_parameter_match_specifier: Some(specifier),
        });
    }
    if !found.source_namespace.is_empty() {
        made.filter_state.push(namespace(&found.source_namespace));
    }
    let labels = found.source_labels.iter();
    made.filter_state
        .extend(labels.map(|(name, value)| label(name, value)));
    Ok(made)
}

/// A label of the caller's workload. istiod compares it with the waypoint's own labels, and leaves
/// the rule out or gives it to everybody. A waypoint that is told of no labels matches nobody.
fn label(name: &str, value: &str) -> matcher::FilterStateMatcher {
    matcher::FilterStateMatcher {
        key: format!("io.culvert.peer_label.{name}"),
        matcher: Some(matcher::filter_state_matcher::Matcher::StringMatch(string(
            MatchPattern::Exact(value.to_owned()),
            false,
        ))),
    }
}

/// The caller's namespace is in its identity. istiod compares it with the waypoint's own namespace
/// instead, so that such a rule matches all callers or none.
fn namespace(name: &str) -> matcher::FilterStateMatcher {
    let pattern = format!("spiffe://[^/]+/ns/{}/sa/.+", escaped(name));
    matcher::FilterStateMatcher {
        key: "io.istio.peer_principal".to_owned(),
        matcher: Some(matcher::filter_state_matcher::Matcher::StringMatch(string(
            MatchPattern::SafeRegex(regex(pattern)),
            false,
        ))),
    }
}

/// A text as a pattern for itself.
pub(in crate::translate::l7) fn escaped(text: &str) -> String {
    let special =
        |c: char| r"\.+*?()|[]{}^$#&-~".contains(c) && c != '-' && c != '#' && c != '&' && c != '~';
    text.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

fn header(name: &str, wanted: &StringMatch) -> Result<route::HeaderMatcher, String> {
    use route::header_matcher::HeaderMatchSpecifier;
    if name.is_empty() {
        return Err("a match on a header without a name".to_owned());
    }
    let specifier = match pattern(wanted) {
        None => HeaderMatchSpecifier::PresentMatch(true),
        Some(pattern) => HeaderMatchSpecifier::StringMatch(string(pattern, false)),
    };
    Ok(route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    })
}

/// `*` is no pattern: it asks only that there is a value.
fn is_presence(wanted: &StringMatch) -> bool {
    pattern(wanted).is_none()
}

pub(super) fn pattern(wanted: &StringMatch) -> Option<MatchPattern> {
    match (&wanted.exact, &wanted.prefix, &wanted.regex) {
        (Some(exact), _, _) => Some(MatchPattern::Exact(exact.clone())),
        (_, Some(prefix), _) => Some(MatchPattern::Prefix(prefix.clone())),
        (_, _, Some(pattern)) if pattern != "*" => Some(MatchPattern::SafeRegex(regex(pattern))),
        _ => None,
    }
}

/// `@request.auth.claims.a.b` and `@request.auth.claims[a][b]`: a claim of the token.
fn claim(name: &str, wanted: &StringMatch) -> Option<matcher::MetadataMatcher> {
    let path = name.to_ascii_lowercase();
    let rest = path
        .strip_prefix("@request.auth.claims")
        .map(|rest| &name[name.len() - rest.len()..])?;
    let claims: Vec<&str> = match rest.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => rest
            .strip_prefix('[')?
            .strip_suffix(']')?
            .split("][")
            .collect(),
    };
    let pattern = pattern(wanted).unwrap_or_else(|| MatchPattern::SafeRegex(regex(".+")));
    Some(jwt_claim(&claims, string(pattern, false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_literally_in_a_pattern() {
        assert_eq!(escaped("a.b-c"), r"a\.b-c");
    }
}
