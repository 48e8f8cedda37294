//! What was taken last of every resource, and the snapshot made of it. Pure but for the cells it
//! publishes in: events and time come in, a snapshot comes out.
//!
//! ```text
//!            compiled                    what it needs is there, or given up
//!  resource ─────────► waiting (next) ───────────────────────────────────────► in force (now)
//!      │ refused                                                                    │ removed
//!      ▼                                                                            ▼
//!  named; the last good one stays                                     clusters stay a moment longer
//! ```
//!
//! The first snapshot comes when clusters, listeners, everything they name and the proxy's own
//! certificate have arrived. After
//! that a push is held for at most [`HOLD`] where something in it still waits: what doesn't is
//! served then. A cluster that goes stays for [`LINGER`]: control planes send clusters before the
//! routes that no longer lead there. An endpoint change touches only its cell.

mod force;
mod take;
mod wants;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use mesh::workload::Workload;

use super::compile::Compile;
use super::kind::Kind;
use super::references::Reference;
use super::secret::Secrets;
use crate::model::cluster::{Cluster, Discovery};
use crate::model::endpoint::EndpointSet;
use crate::model::http::Extension;
use crate::model::listener::Listener;
use crate::model::snapshot::{Current, Snapshot};
use crate::model::wasm::Plugin;
use wants::Wants;

pub use wants::FETCH_TIMEOUT;

/// How long a push is held while something in it waits for its endpoints, routes or secrets.
pub const HOLD: Duration = Duration::from_secs(1);
/// How long a removed cluster stays.
pub const LINGER: Duration = Duration::from_secs(2);
/// How long the code of a plugin is waited for, that has just been met.
pub const LOAD: Duration = Duration::from_secs(60);
/// How often it is looked whether the proxy's own certificate has come, before the first snapshot.
const OWN_CERTIFICATE: Duration = Duration::from_millis(50);

/// Endpoints as they are now.
type Cell = Arc<ArcSwap<EndpointSet>>;

/// Everything that was taken, and where it is published.
#[derive(Debug)]
pub struct Store<C> {
    compile: C,
    secrets: Secrets,
    current: Current,
    /// Kinds of which a first complete response has come.
    arrived: BTreeSet<Kind>,
    wants: Wants,
    clusters: BTreeMap<Arc<str>, Slot<Arc<Cluster>>>,
    listeners: BTreeMap<Arc<str>, Slot<Option<Arc<Listener>>>>,
    /// Filters that were taken but are not in force yet; the raw ones are among the leaves.
    extensions: BTreeMap<Arc<str>, Arc<Extension>>,
    /// Plugins whose code is still to come, by what has them, and until when that is waited for.
    loading: BTreeMap<Reference, (Vec<Arc<Plugin>>, Instant)>,
    /// Plugins that nobody sees to yet.
    unclaimed: Vec<Arc<Plugin>>,
    /// Clusters and listeners that were taken but are not in force yet.
    fresh: BTreeSet<Reference>,
    /// Clusters that were removed, and when they go.
    leaving: BTreeMap<Arc<str>, Instant>,
    /// Clusters whose host names haven't been resolved yet, and until when that is waited for.
    unresolved: BTreeMap<Arc<str>, Instant>,
    /// Resources that others name.
    leaves: BTreeMap<Reference, Raw>,
    /// Those of them that were removed while somebody still named them.
    orphans: BTreeSet<Reference>,
    /// Endpoints by the name they are subscribed to under.
    cells: HashMap<Arc<str>, Cell>,
    workloads: BTreeMap<Arc<str>, Arc<Workload>>,
    refused: BTreeMap<Reference, String>,
    /// The next snapshot, as far as it is decided.
    next: Snapshot,
    next_id: u32,
    /// Since when a change waits for being published.
    changed: Option<Instant>,
    peers_changed: bool,
}

/// One change to the resources of one kind, as one response brings it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which kind.
    pub kind: Kind,
    /// Resources that are new or different.
    pub updated: Vec<Update>,
    /// Names of resources that are gone.
    pub removed: Vec<Arc<str>>,
}

/// A resource as it arrives.
#[derive(Debug, Clone)]
pub struct Update {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Box<str>,
    /// The message.
    pub bytes: Bytes,
}

/// A resource that was refused; its last good version stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its name.
    pub name: Arc<str>,
    /// What is wrong with it.
    pub reason: String,
}

/// A resource as it was taken last, for people to look at.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The message.
    pub bytes: Bytes,
    /// Its version.
    pub version: Box<str>,
    /// When it was taken.
    pub taken: Instant,
}

/// A resource that needs others.
#[derive(Debug)]
struct Slot<T> {
    raw: Raw,
    /// Taken, but not in force yet.
    next: Option<T>,
    /// What `next` needs, or what is in force does.
    needs: BTreeSet<Reference>,
    /// What is in force needs, while there is a `next`.
    needs_now: BTreeSet<Reference>,
}

impl<C: Compile> Store<C> {
    /// A store that has nothing yet.
    #[must_use]
    pub fn new(compile: C, secrets: Secrets, current: Current) -> Self {
        Self {
            compile,
            secrets,
            current,
            arrived: BTreeSet::new(),
            wants: Wants::default(),
            clusters: BTreeMap::new(),
            listeners: BTreeMap::new(),
            extensions: BTreeMap::new(),
            loading: BTreeMap::new(),
            unclaimed: Vec::new(),
            fresh: BTreeSet::new(),
            leaving: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            leaves: BTreeMap::new(),
            orphans: BTreeSet::new(),
            cells: HashMap::new(),
            workloads: BTreeMap::new(),
            refused: BTreeMap::new(),
            next: Snapshot::default(),
            next_id: 0,
            changed: None,
            peers_changed: false,
        }
    }

