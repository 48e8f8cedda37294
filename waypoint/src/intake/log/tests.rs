//! What access logs become, which conditions they keep, and what is refused.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::v3 as kind;
use prost::{Message, Name};

use super::*;
use crate::model::format::{Operator, Part};
use crate::model::text::Fraction;

fn typed<T: Message + Name>(message: &T) -> accesslog::AccessLog {
    accesslog::AccessLog {
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(
            google::Any {
                type_url: T::type_url(),
                value: message.encode_to_vec(),
            },
        )),
        ..Default::default()
    }
}

fn in_file(
    path: &str,
    format: Option<file::file_access_log::AccessLogFormat>,
) -> accesslog::AccessLog {
    typed(&file::FileAccessLog {
        path: path.into(),
        access_log_format: format,
    })
}

fn compile(log: accesslog::AccessLog) -> Result<(Vec<AccessLog>, Notes), Refused> {
    let mut notes = Notes::default();
    Ok((logs(vec![log], &mut notes)?, notes))
}

fn string(text: &str) -> google::Value {
    google::Value {
        kind: Some(google::value::Kind::StringValue(text.into())),
    }
}

#[test]
fn a_path_is_a_stream_or_a_file_and_the_format_envoys() {
    for (path, to) in [
        ("/dev/stdout", LogTarget::Stdout),
        ("/dev/stderr", LogTarget::Stderr),
        ("/var/log/a", LogTarget::File("/var/log/a".into())),
    ] {
        let (logs, notes) = compile(in_file(path, None)).unwrap();
        assert_eq!(logs[0].to, to);
        assert!(notes.is_empty());
        let LogFormat::Text(format) = &logs[0].format else {
            panic!("the default is text");
        };
        assert_eq!(format.parts.last(), Some(&Part::Literal("\"\n".into())));
    }
    let (logs, _) = compile(typed(&stream::StdoutAccessLog::default())).unwrap();
    assert_eq!(logs[0].to, LogTarget::Stdout);
    let (logs, _) = compile(typed(&stream::StderrAccessLog::default())).unwrap();
    assert_eq!(logs[0].to, LogTarget::Stderr);
}

#[test]
fn json_keeps_its_shape_in_the_order_of_names() {
    let inner = google::Struct {
        fields: [("code".to_owned(), string("%RESPONSE_CODE%"))].into(),
    };
    let list = google::ListValue {
        values: vec![string("x")],
    };
    let object = google::Struct {
        fields: [
            (
                "b".to_owned(),
                google::Value {
                    kind: Some(google::value::Kind::StructValue(inner)),
                },
            ),
            (
                "c".to_owned(),
                google::Value {
                    kind: Some(google::value::Kind::ListValue(list)),
                },
            ),
            (
                "a".to_owned(),
                google::Value {
                    kind: Some(google::value::Kind::NumberValue(1.5)),
                },
            ),
        ]
        .into(),
    };
    let format =
        file::file_access_log::AccessLogFormat::LogFormat(core::SubstitutionFormatString {
            format: Some(core::substitution_format_string::Format::JsonFormat(object)),
            ..Default::default()
        });
    let (logs, _) = compile(in_file("/dev/stdout", Some(format))).unwrap();
    let LogFormat::Json(JsonFormat::Object(fields)) = &logs[0].format else {
        panic!("it is an object");
    };
    let names: Vec<_> = fields.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(matches!(&fields[0].1, JsonFormat::Literal(text) if &**text == "1.5"));
    let JsonFormat::Object(inner) = &fields[1].1 else {
        panic!("objects stay objects");
    };
    let code = Part::Value {
        operator: Operator::ResponseCode,
        limit: None,
    };
    assert!(matches!(&inner[0].1, JsonFormat::Value(value) if value.parts == [code]));
    assert!(matches!(&fields[2].1, JsonFormat::List(list) if list.len() == 1));
}

fn of(kind: accesslog::access_log_filter::FilterSpecifier) -> accesslog::AccessLogFilter {
    accesslog::AccessLogFilter {
        filter_specifier: Some(kind),
    }
}

fn at_least(value: u32) -> Option<accesslog::ComparisonFilter> {
    Some(accesslog::ComparisonFilter {
        op: 1,
        value: Some(core::RuntimeUInt32 {
            default_value: value,
            runtime_key: "istio.io/unset".into(),
        }),
    })
}

