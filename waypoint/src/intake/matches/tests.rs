//! What a match keeps of its conditions, and which are refused.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf as google;
use route::route_match::PathSpecifier;

use super::*;
use crate::model::text::Fraction;

fn path(specifier: PathSpecifier, ignore_case: bool) -> Result<PathMatch, String> {
    let message = route::RouteMatch {
        path_specifier: Some(specifier),
        case_sensitive: Some(google::BoolValue {
            value: !ignore_case,
        }),
        ..Default::default()
    };
    let compiled = compile(message, &mut Notes::default());
    compiled
        .map(|matches| matches.path)
        .map_err(|refused| refused.to_string())
}

#[test]
fn paths_are_matched_in_each_of_envoys_ways() {
    let text = |specifier, ignore_case| match path(specifier, ignore_case).unwrap() {
        PathMatch::Text(text) => text,
        other => panic!("{other:?}"),
    };
    assert!(text(PathSpecifier::Prefix("/A".into()), true).matches("/ab"));
    assert!(!text(PathSpecifier::Prefix("/A".into()), false).matches("/ab"));
    assert!(!text(PathSpecifier::Path("/a".into()), false).matches("/ab"));
    let regex = matcher::RegexMatcher {
        regex: "/a.*".into(),
        engine_type: None,
    };
    assert!(text(PathSpecifier::SafeRegex(regex), false).matches("/ab"));
    let connect = path(PathSpecifier::ConnectMatcher(Default::default()), false).unwrap();
    assert!(matches!(connect, PathMatch::Connect));
    let segments = path(PathSpecifier::PathSeparatedPrefix("/a/b".into()), true).unwrap();
    assert!(matches!(segments, PathMatch::Segments(prefix, true) if &*prefix == "/a/b"));
    for prefix in ["", "/", "/a/", "/a?b", "/a#b"] {
        let refused = path(PathSpecifier::PathSeparatedPrefix(prefix.into()), false).unwrap_err();
        assert!(refused.starts_with("path_separated_prefix: "), "{refused}");
    }
}

#[test]
fn a_match_keeps_all_of_its_conditions() {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier as Query;

    let query = |name: &str, specifier| route::QueryParameterMatcher {
        name: name.into(),
        query_parameter_match_specifier: specifier,
    };
    let text = matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::Exact("1".into())),
        ..Default::default()
    };
    let message = route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".into())),
        headers: vec![route::HeaderMatcher {
            name: "x".into(),
            ..Default::default()
        }],
        query_parameters: vec![
            query("a", Some(Query::StringMatch(text))),
            query("b", Some(Query::PresentMatch(false))),
            query("c", None),
        ],
        grpc: Some(Default::default()),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(Default::default()),
            runtime_key: "k".into(),
        }),
        ..Default::default()
    };
    let compiled = compile(message, &mut Notes::default()).unwrap();
    assert_eq!(compiled.headers.len(), 1);
    assert!(compiled.query[0].value.as_ref().unwrap().matches("1"));
    assert_eq!(compiled.query[1].present, Some(false));
    assert!(compiled.query[2].value.is_none() && compiled.query[2].present.is_none());
    assert!(compiled.grpc);
    assert_eq!(compiled.fraction, Some(Fraction::NEVER));
    let unserved = route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".into())),
        tls_context: Some(Default::default()),
        ..Default::default()
    };
    let refused = compile(unserved, &mut Notes::default())
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("tls_context: is not served"),
        "{refused}"
    );
}

#[test]
fn the_caller_is_matched_by_what_is_known_of_it() {
    let state = |key: &str| route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".into())),
        filter_state: vec![matcher::FilterStateMatcher {
            key: key.into(),
            matcher: Some(matcher::filter_state_matcher::Matcher::StringMatch(
                matcher::StringMatcher {
                    match_pattern: Some(matcher::string_matcher::MatchPattern::Exact("web".into())),
                    ..Default::default()
                },
            )),
        }],
        ..Default::default()
    };
    let compiled = |key| compile(state(key), &mut Notes::default());
    let peer = compiled("io.istio.peer_principal").unwrap().caller;
    assert!(matches!(&peer[..], [CallerMatch::Principal(text)] if text.matches("web")));
    let label = compiled("io.culvert.peer_label.app").unwrap().caller;
    assert!(matches!(&label[..], [CallerMatch::Label(name, _)] if &**name == "app"));
    let refused = compiled("mine").unwrap_err().to_string();
    assert!(
        refused.starts_with("filter_state[0].key: \"mine\""),
        "{refused}"
    );
}
