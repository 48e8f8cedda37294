//! A table of cases: a file of `cases/`, with the part of the resources that it is about and the
//! requests with what must come of each. `$a` in a theme's resources is its cluster `a`.
//! Long because a table's form and what is made of it are one idea.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::backend::{self, CASE, Journal, Kind};
use crate::expect::Expect;
use crate::resources::{LISTEN, Resources};
use crate::subject as proxy;
use crate::wire::Over;

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// In a theme's filters: the file of the plugin for tests.
const PLUGIN: &str = "$plugin";

/// One file of cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Theme {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// The port of its listener, the same for every subject.
    #[serde(skip)]
    pub port: u16,
    /// What it shows.
    pub about: String,
    /// Fields of the HttpConnectionManager over the usual ones.
    #[serde(default)]
    hcm: Map<String, Value>,
    /// Filters before the router.
    #[serde(default)]
    http_filters: Vec<Value>,
    /// Routes of the one virtual host.
    #[serde(default)]
    routes: Vec<Value>,
    /// Instead of `routes`.
    #[serde(default)]
    virtual_hosts: Vec<Value>,
    /// Fields of the RouteConfiguration.
    #[serde(default)]
    route_config: Map<String, Value>,
    /// Network filters instead of an HttpConnectionManager.
    #[serde(default)]
    filters: Vec<Value>,
    /// Clusters by their short name.
    #[serde(default)]
    clusters: BTreeMap<String, ClusterSpec>,
    /// Further fields of its log lines, which are compared as all others are.
    #[serde(default)]
    log: Map<String, Value>,
    /// The cases build upon each other, and upon the time between them.
    #[serde(default)]
    pub in_order: bool,
    /// Protocols of the callers, where a case doesn't say.
    #[serde(default = "both")]
    over: Vec<Over>,
    /// The cases, in order.
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClusterSpec {
    kind: Kind,
    endpoints: Option<usize>,
    /// Fields over the usual ones.
    with: Map<String, Value>,
    /// Fields of the endpoint with that number.
    each: BTreeMap<usize, Map<String, Value>>,
}

/// One request, or one for each protocol, and what must come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows; the request itself if not given.
    name: Option<String>,
    /// `GET /path` or `GET http://authority/path`.
    pub ask: Option<String>,
    /// Headers; a list of values for a repeated one.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// The request's body.
    #[serde(default)]
    pub body: String,
    /// A body in pieces instead, which come one after the other.
    #[serde(default)]
    pub pieces: Vec<String>,
    /// Headers by the length of their value.
    #[serde(default)]
    pub long: BTreeMap<String, usize>,
    /// So many further headers.
    #[serde(default)]
    pub many: usize,
    /// A body of so many bytes instead.
    pub large: Option<usize>,
    /// Bytes that must come back after an upgrade.
    pub echo: Option<String>,
    /// How the backend answers.
    pub script: Option<String>,
    /// Exact bytes instead of a request.
    pub raw: Option<String>,
    /// How many answers the bytes have.
    #[serde(default = "one")]
    pub answers: usize,
    /// Ends our side after the bytes.
    #[serde(default)]
    pub finish: bool,
    over: Option<Over>,
    /// How often it is asked, on one connection.
    #[serde(default = "one")]
    pub times: usize,
    /// All at the same time instead.
    #[serde(default)]
    pub parallel: bool,
    /// Milliseconds to let pass first, for what time itself does (an ejection that ends).
    #[serde(default)]
    pub after_ms: u64,
    /// Which endpoint serves it, or how much of it one hears, is chance.
    #[serde(default)]
    pub by_chance: bool,
    /// Why Envoy can't be the oracle of it in a tunnel, where only ours is judged then.
    pub alone_in_tunnel: Option<String>,
    /// What must come of it.
    pub expect: Expect,
    /// Where ours is meant to differ from Envoy: what must come of it there, and why.
    pub ours: Option<Ours>,
}

/// A difference that is meant to be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// The reason.
    pub because: String,
    /// What must come of the case.
    pub expect: Expect,
}

fn one() -> usize {
    1
}

fn both() -> Vec<Over> {
    vec![Over::H1, Over::H2]
}