#[test]
fn conditions_are_kept_and_unserved_ones_hold_always() {
    use accesslog::access_log_filter::FilterSpecifier as Kind;

    let status = || {
        of(Kind::StatusCodeFilter(accesslog::StatusCodeFilter {
            comparison: at_least(400),
        }))
    };
    let metadata = || of(Kind::MetadataFilter(accesslog::MetadataFilter::default()));
    let header = of(Kind::HeaderFilter(accesslog::HeaderFilter {
        header: Some(route::HeaderMatcher {
            name: "x".into(),
            ..Default::default()
        }),
    }));
    let sample = of(Kind::RuntimeFilter(accesslog::RuntimeFilter {
        percent_sampled: Some(kind::FractionalPercent {
            numerator: 1,
            denominator: 0,
        }),
        ..Default::default()
    }));
    let flags = of(Kind::ResponseFlagFilter(accesslog::ResponseFlagFilter {
        flags: vec!["NR".into()],
    }));
    let cases: [(accesslog::AccessLogFilter, &str, usize); 10] = [
        (status(), "Status(AtLeast, 400)", 0),
        (
            of(Kind::DurationFilter(accesslog::DurationFilter {
                comparison: at_least(5),
            })),
            "Duration(AtLeast, 5)",
            0,
        ),
        (
            of(Kind::NotHealthCheckFilter(
                accesslog::NotHealthCheckFilter {},
            )),
            "NotHealthCheck",
            0,
        ),
        (
            of(Kind::TraceableFilter(accesslog::TraceableFilter {})),
            "Traced",
            0,
        ),
        (
            sample,
            &format!("{:?}", LogFilter::Sample(Fraction(10_000))),
            0,
        ),
        (flags, "Flags([\"NR\"])", 0),
        (header, "Header(", 0),
        (
            of(Kind::AndFilter(accesslog::AndFilter {
                filters: vec![status(), metadata()],
            })),
            "All([Status(AtLeast, 400)])",
            1,
        ),
        (
            of(Kind::OrFilter(accesslog::OrFilter {
                filters: vec![status(), metadata()],
            })),
            "",
            1,
        ),
        (
            of(Kind::GrpcStatusFilter(
                accesslog::GrpcStatusFilter::default(),
            )),
            "",
            1,
        ),
    ];
    let expression = |expression: &str| {
        let filter = cel::ExpressionFilter {
            expression: expression.into(),
            cel_config: None,
        };
        of(Kind::ExtensionFilter(accesslog::ExtensionFilter {
            name: "cel".into(),
            config_type: Some(accesslog::extension_filter::ConfigType::TypedConfig(
                google::Any {
                    type_url: cel::ExpressionFilter::type_url(),
                    value: filter.encode_to_vec(),
                },
            )),
        }))
    };
    let expressions = [
        (expression("response.code >= 400"), "Where(", 0),
        (expression("request.time > timestamp('x')"), "", 1),
        (expression("response.code >="), "", 1),
    ];
    for (filter, told, counted) in cases.into_iter().chain(expressions) {
        let mut log = in_file("/dev/stdout", None);
        log.filter = Some(filter);
        let (logs, notes) = compile(log).unwrap();
        let found = logs[0].filter.as_ref().map(|filter| format!("{filter:?}"));
        assert!(
            found.as_deref().unwrap_or("").starts_with(told),
            "{found:?}"
        );
        assert_eq!(found.is_none(), told.is_empty());
        assert_eq!(notes.iter().count(), counted);
    }
}

#[test]
fn bad_logs_are_refused_by_field_and_others_counted() {
    use accesslog::access_log_filter::FilterSpecifier as Kind;
    use file::file_access_log::AccessLogFormat;

    #[expect(deprecated, reason = "the old form is what is tested")]
    let bad = in_file("/dev/stdout", Some(AccessLogFormat::Format("%x%".into())));
    let mut alone = in_file("/dev/stdout", None);
    alone.filter = Some(of(Kind::AndFilter(accesslog::AndFilter {
        filters: vec![],
    })));
    let mut odd = in_file("/dev/stdout", None);
    let comparison = Some(accesslog::ComparisonFilter { op: 9, value: None });
    odd.filter = Some(of(Kind::StatusCodeFilter(accesslog::StatusCodeFilter {
        comparison,
    })));
    for (log, told) in [
        (in_file("", None), "access_log[0].typed_config.path: must"),
        (bad, "access_log[0].typed_config.format: \"%x%\""),
        (
            accesslog::AccessLog::default(),
            "access_log[0].typed_config: must",
        ),
        (alone, "access_log[0].filter.and_filter.filters: needs two"),
        (
            odd,
            "access_log[0].filter.status_code_filter.comparison.op: 9",
        ),
    ] {
        let refused = compile(log).unwrap_err().to_string();
        assert!(refused.starts_with(told), "{refused}");
    }
    let remote = accesslog::AccessLog {
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(google::Any {
            type_url: "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig".into(),
            value: Vec::new(),
        })),
        ..Default::default()
    };
    let (logs, notes) = compile(remote).unwrap();
    assert!(logs.is_empty() && notes.iter().count() == 1);
}
