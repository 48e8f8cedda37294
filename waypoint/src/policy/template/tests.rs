//! Templates against paths, as Envoy 1.40 matches them: every row was sent to it.

use super::*;

fn template(text: &str) -> PathTemplate {
    let segment = |segment: &str| match segment {
        "*" => Segment::One,
        other => match other.strip_prefix("**") {
            Some(end) => Segment::Many(end.into()),
            None => Segment::Literal(other.into()),
        },
    };
    PathTemplate {
        segments: text[1..].split('/').map(segment).collect(),
    }
}

#[test]
fn templates() {
    let paths = [
        "/foo",
        "/foo/",
        "/foo/a",
        "/foo/a/b",
        "/foo/a=b",
        "/foo/a*b",
        "/foo/a%2fb",
        "/bar",
        "//bar",
        "/x/bar",
        "/x/y/bar",
        "/foo/x/bar",
        "/foo//bar",
        "/",
        "/foo/v.mp4",
        "/foo/a/v.mp4",
        "/foo/.mp4",
        "/a=b/c",
        "/foo/a|b",
        "/x.css",
        "/foo/a[b]",
    ];
    for (text, expected) in [
        ("/foo/*", "--y-yyy-------y-y----"),
        ("/foo/**", "-yyyyyy----yy-yyy----"),
        ("/**/bar", "--------yyyyy--------"),
        ("/foo/*/bar", "-----------y---------"),
        ("/*", "y------y-----------y-"),
        ("/**", "yyyyyyyyyyyyyyyyyy-y-"),
        ("/foo/**.mp4", "--------------yyy----"),
        ("/foo/*/**", "---y-------y---y-----"),
        ("/a=b/*", "-----------------y---"),
        ("/**.css", "-------------------y-"),
    ] {
        let template = template(text);
        let found: String = paths
            .iter()
            .map(|path| {
                if template_matches(&template, path) {
                    'y'
                } else {
                    '-'
                }
            })
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}