impl Case {
    /// What it is called.
    #[must_use]
    pub fn title(&self) -> &str {
        let fallback = self.ask.as_deref().or(self.raw.as_deref());
        self.name.as_deref().or(fallback).unwrap_or("bytes")
    }

    /// What a proxy must make of it.
    #[must_use]
    pub fn expect_of(&self, kind: proxy::Kind) -> &Expect {
        match (kind, &self.ours) {
            (proxy::Kind::Waypoint, Some(ours)) => &ours.expect,
            _ => &self.expect,
        }
    }

    /// Whether it is bytes and no request.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.raw.is_some()
    }
}

/// Reads every file of `folder`, in the order of their names.
///
/// # Errors
/// When one is no table of cases; the message names it.
pub fn read_all(folder: &Path) -> Result<Vec<Theme>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut themes = Vec::new();
    for (port, path) in (20_000..).zip(files) {
        themes.push(read(&path, port)?);
    }
    Ok(themes)
}

/// Reads one, whose listener is to be on `port`.
///
/// # Errors
/// When it is no table of cases; the message names it.
pub fn read(path: &Path, port: u16) -> Result<Theme> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut theme: Theme =
        serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?;
    let stem = path.file_stem().unwrap_or_default();
    theme.name = stem.to_string_lossy().into_owned();
    theme.port = port;
    Ok(theme)
}

impl Theme {
    /// Whether it is of opaque connections.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        !self.filters.is_empty()
    }

    /// The protocols that a case is asked over.
    #[must_use]
    pub fn over(&self, case: &Case) -> Vec<Over> {
        match case.over {
            Some(over) => vec![over],
            None if case.is_raw() || self.is_tcp() => vec![Over::H1],
            None => self.over.clone(),
        }
    }

    /// Starts the backends, and makes the resources.
    ///
    /// # Errors
    /// When a backend can't listen.
    pub async fn resources(&self, journal: &Arc<Journal>) -> Result<Resources> {
        let mut clusters = Vec::new();
        for (short, spec) in &self.clusters {
            clusters.push(self.cluster(short, spec, journal).await?);
        }
        let filters = if self.is_tcp() {
            self.filters.clone()
        } else {
            vec![self.manager()]
        };
        let listener = json!({
            "name": self.name,
            "address": {"socket_address": {"address": LISTEN, "port_value": self.port}},
            "filter_chains": [{"filters": filters}],
        });
        let mut resources = Resources {
            listeners: vec![listener],
            clusters,
            ..Resources::default()
        };
        let listeners = &mut resources.listeners;
        listeners.iter_mut().for_each(|l| self.name_clusters(l));
        if self
            .http_filters
            .iter()
            .any(|f| f.to_string().contains(PLUGIN))
        {
            let module = tokio::task::spawn_blocking(plugins::guest).await??;
            let module = module.display().to_string();
            listeners
                .iter_mut()
                .for_each(|l| replace(l, PLUGIN, &module));
        }
        Ok(resources)
    }

    fn manager(&self) -> Value {
        let mut filters = self.http_filters.clone();
        filters
            .push(json!({"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}));
        let hosts = if self.virtual_hosts.is_empty() {
            vec![json!({"name": "all", "domains": ["*"], "routes": self.routes})]
        } else {
            self.virtual_hosts.clone()
        };
        let mut routes = Map::from_iter([
            ("name".to_owned(), self.name.clone().into()),
            ("virtual_hosts".to_owned(), hosts.into()),
        ]);
        routes.extend(self.route_config.clone());
        let mut manager = json!({
            "@type": HCM,
            "stat_prefix": self.name,
            "normalize_path": true,
            "stream_idle_timeout": "0s",
            "route_config": routes,
            "http_filters": filters,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "access_log": [self.access_log()],
        });
        merge(&mut manager, &self.hcm);
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
    }

    async fn cluster(
        &self,
        short: &str,
        spec: &ClusterSpec,
        journal: &Arc<Journal>,
    ) -> Result<Value> {
        let name = self.cluster_name(short);
        let mut endpoints = Vec::new();
        for number in 0..spec.endpoints.unwrap_or(1) {
            let at = backend::start(journal, short, number, spec.kind).await?;
            let mut endpoint = json!({"endpoint": {"address": {"socket_address": {
                "address": at.ip().to_string(), "port_value": at.port()}}}});
            if let Some(fields) = spec.each.get(&number) {
                merge(&mut endpoint, fields);
            }
            endpoints.push(endpoint);
        }
        let mut cluster = json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": localities(endpoints)},
        });
        if matches!(spec.kind, Kind::Http2 | Kind::AuthzGrpc) {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": HTTP_OPTIONS,
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            });
        }
        merge(&mut cluster, &spec.with);
        Ok(cluster)
    }

    /// `theme/a`: the names of all themes share one proxy.
    #[must_use]
    pub fn cluster_name(&self, short: &str) -> String {
        format!("{}/{short}", self.name)
    }

    /// Replaces `$a` by the full name, wherever it stands as a value.
    fn name_clusters(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(short) = text.strip_prefix('$')
                    && self.clusters.contains_key(short)
                {
                    *text = self.cluster_name(short);
                } else if text == "$log" {
                    *value = self.access_log();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|v| self.name_clusters(v)),
            Value::Object(fields) => fields.values_mut().for_each(|v| self.name_clusters(v)),
            _ => {}
        }
    }

    /// The same line in JSON from both; the operators are those of Istio's default format.
    fn access_log(&self) -> Value {
        let fields = [
            ("theme", self.name.clone()),
            ("case", format!("%REQ({CASE})%")),
            ("peer", "%DOWNSTREAM_REMOTE_ADDRESS%".to_owned()),
            ("code", "%RESPONSE_CODE%".to_owned()),
            ("flags", "%RESPONSE_FLAGS%".to_owned()),
            ("details", "%RESPONSE_CODE_DETAILS%".to_owned()),
            ("termination", "%CONNECTION_TERMINATION_DETAILS%".to_owned()),
            ("cluster", "%UPSTREAM_CLUSTER_RAW%".to_owned()),
            ("route", "%ROUTE_NAME%".to_owned()),
            ("protocol", "%PROTOCOL%".to_owned()),
            ("method", "%REQ(:METHOD)%".to_owned()),
            ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%".to_owned()),
            ("authority", "%REQ(:AUTHORITY)%".to_owned()),
            ("received", "%BYTES_RECEIVED%".to_owned()),
            ("sent", "%BYTES_SENT%".to_owned()),
            ("upstream", "%UPSTREAM_HOST%".to_owned()),
        ];
        let mut format: Map<String, Value> = fields
            .into_iter()
            .map(|(name, operator)| (name.to_owned(), operator.into()))
            .collect();
        format.extend(self.log.clone());
        json!({
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": FILE_LOG,
                "path": "/dev/stdout",
                "log_format": {"json_format": format},
            },
        })
    }
}

