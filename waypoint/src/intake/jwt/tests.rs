//! What providers, requirements and rules become, and which are refused.

use envoy_types::pb::envoy::config::route::v3 as envoy_route;
use jwt::jwt_provider::JwksSourceSpecifier;
use jwt::jwt_requirement::RequiresType;

use super::*;

fn local() -> JwksSourceSpecifier {
    JwksSourceSpecifier::LocalJwks(core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(
            "{\"keys\":[]}".into(),
        )),
        ..Default::default()
    })
}

fn provider() -> jwt::JwtProvider {
    jwt::JwtProvider {
        issuer: "me".into(),
        jwks_source_specifier: Some(local()),
        ..Default::default()
    }
}

fn compile(provider: jwt::JwtProvider) -> Result<Provider, String> {
    let compiled = super::provider("p", provider, &mut Notes::default());
    compiled.map_err(|refused| refused.to_string())
}

fn requires(kind: RequiresType) -> jwt::JwtRequirement {
    jwt::JwtRequirement {
        requires_type: Some(kind),
    }
}

fn named(name: &str) -> jwt::JwtRequirement {
    requires(RequiresType::ProviderName(name.into()))
}

#[test]
fn a_provider_keeps_what_it_accepts_and_passes_on() {
    let full = jwt::JwtProvider {
        audiences: vec!["a".into()],
        require_expiration: true,
        max_lifetime: Some(google::Duration {
            seconds: 60,
            nanos: 0,
        }),
        forward: true,
        from_headers: vec![jwt::JwtHeader {
            name: "X-Token".into(),
            value_prefix: "Bearer ".into(),
        }],
        from_params: vec!["token".into()],
        from_cookies: vec!["session".into()],
        forward_payload_header: "x-payload".into(),
        pad_forward_payload_header: true,
        payload_in_metadata: "payload".into(),
        header_in_metadata: "header".into(),
        clock_skew_seconds: 5,
        claim_to_headers: vec![
            jwt::JwtClaimToHeader {
                header_name: "x-sub".into(),
                claim_name: "sub".into(),
                ..Default::default()
            },
            jwt::JwtClaimToHeader {
                header_name: "x-deep".into(),
                claim_path: ["a", "b"]
                    .map(|key| jwt::jwt_claim_to_header::PathSegment { key: key.into() })
                    .into(),
                ..Default::default()
            },
        ],
        ..provider()
    };
    let compiled = compile(full).unwrap();
    assert_eq!(compiled.audiences, ["a".into()]);
    assert!(compiled.require_expiration && compiled.forward && compiled.pad_payload_header);
    assert_eq!(compiled.max_lifetime, Some(Duration::from_secs(60)));
    assert_eq!(compiled.clock_skew, Duration::from_secs(5));
    let header = http::HeaderName::from_static;
    assert_eq!(
        compiled.from,
        [
            TokenPlace::Header(header("x-token"), "Bearer ".into()),
            TokenPlace::Query("token".into()),
            TokenPlace::Cookie("session".into()),
        ]
    );
    assert_eq!(compiled.payload_header, Some(header("x-payload")));
    assert_eq!(compiled.header_key.as_deref(), Some("header"));
    assert_eq!(
        compiled.claim_headers,
        [
            (header("x-sub"), "sub".into()),
            (header("x-deep"), "a.b".into())
        ]
    );
}

fn remote(change: impl Fn(&mut jwt::RemoteJwks)) -> jwt::JwtProvider {
    let mut remote = jwt::RemoteJwks {
        http_uri: Some(core::HttpUri {
            uri: "https://issuer.example/keys".into(),
            timeout: Some(google::Duration {
                seconds: 5,
                nanos: 0,
            }),
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster("c".into())),
        }),
        ..Default::default()
    };
    change(&mut remote);
    jwt::JwtProvider {
        jwks_source_specifier: Some(JwksSourceSpecifier::RemoteJwks(remote)),
        ..provider()
    }
}

#[test]
fn keys_are_fetched_from_a_cluster() {
    let compiled = compile(remote(|_| {})).unwrap();
    let KeySource::Remote {
        uri,
        cluster,
        timeout,
        cache,
    } = compiled.keys
    else {
        panic!("{:?}", compiled.keys);
    };
    assert_eq!((&*uri, &*cluster), ("https://issuer.example/keys", "c"));
    assert_eq!((timeout, cache), (Duration::from_secs(5), CACHE));
}

