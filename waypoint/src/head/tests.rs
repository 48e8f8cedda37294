//! Header tests as Envoy 1.40 answers them (every row was sent to it), queries and cookies.

use super::*;
use crate::model::text::{Pattern, TextMatch};

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, value.trim().parse().unwrap());
    }
    headers
}

fn test(test: HeaderTest) -> HeaderMatch {
    HeaderMatch {
        key: HeaderKey::Name("x-a".parse().unwrap()),
        test,
        invert: false,
        missing_as_empty: false,
    }
}

fn exact(text: &str) -> HeaderMatch {
    test(HeaderTest::Text(TextMatch::exact(text)))
}

fn inverted(mut test: HeaderMatch) -> HeaderMatch {
    test.invert = true;
    test
}

fn lenient(mut test: HeaderMatch) -> HeaderMatch {
    test.missing_as_empty = true;
    test
}

/// The answers for: none, empty, 1, 2, 1 and 2, 2 and 1, "1,2", "+5", "-5", "5.0", 9, 10, 09.
fn answers(test: &HeaderMatch) -> String {
    let rows: [&[&str]; 13] = [
        &[],
        &["x-a:"],
        &["x-a: 1"],
        &["x-a: 2"],
        &["x-a: 1", "x-a: 2"],
        &["x-a: 2", "x-a: 1"],
        &["x-a: 1,2"],
        &["x-a: +5"],
        &["x-a: -5"],
        &["x-a: 5.0"],
        &["x-a: 9"],
        &["x-a: 10"],
        &["x-a: 09"],
    ];
    rows.iter()
        .map(|lines| match header_matches(test, &headers(lines)) {
            true => 'y',
            false => '-',
        })
        .collect()
}

#[test]
fn header_tests_answer_as_envoys() {
    let range = |from, to| test(HeaderTest::Range(from, to));
    let present = |yes| test(HeaderTest::Present(yes));
    for (test, expected) in [
        (exact("1,2"), "------y------"),
        (exact("1"), "--y-yy-------"),
        (range(-5, 10), "--yyyy-yy-y-y"),
        (present(true), "-yyyyyyyyyyyy"),
        (present(false), "y------------"),
        (inverted(present(true)), "y------------"),
        (lenient(present(true)), "yyyyyyyyyyyyy"),
        (inverted(exact("1")), "-y-y--yyyyyyy"),
        (lenient(inverted(exact("1"))), "yy-y--yyyyyyy"),
        (lenient(exact("")), "yy-----------"),
        (inverted(range(0, 10)), "-y----y-yy-y-"),
    ] {
        assert_eq!(answers(&test), expected, "{test:?}");
    }
}

#[test]
fn the_request_line_is_tested_by_its_names_of_http2() {
    let (method, map) = (Method::GET, headers(&["host: ignored", "x-b: caf\u{e9}"]));
    let head = Head {
        method: &method,
        scheme: "https",
        authority: "reviews:9080",
        path: "/a/b?c=d",
        headers: &map,
    };
    let matches = |key, text: &str| head.matches(&HeaderMatch { key, ..exact(text) });
    assert!(matches(HeaderKey::Method, "GET"));
    assert!(matches(HeaderKey::Path, "/a/b?c=d"));
    assert!(matches(HeaderKey::Scheme, "https"));
    assert!(matches(HeaderKey::Authority, "reviews:9080"));
    assert!(matches(HeaderKey::Name(header::HOST), "reviews:9080"));
    assert_eq!(head.path_only(), "/a/b");
    assert_eq!(head.query(), "?c=d");
    let part = TextMatch::new(Pattern::Contains("caf".into()), false);
    let latin = HeaderMatch {
        key: HeaderKey::Name("x-b".parse().unwrap()),
        ..test(HeaderTest::Text(part))
    };
    assert!(head.matches(&latin), "a value need not be UTF-8");
}

#[test]
fn several_values_are_joined_where_a_text_is_wanted() {
    let map = headers(&["x-a: 1", "x-b: 2", "x-a: 3"]);
    let joined = |name: &'static str| joined(&map, &HeaderName::from_static(name));
    assert_eq!(joined("x-a").as_deref(), Some("1,3"));
    assert!(matches!(joined("x-b"), Some(Cow::Borrowed("2"))));
    assert_eq!(joined("x-c"), None);
}

#[test]
fn queries_are_not_decoded_unless_asked() {
    let path = "/p?a=1&b&&c=x=y&a=2&%61=%20%zz#a=3";
    let all: Vec<_> = parameters(path).collect();
    let expected = [
        ("a", "1"),
        ("b", ""),
        ("c", "x=y"),
        ("a", "2"),
        ("%61", "%20%zz"),
    ];
    assert_eq!(all, expected);
    assert_eq!(decode("%20%zz"), " %zz");
    let without = |unwanted: &[&str]| without_parameters(path, unwanted);
    assert_eq!(without(&["a"]).as_deref(), Some("/p?b&c=x=y"));
    assert_eq!(without(&["zzz"]), None);
    assert_eq!(without_parameters("/p?a=1", &["a"]).as_deref(), Some("/p"));
}

#[test]
fn cookies_are_found_across_headers() {
    let map = headers(&["cookie: a=1; b=\"two\" ; bad", "cookie: c==;a=9"]);
    let method = Method::GET;
    let head = Head {
        method: &method,
        scheme: "http",
        authority: "a",
        path: "/",
        headers: &map,
    };
    assert_eq!(head.cookie("a"), Some("1"));
    assert_eq!(head.cookie("c"), Some("="));
    assert_eq!(head.cookie("bad"), None);
}

#[test]
fn grpc_is_told_by_its_content_type() {
    for (value, is) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc+", true),
        ("application/grpc-web", false),
        ("application/grpc;x", false),
        ("Application/grpc", false),
    ] {
        let map = headers(&[&format!("content-type: {value}")]);
        assert_eq!(is_grpc(&map), is, "{value}");
    }
}

#[test]
fn metadata_is_found_by_its_path() {
    let mut metadata = Metadata::default();
    assert!(metadata.is_empty());
    metadata.set("f", "payload", serde_json::json!({"a": {"b": [1]}}));
    metadata.set("f", "payload2", 1.into());
    assert_eq!(
        metadata.get("f", &["payload", "a", "b"]),
        Some(&serde_json::json!([1]))
    );
    assert_eq!(metadata.get("f", &["payload", "x"]), None);
    assert_eq!(metadata.get::<&str>("f", &[]), None);
    assert_eq!(metadata.get("g", &["payload"]), None);
}