/// Replaces a text wherever it stands as a value.
fn replace(value: &mut Value, what: &str, with: &str) {
    match value {
        Value::String(text) if text == what => with.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|v| replace(v, what, with)),
        Value::Object(fields) => fields.values_mut().for_each(|v| replace(v, what, with)),
        _ => {}
    }
}

/// Endpoints that name a locality or a priority stand in a group of their own.
fn localities(endpoints: Vec<Value>) -> Vec<Value> {
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for mut endpoint in endpoints {
        let mut group = json!({});
        for key in ["locality", "priority", "load_balancing_group_weight"] {
            if let Some(value) = endpoint.as_object_mut().and_then(|e| e.remove(key)) {
                group[key] = value;
            }
        }
        match groups.iter_mut().find(|(g, _)| *g == group) {
            Some((_, members)) => members.push(endpoint),
            None => groups.push((group, vec![endpoint])),
        }
    }
    let with_members = |(mut group, members): (Value, Vec<Value>)| {
        group["lb_endpoints"] = members.into();
        group
    };
    groups.into_iter().map(with_members).collect()
}

/// Fields over fields; objects are merged, anything else is replaced.
fn merge(into: &mut Value, fields: &Map<String, Value>) {
    for (name, value) in fields {
        match (into.get_mut(name), value) {
            (Some(old @ Value::Object(_)), Value::Object(new)) if !new.contains_key("@type") => {
                merge(old, new);
            }
            _ => into[name] = value.clone(),
        }
    }
}
