//! Taking resources and letting them go: what a change does to what is held. See [`super`] for when
//! that is served.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{FETCH_TIMEOUT, LINGER, LOAD, Raw, Slot, Store, Update, own_cell};
use crate::intake::error::Refused;
use crate::intake::extension;
use crate::model::cluster::Discovery;
use crate::model::wasm::Plugin;
use crate::source::compile::Compile;
use crate::source::kind::Kind;
use crate::source::references::{self, Reference};

/// Filter chains of one listener whose refusal is told in full.
const MOST_NAMED: usize = 8;

impl<C: Compile> Store<C> {
    /// Takes a resource. An error says what of it is refused: all of it, and the last good one
    /// stays, or filter chains of a listener that is served without them.
    pub(super) fn take(&mut self, kind: Kind, update: Update, now: Instant) -> Result<(), String> {
        let Update {
            name,
            version,
            bytes,
        } = update;
        let raw = Raw {
            bytes,
            version,
            taken: now,
        };
        let told = |refused: Refused| refused.to_string();
        match kind {
            Kind::Cluster => {
                if !self.leaving.contains_key(&name) && same(&mut self.clusters, &name, &raw) {
                    return Ok(());
                }
                let cluster = self.compile.cluster(&name, &raw.bytes).map_err(told)?;
                self.leaving.remove(&name);
                let needs = references::of_cluster(&cluster);
                self.refer(&needs, now);
                if let Discovery::StrictDns(_) | Discovery::LogicalDns(_) = cluster.discovery
                    && !self.cells.contains_key(&own_cell(&name))
                {
                    self.unresolved.insert(name.clone(), now + FETCH_TIMEOUT);
                }
                let slots = &mut self.clusters;
                let given_up = put(slots, name.clone(), raw, Arc::new(cluster), needs);
                self.release(&given_up);
                self.fresh.insert((kind, name));
            }
            Kind::Listener => {
                if same(&mut self.listeners, &name, &raw) {
                    return self.wholly(&name);
                }
                let listener = self.compile.listener(&name, &raw.bytes).map_err(told)?;
                let listener = listener.map(Arc::new);
                let plugins = listener.as_deref().map(references::plugins_of);
                self.await_plugins((kind, name.clone()), plugins.unwrap_or_default(), now);
                let needs = listener.as_deref().map(references::of_listener);
                let needs = needs.unwrap_or_default();
                self.refer(&needs, now);
                let slots = &mut self.listeners;
                let given_up = put(slots, name.clone(), raw, listener, needs);
                self.release(&given_up);
                self.fresh.insert((kind, name.clone()));
                self.changed.get_or_insert(now);
                return self.wholly(&name);
            }
            Kind::Endpoints => {
                let set = self.compile.endpoints(&name, &raw.bytes).map_err(told)?;
                let cell = self.cells.entry(name.clone()).or_default();
                cell.store(Arc::new(set));
                return self.keep(kind, name, raw);
            }
            Kind::Routes => {
                let table = self.compile.routes(&name, &raw.bytes).map_err(told)?;
                self.next.routes.insert(name.clone(), Arc::new(table));
                self.changed.get_or_insert(now);
                return self.keep(kind, name, raw);
            }
            Kind::Extension => {
                let extension = self.compile.extension(&name, &raw.bytes).map_err(told)?;
                let plugins = references::plugin_of(&extension);
                self.await_plugins((kind, name.clone()), plugins, now);
                self.extensions.insert(name.clone(), Arc::new(extension));
                self.fresh.insert((kind, name.clone()));
                self.changed.get_or_insert(now);
                // What a registry wants to hear isn't kept where a dump could show it.
                let bytes = extension::without_secrets(raw.bytes);
                return self.keep(kind, name, Raw { bytes, ..raw });
            }
            Kind::Secret => {
                let secret = self.compile.secret(&name, &raw.bytes).map_err(told)?;
                let taken = self.secrets.insert(&name, &secret);
                taken.map_err(|error| error.to_string())?;
                // Keys aren't kept where a dump could show them.
                let bytes = Bytes::new();
                return self.keep(kind, name, Raw { bytes, ..raw });
            }
            Kind::Workload => {
                let workload = self.compile.workload(&name, &raw.bytes).map_err(told)?;
                let workload = Arc::new(workload);
                let before = self.workloads.insert(name, workload.clone());
                self.peers_changed |= before.is_none_or(|before| before != workload);
                return Ok(());
            }
        }
        self.changed.get_or_insert(now);
        Ok(())
    }

    /// Until the code of these is there, what has them isn't served.
    fn await_plugins(&mut self, of: Reference, plugins: Vec<Arc<Plugin>>, now: Instant) {
        let new = plugins.iter().filter(|plugin| plugin.claim());
        self.unclaimed.extend(new.cloned());
        match plugins.is_empty() {
            true => drop(self.loading.remove(&of)),
            false => drop(self.loading.insert(of, (plugins, now + LOAD))),
        }
    }

