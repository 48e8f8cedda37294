//! Objects of the routing API as they come and go: the newest good version of each is in force, what
//! is wrong with a newer one is said in its status, and whom it concerns is marked.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Index, Wish};
use crate::objects::routing::Spec;
use crate::objects::{Key, Kind, Routing, workload_entry};
use crate::status::Verdict;

/// An object of the routing API, as it is used.
pub(in crate::index) struct InForce {
    pub(in crate::index) routing: Routing,
    /// The newest version that could be read.
    pub(in crate::index) good: Option<Arc<Spec>>,
}

impl Index {
    pub(in crate::index) fn set_routing(&mut self, routing: Routing) {
        let (kind, key) = (routing.kind, routing.source.key.clone());
        let table = self.l7.routing.entry(kind).or_default();
        let old = table.get(&key);
        let former = old.and_then(|old| old.good.clone());
        // The oldest of several counts: which it is may change with an object made anew.
        let noted = !routing.passed_over.is_empty()
            || old.is_some_and(|old| !old.routing.passed_over.is_empty());
        let same_age = old.is_none_or(|old| old.routing.source.created == routing.source.created);
        let good = match &routing.spec {
            Ok(spec) => Some(spec.clone()),
            Err(_) => former.clone(),
        };
        let problem = routing.spec.as_ref().err().cloned();
        let same = match (&former, &good) {
            (Some(former), Some(good)) => same_age && former.says_the_same(good),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.ask_labels(former.as_deref(), good.as_deref());
        }
        let concerned = [former.clone(), good.clone()];
        let table = self.l7.routing.entry(kind).or_default();
        let (source, routing_route) = (routing.source.clone(), routing.route());
        table.set(&key, Some(InForce { routing, good }));
        let route = routing_route;
        if let Some(problem) = problem {
            let stays = if former.is_some() {
                "The version before stays in force"
            } else {
                "Nothing of it is in force"
            };
            let verdict = Verdict::invalid(&BTreeSet::from([problem]));
            let verdict = verdict.instead(stays).for_waypoints();
            let wish = Wish {
                kind,
                source,
                route,
                addresses: Vec::new(),
                verdict,
            };
            self.verdicts.insert((kind, key.clone()), wish);
        } else if noted || route.is_some() || self.l7.said.knows(&(kind, key.clone())) {
            // What is wrong with its references is said when it is put to use; what was said of it
            // is to be written to the version that there is now.
            self.wish_of(&(kind, key.clone()));
        }
        if !same && kind == Kind::RequestAuthentication {
            self.want_keys();
        }
        if !same && kind == Kind::ServiceEntry {
            self.renew_entry(&key);
        } else if !same && kind == Kind::WorkloadEntry {
            self.renew_workload_entry(&key);
        } else if !same {
            self.mark_concerned(kind, &key, concerned.iter().flatten());
        }
    }

    pub(in crate::index) fn remove_routing(&mut self, kind: Kind, key: &Key) {
        let Some(table) = self.l7.routing.get_mut(&kind) else {
            return;
        };
        if let Some(old) = table.get(key) {
            let former = old.good.clone();
            table.set(key, None);
            self.ask_labels(former.as_deref(), None);
            self.l7.said.forget(&(kind, key.clone()));
            self.verdicts.remove(&(kind, key.clone()));
            if kind == Kind::RequestAuthentication {
                self.want_keys();
            }
            if kind == Kind::ServiceEntry {
                self.renew_entry(key);
            } else if kind == Kind::WorkloadEntry {
                self.renew_workload_entry(key);
            } else {
                self.mark_concerned(kind, key, former.iter());
            }
        }
    }

    /// A WorkloadEntry is an endpoint like a pod.
    fn renew_workload_entry(&mut self, key: &Key) {
        let table = self.l7.routing.get(&Kind::WorkloadEntry);
        let spec = table.and_then(|table| table.get(key)?.good.as_deref());
        let pod = match spec {
            Some(Spec::WorkloadEntry(pod)) => Some((**pod).clone()),
            _ => None,
        };
        self.set_pod(workload_entry::kept_as(key), pod);
    }
}
