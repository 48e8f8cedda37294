//! Which waypoints a service, a pod or a slice concerns: by what each looked at while it was made.

use std::collections::BTreeSet;

use super::{Index, Output};
use crate::objects::{Key, Pod, Service, selects};

/// What of a pod changed, as far as waypoints are concerned.
#[derive(Clone, Copy, Debug)]
pub(in crate::index) struct Moved {
    /// Its labels or its account: services may have got or lost it.
    pub(in crate::index) owner: bool,
    /// Its addresses.
    pub(in crate::index) address: bool,
}

impl Index {
    /// The waypoints that asked what a host name stands for.
    pub(in crate::index) fn mark_waypoints_of_host(&mut self, host: &str) {
        let made = self.l7.made.iter();
        let asked = made.filter(|(_, made)| made.hosts.contains(host));
        self.dirty
            .extend(asked.map(|(key, _)| Output::Waypoint(key.clone())));
    }

    /// Called with the old service in place, and again with the new one.
    pub(in crate::index) fn mark_waypoints_of_service(&mut self, key: &Key) {
        let own = self
            .services
            .get(key)
            .and_then(|service| self.waypoint_of_service(service))
            .map(|waypoint| Output::Waypoint(waypoint.key.clone()));
        // A waypoint's own Service, called like it, has its address families.
        let made = self.l7.made.iter();
        let looked = made.filter(|(own, made)| *own == key || made.services.contains_key(key));
        let looked = looked.map(|(waypoint, _)| Output::Waypoint(waypoint.clone()));
        self.dirty.extend(looked.chain(own));
        self.mark_routes_to(key);
    }

    /// The same for a pod: its own waypoint, and the endpoints of its services'.
    pub(in crate::index) fn mark_waypoints_of_pod(&mut self, key: &Key, moved: Moved) {
        let Some(pod) = self.pods.get(key) else {
            return;
        };
        let own = self
            .waypoint_of_pod(pod)
            .filter(|_| moved.owner || moved.address);
        let mut marked: BTreeSet<Output> = own
            .map(|waypoint| Output::Waypoint(waypoint.key.clone()))
            .into_iter()
            .collect();
        for service in self.services_with(pod) {
            if !moved.owner {
                continue;
            }
            // Where waypoints are for accounts, a service may come to one or leave it with its pods.
            let come = self.waypoint_of_service(service).into_iter();
            let made = self.l7.made.iter();
            let left = made.filter(|(_, made)| made.served.contains_key(&service.key));
            let left = left.filter_map(|(waypoint, _)| self.waypoints.get(waypoint));
            let both = come
                .chain(left)
                .filter(|waypoint| waypoint.service_account.is_some());
            marked.extend(both.map(|waypoint| Output::Waypoint(waypoint.key.clone())));
        }
        marked.extend(self.endpoints_with(pod));
        self.dirty.extend(marked);
    }

    /// The endpoints that a pod on a node stands among, whose locality is the node's.
    pub(in crate::index) fn mark_endpoints_on(&mut self, node: &str) {
        let pods = self.pods_on_node.get(node).into_iter().flatten();
        let pods = pods.filter_map(|key| self.pods.get(key));
        let marked: BTreeSet<Output> = pods.flat_map(|pod| self.endpoints_with(pod)).collect();
        self.dirty.extend(marked);
    }

    pub(in crate::index) fn mark_waypoints_of_slice(&mut self, key: &Key) {
        let Some(slice) = self.slices.get(key) else {
            return;
        };
        // A selector finds the pods without it: then only what is no pod counts.
        let selected = self
            .services
            .get(&slice.service)
            .is_some_and(|service| service.selector.is_some());
        if !selected || !slice.addresses.is_empty() {
            let marked = self.endpoints_of(&slice.service, false);
            self.dirty.extend(marked);
        }
    }

    /// The services that a pod is of, by selector or by a slice.
    fn services_with<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Service> {
        let selected = self.services.within(&pod.key.namespace).filter(|(_, of)| {
            let selector = of.selector.as_ref();
            selector.is_some_and(|selector| selects(selector, &pod.labels))
        });
        let by_hand = self.slices_of_pod.get(&pod.key).into_iter().flatten();
        let by_hand = by_hand.filter_map(|key| self.slices.get(key));
        let by_hand = by_hand.filter_map(|slice| self.services.get(&slice.service));
        let by_hand = by_hand.filter(|service| service.selector.is_none());
        selected.map(|(_, service)| service).chain(by_hand)
    }

    fn endpoints_with(&self, pod: &Pod) -> Vec<Output> {
        let services = self.services_with(pod).flat_map(|service| {
            // Where names are resolved the endpoints are in the cluster itself.
            let of = service.entry.as_ref();
            let inside = of.is_some_and(|of| of.entry.spec.resolution.by_name());
            self.endpoints_of(&service.key, inside)
        });
        services.collect()
    }

    /// A service's endpoints at each waypoint that looked at it.
    fn endpoints_of(&self, service: &Key, inside: bool) -> Vec<Output> {
        let made = self.l7.made.iter();
        let looked = made.filter(|(_, made)| made.services.contains_key(service));
        let outputs = looked.map(|(waypoint, _)| {
            if inside {
                Output::Waypoint(waypoint.clone())
            } else {
                Output::WaypointEndpoints(waypoint.clone(), service.clone())
            }
        });
        outputs.collect()
    }
}
