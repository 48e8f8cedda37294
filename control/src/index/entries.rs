//! ServiceEntries in the index: each host is a service, and each endpoint a workload.
//!
//! Of several entries of one namespace that claim a host the oldest counts, and a Service of
//! Kubernetes' before all. A host without an address is given one, which is written into the entry's
//! status, as Istio's controller does, and is read from there after a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::recompute::{absent, present};
use super::{Index, Output, Update};
use crate::objects::routing::Spec;
use crate::objects::service::EntryOf;
use crate::objects::service_entry::ServiceEntry;
use crate::objects::waypoint_use::UseWaypoint;
use crate::objects::{Key, Kind, Service};
use crate::resource::{Resource, ResourceType};
use crate::translate::{Mesh, auto_address, entry};

/// What is known of entries beside their objects.
#[derive(Default)]
pub(super) struct Entries {
    /// By service: the entries that claim it, the oldest first.
    claims: BTreeMap<Key, BTreeSet<(i64, Key)>>,
    /// By entry: when it was made, and the services that it claims.
    claimed: HashMap<Key, (i64, BTreeSet<Key>)>,
    /// By host name: the services that entries came to, the oldest first.
    by_host: HashMap<String, BTreeSet<(i64, Key)>>,
    /// Addresses that hosts were given, and whose each is.
    given: HashMap<Key, Vec<IpAddr>>,
    taken: HashMap<IpAddr, Key>,
    /// The names of the workloads that an entry came to.
    names: HashMap<Key, BTreeSet<Arc<str>>>,
}

impl Index {
    /// Takes in what an entry says now.
    pub(super) fn renew_entry(&mut self, key: &Key) {
        let new = self.entry(key);
        let (_, old) = self.withdraw(key);
        let mut touched = old;
        if let Some((created, entry)) = &new {
            let hosts = entry.spec.hosts.iter();
            let services: BTreeSet<Key> = hosts
                .map(|host| Mesh::entry_key(&key.namespace, host))
                .collect();
            for service in &services {
                let claims = self.entries.claims.entry(service.clone()).or_default();
                claims.insert((*created, key.clone()));
            }
            touched.extend(services.iter().cloned());
            self.entries
                .claimed
                .insert(key.clone(), (*created, services));
        }
        for service in &touched {
            self.renew_host(service);
        }
        self.dirty.insert(Output::Entry(key.clone()));
        if new.is_some() && !self.unwritten_addresses(key).is_empty() {
            self.wish_of(&(Kind::ServiceEntry, key.clone()));
        }
    }

    /// Takes an entry's claims back.
    fn withdraw(&mut self, key: &Key) -> (i64, BTreeSet<Key>) {
        let Some((created, services)) = self.entries.claimed.remove(key) else {
            return (0, BTreeSet::new());
        };
        for service in &services {
            if let Some(claims) = self.entries.claims.get_mut(service) {
                claims.remove(&(created, key.clone()));
                if claims.is_empty() {
                    self.entries.claims.remove(service);
                }
            }
        }
        (created, services)
    }

    fn entry(&self, key: &Key) -> Option<(i64, Arc<ServiceEntry>)> {
        let in_force = self.l7.routing.get(&Kind::ServiceEntry)?.get(key)?;
        match in_force.good.as_deref()? {
            Spec::ServiceEntry(entry) => Some((in_force.routing.source.created, entry.clone())),
            _ => None,
        }
    }

    /// Makes a host's service anew: of the oldest entry that claims it.
    fn renew_host(&mut self, service: &Key) {
        let host = self.mesh.host_of(service);
        let winner = self.winner(service);
        let made = winner.and_then(|key| {
            let (created, entry) = self.entry(&key)?;
            let given = self.give(service, &host, &entry);
            let of = EntryOf { object: key, entry };
            Some(Service::of_entry(
                service.clone(),
                &host,
                of,
                created,
                &given,
            ))
        });
        if made.is_none() {
            self.release(service);
        }
        let others = self.entries.by_host.entry(host.clone()).or_default();
        others.retain(|(_, known)| known != service);
        if let Some(made) = &made {
            others.insert((made.created, service.clone()));
        }
        // Which of them the name stands for elsewhere may have changed.
        self.dirty.extend(
            others
                .iter()
                .map(|(_, other)| Output::Service(other.clone())),
        );
        if others.is_empty() {
            self.entries.by_host.remove(&host);
        }
        // Entries that lost or won the host have other endpoints.
        let claims = self.entries.claims.get(service).into_iter().flatten();
        self.dirty
            .extend(claims.map(|(_, entry)| Output::Entry(entry.clone())));
        self.mark_waypoints_of_host(&host);
        self.set_service(service.clone(), made);
    }

