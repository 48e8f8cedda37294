//! The one task that owns change: reports from the watches → index → hub.
//!
//! Changes that come together are taken together: after the first, it waits until there is quiet
//! for a moment, or a longest time is over. Then what depends on them is recomputed once, and sent
//! once.
//!
//! While changes do not cease, what they cost is sending: each time all clients are sent something,
//! and answer. The more there are, the less often it is done, so that they take no more than a share of
//! a processor. A change after a time without any is sent at once, however many they are.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use crate::authentication::BoundPod;
use crate::ca::permission::{Place, Pods};
use crate::deployer::Plans;
use crate::index::Index;
use crate::jwks::Wanted;
use crate::kubernetes::watch::Report;
use crate::metrics::Metrics;
use crate::objects::{Change, Key, Kind, Object};
use crate::status::writer::Queue;
use crate::xds::fleet::Fleet;
use crate::xds::hub::Hub;

/// After a push this much time goes by for each client before the next: one response and its answer take
/// some 60 µs.
const PER_CLIENT: Duration = Duration::from_millis(3);

/// How long changes are gathered before they are sent.
#[derive(Clone, Copy, Debug)]
pub struct Debounce {
    /// This much quiet ends the gathering.
    pub quiet: Duration,
    /// This much time ends it in any case.
    pub longest: Duration,
}

impl Debounce {
    /// Until when to wait for one more change, at `now`, when the first came at `first`, and they may
    /// be sent from `pace` on.
    fn until(self, first: Instant, now: Instant, pace: Instant) -> Instant {
        (now + self.quiet).max(pace).min(first + self.longest)
    }
}

/// The task's state.
pub struct Pilot {
    index: Arc<RwLock<Index>>,
    hub: Arc<Hub>,
    waypoints: Arc<Fleet>,
    statuses: Arc<Queue>,
    metrics: Arc<Metrics>,
    /// Kinds that were listed in full at least once.
    listed: HashSet<Kind>,
    /// Namespaces that can hold a root certificate.
    namespaces: watch::Sender<BTreeSet<String>>,
    open_namespaces: BTreeSet<String>,
    /// The waypoints that shall run.
    plans: watch::Sender<Plans>,
    /// Counts batches with pods in them.
    pods: watch::Sender<u64>,
    /// The keys of token issuers that shall be fetched.
    keys: watch::Sender<Wanted>,
}

