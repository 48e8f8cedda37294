//! Waypoints' own resources in the index: from which objects each is made, and what it came to.
//!
//! While a waypoint's resources are made it is written down which services it serves, which others
//! it looked at, and whom it asked about what (`made`). From that it follows whom a change concerns:
//!
//! | changed                                   | recomputed                                              |
//! |-------------------------------------------|---------------------------------------------------------|
//! | VirtualService                            | who serves one of its hosts, there or in its own namespace; who looked it up as a delegate |
//! | HTTPRoute and the like                    | its status; who serves one of its parents               |
//! | ReferenceGrant                            | routes that asked its namespace, and who serves their parents |
//! | DestinationRule                           | who looked at one of its hosts, where it is visible     |
//! | AuthorizationPolicy, RequestAuthentication | to whom it is attached, or to whose services            |
//! | Telemetry                                 | who it names; else its namespace's, or all              |
//! | Service, host of a ServiceEntry           | who looked at it, or asked for its name                 |
//! | Pod, EndpointSlice, Node                  | the endpoints of that service, at who looked at it      |
//!
//! What is asked here is asked again when the resources are made, by the same functions
//! (`concerns`), so that what is not marked is not looked at either.

mod concerns;
mod here;
mod intake;
mod keys;
mod labels;
pub(super) mod marks;
mod routes;
mod routing;
mod said;
mod services;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use self::said::By;
use super::table::Table;
use super::{Index, Output, Update, Wish};
use crate::deployer::manifest::{Names, OLD_GATEWAY_NAME};
use crate::jwks::Outcome;
use crate::objects::request_authentication::JwtRule;
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{Gateway, Key, Kind, Labels, Service};
use crate::resource::ResourceType;
use crate::translate::l7::{self, Backend, Policies, Target, TargetPort, Translated, View};

/// What waypoints are made from, and what they came to.
#[derive(Default)]
pub(super) struct L7 {
    pub(super) routing: HashMap<Kind, Table<intake::InForce>>,
    /// By waypoint: what it was made to, and what it was made from.
    pub(super) made: BTreeMap<Key, Made>,
    updates: BTreeMap<Key, Vec<Update>>,
    /// Labels that routes ask of their callers.
    asked: labels::Asked,
    /// The keys of token issuers.
    keys: keys::Keys,
    /// Waypoints that went.
    gone: BTreeSet<Key>,
    /// What was said of whom, so that it can be taken back.
    said: said::Said,
    /// By route of the Gateway API: what its references were looked up in.
    routes: BTreeMap<(Kind, Key), routes::Looked>,
}

/// What a waypoint came to, and what was looked at for it.
#[derive(Default)]
pub(super) struct Made {
    names: BTreeSet<(ResourceType, Arc<str>)>,
    /// The services that it serves, and their host names.
    served: BTreeMap<Key, String>,
    /// Those, and the ones that its routes lead to.
    services: BTreeMap<Key, String>,
    /// VirtualServices that were looked for as delegates, whether or not they are there.
    delegates: BTreeSet<Key>,
    /// Host names that were asked for, whether or not anybody has them.
    hosts: BTreeSet<String>,
}

impl L7 {
    /// What is wrong with which object.
    #[cfg(test)]
    pub(super) fn problems(&self) -> BTreeMap<(Kind, Key), BTreeSet<String>> {
        self.said.all()
    }

    /// The waypoints that are in a namespace, or looked at something of it.
    #[cfg(test)]
    pub(super) fn near(&self, namespace: &str) -> BTreeSet<Key> {
        let in_it = |mut all: Box<dyn Iterator<Item = &Key> + '_>| {
            all.any(|key| *key.namespace == *namespace)
        };
        let near = self.made.iter().filter(|(waypoint, made)| {
            *waypoint.namespace == *namespace
                || in_it(Box::new(made.services.keys()))
                || in_it(Box::new(made.delegates.iter()))
        });
        near.map(|(waypoint, _)| waypoint.clone()).collect()
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.routing.get(&kind).map_or(0, Table::len)
    }

    pub(super) fn keys(&self, kind: Kind) -> HashSet<Key> {
        self.routing
            .get(&kind)
            .into_iter()
            .flat_map(Table::keys)
            .collect()
    }
}

