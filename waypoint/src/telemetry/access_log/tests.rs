//! Lines in text and JSON, and which requests are written.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::testing::{connection, exchange, format, request};
use super::*;
use crate::connection::Downstream;
use crate::intake::expression::parse;
use crate::model::log::LogTarget;
use crate::model::text::{Fraction, HeaderTest, TextMatch};

fn written(format: LogFormat, filter: Option<LogFilter>, of: &impl Logged) -> String {
    let log = AccessLog {
        to: LogTarget::Stdout,
        format,
        filter,
    };
    let mut out = String::new();
    line(&log, of, &mut StdRng::seed_from_u64(1), &mut out);
    out
}

/// The beginning of Envoy's default format.
fn text() -> LogFormat {
    LogFormat::Text(format(&[
        Ok("["),
        Err(Operator::StartTime { format: None }),
        Ok("] \""),
        Err(request(":method")),
        Ok(" "),
        Err(request(":path")),
        Ok(" "),
        Err(Operator::Protocol),
        Ok("\" "),
        Err(Operator::ResponseCode),
        Ok(" "),
        Err(Operator::ResponseFlags),
        Ok(" "),
        Err(Operator::UpstreamTransportFailureReason),
        Ok(" "),
        Err(Operator::Duration),
        Ok("\n"),
    ]))
}

#[test]
fn text_has_a_dash_for_what_is_missing() {
    let expected = "[2026-11-22T07:14:56.123Z] \"GET /reviews/0?a=\"b\" HTTP/1.1\" 200 - - 12\n";
    assert_eq!(written(text(), None, &exchange()), expected);
    let expected = "[2026-11-22T07:14:56.123Z] \"- - -\" 0 - - 1000\n";
    assert_eq!(written(text(), None, &connection()), expected);
}

#[test]
fn json_keeps_numbers_and_escapes_text() {
    let one = |operator| JsonFormat::Value(format(&[Err(operator)]));
    let mut exchange = exchange();
    exchange
        .metadata
        .set("jwt", "payload", serde_json::json!({"sub": ["a\n"]}));
    let metadata = Operator::DynamicMetadata {
        path: vec!["jwt".into(), "payload".into()],
    };
    let json = JsonFormat::Object(vec![
        ("path".into(), one(request(":path"))),
        ("code".into(), one(Operator::ResponseCode)),
        ("none".into(), one(request("x-none"))),
        ("claims".into(), one(metadata)),
        (
            "mixed \"".into(),
            JsonFormat::Value(format(&[
                Ok("a\t"),
                Err(Operator::ResponseCode),
                Ok("/"),
                Err(request("x-none")),
            ])),
        ),
        (
            "list".into(),
            JsonFormat::List(vec![
                one(Operator::BytesSent),
                JsonFormat::Value(format(&[Ok("\u{1}")])),
            ]),
        ),
        ("empty".into(), JsonFormat::Object(vec![])),
    ]);
    let line = written(LogFormat::Json(json), None, &exchange);
    let expected = serde_json::json!({
        "path": "/reviews/0?a=\"b\"",
        "code": 200,
        "none": null,
        "claims": {"sub": ["a\n"]},
        "mixed \"": "a\t200/-",
        "list": [379, "\u{1}"],
        "empty": {},
    });
    assert!(
        line.ends_with('\n') && line.starts_with("{\"path\":"),
        "{line}"
    );
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&line).unwrap(),
        expected
    );
}

#[test]
fn filters() {
    use Compare::{AtLeast, AtMost, Equal, Not};
    let mut failed = exchange();
    failed.status = Some(http::StatusCode::SERVICE_UNAVAILABLE);
    failed.flags = Flags::NO_HEALTHY_UPSTREAM | Flags::RETRY_LIMIT;
    let ok = exchange();
    let header = |key| {
        LogFilter::Header(HeaderMatch {
            key,
            test: HeaderTest::Text(TextMatch::exact("GET")),
            invert: false,
            missing_as_empty: false,
        })
    };
    let flags =
        |names: &[&str]| LogFilter::Flags(names.iter().map(|name| (*name).into()).collect());
    // Written where the request went well, and where it failed.
    for (filter, expected) in [
        (LogFilter::Status(AtLeast, 400), (false, true)),
        (LogFilter::Status(Equal, 200), (true, false)),
        (LogFilter::Status(AtMost, 503), (true, true)),
        (LogFilter::Status(Not, 200), (false, true)),
        (LogFilter::Duration(AtLeast, 12), (true, true)),
        (LogFilter::Duration(AtLeast, 13), (false, false)),
        (flags(&[]), (false, true)),
        (flags(&["UH", "NR"]), (false, true)),
        (flags(&["NR"]), (false, false)),
        (header(HeaderKey::Method), (true, true)),
        (
            header(HeaderKey::Name("x-none".parse().unwrap())),
            (false, false),
        ),
        (LogFilter::Sample(Fraction::NEVER), (false, false)),
        (LogFilter::Sample(Fraction::ALWAYS), (true, true)),
        (LogFilter::NotHealthCheck, (true, true)),
        (LogFilter::Traced, (false, false)),
        (
            LogFilter::All(vec![flags(&[]), LogFilter::Status(Equal, 503)]),
            (false, true),
        ),
        (
            LogFilter::All(vec![flags(&[]), LogFilter::Status(Equal, 200)]),
            (false, false),
        ),
        (
            LogFilter::Any(vec![flags(&[]), LogFilter::Status(Equal, 200)]),
            (true, true),
        ),
    ] {
        let shown = format!("{filter:?}");
        let is_written = |of| !written(text(), Some(filter.clone()), of).is_empty();
        assert_eq!((is_written(&ok), is_written(&failed)), expected, "{shown}");
    }
}

#[test]
fn expressions_are_conditions() {
    let mut failed = exchange();
    failed.status = Some(http::StatusCode::SERVICE_UNAVAILABLE);
    let mut unknown = exchange();
    unknown.downstream = Arc::new(Downstream::between(unknown.client, unknown.client));
    unknown.status = None;
    let (ok, connection) = (exchange(), connection());
    // Written where it went well, where it failed, where nobody answered a caller without a
    // certificate, and of a connection with one.
    for (expression, expected) in [
        ("response.code >= 400", [false, true, false, false]),
        ("response.code < 400", [true, false, false, false]),
        (
            "response.code >= 400 || connection.mtls == false",
            [false, true, true, false],
        ),
        ("connection.mtls", [true, true, false, true]),
        (
            "request.url_path.contains('reviews')",
            [true, true, true, false],
        ),
        (
            "request.duration >= duration('12ms')",
            [true, true, true, true],
        ),
        ("response.flags != 0", [false, false, false, false]),
        ("destination.port == 9080", [true, true, false, true]),
    ] {
        let filter = Some(LogFilter::Where(parse(expression).unwrap()));
        let found = [
            !written(text(), filter.clone(), &ok).is_empty(),
            !written(text(), filter.clone(), &failed).is_empty(),
            !written(text(), filter.clone(), &unknown).is_empty(),
            !written(text(), filter, &connection).is_empty(),
        ];
        assert_eq!(found, expected, "{expression}");
    }
}
