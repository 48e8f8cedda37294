//! The corpus: sets of objects, each on the same small mesh. Shared by the test, which is offline, and
//! by the program that records istiod's answers (`examples/l7-record`).
#![allow(clippy::unwrap_used, dead_code)] // Helpers of tests: a panic is the report. Each user needs a part.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

/// The themes, a file of sets each.
pub(crate) const THEMES: [&str; 11] = [
    "authorization",
    "custom",
    "authentication",
    "matches",
    "actions",
    "destinations",
    "services",
    "gateway-api",
    "telemetry",
    "places",
    "mesh-config",
];
/// The namespace of all objects, in the files and in what is compared.
pub(crate) const NAMESPACE: &str = "shop";

/// Objects beside those of `base.yaml`.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// `name`, or `name[text]` of one that stands for several.
    pub(crate) name: String,
    /// Whether it concerns other namespaces than its own.
    pub(crate) alone: bool,
    /// Whether it needs the mesh configuration of `mesh.yaml`.
    pub(crate) providers: bool,
    /// What the mesh configuration says beside that.
    pub(crate) mesh: String,
    /// The documents as text.
    text: String,
}

/// Sets of a file: one for each text of `each`, which takes the place of `$1`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    alone: bool,
    #[serde(default)]
    providers: bool,
    #[serde(default)]
    mesh: String,
    #[serde(default)]
    each: Vec<String>,
    objects: String,
}

/// Where the corpus is.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

pub(crate) fn read(file: &str) -> String {
    let path = folder().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sets of a theme.
pub(crate) fn sets(theme: &str) -> Vec<Set> {
    let written: Vec<Written> = serde_yaml_ng::from_str(&read(&format!("{theme}.yaml"))).unwrap();
    let mut sets = Vec::new();
    for one in written {
        if one.each.is_empty() {
            sets.push(Set {
                name: one.name,
                alone: one.alone,
                providers: one.providers,
                mesh: one.mesh,
                text: one.objects,
            });
            continue;
        }
        for text in &one.each {
            sets.push(Set {
                name: format!("{}[{text}]", one.name),
                alone: one.alone,
                providers: one.providers,
                mesh: one.mesh.replace("$1", text),
                text: one.objects.replace("$1", text),
            });
        }
    }
    sets
}

impl Set {
    /// The mesh configuration beside what every installation has.
    pub(crate) fn mesh(&self) -> String {
        match self.providers {
            true => read("mesh.yaml") + &self.mesh,
            false => self.mesh.clone(),
        }
    }

    /// The number of objects of `base.yaml`, which come first.
    pub(crate) fn common() -> usize {
        serde_yaml_ng::Deserializer::from_str(&read("base.yaml")).count()
    }

    /// Its objects and those of `base.yaml`, in the order in which they are to be made. Of a
    /// pod or service that is in `base.yaml` it is said what is different.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let providers = self.providers.then(|| read("providers.yaml"));
        let texts = [read("base.yaml"), providers.unwrap_or_default()];
        let texts = [&texts[..], std::slice::from_ref(&self.text)].concat();
        let all = texts.iter().flat_map(|text| {
            let documents = serde_yaml_ng::Deserializer::from_str(text);
            documents
                .map(|document| {
                    let read = Value::deserialize(document);
                    read.unwrap_or_else(|error| panic!("{}: {error}", self.name))
                })
                .filter(|document| !document.is_null())
                .collect::<Vec<_>>()
        });
        let mut objects: Vec<Value> = Vec::new();
        for object in all {
            let of = |object: &Value| (object["kind"].clone(), object["metadata"]["name"].clone());
            let common = objects.iter_mut().take(Self::common());
            let known = common
                .filter(|_| object["kind"] == "Pod" || object["kind"] == "Service")
                .find(|known| of(known) == of(&object));
            match known {
                Some(known) => merge(known, &object),
                None => objects.push(object),
            }
        }
        let all = objects.into_iter().map(complete).enumerate();
        all.map(|(number, mut object)| {
            // Of several, the earlier is the older.
            let (minute, second) = (number / 60, number % 60);
            let created = format!("2026-01-01T00:{minute:02}:{second:02}Z");
            object["metadata"]["creationTimestamp"] = created.into();
            object
        })
        .collect()
    }
}

/// Puts the fields of one object into another.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// What every object of the corpus would say again: its version, name, namespace, readiness.
fn complete(mut object: Value) -> Value {
    let kind = object["kind"].as_str().unwrap().to_owned();
    object["apiVersion"] = match kind.as_str() {
        "Namespace" | "Node" | "Service" | "Pod" => "v1",
        "AuthorizationPolicy" | "RequestAuthentication" | "PeerAuthentication" => {
            "security.istio.io/v1"
        }
        "Telemetry" => "telemetry.istio.io/v1",
        "Gateway" | "HTTPRoute" | "GRPCRoute" => "gateway.networking.k8s.io/v1",
        "TCPRoute" | "TLSRoute" => "gateway.networking.k8s.io/v1alpha2",
        "ReferenceGrant" => "gateway.networking.k8s.io/v1beta1",
        _ => "networking.istio.io/v1",
    }
    .into();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "x".into();
    }
    if !matches!(&*kind, "Namespace" | "Node") && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = NAMESPACE.into();
    }
    if kind == "ServiceEntry" {
        object["status"] = given(&object["spec"]);
    }
    if kind == "Pod" {
        let ip = object["status"]["podIP"].clone();
        object["status"] = json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        });
    }
    object
}

/// The addresses that hosts of an entry have been given, where any control plane gives some.
fn given(spec: &Value) -> Value {
    if spec["addresses"].is_array() || spec["resolution"] == "NONE" || spec["resolution"].is_null()
    {
        return Value::Null;
    }
    let hosts = spec["hosts"].as_array().into_iter().flatten().enumerate();
    let given = hosts
        .map(|(number, host)| json!({"host": host, "value": format!("240.240.0.{}", number + 1)}));
    json!({"addresses": given.collect::<Vec<_>>()})
}
