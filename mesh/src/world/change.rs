//! How the world changes: every index follows, at a cost that depends on what changes alone.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Entry, Synced, World, pod};
use crate::address::NetworkIp;
use crate::balance::Endpoint;
use crate::policy::{Authorization, PolicyName};
use crate::workload::{NetworkMode, Resource, Service, ServiceKey, Uid, Workload};

impl World {
    /// Adds or replaces a workload or a service.
    pub fn insert(&mut self, resource: Resource) {
        match resource {
            Resource::Workload(workload) => self.insert_workload(*workload),
            Resource::Service(service) => self.insert_service(*service),
        }
    }

    /// Removes the workload or service of this xDS resource name; gives whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if self.workloads.contains_key(name) {
            return self.remove_workload(&Uid::new(name));
        }
        name.split_once('/').is_some_and(|(namespace, hostname)| {
            self.remove_service(&ServiceKey::new(namespace, hostname))
        })
    }

    /// Adds or replaces a workload.
    pub fn insert_workload(&mut self, workload: Workload) {
        let former = self.workloads.get(&workload.uid);
        if former.is_some_and(|former| **former == workload) {
            return;
        }
        let same_access = former.is_some_and(|former| {
            former.policies == workload.policies
                && former.namespace == workload.namespace
                && former.waypoint == workload.waypoint
                && former.identity == workload.identity
                && former.services.keys().eq(workload.services.keys())
        });
        if !same_access {
            self.versions.authorization += 1;
        }
        self.unlink(&workload.uid);
        self.versions.all += 1;
        let workload = Arc::new(workload);
        let uid = &workload.uid;
        for key in addresses(&workload) {
            self.by_address.entry(key).or_default().push(uid.clone());
        }
        self.by_pod
            .entry(pod(&workload.namespace, &workload.name))
            .or_default()
            .push(uid.clone());
        if let Some(hostname) = &workload.hostname {
            self.by_hostname
                .entry(hostname.clone())
                .or_default()
                .push(uid.clone());
        }
        for (key, ports) in &workload.services {
            let endpoint = Endpoint {
                workload: workload.clone(),
                ports: ports.clone(),
            };
            self.services
                .entry(key.clone())
                .or_default()
                .endpoints
                .insert(endpoint);
        }
        self.workloads.insert(uid.clone(), workload);
    }

    /// Removes a workload; gives whether it was there.
    pub fn remove_workload(&mut self, uid: &Uid) -> bool {
        let removed = self.unlink(uid);
        if removed {
            self.versions.all += 1;
            self.versions.authorization += 1;
        }
        removed
    }

    /// Adds or replaces a service.
    pub fn insert_service(&mut self, service: Service) {
        if self
            .service(&service.key)
            .is_some_and(|former| **former == service)
        {
            return;
        }
        let same_access = self.service(&service.key).is_some_and(|former| {
            former.waypoint == service.waypoint
                && former.weighted_waypoints == service.weighted_waypoints
                && former.ingress_use_waypoint == service.ingress_use_waypoint
        });
        if !same_access && self.backed_behind_waypoint(&service.key) {
            self.versions.authorization += 1;
        }
        self.unlink_service(&service.key);
        self.versions.all += 1;
        let service = Arc::new(service);
        let key = &service.key;
        for vip in &service.vips {
            self.vips.insert(vip, key);
        }
        let hostname = key.hostname.clone();
        self.services_by_hostname
            .entry(hostname)
            .or_default()
            .insert(key.clone());
        self.services.entry(key.clone()).or_default().service = Some(service.clone());
    }

    /// Removes a service; gives whether it was there. Its endpoints stay known, in case it returns.
    pub fn remove_service(&mut self, key: &ServiceKey) -> bool {
        let removed = self.unlink_service(key);
        if removed {
            self.versions.all += 1;
            if self.backed_behind_waypoint(key) {
                self.versions.authorization += 1;
            }
        }
        removed
    }

    /// Whether a service leads to a workload that may be one to come to only through its waypoint:
    /// then the service's own ways matter to who may come.
    fn backed_behind_waypoint(&self, key: &ServiceKey) -> bool {
        let mut endpoints = self.endpoints(key).iter();
        endpoints.any(|endpoint| endpoint.workload.waypoint.is_some())
    }

    /// Adds or replaces a policy.
    pub fn insert_policy(&mut self, policy: Authorization) {
        if self
            .policies
            .get(&policy.name)
            .is_some_and(|former| **former == policy)
        {
            return;
        }
        self.policies.insert(policy);
        self.versions.all += 1;
        self.versions.authorization += 1;
    }

    /// Removes a policy; gives whether it was there.
    pub fn remove_policy(&mut self, name: &PolicyName) -> bool {
        let removed = self.policies.remove(name);
        if removed {
            self.versions.all += 1;
            self.versions.authorization += 1;
        }
        removed
    }

    /// Notes that a first complete set of workloads and services, or of policies, has arrived.
    pub fn mark_synced(&mut self, arrived: Synced) {
        let synced = Synced {
            workloads: self.synced.workloads || arrived.workloads,
            policies: self.synced.policies || arrived.policies,
        };
        if synced != self.synced {
            self.synced = synced;
            self.versions.all += 1;
            self.versions.authorization += 1;
        }
    }

    fn unlink(&mut self, uid: &Uid) -> bool {
        let Some(workload) = self.workloads.remove(uid) else {
            return false;
        };
        for key in addresses(&workload) {
            forget(&mut self.by_address, &key, uid);
        }
        forget(
            &mut self.by_pod,
            &pod(&workload.namespace, &workload.name),
            uid,
        );
        if let Some(hostname) = &workload.hostname {
            forget(&mut self.by_hostname, hostname, uid);
        }
        for key in workload.services.keys() {
            if let Some(entry) = self.services.get_mut(key) {
                entry.endpoints.remove(uid);
                self.drop_if_empty(key);
            }
        }
        true
    }

    fn unlink_service(&mut self, key: &ServiceKey) -> bool {
        let service = self
            .services
            .get_mut(key)
            .and_then(|entry| entry.service.take());
        let Some(service) = service else {
            return false;
        };
        for vip in &service.vips {
            self.vips.remove(vip, key);
        }
        if let Some(keys) = self.services_by_hostname.get_mut(&key.hostname) {
            keys.remove(key);
            if keys.is_empty() {
                self.services_by_hostname.remove(&key.hostname);
            }
        }
        self.drop_if_empty(key);
        true
    }

    fn drop_if_empty(&mut self, key: &ServiceKey) {
        let empty = |entry: &Entry| entry.service.is_none() && entry.endpoints.is_empty();
        if self.services.get(key).is_some_and(empty) {
            self.services.remove(key);
        }
    }
}

/// The addresses that a workload is found by: none of a host's, which say nothing about it.
fn addresses(workload: &Workload) -> impl Iterator<Item = NetworkIp> {
    let own = workload.network_mode == NetworkMode::Standard;
    let own = own.then_some(&workload.addresses).into_iter().flatten();
    own.map(|ip| NetworkIp::new(workload.network.clone(), *ip))
}

fn forget<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Vec<Uid>>, key: &K, uid: &Uid) {
    if let Some(uids) = index.get_mut(key) {
        uids.retain(|other| other != uid);
        if uids.is_empty() {
            index.remove(key);
        }
    }
}
