//! What is dirty → resources, by the pure translations.

use std::collections::BTreeSet;

use super::{Index, Output, Update};
use crate::objects::{EndpointSlice, Key, Labels, Pod, Service, selects};
use crate::resource::{Resource, ResourceType};
use crate::translate::workload::{Context, bare_endpoint, pod, pod_uid};
use crate::translate::{peer, service};

impl Index {
    /// Recomputes what may have changed since the last call.
    pub fn recompute(&mut self) -> Vec<Update> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut updates = Vec::with_capacity(dirty.len());
        for output in &dirty {
            match output {
                Output::Pod(key) => updates.extend(self.pod_resource(key)),
                Output::Slice(key) => self.slice(key, &mut updates),
                Output::Service(key) => updates.push(self.service(key)),
                Output::Entry(key) => self.entry_workloads(key, &mut updates),
                Output::Policy(key) => updates.push(self.policy(key)),
                Output::Peer(key) => updates.push(self.peer(key)),
                Output::StaticStrict => updates.push(self.static_strict()),
                Output::Waypoint(key) => self.waypoint(key),
                Output::WaypointEndpoints(key, _)
                    if dirty.contains(&Output::Waypoint(key.clone())) => {}
                Output::WaypointEndpoints(key, service) => self.waypoint_endpoints(key, service),
                Output::Route(kind, key) => self.route(*kind, key),
            }
        }
        updates
    }

    fn pod_resource(&self, key: &Key) -> [Update; 2] {
        let found = self.pods.get(key);
        let workload = found.and_then(|found| pod(&self.mesh, found, &self.context(found)));
        match workload {
            Some(mut workload) => {
                let address = Resource::workload(&mut workload);
                let alone = address
                    .workload_alone(found.map(|pod| self.told_labels(pod)).unwrap_or_default());
                [
                    present(ResourceType::Address, address),
                    present(ResourceType::Workload, alone),
                ]
            }
            None => [ResourceType::Address, ResourceType::Workload]
                .map(|kind| absent(kind, &pod_uid(&self.mesh, key))),
        }
    }

    fn context<'a>(&'a self, pod: &Pod) -> Context<'a> {
        Context {
            node: self.nodes.get(&pod.node),
            services: self.services_of(pod),
            waypoint: self
                .waypoint_of_pod(pod)
                .map(|waypoint| waypoint.address.clone()),
            policies: self.policies_of(&pod.key.namespace, &pod.labels),
        }
    }

    /// By selector, and by the slices of services that have none.
    fn services_of(&self, pod: &Pod) -> Vec<&Service> {
        let selected = self
            .services
            .within(&pod.key.namespace)
            .map(|(_, service)| service);
        let mut found: Vec<&Service> = selected
            .filter(|service| {
                service
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selects(selector, &pod.labels))
            })
            .collect();
        let slices = self
            .slices_of_pod
            .get(&pod.key)
            .into_iter()
            .flatten()
            .filter_map(|key| self.slices.get(key));
        let by_hand: BTreeSet<&Key> = slices.map(|slice| &slice.service).collect();
        let by_hand = by_hand.into_iter().filter_map(|key| self.services.get(key));
        found.extend(by_hand.filter(|service| service.selector.is_none()));
        found
    }

    /// Those with a selector: a node proxy finds the others by itself.
    pub(super) fn policies_of(&self, own: &str, labels: &Labels) -> Vec<String> {
        let root = &*self.mesh.root_namespace;
        let from_root = self.policies.within(root).filter(|_| root != own);
        let mut names: Vec<String> = from_root
            .chain(self.policies.within(own))
            .filter(|(_, policy)| policy.authorization.is_some())
            .filter(|(_, policy)| {
                policy
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selects(selector, labels))
            })
            .map(|(key, _)| key.to_string())
            .collect();
        names.sort_unstable();
        let own_peers = self.peers.within(own).map(|(_, peer)| &peer.policy);
        names.extend(peer::attached(
            &self.mesh,
            own,
            labels,
            own_peers,
            self.inherited_strict(own),
        ));
        names
    }

    fn inherited_strict(&self, namespace: &str) -> bool {
        let root = &*self.mesh.root_namespace;
        let general = |namespace: &str| {
            self.peers
                .within(namespace)
                .map(|(_, peer)| &peer.policy)
                .filter(|policy| policy.rule.selector.is_none())
        };
        peer::inherited_strict(
            general(root),
            general(namespace).filter(|_| namespace != root),
        )
    }

    fn slice(&mut self, key: &Key, updates: &mut Vec<Update>) {
        let resources = self
            .slices
            .get(key)
            .map(|slice| self.bare_endpoints(slice))
            .unwrap_or_default();
        let names: BTreeSet<_> = resources
            .iter()
            .map(|resource| resource.name.clone())
            .collect();
        let former = self.names_of_slice.remove(key).unwrap_or_default();
        let gone = former.difference(&names);
        updates.extend(gone.map(|name| absent(ResourceType::Address, name)));
        updates.extend(
            resources
                .into_iter()
                .map(|resource| present(ResourceType::Address, resource)),
        );
        if !names.is_empty() {
            self.names_of_slice.insert(key.clone(), names);
        }
    }

    fn bare_endpoints(&self, slice: &EndpointSlice) -> Vec<Resource> {
        let Some(service) = self.services.get(&slice.service) else {
            return Vec::new();
        };
        let workloads = slice
            .addresses
            .iter()
            .map(|endpoint| bare_endpoint(&self.mesh, slice, endpoint, service));
        workloads
            .map(|mut workload| Resource::workload(&mut workload))
            .collect()
    }

    fn service(&self, key: &Key) -> Update {
        match self.same_name(key) {
            Some(found) => {
                let waypoint = self.waypoint_of_service(found);
                let context = service::Context {
                    namespace: self.namespaces.get(&key.namespace),
                    shadowed: !self.is_canonical(found),
                    ingress_use_waypoint: waypoint.is_some() && self.ingress_uses_waypoint(found),
                    waypoint: waypoint.map(|waypoint| waypoint.address.clone()),
                };
                present(
                    ResourceType::Address,
                    Resource::service(&service::service(&self.mesh, found, &context)),
                )
            }
            None => {
                let name = format!("{}/{}", key.namespace, self.mesh.host_of(key));
                absent(ResourceType::Address, &name)
            }
        }
    }

    fn policy(&self, key: &Key) -> Update {
        match self
            .policies
            .get(key)
            .and_then(|policy| policy.authorization.as_ref())
        {
            Some(authorization) => present(
                ResourceType::Authorization,
                Resource::authorization(authorization),
            ),
            None => absent(ResourceType::Authorization, &key.to_string()),
        }
    }

    fn peer(&self, key: &Key) -> Update {
        let found = self.peers.get(key);
        let inherited = self.inherited_strict(&key.namespace);
        match found.and_then(|found| peer::converted(&self.mesh, &found.policy, inherited)) {
            Some(authorization) => present(
                ResourceType::Authorization,
                Resource::authorization(&authorization),
            ),
            None => absent(ResourceType::Authorization, &peer::converted_name(key)),
        }
    }

    fn static_strict(&self) -> Update {
        if self.peers.is_empty() {
            return absent(
                ResourceType::Authorization,
                &peer::static_strict_name(&self.mesh),
            );
        }
        present(
            ResourceType::Authorization,
            Resource::authorization(&peer::static_strict(&self.mesh)),
        )
    }
}

pub(super) fn present(kind: ResourceType, resource: Resource) -> Update {
    Update {
        kind,
        name: resource.name.clone(),
        resource: Some(resource),
    }
}

pub(super) fn absent(kind: ResourceType, name: &str) -> Update {
    Update {
        kind,
        name: name.into(),
        resource: None,
    }
}
