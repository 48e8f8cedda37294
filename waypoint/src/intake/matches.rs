//! Which requests a route, or a rule of another filter, is for →
//! [`model::route::RouteMatch`](crate::model::route::RouteMatch).

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;

use super::error::{At as _, Refused, each, need};
use super::rbac::PEER;
use super::served::Notes;
use super::{metadata, plain, template, text, typed};
use crate::model::route::{CallerMatch, PathMatch, QueryMatch, RouteMatch};
use crate::model::text::{Pattern, TextMatch};
use crate::unserved;

/// What begins the key of one of the caller's labels; its name follows.
const LABEL: &str = "io.culvert.peer_label.";

/// Which requests a route, or a rule of another filter, is for.
///
/// # Errors
/// A condition of it can't be compiled.
pub(super) fn compile(of: route::RouteMatch, notes: &mut Notes) -> Result<RouteMatch, Refused> {
    let route::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = of;
    unserved!(notes, "RouteMatch": cookies, tls_context);
    let ignore_case = !plain::on_or(case_sensitive, true);
    let fraction = runtime_fraction.map(text::runtime_fraction).transpose();
    Ok(RouteMatch {
        path: path(need(path_specifier, "path_specifier")?, ignore_case)?,
        headers: each("headers", headers, text::header)?,
        query: each("query_parameters", query_parameters, query)?.into(),
        grpc: grpc.is_some(),
        fraction: fraction.at("runtime_fraction")?,
        metadata: each("dynamic_metadata", dynamic_metadata, metadata::matcher)?.into(),
        caller: each("filter_state", filter_state, caller)?.into(),
    })
}

/// What is known of the caller: its identity, as istiod names it, and its labels, of which our own
/// control plane tells.
fn caller(state: matcher::FilterStateMatcher) -> Result<CallerMatch, Refused> {
    use matcher::filter_state_matcher::Matcher;

    let matcher::FilterStateMatcher { key, matcher } = state;
    let Matcher::StringMatch(text) = need(matcher, "string_match")? else {
        return Err(Refused::new("what is known of the caller is text").under("address_match"));
    };
    let text = text::string(text).at("string_match")?;
    match key.strip_prefix(LABEL) {
        _ if key == PEER => Ok(CallerMatch::Principal(text)),
        Some(name) => Ok(CallerMatch::Label(name.into(), text)),
        None => {
            let reason = format!(
                "{key:?} is written down by nobody; of the caller {PEER:?} and {LABEL:?}… are known"
            );
            Err(Refused::new(reason).under("key"))
        }
    }
}

fn path(
    specifier: route::route_match::PathSpecifier,
    ignore_case: bool,
) -> Result<PathMatch, Refused> {
    use route::route_match::{ConnectMatcher, PathSpecifier};

    let text = |pattern| PathMatch::Text(TextMatch::new(pattern, ignore_case));
    Ok(match specifier {
        PathSpecifier::Prefix(prefix) => text(Pattern::Prefix(prefix.into())),
        PathSpecifier::Path(path) => text(Pattern::Exact(path.into())),
        PathSpecifier::SafeRegex(regex) => PathMatch::Text(text::regex(regex).at("safe_regex")?),
        PathSpecifier::ConnectMatcher(ConnectMatcher {}) => PathMatch::Connect,
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let whole = prefix.len() > 1 && !prefix.ends_with('/');
            if !whole || prefix.contains(['?', '#']) {
                let reason = format!("{prefix:?} is no prefix of segments without query");
                return Err(Refused::new(reason).under("path_separated_prefix"));
            }
            PathMatch::Segments(prefix.into(), ignore_case)
        }
        PathSpecifier::PathMatchPolicy(extension) => {
            let config = need(extension.typed_config, "path_match_policy.typed_config")?;
            let UriTemplateMatchConfig { path_template } =
                typed::unpack_whole(&config).at("path_match_policy.typed_config")?;
            let template = template::parse(&path_template);
            PathMatch::Template(template.at("path_match_policy.typed_config.path_template")?)
        }
    })
}

fn query(matcher: route::QueryParameterMatcher) -> Result<QueryMatch, Refused> {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;

    let route::QueryParameterMatcher {
        name,
        query_parameter_match_specifier,
    } = matcher;
    if name.is_empty() {
        return Err(Refused::new("must not be empty").under("name"));
    }
    let (value, present) = match query_parameter_match_specifier {
        None => (None, None),
        Some(Specifier::StringMatch(value)) => {
            (Some(text::string(value).at("string_match")?), None)
        }
        Some(Specifier::PresentMatch(present)) => (None, Some(present)),
    };
    Ok(QueryMatch {
        name: name.into(),
        value,
        present,
    })
}

#[cfg(test)]
mod tests;