#[test]
fn half_a_provider_is_refused() {
    let uri = |remote: &mut jwt::RemoteJwks| remote.http_uri.get_or_insert_default().clone();
    let cases = [
        (
            jwt::JwtProvider {
                jwks_source_specifier: None,
                ..provider()
            },
            "local_jwks: must be set",
        ),
        (
            remote(|remote| remote.http_uri = None),
            "remote_jwks.http_uri: must be set",
        ),
        (
            remote(|remote| {
                let mut other = uri(remote);
                other.timeout = None;
                remote.http_uri = Some(other);
            }),
            "remote_jwks.http_uri.timeout: must be set",
        ),
        (
            remote(|remote| {
                let mut other = uri(remote);
                other.uri = "a b".into();
                remote.http_uri = Some(other);
            }),
            "remote_jwks.http_uri.uri: \"a b\" is no URI",
        ),
        (
            jwt::JwtProvider {
                forward_payload_header: "a b".into(),
                ..provider()
            },
            "forward_payload_header: \"a b\"",
        ),
        (
            jwt::JwtProvider {
                from_params: vec![String::new()],
                ..provider()
            },
            "from_params[0]: must not",
        ),
        (
            jwt::JwtProvider {
                claim_to_headers: vec![jwt::JwtClaimToHeader {
                    header_name: "a".into(),
                    ..Default::default()
                }],
                ..provider()
            },
            "claim_to_headers[0].claim_name: must not",
        ),
    ];
    for (provider, told) in cases {
        let refused = compile(provider).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

fn filter(rules: Vec<jwt::RequirementRule>) -> Result<JwtAuthn, String> {
    let message = jwt::JwtAuthentication {
        providers: [("b".to_owned(), provider()), ("a".to_owned(), provider())].into(),
        rules,
        requirement_map: [("later".to_owned(), named("a"))].into(),
        ..Default::default()
    };
    super::filter(message, &mut Notes::default()).map_err(|refused| refused.to_string())
}

fn rule(kind: jwt::requirement_rule::RequirementType) -> jwt::RequirementRule {
    jwt::RequirementRule {
        r#match: Some(envoy_route::RouteMatch {
            path_specifier: Some(envoy_route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        requirement_type: Some(kind),
    }
}

#[test]
fn requirements_name_providers_by_their_place() {
    use jwt::requirement_rule::RequirementType;

    let both = jwt::JwtRequirementAndList {
        requirements: vec![named("a"), named("b")],
    };
    let either = jwt::JwtRequirementOrList {
        requirements: vec![
            requires(RequiresType::ProviderAndAudiences(
                jwt::ProviderWithAudiences {
                    provider_name: "b".into(),
                    audiences: vec!["x".into()],
                },
            )),
            requires(RequiresType::AllowMissingOrFailed(google::Empty {})),
        ],
    };
    let compiled = filter(vec![
        rule(RequirementType::Requires(requires(
            RequiresType::RequiresAll(both),
        ))),
        rule(RequirementType::Requires(requires(
            RequiresType::RequiresAny(either),
        ))),
        rule(RequirementType::RequirementName("later".into())),
        jwt::RequirementRule {
            requirement_type: None,
            ..rule(RequirementType::RequirementName(String::new()))
        },
    ])
    .unwrap();
    let told: Vec<_> = compiled
        .rules
        .iter()
        .map(|rule| format!("{:?}", rule.requires))
        .collect();
    assert_eq!(
        told,
        [
            "All([Provider(0, []), Provider(1, [])])",
            "Any([Provider(1, [\"x\"]), AllowMissingOrFailed])",
            "Provider(0, [])",
            "Nothing",
        ]
    );
    assert_eq!(&*compiled.named[0].0, "later");
}

#[test]
fn requirements_that_nobody_could_meet_or_check_are_refused() {
    use jwt::requirement_rule::RequirementType;

    let one = jwt::JwtRequirementOrList {
        requirements: vec![named("a")],
    };
    let unchecked = RequiresType::ExtractOnlyWithoutValidation(Default::default());
    for (rule, told) in [
        (
            rule(RequirementType::Requires(named("c"))),
            "rules[0].requires.provider_name: there is no provider \"c\"",
        ),
        (
            rule(RequirementType::RequirementName("c".into())),
            "rules[0].requirement_name: there is no requirement \"c\"",
        ),
        (
            rule(RequirementType::Requires(requires(
                RequiresType::RequiresAny(one),
            ))),
            "rules[0].requires.requires_any.requirements: needs two",
        ),
        (
            rule(RequirementType::Requires(requires(unchecked))),
            "rules[0].requires.extract_only_without_validation: claims",
        ),
        (
            jwt::RequirementRule::default(),
            "rules[0].match: must be set",
        ),
    ] {
        let refused = filter(vec![rule]).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}
