//! What is wrong with one object by itself: the object is put into an index of its own, with a
//! waypoint and with every service that it names, and what its status would say there is the answer.
//!
//! What it refers to may come after it, so that a reference which leads nowhere is no reason to refuse
//! it; its status tells of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::index::Index;
use crate::objects::gateway::WAYPOINT_CLASS;
use crate::objects::mesh_config::{
    Common, FileLog, Grpc, Provider, Providers, Tracer, Tracers, Zipkin,
};
use crate::objects::{
    AuthorizationPolicy, Change, Gateway, GatewayClass, Key, Kind, Namespace, Object,
    PeerAuthentication, Routing, Service,
};
use crate::translate::Mesh;

/// The kinds that are looked at.
pub const KINDS: [Kind; 14] = [
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::Telemetry,
    Kind::Gateway,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::ReferenceGrant,
];
/// Reasons of the Gateway API that tell of other objects than the one looked at.
const OF_OTHERS: [&str; 2] = ["BackendNotFound:", "RefNotPermitted:"];
/// Services that are made for one review; a larger object is looked at with as many.
const SERVICES: usize = 1000;
/// The service of a provider that the object names.
const PROVIDER: &str = "provider";
/// The waypoint's name, where the object names none.
const WAYPOINT: &str = "waypoint";

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Kind, namespace and name.
    pub object: String,
    /// Field and reason.
    pub what: String,
}

/// What is wrong with this object; `None` for one that may be stored, and for kinds that are not
/// looked at.
#[must_use]
pub fn problem(mesh: &Mesh, object: Value) -> Option<Problem> {
    let kind = KINDS
        .into_iter()
        .find(|kind| object["kind"] == kind.name())?;
    let named = Named::of(&object);
    let of_waypoints = is_waypoint(&object);
    let object: DynamicObject = serde_json::from_value(object).ok()?;
    let read = match kind {
        Kind::Gateway => {
            let gateway = Gateway::from(&object);
            let key = gateway.source.key.clone();
            // One whose specification can't be read is of no class.
            let what = gateway.spec.err().filter(|_| of_waypoints)?;
            let object = format!("{} {key}", kind.name());
            return Some(Problem { object, what });
        }
        Kind::AuthorizationPolicy => {
            Object::AuthorizationPolicy(Box::new(AuthorizationPolicy::from(&object)))
        }
        Kind::PeerAuthentication => {
            Object::PeerAuthentication(Box::new(PeerAuthentication::from(&object)))
        }
        _ => Object::Routing(Box::new(Routing::read(kind, &object)?)),
    };
    let key = read.key();
    let mut mesh = mesh.clone();
    mesh.providers = Arc::new(named.asked(&mesh, &key));
    mesh.tracers = Arc::new(named.told(&mesh, &key));
    let loggers = named.loggers.iter();
    mesh.loggers = Arc::new(
        loggers
            .map(|name| (name.clone(), FileLog::default()))
            .collect(),
    );
    let mut index = Index::new(mesh.clone());
    for object in around(&mesh, &key, &named) {
        index.apply(Change::Applied(object));
    }
    index.apply(Change::Applied(read));
    index.recompute();
    let wishes = index.take_wishes();
    let said = wishes
        .into_iter()
        .find(|wish| wish.kind == kind && wish.source.key == key)?
        .verdict;
    let what = said.problem.filter(|_| said.reason == "Invalid")?;
    let of_others = OF_OTHERS.iter().any(|reason| what.contains(reason));
    (!of_others).then(|| Problem {
        object: format!("{} {key}", kind.name()),
        what,
    })
}

/// The fields of an object that nobody reads: for who applies it to look at again.
#[must_use]
pub fn passed_over(object: &Value) -> Vec<String> {
    let kind = KINDS.into_iter().find(|kind| object["kind"] == kind.name());
    let of_waypoints = is_waypoint(object);
    let passed_over = kind.and_then(|kind| {
        let object: DynamicObject = serde_json::from_value(object.clone()).ok()?;
        Some(match kind {
            Kind::AuthorizationPolicy => AuthorizationPolicy::from(&object).passed_over,
            Kind::PeerAuthentication => PeerAuthentication::from(&object).passed_over,
            // Of another class it is for somebody else.
            Kind::Gateway if !of_waypoints => return None,
            Kind::Gateway => Gateway::from(&object).passed_over,
            _ => Routing::read(kind, &object)?.passed_over,
        })
    });
    passed_over.unwrap_or_default()
}

/// Whether a Gateway asks for a waypoint.
fn is_waypoint(object: &Value) -> bool {
    object["spec"]["gatewayClassName"] == WAYPOINT_CLASS
}

/// What an object names.
#[derive(Debug, Default)]
struct Named {
    hosts: BTreeSet<String>,
    /// By namespace (empty: the object's own) and name.
    services: BTreeSet<(String, String)>,
    ports: BTreeSet<u16>,
    gateways: BTreeSet<String>,
    /// Who decides, by a name of the mesh configuration's.
    provider: Option<String>,
    /// Who is told of spans, likewise.
    tracers: BTreeSet<String>,
    /// Forms of access logs, likewise.
    loggers: BTreeSet<String>,
}

impl Named {
    fn of(object: &Value) -> Self {
        let mut named = Self::default();
        named.look("", &object["spec"]);
        let provider = object["spec"]["provider"]["name"].as_str();
        named.provider = provider.map(str::to_owned);
        let list =
            |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
        let providers = |field: &str| -> BTreeSet<String> {
            let all = list(&object["spec"], field).into_iter();
            let all = all.flat_map(|one| list(&one, "providers"));
            all.filter_map(|one| Some(one["name"].as_str()?.to_owned()))
                .collect()
        };
        named.tracers = providers("tracing");
        named.loggers = providers("accessLogging");
        named
    }