    /// Called when a service of Kubernetes' came or went: it is stronger than any entry.
    pub(super) fn renew_shadowed(&mut self, service: &Key) {
        let host = self.mesh.host_of(service);
        let here = Mesh::entry_key(&service.namespace, &host);
        if self.entries.claims.contains_key(&here) {
            self.renew_host(&here);
        }
        let others = self.entries.by_host.get(&host).into_iter().flatten();
        self.dirty
            .extend(others.map(|(_, other)| Output::Service(other.clone())));
        self.mark_waypoints_of_host(&host);
    }

    /// The service of this key, or another that node proxies know by the same name.
    pub(super) fn same_name(&self, key: &Key) -> Option<&Service> {
        let host = self.mesh.host_of(key);
        let own = self
            .kubernetes_service(&host)
            .filter(|own| own.namespace == key.namespace);
        let entry = Mesh::entry_key(&key.namespace, &host);
        let mut all = [Some(key.clone()), own, Some(entry)].into_iter().flatten();
        all.find_map(|key| self.services.get(&key))
    }

    fn winner(&self, service: &Key) -> Option<Key> {
        let host = self.mesh.host_of(service);
        if let Some(own) = self.kubernetes_service(&host)
            && own.namespace == service.namespace
            && self.services.get(&own).is_some()
        {
            return None;
        }
        let claims = self.entries.claims.get(service)?;
        claims.first().map(|(_, key)| key.clone())
    }

    /// `NAME.NAMESPACE.svc.DOMAIN` as Kubernetes' own service.
    pub(super) fn kubernetes_service(&self, host: &str) -> Option<Key> {
        let short = host
            .strip_suffix(&*self.mesh.domain)?
            .strip_suffix(".svc.")?;
        let (name, namespace) = short.split_once('.')?;
        Some(Key::new(namespace, name))
    }

    /// The service that a host name stands for, as seen from a namespace: Kubernetes' own; then what
    /// an entry there says; then the oldest entry that is exported there.
    pub(super) fn service_of_host(&self, host: &str, seen_from: &str) -> Option<Key> {
        let own = self.kubernetes_service(host);
        if let Some(own) = own.filter(|own| self.services.get(own).is_some()) {
            return Some(own);
        }
        let near = Mesh::entry_key(seen_from, host);
        if self.services.get(&near).is_some() {
            return Some(near);
        }
        let all = self.entries.by_host.get(host)?.iter();
        let mut seen = all.map(|(_, key)| key).filter(|key| {
            let of = self
                .services
                .get(key)
                .and_then(|service| service.entry.as_ref());
            of.is_some_and(|of| exported(&of.entry, seen_from))
        });
        seen.next().cloned()
    }

    /// Whether other namespaces mean this service by its host name.
    pub(super) fn is_canonical(&self, service: &Service) -> bool {
        if service.entry.is_none() {
            return true;
        }
        let host = self.mesh.host_of(&service.key);
        let shadowed = self
            .kubernetes_service(&host)
            .is_some_and(|own| self.services.get(&own).is_some());
        let all = self.entries.by_host.get(&host).into_iter().flatten();
        let mut open = all.filter(|(_, key)| {
            let of = self
                .services
                .get(key)
                .and_then(|service| service.entry.as_ref());
            of.is_some_and(|of| of.entry.spec.export_to.iter().all(|to| to != "."))
        });
        !shadowed
            && open
                .next()
                .is_some_and(|(_, oldest)| *oldest == service.key)
    }

