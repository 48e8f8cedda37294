//! All objects, and what depends on what: a change recomputes only the resources it can change.
//!
//! | changed             | recomputed                                                                  |
//! |---------------------|-----------------------------------------------------------------------------|
//! | Pod, WorkloadEntry  | itself                                                                      |
//! | Node                | the pods on it                                                              |
//! | Namespace           | its services; their pods too, where it chooses another waypoint             |
//! | ConfigMap `istio`   | the waypoints at which a policy asks a service that it names                |
//! | Gateway, its class  | the services and pods that use it as their waypoint                         |
//! | Service             | itself; pods that its old or new selector finds; its slices and their pods |
//! | ServiceEntry        | a service for each host, as above; its endpoints                            |
//! | EndpointSlice       | its bare addresses; its pods, where the service has no selector             |
//! | AuthorizationPolicy | itself; pods that its old or new selector finds                             |
//! | PeerAuthentication  | itself; the policies that inherit from it; pods that it applies to          |
//!
//! What waypoints themselves have, and what recomputes it, is in [`l7`].
//!
//! The result of any order of events is that of the final objects alone, with one exception: a
//! policy whose new version is wrong stays in force as it was.

mod dependents;
mod entries;
mod l7;
mod policies;
mod recompute;
mod slices;
mod table;
mod waypoints;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::deployer::{Plan, Plans};
use crate::objects::gateway_route::GatewayRoute;
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{
    Change, EndpointSlice, Gateway, GatewayClass, Key, Kind, Namespace, Node, Object, Pod,
    PolicySource, Service,
};
use crate::resource::{Resource, ResourceType};
use crate::status::Verdict;
use crate::translate::Mesh;
use crate::translate::waypoint::Waypoint;

use entries::Entries;
use l7::L7;
pub use l7::Seat;
use l7::marks::Moved;
use policies::{InForce, PeerInForce};
use table::Table;
use words::Words;

/// The objects, their relations, and what is to be recomputed.
pub struct Index {
    mesh: Mesh,
    /// The ConfigMap of the mesh's configuration, while there is one.
    mesh_config: Option<Key>,
    namespaces: HashMap<Arc<str>, Namespace>,
    nodes: HashMap<Arc<str>, Node>,
    pods: Table<Pod>,
    services: Table<Service>,
    slices: Table<EndpointSlice>,
    policies: Table<InForce>,
    peers: Table<PeerInForce>,
    gateways: Table<Gateway>,
    classes: HashMap<Arc<str>, GatewayClass>,
    /// What ServiceEntries came to.
    entries: Entries,
    /// The gateways that can be used as waypoints.
    waypoints: Table<Waypoint>,
    /// What waypoints are made from beside all this, and what they were made to.
    l7: L7,
    /// Whether the deployer's plans may have changed.
    plans_changed: bool,
    /// What pods have in common.
    words: Words,
    pods_on_node: HashMap<Arc<str>, BTreeSet<Key>>,
    slices_of_service: HashMap<Key, BTreeSet<Key>>,
    /// Those of services without a selector: a selector finds its pods by itself.
    slices_of_pod: HashMap<Key, BTreeSet<Key>>,
    /// The names of the resources that a slice came to.
    names_of_slice: HashMap<Key, BTreeSet<Arc<str>>>,
    dirty: BTreeSet<Output>,
    verdicts: BTreeMap<(Kind, Key), Wish>,
}

/// What can be recomputed by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Output {
    Pod(Key),
    Slice(Key),
    Service(Key),
    /// The endpoints of a ServiceEntry.
    Entry(Key),
    Policy(Key),
    Peer(Key),
    StaticStrict,
    /// All resources of a waypoint.
    Waypoint(Key),
    /// The endpoints of one service alone, at a waypoint.
    WaypointEndpoints(Key, Key),
    /// What a route of the Gateway API says of its references.
    Route(Kind, Key),
}

/// A resource that may have changed: its new form, or `None` if there is none any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Its kind.
    pub kind: ResourceType,
    /// Its name.
    pub name: Arc<str>,
    /// Its new form.
    pub resource: Option<Resource>,
}

