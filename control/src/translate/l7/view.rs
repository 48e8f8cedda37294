//! What a waypoint's resources are made from: its own services, and the objects that speak of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh::proto::workload::AppProtocol;

use super::locality::{Here, Reckoned};
use crate::jwks::Outcome;
use crate::objects::authorization_policy::AuthorizationPolicy;
use crate::objects::destination_rule::DestinationRule;
use crate::objects::request_authentication::{JwtRule, RequestAuthentication, Targets};
use crate::objects::telemetry::Telemetry;
use crate::objects::virtual_service::VirtualService;
use crate::objects::{Key, Kind, Labels};
use crate::translate::Mesh;

/// Everything that one waypoint's resources depend on.
pub struct View<'a> {
    /// The mesh.
    pub mesh: &'a Mesh,
    /// Its Gateway.
    pub gateway: Key,
    /// Its Deployment: the name by which it appears in telemetry.
    pub deployment: String,
    /// Where the replicas stand that are told so.
    pub here: Here,
    /// What was reckoned from there: those that differ in nothing else are told the same.
    pub reckoned: Cell<Reckoned>,
    /// Labels of its pods, for policies that select it in the form of Istio 1.18.
    pub labels: Labels,
    /// The services that it serves, oldest first.
    pub services: Vec<Target>,
    /// The addresses of pods whose own addresses it serves.
    pub pods: Vec<IpAddr>,
    /// Any service by its host name.
    pub lookup: &'a dyn Fn(&str) -> Option<Target>,
    /// The endpoints of a service's port.
    pub backends: &'a dyn Fn(&Target, &TargetPort) -> Vec<Backend>,
    /// What came of the keys of a rule that does not have them itself; `None` while nothing has.
    pub keys: &'a dyn Fn(&JwtRule) -> Option<Outcome>,
    /// VirtualServices that apply to the mesh, oldest first: delegates resolved, routes of the
    /// Gateway API among them.
    pub routes: Vec<Hosted>,
    /// DestinationRules, oldest first.
    pub rules: Vec<Rule>,
    /// Policies that waypoints enforce.
    pub policies: Policies,
    /// Which addresses names are resolved to.
    pub families: Families,
    /// What is counted, traced and logged, oldest first.
    pub telemetries: Vec<(Key, Arc<Telemetry>)>,
    /// What in which object can't be used.
    pub problems: RefCell<BTreeSet<(Kind, Key, String)>>,
}

/// A service, as its callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its host name.
    pub host: String,
    /// Under which name the index keeps it.
    pub key: Key,
    /// Its object.
    pub object: Key,
    /// Service or ServiceEntry.
    pub kind: Kind,
    /// Its virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<TargetPort>,
    /// A headless service's pods are called by their own addresses.
    pub headless: bool,
    /// Near endpoints are preferred, by the service's traffic distribution.
    pub near: Option<Near>,
    /// How its endpoints are found.
    pub found: Found,
    /// It is outside of the mesh.
    pub external: bool,
}

/// Which endpoints are near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// Those in the caller's zone.
    Zone,
    /// Those on the caller's node, or else as near to it as there are.
    Node,
}

/// How a service's endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// They are known.
    Known,
    /// Where the caller wants to go.
    ByCaller,
    /// By DNS: all addresses, or the first one only.
    ByName {
        /// The first one only.
        first: bool,
    },
    /// By DNS, by the name that the request asks for.
    ByRequest,
}

/// Which addresses names are resolved to: the families of the waypoint's own service.
pub type Families = crate::objects::service::Families;

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// At an address.
    Address(IpAddr),
    /// At the addresses of a name.
    Name(String),
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// gRPC-Web is translated to gRPC.
    pub grpc_web: bool,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 declared.
    Http,
    /// HTTP/2 or gRPC declared.
    Http2,
    /// Declared to be something else.
    Tcp,
    /// TLS that is passed through.
    Tls,
    /// Not declared: found out at each connection.
    Sniffed,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is.
    pub place: Place,
    /// Its port.
    pub port: u16,
    /// Its labels, for subsets.
    pub labels: Arc<Labels>,
    /// Whether it takes HBONE.
    pub hbone: bool,
    /// Region, zone, subzone.
    pub locality: (String, String, String),
    /// Its node; empty where nobody knows of one.
    pub node: Arc<str>,
    /// `workload;namespace;canonical name;revision;cluster`, for telemetry.
    pub workload: String,
    /// Kubernetes says that it is ready; of others nobody says anything.
    pub ready: bool,
    /// Its share among the others.
    pub weight: u32,
}

/// A VirtualService, or what a route of the Gateway API comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Hosted {
    /// Its object.
    pub key: Key,
    /// Which kind it was.
    pub kind: Kind,
    /// What it says; hosts are full names.
    pub spec: Arc<VirtualService>,
}

/// A DestinationRule; its host is a full name.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its object.
    pub key: Key,
    /// The full name of its host, or a wildcard.
    pub host: String,
    /// What it says.
    pub spec: Arc<DestinationRule>,
}

/// Policies that waypoints enforce, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// AuthorizationPolicies with targets.
    pub authorization: Vec<(AuthorizationPolicy, Targets)>,
    /// RequestAuthentications with targets.
    pub authentication: Vec<(Key, Arc<RequestAuthentication>)>,
}

