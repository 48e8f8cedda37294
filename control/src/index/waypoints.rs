//! Waypoints in the index: who uses which, and who must be recomputed when one changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Index, Output, Plan, Plans, l7};
use crate::objects::gateway::{CONTROLLER, WAYPOINT_CLASS};
use crate::objects::waypoint_use::{GATEWAY_NAME, UseWaypoint, ingress_use};
use crate::objects::{Gateway, GatewayClass, Key, Labels, Namespace, Pod, Service, selects};
use crate::translate::waypoint::{Allowed, Waypoint};

/// Services and pods, each with the waypoint that it uses.
type Users = BTreeMap<Output, Option<Key>>;

impl Index {
    /// The waypoint that takes what is sent to a service.
    pub(super) fn waypoint_of_service(&self, service: &Service) -> Option<&Waypoint> {
        if service.of_waypoint {
            return None;
        }
        let named = self.named_waypoint(&service.waypoint, &service.key.namespace);
        match named {
            UseWaypoint::Never => None,
            UseWaypoint::Named(key) => self
                .admitting(&key, &service.key.namespace)
                .filter(|waypoint| waypoint.traffic.services()),
            UseWaypoint::Unsaid => self.account_waypoint_of_service(service),
        }
    }

    /// The waypoint that takes what is sent to a pod's own addresses.
    pub(super) fn waypoint_of_pod(&self, pod: &Pod) -> Option<&Waypoint> {
        let namespace = &pod.key.namespace;
        let instance_of = pod.labels.get(GATEWAY_NAME);
        if instance_of.is_some_and(|gateway| {
            self.waypoints
                .get(&Key::new(namespace.clone(), gateway.as_str()))
                .is_some()
        }) {
            return None;
        }
        match self.named_waypoint(&UseWaypoint::of(&pod.labels, namespace), namespace) {
            UseWaypoint::Never => None,
            UseWaypoint::Named(key) => self
                .admitting(&key, namespace)
                .filter(|waypoint| waypoint.traffic.workloads()),
            UseWaypoint::Unsaid => self
                .account_waypoint(namespace, &pod.service_account)
                .filter(|waypoint| waypoint.traffic.workloads()),
        }
    }

    /// The waypoint of what is sent to the own address of an endpoint that is no pod.
    pub(super) fn waypoint_of_addresses(
        &self,
        asked: &UseWaypoint,
        namespace: &Arc<str>,
    ) -> Option<&Waypoint> {
        match self.named_waypoint(asked, namespace) {
            UseWaypoint::Never | UseWaypoint::Unsaid => None,
            UseWaypoint::Named(key) => self
                .admitting(&key, namespace)
                .filter(|waypoint| waypoint.traffic.workloads()),
        }
    }

    /// Whether ingress gateways shall use a service's waypoint: its own label, or its namespace's.
    pub(super) fn ingress_uses_waypoint(&self, service: &Service) -> bool {
        let inherited = || {
            let namespace = self.namespaces.get(&service.key.namespace)?;
            ingress_use(&namespace.labels)
        };
        service
            .ingress_use_waypoint
            .or_else(inherited)
            .unwrap_or_default()
    }

    fn named_waypoint(&self, own: &UseWaypoint, namespace: &Arc<str>) -> UseWaypoint {
        match own {
            UseWaypoint::Unsaid => self
                .namespaces
                .get(namespace)
                .map(|found| match UseWaypoint::of(&found.labels, namespace) {
                    UseWaypoint::Never => UseWaypoint::Unsaid,
                    other => other,
                })
                .unwrap_or_default(),
            said => said.clone(),
        }
    }

    fn admitting(&self, key: &Key, namespace: &str) -> Option<&Waypoint> {
        let none = Labels::new();
        let labels = self
            .namespaces
            .get(namespace)
            .map_or(&none, |found| &found.labels);
        self.waypoints
            .get(key)
            .filter(|waypoint| waypoint.admits(namespace, labels))
    }

    fn account_waypoint(&self, namespace: &str, account: &str) -> Option<&Waypoint> {
        let mut found = self
            .waypoints
            .within(namespace)
            .map(|(_, waypoint)| waypoint);
        found.find(|waypoint| waypoint.service_account.as_deref() == Some(account))
    }

