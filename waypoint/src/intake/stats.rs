//! Istio's metrics filter (`istio.stats`) → [`model::http::StatsFilter`](crate::model::http::StatsFilter).
//! Labels are given as expressions in CEL; those that name one value are understood, others are
//! counted and the label is left as it is.

use envoy_types::pb::google::protobuf::{Any, Struct};
use http::HeaderName;

use super::error::{At as _, Refused};
use super::format;
use super::served::Notes;
use super::typed::{self, Body};
use crate::model::format::{Format, Operator};
use crate::model::http::StatsFilter;
use crate::model::text::HeaderKey;
use crate::proto::stats::{MetricConfig, PluginConfig, Reporter};
use crate::unserved;

/// The filter, given as a message or as a struct.
///
/// # Errors
/// It is no protobuf.
pub(super) fn of(config: &Any, notes: &mut Notes) -> Result<StatsFilter, Refused> {
    match typed::open(config)?.body {
        Body::Message(_) => compile(typed::unpack(config, notes)?, notes),
        Body::Struct(Struct { fields }) => {
            if !fields.is_empty() {
                notes.count("stats.PluginConfig as a struct", "the defaults apply");
            }
            compile(PluginConfig::default(), notes)
        }
    }
}

fn compile(config: PluginConfig, notes: &mut Notes) -> Result<StatsFilter, Refused> {
    let PluginConfig {
        disable_host_header_fallback: _,
        tcp_reporting_duration: _,
        metrics,
        definitions,
        reporter,
        rescoping_duration: _,
        scope_grace_period_duration: _,
    } = config;
    unserved!(notes, "stats.PluginConfig": definitions);
    let mut filter = StatsFilter {
        reporter_waypoint: reporter == Reporter::ServerGateway as i32,
        ..StatsFilter::default()
    };
    for (index, metric) in metrics.into_iter().enumerate() {
        self::metric(metric, &mut filter, notes)
            .item(index)
            .at("metrics")?;
    }
    Ok(filter)
}

fn metric(
    metric: MetricConfig,
    filter: &mut StatsFilter,
    notes: &mut Notes,
) -> Result<(), Refused> {
    let MetricConfig {
        dimensions,
        name,
        tags_to_remove,
        r#match: _,
        drop,
    } = metric;
    let name = name.strip_prefix("istio_").unwrap_or(&name);
    if drop {
        filter
            .dropped
            .push(if name.is_empty() { "*" } else { name }.into());
    }
    for tag in tags_to_remove {
        filter.labels.push((name.into(), tag.into(), None));
    }
    let mut dimensions: Vec<_> = dimensions.into_iter().collect();
    dimensions.sort();
    for (label, expression) in dimensions {
        match value(&expression) {
            Some(value) => filter.labels.push((name.into(), label.into(), Some(value))),
            None => notes.count(
                format!("MetricConfig.dimensions {label} = {expression}"),
                "the expression isn't understood, and the label stays as it is",
            ),
        }
    }
    Ok(())
}

