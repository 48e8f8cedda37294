//! Rewrites of paths and hosts.

use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::*;
use crate::model::rare::Rare;
use crate::model::route::Destination;
use crate::model::text::TextMatch;

fn forward(path: PathRewrite, host: HostRewrite) -> Forward {
    Forward {
        to: Destination::Cluster("c".into()),
        not_found: StatusCode::SERVICE_UNAVAILABLE,
        path,
        host,
        append_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        max_grpc_timeout: None,
        limits: Rare::default(),
        host_limits: false,
        grpc_timeout_offset: std::time::Duration::ZERO,
        stream: None,
        retry: None,
        hash: Rare::default(),
        mirrors: Rare::default(),
        upgrades: Rare::default(),
        endpoint_metadata: Rare::default(),
    }
}

fn expression(text: &str) -> Box<Regex> {
    Box::new(Regex::new(text).unwrap())
}

#[test]
fn paths() {
    let prefix = |matched: &str| RouteMatch {
        path: PathMatch::Text(TextMatch::prefix(matched)),
        ..RouteMatch::default()
    };
    let by_prefix = |by: &str| PathRewrite::Prefix(by.into());
    let by_regex = |of: &str, by: &str| PathRewrite::Regex(expression(of), by.into());
    for (rewrite, matched, from, expected) in [
        (PathRewrite::Keep, "/a", "/a/b", None),
        (by_prefix("/z"), "/a", "/a/b?c", Some("/z/b?c")),
        (by_prefix("/"), "/a/", "/a/b", Some("/b")),
        (by_prefix("/z"), "/a", "/abc", Some("/zbc")),
        (
            by_regex("^/(a)/(b)", r"/\2/\1\\\0"),
            "/a",
            "/a/b/c?a/b",
            Some(r"/b/a\/a/b/c?a/b"),
        ),
        (by_regex("a", "b"), "/a", "/a/a?a=a", Some("/b/b?a=a")),
        (by_regex("(x)?a", r"<\1>"), "/a", "/a", Some("/<>")),
        (by_regex("z", ""), "/a", "/a?z", Some("/a?z")),
    ] {
        let forward = forward(rewrite, HostRewrite::Keep);
        let found = path(&forward, &prefix(matched), from);
        assert_eq!(found.as_deref(), expected, "{from}");
    }
}

#[test]
fn hosts() {
    let name = HeaderName::from_static("x-host");
    let mut headers = HeaderMap::new();
    headers.insert(&name, "by-header".parse().unwrap());
    let with = |headers: &HeaderMap, rewrite: HostRewrite| {
        let forward = forward(PathRewrite::Keep, rewrite);
        let head = Head {
            method: &Method::GET,
            scheme: "http",
            authority: "old",
            path: "/svc/x?y",
            headers,
        };
        match host(&forward, None, &head) {
            Host::Keep => "-".to_owned(),
            Host::Endpoint => "endpoint".to_owned(),
            Host::New(host) => host.into_owned(),
        }
    };
    let regex = HostRewrite::PathRegex(expression("^/(.+)/.*$"), r"\1.local".into());
    assert_eq!(with(&headers, HostRewrite::Keep), "-");
    assert_eq!(with(&headers, HostRewrite::Literal("new".into())), "new");
    assert_eq!(with(&headers, HostRewrite::Endpoint), "endpoint");
    assert_eq!(
        with(&headers, HostRewrite::Header(name.clone())),
        "by-header"
    );
    assert_eq!(with(&headers, regex), "svc.local");
    assert_eq!(with(&HeaderMap::new(), HostRewrite::Header(name)), "-");
}
