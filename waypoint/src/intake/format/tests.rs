//! What formats become, and which are refused.

use http::HeaderName;

use super::operators::VALUELESS;
use super::*;
use crate::model::format::{GrpcForm, WhichPath};

fn parts(source: &str) -> Vec<Part> {
    parse(source, &mut Notes::default()).unwrap().parts
}

fn one(source: &str) -> Operator {
    match parts(source).as_slice() {
        [
            Part::Value {
                operator,
                limit: None,
            },
        ] => operator.clone(),
        other => panic!("{source} became {other:?}"),
    }
}

#[test]
fn text_and_operators_stand_in_their_order() {
    let literal = |text: &str| Part::Literal(text.into());
    assert_eq!(parts(""), []);
    assert_eq!(parts("100%%, no more"), [literal("100%, no more")]);
    let value = |operator, limit| Part::Value { operator, limit };
    assert_eq!(
        parts("a %PROTOCOL%\"%REQ(:PATH):7%%%\n"),
        [
            literal("a "),
            value(Operator::Protocol, None),
            literal("\""),
            value(
                Operator::Request {
                    key: HeaderKey::Path,
                    otherwise: None
                },
                Some(7)
            ),
            literal("%\n"),
        ]
    );
}

#[test]
fn arguments_say_which_value() {
    let name = |name| HeaderName::from_static(name);
    assert_eq!(
        one("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
        Operator::Request {
            key: HeaderKey::Name(name("x-envoy-original-path")),
            otherwise: Some(HeaderKey::Path),
        }
    );
    assert_eq!(
        one("%RESP(A?B)%"),
        Operator::Response {
            key: name("a"),
            otherwise: Some(name("b"))
        }
    );
    assert_eq!(one("%RESP(:STATUS)%"), Operator::ResponseCode);
    assert_eq!(
        one("%START_TIME(%Y/%m/%dT%H:%M:%S%z (%s))%"),
        Operator::StartTime {
            format: Some("%Y/%m/%dT%H:%M:%S%z (%s)".into())
        }
    );
    assert_eq!(
        one("%FILTER_STATE(upstream_peer_obj:FIELD:app)%"),
        Operator::FilterState {
            key: "upstream_peer_obj".into(),
            field: Some("app".into())
        }
    );
    assert_eq!(
        one("%DYNAMIC_METADATA(istio:double_hbone:to)%"),
        Operator::DynamicMetadata {
            path: vec!["istio".into(), "double_hbone".into(), "to".into()]
        }
    );
    assert_eq!(
        one("%PATH(NQ:PATH)%"),
        Operator::Path {
            query: false,
            which: WhichPath::Now
        }
    );
    assert_eq!(
        one("%GRPC_STATUS(SNAKE_STRING)%"),
        Operator::GrpcStatus {
            form: GrpcForm::Snake
        }
    );
}

#[test]
fn what_envoy_refuses_is_refused_by_name() {
    for (source, told) in [
        ("50%", "has no operator at byte 2"),
        ("%protocol%", "has no operator at byte 0"),
        ("%REQ(:PATH)", "has no operator"),
        ("%REQ(a)x%", "has no operator"),
        ("%PROTOCOL:x%", "has no operator"),
        ("%NOT_ENVOYS%", "%NOT_ENVOYS%: Envoy has no such operator"),
        ("%REQ()%", "%REQ%: \"\" is no header's name"),
        ("%RESP(:odd)%", "%RESP%: \":odd\" is no"),
        ("%FILTER_STATE()%", "%FILTER_STATE%: needs a key"),
        ("%FILTER_STATE(a:FIELD)%", "%FILTER_STATE%: is KEY"),
        ("%DYNAMIC_METADATA()%", "%DYNAMIC_METADATA%: needs"),
        ("%PATH(X)%", "%PATH%: \"X\""),
        ("%GRPC_STATUS(X)%", "%GRPC_STATUS%: \"X\""),
        ("%METADATA(X:y)%", "%METADATA%: \"X\""),
    ] {
        let refused = parse(source, &mut Notes::default())
            .unwrap_err()
            .to_string();
        assert!(refused.contains(told), "{source}: {refused}");
    }
}

#[test]
fn what_only_envoy_has_is_counted_by_name() {
    for name in VALUELESS {
        let mut notes = Notes::default();
        parse(&format!("%{name}(x)%"), &mut notes).unwrap();
        let seen: Vec<_> = notes.iter().map(|(name, ..)| name.to_owned()).collect();
        assert_eq!(seen, [format!("%{name}%")]);
    }
}
