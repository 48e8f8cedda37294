//! Istio's metrics filter (`istio.stats`) → [`model::http::StatsFilter`](crate::model::http::StatsFilter).
//! Labels are given as expressions in CEL; one that isn't understood is counted, and the label is left
//! as it is.

use std::sync::Arc;

use super::error::{At as _, Refused};
use super::expression::{self, Problem};
use super::format;
use super::served::Notes;
use super::typed::{self, Body};
use crate::model::expression::{Attribute, Literal, Make, Node};
use crate::model::format::{Format, Operator};
use crate::model::http::StatsFilter;
use crate::proto::stats::{MetricConfig, PluginConfig, Reporter};
use crate::unserved;
use envoy_types::pb::google::protobuf::{Any, Struct};

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
            Ok(value) => filter.labels.push((name.into(), label.into(), Some(value))),
            Err(Problem::Wrong(what) | Problem::Unserved(what)) => notes.count(
                format!("MetricConfig.dimensions {label} = {expression}"),
                &format!("the expression isn't understood ({what}), and the label stays as it is"),
            ),
        }
    }
    Ok(())
}

/// The value of an expression; a lone attribute or text is what is written of it elsewhere.
fn value(source: &str) -> Result<Format, Problem> {
    let expression = expression::parse(source)?;
    let root = match &expression.root {
        Node::Made(Make::Text, inner) => inner,
        root => root,
    };
    Ok(match root {
        Node::Literal(Literal::Text(text)) => Format::literal(text),
        Node::Attribute(
            Attribute::Text(operator) | Attribute::Number(operator) | Attribute::Span(operator),
        ) => format::of(operator.clone()),
        _ => format::of(Operator::Expression(Arc::new(expression))),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use prost::{Message as _, Name as _};

    use super::*;
    use crate::model::text::HeaderKey;
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
                        (
                            "shown".to_owned(),
                            "request.method == 'GET' ? 'read' : 'write'".to_owned(),
                        ),
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
        let shown = expression::parse("request.method == 'GET' ? 'read' : 'write'").unwrap();
        let shown = format::of(Operator::Expression(Arc::new(shown)));
        assert_eq!(
            filter.labels,
            [
                ("".into(), "source_app".into(), None),
                ("".into(), "host".into(), header(HeaderKey::Authority)),
                ("".into(), "shown".into(), Some(shown)),
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
