//! The mesh's configuration in Istio's form (key `mesh` of the ConfigMap `istio`), as far as control
//! uses it: the services that AuthorizationPolicies with action CUSTOM ask, those that spans are told to,
//! forms of access logs, and what is counted, logged and traced where no Telemetry says it. What else it holds is for
//! istiod, or is control's own flags here; it is named, so that nobody waits for it in vain.

mod authz;
mod defaults;
mod logger;
mod tracer;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use self::authz::{Body, Common, Grpc, Http, Provider};
pub use self::defaults::{Defaults, Providers as DefaultProviders, Tracing as DefaultTracing};
pub use self::logger::{FileLog, LogFormat};
pub use self::tracer::{OpenTelemetry, OverGrpc, OverHttp, Tracer, Zipkin};
use super::Key;

/// The ConfigMap's name, in the namespace of the installation.
pub const NAME: &str = "istio";
/// Its key.
const MESH: &str = "mesh";
/// The longest name of a provider, as istiod takes them: it becomes a part of others.
const LONGEST: usize = 63;
/// The access log that is always there, unless a provider is called so: Istio's own line.
pub const ENVOY: &str = "envoy";
/// The provider of metrics, the one that there is.
pub const PROMETHEUS: &str = "prometheus";
/// Kinds of provider that Istio knows and control has no use for.
const OTHERS: [&str; 10] = [
    "lightstep",
    "datadog",
    "stackdriver",
    "opencensus",
    "skywalking",
    "prometheus",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
    "sds",
];

/// Services that decide about requests, by the names that policies use.
pub type Providers = BTreeMap<String, Provider>;

/// Services that spans are told to, by the names that Telemetries use.
pub type Tracers = BTreeMap<String, Tracer>;

/// Access logs, by the names that Telemetries use.
pub type Loggers = BTreeMap<String, FileLog>;

/// The configuration as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// The ConfigMap.
    pub key: Key,
    /// What it says, or why it can't be read.
    pub config: Result<Config, String>,
}

/// What it says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Who may be asked.
    pub providers: Providers,
    /// Who may be told of spans.
    pub tracers: Tracers,
    /// How requests may be logged.
    pub loggers: Loggers,
    /// What holds where no Telemetry says another.
    pub defaults: Defaults,
    /// What in it control does not use.
    pub unused: Vec<String>,
}

impl From<&ConfigMap> for MeshConfig {
    fn from(map: &ConfigMap) -> Self {
        let text = map.data.as_ref().and_then(|data| data.get(MESH));
        Self {
            key: Key::of(&map.metadata),
            config: text.map_or_else(|| Ok(Config::default()), |text| read(text)),
        }
    }
}

/// Reads a mesh configuration.
///
/// # Errors
/// When it is no YAML of that form, or a provider can't be used: the place, and why.
pub fn read(text: &str) -> Result<Config, String> {
    let fields: Option<Map<String, Value>> =
        serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let mut config = Config::default();
    let mut defaults = defaults::Reading::default();
    for (name, value) in fields.unwrap_or_default() {
        match name.as_str() {
            "extensionProviders" => {
                let listed: Vec<Map<String, Value>> = parsed(value).map_err(of(&name))?;
                for (index, one) in listed.into_iter().enumerate() {
                    let place = format!("{name}[{index}]");
                    provider(&mut config, one).map_err(of(&place))?;
                }
            }
            _ if defaults.take(&name, &value, &mut config.unused) => {}
            _ => config.unused.push(name),
        }
    }
    config.defaults = defaults.done(&mut config.unused);
    let unknown = unknown(&config);
    config.unused.extend(unknown);
    Ok(config)
}

/// Default providers that there are none of.
fn unknown(config: &Config) -> Vec<String> {
    let defaults = &config.defaults.providers;
    let logs = defaults.access_logging.iter();
    let logs = logs.filter(|name| *name != ENVOY && !config.loggers.contains_key(*name));
    let logs = logs.map(|name| {
        format!(
            "accessLogging: there is no envoyFileAccessLog {name:?} among the extensionProviders"
        )
    });
    let metrics = defaults.metrics.iter().filter(|name| *name != PROMETHEUS);
    let metrics = metrics.map(|name| {
        format!("metrics: {name:?} is not served: metrics are for {PROMETHEUS:?} alone")
    });
    let spans = defaults.tracing.first().into_iter();
    let spans = spans
        .filter(|name| !config.tracers.contains_key(*name))
        .map(|name| {
            format!(
                "tracing: there is no opentelemetry or zipkin {name:?} among the extensionProviders"
            )
        });
    let all = logs.chain(metrics).chain(spans);
    all.map(|problem| format!("defaultProviders.{problem}"))
        .collect()
}

