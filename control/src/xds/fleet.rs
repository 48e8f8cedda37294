//! A hub for each waypoint, beside the node proxies': what one waypoint gets no other does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::hub::Hub;
use crate::index::Update;
use crate::objects::Key;

/// The waypoints' hubs, by Gateway.
#[derive(Default)]
pub struct Fleet {
    hubs: Mutex<HashMap<Key, Arc<Hub>>>,
}

impl Fleet {
    /// The hub of a waypoint. It is made where there is none: a waypoint may connect before there
    /// is anything for it.
    #[must_use]
    pub fn hub(&self, waypoint: &Key) -> Arc<Hub> {
        self.hubs
            .lock()
            .entry(waypoint.clone())
            .or_default()
            .clone()
    }

    /// Takes in what changed for waypoints, and forgets those that went; returns how many resources
    /// changed.
    pub fn publish(
        &self,
        updates: BTreeMap<Key, Vec<Update>>,
        gone: &BTreeSet<Key>,
        heard: Instant,
    ) -> usize {
        for waypoint in gone {
            self.hubs.lock().remove(waypoint);
        }
        let changed = updates
            .into_iter()
            .map(|(waypoint, updates)| self.hub(&waypoint).publish(updates, heard));
        changed.sum()
    }

    /// The hubs there are, for the debug view.
    #[must_use]
    pub fn all(&self) -> Vec<(Key, Arc<Hub>)> {
        let mut all: Vec<_> = self
            .hubs
            .lock()
            .iter()
            .map(|(key, hub)| (key.clone(), hub.clone()))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}