/// A status that should be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Which kind of object.
    pub kind: Kind,
    /// The object, as it was read.
    pub source: PolicySource,
    /// A route of the Gateway API, whose status speaks of each parent.
    pub route: Option<Box<GatewayRoute>>,
    /// Addresses that hosts of a ServiceEntry were given, where its status does not have them yet.
    pub addresses: Vec<(String, IpAddr)>,
    /// What its status should say.
    pub verdict: Verdict,
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            mesh_config: None,
            namespaces: HashMap::new(),
            nodes: HashMap::new(),
            pods: Table::default(),
            services: Table::default(),
            slices: Table::default(),
            policies: Table::default(),
            peers: Table::default(),
            gateways: Table::default(),
            classes: HashMap::new(),
            entries: Entries::default(),
            waypoints: Table::default(),
            l7: L7::default(),
            plans_changed: true,
            words: Words::default(),
            pods_on_node: HashMap::new(),
            slices_of_service: HashMap::new(),
            slices_of_pod: HashMap::new(),
            names_of_slice: HashMap::new(),
            dirty: BTreeSet::new(),
            verdicts: BTreeMap::new(),
        }
    }

    /// Takes one change in. Nothing is recomputed yet.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Applied(Object::Namespace(namespace)) => {
                let name: Arc<str> = namespace.name.as_str().into();
                self.set_namespace(name, Some(namespace));
            }
            Change::Applied(Object::Node(node)) => {
                let name: Arc<str> = node.name.as_str().into();
                self.set_node(name, Some(node));
            }
            Change::Applied(Object::Pod(pod)) => self.set_pod(pod.key.clone(), Some(*pod)),
            Change::Applied(Object::Service(service)) => {
                self.set_service(service.key.clone(), Some(*service))
            }
            Change::Applied(Object::EndpointSlice(slice)) => {
                self.set_slice(slice.key.clone(), Some(*slice))
            }
            Change::Applied(Object::AuthorizationPolicy(policy)) => self.set_policy(*policy),
            Change::Applied(Object::PeerAuthentication(policy)) => self.set_peer(*policy),
            Change::Applied(Object::Gateway(gateway)) => {
                self.set_gateway(gateway.source.key.clone(), Some(*gateway));
            }
            Change::Applied(Object::GatewayClass(class)) => {
                self.set_class(class.source.key.name.clone(), Some(*class));
            }
            Change::Applied(Object::Routing(routing)) => self.set_routing(*routing),
            Change::Applied(Object::MeshConfig(config)) => self.set_mesh_config(Some(*config)),
            Change::Removed(kind, key) => self.remove(kind, &key),
        }
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Namespace => self.set_namespace(key.name.clone(), None),
            Kind::Node => self.set_node(key.name.clone(), None),
            Kind::Pod => self.set_pod(key.clone(), None),
            Kind::Service => self.set_service(key.clone(), None),
            Kind::EndpointSlice => self.set_slice(key.clone(), None),
            Kind::AuthorizationPolicy => self.remove_policy(key),
            Kind::PeerAuthentication => self.remove_peer(key),
            Kind::Gateway => self.set_gateway(key.clone(), None),
            Kind::GatewayClass => self.set_class(key.name.clone(), None),
            Kind::MeshConfig => self.set_mesh_config(None),
            routing => self.remove_routing(routing, key),
        }
    }

    /// The names of all objects of a kind that the index holds, for a watch that starts anew and
    /// must find out which are gone.
    #[must_use]
    pub fn keys(&self, kind: Kind) -> HashSet<Key> {
        match kind {
            Kind::Namespace => named(&self.namespaces),
            Kind::Node => named(&self.nodes),
            Kind::Pod => {
                let pods = self.pods.all().filter(|(_, pod)| pod.entry.is_none());
                pods.map(|(key, _)| key).collect()
            }
            Kind::Service => self.services.keys().collect(),
            Kind::EndpointSlice => self.slices.keys().collect(),
            Kind::AuthorizationPolicy => self.policies.keys().collect(),
            Kind::PeerAuthentication => self.peers.keys().collect(),
            Kind::Gateway => self.gateways.keys().collect(),
            Kind::MeshConfig => self.mesh_config.iter().cloned().collect(),
            Kind::GatewayClass => named(&self.classes),
            routing => self.l7.keys(routing),
        }
    }

    /// How many Services and VirtualServices there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.services.len(), self.l7.count(Kind::VirtualService))
    }

    /// A pod by its name.
    #[must_use]
    pub fn pod(&self, key: &Key) -> Option<&Pod> {
        self.pods.get(key)
    }

    /// The pods on a node.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.pods_on_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|key| self.pods.get(key))
    }

    /// Statuses to write since the last call, one a policy.
    pub fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.verdicts).into_values().collect()
    }

    fn set_namespace(&mut self, name: Arc<str>, new: Option<Namespace>) {
        let distribution =
            |namespace: Option<&Namespace>| namespace.and_then(|n| n.traffic_distribution.clone());
        if distribution(self.namespaces.get(&name)) != distribution(new.as_ref()) {
            let services = self
                .services
                .within(&name)
                .map(|(key, _)| Output::Service(key));
            self.dirty.extend(services);
        }
        let concerned = self.changes_waypoints(&name, new.as_ref());
        let before = concerned.then(|| self.users_in(&name));
        match new {
            Some(namespace) => self.namespaces.insert(name.clone(), namespace),
            None => self.namespaces.remove(&name),
        };
        if let Some(before) = before {
            let after = self.users_in(&name);
            self.mark_users(&before, &after);
            self.mark_entries(Some(&name));
        }
    }

    fn set_node(&mut self, name: Arc<str>, new: Option<Node>) {
        let stood = self.stand(self.pods_on_node.get(&*name).into_iter().flatten());
        if self.nodes.get(&name) != new.as_ref() {
            let pods = self.pods_on_node.get(&*name).into_iter().flatten().cloned();
            self.dirty.extend(pods.map(Output::Pod));
            self.mark_endpoints_on(&name);
        }
        match new {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
        self.mark_moved(stood);
    }

    fn set_pod(&mut self, mut key: Key, mut new: Option<Pod>) {
        if let Some(new) = &mut new {
            self.words.share(new);
            key = new.key.clone();
        }
        let old = self.pods.get(&key);
        if old == new.as_ref() {
            return;
        }
        let node = |pod: Option<&Pod>| {
            pod.map(|pod| pod.node.clone())
                .filter(|node| !node.is_empty())
        };
        let (before, after) = (node(old), node(new.as_ref()));
        if before != after {
            leave(&mut self.pods_on_node, before, &key);
            join(&mut self.pods_on_node, after, &key);
        }
        let old_is_of_gateway = is_of_gateway(old);
        let moved = match (old, new.as_ref()) {
            (Some(old), Some(new)) => Moved {
                owner: (&old.labels, &old.service_account) != (&new.labels, &new.service_account),
                address: old.addresses != new.addresses,
            },
            _ => Moved {
                owner: true,
                address: true,
            },
        };
        if moved.owner {
            self.mark_services_of_pod(&key);
        }
        self.note_pod_for_plans(old_is_of_gateway || is_of_gateway(new.as_ref()));
        self.mark_waypoints_of_pod(&key, moved);
        let stood = self.stand([&key]);
        self.pods.set(&key, new);
        self.mark_moved(stood);
        self.mark_waypoints_of_pod(&key, moved);
        if moved.owner {
            self.mark_services_of_pod(&key);
        }
        self.dirty.insert(Output::Pod(key));
    }

    fn set_service(&mut self, key: Key, new: Option<Service>) {
        if self.services.get(&key) == new.as_ref() {
            return;
        }
        self.mark_dependents_of_service(&key);
        self.mark_waypoints_of_service(&key);
        let slices: Vec<Key> = self
            .slices_of_service
            .get(&key)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for slice in &slices {
            self.leave_pods(slice);
        }
        let of_kubernetes = new.as_ref().or(self.services.get(&key));
        let of_kubernetes = of_kubernetes.is_some_and(|service| service.entry.is_none());
        self.services.set(&key, new);
        for slice in &slices {
            self.join_pods(slice);
        }
        self.mark_dependents_of_service(&key);
        self.mark_waypoints_of_service(&key);
        if of_kubernetes {
            self.renew_shadowed(&key);
        }
        self.dirty.insert(Output::Service(key));
    }
}

/// The keys of what is in no namespace.
fn named<T>(all: &HashMap<Arc<str>, T>) -> HashSet<Key> {
    all.keys().map(|name| Key::new("", name.clone())).collect()
}

fn is_of_gateway(pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| pod.labels.contains_key(GATEWAY_NAME))
}

fn join<K: Eq + std::hash::Hash>(index: &mut HashMap<K, BTreeSet<Key>>, at: Option<K>, key: &Key) {
    if let Some(at) = at {
        index.entry(at).or_default().insert(key.clone());
    }
}

fn leave<K: Eq + std::hash::Hash>(index: &mut HashMap<K, BTreeSet<Key>>, at: Option<K>, key: &Key) {
    let Some(at) = at else { return };
    if let Some(set) = index.get_mut(&at) {
        set.remove(key);
        if set.is_empty() {
            index.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests;