    /// A service whose pods all run as one account goes through that account's waypoint. One with
    /// pods of several accounts does not: no single waypoint may speak for all of them.
    fn account_waypoint_of_service(&self, service: &Service) -> Option<&Waypoint> {
        if !self.has_account_waypoints(&service.key.namespace) {
            return None;
        }
        let selector = service.selector.as_ref()?;
        let pods = self.pods.within(&service.key.namespace).map(|(_, pod)| pod);
        let mut accounts = pods
            .filter(|pod| selects(selector, &pod.labels))
            .map(|pod| &*pod.service_account);
        let account = accounts.next()?;
        if accounts.any(|other| other != account) {
            return None;
        }
        self.account_waypoint(&service.key.namespace, account)
            .filter(|waypoint| waypoint.traffic.services())
    }

    fn has_account_waypoints(&self, namespace: &str) -> bool {
        self.waypoints
            .within(namespace)
            .any(|(_, waypoint)| waypoint.service_account.is_some())
    }

    pub(super) fn set_gateway(&mut self, key: Key, new: Option<Gateway>) {
        let old = self.gateways.get(&key);
        self.plans_changed |= old != new.as_ref();
        let told = |gateway: Option<&Gateway>| {
            let gateway = gateway.filter(|gateway| self.is_waypoint(gateway))?;
            Some(l7::told_of(gateway))
        };
        // Its status is written again and again: nothing is made of that.
        if told(old) != told(new.as_ref()) {
            self.dirty.insert(Output::Waypoint(key.clone()));
        }
        self.gateways.set(&key, new);
        self.renew_waypoint(&key);
    }

    pub(super) fn set_class(&mut self, name: Arc<str>, new: Option<GatewayClass>) {
        self.plans_changed = true;
        match new {
            Some(class) => self.classes.insert(name.clone(), class),
            None => self.classes.remove(&name),
        };
        let of_class: Vec<Key> = self
            .gateways
            .all()
            .filter(|(_, gateway)| *gateway.class() == *name)
            .map(|(key, _)| key)
            .collect();
        for key in of_class {
            self.dirty.insert(Output::Waypoint(key.clone()));
            self.renew_waypoint(&key);
        }
    }

    pub(super) fn note_pod_for_plans(&mut self, concerned: bool) {
        self.plans_changed |= concerned;
    }

    /// The waypoints that shall run, if that may have changed since the last call. A Gateway with
    /// addresses of its own is run by somebody else, one of another class too.
    pub fn take_plans(&mut self) -> Option<Plans> {
        if !std::mem::take(&mut self.plans_changed) {
            return None;
        }
        let mut plans = BTreeMap::new();
        for (key, gateway) in self.gateways.all() {
            let run_by_others = gateway
                .spec
                .as_ref()
                .is_ok_and(|spec| !spec.addresses.is_empty());
            if gateway.terminating || run_by_others || !self.is_waypoint(gateway) {
                continue;
            }
            let ready = self.pods.within(&key.namespace).any(|(_, pod)| {
                pod.ready
                    && pod
                        .labels
                        .get(GATEWAY_NAME)
                        .is_some_and(|name| **name == *key.name)
            });
            let mut gateway = gateway.clone();
            // It changes with every write of the status: nothing that is made depends on it.
            gateway.source.resource_version.clear();
            plans.insert(key, Plan { gateway, ready });
        }
        Some(Arc::new(plans))
    }

    /// Whether a Gateway is of a class of waypoints.
    pub(super) fn is_waypoint(&self, gateway: &Gateway) -> bool {
        let class = gateway.class();
        class == WAYPOINT_CLASS
            || self
                .classes
                .get(class)
                .is_some_and(|class| class.controller == CONTROLLER)
    }

