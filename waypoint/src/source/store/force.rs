//! Putting resources in force: once what they need has come, they become part of the next snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use mesh::workload::{NetworkMode, Workload};

use super::{Slot, Store, own_cell};
use crate::model::cluster::{Cluster, Discovery};
use crate::model::snapshot::{ClusterEntry, Peers, Snapshot};
use crate::source::compile::Compile;
use crate::source::kind::Kind;
use crate::source::references::Reference;

impl<C: Compile> Store<C> {
    /// Until when a resource that was taken waits for what it needs, if it does.
    pub(super) fn waits(&self, reference: &Reference, now: Instant) -> Option<Instant> {
        let (kind, name) = reference;
        let needs = match kind {
            Kind::Cluster => self.clusters.get(name).map(|slot| &slot.needs),
            Kind::Extension => None,
            _ => self.listeners.get(name).map(|slot| &slot.needs),
        };
        let unresolved = self.unresolved.get(name).filter(|_| *kind == Kind::Cluster);
        let missing = needs.and_then(|needs| self.wants.waits_until(needs, now));
        let unresolved = unresolved.copied().filter(|until| *until > now);
        let loading = self.loading.get(reference);
        let loading = loading.filter(|(plugins, until)| {
            *until > now && !plugins.iter().all(|plugin| plugin.is_settled())
        });
        let loading = loading.map(|(_, until)| *until);
        missing.into_iter().chain(unresolved).chain(loading).max()
    }

    /// Puts everything in force that waits for nothing. Whether there was anything.
    pub(super) fn promote(&mut self, now: Instant) -> bool {
        let (waiting, due): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut self.fresh)
            .into_iter()
            .partition(|fresh| self.waits(fresh, now).is_some());
        self.fresh = waiting;
        let any = !due.is_empty();
        for (kind, name) in due {
            self.loading.remove(&(kind, name.clone()));
            let needed = if kind == Kind::Cluster {
                let slot = self.clusters.get_mut(&name);
                let taken = slot.and_then(|slot| Some((slot.next.take()?, slot.needs_before())));
                let Some((cluster, needed)) = taken else {
                    continue;
                };
                let entry = self.entry(&name, cluster);
                self.next.clusters.insert(name, Arc::new(entry));
                needed
            } else {
                let slot = self.listeners.get_mut(&name);
                let taken = slot.and_then(|slot| Some((slot.next.take()?, slot.needs_before())));
                let Some((listener, needed)) = taken else {
                    continue;
                };
                match listener {
                    Some(listener) => drop(self.next.listeners.insert(name, listener)),
                    None => drop(self.next.listeners.remove(&name)),
                }
                needed
            };
            self.release(&needed);
        }
        any
    }

    /// Puts filters in force whose code is there, or won't be.
    pub(super) fn promote_extensions(&mut self, now: Instant) {
        let taken = std::mem::take(&mut self.extensions);
        for (name, extension) in taken {
            let reference = (Kind::Extension, name.clone());
            if self.waits(&reference, now).is_some() {
                self.extensions.insert(name, extension);
                continue;
            }
            self.fresh.remove(&reference);
            self.loading.remove(&reference);
            self.wants.answered(Kind::Extension, &name);
            self.next.extensions.insert(name, extension);
            self.changed.get_or_insert(now);
        }
    }

    /// A cluster with its endpoints, which it keeps where they come from the same place.
    pub(super) fn entry(&mut self, name: &Arc<str>, cluster: Arc<Cluster>) -> ClusterEntry {
        let cell = match &cluster.discovery {
            Discovery::Subscribed(under) => under.clone(),
            _ => own_cell(name),
        };
        let endpoints = self.cells.entry(cell).or_default().clone();
        if let Discovery::Static(set) = &cluster.discovery {
            endpoints.store(set.clone());
        }
        let id = match self.next.clusters.get(name) {
            Some(before) => before.id,
            None => {
                self.next_id += 1;
                self.next_id
            }
        };
        ClusterEntry {
            cluster,
            endpoints,
            id,
        }
    }

    pub(super) fn publish(&mut self) {
        self.next.version += 1;
        self.current.publish(Snapshot {
            version: self.next.version,
            listeners: self.next.listeners.clone(),
            clusters: self.next.clusters.clone(),
            routes: self.next.routes.clone(),
            extensions: self.next.extensions.clone(),
        });
    }
}

impl<T> Slot<T> {
    fn needs_before(&mut self) -> BTreeSet<Reference> {
        std::mem::take(&mut self.needs_now)
    }
}

/// Who is behind which address. A pod on its node's network doesn't hide others there.
pub(super) fn peers(workloads: &BTreeMap<Arc<str>, Arc<Workload>>) -> Peers {
    let mut by_address = HashMap::new();
    for workload in workloads.values() {
        for address in &workload.addresses {
            let own = workload.network_mode == NetworkMode::Standard;
            let place = by_address
                .entry(*address)
                .or_insert_with(|| workload.clone());
            if own && place.network_mode != NetworkMode::Standard {
                *place = workload.clone();
            }
        }
    }
    Peers { by_address }
}
