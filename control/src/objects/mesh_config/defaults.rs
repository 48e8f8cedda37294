//! What waypoints count, log and trace where no Telemetry says it: `defaultProviders`, `accessLogFile` and
//! its like, `enableTracing`, and `tracing` of `defaultConfig`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::telemetry::CustomTag;
use super::{LogFormat, PROMETHEUS, of, parsed};

/// What holds where no Telemetry says another.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// `defaultProviders`.
    pub providers: Providers,
    /// `accessLogFile`: where all is logged of which neither a Telemetry nor `defaultProviders` says it.
    pub log_file: String,
    /// `accessLogFormat` in its `accessLogEncoding`: the form there, and of the provider `envoy`; none:
    /// Istio's own line.
    pub log_format: Option<LogFormat>,
    /// `enableTracing`.
    pub traces: bool,
    /// `defaultConfig.tracing`.
    pub tracing: Tracing,
}

/// `defaultProviders`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Providers {
    /// Who logs.
    pub access_logging: Vec<String>,
    /// Who counts.
    pub metrics: Vec<String>,
    /// Who is told of spans; the first counts.
    pub tracing: Vec<String>,
}

/// `defaultConfig.tracing`, as far as waypoints are told of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// How many of a hundred requests; 0: as many as without it.
    pub sampling: f64,
    /// What else a span says.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// How much of a path a span says, in bytes; 0: as much as without it.
    pub max_path_tag_length: u32,
    /// Istio's own tags, where no provider is asked for.
    pub enable_istio_tags: Option<bool>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            providers: Providers::default(),
            log_file: String::new(),
            log_format: None,
            traces: true,
            tracing: Tracing::default(),
        }
    }
}

impl Default for Providers {
    fn default() -> Self {
        // As Istio's chart has them.
        Self {
            access_logging: Vec::new(),
            metrics: vec![PROMETHEUS.to_owned()],
            tracing: Vec::new(),
        }
    }
}

/// `accessLogEncoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Encoding {
    #[default]
    Text,
    Json,
}

/// The fields, while they are read: a form is text or JSON by another field than its own.
#[derive(Default)]
pub(super) struct Reading {
    made: Defaults,
    format: String,
    encoding: Encoding,
}

impl Reading {
    /// Takes in a field of the mesh configuration if it is one of these. What can't be used is named, and as
    /// if it weren't there: nobody is let in or kept out by it.
    pub(super) fn take(&mut self, name: &str, value: &Value, unused: &mut Vec<String>) -> bool {
        let Self {
            made,
            format,
            encoding,
        } = self;
        let value = value.clone();
        let taken = match name {
            "defaultProviders" => parsed(value).map(|said| made.providers = said),
            "accessLogFile" => parsed::<String>(value).and_then(|said| {
                if !said.is_empty() && !said.starts_with('/') {
                    return Err(format!("{said:?} does not begin with a slash"));
                }
                made.log_file = said;
                Ok(())
            }),
            "accessLogFormat" => parsed(value).map(|said| *format = said),
            "accessLogEncoding" => parsed(value).map(|said| *encoding = said),
            "enableTracing" => parsed(value).map(|said| made.traces = said),
            "defaultConfig" => parsed(value).and_then(|said| config(made, said, unused)),
            _ => return false,
        };
        unused.extend(taken.map_err(of(name)).err());
        true
    }

    /// What they come to.
    pub(super) fn done(mut self, unused: &mut Vec<String>) -> Defaults {
        let mut object = |text: &str| {
            match text {
            // Istio's own.
            "" => Map::new(),
            text => serde_json::from_str(text).unwrap_or_else(|error| {
                unused.push(format!(
                    "accessLogFormat: {error}: with accessLogEncoding JSON it must be an object in JSON"
                ));
                Map::new()
            }),
        }
        };
        self.made.log_format = match self.encoding {
            Encoding::Text if self.format.is_empty() => None,
            Encoding::Text => Some(LogFormat {
                text: self.format,
                labels: None,
            }),
            Encoding::Json => Some(LogFormat {
                labels: Some(object(&self.format)),
                ..LogFormat::default()
            }),
        };
        self.made
    }
}

