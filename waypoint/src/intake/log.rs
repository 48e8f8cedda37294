//! Envoy's access logs → [`model::log`](crate::model::log). A log that goes elsewhere than to a
//! file or a stream is counted and left out; a condition that isn't served is counted and holds
//! always, so that no line is lost.

use std::path::PathBuf;

use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3 as cel;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream;
use envoy_types::pb::google::protobuf as google;

use super::error::{At as _, Refused, each, each_keyed, need};
use super::expression::{self, Problem};
use super::served::Notes;
use super::{format, text, typed};
use crate::model::log::{AccessLog, Compare, JsonFormat, LogFilter, LogFormat, LogTarget};

/// Envoy's format where none is given.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
%PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Access logs, in order.
///
/// # Errors
/// A format or condition of one is bad.
pub fn logs(logs: Vec<accesslog::AccessLog>, notes: &mut Notes) -> Result<Vec<AccessLog>, Refused> {
    let logs = each("access_log", logs, |log| one(log, notes))?;
    Ok(logs.into_iter().flatten().collect())
}

fn one(log: accesslog::AccessLog, notes: &mut Notes) -> Result<Option<AccessLog>, Refused> {
    let accesslog::AccessLog {
        name: _,
        filter,
        config_type,
    } = log;
    let filter = match filter {
        None => None,
        Some(filter) => self::filter(filter, notes).at("filter")?,
    };
    let Some(accesslog::access_log::ConfigType::TypedConfig(config)) = config_type else {
        return Err(Refused::new("must be set").under("typed_config"));
    };
    let (to, format) = match typed::name(&config) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let message = typed::unpack(&config, notes).at("typed_config")?;
            in_file(message, notes).at("typed_config")?
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            use stream::stdout_access_log::AccessLogFormat::LogFormat;

            let stream::StdoutAccessLog { access_log_format } =
                typed::unpack(&config, notes).at("typed_config")?;
            let format = access_log_format.map(|LogFormat(format)| format);
            (
                LogTarget::Stdout,
                of_stream(format, notes).at("typed_config.log_format")?,
            )
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            use stream::stderr_access_log::AccessLogFormat::LogFormat;

            let stream::StderrAccessLog { access_log_format } =
                typed::unpack(&config, notes).at("typed_config")?;
            let format = access_log_format.map(|LogFormat(format)| format);
            (
                LogTarget::Stderr,
                of_stream(format, notes).at("typed_config.log_format")?,
            )
        }
        other => {
            notes.count(other, "access logs go to files and streams");
            return Ok(None);
        }
    };
    Ok(Some(AccessLog { to, format, filter }))
}

fn in_file(log: file::FileAccessLog, notes: &mut Notes) -> Result<(LogTarget, LogFormat), Refused> {
    use file::file_access_log::AccessLogFormat as Kind;

    let file::FileAccessLog {
        path,
        access_log_format,
    } = log;
    let to = match path.as_str() {
        "" => return Err(Refused::new("must not be empty").under("path")),
        "/dev/stdout" => LogTarget::Stdout,
        "/dev/stderr" => LogTarget::Stderr,
        path => LogTarget::File(PathBuf::from(path)),
    };
    #[expect(deprecated, reason = "istiod of earlier versions sends the old forms")]
    let format = match access_log_format {
        None => of_stream(None, notes)?,
        Some(Kind::LogFormat(format)) => of_stream(Some(format), notes).at("log_format")?,
        Some(Kind::Format(text)) => LogFormat::Text(format::parse(&text, notes).at("format")?),
        Some(Kind::JsonFormat(object)) => json(object, notes).at("json_format")?,
        Some(Kind::TypedJsonFormat(object)) => json(object, notes).at("typed_json_format")?,
    };
    Ok((to, format))
}

fn of_stream(
    format: Option<core::SubstitutionFormatString>,
    notes: &mut Notes,
) -> Result<LogFormat, Refused> {
    let source = match format {
        None => return Ok(LogFormat::Text(format::parse(DEFAULT, notes)?)),
        Some(format) => format::source(format, notes)?,
    };
    match source {
        format::Source::Text(text) => Ok(LogFormat::Text(format::parse(&text, notes)?)),
        format::Source::Object(object) => json(object, notes),
    }
}

fn json(object: google::Struct, notes: &mut Notes) -> Result<LogFormat, Refused> {
    self::object(object, notes).map(LogFormat::Json)
}

/// Fields are in the order of their names, as Envoy writes them.
fn object(object: google::Struct, notes: &mut Notes) -> Result<JsonFormat, Refused> {
    let google::Struct { fields } = object;
    let fields = each_keyed("", fields, |name, value| {
        Ok((name.into(), self::value(value, notes)?))
    });
    fields.map(JsonFormat::Object)
}

fn value(value: google::Value, notes: &mut Notes) -> Result<JsonFormat, Refused> {
    use google::value::Kind;

    let literal = |text: String| JsonFormat::Literal(text.into());
    Ok(match need(value.kind, "value")? {
        Kind::StringValue(text) => JsonFormat::Value(format::parse(&text, notes)?),
        Kind::StructValue(object) => self::object(object, notes)?,
        Kind::ListValue(google::ListValue { values }) => {
            JsonFormat::List(each("", values, |value| self::value(value, notes))?)
        }
        Kind::NumberValue(number) => literal(number.to_string()),
        Kind::BoolValue(bool) => literal(bool.to_string()),
        Kind::NullValue(_) => literal("null".to_owned()),
    })
}

