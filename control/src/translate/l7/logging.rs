//! Where requests and connections are written down: Istio's own line, on standard output.

use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;

use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3 as cel;

use super::api::{accesslog, any, core, format_string};
use super::telemetry::{Logged, logged};
use super::view::{Target, View};

/// (istio/istio, `pilot/pkg/model/telemetry_logging.go`, `EnvoyTextLogFormat`)
const LINE: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

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
    use accesslog::access_log_filter::FilterSpecifier;
    let expression = match logged(view, service) {
        Logged::Nothing => return Vec::new(),
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
    let filter = match filters.len() {
        0 | 1 => filters.pop(),
        _ => Some(accesslog::AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::AndFilter(accesslog::AndFilter { filters })),
        }),
    };
    let log = file::FileAccessLog {
        path: "/dev/stdout".to_owned(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(
            format_string(LINE),
        )),
    };
    vec![accesslog::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter,
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(&log))),
    }]
}
