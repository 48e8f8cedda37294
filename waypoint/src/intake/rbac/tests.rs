//! What policies become, condition by condition, and that none with a hole gets through.

mod filters;

use envoy_types::pb::google::protobuf as google;
use prost::{Message as _, Name as _};
use rbac::permission::Rule;
use rbac::principal::Identifier;

use super::*;
use crate::model::policy::Segment;

fn text(exact: &str) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(exact.into())),
        ..Default::default()
    }
}

fn range(address: &str, length: u32) -> core::CidrRange {
    core::CidrRange {
        address_prefix: address.into(),
        prefix_len: Some(google::UInt32Value { value: length }),
    }
}

fn header(name: &str) -> envoy_types::pb::envoy::config::route::v3::HeaderMatcher {
    envoy_types::pb::envoy::config::route::v3::HeaderMatcher {
        name: name.into(),
        ..Default::default()
    }
}

fn path(exact: &str) -> matcher::PathMatcher {
    matcher::PathMatcher {
        rule: Some(matcher::path_matcher::Rule::Path(text(exact))),
    }
}

fn template(path_template: &str) -> core::TypedExtensionConfig {
    let config = UriTemplateMatchConfig {
        path_template: path_template.into(),
    };
    core::TypedExtensionConfig {
        name: "uri-template".into(),
        typed_config: Some(google::Any {
            type_url: UriTemplateMatchConfig::type_url(),
            value: config.encode_to_vec(),
        }),
    }
}

fn claim() -> matcher::MetadataMatcher {
    use matcher::metadata_matcher::PathSegment;
    use matcher::metadata_matcher::path_segment::Segment::Key;

    matcher::MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: vec![PathSegment {
            segment: Some(Key("payload".into())),
        }],
        value: Some(matcher::ValueMatcher {
            match_pattern: Some(matcher::value_matcher::MatchPattern::PresentMatch(true)),
        }),
        invert: false,
    }
}

fn sourced(source: rbac::MetadataSource) -> rbac::SourcedMetadata {
    rbac::SourcedMetadata {
        metadata_matcher: Some(claim()),
        metadata_source: source as i32,
    }
}

fn state(key: &str) -> matcher::FilterStateMatcher {
    matcher::FilterStateMatcher {
        key: key.into(),
        matcher: Some(matcher::filter_state_matcher::Matcher::StringMatch(text(
            "spiffe://a",
        ))),
    }
}

fn allowed(rule: Rule) -> rbac::Permission {
    rbac::Permission { rule: Some(rule) }
}

fn who(identifier: Identifier) -> rbac::Principal {
    rbac::Principal {
        identifier: Some(identifier),
    }
}

/// What the permission became, as text.
fn told(permission: rbac::Permission) -> String {
    match super::permission(permission, 0) {
        Ok(condition) => format!("{condition:?}"),
        Err(refused) => refused.to_string(),
    }
}