    fn look(&mut self, field: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                let text = |name: &str| fields.get(name).and_then(Value::as_str);
                if let (
                    "parentRefs" | "backendRefs" | "backendRef" | "targetRefs" | "targetRef",
                    Some(name),
                ) = (field, text("name"))
                {
                    let namespace = text("namespace").unwrap_or_default();
                    match text("kind") {
                        Some("Gateway") => drop(self.gateways.insert(name.to_owned())),
                        _ => drop(
                            self.services
                                .insert((namespace.to_owned(), name.to_owned())),
                        ),
                    }
                }
                for (name, value) in fields {
                    self.look(name, value);
                }
            }
            Value::Array(all) => all.iter().for_each(|value| self.look(field, value)),
            Value::String(host) if matches!(field, "host" | "hosts") => {
                self.hosts.insert(host.clone());
            }
            Value::Number(number) if matches!(field, "port" | "number") => {
                let port = number
                    .as_u64()
                    .and_then(|number| u16::try_from(number).ok());
                self.ports.extend(port.filter(|port| *port > 0));
            }
            _ => {}
        }
    }

    /// The provider that it names, which may come later as a service may: one that answers about
    /// everything.
    fn asked(&self, mesh: &Mesh, own: &Key) -> Providers {
        let asked = self.provider.iter().map(|name| {
            let common = Common {
                service: mesh.hostname(PROVIDER, &own.namespace),
                port: 80,
                ..Common::default()
            };
            (name.clone(), Provider::Grpc(Grpc { common }))
        });
        asked.collect()
    }

    /// The collectors that it names, likewise.
    fn told(&self, mesh: &Mesh, own: &Key) -> Tracers {
        let told = self.tracers.iter().map(|name| {
            let zipkin = Zipkin {
                service: mesh.hostname(PROVIDER, &own.namespace),
                port: 80,
                ..Zipkin::default()
            };
            (name.clone(), Tracer::Zipkin(zipkin))
        });
        told.collect()
    }

    /// The services, with names of hosts taken as Istio takes them.
    fn keys(&self, mesh: &Mesh, own: &Key) -> BTreeSet<Key> {
        let suffix = format!(".svc.{}", mesh.domain);
        let of_host = |host: &String| {
            let short = host.strip_suffix(&suffix).unwrap_or(host);
            match short.split_once('.') {
                None => Some(Key::new(own.namespace.clone(), short)),
                Some((name, namespace)) if !namespace.contains('.') || host.ends_with(&suffix) => {
                    Some(Key::new(namespace, name))
                }
                Some(_) => None,
            }
        };
        let services = self.services.iter().map(|(namespace, name)| {
            let namespace = if namespace.is_empty() {
                &*own.namespace
            } else {
                namespace
            };
            Key::new(namespace, name.as_str())
        });
        let all = self.hosts.iter().filter_map(of_host).chain(services);
        all.filter(|key| !key.name.is_empty() && !key.name.contains('*'))
            .take(SERVICES)
            .collect()
    }
}

/// A cluster in which everything that the object names exists, behind a waypoint.
fn around(mesh: &Mesh, own: &Key, named: &Named) -> Vec<Object> {
    let waypoint = named.gateways.first().map_or(WAYPOINT, String::as_str);
    let read = |value: Value| serde_json::from_value::<DynamicObject>(value).ok();
    let labels = BTreeMap::from([
        ("istio.io/use-waypoint", waypoint),
        ("istio.io/use-waypoint-namespace", &*own.namespace),
    ]);
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint"},
        "spec": {"controllerName": crate::objects::gateway::CONTROLLER},
    });
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": waypoint, "namespace": &*own.namespace},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{
            "name": "mesh", "port": 15008, "protocol": "HBONE",
            "allowedRoutes": {"namespaces": {"from": "All"}},
        }]},
        // Without an address it would be none yet.
        "status": {"addresses": [{"type": "IPAddress", "value": "10.0.0.2"}]},
    });
    let ports = named.ports.iter().copied().chain([80]);
    let ports: BTreeSet<u16> = ports.collect();
    let ports: Vec<Value> = ports
        .into_iter()
        .map(|port| json!({"name": format!("http-{port}"), "port": port}))
        .collect();
    let mut services = named.keys(mesh, own);
    if services.is_empty() {
        services.insert(Key::new(own.namespace.clone(), "any"));
    }
    if named.provider.is_some() || !named.tracers.is_empty() {
        services.insert(Key::new(own.namespace.clone(), PROVIDER));
    }
    let namespaces: BTreeSet<_> = services
        .iter()
        .map(|service| service.namespace.clone())
        .chain([own.namespace.clone()])
        .collect();
    let mut all: Vec<Object> = namespaces
        .into_iter()
        .filter_map(|name| {
            let object = json!({"metadata": {"name": &*name, "labels": labels}});
            let object: k8s_openapi::api::core::v1::Namespace =
                serde_json::from_value(object).ok()?;
            Some(Object::Namespace(Namespace::from(&object)))
        })
        .collect();
    all.extend(read(class).map(|class| Object::GatewayClass(Box::new(GatewayClass::from(&class)))));
    all.extend(read(gateway).map(|gateway| Object::Gateway(Box::new(Gateway::from(&gateway)))));
    all.extend(services.into_iter().filter_map(|key| {
        let object = json!({
            "metadata": {"name": &*key.name, "namespace": &*key.namespace, "labels": labels},
            "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": ports},
        });
        let object = serde_json::from_value(object).ok()?;
        Service::from_kubernetes(&object).map(|service| Object::Service(Box::new(service)))
    }));
    all
}

#[cfg(test)]
mod tests;