    /// Whether a listener that was taken is served as a whole; if not, what of it is refused.
    fn wholly(&self, name: &Arc<str>) -> Result<(), String> {
        let taken = self.listeners.get(name).and_then(|slot| slot.next.as_ref());
        let taken = taken.and_then(Option::as_ref);
        let listener = taken.or_else(|| self.next.listeners.get(name));
        match listener.map(|listener| &*listener.refused) {
            None | Some([]) => Ok(()),
            Some(refused) => Err(told_of(refused)),
        }
    }

    pub(super) fn keep(&mut self, kind: Kind, name: Arc<str>, raw: Raw) -> Result<(), String> {
        let reference = (kind, name);
        self.orphans.remove(&reference);
        self.leaves.insert(reference, raw);
        Ok(())
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &Arc<str>, now: Instant) {
        match kind {
            Kind::Cluster => {
                if self.next.clusters.contains_key(name) {
                    self.leaving.entry(name.clone()).or_insert(now + LINGER);
                } else {
                    self.drop_cluster(name);
                }
            }
            Kind::Listener => {
                self.fresh.remove(&(kind, name.clone()));
                self.loading.remove(&(kind, name.clone()));
                if let Some(slot) = self.listeners.remove(name) {
                    self.release(&slot.needs);
                    self.release(&slot.needs_now);
                    self.next.listeners.remove(name);
                    self.changed.get_or_insert(now);
                }
            }
            Kind::Workload => {
                self.peers_changed |= self.workloads.remove(name).is_some();
            }
            Kind::Endpoints | Kind::Routes | Kind::Extension | Kind::Secret => {
                let reference = (kind, name.clone());
                if self.wants.is_wanted(&reference) {
                    self.orphans.insert(reference);
                } else {
                    self.drop_leaf(&reference);
                }
            }
        }
    }

    /// Drops clusters that were removed long enough ago.
    pub(super) fn drop_leaving(&mut self, now: Instant) {
        let gone = self.leaving.iter().filter(|(_, at)| **at <= now);
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.leaving.remove(&name);
            self.drop_cluster(&name);
            self.changed.get_or_insert(now);
        }
    }

    pub(super) fn drop_cluster(&mut self, name: &Arc<str>) {
        self.fresh.remove(&(Kind::Cluster, name.clone()));
        self.unresolved.remove(name);
        self.cells.remove(&own_cell(name));
        self.next.clusters.remove(name);
        if let Some(slot) = self.clusters.remove(name) {
            self.release(&slot.needs);
            self.release(&slot.needs_now);
        }
    }

    pub(super) fn drop_leaf(&mut self, reference: &Reference) {
        self.orphans.remove(reference);
        self.leaves.remove(reference);
        let (kind, name) = reference;
        match kind {
            Kind::Endpoints => drop(self.cells.remove(name)),
            Kind::Secret => self.secrets.remove(name),
            // Nobody names it: the next snapshot will do.
            Kind::Routes => drop(self.next.routes.remove(name)),
            Kind::Extension => {
                self.fresh.remove(reference);
                self.loading.remove(reference);
                self.extensions.remove(name);
                self.next.extensions.remove(name);
            }
            Kind::Cluster | Kind::Listener | Kind::Workload => {}
        }
    }

    pub(super) fn refer(&mut self, needs: &BTreeSet<Reference>, now: Instant) {
        let (leaves, refused, fresh) = (&self.leaves, &self.refused, &self.fresh);
        self.wants.refer(needs, now, |need| {
            let taken = leaves.contains_key(need) && !fresh.contains(need);
            taken || refused.contains_key(need)
        });
    }

    pub(super) fn release(&mut self, needs: &BTreeSet<Reference>) {
        for gone in self.wants.release(needs) {
            if self.orphans.contains(&gone) {
                self.drop_leaf(&gone);
            }
        }
    }
}

/// The first of what is refused, and how much more there is: one plugin may stand in every chain.
fn told_of(refused: &[String]) -> String {
    let (named, more) = refused.split_at(refused.len().min(MOST_NAMED));
    let mut told = named.join("; ");
    if !more.is_empty() {
        let _ = write!(told, "; and {} more", more.len());
    }
    told
}

/// Whether this is what is there already; its version is noted then.
fn same<T>(slots: &mut BTreeMap<Arc<str>, Slot<T>>, name: &Arc<str>, raw: &Raw) -> bool {
    let Some(slot) = slots
        .get_mut(name)
        .filter(|slot| slot.raw.bytes == raw.bytes)
    else {
        return false;
    };
    slot.raw.version.clone_from(&raw.version);
    true
}

/// Puts a resource where its last version stands. Gives the needs of one that never came in force.
fn put<T>(
    slots: &mut BTreeMap<Arc<str>, Slot<T>>,
    name: Arc<str>,
    raw: Raw,
    next: T,
    needs: BTreeSet<Reference>,
) -> BTreeSet<Reference> {
    let Some(slot) = slots.get_mut(&name) else {
        let slot = Slot {
            raw,
            next: Some(next),
            needs,
            needs_now: BTreeSet::new(),
        };
        slots.insert(name, slot);
        return BTreeSet::new();
    };
    slot.raw = raw;
    let before = std::mem::replace(&mut slot.needs, needs);
    match slot.next.replace(next) {
        Some(_never_in_force) => before,
        None => {
            slot.needs_now = before;
            BTreeSet::new()
        }
    }
}
