//! What waypoints say of the objects that they are made from: into the objects' statuses, once, and
//! taken back when it is no longer so.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Index, Wish};
use crate::objects::{Key, Kind};
use crate::status::Verdict;

impl Index {
    /// What this waypoint said of objects is taken back, before it says it anew.
    pub(super) fn take_back(&mut self, waypoint: &Key) {
        let mut changed = Vec::new();
        self.l7.said.retain(|object, said| {
            let before = said.len();
            said.retain(|(by, _)| by != waypoint);
            if said.len() < before {
                changed.push(object.clone());
            }
            true
        });
        for object in changed {
            self.wish_of(&object);
        }
    }

    pub(super) fn say(&mut self, waypoint: &Key, problems: BTreeSet<(Kind, Key, String)>) {
        let mut changed = BTreeSet::new();
        for (kind, key, problem) in problems {
            self.l7
                .said
                .entry((kind, key.clone()))
                .or_default()
                .insert((waypoint.clone(), problem));
            changed.insert((kind, key));
        }
        for object in changed {
            self.wish_of(&object);
        }
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
        let (source, route) = match kind {
            Kind::AuthorizationPolicy => {
                let policy = self
                    .policies
                    .get(key)
                    .filter(|policy| policy.for_waypoints.is_some());
                (policy.map(|policy| policy.source.clone()), None)
            }
            _ => {
                let found = self.l7.routing.get(kind).and_then(|table| table.get(key));
                let found = found.filter(|in_force| in_force.routing.spec.is_ok());
                let route = found.and_then(|in_force| in_force.routing.route());
                (found.map(|in_force| in_force.routing.source.clone()), route)
            }
        };
        let said: BTreeSet<String> = self
            .l7
            .said
            .get(object)
            .into_iter()
            .flatten()
            .map(|(_, problem)| problem.clone())
            .collect();
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
                verdict: verdict.for_waypoints(),
            },
        );
    }
}
