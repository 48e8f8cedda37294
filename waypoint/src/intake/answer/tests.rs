//! What redirects and direct answers become, and which are refused.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use route::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};

use super::*;

fn to(change: impl Fn(&mut route::RedirectAction)) -> Result<Redirect, String> {
    let mut message = route::RedirectAction::default();
    change(&mut message);
    redirect(message).map_err(|refused| refused.to_string())
}

#[test]
fn a_redirect_keeps_what_it_does_not_change() {
    let plain = to(|_| {}).unwrap();
    assert_eq!(plain.status, StatusCode::MOVED_PERMANENTLY);
    assert!(plain.scheme.is_none() && plain.host.is_none() && plain.port.is_none());
    assert!(matches!(plain.path, RedirectPath::Keep) && !plain.strip_query);
    for (code, status) in [(1, 302), (2, 303), (3, 307), (4, 308)] {
        assert_eq!(
            to(|message| message.response_code = code).unwrap().status,
            status
        );
    }
}

#[test]
fn a_redirect_changes_scheme_host_port_and_path() {
    let full = to(|message| {
        let https = SchemeRewriteSpecifier::HttpsRedirect(true);
        message.scheme_rewrite_specifier = Some(https);
        message.host_redirect = "a.example".into();
        message.port_redirect = 8443;
        message.path_rewrite_specifier = Some(PathRewriteSpecifier::PathRedirect("/n?q".into()));
        message.strip_query = true;
    })
    .unwrap();
    assert_eq!(
        (full.scheme.as_deref(), full.host.as_deref()),
        (Some("https"), Some("a.example"))
    );
    assert_eq!((full.port, full.strip_query), (Some(8443), true));
    assert!(matches!(full.path, RedirectPath::Full(path) if &*path == "/n?q"));
    let prefix = PathRewriteSpecifier::PrefixRewrite("/p".into());
    let path = to(|message| message.path_rewrite_specifier = Some(prefix.clone()))
        .unwrap()
        .path;
    assert!(matches!(path, RedirectPath::Prefix(path) if &*path == "/p"));
    let regex = PathRewriteSpecifier::RegexRewrite(matcher::RegexMatchAndSubstitute {
        pattern: Some(matcher::RegexMatcher {
            regex: "^/(.*)$".into(),
            engine_type: None,
        }),
        substitution: "/x/\\1".into(),
    });
    let path = to(|message| message.path_rewrite_specifier = Some(regex.clone()))
        .unwrap()
        .path;
    assert!(matches!(path, RedirectPath::Regex(_, by) if &*by == "/x/\\1"));
}

#[test]
fn a_redirect_that_leads_nowhere_is_refused() {
    type Change = fn(&mut route::RedirectAction);
    let cases: [(Change, &str); 6] = [
        (
            |message| message.response_code = 9,
            "response_code: 9 is no",
        ),
        (
            |message| message.port_redirect = 65_536,
            "port_redirect: 65536 is no port",
        ),
        (
            |message| message.host_redirect = "a b".into(),
            "host_redirect: \"a b\" is no host",
        ),
        (
            |message| {
                let scheme = SchemeRewriteSpecifier::SchemeRedirect("a b".into());
                message.scheme_rewrite_specifier = Some(scheme);
            },
            "scheme_redirect: \"a b\" is no scheme",
        ),
        (
            |message| {
                let path = PathRewriteSpecifier::PathRedirect("/\r\nx: y".into());
                message.path_rewrite_specifier = Some(path);
            },
            "path_redirect: \"/\\r\\nx: y\" can't stand",
        ),
        (
            |message| {
                let path = PathRewriteSpecifier::PathRewrite("/%REQ(a)%".into());
                message.path_rewrite_specifier = Some(path);
            },
            "path_rewrite: paths are",
        ),
    ];
    for (change, told) in cases {
        let refused = to(change).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn answers_from_here_have_a_status_and_no_more_than_the_tables_limit() {
    let answer = |status, body: &str| {
        let message = route::DirectResponseAction {
            status,
            body: Some(core::DataSource {
                specifier: Some(core::data_source::Specifier::InlineString(body.into())),
                ..Default::default()
            }),
            body_format: None,
        };
        direct(message, &Scope::default(), &mut Notes::default())
    };
    let RouteAction::Direct { status, body } = answer(503, "no").unwrap() else {
        panic!("it is answered here");
    };
    assert_eq!((status.as_u16(), &body[..]), (503, &b"no"[..]));
    for (status, body, told) in [
        (199, "", "status: 199 isn't"),
        (600, "", "status: 600 isn't"),
        (200, &*"x".repeat(4097), "body: is 4097 bytes long"),
    ] {
        let refused = answer(status, body).unwrap_err().to_string();
        assert!(refused.starts_with(told), "{refused}");
    }
}