impl Index {
    /// What changed for waypoints since the last call, and which waypoints went.
    pub fn take_l7(&mut self) -> (BTreeMap<Key, Vec<Update>>, BTreeSet<Key>) {
        (
            std::mem::take(&mut self.l7.updates),
            std::mem::take(&mut self.l7.gone),
        )
    }

    /// The waypoint that a pod is one of: which Gateway it was made for, and with its account.
    #[must_use]
    pub fn waypoint_of_instance(&self, pod: &Key, uid: &str, account: &str) -> Option<Key> {
        let pod = self
            .pods
            .get(pod)
            .filter(|pod| *pod.uid == *uid && *pod.service_account == *account)?;
        let key = Key::new(
            pod.key.namespace.clone(),
            pod.labels.get(GATEWAY_NAME)?.as_str(),
        );
        let gateway = self
            .gateways
            .get(&key)
            .filter(|gateway| self.is_waypoint(gateway))?;
        (Names::of(gateway).service_account == account).then_some(key)
    }

    pub(super) fn waypoint(&mut self, key: &Key) {
        let gateway = self
            .gateways
            .get(key)
            .filter(|gateway| self.is_waypoint(gateway))
            .cloned();
        let Some(gateway) = gateway else {
            if self.l7.made.remove(key).is_some() {
                self.l7.gone.insert(key.clone());
                self.l7.updates.remove(key);
            }
            self.say(By::Waypoint(key.clone()), BTreeSet::new());
            return;
        };
        let (translated, looked) = self.translated(&gateway);
        let names: BTreeSet<_> = translated
            .resources
            .iter()
            .map(|(kind, resource)| (*kind, resource.name.clone()))
            .collect();
        let former = self.l7.made.remove(key).unwrap_or_default();
        let gone = former.names.difference(&names).map(|(kind, name)| Update {
            kind: *kind,
            name: name.clone(),
            resource: None,
        });
        let updates = self.l7.updates.entry(key.clone()).or_default();
        updates.extend(gone);
        updates.extend(
            translated
                .resources
                .into_iter()
                .map(|(kind, resource)| present(kind, resource)),
        );
        self.l7.made.insert(key.clone(), Made { names, ..looked });
        self.say(By::Waypoint(key.clone()), translated.problems);
    }

    /// The endpoints of one service alone.
    pub(super) fn waypoint_endpoints(&mut self, key: &Key, service: &Key) {
        let (Some(made), Some(gateway)) = (self.l7.made.get(key), self.gateways.get(key)) else {
            return;
        };
        let Some(host) = made.services.get(service) else {
            return;
        };
        let names = made.names.iter().filter_map(|(kind, name)| {
            let (_, of) = name.rsplit_once('|')?;
            (*kind == ResourceType::Endpoints && of == host).then_some(&**name)
        });
        let looked = RefCell::new(Made::default());
        let lookup = |host: &str| self.look_up(key, &looked, host);
        let backends = |target: &Target, port: &TargetPort| self.backends(target, port);
        let around = Around {
            lookup: &lookup,
            backends: &backends,
            keys: &|_| None,
        };
        let made = l7::endpoints(&self.view(gateway, &around), names);
        let updates = made.into_iter().map(|(kind, one)| present(kind, one));
        let updates: Vec<Update> = updates.collect();
        self.l7
            .updates
            .entry(key.clone())
            .or_default()
            .extend(updates);
    }

