//! The regular expressions of routes, tried when an object is read. A waypoint would refuse the whole
//! configuration that holds one which is none, and a waypoint that starts would have no other: so the
//! object is refused here, with the field, and its last good version stays in force.

use std::collections::BTreeMap;

use regex::Regex;

use super::gateway_route::{GatewayRoute, ValueMatch};
use super::virtual_service::{HttpMatch, HttpRoute, StringMatch, VirtualService};

/// What istiod takes for "any value" where a value is asked for by name.
const ANY: &str = "*";

/// The VirtualService, if its expressions are some.
///
/// # Errors
/// The first field whose expression is none, and why.
pub(super) fn virtual_service(spec: VirtualService) -> Result<VirtualService, String> {
    for (at, route) in spec.http.iter().enumerate() {
        http(route).map_err(|problem| format!("spec.http[{at}].{problem}"))?;
    }
    Ok(spec)
}

/// The route, if its expressions are some.
///
/// # Errors
/// The first field whose expression is none, and why.
pub(super) fn route(spec: GatewayRoute) -> Result<GatewayRoute, String> {
    for (rule, at) in spec.rules.iter().zip(0..) {
        for (found, number) in rule.matches.iter().zip(0..) {
            let under = |problem| format!("spec.rules[{at}].matches[{number}].{problem}");
            let lists = [
                ("headers", &found.headers),
                ("queryParams", &found.query_params),
            ];
            if let Some(path) = &found.path {
                value(path).map_err(|why| under(format!("path.value {why}")))?;
            }
            for (field, list) in lists {
                for one in list {
                    value(one)
                        .map_err(|why| under(format!("{field}[{}].value {why}", one.name)))?;
                }
            }
            let method = found.method.as_ref();
            if method.is_some_and(|method| method["type"] == "RegularExpression") {
                for part in ["service", "method"] {
                    let text = method.and_then(|method| method[part].as_str());
                    let text = text.filter(|text| !text.is_empty());
                    text.map_or(Ok(()), expression)
                        .map_err(|why| under(format!("method.{part} {why}")))?;
                }
            }
        }
    }
    Ok(spec)
}

fn http(route: &HttpRoute) -> Result<(), String> {
    for (at, found) in route.r#match.iter().enumerate() {
        matching(found).map_err(|problem| format!("match[{at}].{problem}"))?;
    }
    let rewrite = route.rewrite.as_ref();
    if let Some(rewrite) = rewrite.and_then(|rewrite| rewrite.uri_regex_rewrite.as_ref()) {
        expression(&rewrite.r#match)
            .map_err(|why| format!("rewrite.uriRegexRewrite.match {why}"))?;
    }
    let origins = route
        .cors_policy
        .iter()
        .flat_map(|cors| &cors.allow_origins);
    for (at, origin) in origins.enumerate() {
        text(origin, false).map_err(|why| format!("corsPolicy.allowOrigins[{at}].regex {why}"))?;
    }
    Ok(())
}

fn matching(found: &HttpMatch) -> Result<(), String> {
    let words = [
        ("uri", &found.uri, false),
        ("scheme", &found.scheme, true),
        ("method", &found.method, true),
        ("authority", &found.authority, true),
    ];
    for (field, wanted, any) in words {
        if let Some(wanted) = wanted {
            text(wanted, any).map_err(|why| format!("{field}.regex {why}"))?;
        }
    }
    let maps: [(&str, &BTreeMap<String, StringMatch>); 3] = [
        ("headers", &found.headers),
        ("withoutHeaders", &found.without_headers),
        ("queryParams", &found.query_params),
    ];
    for (field, map) in maps {
        for (name, wanted) in map {
            text(wanted, true).map_err(|why| format!("{field}[{name}].regex {why}"))?;
        }
    }
    Ok(())
}

/// An expression stands for nothing where something else is said beside it.
fn text(wanted: &StringMatch, any: bool) -> Result<(), String> {
    match &wanted.regex {
        Some(_) if wanted.exact.is_some() || wanted.prefix.is_some() => Ok(()),
        Some(pattern) if any && pattern == ANY => Ok(()),
        Some(pattern) => expression(pattern),
        None => Ok(()),
    }
}

