//! Operators one by one, and times in every format.

use super::super::testing::{connection, exchange, request};
use super::*;

fn of(values: &dyn Values, operator: Operator) -> Option<String> {
    let mut out = String::from("before ");
    let there = values.write(&operator, &mut out);
    let text = out.strip_prefix("before ").unwrap().to_owned();
    assert!(
        there || text.is_empty(),
        "{operator:?} wrote without a value"
    );
    there.then_some(text)
}

fn path(path: &[&str]) -> Vec<Box<str>> {
    path.iter().map(|key| (*key).into()).collect()
}

#[test]
fn a_requests_values() {
    let mut exchange = exchange();
    exchange.metadata.set(
        "jwt",
        "payload",
        serde_json::json!({"sub": "jason", "n": 1}),
    );
    exchange.original_path = Some(super::super::Text::Owned("/old?x".into()));
    exchange.is_grpc = true;
    exchange.grpc_status = Some(14);
    let grpc = |form| Operator::GrpcStatus { form };
    let alternative = Operator::Request {
        key: HeaderKey::Name("x-none".parse().unwrap()),
        otherwise: Some(HeaderKey::Path),
    };
    let original = Operator::Path {
        query: false,
        which: WhichPath::Original,
    };
    for (operator, expected) in [
        (Operator::Protocol, Some("HTTP/1.1")),
        (Operator::UpstreamProtocol, None),
        (Operator::ResponseCode, Some("200")),
        (Operator::ResponseFlags, Some("-")),
        (Operator::ResponseCodeDetails, Some("via_upstream")),
        (Operator::BytesReceived, Some("5")),
        (Operator::BytesSent, Some("379")),
        (Operator::Duration, Some("12")),
        (Operator::ResponseDuration, Some("10")),
        (Operator::ResponseTxDuration, Some("2")),
        (Operator::RequestDuration, None),
        (Operator::UpstreamHost, Some("10.1.0.9:9080")),
        (
            Operator::UpstreamRemoteAddress { port: false },
            Some("10.1.0.9"),
        ),
        (
            Operator::UpstreamLocalAddress { port: true },
            Some("10.1.0.2:50000"),
        ),
        (Operator::UpstreamTransportFailureReason, None),
        (
            Operator::DownstreamLocalAddress { port: true },
            Some("10.96.0.7:9080"),
        ),
        (
            Operator::DownstreamRemoteAddress { port: false },
            Some("10.1.0.5"),
        ),
        (
            Operator::DownstreamPeerUriSan,
            Some(super::super::testing::PRODUCTPAGE),
        ),
        (Operator::RequestedServerName, None),
        (Operator::RouteName, None),
        (Operator::ConnectionId, Some("7")),
        (grpc(GrpcForm::Number), Some("14")),
        (grpc(GrpcForm::Camel), Some("Unavailable")),
        (Operator::QueryParameter("a".into()), Some("\"b\"")),
        (Operator::QueryParameter("b".into()), None),
        (Operator::Environment("pod".into()), Some("pod")),
        (
            Operator::DynamicMetadata {
                path: path(&["jwt", "payload", "sub"]),
            },
            Some("jason"),
        ),
        (
            Operator::DynamicMetadata {
                path: path(&["jwt", "payload", "n"]),
            },
            Some("1"),
        ),
        (
            Operator::DynamicMetadata {
                path: path(&["jwt", "none"]),
            },
            None,
        ),
        (
            Operator::UpstreamMetadata {
                path: path(&["istio", "workload"]),
            },
            Some("reviews-v3;bookinfo;reviews;v3;c1"),
        ),
        (request(":method"), Some("GET")),
        (request("x-envoy-original-path"), Some("/old?x")),
        (request("x-none"), None),
        (alternative, Some("/reviews/0?a=\"b\"")),
        (original, Some("/old")),
        (Operator::TraceId, None),
    ] {
        assert_eq!(
            of(&exchange, operator.clone()).as_deref(),
            expected,
            "{operator:?}"
        );
    }
}

#[test]
fn a_connections_values() {
    let mut connection = connection();
    connection.details = "rbac_access_denied_matched_policy[none]".into();
    connection.flags = Flags::UNAUTHORIZED;
    connection.received = 9;
    for (operator, expected) in [
        (Operator::ResponseFlags, Some("UAEX")),
        (
            Operator::ConnectionTerminationDetails,
            Some("rbac_access_denied_matched_policy[none]"),
        ),
        (Operator::ResponseCode, Some("0")),
        (Operator::ResponseCodeDetails, None),
        (Operator::BytesReceived, Some("9")),
        (Operator::Duration, Some("1000")),
        (Operator::Protocol, None),
        (request(":path"), None),
    ] {
        assert_eq!(
            of(&connection, operator.clone()).as_deref(),
            expected,
            "{operator:?}"
        );
    }
}

#[test]
fn times() {
    let start = |format: Option<&str>| Operator::StartTime {
        format: format.map(Into::into),
    };
    for (format, expected) in [
        (None, "2026-11-22T07:14:56.123Z"),
        (
            Some("%Y/%m/%dT%H:%M:%S%z %s"),
            "2026/11/22T07:14:56+0000 1795331696",
        ),
        (Some("%s.%3f"), "1795331696.123"),
        (Some("%E6S|%f|%9f"), "56.123000|123000000|123000000"),
        (
            Some("%b %e %T %F %a %j%%%Q%"),
            "Nov 22 07:14:56 2026-11-22 Sun 326%%Q%",
        ),
    ] {
        assert_eq!(of(&exchange(), start(format)).as_deref(), Some(expected));
    }
}
