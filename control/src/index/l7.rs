//! Waypoints' own resources in the index: from which objects each is made, and what it came to.
//!
//! While a waypoint's resources are made it is written down which services were looked at and in
//! which namespaces there were objects that counted. A change of a service or a pod concerns the
//! waypoints that looked at it; one of the routing API those that looked at its namespace, and all
//! where it is the root's. Pods that only come, go or become ready change endpoints alone.

mod keys;
mod labels;
mod marks;
mod routing;
mod said;
mod services;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::table::Table;
use super::{Index, Output, Update, Wish};
use crate::deployer::manifest::{Names, OLD_GATEWAY_NAME};
use crate::objects::request_authentication::JwtRule;
use crate::objects::routing::Spec;
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{Gateway, Key, Kind, Labels, Routing, Service};
use crate::resource::ResourceType;
use crate::status::Verdict;
use crate::translate::l7::{self, Target, TargetPort, Translated, View};

/// What waypoints are made from, and what they came to.
#[derive(Default)]
pub(super) struct L7 {
    pub(super) routing: HashMap<Kind, Table<InForce>>,
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
    said: BTreeMap<(Kind, Key), BTreeSet<(Key, String)>>,
}

/// An object of the routing API, as it is used.
pub(super) struct InForce {
    pub(super) routing: Routing,
    /// The newest version that could be read.
    pub(super) good: Option<Arc<Spec>>,
}

/// What a waypoint came to.
#[derive(Default)]
pub(super) struct Made {
    names: BTreeSet<(ResourceType, Arc<str>)>,
    services: BTreeSet<Key>,
    namespaces: BTreeSet<Arc<str>>,
    /// Host names that were asked for, whether or not anybody has them.
    hosts: BTreeSet<String>,
}

impl L7 {
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
    pub(super) fn set_routing(&mut self, routing: Routing) {
        let (kind, key) = (routing.kind, routing.source.key.clone());
        let table = self.l7.routing.entry(kind).or_default();
        let old = table.get(&key);
        let former = old.and_then(|old| old.good.clone());
        let good = match &routing.spec {
            Ok(spec) => Some(spec.clone()),
            Err(_) => former.clone(),
        };
        let problem = routing.spec.as_ref().err().cloned();
        let same = match (&former, &good) {
            (Some(former), Some(good)) => former == good,
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.ask_labels(former.as_deref(), good.as_deref());
        }
        let table = self.l7.routing.entry(kind).or_default();
        let (source, routing_route) = (routing.source.clone(), routing.route());
        table.set(&key, Some(InForce { routing, good }));
        let route = routing_route;
        if let Some(problem) = problem {
            let stays = if former.is_some() {
                "The version before stays in force"
            } else {
                "Nothing of it is in force"
            };
            let verdict = Verdict::invalid(&BTreeSet::from([problem]));
            let verdict = verdict.instead(stays).for_waypoints();
            let wish = Wish {
                kind,
                source,
                route,
                addresses: Vec::new(),
                verdict,
            };
            self.verdicts.insert((kind, key.clone()), wish);
        } else if route.is_some() || self.l7.said.contains_key(&(kind, key.clone())) {
            // What is wrong with its references is said when it is put to use; what was said of it
            // is to be written to the version that there is now.
            self.wish_of(&(kind, key.clone()));
        }
        if !same && kind == Kind::RequestAuthentication {
            self.want_keys();
        }
        if !same && kind == Kind::ServiceEntry {
            self.renew_entry(&key);
        } else if !same {
            self.mark_waypoints_near(&key.namespace);
        }
    }

