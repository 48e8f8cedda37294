//! What is said of objects, into their statuses: by the waypoints that are made from them, and by
//! themselves. Said once, and taken back when it is no longer so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Index, Wish};
use crate::objects::{Key, Kind};
use crate::status::Verdict;

/// Who says something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    /// A waypoint, of any object.
    Waypoint(Key),
    /// An object of itself.
    Itself((Kind, Key)),
}

/// What was said of which object, and by whom.
#[derive(Default)]
pub(super) struct Said {
    of: BTreeMap<(Kind, Key), BTreeSet<(By, String)>>,
    by: BTreeMap<By, BTreeSet<(Kind, Key, String)>>,
}

impl Said {
    /// Whether something was ever said of an object.
    pub(super) fn knows(&self, object: &(Kind, Key)) -> bool {
        self.of.contains_key(object)
    }

    /// An object went.
    pub(super) fn forget(&mut self, object: &(Kind, Key)) {
        let (kind, key) = object;
        for (by, problem) in self.of.remove(object).unwrap_or_default() {
            if let Some(said) = self.by.get_mut(&by) {
                said.remove(&(*kind, key.clone(), problem));
            }
        }
    }

    /// All that there is to say of an object, whoever says it.
    pub(super) fn problems(&self, object: &(Kind, Key)) -> BTreeSet<String> {
        let said = self.of.get(object).into_iter().flatten();
        said.map(|(_, problem)| problem.clone()).collect()
    }

    /// Everything that is said, whoever says it.
    #[cfg(test)]
    pub(super) fn all(&self) -> BTreeMap<(Kind, Key), BTreeSet<String>> {
        let all = self.of.keys();
        let all = all.map(|object| (object.clone(), self.problems(object)));
        all.filter(|(_, problems)| !problems.is_empty()).collect()
    }

    /// Puts what one says in the place of what it said before; returns of whom it says another thing.
    fn set(&mut self, by: By, problems: BTreeSet<(Kind, Key, String)>) -> BTreeSet<(Kind, Key)> {
        let former = self.by.remove(&by).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for (kind, key, problem) in former.difference(&problems) {
            let object = (*kind, key.clone());
            if let Some(said) = self.of.get_mut(&object) {
                said.remove(&(by.clone(), problem.clone()));
            }
            changed.insert(object);
        }
        for (kind, key, problem) in problems.difference(&former) {
            let object = (*kind, key.clone());
            let said = self.of.entry(object.clone()).or_default();
            said.insert((by.clone(), problem.clone()));
            changed.insert(object);
        }
        if !problems.is_empty() {
            self.by.insert(by, problems);
        }
        changed
    }
}

impl Index {
    /// Takes in all that one has to say now.
    pub(super) fn say(&mut self, by: By, problems: BTreeSet<(Kind, Key, String)>) {
        for object in self.l7.said.set(by, problems) {
            self.wish_of(&object);
        }
    }

    /// What was said of an object before is said of its new version too.
    pub(in crate::index) fn wish_of_known(&mut self, object: (Kind, Key)) {
        if !self.l7.said.problems(&object).is_empty() {
            self.wish_of(&object);
        }
    }

    /// An object went.
    pub(in crate::index) fn forget_said(&mut self, object: (Kind, Key)) {
        self.l7.said.forget(&object);
    }

    fn unwritten_addresses_of(&self, (kind, key): &(Kind, Key)) -> Vec<(String, IpAddr)> {
        if *kind == Kind::ServiceEntry {
            self.unwritten_addresses(key)
        } else {
            Vec::new()
        }
    }

    /// A status is written once there was something to say, and again when there is nothing any more.
    pub(in crate::index) fn wish_of(&mut self, object: &(Kind, Key)) {
        let (kind, key) = object;
        if *kind == Kind::MeshConfig {
            // It has no status.
            for problem in self.l7.said.problems(object) {
                tracing::warn!(config_map = %key, %problem, "the mesh configuration asks for what can't be done");
            }
            return;
        }
        let passed_over: &[String];
        let (source, route) = match kind {
            Kind::AuthorizationPolicy => {
                let policy = self
                    .policies
                    .get(key)
                    .filter(|policy| policy.for_waypoints.is_some());
                let of_waypoints = policy.and_then(|policy| policy.for_waypoints.as_ref());
                passed_over = of_waypoints.map_or(&[], |(policy, _)| &policy.passed_over);
                (policy.map(|policy| policy.source.clone()), None)
            }
            _ => {
                let found = self.l7.routing.get(kind).and_then(|table| table.get(key));
                let found = found.filter(|in_force| in_force.routing.spec.is_ok());
                passed_over = found.map_or(&[], |in_force| &in_force.routing.passed_over);
                let route = found.and_then(|in_force| in_force.routing.route());
                (found.map(|in_force| in_force.routing.source.clone()), route)
            }
        };
        let said = self.l7.said.problems(object);
        let Some(source) = source else { return };
        let verdict = if said.is_empty() {
            Verdict::accepted()
        } else {
            Verdict::invalid(&said)
        };
        self.verdicts.insert(
            object.clone(),
            Wish {
                kind: *kind,
                source,
                route,
                addresses: self.unwritten_addresses_of(object),
                verdict: verdict.for_waypoints().without(passed_over),
            },
        );
    }
}