/// A condition; none where it isn't served, which holds always.
fn filter(
    filter: accesslog::AccessLogFilter,
    notes: &mut Notes,
) -> Result<Option<LogFilter>, Refused> {
    use accesslog::access_log_filter::FilterSpecifier as Kind;

    Ok(match need(filter.filter_specifier, "filter_specifier")? {
        Kind::StatusCodeFilter(accesslog::StatusCodeFilter { comparison }) => {
            let (compare, with) = compare(comparison).at("status_code_filter.comparison")?;
            Some(LogFilter::Status(compare, with))
        }
        Kind::DurationFilter(accesslog::DurationFilter { comparison }) => {
            let (compare, with) = compare(comparison).at("duration_filter.comparison")?;
            Some(LogFilter::Duration(compare, with))
        }
        Kind::NotHealthCheckFilter(accesslog::NotHealthCheckFilter {}) => {
            Some(LogFilter::NotHealthCheck)
        }
        Kind::TraceableFilter(accesslog::TraceableFilter {}) => Some(LogFilter::Traced),
        Kind::RuntimeFilter(accesslog::RuntimeFilter {
            runtime_key: _,
            percent_sampled,
            use_independent_randomness: _,
        }) => {
            let share = percent_sampled.unwrap_or_default();
            let share = text::fraction(share).at("runtime_filter.percent_sampled")?;
            Some(LogFilter::Sample(share))
        }
        Kind::AndFilter(accesslog::AndFilter { filters }) => {
            let all = several(filters, notes).at("and_filter")?;
            Some(LogFilter::All(all.into_iter().flatten().collect()))
        }
        Kind::OrFilter(accesslog::OrFilter { filters }) => {
            let any: Option<_> = several(filters, notes)
                .at("or_filter")?
                .into_iter()
                .collect();
            any.map(LogFilter::Any)
        }
        Kind::HeaderFilter(accesslog::HeaderFilter { header }) => {
            let header = need(header, "header").at("header_filter")?;
            Some(LogFilter::Header(
                text::header(header).at("header_filter.header")?,
            ))
        }
        Kind::ResponseFlagFilter(accesslog::ResponseFlagFilter { flags }) => Some(
            LogFilter::Flags(flags.into_iter().map(Into::into).collect()),
        ),
        Kind::GrpcStatusFilter(_) => unserved_filter("grpc_status_filter", notes),
        Kind::ExtensionFilter(extension) => {
            self::extension(extension, notes).at("extension_filter")?
        }
        Kind::MetadataFilter(_) => unserved_filter("metadata_filter", notes),
        Kind::LogTypeFilter(_) => unserved_filter("log_type_filter", notes),
    })
}

/// A condition in CEL, as Telemetry's `filter.expression` becomes one.
fn extension(
    extension: accesslog::ExtensionFilter,
    notes: &mut Notes,
) -> Result<Option<LogFilter>, Refused> {
    let accesslog::ExtensionFilter {
        name: _,
        config_type,
    } = extension;
    let accesslog::extension_filter::ConfigType::TypedConfig(config) =
        need(config_type, "typed_config")?;
    if typed::name(&config) != "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter" {
        return Ok(unserved_filter(typed::name(&config), notes));
    }
    let cel::ExpressionFilter {
        expression,
        cel_config,
    } = typed::unpack(&config, notes).at("typed_config")?;
    if cel_config.is_some() {
        notes.count(
            "ExpressionFilter.cel_config",
            "further functions of texts aren't served",
        );
    }
    match expression::parse(&expression) {
        Ok(expression) => Ok(Some(LogFilter::Where(expression))),
        // Lines decide about no request: a wrong condition is no reason to let none pass.
        Err(Problem::Wrong(why) | Problem::Unserved(why)) => {
            let reason = format!("the condition isn't understood ({why}), and holds always");
            notes.count(format!("ExpressionFilter {expression}"), &reason);
            Ok(None)
        }
    }
}

fn unserved_filter(name: &str, notes: &mut Notes) -> Option<LogFilter> {
    notes.count(
        format!("AccessLogFilter.{name}"),
        "the condition holds always, so that no line is lost",
    );
    None
}

/// Envoy wants two at least.
fn several(
    filters: Vec<accesslog::AccessLogFilter>,
    notes: &mut Notes,
) -> Result<Vec<Option<LogFilter>>, Refused> {
    if filters.len() < 2 {
        return Err(Refused::new("needs two at least").under("filters"));
    }
    each("filters", filters, |filter| self::filter(filter, notes))
}

fn compare(comparison: Option<accesslog::ComparisonFilter>) -> Result<(Compare, u64), Refused> {
    use accesslog::comparison_filter::Op;

    let accesslog::ComparisonFilter { op, value } = need(comparison, "value")?;
    let compare = match Op::try_from(op) {
        Ok(Op::Eq) => Compare::Equal,
        Ok(Op::Ge) => Compare::AtLeast,
        Ok(Op::Le) => Compare::AtMost,
        Ok(Op::Ne) => Compare::Not,
        Err(_) => return Err(Refused::new(format!("{op} is no comparison")).under("op")),
    };
    let core::RuntimeUInt32 {
        default_value,
        runtime_key: _,
    } = need(value, "value")?;
    Ok((compare, default_value.into()))
}

#[cfg(test)]
mod tests;