/// What waypoints are told of `defaultConfig` is what they trace: the rest is for sidecars.
fn config(
    made: &mut Defaults,
    fields: Map<String, Value>,
    unused: &mut Vec<String>,
) -> Result<(), String> {
    for (name, value) in fields {
        if name != "tracing" {
            unused.push(format!("defaultConfig.{name}"));
            continue;
        }
        let mut others = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| {
            others.push(format!("defaultConfig.tracing.{path}"));
        };
        let said: Tracing = serde_ignored::deserialize(value, &mut note)
            .map_err(|error| format!("tracing: {error}"))?;
        unused.append(&mut others);
        if said.sampling < 0.0 {
            return Err(format!("tracing.sampling: {} is below 0", said.sampling));
        }
        made.tracing = said;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::read;

    #[test]
    fn what_is_not_used_is_named_and_no_hindrance() {
        for (text, said) in [
            (
                "accessLogFile: out",
                "accessLogFile: \"out\" does not begin with a slash",
            ),
            (
                "accessLogEncoding: XML",
                "accessLogEncoding: unknown variant `XML`, expected `TEXT` or `JSON`",
            ),
            (
                "{accessLogEncoding: JSON, accessLogFormat: '%PROTOCOL%'}",
                "accessLogFormat: expected value at line 1 column 1: with accessLogEncoding JSON it must be an object in JSON",
            ),
            (
                "defaultProviders: {traces: [otel]}",
                "defaultProviders: traces: unknown field `traces`, expected one of `accessLogging`, `metrics`, `tracing`",
            ),
            (
                "defaultProviders: {accessLogging: [short]}",
                "defaultProviders.accessLogging: there is no envoyFileAccessLog \"short\" among the extensionProviders",
            ),
            (
                "defaultProviders: {tracing: [otel]}",
                "defaultProviders.tracing: there is no opentelemetry or zipkin \"otel\" among the extensionProviders",
            ),
            (
                "defaultProviders: {metrics: [stackdriver]}",
                "defaultProviders.metrics: \"stackdriver\" is not served: metrics are for \"prometheus\" alone",
            ),
            (
                "enableTracing: maybe",
                "enableTracing: invalid type: string \"maybe\", expected a boolean",
            ),
            (
                "defaultConfig: {concurrency: 2}",
                "defaultConfig.concurrency",
            ),
            (
                "defaultConfig: {tracing: {zipkin: {address: a}}}",
                "defaultConfig.tracing.zipkin",
            ),
            (
                "defaultConfig: {tracing: {sampling: -1}}",
                "defaultConfig: tracing.sampling: -1 is below 0",
            ),
        ] {
            let read = read(text).unwrap();
            assert_eq!(read.unused, [said], "{text}");
        }
    }

    #[test]
    fn forms_and_providers_are_read() {
        let read = |text: &str| read(text).unwrap().defaults;
        let none = read("");
        assert_eq!(none.providers.metrics, ["prometheus"]);
        assert!(none.traces && none.log_format.is_none());
        let some = read(
            "{accessLogFile: /dev/stdout, accessLogEncoding: JSON, accessLogFormat: '{\"a\": \"%PROTOCOL%\"}', defaultProviders: {accessLogging: [envoy]}, enableTracing: false}",
        );
        let format = some.log_format.unwrap();
        assert_eq!(format.labels.unwrap()["a"], "%PROTOCOL%");
        assert_eq!(some.providers.metrics, ["prometheus"]);
        assert_eq!(some.providers.access_logging, ["envoy"]);
        assert!(!some.traces);
        let bare = read("accessLogEncoding: JSON").log_format.unwrap();
        assert_eq!(
            bare.labels,
            Some(serde_json::Map::new()),
            "Istio's own object"
        );
    }
}
