//! A hub for each seat of each waypoint, beside the node proxies': what one waypoint gets no other does,
//! and its replicas in another place may get other endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::hub::Hub;
use crate::index::{Seat, Update};

/// The waypoints' hubs.
#[derive(Default)]
pub struct Fleet {
    hubs: Mutex<BTreeMap<Seat, Arc<Hub>>>,
}

impl Fleet {
    /// The hub of a seat. It is made where there is none, and serves nobody before it is told all that
    /// there is: a replica may connect before. To be called while the index says that somebody has this seat
    /// and can't be told otherwise, because a hub that was vacated is nobody's.
    #[must_use]
    pub fn hub(&self, seat: &Seat) -> Arc<Hub> {
        self.hubs.lock().entry(seat.clone()).or_default().clone()
    }

    /// The hub of a seat, if there is one.
    #[must_use]
    pub fn find(&self, seat: &Seat) -> Option<Arc<Hub>> {
        self.hubs.lock().get(seat).cloned()
    }

    /// Takes in what changed for waypoints, after it dismissed the seats that were vacated; returns how many
    /// resources changed.
    pub fn publish(
        &self,
        updates: BTreeMap<Seat, Vec<Update>>,
        gone: &BTreeSet<Seat>,
        heard: Instant,
    ) -> usize {
        for seat in gone {
            if let Some(hub) = self.hubs.lock().remove(seat) {
                hub.dismiss();
            }
        }
        let changed = updates.into_iter().map(|(seat, updates)| {
            let hub = self.hub(&seat);
            let changed = hub.publish(updates, heard);
            hub.set_ready();
            changed
        });
        changed.sum()
    }
}