fn value(wanted: &ValueMatch) -> Result<(), String> {
    match (wanted.r#type.as_deref(), &wanted.value) {
        (Some("RegularExpression"), Some(pattern)) => expression(pattern),
        _ => Ok(()),
    }
}

/// As waypoints read it: RE2's syntax, and not empty.
fn expression(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("is an empty expression".to_owned());
    }
    Regex::new(pattern).map(drop).map_err(|error| {
        let told = error.to_string();
        // The reason stands in the last line, below a drawing of the place.
        let reason = told.lines().last().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        format!("{pattern:?} is no valid expression: {reason}")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(http: Value) -> Option<String> {
        let spec = json!({"hosts": ["reviews"], "http": [{"route": []}, http]});
        virtual_service(serde_json::from_value(spec).unwrap()).err()
    }

    #[test]
    fn an_expression_that_is_none_is_refused_with_its_field() {
        let table = [
            (
                json!({"match": [{"uri": {"regex": "/a("}}]}),
                "match[0].uri.regex \"/a(\" is no valid expression: unclosed group",
            ),
            (
                json!({"match": [{}, {"headers": {"cookie": {"regex": "[a"}}}]}),
                "match[1].headers[cookie].regex \"[a\" is no valid expression: unclosed character class",
            ),
            (
                json!({"match": [{"queryParams": {"q": {"regex": "a{2,1}"}}}]}),
                "match[0].queryParams[q].regex \"a{2,1}\" is no valid expression: invalid repetition count range, the start must be <= the end",
            ),
            (
                json!({"match": [{"withoutHeaders": {"h": {"regex": ""}}}]}),
                "match[0].withoutHeaders[h].regex is an empty expression",
            ),
            (
                json!({"match": [{"uri": {"regex": "*"}}]}),
                "match[0].uri.regex \"*\" is no valid expression: repetition operator missing expression",
            ),
            (
                json!({"match": [{"authority": {"regex": "(?=x)"}}]}),
                "match[0].authority.regex \"(?=x)\" is no valid expression: look-around, including look-ahead and look-behind, is not supported",
            ),
            (
                json!({"rewrite": {"uriRegexRewrite": {"match": ")", "rewrite": "/"}}}),
                "rewrite.uriRegexRewrite.match \")\" is no valid expression: unopened group",
            ),
            (
                json!({"corsPolicy": {"allowOrigins": [{"exact": "a"}, {"regex": "+"}]}}),
                "corsPolicy.allowOrigins[1].regex \"+\" is no valid expression: repetition operator missing expression",
            ),
        ];
        for (http, wanted) in table {
            assert_eq!(refused(http), Some(format!("spec.http[1].{wanted}")));
        }
    }

    #[test]
    fn expressions_that_are_some_pass() {
        let fine = [
            json!({"match": [{"uri": {"regex": "/reviews/[0-9]+"}, "headers": {"any": {"regex": "*"}}}]}),
            json!({"match": [{"headers": {"regex": {"exact": "("}}}]}),
            json!({"headers": {"request": {"set": {"regex": "("}}}}),
        ];
        for http in fine {
            assert_eq!(refused(http.clone()), None, "{http}");
        }
    }

    #[test]
    fn routes_of_the_gateway_api_are_tried_too() {
        let refused = |found: Value| {
            let rules = serde_json::from_value(json!([{"matches": [found]}])).unwrap();
            let spec = GatewayRoute {
                rules,
                ..GatewayRoute::default()
            };
            route(spec).err()
        };
        let bad = |of: &str| json!({"type": "RegularExpression", "name": of, "value": "("});
        let told = |field: &str| {
            Some(format!(
                "spec.rules[0].matches[0].{field} \"(\" is no valid expression: unclosed group"
            ))
        };
        assert_eq!(refused(json!({"path": bad("")})), told("path.value"));
        assert_eq!(
            refused(json!({"headers": [bad("h")]})),
            told("headers[h].value")
        );
        assert_eq!(
            refused(json!({"queryParams": [bad("q")]})),
            told("queryParams[q].value")
        );
        let method = json!({"type": "RegularExpression", "service": "a", "method": "("});
        assert_eq!(refused(json!({"method": method})), told("method.method"));
        assert_eq!(
            refused(json!({"path": {"type": "Exact", "value": "/("}, "method": "GET"})),
            None
        );
    }
}
