//! What HTTP filters become, in their order, and that none is passed over that matters.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::r#type::v3 as kind;
use envoy_types::pb::google::protobuf as google;
use hcm::http_filter::ConfigType;
use prost::{Message, Name};

use super::*;

fn filter(name: &str, kind: &str) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.into(),
        config_type: Some(ConfigType::TypedConfig(Any {
            type_url: format!("type.googleapis.com/{kind}"),
            value: Vec::new(),
        })),
        ..Default::default()
    }
}

fn of<T: Message + Name>(name: &str, message: &T) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.into(),
        config_type: Some(ConfigType::TypedConfig(Any {
            type_url: T::type_url(),
            value: message.encode_to_vec(),
        })),
        ..Default::default()
    }
}

fn router() -> hcm::HttpFilter {
    of("router", &router::Router::default())
}

fn compile(filters: Vec<hcm::HttpFilter>) -> Result<(Vec<HttpFilter>, Vec<String>), String> {
    let mut notes = Notes::default();
    let chain = chain(filters, &mut notes).map_err(|refused| refused.to_string())?;
    let counted = notes.iter().map(|(name, ..)| name.to_owned()).collect();
    Ok((chain, counted))
}

#[test]
fn the_router_is_the_last_and_the_only_one() {
    assert!(compile(vec![router()]).unwrap().0.is_empty());
    for (filters, told) in [
        (vec![], "http_filters: the last filter must be"),
        (
            vec![of("c", &cors::Cors::default())],
            "http_filters: the last filter must be",
        ),
        (
            vec![router(), router()],
            "http_filters[1]: the router is the last",
        ),
    ] {
        let refused = compile(filters).unwrap_err();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn a_filter_that_may_keep_somebody_out_is_refused_by_name() {
    for kind in [
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "envoy.extensions.filters.http.lua.v3.Lua",
        "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "nobody.knows.It",
    ] {
        let refused = compile(vec![filter("f", kind), router()]).unwrap_err();
        assert!(
            refused.starts_with("http_filters[\"f\"].typed_config: the filter"),
            "{refused}"
        );
        assert!(refused.contains(kind), "{refused}");
        let optional = hcm::HttpFilter {
            is_optional: true,
            ..filter("f", kind)
        };
        assert_eq!(compile(vec![optional, router()]).unwrap().1, [kind]);
        let off = hcm::HttpFilter {
            disabled: true,
            ..filter("f", kind)
        };
        assert_eq!(
            compile(vec![off, router()]).unwrap().1,
            ["HttpFilter.disabled of f"]
        );
    }
    let discovered = hcm::HttpFilter {
        config_type: Some(ConfigType::ConfigDiscovery(core::ExtensionConfigSource {
            type_urls: vec!["type.googleapis.com/a.B".into()],
            ..Default::default()
        })),
        ..filter("f", "")
    };
    let (chain, _) = compile(vec![discovered, router()]).unwrap();
    assert!(matches!(&chain[..], [HttpFilter::Discovered(it)] if &*it.name == "f"));
}

#[test]
fn policy_that_is_newer_than_ours_is_refused_even_if_it_is_optional() {
    let mut newer = of("rbac", &Rbac::default());
    newer.is_optional = true;
    if let Some(ConfigType::TypedConfig(config)) = &mut newer.config_type {
        // Field 1000 with the number 1.
        config.value.extend_from_slice(&[0xc0, 0x3e, 0x01]);
    }
    let refused = compile(vec![newer, router()]).unwrap_err();
    assert!(
        refused.contains("doesn't know; the control plane is newer"),
        "{refused}"
    );
}

fn share(numerator: u32) -> Option<kind::FractionalPercent> {
    Some(kind::FractionalPercent {
        numerator,
        denominator: 0,
    })
}

fn fault_of(
    delay: Option<common_fault::fault_delay::FaultDelaySecifier>,
    abort: Option<fault::fault_abort::ErrorType>,
) -> fault::HttpFault {
    fault::HttpFault {
        delay: delay.map(|delay| common_fault::FaultDelay {
            percentage: share(10),
            fault_delay_secifier: Some(delay),
        }),
        abort: abort.map(|abort| fault::FaultAbort {
            percentage: share(20),
            error_type: Some(abort),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn faults_are_a_pause_and_an_answer_for_a_share() {
    use common_fault::fault_delay::FaultDelaySecifier::{FixedDelay, HeaderDelay};
    use fault::fault_abort::ErrorType::{GrpcStatus, HeaderAbort, HttpStatus};

    let pause = |seconds| FixedDelay(google::Duration { seconds, nanos: 0 });
    let compile = |fault| super::fault(fault, &mut Notes::default());
    let both = compile(fault_of(Some(pause(2)), Some(HttpStatus(503)))).unwrap();
    assert_eq!(
        both.delay,
        Some((std::time::Duration::from_secs(2), Fraction(100_000)))
    );
    let status = http::StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(
        both.abort,
        Some((AbortWith::Http(status), Fraction(200_000)))
    );
    let grpc = compile(fault_of(None, Some(GrpcStatus(14)))).unwrap();
    assert_eq!(grpc.abort, Some((AbortWith::Grpc(14), Fraction(200_000))));
    let chosen = common_fault::fault_delay::HeaderDelay {};
    let mut others = fault_of(None, None);
    others.downstream_nodes = vec!["n".into()];
    for (fault, told) in [
        (
            fault_of(Some(pause(0)), None),
            "delay.fixed_delay: must be more",
        ),
        (
            fault_of(Some(pause(-1)), None),
            "delay.fixed_delay: a duration",
        ),
        (
            fault_of(Some(HeaderDelay(chosen)), None),
            "delay.header_delay: callers",
        ),
        (
            fault_of(None, Some(HttpStatus(199))),
            "abort.http_status: 199",
        ),
        (
            fault_of(None, Some(HeaderAbort(Default::default()))),
            "abort.header_abort: callers",
        ),
        (others, "downstream_nodes: is not served"),
    ] {
        let refused = compile(fault).unwrap_err().to_string();
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn cors_is_in_force_where_nothing_else_is_said() {
    let compile = |policy| super::cors(policy, &mut Notes::default());
    let plain = compile(cors::CorsPolicy::default()).unwrap();
    assert_eq!(plain.enabled, Fraction::ALWAYS);
    assert!(plain.forward_unmatched && !plain.credentials && !plain.private_network);
    let bad = cors::CorsPolicy {
        allow_methods: "GET\r\nx: y".into(),
        ..Default::default()
    };
    let refused = compile(bad).unwrap_err().to_string();
    assert!(refused.starts_with("allow_methods: "), "{refused}");
}

#[test]
fn sessions_are_kept_in_cookies_and_headers() {
    use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3 as session;
    use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
    use envoy_types::pb::envoy::r#type::http::v3::Cookie;

    use crate::model::route::SessionPlace;

    let session = |state: Option<Any>| {
        let message = session::StatefulSession {
            session_state: state.map(|config| core::TypedExtensionConfig {
                name: "s".into(),
                typed_config: Some(config),
            }),
            ..Default::default()
        };
        crate::intake::session::of(message, &mut Notes::default())
    };
    let any = |url: String, value| Any {
        type_url: url,
        value,
    };
    assert!(session(None).unwrap().is_none());
    let cookie = |name: &str| CookieBasedSessionState {
        cookie: Some(Cookie {
            name: name.into(),
            ttl: Some(google::Duration {
                seconds: 60,
                nanos: 0,
            }),
            path: "/p".into(),
            attributes: Vec::new(),
        }),
    };
    let url = CookieBasedSessionState::type_url;
    let kept = session(Some(any(url(), cookie("c").encode_to_vec())))
        .unwrap()
        .unwrap();
    let SessionPlace::Cookie { name, ttl, path } = kept.place else {
        panic!("{:?}", kept.place);
    };
    assert_eq!((&*name, ttl.as_secs(), &*path), ("c", 60, "/p"));
    for (state, told) in [
        (
            any(url(), cookie("").encode_to_vec()),
            "session_state.typed_config.cookie.name",
        ),
        (
            any(url(), Vec::new()),
            "session_state.typed_config.cookie: must be set",
        ),
        (
            any("a/b.C".into(), Vec::new()),
            "session_state.typed_config: b.C",
        ),
    ] {
        let refused = session(Some(state)).unwrap_err().to_string();
        assert!(refused.starts_with(told), "{refused}");
    }
}
