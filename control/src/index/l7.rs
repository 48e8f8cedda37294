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

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use self::here::Seat;
use self::said::By;
use super::table::Table;
use super::{Index, Output, Update, Wish};
use crate::deployer::manifest::{Names, OLD_GATEWAY_NAME};
use crate::jwks::Outcome;
use crate::objects::request_authentication::JwtRule;
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{Gateway, Key, Kind, Labels, Service};
use crate::resource::ResourceType;
use crate::translate::l7::locality::Here;
use crate::translate::l7::{self, Backend, Policies, Target, TargetPort, Translated, View};

/// What waypoints are made from, and what they came to.
#[derive(Default)]
pub(super) struct L7 {
    pub(super) routing: HashMap<Kind, Table<intake::InForce>>,
    /// By waypoint: what it was made to, and what it was made from.
    pub(super) made: BTreeMap<Key, Made>,
    updates: BTreeMap<Seat, Vec<Update>>,
    /// Labels that routes ask of their callers.
    asked: labels::Asked,
    /// The keys of token issuers.
    keys: keys::Keys,
    /// Seats that nobody has any more, or that somebody left for another.
    gone: BTreeSet<Seat>,
    /// What was said of whom, so that it can be taken back.
    said: said::Said,
    /// By route of the Gateway API: what its references were looked up in.
    routes: BTreeMap<(Kind, Key), routes::Looked>,
}

/// What a waypoint came to, and what was looked at for it.
#[derive(Default)]
pub(super) struct Made {
    /// Where its replicas stand.
    places: BTreeSet<Here>,
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
    /// What changed for waypoints since the last call, by seat, and which seats were vacated before it.
    pub fn take_l7(&mut self) -> (BTreeMap<Seat, Vec<Update>>, BTreeSet<Seat>) {
        (
            std::mem::take(&mut self.l7.updates),
            std::mem::take(&mut self.l7.gone),
        )
    }

    /// The waypoint that a pod is one of, by the Gateway it was made for and the account it has, and where it
    /// stands.
    #[must_use]
    pub fn seat_of_instance(&self, pod: &Key, uid: &str, account: &str) -> Option<Seat> {
        let pod = self
            .pods
            .get(pod)
            .filter(|pod| *pod.uid == *uid && *pod.service_account == *account)?;
        self.seat_of(pod)
    }

    pub(super) fn waypoint(&mut self, key: &Key) {
        let gateway = self
            .gateways
            .get(key)
            .filter(|gateway| self.is_waypoint(gateway))
            .cloned();
        let Some(gateway) = gateway else {
            let made = self.l7.made.remove(key);
            self.vacate(key, made.into_iter().flat_map(|made| made.places));
            self.say(By::Waypoint(key.clone()), BTreeSet::new());
            return;
        };
        let places = self.places(&gateway);
        let mut looked = Made::default();
        let told = at_each(&places, |here| {
            let (translated, found) = self.translated(&gateway, here);
            looked = found;
            translated
        });
        let first = told.first().into_iter();
        let names: BTreeSet<_> = first
            .flat_map(|(_, translated)| &translated.resources)
            .map(|(kind, resource)| (*kind, resource.name.clone()))
            .collect();
        let former = self.l7.made.remove(key).unwrap_or_default();
        let left = former.places.difference(&places).cloned();
        self.vacate(key, left.collect::<Vec<_>>());
        let mut problems = BTreeSet::new();
        for (here, translated) in told {
            let updates = self.updates_of(key, &here);
            updates.extend(former.names.difference(&names).map(|(kind, name)| Update {
                kind: *kind,
                name: name.clone(),
                resource: None,
            }));
            updates.extend(
                translated
                    .resources
                    .into_iter()
                    .map(|(kind, resource)| present(kind, resource)),
            );
            problems.extend(translated.problems);
        }
        let made = Made {
            names,
            places,
            ..looked
        };
        self.l7.made.insert(key.clone(), made);
        self.say(By::Waypoint(key.clone()), problems);
    }

    /// Nobody stands there any more.
    fn vacate(&mut self, waypoint: &Key, places: impl IntoIterator<Item = Here>) {
        for here in places {
            let waypoint = waypoint.clone();
            let seat = Seat { waypoint, here };
            self.l7.updates.remove(&seat);
            self.l7.gone.insert(seat);
        }
    }

    fn updates_of(&mut self, waypoint: &Key, here: &Here) -> &mut Vec<Update> {
        let seat = Seat {
            waypoint: waypoint.clone(),
            here: here.clone(),
        };
        self.l7.updates.entry(seat).or_default()
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
        let names: Vec<&str> = names.collect();
        let looked = RefCell::new(Made::default());
        let lookup = |host: &str| self.look_up(key, &looked, host);
        let backends = |target: &Target, port: &TargetPort| self.backends(target, port);
        let around = Around {
            lookup: &lookup,
            backends: &backends,
            keys: &|_| None,
        };
        let told = at_each(&made.places, |here| {
            l7::endpoints(&self.view(gateway, here, &around), names.iter().copied())
        });
        for (here, translated) in told {
            let updates = translated.resources.into_iter();
            self.updates_of(key, &here)
                .extend(updates.map(|(kind, one)| present(kind, one)));
        }
    }

    /// All resources, and what was looked at for them.
    fn translated(&self, gateway: &Gateway, here: Here) -> (Translated, Made) {
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
            ..self.view(gateway, here, &around)
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
    fn view<'a>(&'a self, gateway: &Gateway, here: Here, around: &Around<'a>) -> View<'a> {
        let key = &gateway.source.key;
        View {
            mesh: &self.mesh,
            gateway: key.clone(),
            deployment: Names::of(gateway).deployment,
            here,
            reckoned: Cell::default(),
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

/// What is told at each place; made once for those that do not differ in what it is reckoned from.
fn at_each(
    places: &BTreeSet<Here>,
    mut make: impl FnMut(Here) -> Translated,
) -> Vec<(Here, Translated)> {
    let mut told: Vec<(Here, Translated)> = Vec::with_capacity(places.len());
    for here in places {
        let mut same = told
            .iter()
            .filter(|(other, made)| here.is_told_with(other, made.reckoned));
        let translated = match same.next() {
            Some((_, made)) => made.clone(),
            None => make(here.clone()),
        };
        told.push((here.clone(), translated));
    }
    told
}

fn present(kind: ResourceType, resource: crate::resource::Resource) -> Update {
    Update {
        kind,
        name: resource.name.clone(),
        resource: Some(resource),
    }
}

/// All that waypoints' resources have of their Gateway.
pub(super) fn told_of(gateway: &Gateway) -> (Names, Labels) {
    (Names::of(gateway), pod_labels(gateway))
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
