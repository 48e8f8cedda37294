//! Where requests and connections are written down: Istio's own line, on standard output, or a form of the
//! mesh configuration's.

use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3 as cel;
use envoy_types::pb::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value};
use serde_json::Value as Json;

use super::api::{accesslog, any, core, format_string};
use super::telemetry::{Logged, logged};
use super::view::{Target, View};
use crate::objects::mesh_config::{FileLog, LogFormat};

/// (istio/istio, `pilot/pkg/model/telemetry_logging.go`, `EnvoyTextLogFormat`)
const LINE: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Fields of Istio's own object, and Envoy's operators for them.
/// (istio/istio, `pilot/pkg/model/telemetry_logging.go`, `EnvoyJSONLogFormatIstio`)
const OBJECT: [(&str, &str); 24] = [
    ("start_time", "START_TIME"),
    ("route_name", "ROUTE_NAME"),
    ("method", "REQ(:METHOD)"),
    ("path", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)"),
    ("protocol", "PROTOCOL"),
    ("response_code", "RESPONSE_CODE"),
    ("response_flags", "RESPONSE_FLAGS"),
    ("response_code_details", "RESPONSE_CODE_DETAILS"),
    (
        "connection_termination_details",
        "CONNECTION_TERMINATION_DETAILS",
    ),
    ("bytes_received", "BYTES_RECEIVED"),
    ("bytes_sent", "BYTES_SENT"),
    ("duration", "DURATION"),
    (
        "upstream_service_time",
        "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)",
    ),
    ("x_forwarded_for", "REQ(X-FORWARDED-FOR)"),
    ("user_agent", "REQ(USER-AGENT)"),
    ("request_id", "REQ(X-REQUEST-ID)"),
    ("authority", "REQ(:AUTHORITY)"),
    ("upstream_host", "UPSTREAM_HOST"),
    ("upstream_cluster", "UPSTREAM_CLUSTER_RAW"),
    ("upstream_local_address", "UPSTREAM_LOCAL_ADDRESS"),
    ("downstream_local_address", "DOWNSTREAM_LOCAL_ADDRESS"),
    ("downstream_remote_address", "DOWNSTREAM_REMOTE_ADDRESS"),
    ("requested_server_name", "REQUESTED_SERVER_NAME"),
    (
        "upstream_transport_failure_reason",
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
    ),
];
/// Where lines go where nobody says where.
const STDOUT: &str = "/dev/stdout";

/// What is written down.
pub(super) enum Which {
    /// Everything.
    All,
    /// What ended with one of these flags.
    Flag(&'static str),
    /// Refused tunnels.
    Refused,
}

/// The access logs for a place, if requests are logged at all.
pub(super) fn logs(
    view: &View<'_>,
    service: Option<&Target>,
    which: &Which,
) -> Vec<accesslog::AccessLog> {
    let logged = logged(view, service).into_iter();
    let made = logged.map(|(form, logged)| accesslog::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: filter(which, logged),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(
            &file_log(&form),
        ))),
    });
    made.collect()
}

/// The file, and the form of what is written there: one of the mesh configuration's, or Istio's own.
/// (istio/istio, `pilot/pkg/model/telemetry_logging.go`, `fileAccessLogFromTelemetry`)
fn file_log(said: &FileLog) -> file::FileAccessLog {
    let format = said.log_format.as_ref();
    let mut made = match format {
        Some(LogFormat {
            labels: Some(labels),
            ..
        }) => core::SubstitutionFormatString {
            format: Some(core::substitution_format_string::Format::JsonFormat(
                if labels.is_empty() {
                    object()
                } else {
                    structure(labels)
                },
            )),
            json_format_options: Some(core::JsonFormatOptions::default()),
            ..Default::default()
        },
        Some(LogFormat { text, .. }) if !text.is_empty() => match text.ends_with('\n') {
            true => format_string(text),
            false => format_string(&format!("{text}\n")),
        },
        _ => format_string(LINE),
    };
    made.formatters = formatters(format);
    // Without a form of one's own nothing else is asked for either.
    made.omit_empty_values = said.omit_empty_values && format.is_some();
    let path = match said.path.as_str() {
        "" => STDOUT,
        path => path,
    };
    file::FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(made)),
    }
}

/// Istio's own object for each line.
fn object() -> Struct {
    let fields = OBJECT.into_iter().map(|(name, operator)| {
        let kind = value::Kind::StringValue(format!("%{operator}%"));
        (name.to_owned(), Value { kind: Some(kind) })
    });
    Struct {
        fields: fields.collect(),
    }
}

/// Envoy is told of an operator that is not among its usual ones.
fn formatters(format: Option<&LogFormat>) -> Vec<core::TypedExtensionConfig> {
    const OPERATOR: &str = "%REQ_WITHOUT_QUERY";
    let asks = format.is_some_and(|format| {
        let labels = format.labels.iter().flat_map(|labels| labels.values());
        let mut texts = labels.filter_map(Json::as_str).chain([&*format.text]);
        texts.any(|text| text.contains(OPERATOR))
    });
    let formatter = || core::TypedExtensionConfig {
        name: "envoy.formatter.req_without_query".to_owned(),
        typed_config: Some(any(&ReqWithoutQuery {})),
    };
    asks.then(formatter).into_iter().collect()
}

fn structure(fields: &serde_json::Map<String, Json>) -> Struct {
    let fields = fields.iter();
    Struct {
        fields: fields
            .map(|(name, value)| (name.clone(), structured(value)))
            .collect(),
    }
}

fn structured(value: &Json) -> Value {
    use value::Kind;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(structured).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(structure(fields)),
    };
    Value { kind: Some(kind) }
}

/// Which of what happens is written down.
fn filter(which: &Which, logged: Logged) -> Option<accesslog::AccessLogFilter> {
    use accesslog::access_log_filter::FilterSpecifier;
    let expression = match logged {
        Logged::All => None,
        Logged::Where(expression) => Some(expression),
    };
    let place = match which {
        Which::All => None,
        Which::Flag(flag) => Some(FilterSpecifier::ResponseFlagFilter(
            accesslog::ResponseFlagFilter {
                flags: vec![(*flag).to_owned()],
            },
        )),
        Which::Refused => Some(FilterSpecifier::StatusCodeFilter(
            accesslog::StatusCodeFilter {
                comparison: Some(accesslog::ComparisonFilter {
                    op: accesslog::comparison_filter::Op::Ge.into(),
                    value: Some(core::RuntimeUInt32 {
                        default_value: 400,
                        // A key that nobody sets; Envoy asks for one.
                        runtime_key: "istio.io/unset".to_owned(),
                    }),
                }),
            },
        )),
    };
    let chosen = expression.map(|expression| {
        let config = any(&cel::ExpressionFilter {
            expression,
            ..Default::default()
        });
        FilterSpecifier::ExtensionFilter(accesslog::ExtensionFilter {
            name: "envoy.access_loggers.extension_filters.cel".to_owned(),
            config_type: Some(accesslog::extension_filter::ConfigType::TypedConfig(config)),
        })
    });
    let filters = place
        .into_iter()
        .chain(chosen)
        .map(|filter| accesslog::AccessLogFilter {
            filter_specifier: Some(filter),
        });
    let mut filters: Vec<_> = filters.collect();
    match filters.len() {
        0 | 1 => filters.pop(),
        _ => Some(accesslog::AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::AndFilter(accesslog::AndFilter { filters })),
        }),
    }
}