    /// All resources, and what was looked at for them.
    fn translated(&self, gateway: &Gateway) -> (Translated, Made) {
        let key = &gateway.source.key;
        let mut found: Vec<&Service> = self
            .services
            .all()
            .map(|(_, service)| service)
            .filter(|service| {
                self.waypoint_of_service(service)
                    .is_some_and(|waypoint| waypoint.key == *key)
            })
            .collect();
        found.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
        let services: Vec<Target> = found
            .into_iter()
            .map(|service| self.target(service))
            .collect();
        let served: BTreeMap<Key, String> = services
            .iter()
            .map(|service| (service.key.clone(), service.host.clone()))
            .collect();
        let pods = self.pods.all().map(|(_, pod)| pod);
        let pods = pods.filter(|pod| {
            self.waypoint_of_pod(pod)
                .is_some_and(|waypoint| waypoint.key == *key)
        });
        let mut addresses: Vec<IpAddr> =
            pods.flat_map(|pod| pod.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        let looked = RefCell::new(Made {
            services: served.clone(),
            served: served.clone(),
            ..Made::default()
        });
        let lookup = |host: &str| self.look_up(key, &looked, host);
        let keys = |rule: &JwtRule| self.keys_of(rule);
        let backends = |target: &Target, port: &TargetPort| self.backends(target, port);
        let around = Around {
            lookup: &lookup,
            backends: &backends,
            keys: &keys,
        };
        let problems = RefCell::new(BTreeSet::new());
        let view = View {
            services,
            pods: addresses,
            routes: self.hosted(key, &served, &looked, &problems),
            policies: self.l7_policies(gateway, &served),
            telemetries: self.telemetries(gateway, &served),
            problems,
            ..self.view(gateway, &around)
        };
        let translated = l7::translate(&view);
        drop(view);
        (translated, looked.into_inner())
    }

    /// Finds a service by its host name, as a waypoint's namespace sees it, and writes down which.
    fn look_up(&self, waypoint: &Key, looked: &RefCell<Made>, host: &str) -> Option<Target> {
        let mut looked = looked.borrow_mut();
        looked.hosts.insert(host.to_owned());
        let key = self
            .service_of_host(host, &waypoint.namespace)
            .or_else(|| self.kubernetes_service(host))?;
        looked.services.insert(key.clone(), host.to_owned());
        self.services.get(&key).map(|service| self.target(service))
    }

    /// A view that has no services yet and no routes: enough for endpoints.
    fn view<'a>(&'a self, gateway: &Gateway, around: &Around<'a>) -> View<'a> {
        let key = &gateway.source.key;
        View {
            mesh: &self.mesh,
            gateway: key.clone(),
            deployment: Names::of(gateway).deployment,
            here: self.here(key),
            labels: pod_labels(gateway),
            services: Vec::new(),
            pods: Vec::new(),
            lookup: around.lookup,
            backends: around.backends,
            keys: around.keys,
            routes: Vec::new(),
            rules: self.rules(),
            policies: Policies::default(),
            families: self
                .services
                .get(key)
                .map(|service| service.families)
                .unwrap_or_default(),
            telemetries: Vec::new(),
            problems: RefCell::default(),
        }
    }
}

/// How a view asks the index.
struct Around<'a> {
    lookup: &'a dyn Fn(&str) -> Option<Target>,
    backends: &'a dyn Fn(&Target, &TargetPort) -> Vec<Backend>,
    keys: &'a dyn Fn(&JwtRule) -> Option<Outcome>,
}

fn present(kind: ResourceType, resource: crate::resource::Resource) -> Update {
    Update {
        kind,
        name: resource.name.clone(),
        resource: Some(resource),
    }
}

/// All that waypoints' resources have of their Gateway.
pub(super) fn told_of(gateway: &Gateway) -> (String, Labels) {
    (Names::of(gateway).deployment, pod_labels(gateway))
}

/// The labels that the deployer gives a waypoint's pods, as far as policies select by them.
fn pod_labels(gateway: &Gateway) -> Labels {
    let mut labels = Labels::from([(GATEWAY_NAME.to_owned(), gateway.source.key.name.to_string())]);
    if gateway.service_account().is_some() {
        labels.insert(
            OLD_GATEWAY_NAME.to_owned(),
            gateway.source.key.name.to_string(),
        );
    }
    labels
}
