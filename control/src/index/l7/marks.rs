//! Which waypoints a change concerns: by what each looked at while it was made.

use std::collections::BTreeSet;

use super::{Index, Output};
use crate::objects::{Key, selects};

impl Index {
    /// The waypoints that look at objects of this namespace.
    pub(in crate::index) fn mark_waypoints_near(&mut self, namespace: &str) {
        let everywhere = namespace == self.mesh.root_namespace;
        let near = self.l7.made.iter().filter(|(key, made)| {
            everywhere || *key.namespace == *namespace || made.namespaces.contains(namespace)
        });
        self.dirty
            .extend(near.map(|(key, _)| Output::Waypoint(key.clone())));
    }

    /// The waypoints that asked what a host name stands for.
    pub(in crate::index) fn mark_waypoints_of_host(&mut self, host: &str) {
        let asked = self
            .l7
            .made
            .iter()
            .filter(|(_, made)| made.hosts.contains(host));
        self.dirty
            .extend(asked.map(|(key, _)| Output::Waypoint(key.clone())));
    }

    pub(in crate::index) fn mark_all_waypoints(&mut self) {
        self.dirty
            .extend(self.l7.made.keys().cloned().map(Output::Waypoint));
    }

    /// Called with the old service in place, and again with the new one.
    pub(in crate::index) fn mark_waypoints_of_service(&mut self, key: &Key) {
        let own = self
            .services
            .get(key)
            .and_then(|service| self.waypoint_of_service(service))
            .map(|waypoint| Output::Waypoint(waypoint.key.clone()));
        let looked = self
            .l7
            .made
            .iter()
            .filter(|(_, made)| made.services.contains(key));
        self.dirty.extend(
            looked
                .map(|(waypoint, _)| Output::Waypoint(waypoint.clone()))
                .chain(own),
        );
    }

    /// The same for a pod: its own waypoint, and the endpoints of its services'.
    pub(in crate::index) fn mark_waypoints_of_pod(&mut self, key: &Key) {
        let Some(pod) = self.pods.get(key) else {
            return;
        };
        let mut marked: BTreeSet<Output> = self
            .waypoint_of_pod(pod)
            .map(|waypoint| Output::Waypoint(waypoint.key.clone()))
            .into_iter()
            .collect();
        let services = self.services.within(&key.namespace).filter(|(_, service)| {
            service
                .selector
                .as_ref()
                .is_some_and(|selector| selects(selector, &pod.labels))
        });
        for (service, found) in services {
            let binding = self
                .waypoint_of_service(found)
                .filter(|waypoint| waypoint.service_account.is_some());
            marked.extend(binding.map(|waypoint| Output::Waypoint(waypoint.key.clone())));
            // Where names are resolved the endpoints are in the cluster itself.
            let inside = found
                .entry
                .as_ref()
                .is_some_and(|of| of.entry.spec.resolution.by_name());
            let looked = self
                .l7
                .made
                .iter()
                .filter(|(_, made)| made.services.contains(&service));
            marked.extend(looked.map(|(waypoint, _)| {
                if inside {
                    Output::Waypoint(waypoint.clone())
                } else {
                    Output::WaypointEndpoints(waypoint.clone())
                }
            }));
        }
        // Where waypoints are for accounts, a service may come to one or leave it with its pods.
        let accounts = self
            .waypoints
            .within(&key.namespace)
            .filter(|(_, waypoint)| waypoint.service_account.is_some());
        marked.extend(accounts.map(|(waypoint, _)| Output::Waypoint(waypoint)));
        self.dirty.extend(marked);
    }

    pub(in crate::index) fn mark_waypoints_of_slice(&mut self, key: &Key) {
        let Some(slice) = self.slices.get(key) else {
            return;
        };
        let looked = self
            .l7
            .made
            .iter()
            .filter(|(_, made)| made.services.contains(&slice.service));
        self.dirty
            .extend(looked.map(|(waypoint, _)| Output::WaypointEndpoints(waypoint.clone())));
    }
}
