//! Heads as hyper reads them, and what becomes of them before anything else looks at them.

use http::Request;

use super::*;
use crate::http::testing;
use crate::model::http::{Http1Options, PathNormalisation};

fn asked(request: http::request::Builder) -> Asked {
    let (parts, ()) = request.body(()).unwrap().into_parts();
    Asked::new(parts, false)
}

fn check(request: http::request::Builder, chain: &HttpChain) -> Result<Asked, Stop> {
    let mut asked = asked(request);
    asked.check(chain, 80, Quirks::default()).map(|()| asked)
}

#[test]
fn whatever_counts_for_one_hop_is_looked_for() {
    let others = [header::CONNECTION, header::UPGRADE, header::TE];
    for name in HOP.iter().chain(&others) {
        let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]);
        assert!(has_hop_by_hop(&headers), "{name}");
    }
    let plain = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("x"))]);
    assert!(!has_hop_by_hop(&plain));
}

#[test]
fn what_is_no_request_is_refused() {
    let chain = testing::chain(Vec::new());
    let get = || Request::get("/");
    let rows = [
        (get(), Refusal::NoHost),
        (
            get().header("host", "a").header("host", "b"),
            Refusal::BadHost,
        ),
        (
            get().header("host", HeaderValue::from_bytes(b"\xff").unwrap()),
            Refusal::BadHost,
        ),
        (get().header("host", "x y"), Refusal::BadHost),
        (get().header("host", "user@x"), Refusal::BadHost),
        (
            get()
                .header("host", "a")
                .header("transfer-encoding", "gzip, chunked"),
            Refusal::Coding,
        ),
        (
            Request::options("*").header("host", "a"),
            Refusal::NotAbsolute,
        ),
        (
            get().version(Version::HTTP_10).header("host", "a"),
            Refusal::LowVersion,
        ),
    ];
    for (request, expected) in rows {
        let stop = check(request, &chain).unwrap_err();
        assert!(
            matches!(stop, Stop::Refused(refusal) if refusal == expected),
            "{stop:?} instead of {expected:?}"
        );
    }
    let mut old = testing::chain(Vec::new());
    old.http1 = Http1Options {
        accept_http10: true,
        ..Http1Options::default()
    };
    assert!(check(get().version(Version::HTTP_10), &old).is_ok());
}

#[test]
fn the_url_of_a_request_line_counts_before_its_host() {
    let chain = testing::chain(Vec::new());
    let request = Request::get("http://user@reviews:9080/a?b").header("host", "other");
    let asked = check(request, &chain).unwrap();
    assert_eq!(asked.authority, "reviews:9080");
    assert_eq!(asked.head().path, "/a?b");
}

#[test]
fn ports_and_dots_of_hosts_go_where_the_chain_says() {
    let host = |host: &str, dot: bool, port: StripPort| {
        let chain = HttpChain {
            strip_port: port,
            strip_trailing_dot: dot,
            ..testing::chain(Vec::new())
        };
        let asked = check(Request::get("/").header("host", host), &chain).unwrap();
        assert_eq!(asked.headers[header::HOST], asked.authority);
        asked.authority.to_str().unwrap().to_owned()
    };
    assert_eq!(host("a.:80", true, StripPort::No), "a:80");
    assert_eq!(host("a.", true, StripPort::Any), "a");
    assert_eq!(host("a.:81", true, StripPort::Any), "a");
    assert_eq!(host("a:80", false, StripPort::Matching), "a");
    assert_eq!(host("a:81", false, StripPort::Matching), "a:81");
    assert_eq!(host("[::1]:81", false, StripPort::Any), "[::1]");
}

#[test]
fn paths_are_normalised_before_anybody_looks() {
    let chain = HttpChain {
        paths: PathNormalisation {
            normalize: true,
            merge_slashes: true,
            ..PathNormalisation::default()
        },
        ..testing::chain(Vec::new())
    };
    let request = Request::get("/a/../b//c?d=/../").header("host", "a");
    assert_eq!(check(request, &chain).unwrap().head().path, "/b/c?d=/../");
}

#[test]
fn what_counts_for_one_hop_is_not_passed_on() {
    let mut asked = asked(
        Request::get("/")
            .header("host", "a")
            .header("connection", "keep-alive, x-hop, x-forwarded-for")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "close")
            .header("x-hop", "1")
            .header("x-forwarded-for", "1.1.1.1")
            .header("te", "gzip, trailers")
            .header("upgrade", "h2c"),
    );
    asked.remove_hop_by_hop();
    let mut left: Vec<_> = asked.headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["host", "te", "x-forwarded-for"]);
    assert_eq!(asked.headers["te"], "trailers");
}

#[test]
fn an_upgrade_is_named_and_keeps_its_headers() {
    let mut websocket = asked(
        Request::get("/")
            .header("host", "a")
            .header("connection", "Upgrade")
            .header("upgrade", "WebSocket"),
    );
    assert_eq!(websocket.upgrade.as_deref(), Some("websocket"));
    websocket.remove_hop_by_hop();
    assert_eq!(websocket.headers["upgrade"], "WebSocket");
    let connect = asked(Request::connect("a:80"));
    assert_eq!(connect.upgrade.as_deref(), Some("connect"));
    assert_eq!(
        (connect.authority.as_bytes(), connect.head().path),
        (&b"a:80"[..], "")
    );
    let no_upgrade = asked(Request::get("/").header("upgrade", "websocket"));
    assert_eq!(no_upgrade.upgrade, None);
}

#[test]
fn cookies_that_http2_has_split_are_one_line_again() {
    let request = |version| {
        let request = Request::get("http://a/").version(version);
        let mut asked = asked(request.header("cookie", "a=1").header("cookie", "b=2"));
        asked.join_cookies();
        let lines = asked.headers.get_all("cookie").iter();
        let lines: Vec<_> = lines
            .map(|line| line.to_str().unwrap().to_owned())
            .collect();
        lines
    };
    assert_eq!(request(Version::HTTP_2), ["a=1; b=2"]);
    assert_eq!(request(Version::HTTP_11), ["a=1", "b=2"]);
}