impl Pilot {
    /// A pilot of this index, that publishes to this hub.
    #[must_use]
    pub fn new(
        index: Arc<RwLock<Index>>,
        hub: Arc<Hub>,
        waypoints: Arc<Fleet>,
        statuses: Arc<Queue>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            index,
            hub,
            waypoints,
            statuses,
            metrics,
            listed: HashSet::new(),
            namespaces: watch::Sender::default(),
            open_namespaces: BTreeSet::new(),
            plans: watch::Sender::default(),
            pods: watch::Sender::default(),
            keys: watch::Sender::default(),
        }
    }

    /// Namespaces that are not being deleted.
    #[must_use]
    pub fn namespaces(&self) -> watch::Receiver<BTreeSet<String>> {
        self.namespaces.subscribe()
    }

    /// The waypoints that shall run.
    #[must_use]
    pub fn plans(&self) -> watch::Receiver<Plans> {
        self.plans.subscribe()
    }

    /// Changes when pods did.
    #[must_use]
    pub fn pods(&self) -> watch::Receiver<u64> {
        self.pods.subscribe()
    }

    /// The keys of token issuers that shall be fetched.
    #[must_use]
    pub fn keys(&self) -> watch::Receiver<Wanted> {
        self.keys.subscribe()
    }

    /// Runs until the watches end.
    pub async fn run(mut self, mut reports: mpsc::Receiver<Report>, debounce: Debounce) {
        let mut pace = Instant::now();
        while let Some(first) = reports.recv().await {
            let heard = Instant::now();
            let mut batch = vec![first];
            loop {
                let until = debounce.until(heard, Instant::now(), pace);
                match tokio::time::timeout_at(until.into(), reports.recv()).await {
                    Ok(Some(report)) => batch.push(report),
                    Ok(None) | Err(_) => break,
                }
                // A pile: take it now, so that it does not grow without bound.
                if batch.len() >= crate::kubernetes::watch::QUEUE {
                    break;
                }
            }
            self.take(batch, heard);
            let clients = u32::try_from(self.hub.connected()).unwrap_or(u32::MAX);
            pace = Instant::now() + PER_CLIENT.saturating_mul(clients).min(debounce.longest);
        }
    }

    /// Takes a batch in and publishes what came of it.
    pub fn take(&mut self, batch: Vec<Report>, heard: Instant) {
        let begun = Instant::now();
        self.metrics
            .debounce
            .observe(begun.saturating_duration_since(heard).as_secs_f64());
        let mut pods = false;
        let (updates, (of_waypoints, gone), wishes, plans) = {
            let shared = self.index.clone();
            let mut index = shared.write();
            for report in batch {
                match report {
                    Report::Change(change) => {
                        self.metrics.event(&change);
                        pods |= change.kind() == Kind::Pod;
                        self.note_namespace(&change);
                        index.apply(change);
                    }
                    Report::Listed(kind, exist) => {
                        self.listed.insert(kind);
                        for key in index
                            .keys(kind)
                            .difference(&exist)
                            .cloned()
                            .collect::<Vec<Key>>()
                        {
                            pods |= kind == Kind::Pod;
                            let change = Change::Removed(kind, key);
                            self.note_namespace(&change);
                            index.apply(change);
                        }
                    }
                    Report::Broke(kind) => self.metrics.watch_error(kind),
                    Report::Keys(source, outcome) => index.set_keys(source, outcome),
                }
            }
            // Half of a cluster makes half of the policies: nothing is computed before all is in.
            if self.listed.len() < Kind::ALL.len() {
                let missing = Kind::ALL.into_iter();
                let missing = missing.filter(|kind| !self.listed.contains(kind));
                self.hub.set_missing(missing.map(Kind::name).collect());
                return;
            }
            if let Some(wanted) = index.take_wanted_keys() {
                self.keys.send_replace(wanted);
            }
            // A waypoint that is known from before has keys: it is not told of none at our start.
            if !*self.hub.ready().borrow() && index.waits_for_keys() {
                return;
            }
            let updates = index.recompute();
            let (services, virtual_services) = index.counts();
            let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.services.set(gauge(services));
            self.metrics.virtual_services.set(gauge(virtual_services));
            (
                updates,
                index.take_l7(),
                index.take_wishes(),
                index.take_plans(),
            )
        };
        self.metrics.compute.observe(begun.elapsed().as_secs_f64());
        self.metrics.recomputed.inc_by(updates.len() as u64);
        let changed = self.waypoints.publish(of_waypoints, &gone, heard);
        self.metrics.changed.inc_by(changed as u64);
        let changed = self.hub.publish(updates, heard);
        self.metrics.changed.inc_by(changed as u64);
        if !*self.hub.ready().borrow() {
            let resources = self.hub.store();
            let count = |kind| {
                resources
                    .collection(kind)
                    .map_or(0, |collection| collection.iter().len())
            };
            let [policies, addresses] = crate::resource::ResourceType::ALL.map(count);
            tracing::info!(addresses, policies, "the cluster is known: serving");
        }
        self.hub.set_ready();
        self.statuses.add(wishes);
        if let Some(plans) = plans {
            self.plans.send_if_modified(|known| {
                let differs = *known != plans;
                *known = plans;
                differs
            });
        }
        if pods {
            self.pods.send_modify(|batches| *batches += 1);
        }
        self.namespaces.send_if_modified(|known| {
            let differs = *known != self.open_namespaces;
            if differs {
                known.clone_from(&self.open_namespaces);
            }
            differs
        });
    }

    fn note_namespace(&mut self, change: &Change) {
        match change {
            Change::Applied(Object::Namespace(namespace)) if !namespace.terminating => {
                self.open_namespaces.insert(namespace.name.clone());
            }
            Change::Applied(Object::Namespace(namespace)) => {
                self.open_namespaces.remove(&namespace.name);
            }
            Change::Removed(Kind::Namespace, key) => {
                self.open_namespaces.remove(&*key.name);
            }
            _ => {}
        }
    }
}

impl Pods for Index {
    fn place(&self, namespace: &str, pod: &BoundPod) -> Option<Place> {
        let found = self.pod(&Key::new(namespace, pod.name.as_str()))?;
        (*found.uid == *pod.uid).then(|| Place {
            node: found.node.to_string(),
            service_account: found.service_account.to_string(),
        })
    }

    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        self.pods_on(node)
            .any(|pod| *pod.key.namespace == *namespace && *pod.service_account == *service_account)
    }
}

#[cfg(test)]
mod tests;
