//! Who asks the control plane: a waypoint as istiod knows one, from the environment of istiod's own
//! template. Pure: the environment and the files' texts are arguments.

use std::collections::BTreeMap;

use mesh::proto::discovery::Node;
use prost_types::{ListValue, Struct, Value as Proto, value::Kind};
use serde_json::{Map, Value, json};

/// Metadata in the environment, a text each.
const META: &str = "ISTIO_META_";
/// Metadata in the environment, a JSON object each whose fields are metadata.
const META_JSON: &str = "ISTIO_METAJSON_";
/// The version of Istio whose proxy this one stands in for: istiod sends what that one understands.
const ISTIO_VERSION: &str = "1.30.0";

/// What is known of the pod that the waypoint runs in.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address.
    pub ip: String,
    /// Its service account.
    pub service_account: String,
    /// The cluster it is in.
    pub cluster_id: String,
    /// The DNS domain of its namespace, `<namespace>.svc.cluster.local`.
    pub domain: String,
    /// Its labels, as the downward API writes them.
    pub labels: String,
    /// Its annotations, likewise.
    pub annotations: String,
    /// The mesh's settings for proxies, JSON.
    pub proxy_config: String,
}

impl Pod {
    /// The waypoint as it names itself to the control plane. Of `environment` the variables that
    /// begin with `ISTIO_META_` count.
    #[must_use]
    pub fn node(&self, environment: impl IntoIterator<Item = (String, String)>) -> Node {
        let Self {
            name,
            namespace,
            ip,
            ..
        } = self;
        let domain = match self.domain.as_str() {
            "" => format!("{namespace}.svc.cluster.local"),
            domain => domain.to_owned(),
        };
        let labels = downward(&self.labels);
        let metadata = self.metadata(&labels, environment);
        let workload = metadata["WORKLOAD_NAME"].as_str().unwrap_or_default();
        Node {
            id: format!("waypoint~{ip}~{name}.{namespace}~{domain}"),
            cluster: format!("{workload}.{namespace}"),
            metadata: Some(structure(metadata)),
            user_agent_name: "culvert-waypoint".to_owned(),
            ..Node::default()
        }
    }

    fn metadata(
        &self,
        labels: &BTreeMap<String, String>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Map<String, Value> {
        let mut metadata = Map::new();
        let workload = labels.get("gateway.networking.k8s.io/gateway-name");
        metadata.insert("ISTIO_VERSION".to_owned(), ISTIO_VERSION.into());
        metadata.insert("INTERCEPTION_MODE".to_owned(), "REDIRECT".into());
        let workload = workload.unwrap_or(&self.service_account).as_str();
        metadata.insert("WORKLOAD_NAME".to_owned(), workload.into());
        for (key, value) in environment {
            if let Some(key) = key.strip_prefix(META) {
                metadata.insert(key.to_owned(), value.into());
            } else if key.starts_with(META_JSON) {
                match serde_json::from_str(&value) {
                    Ok(Value::Object(fields)) => metadata.extend(fields),
                    _ => tracing::warn!(variable = key, "is no JSON object, and is passed over"),
                }
            }
        }
        let own = [
            ("NAME", &self.name),
            ("NAMESPACE", &self.namespace),
            ("INSTANCE_IPS", &self.ip),
            ("SERVICE_ACCOUNT", &self.service_account),
            ("CLUSTER_ID", &self.cluster_id),
        ];
        for (key, value) in own {
            metadata.insert(key.to_owned(), value.clone().into());
        }
        let object = |pairs: &BTreeMap<String, String>| {
            let pairs = pairs.iter();
            Value::Object(pairs.map(|(k, v)| (k.clone(), v.clone().into())).collect())
        };
        metadata.insert("LABELS".to_owned(), object(labels));
        let annotations = object(&downward(&self.annotations));
        metadata.insert("ANNOTATIONS".to_owned(), annotations);
        match serde_json::from_str(&self.proxy_config) {
            Ok(config @ Value::Object(_)) => {
                metadata.insert("PROXY_CONFIG".to_owned(), config);
            }
            _ if self.proxy_config.trim().is_empty() => {}
            _ => tracing::warn!("PROXY_CONFIG is no JSON object, and is passed over"),
        }
        metadata
    }
}

/// A node as JSON, for people and for `istioctl`.
#[must_use]
pub fn json(node: &Node) -> Value {
    let metadata = node.metadata.clone().unwrap_or_default();
    let metadata = plain(Kind::StructValue(metadata));
    json!({
        "id": node.id,
        "cluster": node.cluster,
        "user_agent_name": node.user_agent_name,
        "metadata": metadata,
    })
}

fn plain(kind: Kind) -> Value {
    let inner = |value: Proto| value.kind.map_or(Value::Null, plain);
    match kind {
        Kind::NullValue(_) => Value::Null,
        Kind::BoolValue(truth) => truth.into(),
        Kind::NumberValue(number) => number.into(),
        Kind::StringValue(text) => text.into(),
        Kind::ListValue(list) => list.values.into_iter().map(inner).collect(),
        Kind::StructValue(of) => {
            let fields = of.fields.into_iter();
            Value::Object(fields.map(|(key, value)| (key, inner(value))).collect())
        }
    }
}

/// Pairs as the downward API writes them: `key="value"`, a line each, the value quoted as in Go.
fn downward(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| {
        let (key, quoted) = line.split_once('=')?;
        let value =
            serde_json::from_str(quoted).unwrap_or_else(|_| quoted.trim_matches('"').to_owned());
        Some((key.trim().to_owned(), value))
    });
    pairs.collect()
}

