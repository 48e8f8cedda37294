//! Redirects as Envoy 1.40 answers them: every row was sent to it.

use http::{HeaderMap, Method, StatusCode};
use regex::Regex;

use super::*;
use crate::model::route::PathMatch;
use crate::model::text::{Pattern, TextMatch};

const KEEP: Redirect = Redirect {
    status: StatusCode::MOVED_PERMANENTLY,
    scheme: None,
    host: None,
    port: None,
    path: RedirectPath::Keep,
    strip_query: false,
};

fn at(
    redirect: &Redirect,
    matches: &PathMatch,
    authority: &str,
    https: bool,
    path: &str,
) -> String {
    let mut headers = HeaderMap::new();
    let scheme = if https { "https" } else { "http" };
    headers.insert("x-forwarded-proto", scheme.parse().unwrap());
    let head = Head {
        method: &Method::GET,
        scheme,
        authority,
        path,
        headers: &headers,
    };
    let matches = RouteMatch {
        path: matches.clone(),
        ..RouteMatch::default()
    };
    location(redirect, &matches, &head)
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Text(TextMatch::prefix(text))
}

#[test]
fn hosts_and_ports() {
    let scheme = |scheme: &str| Redirect {
        scheme: Some(scheme.into()),
        ..KEEP
    };
    let host = Redirect {
        host: Some("new.host".into()),
        ..KEEP
    };
    let port = Redirect {
        port: Some(8443),
        ..KEEP
    };
    for (redirect, authority, https, expected) in [
        (&scheme("https"), "h", false, "https://h/old/x?y=1"),
        (&scheme("https"), "h:80", false, "https://h/old/x?y=1"),
        (&scheme("https"), "h:80", true, "https://h:80/old/x?y=1"),
        (&scheme("https"), "h:443", false, "https://h:443/old/x?y=1"),
        (
            &scheme("https"),
            "h:8080",
            false,
            "https://h:8080/old/x?y=1",
        ),
        (
            &scheme("https"),
            "[::1]:80",
            false,
            "https://[::1]/old/x?y=1",
        ),
        (&scheme("http"), "h:443", true, "http://h/old/x?y=1"),
        (&scheme("http"), "h:80", false, "http://h:80/old/x?y=1"),
        (&host, "h:8080", false, "http://new.host/old/x?y=1"),
        (&host, "h", true, "https://new.host/old/x?y=1"),
        (&port, "h:80", false, "http://h:8443/old/x?y=1"),
        (&port, "[::1]", true, "https://[::1]:8443/old/x?y=1"),
    ] {
        let found = at(redirect, &prefix("/old"), authority, https, "/old/x?y=1");
        assert_eq!(found, expected, "{redirect:?} {authority}");
    }
}

#[test]
fn paths_and_queries() {
    let to = |path, strip_query| Redirect {
        path,
        strip_query,
        ..KEEP
    };
    let full = |path: &str| RedirectPath::Full(path.into());
    let pre = |path: &str| RedirectPath::Prefix(path.into());
    let regex = || RedirectPath::Regex(Box::new(Regex::new("/(o)(l)d").unwrap()), r"/\2\1".into());
    let exact = PathMatch::Text(TextMatch::exact("/old/x"));
    let segments = PathMatch::Segments("/old".into(), false);
    let any_case = PathMatch::Text(TextMatch::new(Pattern::Prefix("/OLD".into()), true));
    let expression = PathMatch::Text(TextMatch::regex("/old/.*").unwrap());
    let old = prefix("/old");
    for (redirect, matches, path, expected) in [
        (to(full("/new"), false), &old, "/old/x?y=1", "/new?y=1"),
        (to(full("/new?z=2"), false), &old, "/old/x?y=1", "/new?z=2"),
        (to(full("/new"), true), &old, "/old/x?y=1", "/new"),
        (to(full("/new?z=2"), true), &old, "/old/x?y=1", "/new?z=2"),
        (to(full("n"), false), &old, "/old/x?y=1", "/n?y=1"),
        (to(pre("/pre"), false), &old, "/old/x?y=1", "/pre/x?y=1"),
        (to(pre("/pre"), true), &old, "/old/x?y=1", "/pre/x"),
        (to(regex(), false), &old, "/old/x?y=1", "/lo/x?y=1"),
        (to(RedirectPath::Keep, true), &old, "/old/x?y=1", "/old/x"),
        (to(pre("/n"), false), &exact, "/old/x?y=1", "/n?y=1"),
        (to(pre("/n"), false), &segments, "/old/x?y=1", "/n/x?y=1"),
        (to(pre("/n"), false), &segments, "/old?a", "/n?a"),
        (to(pre("/"), false), &segments, "/old/x", "//x"),
        (to(pre("/n"), false), &any_case, "/old/x?y=1", "/n/x?y=1"),
        (to(pre("/n"), false), &expression, "/old/x?y=1", "/n?y=1"),
    ] {
        let found = at(&redirect, matches, "h", false, path);
        assert_eq!(found, format!("http://h{expected}"), "{redirect:?}");
    }
}