fn told_of(principal: rbac::Principal) -> String {
    match super::principal(principal, 0) {
        Ok(condition) => format!("{condition:?}"),
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn each_permission_becomes_its_own_condition() {
    use rbac::permission::Set;

    let any = || allowed(Rule::Any(true));
    let set = || Set {
        rules: vec![any(), any()],
    };
    let ports = kind::Int32Range { start: 80, end: 91 };
    #[expect(deprecated, reason = "the old form is what is tested")]
    let metadata = Rule::Metadata(claim());
    for (rule, expected) in [
        (Rule::Any(true), "Any"),
        (Rule::AndRules(set()), "All([Any, Any])"),
        (Rule::OrRules(set()), "AnyOf([Any, Any])"),
        (Rule::NotRule(Box::new(any())), "Not(Any)"),
        (
            Rule::Header(header(":method")),
            "Header(HeaderMatch { key: Method",
        ),
        (
            Rule::UrlPath(path("/a")),
            "Path(TextMatch { pattern: Exact(\"/a\")",
        ),
        (Rule::UriTemplate(template("/a/*")), "PathTemplate("),
        (
            Rule::DestinationIp(range("10.1.2.3", 8)),
            "DestinationIp(10.0.0.0/8)",
        ),
        (Rule::DestinationPort(80), "DestinationPort(80)"),
        (
            Rule::DestinationPortRange(ports),
            "DestinationPorts(80, 91)",
        ),
        (Rule::RequestedServerName(text("a")), "ServerName("),
        (metadata, "Metadata("),
        (
            Rule::SourcedMetadata(sourced(rbac::MetadataSource::Dynamic)),
            "Metadata(",
        ),
    ] {
        let found = told(allowed(rule));
        assert!(found.starts_with(expected), "{found}");
    }
    let compiled = super::permission(allowed(Rule::UriTemplate(template("/a/*"))), 0).unwrap();
    let segments = vec![Segment::Literal("a".into()), Segment::One];
    assert!(matches!(compiled, Condition::PathTemplate(found) if found.segments == segments));
}

#[test]
fn each_principal_becomes_its_own_condition() {
    use rbac::principal::{Authenticated, Set};

    let any = || who(Identifier::Any(true));
    let set = || Set {
        ids: vec![any(), any()],
    };
    let anybody = Authenticated {
        principal_name: None,
    };
    let somebody = Authenticated {
        principal_name: Some(text("spiffe://a")),
    };
    #[expect(deprecated, reason = "the old forms are tested too")]
    let old = [
        (
            Identifier::SourceIp(range("10.0.0.1", 32)),
            "SourceIp(10.0.0.1/32)",
        ),
        (Identifier::Metadata(claim()), "Metadata("),
    ];
    for (identifier, expected) in [
        (Identifier::Any(true), "Any"),
        (Identifier::AndIds(set()), "All([Any, Any])"),
        (Identifier::OrIds(set()), "AnyOf([Any, Any])"),
        (Identifier::NotId(Box::new(any())), "Not(Any)"),
        (Identifier::Authenticated(anybody), "Authenticated(None)"),
        (Identifier::Authenticated(somebody), "Authenticated(Some("),
        (
            Identifier::DirectRemoteIp(range("::1", 128)),
            "SourceIp(::1/128)",
        ),
        (
            Identifier::RemoteIp(range("10.0.0.0", 8)),
            "RemoteIp(10.0.0.0/8)",
        ),
        (Identifier::Header(header("x")), "Header("),
        (Identifier::UrlPath(path("/a")), "Path("),
        (Identifier::FilterState(state(PEER)), "Peer("),
        (
            Identifier::SourcedMetadata(sourced(rbac::MetadataSource::Dynamic)),
            "Metadata(",
        ),
    ]
    .into_iter()
    .chain(old)
    {
        let found = told_of(who(identifier));
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_condition_with_a_hole_is_refused_with_its_way() {
    use rbac::permission::Set;

    let odd = || core::TypedExtensionConfig {
        name: "odd".into(),
        typed_config: None,
    };
    let nothing = Set { rules: Vec::new() };
    let deep = (0..40).fold(allowed(Rule::Any(true)), |inner, _| {
        allowed(Rule::NotRule(Box::new(inner)))
    });
    assert!(told(deep).contains("more than 32 deep"));
    for (rule, expected) in [
        (None, "rule: must be set"),
        (Some(Rule::Any(false)), "any: must be true"),
        (
            Some(Rule::AndRules(nothing.clone())),
            "and_rules.rules: must not be empty",
        ),
        (
            Some(Rule::OrRules(nothing)),
            "or_rules.rules: must not be empty",
        ),
        (
            Some(Rule::OrRules(Set {
                rules: vec![allowed(Rule::Any(true)), rbac::Permission { rule: None }],
            })),
            "or_rules.rules[1].rule: must be set",
        ),
        (
            Some(Rule::DestinationPort(65_536)),
            "destination_port: 65536 is no port",
        ),
        (
            Some(Rule::DestinationPortRange(kind::Int32Range {
                start: 9,
                end: 9,
            })),
            "destination_port_range: 9 to 9",
        ),
        (
            Some(Rule::DestinationIp(range("a", 8))),
            "destination_ip.address_prefix: \"a\"",
        ),
        (
            Some(Rule::DestinationIp(range("10.0.0.1", 33))),
            "destination_ip.prefix_len: 33",
        ),
        (
            Some(Rule::UriTemplate(odd())),
            "uri_template.typed_config: must be set",
        ),
        (
            Some(Rule::UriTemplate(template("a"))),
            "uri_template.path_template: \"a\"",
        ),
        (Some(Rule::Matcher(odd())), "matcher: \"odd\""),
        (
            Some(Rule::SourcedMetadata(sourced(rbac::MetadataSource::Route))),
            "sourced_metadata.metadata_source: only",
        ),
    ] {
        let found = told(rbac::Permission { rule });
        assert!(found.starts_with(expected), "{found}");
    }
    for (identifier, expected) in [
        (None, "identifier: must be set"),
        (
            Some(Identifier::FilterState(state("mine"))),
            "filter_state.key: \"mine\"",
        ),
        (Some(Identifier::Custom(odd())), "custom: \"odd\""),
    ] {
        let found = told_of(rbac::Principal { identifier });
        assert!(found.starts_with(expected), "{found}");
    }
}