fn structure(fields: Map<String, Value>) -> Struct {
    let fields = fields.into_iter();
    Struct {
        fields: fields.map(|(key, value)| (key, proto(value))).collect(),
    }
}

fn proto(value: Value) -> Proto {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(proto).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(structure(fields)),
    };
    Proto { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        Pod {
            name: "waypoint-78f59d4766-rkz6d".to_owned(),
            namespace: "bookinfo".to_owned(),
            ip: "10.244.2.9".to_owned(),
            service_account: "waypoint".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            domain: String::new(),
            labels: "gateway.networking.k8s.io/gateway-name=\"waypoint\"\nodd=\"a\\\"b=c\"\n"
                .to_owned(),
            annotations: "istio.io/rev=\"default\"".to_owned(),
            proxy_config: r#"{"proxyMetadata": {"ISTIO_META_ENABLE_HBONE": "true"}}"#.to_owned(),
        }
    }

    fn node(environment: &[(&str, &str)]) -> Node {
        let variables = environment.iter();
        pod().node(variables.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    fn text<'a>(of: &'a Struct, path: &[&str]) -> &'a str {
        let (first, rest) = path.split_first().unwrap();
        match of.fields[*first].kind.as_ref().unwrap() {
            Kind::StringValue(text) => text,
            Kind::StructValue(inner) => text(inner, rest),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn istiods_template_says_who_the_waypoint_is() {
        let node = node(&[
            ("ISTIO_META_MESH_ID", "cluster.local"),
            ("ISTIO_META_NODE_NAME", "node-1"),
            ("ISTIO_META_ENABLE_HBONE", "true"),
            ("ISTIO_METAJSON_MORE", r#"{"NETWORK": "n1"}"#),
            ("HOME", "/"),
        ]);
        assert_eq!(
            node.id,
            "waypoint~10.244.2.9~waypoint-78f59d4766-rkz6d.bookinfo~bookinfo.svc.cluster.local"
        );
        assert_eq!(node.cluster, "waypoint.bookinfo");
        let metadata = node.metadata.unwrap();
        for (path, expected) in [
            (&["NAMESPACE"][..], "bookinfo"),
            (&["INSTANCE_IPS"], "10.244.2.9"),
            (&["CLUSTER_ID"], "Kubernetes"),
            (&["MESH_ID"], "cluster.local"),
            (&["NODE_NAME"], "node-1"),
            (&["ENABLE_HBONE"], "true"),
            (&["NETWORK"], "n1"),
            (&["ISTIO_VERSION"], ISTIO_VERSION),
            (
                &["LABELS", "gateway.networking.k8s.io/gateway-name"],
                "waypoint",
            ),
            (&["LABELS", "odd"], "a\"b=c"),
            (&["ANNOTATIONS", "istio.io/rev"], "default"),
            (
                &["PROXY_CONFIG", "proxyMetadata", "ISTIO_META_ENABLE_HBONE"],
                "true",
            ),
        ] {
            assert_eq!(text(&metadata, path), expected, "{path:?}");
        }
        assert!(!metadata.fields.contains_key("HOME"));
        let told = json(&Node {
            metadata: Some(metadata),
            ..Node::default()
        });
        let labels = &told["metadata"]["LABELS"];
        assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "waypoint");
    }

    #[test]
    fn the_environment_may_say_another_version_but_not_another_pod() {
        let node = node(&[
            ("ISTIO_META_ISTIO_VERSION", "1.28.1"),
            ("ISTIO_META_NAMESPACE", "other"),
        ]);
        let metadata = node.metadata.unwrap();
        assert_eq!(text(&metadata, &["ISTIO_VERSION"]), "1.28.1");
        assert_eq!(text(&metadata, &["NAMESPACE"]), "bookinfo");
    }
}