    fn renew_waypoint(&mut self, key: &Key) {
        let new = self.gateways.get(key).and_then(|gateway| {
            Waypoint::of(&self.mesh, gateway, self.classes.get(gateway.class()))
        });
        let old = self.waypoints.get(key);
        if old == new.as_ref() {
            return;
        }
        let mut both = old.into_iter().chain(&new);
        let for_account = both.any(|waypoint| waypoint.service_account.is_some());
        let before = self.users_of_waypoint(key, for_account);
        self.waypoints.set(key, new);
        let after = self.users_of_waypoint(key, for_account);
        self.mark_users(&before, &after);
        self.mark_entries(None);
    }

    /// Whoever names it, whether or not it lets them in; and all of its namespace where it is for
    /// an account, or where its own pods are.
    fn users_of_waypoint(&self, key: &Key, for_account: bool) -> Users {
        let concerned = |own: &UseWaypoint, of: &Key| {
            (for_account && of.namespace == key.namespace)
                || matches!(self.named_waypoint(own, &of.namespace), UseWaypoint::Named(named) if named == *key)
        };
        let instance = |pod: &Pod| {
            pod.key.namespace == key.namespace
                && pod
                    .labels
                    .get(GATEWAY_NAME)
                    .is_some_and(|name| **name == *key.name)
        };
        let services = self
            .services
            .all()
            .filter(|(of, service)| concerned(&service.waypoint, of));
        let pods = self.pods.all().filter(|(of, pod)| {
            instance(pod) || concerned(&UseWaypoint::of(&pod.labels, &of.namespace), of)
        });
        self.users(services, pods)
    }

    /// The services and pods of a namespace, with their waypoints.
    pub(super) fn users_in(&self, namespace: &str) -> Users {
        self.users(self.services.within(namespace), self.pods.within(namespace))
    }

    fn users<'a>(
        &'a self,
        services: impl Iterator<Item = (Key, &'a Service)>,
        pods: impl Iterator<Item = (Key, &'a Pod)>,
    ) -> Users {
        let name = |waypoint: Option<&Waypoint>| waypoint.map(|waypoint| waypoint.key.clone());
        let services = services.map(|(key, service)| {
            let waypoint = self.waypoint_of_service(service);
            (Output::Service(key), name(waypoint))
        });
        let pods = pods.map(|(key, pod)| (Output::Pod(key), name(self.waypoint_of_pod(pod))));
        services.chain(pods).collect()
    }

    /// Marks those that may be told something else of their waypoint, and the waypoints that they left
    /// and came to.
    pub(super) fn mark_users(&mut self, before: &Users, after: &Users) {
        self.dirty.extend(before.keys().cloned());
        for (user, waypoint) in after {
            let former = before.get(user).and_then(Option::as_ref);
            if former != waypoint.as_ref() {
                let both = former.into_iter().chain(waypoint);
                self.dirty.extend(both.cloned().map(Output::Waypoint));
            }
        }
    }

    /// Whether a namespace's new labels may choose another waypoint, or let it use another's.
    pub(super) fn changes_waypoints(&self, name: &Arc<str>, new: Option<&Namespace>) -> bool {
        let labels = |namespace: Option<&Namespace>| {
            namespace
                .map(|namespace| namespace.labels.clone())
                .unwrap_or_default()
        };
        let (old, new) = (labels(self.namespaces.get(name)), labels(new));
        let said = |labels: &Labels| (UseWaypoint::of(labels, name), ingress_use(labels));
        let chosen = |waypoint: &Waypoint| matches!(waypoint.allowed, Allowed::Selector(_));
        said(&old) != said(&new)
            || (old != new && self.waypoints.all().any(|(_, waypoint)| chosen(waypoint)))
    }

    /// Called with the old pod in place, and again with the new one: where waypoints are for
    /// accounts, a service's waypoint depends on who its pods run as.
    pub(super) fn mark_services_of_pod(&mut self, key: &Key) {
        if !self.has_account_waypoints(&key.namespace) {
            return;
        }
        let Some(pod) = self.pods.get(key) else {
            return;
        };
        let services = self.services.within(&key.namespace).filter(|(_, service)| {
            service
                .selector
                .as_ref()
                .is_some_and(|selector| selects(selector, &pod.labels))
        });
        self.dirty
            .extend(services.map(|(key, _)| Output::Service(key)));
    }
}