    /// The addresses of a host that has none of its own: those in the entry's status, as long as
    /// nobody else has them; else new ones.
    fn give(&mut self, service: &Key, host: &str, entry: &ServiceEntry) -> Vec<IpAddr> {
        if !entry.wants_address(host) {
            self.release(service);
            return Vec::new();
        }
        let free = |address: &IpAddr| {
            self.entries
                .taken
                .get(address)
                .is_none_or(|owner| owner == service)
        };
        let written = entry.given.get(host).filter(|given| given.iter().all(free));
        let former = self.entries.given.get(service);
        let given = written.or(former).cloned().or_else(|| {
            let name = format!("{}/{host}", service.namespace);
            let mut found = auto_address::candidates(&name).filter(|both| both.iter().all(free));
            found.next().map(Vec::from)
        });
        let given = given.unwrap_or_default();
        if self.entries.given.get(service) != Some(&given) {
            self.release(service);
            let taken = given.iter().map(|address| (*address, service.clone()));
            self.entries.taken.extend(taken);
            self.entries.given.insert(service.clone(), given.clone());
        }
        given
    }

    fn release(&mut self, service: &Key) {
        for address in self.entries.given.remove(service).into_iter().flatten() {
            self.entries.taken.remove(&address);
        }
    }

    /// What the status of an entry shall say of its hosts' addresses; empty where it does.
    pub(super) fn unwritten_addresses(&self, key: &Key) -> Vec<(String, IpAddr)> {
        let Some((_, entry)) = self.entry(key) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let mut differs = false;
        for host in &entry.spec.hosts {
            let service = Mesh::entry_key(&key.namespace, host);
            if self.winner(&service).as_ref() != Some(key) {
                continue;
            }
            let given = self.entries.given.get(&service);
            differs |= given.is_some_and(|given| entry.given.get(host) != Some(given));
            let given = given.into_iter().flatten();
            all.extend(given.map(|address| (host.clone(), *address)));
        }
        if differs { all } else { Vec::new() }
    }

    /// The endpoints of an entry, as workloads.
    pub(super) fn entry_workloads(&mut self, key: &Key, updates: &mut Vec<Update>) {
        let made = self.entry(key).map(|(_, entry)| {
            let hosts = entry.spec.hosts.iter().filter(|host| {
                self.winner(&Mesh::entry_key(&key.namespace, host)).as_ref() == Some(key)
            });
            let waypoints = entry.spec.endpoints.iter().map(|endpoint| {
                let asked = UseWaypoint::of(&endpoint.labels, &key.namespace);
                self.waypoint_of_addresses(&asked, &key.namespace)
                    .map(|waypoint| waypoint.address.clone())
            });
            let context = entry::Context {
                hosts: hosts.cloned().collect(),
                policies: self.policies_of(&key.namespace, &entry.labels),
                waypoints: waypoints.collect(),
            };
            let of = EntryOf {
                object: key.clone(),
                entry: entry.clone(),
            };
            let made = entry::workloads(&self.mesh, &of, &context);
            made.into_iter()
                .map(|mut workload| Resource::workload(&mut workload))
                .collect::<Vec<_>>()
        });
        let made = made.unwrap_or_default();
        let names: BTreeSet<Arc<str>> = made.iter().map(|one| one.name.clone()).collect();
        let former = self.entries.names.remove(key).unwrap_or_default();
        for kind in [ResourceType::Address, ResourceType::Workload] {
            updates.extend(former.difference(&names).map(|name| absent(kind, name)));
        }
        for resource in made {
            let alone = resource.workload_alone([]);
            updates.push(present(ResourceType::Address, resource));
            updates.push(present(ResourceType::Workload, alone));
        }
        if !names.is_empty() {
            self.entries.names.insert(key.clone(), names);
        }
    }

    /// The entries of a namespace, or all: whose policies or waypoints may have changed.
    pub(super) fn mark_entries(&mut self, namespace: Option<&str>) {
        let all = self.entries.claimed.keys();
        let near = all.filter(|key| namespace.is_none_or(|namespace| *key.namespace == *namespace));
        self.dirty.extend(near.cloned().map(Output::Entry));
    }
}

fn exported(entry: &ServiceEntry, to: &str) -> bool {
    let said = &entry.spec.export_to;
    said.is_empty() || said.iter().any(|one| one == "*" || one == to)
}