fn provider(config: &mut Config, mut fields: Map<String, Value>) -> Result<(), String> {
    let name = match fields.remove("name") {
        Some(Value::String(name)) => name,
        _ => return Err("name: there is none".to_owned()),
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = (1..=LONGEST).contains(&name.len())
        && name.chars().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label {
        return Err(format!(
            "name: {name:?} must be of at most {LONGEST} lowercase letters, digits and hyphens between them"
        ));
    }
    let mut kinds = fields.into_iter();
    let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
        return Err(format!(
            "{name}: it must be of one kind, envoyExtAuthzGrpc or another"
        ));
    };
    let place = format!("{name}: {kind}");
    if kind == "envoyFileAccessLog" {
        let logger = parsed::<FileLog>(value).and_then(|logger| logger.check().map(|()| logger));
        // As with tracers below.
        match logger {
            Ok(logger) => drop(config.loggers.insert(name, logger)),
            Err(problem) => config
                .unused
                .push(format!("extensionProviders {place}: {problem}")),
        }
        return Ok(());
    }
    let tracer = match kind.as_str() {
        "opentelemetry" => Some(parsed(value.clone()).map(Tracer::OpenTelemetry)),
        "zipkin" => Some(parsed(value.clone()).map(Tracer::Zipkin)),
        _ => None,
    };
    if let Some(tracer) = tracer {
        // One that can't be used is missed by Telemetries alone, and must not be to those who decide.
        match tracer.and_then(|tracer| tracer.check().map(|()| tracer)) {
            Ok(tracer) => drop(config.tracers.insert(name, tracer)),
            Err(problem) => config
                .unused
                .push(format!("extensionProviders {place}: {problem}")),
        }
        return Ok(());
    }
    let provider = match kind.as_str() {
        "envoyExtAuthzHttp" => Provider::Http(parsed(value).map_err(of(&place))?),
        "envoyExtAuthzGrpc" => Provider::Grpc(parsed(value).map_err(of(&place))?),
        other if OTHERS.contains(&other) => {
            config
                .unused
                .push(format!("extensionProviders {name} ({other})"));
            return Ok(());
        }
        _ => return Err(format!("{place}: there is no such kind of provider")),
    };
    provider.check().map_err(of(&place))?;
    match config.providers.insert(name.clone(), provider) {
        None => Ok(()),
        Some(_) => Err(format!("name: {name:?} is another provider's too")),
    }
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| error.to_string())
}

fn of(place: &str) -> impl Fn(String) -> String {
    move |problem| match problem.starts_with('[') {
        true => format!("{place}{problem}"),
        false => format!("{place}: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_read_and_what_is_not_used_is_named() {
        let text = "trustDomain: here\nextensionProviders:\n- {name: otel, opentelemetry: {service: o, port: 1}}\n- {name: dyna, opentelemetry: {service: o, port: 1, resourceDetectors: {}}}\n- {name: lines, envoyFileAccessLog: {path: out}}\n- {name: short, envoyFileAccessLog: {path: /dev/stdout, logFormat: {text: '%PROTOCOL%'}}}\n- {name: both, envoyFileAccessLog: {logFormat: {text: a, labels: {b: c}}}}\n- {name: afar, envoyHttpAls: {}}\n- name: ask\n  envoyExtAuthzGrpc: {service: shop/ask.shop.svc.cluster.local, port: 9000, timeout: 1s}\n";
        let read = read(text).unwrap();
        let common = read.providers["ask"].common();
        assert_eq!(read.providers.len(), 1);
        assert_eq!(
            (common.host(), common.port),
            ("ask.shop.svc.cluster.local", 9000)
        );
        assert_eq!(
            read.unused,
            [
                "extensionProviders dyna: opentelemetry: resourceDetectors: unknown field `resourceDetectors`, expected one of `service`, `port`, `maxTagLength`, `http`, `grpc`",
                "extensionProviders lines: envoyFileAccessLog: path: \"out\" does not begin with a slash",
                "extensionProviders both: envoyFileAccessLog: logFormat: text and labels exclude each other",
                "extensionProviders afar (envoyHttpAls)",
                "trustDomain",
            ]
        );
        assert_eq!(read.tracers["otel"].place(), ("o", 1));
        assert_eq!(read.tracers.len(), 1);
        let format = read.loggers["short"].log_format.as_ref().unwrap();
        assert_eq!(
            (read.loggers.len(), format.text.as_str()),
            (1, "%PROTOCOL%")
        );
        for nothing in ["", "{}", "extensionProviders: []"] {
            assert_eq!(super::read(nothing), Ok(Config::default()), "{nothing}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let grpc = |fields: &str| format!("{{name: a, envoyExtAuthzGrpc: {{{fields}}}}}");
        let http = |field: &str| {
            format!("{{name: a, envoyExtAuthzHttp: {{service: s, port: 1, {field}}}}}")
        };
        let ask = grpc("service: s, port: 1");
        for (listed, said) in [
            ("7".to_owned(), "extensionProviders[0]: invalid type"),
            (
                "{}".to_owned(),
                "extensionProviders[0]: name: there is none",
            ),
            (ask.replace("name: a", "name: A_1"), "[0]: name: \"A_1\""),
            (ask.replace("name: a", "name: ''"), "[0]: name: \"\""),
            (format!("{ask}, {ask}"), "[1]: name: \"a\" is another"),
            ("{name: a}".to_owned(), "a: it must be of one kind"),
            (
                "{name: a, envoyExtAuthGrpc: {}}".to_owned(),
                "a: envoyExtAuthGrpc: there is no such kind",
            ),
            (
                "{name: a, zipkin: {}, prometheus: {}}".to_owned(),
                "a: it must be of one kind",
            ),
            (grpc("port: 1"), "a: envoyExtAuthzGrpc: service: none"),
            (grpc("service: s"), "a: envoyExtAuthzGrpc: port: none"),
            (
                grpc("service: s, port: many"),
                "a: envoyExtAuthzGrpc: invalid type: string \"many\"",
            ),
            (
                grpc("service: s, port: 1, statusOnError: '9'"),
                "statusOnError: \"9\"",
            ),
            (
                grpc("service: s, port: 1, includeRequestBodyInCheck: {}"),
                "includeRequestBodyInCheck.maxRequestBytes",
            ),
            (http("pathPrefix: check"), "pathPrefix: \"check\""),
            (
                http("headersToUpstreamOnAllow: [x, '*']"),
                "headersToUpstreamOnAllow: \"*\" alone",
            ),
        ] {
            let error = read(&format!("extensionProviders: [{listed}]")).unwrap_err();
            assert!(error.contains(said), "{listed}: {error}");
        }
        assert!(read("[").is_err() && read("just words").is_err());
    }
}