/// The value that an expression names, where it is just a name or a text.
fn value(expression: &str) -> Option<Format> {
    let expression = expression.trim();
    let expression = expression
        .strip_prefix("string(")
        .and_then(|inner| inner.strip_suffix(')'))
        .unwrap_or(expression);
    if let Some(text) = quoted(expression) {
        return Some(Format::literal(text));
    }
    let index = |map: &str| {
        let inner = expression.strip_prefix(map)?.strip_prefix('[')?;
        let name = quoted(inner.strip_suffix(']')?)?;
        HeaderName::from_bytes(name.as_bytes()).ok()
    };
    if let Some(name) = index("request.headers") {
        return Some(format::of_header(HeaderKey::Name(name)));
    }
    if let Some(key) = index("response.headers") {
        let otherwise = None;
        return Some(format::of(Operator::Response { key, otherwise }));
    }
    Some(format::of(match expression {
        "request.method" => return Some(format::of_header(HeaderKey::Method)),
        "request.host" => return Some(format::of_header(HeaderKey::Authority)),
        "request.path" => return Some(format::of_header(HeaderKey::Path)),
        "request.scheme" => return Some(format::of_header(HeaderKey::Scheme)),
        "request.url_path" => Operator::Path {
            query: false,
            original: false,
        },
        "request.protocol" => Operator::Protocol,
        "request.duration" => Operator::Duration,
        "request.size" => Operator::BytesReceived,
        "response.size" => Operator::BytesSent,
        "response.code" => Operator::ResponseCode,
        "response.code_details" => Operator::ResponseCodeDetails,
        "response.grpc_status" => Operator::GrpcStatus { number: true },
        "destination.port" => Operator::DownstreamLocalPort,
        "destination.address" => Operator::DownstreamLocalAddress { port: true },
        "source.address" => Operator::DownstreamRemoteAddress { port: true },
        "connection.requested_server_name" => Operator::RequestedServerName,
        "connection.uri_san_peer_certificate" => Operator::DownstreamPeerUriSan,
        "connection.tls_version" => Operator::DownstreamTlsVersion,
        "upstream.address" => Operator::UpstreamHost,
        "xds.route_name" => Operator::RouteName,
        "xds.cluster_name" => Operator::UpstreamClusterRaw,
        _ => return None,
    }))
}

fn quoted(text: &str) -> Option<&str> {
    let quote = text
        .chars()
        .next()
        .filter(|quote| matches!(quote, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains([quote, '\\'])).then_some(inner)
}

#[cfg(test)]
mod tests {
    use prost::{Message as _, Name as _};

    use super::*;
    use crate::proto;

    fn any(config: &PluginConfig) -> Any {
        Any {
            type_url: PluginConfig::type_url(),
            value: config.encode_to_vec(),
        }
    }

    #[test]
    fn metrics_are_dropped_and_labels_changed() {
        let config = PluginConfig {
            reporter: Reporter::ServerGateway as i32,
            metrics: vec![
                MetricConfig {
                    name: "istio_request_bytes".into(),
                    drop: true,
                    ..Default::default()
                },
                MetricConfig {
                    dimensions: [
                        ("host".to_owned(), "request.host".to_owned()),
                        ("user".to_owned(), "request.headers['x-user']".to_owned()),
                        ("odd".to_owned(), "a ? b : c".to_owned()),
                        ("text".to_owned(), "\"here\"".to_owned()),
                    ]
                    .into(),
                    tags_to_remove: vec!["source_app".into()],
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        let mut notes = Notes::default();
        let filter = of(&any(&config), &mut notes).unwrap();
        assert!(filter.reporter_waypoint);
        assert_eq!(filter.dropped, ["request_bytes".into()]);
        let header = |key| Some(format::of_header(key));
        let user = HeaderName::from_static("x-user");
        assert_eq!(
            filter.labels,
            [
                ("".into(), "source_app".into(), None),
                ("".into(), "host".into(), header(HeaderKey::Authority)),
                ("".into(), "text".into(), Some(Format::literal("here"))),
                ("".into(), "user".into(), header(HeaderKey::Name(user))),
            ]
        );
        let seen: Vec<_> = notes.iter().map(|(name, ..)| name.to_owned()).collect();
        assert_eq!(seen, ["MetricConfig.dimensions odd = a ? b : c"]);
    }

    #[test]
    fn as_a_struct_the_defaults_apply() {
        let wrapped = proto::udpa::TypedStruct {
            type_url: PluginConfig::type_url(),
            value: None,
        };
        let any = Any {
            type_url: proto::udpa::TypedStruct::type_url(),
            value: wrapped.encode_to_vec(),
        };
        let mut notes = Notes::default();
        let filter = of(&any, &mut notes).unwrap();
        assert!(!filter.reporter_waypoint && filter.labels.is_empty() && notes.is_empty());
    }
}