    pub(super) fn remove_routing(&mut self, kind: Kind, key: &Key) {
        let Some(table) = self.l7.routing.get_mut(&kind) else {
            return;
        };
        if let Some(old) = table.get(key) {
            let former = old.good.clone();
            table.set(key, None);
            self.ask_labels(former.as_deref(), None);
            self.l7.said.remove(&(kind, key.clone()));
            self.verdicts.remove(&(kind, key.clone()));
            if kind == Kind::RequestAuthentication {
                self.want_keys();
            }
            if kind == Kind::ServiceEntry {
                self.renew_entry(key);
            } else {
                self.mark_waypoints_near(&key.namespace);
            }
        }
    }

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
            .filter(|pod| pod.uid == uid && pod.service_account == account)?;
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
            self.take_back(key);
            return;
        };
        let (translated, looked) = self.translated(&gateway, None);
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
        self.take_back(key);
        self.say(key, translated.problems);
    }

    pub(super) fn waypoint_endpoints(&mut self, key: &Key) {
        let Some(made) = self.l7.made.get(key) else {
            return;
        };
        let Some(gateway) = self.gateways.get(key).cloned() else {
            return;
        };
        let names: Vec<Arc<str>> = made
            .names
            .iter()
            .filter(|(kind, _)| *kind == ResourceType::Endpoints)
            .map(|(_, name)| name.clone())
            .collect();
        let (translated, _) = self.translated(&gateway, Some(&names));
        let updates = self.l7.updates.entry(key.clone()).or_default();
        updates.extend(
            translated
                .resources
                .into_iter()
                .map(|(kind, resource)| present(kind, resource)),
        );
    }

    /// All resources, or the endpoints of these clusters; and what was looked at.
    fn translated(&self, gateway: &Gateway, only: Option<&[Arc<str>]>) -> (Translated, Made) {
        let key = &gateway.source.key;
        let mut found: Vec<&Service> = self
            .services
            .all()
            .map(|(key, _)| key)
            .filter_map(|key| self.services.get(&key))
            .filter(|service| {
                self.waypoint_of_service(service)
                    .is_some_and(|waypoint| waypoint.key == *key)
            })
            .collect();
        found.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
        let pods = self.pods.all().map(|(_, pod)| pod);
        let pods = pods.filter(|pod| {
            self.waypoint_of_pod(pod)
                .is_some_and(|waypoint| waypoint.key == *key)
        });
        let mut addresses: Vec<IpAddr> =
            pods.flat_map(|pod| pod.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        let services: Vec<Target> = found
            .into_iter()
            .map(|service| self.target(service))
            .collect();
        let looked = RefCell::new(Made::default());
        let lookup = |host: &str| {
            let mut looked = looked.borrow_mut();
            looked.hosts.insert(host.to_owned());
            let key = self
                .service_of_host(host, &key.namespace)
                .or_else(|| self.kubernetes_service(host))?;
            looked.namespaces.insert(key.namespace.clone());
            looked.services.insert(key.clone());
            drop(looked);
            self.services.get(&key).map(|service| self.target(service))
        };
        let keys = |rule: &JwtRule| self.keys_of(rule);
        let backends = |target: &Target, port: &TargetPort| self.backends(target, port);
        for service in &services {
            let mut looked = looked.borrow_mut();
            looked.services.insert(service.key.clone());
            looked.namespaces.insert(service.key.namespace.clone());
        }
        let problems = RefCell::new(BTreeSet::new());
        let near: BTreeSet<Arc<str>> = services
            .iter()
            .map(|service| service.key.namespace.clone())
            .chain([key.namespace.clone()])
            .collect();
        let view = View {
            mesh: &self.mesh,
            gateway: key.clone(),
            deployment: Names::of(gateway).deployment,
            labels: pod_labels(gateway),
            pods: addresses,
            lookup: &lookup,
            backends: &backends,
            keys: &keys,
            routes: self.hosted(&near, &looked, &problems),
            rules: self.rules(),
            policies: self.l7_policies(),
            families: self
                .services
                .get(key)
                .map(|service| service.families)
                .unwrap_or_default(),
            access_log: self.access_log(key),
            services,
            problems,
        };
        let translated = match only {
            None => l7::translate(&view),
            Some(clusters) => l7::endpoints(&view, clusters.iter().map(|name| &**name)),
        };
        drop(view);
        (translated, looked.into_inner())
    }
}

fn present(kind: ResourceType, resource: crate::resource::Resource) -> Update {
    Update {
        kind,
        name: resource.name.clone(),
        resource: Some(resource),
    }
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
