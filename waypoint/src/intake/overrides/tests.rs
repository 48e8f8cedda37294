//! What filters do differently on routes, and that nothing is passed over.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::PerRouteConfig;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::per_route_config::RequirementSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use prost::{Message, Name};

use super::*;
use crate::model::jwt::Requirement;
use crate::model::route::SessionPlace;

fn any<T: Message + Name>(message: &T) -> Any {
    Any {
        type_url: T::type_url(),
        value: message.encode_to_vec(),
    }
}

fn compile(name: &str, config: Any) -> Result<(FilterOverrides, Vec<String>), String> {
    let mut notes = Notes::default();
    let scope = Scope {
        requirements: vec![("known".into(), Requirement::AllowMissing)],
        ..Scope::default()
    };
    let compiled = of([(name.to_owned(), config)].into(), &scope, &mut notes);
    let counted = notes.iter().map(|(name, ..)| name.to_owned()).collect();
    Ok((compiled.map_err(|refused| refused.to_string())?, counted))
}

fn by_name(name: &str) -> PerRouteConfig {
    PerRouteConfig {
        requirement_specifier: Some(RequirementSpecifier::RequirementName(name.into())),
    }
}

#[test]
fn each_filter_has_its_own_word() {
    let only = |config| compile("any", config).unwrap().0;
    assert!(only(any(&HttpFault::default())).fault.is_some());
    assert!(only(any(&CorsPolicy::default())).cors.is_some());
    let rbac = RbacPerRoute {
        rbac: Some(Rbac::default()),
    };
    assert!(matches!(only(any(&rbac)).rbac, Some(Some(_))));
    assert!(matches!(
        only(any(&RbacPerRoute::default())).rbac,
        Some(None)
    ));
    let known = only(any(&by_name("known"))).jwt;
    assert!(
        matches!(known.as_ref(), Some(Some(known)) if matches!(**known, Requirement::AllowMissing))
    );
    let off = PerRouteConfig {
        requirement_specifier: Some(RequirementSpecifier::Disabled(true)),
    };
    assert!(matches!(only(any(&off)).jwt, Some(None)));
    let state = core::TypedExtensionConfig {
        name: "header".into(),
        typed_config: Some(any(&HeaderBasedSessionState { name: "x-s".into() })),
    };
    let session = StatefulSessionPerRoute {
        r#override: Some(Override::StatefulSession(StatefulSession {
            session_state: Some(state),
            strict: true,
            ..Default::default()
        })),
    };
    let session = only(any(&session)).session.unwrap();
    assert!(session.strict);
    assert!(matches!(&session.place, SessionPlace::Header(name) if name == "x-s"));
}

#[test]
fn a_filter_is_switched_off_by_its_name() {
    let off = any(&FilterConfig {
        disabled: true,
        ..Default::default()
    });
    let only = |name: &str| compile(name, off.clone()).unwrap();
    assert!(matches!(only("envoy.filters.http.rbac").0.rbac, Some(None)));
    assert!(matches!(
        only("envoy.filters.http.jwt_authn").0.jwt,
        Some(None)
    ));
    let cors = only("envoy.filters.http.cors").0.cors.unwrap();
    assert_eq!(cors.enabled, Fraction::NEVER);
    let fault = only("envoy.filters.http.fault").0.fault.unwrap();
    assert!(fault.delay.is_none() && fault.abort.is_none());
    let (overrides, counted) = only("odd");
    assert!(overrides.rbac.is_none());
    assert_eq!(counted, ["FilterConfig.disabled of odd"]);
}

#[test]
fn what_is_wrapped_is_opened_and_optional_where_it_says_so() {
    let wrap = |config, is_optional| {
        any(&FilterConfig {
            config: Some(config),
            is_optional,
            disabled: false,
        })
    };
    let unknown = || Any {
        type_url: "type.googleapis.com/a.Unknown".into(),
        value: Vec::new(),
    };
    assert!(
        compile("f", wrap(any(&HttpFault::default()), false))
            .unwrap()
            .0
            .fault
            .is_some()
    );
    let (_, counted) = compile("u", wrap(unknown(), true)).unwrap();
    assert_eq!(counted, ["a.Unknown"]);
    // A filter that is served isn't optional just because it is bad.
    for (config, told) in [
        (
            wrap(unknown(), false),
            "typed_per_filter_config[\"x\"].config: a.Unknown is of",
        ),
        (
            wrap(any(&by_name("odd")), true),
            "typed_per_filter_config[\"x\"].config.requirement_name: the jwt_authn filter has no",
        ),
        (
            any(&FilterConfig::default()),
            "typed_per_filter_config[\"x\"].config: must be set",
        ),
        (
            any(&PerRouteConfig::default()),
            "typed_per_filter_config[\"x\"].requirement_name: must be set",
        ),
    ] {
        let refused = compile("x", config).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn a_host_inherits_what_it_does_not_say_itself() {
    let (outer, _) = compile("f", any(&HttpFault::default())).unwrap();
    let (own, _) = compile("c", any(&CorsPolicy::default())).unwrap();
    let both = inherit(own, &outer);
    assert!(both.fault.is_some() && both.cors.is_some() && both.rbac.is_none());
}