impl Protocol {
    /// From what the port declares.
    #[must_use]
    pub fn of(port: &crate::objects::service::ServicePort) -> Self {
        match super::super::protocol::app_protocol(port) {
            AppProtocol::Http11 => Self::Http,
            AppProtocol::Http2 | AppProtocol::Grpc => Self::Http2,
            AppProtocol::Tls => Self::Tls,
            AppProtocol::Tcp => Self::Tcp,
            AppProtocol::Unknown if declared(port, &["grpc"]) => Self::Http2,
            AppProtocol::Unknown
                if declared(port, &["mongo", "redis", "mysql", "hbone", "doublehbone"]) =>
            {
                Self::Tcp
            }
            AppProtocol::Unknown => Self::Sniffed,
        }
    }

    pub(super) fn http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Sniffed)
    }

    pub(super) fn tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Sniffed)
    }
}

/// Protocols that Istio knows and that node proxies are told nothing of.
fn declared(port: &crate::objects::service::ServicePort, names: &[&str]) -> bool {
    let name = port
        .app_protocol
        .as_deref()
        .unwrap_or(&port.name)
        .to_ascii_lowercase();
    names.contains(&name.split('-').next().unwrap_or_default())
}

impl View<'_> {
    /// Where the replicas stand, for what is near; `by` says what is reckoned from it.
    pub(super) fn here(&self, by: Reckoned) -> &Here {
        self.reckoned.set(self.reckoned.get().max(by));
        &self.here
    }

    /// Its own namespace.
    pub(super) fn namespace(&self) -> &str {
        &self.gateway.namespace
    }

    /// Whether this waypoint serves the service.
    pub(super) fn owns(&self, host: &str) -> bool {
        self.services.iter().any(|service| service.host == host)
    }

    /// Notes what can't be used.
    pub(super) fn problem(&self, kind: Kind, key: &Key, problem: impl Into<String>) {
        self.problems
            .borrow_mut()
            .insert((kind, key.clone(), problem.into()));
    }

    /// Only routes of the service's namespace or the waypoint's own count.
    pub(super) fn routes_of(&self, service: &Target) -> Vec<&Hosted> {
        let here = |of: &Key| {
            *of.namespace == *self.gateway.namespace || of.namespace == service.key.namespace
        };
        let found = self.routes.iter().filter(|hosted| {
            here(&hosted.key)
                && hosted
                    .spec
                    .hosts
                    .iter()
                    .any(|host| covers(host, &service.host))
        });
        found.collect()
    }

    /// The rule of a host: of the waypoint's namespace, the service's, the root; there the most
    /// exact host, and of the same the oldest, with the subsets of the younger ones.
    pub(super) fn rule_of(&self, target: &Target) -> Option<Rule> {
        let root: &str = &self.mesh.root_namespace;
        let places = [self.namespace(), &target.key.namespace, root];
        places.iter().find_map(|namespace| {
            let visible = |rule: &&Rule| {
                *rule.key.namespace == **namespace
                    && covers(&rule.host, &target.host)
                    && is_visible(&rule.spec, namespace, self.namespace())
            };
            let mut found: Vec<&Rule> = self.rules.iter().filter(visible).collect();
            let exact = found
                .iter()
                .map(|rule| {
                    rule.host.trim_start_matches('*').len()
                        + usize::from(!rule.host.starts_with('*'))
                })
                .max()?;
            found.retain(|rule| {
                rule.host.trim_start_matches('*').len() + usize::from(!rule.host.starts_with('*'))
                    == exact
            });
            let (first, others) = found.split_first()?;
            let mut merged = DestinationRule::clone(&first.spec);
            for other in others {
                for subset in &other.spec.subsets {
                    if merged.subsets.iter().all(|known| known.name != subset.name) {
                        merged.subsets.push(subset.clone());
                    }
                }
                merged.traffic_policy = merged
                    .traffic_policy
                    .or_else(|| other.spec.traffic_policy.clone());
            }
            Some(Rule {
                key: first.key.clone(),
                host: first.host.clone(),
                spec: Arc::new(merged),
            })
        })
    }
}

/// Whether a rule of one namespace is exported to another.
#[must_use]
pub(crate) fn is_visible(rule: &DestinationRule, of: &str, to: &str) -> bool {
    let exported = &rule.export_to;
    exported.is_empty()
        || exported
            .iter()
            .any(|one| one == "*" || one == to || (one == "." && of == to))
}

/// Whether a host of an object covers a host name: equal, or under its `*.`.
#[must_use]
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// `inbound-vip|port|subset|host`.
pub(super) fn inbound(port: u16, subset: &str, host: &str) -> String {
    format!("inbound-vip|{port}|{subset}|{host}")
}

/// `outbound|port|subset|host`.
pub(super) fn outbound(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The parts of a cluster's name: whether it is of our own service, port, subset without its
/// protocol, host.
pub(super) fn parts(name: &str) -> Option<(bool, u16, &str, &str)> {
    let mut parts = name.splitn(4, '|');
    let own = match parts.next()? {
        "inbound-vip" => true,
        "outbound" => false,
        _ => return None,
    };
    let port = parts.next()?.parse().ok()?;
    let subset = parts.next()?;
    let subset = if own {
        subset.split_once('/').map_or("", |(_, subset)| subset)
    } else {
        subset
    };
    Some((own, port, subset, parts.next()?))
}

/// Which subset a rule's name stands for.
pub(super) fn subset_labels(rule: Option<&Rule>, name: &str) -> Option<BTreeMap<String, String>> {
    if name.is_empty() {
        return Some(BTreeMap::new());
    }
    let subset = rule?
        .spec
        .subsets
        .iter()
        .find(|subset| subset.name == name)?;
    Some(subset.labels.clone())
}
