//! The filters of a route: what is done with its requests on the way.

use super::{Surroundings, backend};
use crate::objects::duration::Duration;
use crate::objects::gateway_route::{Cors, Filter, Header, HeaderModifier, PathModifier};
use crate::objects::virtual_service::{
    CorsPolicy, HeaderOperations, HttpRedirect, HttpRewrite, HttpRoute, Mirror, Percent,
    RegexRewrite, StringMatch,
};

pub(super) fn filters(
    all: &[Filter],
    around: &Surroundings<'_>,
    made: &mut HttpRoute,
    problems: &mut Vec<String>,
) {
    for filter in all {
        match filter.r#type.as_str() {
            "RequestHeaderModifier" => {
                made.headers.get_or_insert_default().request =
                    filter.request_header_modifier.as_ref().map(operations);
            }
            "ResponseHeaderModifier" => {
                made.headers.get_or_insert_default().response =
                    filter.response_header_modifier.as_ref().map(operations);
            }
            "RequestMirror" => {
                let Some(mirror) = &filter.request_mirror else {
                    continue;
                };
                let value = match (mirror.fraction, mirror.percent) {
                    (Some(fraction), _) => Some(
                        100.0 * fraction.numerator / fraction.denominator.unwrap_or(100.0).max(1.0),
                    ),
                    (None, percent) => percent,
                };
                made.mirrors.push(Mirror {
                    destination: backend(&mirror.backend_ref, around, problems),
                    percentage: value.map(|value| Percent { value }),
                });
            }
            "RequestRedirect" => {
                let Some(to) = &filter.request_redirect else {
                    continue;
                };
                let PathModifier {
                    r#type: _,
                    replace_full_path,
                    replace_prefix_match,
                } = to.path.clone().unwrap_or_default();
                made.redirect = Some(HttpRedirect {
                    uri: replace_full_path.unwrap_or_default(),
                    prefix_rewrite: replace_prefix_match.unwrap_or_default(),
                    authority: to.hostname.clone().unwrap_or_default(),
                    port: to.port,
                    derive_port: to.scheme.is_none().then(|| "FROM_REQUEST_PORT".to_owned()),
                    scheme: to.scheme.clone().unwrap_or_default(),
                    redirect_code: to.status_code.unwrap_or(302),
                });
            }
            "URLRewrite" => {
                let Some(to) = &filter.url_rewrite else {
                    continue;
                };
                let mut rewrite = HttpRewrite {
                    authority: to.hostname.clone().unwrap_or_default(),
                    ..HttpRewrite::default()
                };
                match &to.path {
                    Some(PathModifier {
                        replace_full_path: Some(path),
                        ..
                    }) => {
                        rewrite.uri_regex_rewrite = Some(RegexRewrite {
                            r#match: "/.*".to_owned(),
                            rewrite: path.clone(),
                        });
                    }
                    Some(PathModifier {
                        replace_prefix_match: Some(prefix),
                        ..
                    }) => {
                        // An empty prefix and a slash both take the beginning away.
                        rewrite.uri = match prefix.trim_end_matches('/') {
                            "" => "/".to_owned(),
                            prefix => prefix.to_owned(),
                        };
                    }
                    _ => {}
                }
                made.rewrite = Some(rewrite);
            }
            "CORS" => made.cors_policy = filter.cors.as_ref().map(cors),
            other => problems.push(format!("filter {other:?} is not served")),
        }
    }
}

fn cors(said: &Cors) -> CorsPolicy {
    let origin = |origin: &String| match origin.as_str() {
        "*" => StringMatch {
            regex: Some(".*".to_owned()),
            ..StringMatch::default()
        },
        wildcard if wildcard.contains('*') => {
            let parts: Vec<String> = wildcard
                .split('*')
                .map(super::super::route::escaped)
                .collect();
            StringMatch {
                regex: Some(format!("^{}$", parts.join(".*"))),
                ..StringMatch::default()
            }
        }
        exact => StringMatch {
            exact: Some(exact.to_owned()),
            ..StringMatch::default()
        },
    };
    CorsPolicy {
        allow_origins: said.allow_origins.iter().map(origin).collect(),
        allow_methods: said.allow_methods.clone(),
        allow_headers: said.allow_headers.clone(),
        expose_headers: said.expose_headers.clone(),
        max_age: Some(Duration(std::time::Duration::from_secs(
            said.max_age.unwrap_or(5),
        ))),
        allow_credentials: said.allow_credentials,
        unmatched_preflights: Some("IGNORE".to_owned()),
        ..CorsPolicy::default()
    }
}

fn operations(modifier: &HeaderModifier) -> HeaderOperations {
    let pairs = |all: &[Header]| {
        // Of several for one name the first counts.
        all.iter()
            .rev()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect()
    };
    HeaderOperations {
        set: pairs(&modifier.set),
        add: pairs(&modifier.add),
        remove: modifier.remove.clone(),
    }
}