    /// Takes a change, and gives the resources of it that were refused. Nothing of it is served
    /// before [`Store::settle`], except endpoints of clusters that are served already.
    pub fn apply(&mut self, change: Change, now: Instant) -> Vec<Rejected> {
        let Change {
            kind,
            updated,
            removed,
        } = change;
        // Removals first: a resource that is in both lists is there.
        for name in removed {
            self.refused.remove(&(kind, name.clone()));
            self.remove(kind, &name, now);
            self.wants.answered(kind, &name);
        }
        let mut rejected = Vec::new();
        for update in updated {
            let name = update.name.clone();
            match self.take(kind, update, now) {
                Ok(()) => {
                    self.refused.remove(&(kind, name.clone()));
                    if kind == Kind::Extension {
                        // It has come once it is in force: its code may take longer.
                        let until = now + LOAD;
                        self.wants.postpone(&(kind, name.clone()), until);
                        continue;
                    }
                }
                Err(reason) => {
                    self.refused.insert((kind, name.clone()), reason.clone());
                    let name = name.clone();
                    rejected.push(Rejected { name, reason });
                }
            }
            self.wants.answered(kind, &name);
        }
        self.arrived.insert(kind);
        rejected
    }

    /// Takes what a cluster's host names were resolved to; nothing where that failed, and the last
    /// good endpoints stay.
    pub fn resolved(&mut self, cluster: &Arc<str>, endpoints: Option<EndpointSet>) {
        self.unresolved.remove(cluster);
        if let Some(endpoints) = endpoints
            && self.clusters.contains_key(cluster)
        {
            let cell = self.cells.entry(own_cell(cluster)).or_default();
            cell.store(Arc::new(endpoints));
        }
    }

    /// Publishes what can be served by now. Gives when to ask again, if there is something to wait
    /// for; every change is a reason to ask, too.
    pub fn settle(&mut self, now: Instant) -> Option<Instant> {
        if std::mem::take(&mut self.peers_changed) {
            self.current.publish_peers(force::peers(&self.workloads));
        }
        if !self.arrived.contains(&Kind::Cluster) || !self.arrived.contains(&Kind::Listener) {
            return None;
        }
        if !self.is_ready() && self.secrets.awaits_own() {
            // Whoever connected would be turned away.
            return Some(now + OWN_CERTIFICATE);
        }
        self.drop_leaving(now);
        // First what listeners wait for.
        self.promote_extensions(now);
        let waits = self.fresh.iter().filter_map(|fresh| self.waits(fresh, now));
        let waits = waits.min();
        let hold = match self.changed {
            _ if !self.is_ready() => waits,
            Some(since) => waits.map(|until| until.min(since + HOLD)),
            None => None,
        };
        let hold = hold.filter(|until| *until > now);
        if hold.is_none() {
            let promoted = self.promote(now);
            let changed = self.changed.take().is_some();
            if promoted || changed || !self.is_ready() {
                self.publish();
            }
        }
        let leaving = self.leaving.values().copied();
        leaving.chain(hold.or(waits)).min()
    }

    /// Whether a first complete configuration has been published.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.next.version > 0
    }

    /// The names wanted of a kind that others name.
    #[must_use]
    pub fn wanted(&self, kind: Kind) -> BTreeSet<Arc<str>> {
        self.wants.names(kind)
    }

    /// Plugins whose code is to be seen to, each once.
    pub fn take_plugins(&mut self) -> Vec<Arc<Plugin>> {
        std::mem::take(&mut self.unclaimed)
    }

    /// Clusters whose host names are to be resolved.
    #[must_use]
    pub fn host_names(&self) -> Vec<Arc<Cluster>> {
        let clusters = self.clusters.iter().filter_map(|(name, slot)| {
            let now = || self.next.clusters.get(name).map(|entry| &entry.cluster);
            slot.next.as_ref().or_else(now)
        });
        let by_name = clusters.filter(|cluster| {
            matches!(
                cluster.discovery,
                Discovery::StrictDns(_) | Discovery::LogicalDns(_)
            )
        });
        by_name.cloned().collect()
    }

    /// The kinds of which other names are wanted than when this was asked last.
    pub fn take_changed_wants(&mut self) -> BTreeSet<Kind> {
        self.wants.take_changed()
    }

    /// The resources of a kind as they were taken last, by name. Secrets and workloads are not kept
    /// as they came.
    pub fn resources(&self, kind: Kind) -> Vec<(Arc<str>, Raw)> {
        fn of<T>(slots: &BTreeMap<Arc<str>, Slot<T>>) -> Vec<(Arc<str>, Raw)> {
            let slots = slots.iter();
            slots
                .map(|(name, slot)| (name.clone(), slot.raw.clone()))
                .collect()
        }
        match kind {
            Kind::Cluster => of(&self.clusters),
            Kind::Listener => of(&self.listeners),
            _ => {
                let leaves = self.leaves.iter().filter(|((of, _), _)| *of == kind);
                leaves
                    .map(|((_, name), raw)| (name.clone(), raw.clone()))
                    .collect()
            }
        }
    }

    /// Resources that are refused at present, and why.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<Reference, String> {
        &self.refused
    }

    /// What is known of workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// What compiles.
    pub fn compiler(&self) -> &C {
        &self.compile
    }
}

/// Where a cluster's endpoints are that nobody else can name.
fn own_cell(cluster: &str) -> Arc<str> {
    format!("\0{cluster}").into()
}
